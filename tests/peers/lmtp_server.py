#!/usr/bin/env python3
"""A small LMTP server (RFC 2033) on a Unix socket.

  lmtp_server.py SOCKET DIRECTORY

Every message becomes a file in DIRECTORY: a line per envelope parameter, an empty line, the octets as they came. Recipients
whose address begins with "nobody" are refused at RCPT, those with "full" after the data, each with a reply of its own.
"""
import os
import socketserver
import sys


class Session(socketserver.StreamRequestHandler):
    def say(self, text):
        try:
            self.wfile.write(text.encode() + b"\r\n")
        except BrokenPipeError:
            pass

    def handle(self):
        self.say("220 lmtp.test LMTP")
        sender, taken = None, []
        for line in iter(self.rfile.readline, b""):
            words = line.decode().strip()
            verb = words.split(" ")[0].upper()
            if verb == "LHLO":
                self.say("250-lmtp.test")
                self.say("250-8BITMIME")
                self.say("250-PIPELINING")
                self.say("250 ENHANCEDSTATUSCODES")
            elif verb == "MAIL":
                sender, taken = words, []
                self.say("250 2.1.0 sender")
            elif verb == "RCPT":
                if ":<nobody" in words.lower():
                    self.say("550 5.1.1 no such mailbox")
                else:
                    taken.append(words)
                    self.say("250 2.1.5 recipient")
            elif verb == "DATA" and not taken:
                self.say("503 5.5.1 no recipients")
            elif verb == "DATA":
                self.say("354 go on")
                self.take(sender, taken)
                sender, taken = None, []
            elif verb == "RSET":
                sender, taken = None, []
                self.say("250 2.0.0 reset")
            elif verb == "QUIT":
                self.say("221 2.0.0 bye")
                return
            else:
                self.say("500 5.5.2 what")

    def take(self, sender, taken):
        body = b""
        for line in iter(self.rfile.readline, b""):
            if line == b".\r\n":
                break
            body += line[1:] if line.startswith(b".") else line
        good = [r for r in taken if ":<full" not in r.lower()]
        if good:
            name = "%03d" % len(os.listdir(DIRECTORY))
            with open(os.path.join(DIRECTORY, name + ".part"), "wb") as file:
                file.write("\n".join([sender] + good).encode() + b"\n\n" + body)
            os.rename(os.path.join(DIRECTORY, name + ".part"), os.path.join(DIRECTORY, name))
        for recipient in taken:
            self.say("250 2.0.0 taken" if recipient in good else "552 5.2.2 mailbox full")


SOCKET, DIRECTORY = sys.argv[1:]
with socketserver.ThreadingUnixStreamServer(SOCKET, Session) as server:
    server.daemon_threads = True
    server.serve_forever()
