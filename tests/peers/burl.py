#!/usr/bin/env python3
"""Submits a message that lies at an IMAP server, without sending it: BURL (RFC 4468) with URLAUTH (RFC 4467).

  burl.py IMAP-PORT DOOR SMTP-PORT FILE

User jack, password "secret" at both. URLs name port DOOR, which this program opens and joins to IMAP-PORT. Prints what each case was
told, a line each: 'name: code text'; and how often anybody came to the door, or to a port that no URL may name: 'name came N times'.
"""
import imaplib
import smtplib
import socket
import sys
import threading

imap_port, door_port, smtp_port = (int(word) for word in sys.argv[1:4])
came = 0


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(listener, onward):
    """Counts who comes, and joins them to a port; with none they are hung up on."""
    global came
    while True:
        near, _ = listener.accept()
        came += 1
        if onward is None:
            near.close()
            continue
        far = socket.create_connection(("127.0.0.1", onward))
        for ends in ((near, far), (far, near)):
            threading.Thread(target=pump, args=ends, daemon=True).start()


def opened(port, onward):
    listener = socket.create_server(("127.0.0.1", port))
    threading.Thread(target=serve, args=(listener, onward), daemon=True).start()
    return listener.getsockname()[1]


opened(door_port, imap_port)
trap = opened(0, None)
with open(sys.argv[4], "rb") as file:
    message = file.read()
for command in ("GENURLAUTH", "RESETKEY"):
    imaplib.Commands[command] = ("AUTH", "SELECTED")
imap = imaplib.IMAP4("localhost", imap_port)
imap.login("jack", "secret")
imap.append("INBOX", None, None, message)
imap.select("INBOX")
uidvalidity = imap.response("UIDVALIDITY")[1][0].decode()


def url(user, part=""):
    """A URL that lets this user submit the message."""
    plain = f"imap://jack@localhost:{door_port}/INBOX;UIDVALIDITY={uidvalidity}/;UID=1{part};urlauth=submit+{user}"
    imap._simple_command("GENURLAUTH", f'"{plain}"', "INTERNAL")
    return imap.response("GENURLAUTH")[1][0].decode().strip('"')


smtp = smtplib.SMTP("localhost", smtp_port, local_hostname="client.test", timeout=90)
print("before AUTH:", "BURL" if smtp.ehlo()[0] == 250 and smtp.esmtp_features.get("burl") == "" else "no")
smtp.login("jack", "secret")
smtp.ehlo()
print("after AUTH:", smtp.esmtp_features.get("burl"))


def case(name, *lines, content=None):
    """One transaction of these lines; what the last was told, and how often the node went to an IMAP server for it."""
    before = came
    smtp.rset()
    smtp.mail("jack@ship.example", ["BODY=8BITMIME"])
    smtp.rcpt("watch@ship.example")
    for line in lines:
        smtp.putcmd(line)
        if line.startswith("BDAT"):
            smtp.send(content)
        code, text = smtp.getreply()
    print(f"{name}: {code} {text.decode()}")
    print(f"{name} came {came - before} times")


good = url("jack")
tail = b"Sent from the ship.\r\n"
case("whole", f"BURL {good} LAST")
case("part and tail", f"BURL {good}", f"BDAT {len(tail)} LAST", content=tail)
case("for another", f"BURL {url('jill')} LAST")
case("changed", f"BURL {good.replace('UID=1', 'UID=2')} LAST")
case("elsewhere", f"BURL {good.replace(str(door_port), str(trap))} LAST")
case("without URLAUTH", f"BURL {good.split(';urlauth')[0]} LAST")
imap._simple_command("RESETKEY")
case("revoked", f"BURL {good} LAST")
case("made again", f"BURL {url('jack')} LAST")
smtp.quit()
