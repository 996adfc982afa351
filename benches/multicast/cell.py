#!/usr/bin/env python3
"""One cell of benches/multicast.sh: a sender and its receivers behind a lossy satellite, in network namespaces of their own.

    cell.py RUNNER RECEIVERS LOSS SEED DIRECTORY    what it came to, as a line of JSON

RUNNER is mule, aldis, norm or uftp, and behind a colon what it is told: norm:auto=10,backoff=0  uftp:-R 62 -r 0.8
mule:mtu=1400  aldis:checksum="internet". With aldis:learn=1 a message of another 100 KiB goes before, so that the nodes have heard each other.

Every station is a namespace with one interface, sat0, at 10.1.1.1 (the sender), 10.1.1.2 and so on. The other ends of the veth pairs are in a
namespace of this program, which is the satellite: whatever UDP a station sends waits in a queue of its own for its turn at RATE,
IPv4 header counted, takes DELAY, and is lost to each of the others with the chance LOSS, by a generator for that way and this seed. Nothing
else is carried, and nothing leaves these namespaces.

Time runs from the sender's first datagram until the last receiver has the whole file.
"""
import base64
import ctypes
import glob
import hashlib
import heapq
import json
import os
import random
import re
import select
import smtplib
import socket
import struct
import subprocess
import sys
import time

RATE = 64_000
DELAY = 0.270
SIZE = 102_400
PATIENCE = float(os.environ.get("PATIENCE", "300"))
GROUP = "239.1.1.10"
CLONE_NEWNET = 0x40000000
ETH_IPV4 = 0x0800
UDP = 17


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def address(station):
    return f"10.1.1.{station + 1}"


def hardware(station):
    return f"02:00:00:00:00:{station + 1:02x}"


class Inside:
    """Whatever sockets are made meanwhile are made in this namespace."""

    def __init__(self, name):
        self.name = name

    def enter(self, path):
        with open(path) as there:
            if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"setns {path}")

    def __enter__(self):
        self.back = open("/proc/self/ns/net")
        self.enter(f"/run/netns/{self.name}")

    def __exit__(self, *_):
        ctypes.CDLL(None).setns(self.back.fileno(), CLONE_NEWNET)
        self.back.close()


