#!/usr/bin/env python3
"""Opens MULE payloads by pyasn1 and zlib: open_mule.py explicit|implicit FILE... prints the text of each in hexadecimal."""

import sys
import zlib

from pyasn1.codec.ber.decoder import decode
from pyasn1.type import namedtype, tag, univ


def schema(explicit):
    def choice():
        def tagged(number):
            mark = tag.Tag(tag.tagClassContext, tag.tagFormatSimple, number)
            return {"explicitTag": mark} if explicit else {"implicitTag": mark}

        return univ.Choice(
            componentType=namedtype.NamedTypes(
                namedtype.NamedType("short", univ.Integer().subtype(**tagged(0))),
                namedtype.NamedType("name", univ.ObjectIdentifier().subtype(**tagged(1))),
            )
        )

    content = univ.OctetString().subtype(explicitTag=tag.Tag(tag.tagClassContext, tag.tagFormatSimple, 0))
    info = univ.Sequence(
        componentType=namedtype.NamedTypes(namedtype.NamedType("type", choice()), namedtype.NamedType("content", content))
    )
    return univ.Sequence(
        componentType=namedtype.NamedTypes(namedtype.NamedType("algorithm", choice()), namedtype.NamedType("info", info))
    )


for path in sys.argv[2:]:
    with open(path, "rb") as file:
        value, rest = decode(file.read(), asn1Spec=schema(sys.argv[1] == "explicit"))
    assert not rest, "octets behind the structure"
    assert int(value["algorithm"]["short"]) == 0, "not zlib"
    assert int(value["info"]["type"]["short"]) == 25, "not MULE"
    print(zlib.decompress(bytes(value["info"]["content"])).hex())
