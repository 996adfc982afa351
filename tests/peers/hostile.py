#!/usr/bin/env python3
"""Clients that mean harm, one after the other, against one listener; an honest one is served meanwhile.

    hostile.py PORT TLS_PORT PID

PORT is a relay, TLS_PORT one with STARTTLS, PID the server's process, whose memory is read. Prints a line for each case, exit 1 when one fails.
"""

import re
import resource
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time

PORT, TLS_PORT, PID = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
failed = []
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))


def memory():
    """Megabytes resident now."""
    with open(f"/proc/{PID}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1)) / 1024


def connect(port=PORT, patience=30):
    return socket.create_connection(("127.0.0.1", port), patience)


def line(s):
    """One whole reply."""
    out = b""
    while True:
        byte = s.recv(1)
        out += byte
        if not byte:
            return out
        if byte == b"\n" and re.search(rb"(^|\n)\d\d\d [^\n]*\n$", out):
            return out


def honest(text="fair"):
    """A message from a well-meaning client; how long it took."""
    begin = time.monotonic()
    with smtplib.SMTP("127.0.0.1", PORT, "fair.test", timeout=20) as smtp:
        smtp.sendmail("a@src.test", ["b@dest.test"], f"Subject: {text}\r\n\r\n{text}\r\n")
    return time.monotonic() - begin


def offer(to, content, **more):
    """Hands a message in; what became of it. Either may be right: what counts is that it is answered."""
    with smtplib.SMTP("127.0.0.1", PORT, "harm.test", timeout=60) as smtp:
        try:
            smtp.sendmail("a@src.test", [to], content, **more)
            return "taken"
        except smtplib.SMTPDataError as error:
            return f"answered {error.smtp_code}"


def case(name):
    def run(body):
        before = memory()
        try:
            told = body() or ""
        except Exception as error:  # a case that breaks is one that failed
            failed.append(name)
            print(f"{name}: FAIL {type(error).__name__}: {error}")
            return
        grown = memory() - before
        if grown > 128:
            failed.append(name)
            print(f"{name}: FAIL it took {grown:.0f} MB")
            return
        print(f"{name}: ok, {grown:.1f} MB more{', ' + told if told else ''}")

    return run


@case("two thousand idle connections")
def _():
    idle = [connect() for _ in range(2000)]
    assert all(line(s).startswith(b"220") for s in idle), "not all were greeted"
    took = honest("beside the idle")
    over = []
    for _ in range(200):
        s = connect()
        over.append((line(s)[:3], s))
    refused = sum(code == b"421" for code, _ in over)
    assert refused >= 100, f"{refused} of 200 beyond the bound were refused"
    for s in idle + [s for _, s in over]:
        s.close()
    for _ in range(100):
        try:
            honest("after the idle")
            break
        except (smtplib.SMTPConnectError, smtplib.SMTPServerDisconnected):
            time.sleep(0.1)
    else:
        raise AssertionError("nobody is served after they left")
    return f"a message beside them took {took:.2f} s"


@case("clients that dribble")
def _():
    slow = [connect() for _ in range(200)]
    for s in slow:
        line(s)
    stop = threading.Event()

    def dribble():
        at = 0
        word = b"EHLO dribble.test\r\nMAIL FROM:<a@src.test>\r\nRCPT TO:<b@dest.test>\r\nDATA\r\n" + b"x" * 100_000
        while not stop.wait(0.02):
            for s in slow:
                try:
                    s.send(word[at : at + 1])
                except OSError:
                    pass
            at += 1

    thread = threading.Thread(target=dribble)
    thread.start()
    try:
        took = max(honest("beside the slow") for _ in range(10))
    finally:
        stop.set()
        thread.join()
    # What each has so far is no session's end: nobody is told 2xx for a message that is not whole.
    for s in slow:
        s.close()
    return f"the slowest message beside them took {took:.2f} s"


@case("a storm of RSET whose replies nobody reads")
def _():
    s = connect()
    s.settimeout(2)
    sent = 0
    try:
        for _ in range(2000):
            s.sendall(b"RSET\r\n" * 1000)
            sent += 1000
    except OSError:
        pass
    told = f"{sent} were taken"
    honest("beside the storm")
    s.close()
    return told


@case("a header of 100,000 fields")
def _():
    told = offer("b@dest.test", "".join(f"X-{n}: y\r\n" for n in range(100_000)) + "\r\nbody\r\n")
    honest("after the flood")
    return told


@case("parts within parts, 20,000 deep, to be made 7-bit")
def _():
    depth = 20_000
    head = "".join(
        f"Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n" for n in range(depth)
    )
    body = f"Subject: bomb\r\nMIME-Version: 1.0\r\n{head}Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xe9\r\n"
    told = offer("c@seven.test", body.encode("utf-8"), mail_options=["BODY=8BITMIME"])
    honest("after the bomb")
    return told


@case("a client that has sent all and closed its half")
def _():
    s = connect()
    line(s)
    s.sendall(b"EHLO half.test\r\nMAIL FROM:<a@src.test>\r\nRCPT TO:<b@dest.test>\r\nDATA\r\nSubject: half\r\n\r\nx\r\n.\r\n")
    s.shutdown(socket.SHUT_WR)
    out = b""
    while chunk := s.recv(4096):
        out += chunk
    assert out.count(b"\r\n250 ") + out.startswith(b"250 ") >= 3 and b"queued" in out, out


@case("renegotiation of TLS 1.2")
def _():
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{TLS_PORT}", "-starttls", "smtp", "-tls1_2", "-crlf"]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    time.sleep(1)
    client.stdin.write(b"R\n")
    client.stdin.flush()
    time.sleep(2)
    client.kill()
    before, asked, after = client.communicate()[0].partition(b"RENEGOTIATING")
    # A handshake shows the certificate's depth: there was one, and no second one.
    assert b"depth=0" in before and asked and b"depth=0" not in after, after
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP("127.0.0.1", TLS_PORT, "fair.test", timeout=20) as smtp:
        smtp.starttls(context=context)
        smtp.sendmail("a@src.test", ["b@dest.test"], "Subject: x\r\n\r\nafter it\r\n")


@case("handshakes that never end")
def _():
    stuck = []
    for _ in range(100):
        s = connect(TLS_PORT)
        line(s)
        s.sendall(b"EHLO stuck.test\r\n")
        line(s)
        s.sendall(b"STARTTLS\r\n")
        assert line(s).startswith(b"220")
        s.sendall(b"\x16\x03\x01\x40\x00")
        stuck.append(s)
    took = honest("beside the stuck")
    for s in stuck:
        s.close()
    return f"a message beside them took {took:.2f} s"


print(f"{len(failed)} failed{': ' + ', '.join(failed) if failed else ''}")
sys.exit(1 if failed else 0)
