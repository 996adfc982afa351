#!/usr/bin/env python3
"""Submits one message file with Python's smtplib.

  submit.py HOST:PORT FROM TO[,TO...] FILE [OPTION...]

Options are parameters of MAIL, NOTIFY and ORCPT those of every RCPT. Prints the code of every refused recipient. With the option
REQUIRETLS it says STARTTLS first. With LOGIN=USER:PASSWORD:AUTHORITIES it does so too, wants the server's certificate to be signed by
one of these for HOST, and logs in; with TLS beside it TLS stands from the first byte.
"""
import smtplib
import ssl
import sys

target, sender, recipients, path, *options = sys.argv[1:]
login = [option.partition("=")[2] for option in options if option.startswith("LOGIN=")]
at_once = "TLS" in options
options = [option for option in options if option != "TLS" and not option.startswith("LOGIN=")]
of_rcpt = [option for option in options if option.startswith(("NOTIFY=", "ORCPT="))]
of_mail = [option for option in options if option not in of_rcpt]
host, port = target.rsplit(":", 1)
context = ssl.create_default_context()
if login:
    user, password, authorities = login[0].split(":")
    context.load_verify_locations(authorities)
else:
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
words = {"local_hostname": "client.test", "timeout": 30}
made = smtplib.SMTP_SSL(host, int(port), context=context, **words) if at_once else smtplib.SMTP(host, int(port), **words)
with made as smtp:
    if "REQUIRETLS" in options or login and not at_once:
        smtp.starttls(context=context)
    if login:
        smtp.login(user, password)
    try:
        with open(path, "rb") as file:
            refused = smtp.sendmail(sender, recipients.split(","), file.read(), of_mail, of_rcpt)
    except smtplib.SMTPRecipientsRefused as error:
        refused = error.recipients
for recipient, (code, words) in refused.items():
    print(recipient, code, words.decode())
sys.exit(1 if refused else 0)
