#!/usr/bin/env python3
"""Submits one message file over LMTP with Python's smtplib and prints every answer's code.

  lmtp_client.py HOST:PORT FROM FILE TO...
"""
import smtplib
import sys

target, sender, path, *recipients = sys.argv[1:]
host, port = target.rsplit(":", 1)
with smtplib.LMTP(host, int(port), local_hostname="client.test") as lmtp:
    lmtp.ehlo_or_helo_if_needed()
    print("mail", lmtp.mail(sender, ["BODY=8BITMIME"])[0])
    taken = [to for to in recipients if lmtp.rcpt(to)[0] == 250]
    print("rcpt", *taken)
    with open(path, "rb") as file:
        answers = [lmtp.data(file.read())]
    # smtplib reads one answer to the content; RFC 2033 promises one for each recipient.
    answers += [lmtp.getreply() for _ in taken[1:]]
    print("data", *(code for code, _ in answers))
    print("noop", lmtp.noop()[0])
