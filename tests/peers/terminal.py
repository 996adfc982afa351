#!/usr/bin/env python3
"""The far end of a network cable: prints every frame that comes, and sends what provokes answers.

  terminal.py INTERFACE HARDWARE OWN THEM GROUP

HARDWARE is the address of the interface at the other end, THEM its IPv4 address, OWN one of a neighbour. Every frame is a line: the EtherType
and the bytes behind it, in hexadecimal. Words on standard input:

  provoke                       everything that a host answers, or is moved to speak by
  query                         a router's question about groups, IGMP version 3
  udp SPORT TO DPORT HEX        a datagram from OWN
"""
import os
import select
import socket
import struct
import sys

interface, hardware, own, them, group = sys.argv[1:6]
OWN, THEM, GROUP = (socket.inet_aton(a) for a in (own, them, group))
MAC = bytes.fromhex("020000000001")
PEER = bytes.fromhex(hardware.replace(":", ""))
ALL = b"\xff" * 6
cable = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
cable.bind((interface, 0))


def total(data):
    data += b"\0" * (len(data) % 2)
    s = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while s >> 16:
        s = (s & 0xFFFF) + (s >> 16)
    return ~s & 0xFFFF


def multicast(to):
    return b"\x01\x00\x5e" + bytes([to[1] & 127]) + to[2:]


def ip4(to, protocol, payload, flags=0, identity=1, options=b""):
    length, hops = 20 + len(options) + len(payload), 1 if protocol == 2 else 64
    head = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, length, identity, flags, hops, protocol, 0)
    head += OWN + to + options
    head = head[:10] + struct.pack("!H", total(head)) + head[12:]
    mac = multicast(to) if to[0] >= 224 else PEER
    return mac + MAC + b"\x08\x00" + head + payload


def udp(sport, to, dport, payload):
    return ip4(to, 17, struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload)


def ip6(mac, source, to, icmp, before=b"", hops=255):
    """ICMPv6, behind the options `before`."""
    pseudo = source + to + struct.pack("!IxxxB", len(icmp), 58)
    icmp = icmp[:2] + struct.pack("!H", total(pseudo + icmp)) + icmp[4:]
    head = struct.pack("!IHBB", 6 << 28, len(before + icmp), 0 if before else 58, hops)
    return mac + MAC + b"\x86\xdd" + head + source + to + before + icmp


def query():
    body = b"\x11\x01\0\0" + b"\0" * 8
    body = body[:2] + struct.pack("!H", total(body)) + body[4:]
    return ip4(b"\xe0\0\0\1", 2, body, options=b"\x94\x04\0\0")


def provocations():
    yield ALL + MAC + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, 1) + MAC + OWN + b"\0" * 6 + THEM
    # IGMP: general and group-specific queries, versions 3, 2 and 1, with the option that routers look for.
    alert = b"\x94\x04\0\0"
    for to, body in [
        (b"\xe0\0\0\1", b"\x11\x01\0\0" + b"\0" * 8),
        (GROUP, b"\x11\x01\0\0" + GROUP + b"\0" * 4),
        (b"\xe0\0\0\1", b"\x11\x01\0\0" + b"\0" * 4),
        (b"\xe0\0\0\1", b"\x11\0\0\0" + b"\0" * 4),
    ]:
        yield ip4(to, 2, body[:2] + struct.pack("!H", total(body)) + body[4:], options=alert)
    for to in (THEM, b"\xe0\0\0\1"):
        echo = b"\x08\0\0\0\0\1\0\1" + b"silence?" * 4
        yield ip4(to, 1, echo[:2] + struct.pack("!H", total(echo)) + echo[4:])
    # Ports that nobody listens at, and one that somebody might.
    for port in (7, 9999, 53):
        yield udp(40000, THEM, port, b"anybody there?")
    for port in (22, 25, 2525):
        syn = struct.pack("!HHIIBBHHH", 40001, port, 7, 0, 0x50, 2, 8192, 0, 0)
        pseudo = OWN + THEM + struct.pack("!BBH", 0, 6, len(syn))
        yield ip4(THEM, 6, syn[:16] + struct.pack("!H", total(pseudo + syn)) + syn[18:])
    # A protocol that does not exist, a wrong option, and a fragment whose rest never comes.
    yield ip4(THEM, 253, b"what is this")
    yield ip4(THEM, 17, b"\0" * 16, options=b"\x83\x03\x09\x01")
    yield ip4(THEM, 17, struct.pack("!HHHH", 40000, 9999, 1000, 0) + b"\0" * 16, flags=0x2000, identity=77)
    yield udp(5353, b"\xe0\0\0\xfb", 5353, b"\0\0\0\0\0\1" + b"\0" * 6 + b"\x04near\x05local\0\0\1\0\1")
    yield udp(5355, b"\xe0\0\0\xfc", 5355, b"\0\1\0\0\0\1" + b"\0" * 6 + b"\x04near\0\0\1\0\1")
    # IPv6: a neighbour asks, a router greets, MLD asks, somebody pings.
    link = bytes.fromhex("fe80000000000000000000000000000a")
    nodes = bytes.fromhex("ff020000000000000000000000000001")
    mac6 = bytes.fromhex("333300000001")
    eui = bytes([PEER[0] ^ 2]) + PEER[1:3] + b"\xff\xfe" + PEER[3:]
    local = bytes.fromhex("fe80000000000000") + eui
    yield ip6(mac6, link, nodes, b"\x87\0\0\0\0\0\0\0" + local + b"\1\1" + MAC)
    prefix = b"\3\4\x40\xc0" + struct.pack("!III", 86400, 86400, 0) + bytes.fromhex("20010db8000000000000000000000000")
    yield ip6(mac6, link, nodes, b"\x86\0\0\0\x40\0" + struct.pack("!HII", 1800, 0, 0) + b"\1\1" + MAC + prefix)
    yield ip6(mac6, link, nodes, b"\x82\0\0\0\0\1\0\0" + b"\0" * 16, before=b"\x3a\0\x05\x02\0\0\1\0", hops=1)
    yield ip6(mac6, link, nodes, b"\x80\0\0\0\0\1\0\1")
    yield ip6(PEER, link, local, b"\x80\0\0\0\0\1\0\1")


print("listening", flush=True)
pending = b""
while True:
    ready, _, _ = select.select([cable, sys.stdin], [], [])
    if cable in ready:
        frame, where = cable.recvfrom(65536)
        if where[2] != socket.PACKET_OUTGOING:
            print(frame[12:14].hex(), frame[14:].hex(), flush=True)
    if sys.stdin in ready:
        some = os.read(0, 65536)
        if not some:
            break
        *lines, pending = (pending + some).split(b"\n")
        for line in lines:
            words = line.decode().split()
            if words == ["provoke"]:
                for frame in provocations():
                    cable.send(frame)
            elif words == ["query"]:
                cable.send(query())
            elif words[:1] == ["udp"]:
                cable.send(udp(int(words[1]), socket.inet_aton(words[2]), int(words[3]), bytes.fromhex(words[4])))
            else:
                sys.exit(f"unknown: {line!r}")
