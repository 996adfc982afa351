#!/usr/bin/env python3
"""Signs a message on standard input by OpenDKIM, as a mail server asks its milters to, and prints it signed.

  opendkim_sign.py DIRECTORY KEY-FILE SELECTOR DOMAIN ALGORITHM HEADER/BODY

Starts an opendkim in DIRECTORY, is its mail server for one message (milter protocol 6), and ends it.
"""
import os, socket, struct, subprocess, sys, time

directory, key, selector, domain, algorithm, form = sys.argv[1:]
message = sys.stdin.buffer.read()
place, configuration = os.path.join(directory, "milter"), os.path.join(directory, "milter.conf")
if os.path.exists(place):
    os.remove(place)
with open(configuration, "w") as file:
    file.write(
        f"Mode s\nSocket local:{place}\nDomain {domain}\nSelector {selector}\nKeyFile {key}\nCanonicalization {form}\n"
        f"SignatureAlgorithm {algorithm}\nInternalHosts 127.0.0.1\nRequireSafeKeys no\nPidFile {place}.pid\nSyslog no\n"
    )
path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
filter = subprocess.Popen(["opendkim", "-f", "-x", configuration], env={**os.environ, "PATH": path})


def packet(command, data=b""):
    line.sendall(struct.pack("!I", len(data) + 1) + command + data)


def answer():
    """One packet of the milter: its letter and what follows."""
    size = struct.unpack("!I", exactly(4))[0]
    whole = exactly(size)
    return whole[:1], whole[1:]


def exactly(count):
    got = b""
    while len(got) < count:
        part = line.recv(count - len(got))
        assert part, "opendkim hung up"
        got += part
    return got


def say(command, data=b""):
    packet(command, data)
    letter, _ = answer()
    assert letter == b"c", f"{command}: {letter}"


try:
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(30)
    for _ in range(200):
        try:
            line.connect(place)
            break
        except OSError:
            time.sleep(0.05)
    # Every action may be asked for; every step is told; values keep the blank in front.
    packet(b"O", struct.pack("!III", 6, 0x1FF, 0x100000))
    letter, wanted = answer()
    assert letter == b"O", letter
    _, _, steps = struct.unpack("!III", wanted[:12])
    lead = b"" if steps & 0x100000 else b" "
    say(b"C", b"client.example\x004" + struct.pack("!H", 40000) + b"127.0.0.1\x00")
    say(b"H", b"client.example\x00")
    say(b"M", b"<a@" + domain.encode() + b">\x00")
    say(b"R", b"<ops@ship.example>\x00")
    if not steps & 0x200:
        say(b"T")
    head, _, body = message.partition(b"\r\n\r\n")
    fields = []
    for one in head.split(b"\r\n"):
        if one[:1] in b" \t" and fields:
            fields[-1] += b"\n" + one
        else:
            fields.append(one)
    for field in fields:
        name, _, value = field.partition(b":")
        value = value if lead == b"" else value.removeprefix(lead)
        say(b"L", name + b"\x00" + value + b"\x00")
    say(b"N")
    say(b"B", body)
    packet(b"E")
    added = b""
    while True:
        letter, data = answer()
        if letter in b"ac":
            break
        assert letter in b"ih", f"opendkim wants {letter}"
        data = data[4:] if letter == b"i" else data
        name, value = data.rstrip(b"\x00").split(b"\x00", 1)
        added += name + b":" + lead + value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") + b"\r\n"
    packet(b"Q")
    line.close()
finally:
    filter.kill()
    filter.wait()
assert b"DKIM-Signature" in added, "opendkim signed nothing"
sys.stdout.buffer.write(added + message)