class Satellite:
    def __init__(self, stations, loss, seed):
        self.loss = loss
        self.hub = f"aldis-{os.getpid()}-hub"
        self.names = [f"aldis-{os.getpid()}-{i}" for i in range(stations)]
        self.made = []
        self.free = [0.0] * stations
        self.chance = {
            (a, b): random.Random(f"{seed} {a} {b}") for a in range(stations) for b in range(stations) if a != b
        }
        self.sent = [0] * stations
        self.datagrams = [0] * stations
        self.other = 0
        self.first = None
        self.last = None
        self.due = []
        self.order = 0
        # Every datagram, as it reaches its queue.
        self.trace = open(os.environ["TRACE"], "w") if "TRACE" in os.environ else None

    def make(self):
        for name in [self.hub, *self.names]:
            ip("netns", "add", name)
            self.made.append(name)
        for i, name in enumerate(self.names):
            ip("-n", self.hub, "link", "add", f"h{i}", "type", "veth", "peer", "name", "sat0", "address", hardware(i), "netns", name)
            ip("-n", self.hub, "link", "set", f"h{i}", "addrgenmode", "none")
            ip("-n", self.hub, "link", "set", f"h{i}", "up", "arp", "off")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "sat0", "addrgenmode", "none")
            ip("-n", name, "link", "set", "sat0", "up")
            ip("-n", name, "address", "add", address(i) + "/24", "dev", "sat0")
            ip("-n", name, "route", "add", "224.0.0.0/4", "dev", "sat0")
            # What a node says to the filter of its interface (docs/satcom.md). Nobody keeps silence here: IGMP passes as it is.
            words = f"ip daddr {address(i)} udp dport {{ 2757, 2758 }} drop"
            chain = "chain word { type filter hook egress device lo priority 0; policy accept; " + words + "; };"
            ip("netns", "exec", name, "nft", "table netdev sat { " + chain + " }")
            for j in range(len(self.names)):
                if j != i:
                    ip("-n", name, "neigh", "replace", address(j), "lladdr", hardware(j), "dev", "sat0", "nud", "permanent")
        self.sockets = []
        with Inside(self.hub):
            for i in range(len(self.names)):
                s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_IPV4))
                s.bind((f"h{i}", ETH_IPV4))
                s.setblocking(False)
                self.sockets.append(s)

    def unmake(self):
        for name in self.made:
            subprocess.run(["ip", "netns", "del", name], check=False)

    def inside(self, station, command, **more):
        return subprocess.Popen(["ip", "netns", "exec", self.names[station], *command], stdin=subprocess.DEVNULL, **more)

    def take(self, station, frame, now):
        packet = frame[14:]
        length = struct.unpack_from("!H", packet, 2)[0]
        if packet[9] != UDP:
            self.other += 1
            return
        if station == 0 and self.first is None:
            self.first = now
        self.last = now
        if self.trace:
            print(f"{now - self.first if self.first else 0:.3f} {station} {length} {packet[28:68].hex()}", file=self.trace)
        self.sent[station] += length
        self.datagrams[station] += 1
        self.free[station] = max(now, self.free[station]) + length * 8 / RATE
        # The checksum has not been filled in yet; none at all is allowed too.
        udp = (packet[0] & 15) * 4
        packet = bytearray(packet[:length])
        if struct.unpack_from("!H", packet, 6)[0] & 0x1FFF == 0:
            packet[udp + 6 : udp + 8] = b"\0\0"
        to = packet[16:20]
        several = to[0] >= 224
        for other in range(len(self.names)):
            if other == station or not (several or to[3] == other + 1):
                continue
            if self.chance[station, other].random() < self.loss:
                continue
            mac = frame[:6] if several else bytes.fromhex(hardware(other).replace(":", ""))
            self.order += 1
            whole = mac + frame[6:14] + packet
            heapq.heappush(self.due, (self.free[station] + DELAY, self.order, other, whole))

    def forget(self):
        """Counts from here on."""
        self.first = None
        self.sent = [0] * len(self.names)
        self.datagrams = [0] * len(self.names)

    def run(self, seconds):
        """Carries for so long."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            while self.due and self.due[0][0] <= now:
                _, _, other, frame = heapq.heappop(self.due)
                try:
                    self.sockets[other].send(frame)
                except OSError as error:
                    print(f"a frame was not delivered: {error}", file=sys.stderr)
            wait = min([until] + [entry[0] for entry in self.due[:1]]) - now
            ready, _, _ = select.select(self.sockets, [], [], max(wait, 0))
            now = time.monotonic()
            for s in ready:
                station = self.sockets.index(s)
                try:
                    while True:
                        frame, where = s.recvfrom(65536)
                        # Not what was put there by this program itself.
                        if where[2] != socket.PACKET_OUTGOING:
                            self.take(station, frame, now)
                except BlockingIOError:
                    pass


def words(text):
    return dict(word.split("=", 1) for word in text.split(",") if word)


class Norm:
    def __init__(self, satellite, directory, content, text):
        self.receivers = len(satellite.names) - 1
        keys = text.split(",") if text else []
        self.processes = []
        for i in range(1, self.receivers + 1):
            out = f"{directory}/{i}"
            command = [os.environ["NORM_BIN"], "hear", str(i + 1), GROUP, out, "0", *keys]
            self.processes.append(satellite.inside(i, command, stdout=subprocess.DEVNULL))
        self.files = [f"{directory}/{i}" for i in range(1, self.receivers + 1)]
        satellite.run(1.0)
        command = [os.environ["NORM_BIN"], "send", "1", GROUP, content, str(self.receivers), *keys]
        self.sender = satellite.inside(0, command, stdout=subprocess.DEVNULL)
        self.processes.append(self.sender)

    def over(self):
        return self.sender.poll() is not None


class Uftp:
    def __init__(self, satellite, directory, content, text):
        self.receivers = len(satellite.names) - 1
        self.processes, self.files = [], []
        for i in range(1, self.receivers + 1):
            os.mkdir(f"{directory}/{i}")
            with open(f"{directory}/{i}.log", "wb") as log:
                command = ["uftpd", "-d", "-q", "-D", f"{directory}/{i}", "-I", "sat0", "-M", GROUP, "-U", f"0x0000000{i + 1:x}"]
                self.processes.append(satellite.inside(i, command, stderr=log))
            self.files.append(f"{directory}/{i}/message")
        satellite.run(1.0)
        clients = ",".join(f"0x0000000{i + 1:x}" for i in range(1, self.receivers + 1))
        command = ["uftp", "-I", "sat0", "-M", GROUP, "-P", "239.1.1.11", "-U", "0x00000001", "-H", clients]
        command += (text or "-R 62 -b 1424 -r 0.8").split() + [content]
        with open(f"{directory}/uftp.log", "wb") as log:
            self.sender = satellite.inside(0, command, stderr=log, stdout=log)
        self.processes.append(self.sender)

    def over(self):
        return self.sender.poll() is not None


class Aldis:
    """Both modes of `aldis run`, one mail with the file attached."""

    def __init__(self, satellite, directory, content, text, mode):
        stations = len(satellite.names)
        self.satellite, self.quiet_s = satellite, 20.0
        keys = {"rate": '"64kbps"', "mtu": "1500"} | words(text)
        learn = keys.pop("learn", None)
        self.processes, self.files = [], []
        key = hashlib.sha256(b"bench").hexdigest()
        for i in range(stations):
            os.mkdir(f"{directory}/{i}")
            profile = f"{directory}/{i}/profile.toml"
            with open(profile, "w") as out:
                out.write(self.profile(i, stations, mode, keys, key))
            os.chmod(profile, 0o600)
            with open(f"{directory}/{i}/log", "wb") as log, open(f"{directory}/{i}/ready", "wb") as ready:
                command = [os.environ["ALDIS_BIN"], "run", "--profile", profile]
                self.processes.append(satellite.inside(i, command, stdout=ready, stderr=log))
            if i > 0:
                self.files.append(f"{directory}/{i}/state/maildir/watch/new/*")
        lines = []
        for i in range(stations):
            lines.append(self.await_ready(f"{directory}/{i}/ready"))
        self.settle()
        relay = next(word for word in lines[0].split() if word.startswith("relay="))[6:]
        host, port = relay.rsplit(":", 1)
        submit = (satellite.names[0], host, int(port), stations)
        if learn:
            self.send(*submit, random.Random(f"before {content}").randbytes(SIZE), 0)
            self.await_all()
            satellite.forget()
        with open(content, "rb") as file:
            self.send(*submit, file.read(), 1)

    def send(self, name, host, port, stations, content, number):
        attached = base64.encodebytes(content).replace(b"\n", b"\r\n")
        mail = (
            b"From: <ops@n0.example>\r\nTo: <watch@n1.example>\r\nSubject: exercise\r\nDate: Sat, 28 Nov 2026 08:00:00 +0000\r\n"
            b"Message-ID: <%d@n0.example>\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n"
            b"Content-Transfer-Encoding: base64\r\n\r\n" % number + attached
        )
        with Inside(name):
            smtp = smtplib.SMTP(host, port, "client.n0.example")
        smtp.sendmail("ops@n0.example", [f"watch@n{i}.example" for i in range(1, stations)], mail)
        smtp.quit()

    def await_all(self):
        """Until everybody has what was sent, and says no more; then it is put away."""
        until = time.monotonic() + PATIENCE
        while not all(glob.glob(pattern) for pattern in self.files) or time.monotonic() - self.satellite.last < 5:
            if time.monotonic() > until:
                raise SystemExit("the message before did not come")
            self.satellite.run(0.2)
        for pattern in self.files:
            for path in glob.glob(pattern):
                os.unlink(path)

    def settle(self):
        """Waits until the nodes have done what they do at a start: many of them share one machine here."""
        used = None
        for _ in range(60):
            before, used = used, 0
            for process in self.processes:
                with open(f"/proc/{process.pid}/stat") as file:
                    words = file.read().rsplit(")", 1)[1].split()
                used += int(words[11]) + int(words[12])
            if before is not None and used - before < 10:
                return
            self.satellite.run(1.0)

    def await_ready(self, path):
        for _ in range(600):
            self.satellite.run(0.05)
            with open(path) as file:
                line = file.read()
            if line.startswith("ready ") and line.endswith("\n"):
                return line
        raise SystemExit(f"{path}: not ready")

    def profile(self, own, stations, mode, keys, key):
        others = [i for i in range(stations) if i != own]
        text = (
            f'[node]\nname = "n{own}"\nhostname = "mail.n{own}.example"\nstate_dir = "state"\nclock = "trusted"\n'
            f'postmaster = "postmaster@n{own}.example"\n[[listener]]\nname = "relay"\nkind = "relay"\n'
            f'address = "127.0.0.1:0"\ntrust = ["127.0.0.0/8"]\n[[route]]\nmatch = "n{own}.example"\nto = "local"\n'
        )
        for i in others:
            text += f'[[route]]\nmatch = "n{i}.example"\nto = "peer:n{i}"\n[[peer]]\nname = "n{i}"\n'
            if mode == "mule":
                text += f'protocol = "mule"\naddresses = ["{address(i)}"]\n'
            else:
                text += f'station = {i}\nprotection = "mac"\nkeys = [{{ id = 0, hex = "{key}" }}]\n'
        kind = "pmul" if mode == "mule" else "multicast"
        groups = f'groups = ["{GROUP}"]\n' if mode == "mule" else f'group = "{GROUP}"\nstation = {own}\n'
        peers = ", ".join(f'"n{i}"' for i in others)
        text += (
            f'[[bearer]]\nname = "sat"\nkind = "{kind}"\ninterface = "{address(own)}"\n{groups}join = "igmp"\nttl = 1\n'
            f'peers = [{peers}]\ndelay = "270ms"\nemcon = "open"\n'
        )
        return text + "".join(f"{name} = {value}\n" for name, value in keys.items())

    def payload_bytes(self, directory):
        """What the node says it sent."""
        with open(f"{directory}/0/log") as log:
            found = re.findall(r"transfer-frozen.* payload_bytes=(\d+)", log.read())
        return int(found[-1]) if found else None

    def over(self):
        last = self.satellite.last
        return last is not None and time.monotonic() - last > self.quiet_s


def main():
    runner, receivers, loss, seed, directory = sys.argv[1:6]
    name, _, text = runner.partition(":")
    receivers, loss = int(receivers), float(loss)
    os.makedirs(directory, exist_ok=True)
    directory = os.path.realpath(directory)
    content = f"{directory}/message"
    data = random.Random(f"content {seed}").randbytes(SIZE)
    with open(content, "wb") as file:
        file.write(data)
    satellite = Satellite(receivers + 1, loss, seed)
    running, whole_at, sent = None, None, None
    try:
        satellite.make()
        if name == "norm":
            running = Norm(satellite, directory, content, text)
        elif name == "uftp":
            running = Uftp(satellite, directory, content, text)
        else:
            running = Aldis(satellite, directory, content, text, name)
        missing = set(running.files)
        looked = {}
        until = time.monotonic() + PATIENCE
        while missing and time.monotonic() < until:
            satellite.run(0.02)
            for pattern in list(missing):
                for path in glob.glob(pattern):
                    # A mail is there by renaming, whole; a file of UFTP grows where it is.
                    if name in ("norm", "uftp"):
                        status = os.stat(path)
                        if looked.get(path) == (status.st_mtime_ns, status.st_size):
                            continue
                        looked[path] = (status.st_mtime_ns, status.st_size)
                        with open(path, "rb") as file:
                            if file.read() != data:
                                continue
                    missing.discard(pattern)
        if not missing:
            whole_at = time.monotonic()
            sent = list(satellite.sent)
        # Until the sender knows, and says no more.
        while time.monotonic() < until and not running.over():
            satellite.run(0.2)
    finally:
        for process in running.processes if running else []:
            process.terminate()
        for process in running.processes if running else []:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        satellite.unmake()
    if name in ("mule", "aldis") and whole_at is not None:
        for pattern in running.files:
            for path in glob.glob(pattern):
                with open(path, "rb") as file:
                    body = file.read().replace(b"\r\n", b"\n").split(b"\n\n", 1)[1]
                assert base64.b64decode(body) == data, f"{path} is not what was sent"
    print(json.dumps({
        "runner": runner,
        "receivers": receivers,
        "loss": loss,
        "seed": int(seed),
        "payload_bytes": running.payload_bytes(directory) if name in ("mule", "aldis") else SIZE,
        "whole_s": None if whole_at is None else round(whole_at - satellite.first, 3),
        "sender_bytes": None if sent is None else sent[0],
        "all_bytes": None if sent is None else sum(sent),
        "sender_bytes_end": satellite.sent[0],
        "all_bytes_end": sum(satellite.sent),
        "datagrams": satellite.datagrams,
        "over_s": None if satellite.first is None else round(satellite.last - satellite.first, 3),
        "not_udp": satellite.other,
    }))


if __name__ == "__main__":
    main()
