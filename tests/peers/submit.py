#!/usr/bin/env python3
"""Submits one message file with Python's smtplib.

  submit.py HOST:PORT FROM TO[,TO...] FILE [MAIL-OPTION...]
"""
import smtplib
import sys

target, sender, recipients, path, *options = sys.argv[1:]
host, port = target.rsplit(":", 1)
with smtplib.SMTP(host, int(port), local_hostname="client.test", timeout=30) as smtp:
    with open(path, "rb") as file:
        refused = smtp.sendmail(sender, recipients.split(","), file.read(), mail_options=options)
sys.exit(1 if refused else 0)
