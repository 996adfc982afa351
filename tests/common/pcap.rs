//! Captures written for tshark: datagrams between two IPv4 addresses, without a link layer.

use std::net::Ipv4Addr;

/// A datagram to write.
pub struct Datagram<'a> {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    pub port: u16,
    pub bytes: &'a [u8],
}

/// A capture file (link type 101, raw IP), one datagram a second.
pub fn capture(datagrams: &[Datagram<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0002_0004, 0, 0, 65535, 101] {
        out.extend(word.to_be_bytes());
    }
    for (second, datagram) in (0u32..).zip(datagrams) {
        let packet = packet(datagram);
        for word in [second, 0, packet.len() as u32, packet.len() as u32] {
            out.extend(word.to_be_bytes());
        }
        out.extend(packet);
    }
    out
}

fn packet(datagram: &Datagram<'_>) -> Vec<u8> {
    let length = (28 + datagram.bytes.len()) as u16;
    let mut ip = vec![0x45, 0];
    ip.extend(length.to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 16, 17, 0, 0]);
    ip.extend(datagram.from.octets());
    ip.extend(datagram.to.octets());
    let sum: u32 = ip.chunks(2).map(|p| u32::from(p[0]) << 8 | u32::from(p[1])).sum();
    let sum = !(((sum >> 16) + (sum & 0xffff)) as u16);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip.extend(datagram.port.to_be_bytes());
    ip.extend(datagram.port.to_be_bytes());
    ip.extend((length - 20).to_be_bytes());
    // No UDP checksum.
    ip.extend([0, 0]);
    ip.extend(datagram.bytes);
    ip
}
