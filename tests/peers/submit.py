#!/usr/bin/env python3
"""Submits one message file with Python's smtplib.

  submit.py HOST:PORT FROM TO[,TO...] FILE [OPTION...]

Options are parameters of MAIL, NOTIFY and ORCPT those of every RCPT. Prints the code of every refused recipient. With the option
REQUIRETLS it says STARTTLS first.
"""
import smtplib
import ssl
import sys

target, sender, recipients, path, *options = sys.argv[1:]
of_rcpt = [option for option in options if option.startswith(("NOTIFY=", "ORCPT="))]
of_mail = [option for option in options if option not in of_rcpt]
host, port = target.rsplit(":", 1)
with smtplib.SMTP(host, int(port), local_hostname="client.test", timeout=30) as smtp:
    if "REQUIRETLS" in options:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        smtp.starttls(context=context)
    try:
        with open(path, "rb") as file:
            refused = smtp.sendmail(sender, recipients.split(","), file.read(), of_mail, of_rcpt)
    except smtplib.SMTPRecipientsRefused as error:
        refused = error.recipients
for recipient, (code, words) in refused.items():
    print(recipient, code, words.decode())
sys.exit(1 if refused else 0)
