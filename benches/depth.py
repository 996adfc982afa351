#!/usr/bin/env python3
"""One start of benches/depth.sh: a node on a full store, a next hop that takes its time, and one FLASH.

    depth.py ALDIS DIRECTORY DEPTH      prints one line

DIRECTORY/state is the store. The next hop answers the end of each message after PAUSE seconds, on every connection, and notes the order in which
messages came.
"""
import os
import smtplib
import socket
import socketserver
import subprocess
import sys
import threading
import time

PAUSE = 0.2
PROFILE = """
[node]
name = "depth"
hostname = "depth.test"
state_dir = "{work}/state"
socket = "{work}/aldis.sock"

[[listener]]
name = "relay"
kind = "relay"
address = "127.0.0.1:{port}"
trust = ["127.0.0.0/8"]
max_precedence = "flash"

[[route]]
match = "*"
to = "smtp:127.0.0.1:{hop}"
"""
came = []


class Hop(socketserver.StreamRequestHandler):
    """As much of SMTP as a client that was told nothing of extensions needs."""

    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")

    def handle(self):
        self.say("220 hop.test")
        for line in self.rfile:
            verb = line[:4].upper()
            if verb == b"QUIT":
                return self.say("221 bye")
            if verb != b"DATA":
                self.say("250 ok")
                continue
            self.say("354 go on")
            flash = False
            for part in self.rfile:
                flash |= part.startswith(b"Subject: flash")
                if part == b".\r\n":
                    break
            came.append((time.monotonic(), flash))
            time.sleep(PAUSE)
            self.say("250 taken")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def memory(process):
    """Peak of its resident set, in MB."""
    with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1000


def forget(place):
    """Has the kernel drop what it keeps of the store in memory, as after a boot."""
    for name in os.listdir(place):
        with open(f"{place}/{name}", "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def accepting(port):
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as s:
                if s.recv(3) == b"220":
                    return
        except OSError:
            time.sleep(0.005)


def main():
    program, work, depth = sys.argv[1:]
    hop = Server(("127.0.0.1", 0), Hop)
    threading.Thread(target=hop.serve_forever, daemon=True).start()
    port = free_port()
    with open(f"{work}/depth.toml", "w", encoding="ascii") as profile:
        profile.write(PROFILE.format(work=work, port=port, hop=hop.server_address[1]))
    forget(f"{work}/state")
    begin = time.monotonic()
    with open(f"{work}/log", "w", encoding="utf-8") as log:
        node = subprocess.Popen([program, "run", "--profile", f"{work}/depth.toml"], stdout=subprocess.DEVNULL, stderr=log)
    try:
        accepting(port)
        ready = time.monotonic() - begin
        while not came:
            time.sleep(0.01)
        first = came[0][0] - begin
        time.sleep(5)
        with smtplib.SMTP("127.0.0.1", port, local_hostname="client.test") as client:
            body = "From: a@src.test\r\nTo: b@dest.test\r\nSubject: flash\r\n\r\nnow\r\n"
            client.sendmail("a@src.test", ["b@dest.test"], body, mail_options=["MT-PRIORITY=4"])
        taken = time.monotonic()
        while not any(flash for _, flash in came):
            time.sleep(0.005)
        flash = next(at for at, flash in came if flash)
        between = sum(1 for at, other in came if not other and taken < at < flash)
        time.sleep(5)
        print(
            f"{depth} messages: accepting after {ready:.2f} s, the first one out after {first:.2f} s, FLASH out"
            f" {1000 * (flash - taken):.0f} ms after its 250 with {between} others between, {memory(node):.0f} MB at most,"
            f" {len(came) / (time.monotonic() - begin):.0f} out per s"
        )
    finally:
        node.terminate()
        node.wait()


main()
