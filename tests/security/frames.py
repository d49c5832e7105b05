"""Ethernet frames made by hand, honest and forged. Each carries a token by which a sniffer knows it again."""

from __future__ import annotations

import socket
import struct

from .watch import CANARY

BROADCAST = "ff:ff:ff:ff:ff:ff"
IPV4, ARP, IPV6, LLDP, VLAN, QINQ = 0x0800, 0x0806, 0x86DD, 0x88CC, 0x8100, 0x88A8


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(target: str, source: str, kind: int, payload: bytes) -> bytes:
    return mac_bytes(target) + mac_bytes(source) + struct.pack("!H", kind) + payload


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xFFFF)
    return ~total & 0xFFFF


def ipv4(
    source: str, target: str, payload: bytes, protocol: int = 17, options: bytes = b"", fragment: int = 0
) -> bytes:
    """``fragment``: the header's flags and offset (RFC 791, 3.1); ``options`` are filled up to whole words."""
    options += b"\0" * (-len(options) % 4)
    words = 5 + len(options) // 4
    head = struct.pack("!BBHHHBBH", 64 | words, 0, 4 * words + len(payload), 1, fragment, 64, protocol, 0)
    head += socket.inet_aton(source) + socket.inet_aton(target) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


MORE_FRAGMENTS = 0x2000


def fragments(source: str, target: str, payload: bytes, size: int) -> list[bytes]:
    """One datagram's payload as IPv4 packets of at most ``size`` bytes of it each, a multiple of 8."""
    parts = [(at, payload[at : at + size]) for at in range(0, len(payload), size)]
    last = parts[-1][0]
    return [ipv4(source, target, part, fragment=at // 8 | (MORE_FRAGMENTS if at < last else 0)) for at, part in parts]


def route_option(kind: int, *addresses: str) -> bytes:
    """Loose (131) or strict (137) source route, or record route (7), through these addresses (RFC 791, 3.1)."""
    return bytes([kind, 3 + 4 * len(addresses), 4]) + b"".join(map(socket.inet_aton, addresses))


def udp(payload: bytes, port: int = 9, source: int = 9) -> bytes:
    """A datagram without a checksum, which IPv4 allows."""
    return struct.pack("!HHHH", source, port, 8 + len(payload), 0) + payload


def too_big(source: str, target: str, quoted: bytes, mtu: int) -> bytes:
    """ICMP by which a router says how large a packet may be, with the beginning of one that was not (RFC 1191, 4)."""
    body = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    return ipv4(source, target, body, protocol=1)


def tcp(payload: bytes, port: int, source: int = 40000) -> bytes:
    """A segment that opens a connection. Its checksum is left out: raw sockets see it before anybody looks."""
    return struct.pack("!HHIIBBHHH", source, port, 1, 0, 5 << 4, 2, 64240, 0, 0) + payload


def token(name: str) -> bytes:
    return f"planted-{name} ".encode()


def datagram(name: str, source_mac: str, source: str, target_mac: str, target: str, port: int = 9) -> bytes:
    """An Ethernet frame with an IPv4 UDP datagram, which the watch must not read on the underlay."""
    return ethernet(target_mac, source_mac, IPV4, ipv4(source, target, udp(token(name) + CANARY, port)))


def arp(
    name: str, source_mac: str, source: str, target: str, *, reply: bool = False, sender: str = "", to: str = BROADCAST
) -> bytes:
    """An ARP packet; ``sender`` is the hardware address that it tells, if another than the frame's."""
    said = mac_bytes(sender or source_mac)
    body = struct.pack("!HHBBH", 1, IPV4, 6, 4, 2 if reply else 1) + said + socket.inet_aton(source)
    body += (mac_bytes(to) if reply else bytes(6)) + socket.inet_aton(target)
    return ethernet(to, source_mac, ARP, body + token(name))


def tagged(frame: bytes, kind: int = VLAN, vlan: int = 7) -> bytes:
    """The frame with a VLAN tag."""
    return frame[:12] + struct.pack("!HH", kind, vlan) + frame[12:]


def ipv6(name: str, source_mac: str, target_mac: str, payload: bytes = b"", next_header: int = 17) -> bytes:
    """A link-local IPv6 packet; UDP unless told otherwise."""
    source, target = (socket.inet_pton(socket.AF_INET6, text) for text in ("fe80::bad", "ff02::1"))
    body = payload + token(name) if payload else udp(token(name))
    head = struct.pack("!IHBB", 6 << 28, len(body), next_header, 255) + source + target
    return ethernet(target_mac, source_mac, IPV6, head + body)


def router_advertisement(name: str, source_mac: str) -> bytes:
    """ICMPv6 134 with a prefix (RFC 4861, 4.2 and 4.6.2). A kernel takes it if no name stands behind it."""
    prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + socket.inet_pton(
        socket.AF_INET6, "2001:db8:bad::"
    )
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + prefix
    source, target = (socket.inet_pton(socket.AF_INET6, text) for text in ("fe80::bad", "ff02::1"))
    tail = body + (token(name) if name else b"")
    pseudo = source + target + struct.pack("!II", len(tail), 58)
    tail = tail[:2] + struct.pack("!H", checksum(pseudo + tail)) + tail[4:]
    head = struct.pack("!IHBB", 6 << 28, len(tail), 58, 255) + source + target
    return ethernet("33:33:00:00:00:01", source_mac, IPV6, head + tail)


def dhcp(name: str, source_mac: str, source: str, *, server: bool) -> bytes:
    """DHCPDISCOVER of a client without an address, or DHCPOFFER of a server (RFC 2131)."""
    body = struct.pack("!BBBBIHH", 2 if server else 1, 1, 6, 0, 0xBAD, 0, 0x8000) + bytes(16) + mac_bytes(source_mac)
    body = body.ljust(236, b"\0") + b"\x63\x82\x53\x63" + bytes([53, 1, 2 if server else 1, 255])
    ports = (68, 67) if server else (67, 68)
    datagram = udp(body + token(name), *ports)
    return ethernet(BROADCAST, source_mac, IPV4, ipv4(source, "255.255.255.255", datagram))


def group_query(source_mac: str, source: str) -> bytes:
    """IGMPv2's question who hears which groups, to be answered within 0.1 s (RFC 2236, 2)."""
    body = struct.pack("!BBHI", 0x11, 1, 0, 0)
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    return ethernet("01:00:5e:00:00:01", source_mac, IPV4, ipv4(source, "224.0.0.1", body, 2))


def bpdu(name: str, source_mac: str) -> bytes:
    """A spanning tree BPDU that claims to be the root (IEEE 802.1D, 9.3.1), in an 802.3 frame."""
    body = b"\x42\x42\x03" + bytes(5) + bytes(8) + bytes(4) + bytes(8) + b"\x80\x01\0\0\x14\0\2\0\x0f\0" + token(name)
    return mac_bytes("01:80:c2:00:00:00") + mac_bytes(source_mac) + struct.pack("!H", len(body)) + body


def lldp(name: str, source_mac: str) -> bytes:
    body = b"\x02\x07\x04" + mac_bytes(source_mac) + b"\x04\x05\x07port\x06\x02\0\x78\xfe\x20" + token(name).ljust(32)
    return ethernet("01:80:c2:00:00:0e", source_mac, LLDP, body + b"\0\0")


def vxlan(vni: int, frame: bytes, flags: int = 0x08) -> bytes:
    """The payload of a VXLAN datagram (RFC 7348, 5)."""
    return struct.pack("!II", flags << 24, vni << 8) + frame
