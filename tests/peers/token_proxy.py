#!/usr/bin/env python3
"""Stands in for Dovecot's token-login/tokenlogin socket and adds the flag that its own login process wants to see.

  token_proxy.py DIR     in DIR (base_dir/token-login): listens on tokenlogin, goes on to mended-tokenlogin

Dovecot 2.3.19's auth does not say that DOVECOT-TOKEN is private, and imap-urlauth-login ends with an assertion.
"""
import os, socket, sys, threading

place = sys.argv[1]
name = os.path.join(place, "tokenlogin")
os.unlink(name)
door = socket.socket(socket.AF_UNIX)
door.bind(name)
os.chmod(name, 0o666)
door.listen()


def pump(source, sink, mend):
    while data := source.recv(65536):
        if mend:
            data = data.replace(b"MECH\tDOVECOT-TOKEN\n", b"MECH\tDOVECOT-TOKEN\tprivate\n")
        sink.sendall(data)
    sink.shutdown(socket.SHUT_WR)


while True:
    near, _ = door.accept()
    far = socket.socket(socket.AF_UNIX)
    far.connect(os.path.join(place, "mended-tokenlogin"))
    threading.Thread(target=pump, args=(far, near, True), daemon=True).start()
    threading.Thread(target=pump, args=(near, far, False), daemon=True).start()
