#!/usr/bin/env python3
"""Submits a message that lies at an IMAP server, without sending it: BURL (RFC 4468) with URLAUTH (RFC 4467).

  burl.py IMAP-PORT SMTP-PORT FILE

User jack, password "secret" at both. Prints what each case was told, a line each: 'name: code text'.
"""
import imaplib
import smtplib
import sys

imap_port, smtp_port = int(sys.argv[1]), int(sys.argv[2])
with open(sys.argv[3], "rb") as file:
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
    plain = f"imap://jack@localhost:{imap_port}/INBOX;UIDVALIDITY={uidvalidity}/;UID=1{part};urlauth=submit+{user}"
    imap._simple_command("GENURLAUTH", f'"{plain}"', "INTERNAL")
    return imap.response("GENURLAUTH")[1][0].decode().strip('"')


smtp = smtplib.SMTP("localhost", smtp_port, local_hostname="client.test", timeout=90)
print("before AUTH:", "BURL" if smtp.ehlo()[0] == 250 and smtp.esmtp_features.get("burl") == "" else "no")
smtp.login("jack", "secret")
smtp.ehlo()
print("after AUTH:", smtp.esmtp_features.get("burl"))


def case(name, *lines, content=None):
    """One transaction of these lines; what the last was told."""
    smtp.rset()
    smtp.mail("jack@ship.example", ["BODY=8BITMIME"])
    smtp.rcpt("watch@ship.example")
    for line in lines:
        smtp.putcmd(line)
        if line.startswith("BDAT"):
            smtp.send(content)
        code, text = smtp.getreply()
    print(f"{name}: {code} {text.decode()}")


good = url("jack")
tail = b"Sent from the ship.\r\n"
case("whole", f"BURL {good} LAST")
case("part and tail", f"BURL {good}", f"BDAT {len(tail)} LAST", content=tail)
case("for another", f"BURL {url('jill')} LAST")
case("changed", f"BURL {good.replace('UID=1', 'UID=2')} LAST")
case("elsewhere", f"BURL {good.replace(str(imap_port), str(smtp_port))} LAST")
case("without URLAUTH", f"BURL {good.split(';urlauth')[0]} LAST")
imap._simple_command("RESETKEY")
case("revoked", f"BURL {good} LAST")
case("made again", f"BURL {url('jack')} LAST")
smtp.quit()
