"""Container slots of a private network, and the ports by which they and the resolver are attached to a host."""

from __future__ import annotations

from dataclasses import dataclass

from privnet.model.identifiers import format_address

MAC_PREFIX = "02:70"
"""Locally administered; the other four bytes are the container's address, so that a neighbour entry never changes."""

HOST_END_MAC_PREFIX = "02:71"
"""Host ends of veth pairs: never seen on a wire, but a device without a set address gets one from udev later."""


@dataclass(frozen=True, slots=True)
class Container:
    """One placed instance of a process type, with everything that follows from its number.

    :param slot: ``<index>.<type>.<ap-id>``; also the name of its network namespace
    :param address: IPv4 address inside the private network, as text
    :param number: the same address as a number
    :param port: host end of its veth pair
    """

    slot: str
    index: int
    process_type: str
    application: str
    host: str
    number: int
    address: str
    mac: str
    port: str


@dataclass(frozen=True, slots=True)
class Port:
    """An attachment to a private network's bridge on one host: a container's, or the resolver's."""

    name: str
    netns: str
    vni: int
    bridge: str
    address: str
    length: int
    mac: str
    host_mac: str
    mtu: int


def mac_of(number: int, prefix: str = MAC_PREFIX) -> str:
    """The MAC address that belongs to an IPv4 address (a number)."""
    return f"{prefix}:{number.to_bytes(4, 'big').hex(':')}"


def port_name(vni: int, offset: int) -> str:
    """Host end of a veth pair: the VNI (24 bits) and the address's place in its prefix (16 bits), 13 characters."""
    return f"pnc{vni:06x}{offset:04x}"


def place_container(slot: str, host: str, number: int, vni: int, first: int) -> Container:
    """A container from its slot's name and numbers; ``first`` is the network address of its prefix."""
    index, process_type, application = slot.split(".")
    return Container(
        slot=slot,
        index=int(index),
        process_type=process_type,
        application=application,
        host=host,
        number=number,
        address=format_address(number),
        mac=mac_of(number),
        port=port_name(vni, number - first),
    )
