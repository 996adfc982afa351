#!/usr/bin/env python3
"""DKIM and ARC by dkimpy, an implementation that shares nothing with ours. A message on standard input.

  dkim_peer.py sign KEY-FILE SELECTOR DOMAIN ALGORITHM HEADER/BODY [length]   the signed message
  dkim_peer.py verify ZONE                 one line a signature: its number, DOMAIN, ALGORITHM, pass or fail
  dkim_peer.py arc-sign KEY-FILE SELECTOR DOMAIN AUTHSERV-ID                  the sealed message
  dkim_peer.py arc-verify ZONE             CV, number of sets
  dkim_peer.py results AUTHSERV-ID         METHOD=RESULT of the Authentication-Results field of this server

ZONE is a file of lines: NAME, a blank, the TXT record.
"""
import sys

import dkim

command, *words = sys.argv[1:]
message = sys.stdin.buffer.read()


def records(path):
    found = {}
    with open(path, "rb") as file:
        for line in file:
            name, _, text = line.rstrip(b"\n").partition(b" ")
            found[name.rstrip(b".").lower()] = text
    return lambda name, timeout=5: found.get(name.rstrip(b".").lower())


def key(path):
    with open(path, "rb") as file:
        return file.read().strip()


if command == "sign":
    path, selector, domain, algorithm, canonicalization, *more = words
    forms = tuple(form.encode() for form in canonicalization.split("/"))
    field = dkim.sign(
        message, selector.encode(), domain.encode(), key(path), canonicalize=forms,
        signature_algorithm=algorithm.encode(), length="length" in more,
    )
    sys.stdout.buffer.write(field + message)
elif command == "verify":
    lookup = records(words[0])
    judge = dkim.DKIM(message, minkey=1024)
    fields = [value for name, value in judge.headers if name.lower() == b"dkim-signature"]
    for number, value in enumerate(fields):
        tags = dkim.util.parse_tag_value(value)
        try:
            good = dkim.DKIM(message, minkey=1024).verify(idx=number, dnsfunc=lookup)
        except dkim.DKIMException as error:
            print(error, file=sys.stderr)
            good = False
        print(number, tags[b"d"].decode(), tags[b"a"].decode(), "pass" if good else "fail")
elif command == "arc-sign":
    path, selector, domain, server = words
    fields = dkim.arc_sign(message, selector.encode(), domain.encode(), key(path), server.encode())
    if not fields:
        sys.exit("nothing was sealed")
    sys.stdout.buffer.write(b"".join(fields) + message)
elif command == "arc-verify":
    cv, results, reason = dkim.arc_verify(message, dnsfunc=records(words[0]))
    print(cv.decode(), len(results))
    print(reason, file=sys.stderr)
elif command == "results":
    import authres

    fields = [value for name, value in dkim.DKIM(message).headers if name.lower() == b"authentication-results"]
    for value in fields:
        text = " ".join(value.decode().split())
        field = authres.AuthenticationResultsHeader.parse("Authentication-Results: " + text)
        if field.authserv_id == words[0]:
            print(*[f"{result.method}={result.result}" for result in field.results])
else:
    sys.exit(__doc__)
