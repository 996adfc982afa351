#!/usr/bin/env python3
"""Clients that mean harm, one after the other, against every kind of listener; an honest one is served meanwhile.

    hostile.py PID KIND=PORT...

KIND: relay, secure (a relay with STARTTLS), submission (user jack, password "secret") and lmtp. PID is the server's process: the most
memory it has had resident in each case is read. Prints a line for each case, exit 1 when one fails.
"""

import base64
import re
import resource
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time

PID = int(sys.argv[1])
PORTS = {kind: int(port) for kind, port in (word.split("=") for word in sys.argv[2:])}
PLAIN = ("relay", "submission", "lmtp")
HELLO = {"relay": b"EHLO", "submission": b"EHLO", "lmtp": b"LHLO"}
LOGIN = b"AUTH PLAIN " + base64.b64encode(b"\0jack\0secret") + b"\r\n"
# A reply that takes longer than this is none.
PATIENCE = 10
failed = []
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))


def memory(field):
    """Megabytes: VmRSS now, VmHWM at most since the mark was taken down."""
    with open(f"/proc/{PID}/status") as status:
        return int(re.search(field + r":\s+(\d+)", status.read()).group(1)) / 1024


def connect(kind="relay", patience=30):
    return socket.create_connection(("127.0.0.1", PORTS[kind]), patience)


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


def opened(kind):
    """A session that may send mail."""
    s = connect(kind)
    line(s)
    s.sendall(HELLO[kind] + b" harm.test\r\n")
    assert line(s).startswith(b"250")
    if kind == "submission":
        s.sendall(LOGIN)
        assert line(s).startswith(b"235")
    return s


def client(kind, name, patience):
    maker = smtplib.LMTP if kind == "lmtp" else smtplib.SMTP
    smtp = maker("127.0.0.1", PORTS[kind], name, timeout=patience)
    if kind == "submission":
        smtp.login("jack", "secret")
    return smtp


def honest(text="fair", kinds=("relay",)):
    """A message from a well-meaning client to each of these; how long the slowest took."""
    took = 0
    for kind in kinds:
        begin = time.monotonic()
        with client(kind, "fair.test", PATIENCE) as smtp:
            smtp.sendmail("a@src.test", ["b@dest.test"], f"Subject: {text}\r\n\r\n{text}\r\n")
        took = max(took, time.monotonic() - begin)
    assert took < 3 * PATIENCE, f"an honest client waited {took:.1f} s"
    return took


def offer(to, content, kind="relay", **more):
    """Hands a message in; what became of it. Either may be right: what counts is that it is answered."""
    with client(kind, "harm.test", 60) as smtp:
        try:
            smtp.sendmail("a@src.test", [to], content, **more)
            return "taken"
        except smtplib.SMTPDataError as error:
            return f"answered {error.smtp_code}"


def case(name, most):
    """Runs it; at its worst moment the server has at most so many megabytes more than before."""

    def run(body):
        with open(f"/proc/{PID}/clear_refs", "w") as mark:
            mark.write("5")
        before = memory("VmRSS")
        try:
            told = body() or ""
        except Exception as error:  # a case that breaks is one that failed
            failed.append(name)
            print(f"{name}: FAIL {type(error).__name__}: {error}")
            return
        grown = memory("VmHWM") - before
        if grown > most:
            failed.append(name)
            print(f"{name}: FAIL at one moment it took {grown:.0f} MB more; {most} are enough")
            return
        print(f"{name}: ok, {grown:.1f} MB more{', ' + told if told else ''}", flush=True)

    return run


@case("two thousand idle connections", 112)
def _():
    idle = [connect(PLAIN[n % 3]) for n in range(2000)]
    assert all(line(s).startswith(b"220") for s in idle), "not all were greeted"
    took = honest("beside the idle", PLAIN)
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


@case("clients that dribble", 40)
def _():
    slow = [(connect(PLAIN[n % 3]), PLAIN[n % 3]) for n in range(210)]
    for s, _ in slow:
        line(s)
    stop = threading.Event()
    words = {
        kind: HELLO[kind]
        + b" dribble.test\r\n"
        + (LOGIN if kind == "submission" else b"")
        + b"MAIL FROM:<a@src.test>\r\nRCPT TO:<b@dest.test>\r\nDATA\r\n"
        + b"x" * 100_000
        for kind in PLAIN
    }

    def dribble():
        at = 0
        while not stop.wait(0.02):
            for s, kind in slow:
                try:
                    s.send(words[kind][at : at + 1])
                except OSError:
                    pass
            at += 1

    thread = threading.Thread(target=dribble)
    thread.start()
    try:
        took = max(honest("beside the slow", PLAIN) for _ in range(4))
    finally:
        stop.set()
        thread.join()
    # What each has so far is no session's end: nobody is told 2xx for a message that is not whole.
    for s, _ in slow:
        s.close()
    return f"the slowest message beside them took {took:.2f} s"


@case("a storm of RSET whose replies nobody reads", 40)
def _():
    told = []
    for kind in PLAIN:
        s = opened(kind)
        s.settimeout(1)
        sent = 0
        try:
            for _ in range(2000):
                s.sendall(b"RSET\r\n" * 1000)
                sent += 1000
        except OSError:
            pass
        told.append(str(sent))
        honest("beside the storm", (kind,))
        s.close()
    return f"{', '.join(told)} were taken"


@case("a header of 100,000 fields", 48)
def _():
    content = "".join(f"X-{n}: y\r\n" for n in range(100_000)) + "\r\nbody\r\n"
    told = [offer("b@dest.test", content, kind) for kind in PLAIN]
    honest("after the flood", PLAIN)
    return ", ".join(told)


@case("parts within parts, 20,000 deep, to be made 7-bit", 24)
def _():
    depth = 20_000
    head = "".join(
        f"Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n" for n in range(depth)
    )
    body = f"Subject: bomb\r\nMIME-Version: 1.0\r\n{head}Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xe9\r\n"
    told = offer("c@seven.test", body.encode("utf-8"), mail_options=["BODY=8BITMIME"])
    honest("after the bomb")
    return told


@case("a client that has sent all and closed its half", 32)
def _():
    for kind in PLAIN:
        s = opened(kind)
        s.sendall(b"MAIL FROM:<a@src.test>\r\nRCPT TO:<b@dest.test>\r\nDATA\r\nSubject: half\r\n\r\nx\r\n.\r\n")
        s.shutdown(socket.SHUT_WR)
        out = b""
        while chunk := s.recv(4096):
            out += chunk
        assert [reply[:3] for reply in out.splitlines()] == [b"250", b"250", b"354", b"250"] and b"queued" in out, out


@case("sixty who guess a password at once, and one with thousands of guesses under way", 56)
def _():
    guess = b"AUTH PLAIN " + base64.b64encode(b"\0jack\0wrong") + b"\r\n"
    many = [connect("submission") for _ in range(60)]
    for s in many:
        line(s)
        s.sendall(b"EHLO harm.test\r\n")
        line(s)
        s.sendall(guess)
    one = connect("submission")
    line(one)
    one.settimeout(5)
    try:
        one.sendall(b"EHLO harm.test\r\n" + guess * 20_000)
    except OSError:
        pass
    took = honest("beside the guesses", ("relay", "lmtp"))
    for s in many:
        assert line(s).startswith(b"535"), "a guess was not refused"
        s.close()
    out = b""
    try:
        while chunk := one.recv(65536):
            out += chunk
    except OSError:
        pass
    assert b"\n235" not in out and out.count(b"\n535") < 10, out[-200:]
    one.close()
    honest("after the guesses", ("submission",))
    return f"a message beside them took {took:.2f} s"


@case("lines of AUTH that never end", 32)
def _():
    for opening in (b"", b"AUTH PLAIN\r\n", b"AUTH PLAIN "):
        s = connect("submission")
        line(s)
        s.sendall(b"EHLO harm.test\r\n")
        line(s)
        s.settimeout(1)
        try:
            s.sendall(opening + b"A" * 8_000_000)
        except OSError:
            pass
        s.close()
    honest("after the lines", ("submission",))


@case("a thousand answers of LMTP to each message, which nobody reads", 40)
def _():
    s = opened("lmtp")
    s.settimeout(2)
    names = b"".join(b"RCPT TO:<u%d@dest.test>\r\n" % n for n in range(1000))
    # What is no message is refused a thousand times and costs the sender seven octets.
    message = b"MAIL FROM:<a@src.test>\r\n" + names + b"BDAT 7 LAST\r\nx: \0\r\n\r"
    sent = 0
    try:
        for _ in range(2000):
            s.sendall(message)
            sent += 1
    except OSError:
        pass
    assert sent < 2000, "all was taken, though no answer was read"
    honest("beside it", ("lmtp",))
    s.close()
    return f"{sent} messages were taken"


@case("renegotiation of TLS 1.2", 16)
def _():
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{PORTS['secure']}", "-starttls", "smtp", "-tls1_2", "-crlf"]
    peer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    time.sleep(1)
    peer.stdin.write(b"R\n")
    peer.stdin.flush()
    time.sleep(2)
    peer.kill()
    before, asked, after = peer.communicate()[0].partition(b"RENEGOTIATING")
    # A handshake shows the certificate's depth: there was one, and no second one.
    assert b"depth=0" in before and asked and b"depth=0" not in after, after
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP("127.0.0.1", PORTS["secure"], "fair.test", timeout=20) as smtp:
        smtp.starttls(context=context)
        smtp.sendmail("a@src.test", ["b@dest.test"], "Subject: x\r\n\r\nafter it\r\n")


@case("handshakes that never end", 32)
def _():
    stuck = []
    for _ in range(100):
        s = connect("secure")
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
