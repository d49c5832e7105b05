"""The underlay: one bridge in a namespace of its own, and every host, the operator and an outsider on it.

Nothing is attached to the machine's own network, so hosts keep the addresses that the inventory declares.
All declared subnets are on the one link. Everything else goes to a gateway that throws it away: a host has a
default route as in life, and what leaks along it is there to be captured.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from privnet.lab.errors import LabError
from privnet.lab.fleet import Address, LabHost
from privnet.lab.process import run
from privnet.lab.settings import FABRIC, OPERATOR, OUTSIDER, Settings, port_name

BRIDGE = "underlay"
UPLINK = "eth0"
NAMESPACES = Path("/run/netns")
# Ports take what any host may send; each host's own MTU is on its uplink.
PORT_MTU = 9216
NETWORKD_FILE = "/run/systemd/network/05-uplink.network"
_FALLBACK = ipaddress.ip_network("203.0.113.0/24")
# A bridge that snoops multicast joins the group of all snoopers (net/bridge/br_multicast.c, br_multicast_join_snoopers)
# and would so speak on the underlay itself, where only the hosts are to be heard.
_QUIET_BRIDGE = ("mcast_snooping", "0")
_SUBNET_LENGTH = {4: 24, 6: 64}


@dataclass(frozen=True, slots=True)
class Underlay:
    """Addresses of the lab's own three places, and the subnets that are on the link."""

    gateway: tuple[Address, ...]
    operator: tuple[Address, ...]
    outsider: tuple[Address, ...]
    subnets: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]

    @classmethod
    def around(cls, hosts: Iterable[LabHost], previous: Underlay | None = None) -> Underlay:
        """Choose addresses that no host has, in the first subnet of each address family.

        What `previous` says stays, as far as no host has come to need it.
        """
        taken = {address for host in hosts for address in host.addresses}
        subnets = {_subnet(address) for address in taken} | set(previous.subnets if previous else ())
        ordered = sorted(subnets, key=lambda net: (net.version, int(net[0])))
        chosen = []
        for version in sorted({net.version for net in ordered} | {4}):
            home = next((net for net in ordered if net.version == version), _FALLBACK)
            if home not in ordered:
                ordered.append(home)
            chosen.append(previous._kept(version, taken) if previous else None)
            chosen[-1] = chosen[-1] or _free(home, taken)
        gateway, operator, outsider = zip(*[places for places in chosen if places], strict=True)
        return cls(gateway, operator, outsider, tuple(ordered))

    def _kept(self, version: int, taken: set[Address]) -> tuple[Address, Address, Address] | None:
        for places in zip(self.gateway, self.operator, self.outsider, strict=True):
            if places[0].version == version and taken.isdisjoint(places):
                return places
        return None

    def to_json(self) -> dict[str, list[str]]:
        return {field: [str(value) for value in getattr(self, field)] for field in self.__slots__}

    @classmethod
    def from_json(cls, data: dict[str, list[str]]) -> Underlay:
        def addresses(field: str) -> tuple[Address, ...]:
            return tuple(ipaddress.ip_address(text) for text in data[field])

        subnets = tuple(ipaddress.ip_network(text) for text in data["subnets"])
        return cls(addresses("gateway"), addresses("operator"), addresses("outsider"), subnets)


def _subnet(address: Address) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network((address, _SUBNET_LENGTH[address.version]), strict=False)


def _free(
    subnet: ipaddress.IPv4Network | ipaddress.IPv6Network, taken: set[Address]
) -> tuple[Address, Address, Address]:
    found: list[Address] = []
    candidate = subnet[-2] if subnet.version == 4 else subnet[0xFFFE]
    while len(found) < 3:
        if candidate not in taken:
            found.append(candidate)
        candidate -= 1
        if candidate not in subnet:
            raise LabError(f"hosts take all addresses of {subnet}: the lab needs three of them for itself")
    return found[0], found[1], found[2]


def namespace_path(settings: Settings, who: str) -> Path:
    return NAMESPACES / settings.namespace(who)


def mac_address(who: str) -> str:
    """The hardware address of an uplink: locally administered, the same after each reboot."""
    digest = hashlib.sha256(who.encode()).digest()
    return "02:6c:" + ":".join(f"{byte:02x}" for byte in digest[:4])


def build(settings: Settings, underlay: Underlay) -> None:
    """Make the fabric, the operator and the outsider, as far as they are missing."""
    _make_fabric(settings)
    fabric = settings.namespace(FABRIC)
    gateways = underlay.gateway
    lines = [f"address replace {_alone(address)} dev {BRIDGE}{_nodad(address)}" for address in gateways]
    lines += [f"route replace {subnet} dev {BRIDGE}" for subnet in underlay.subnets]
    run(["ip", "-n", fabric, "-batch", "-"], input="\n".join(lines) + "\n")
    for who, addresses in ((OPERATOR, underlay.operator), (OUTSIDER, underlay.outsider)):
        _join(settings, who, uplink_batch(addresses, 1500, underlay))
    # Nobody waits two minutes for a host that has just been switched off.
    patience = "echo 3 >/proc/sys/net/ipv4/tcp_syn_retries"
    run(["ip", "netns", "exec", settings.namespace(OPERATOR), "sh", "-c", patience])


def _make_fabric(settings: Settings) -> None:
    fabric = _made_namespace(settings, FABRIC)
    # br_netfilter would look into, and drop, what is none of its business.
    quiet = "for file in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e $file ] || echo 0 >$file; done"
    run(["ip", "netns", "exec", fabric, "sh", "-c", quiet])
    run(["ip", "-n", fabric, "link", "set", "dev", "lo", "up"])
    if BRIDGE not in links(settings, FABRIC):
        add = ["ip", "-n", fabric, "link", "add", "name", BRIDGE, "address", mac_address(FABRIC), "type", "bridge"]
        run([*add, *_QUIET_BRIDGE])
    run(["ip", "-n", fabric, "link", "set", "dev", BRIDGE, "mtu", str(PORT_MTU), "up"])


def _join(settings: Settings, who: str, batch: str) -> None:
    """Give the operator or the outsider its namespace and uplink. Hosts do this themselves, at each boot."""
    namespace = _made_namespace(settings, who)
    if UPLINK not in links(settings, who):
        remove_port(settings, who)
        run(["ip", "-batch", "-"], input=pair_batch(settings, who))
    run(["ip", "-n", settings.namespace(FABRIC), "-batch", "-"], input=port_batch(who))
    run(["ip", "-n", namespace, "-batch", "-"], input=batch)


def pair_batch(settings: Settings, who: str) -> str:
    """The `ip -batch` line that makes an uplink: one end in the fabric, the other in the namespace of who has it."""
    fabric, own = settings.namespace(FABRIC), settings.namespace(who)
    port = f"link add name {port_name(who)} netns {fabric} type veth"
    return f"{port} peer name {UPLINK} address {mac_address(who)} netns {own}\n"


def port_batch(who: str) -> str:
    """`ip -batch` lines for the fabric's end of an uplink."""
    return f"link set dev {port_name(who)} mtu {PORT_MTU} master {BRIDGE} up\n"


def uplink_batch(addresses: Iterable[Address], mtu: int, underlay: Underlay) -> str:
    """`ip -batch` lines that configure an uplink; they may be run again on one that is in use."""
    lines = ["link set dev lo up", f"link set dev {UPLINK} mtu {mtu} up"]
    own = list(addresses)
    lines += [f"address replace {_alone(address)} dev {UPLINK}{_nodad(address)}" for address in own]
    versions = {address.version for address in own}
    # A translated endpoint comes last: what the host sends then carries it, as it would behind its translator.
    source = {address.version: address for address in own}
    for subnet in underlay.subnets:
        if subnet.version in versions:
            lines.append(f"route replace {subnet} dev {UPLINK} src {source[subnet.version]}")
    for gateway in underlay.gateway:
        if gateway.version in versions:
            lines.append(f"route replace default via {gateway} dev {UPLINK} src {source[gateway.version]}")
    return "\n".join(lines) + "\n"


def networkd_file(addresses: Iterable[Address], mtu: int, underlay: Underlay) -> str:
    """What `uplink_batch` says, as systemd.network(5) has it, for a host whose uplink networkd manages."""
    own = list(addresses)
    source = {address.version: address for address in own}
    sections = [
        f"[Match]\nName={UPLINK}\n",
        f"[Link]\nMTUBytes={mtu}\n",
        # Nothing of its own accord: only what the host is told to send is to be heard on the underlay.
        "[Network]\nIPv6AcceptRA=no\nLLMNR=no\nMulticastDNS=no\nLLDP=no\n",
    ]
    for address in own:
        quick = "DuplicateAddressDetection=none\n" if address.version == 6 else ""
        sections.append(f"[Address]\nAddress={_alone(address)}\n{quick}")
    for subnet in underlay.subnets:
        if subnet.version in source:
            link = "Scope=link\n" if subnet.version == 4 else ""
            sections.append(f"[Route]\nDestination={subnet}\n{link}PreferredSource={source[subnet.version]}\n")
    for gateway in underlay.gateway:
        if gateway.version in source:
            preferred = f"PreferredSource={source[gateway.version]}\n"
            sections.append(f"[Route]\nGateway={gateway}\nGatewayOnLink=yes\n{preferred}")
    return "\n".join(sections)


def make_tap(settings: Settings, who: str) -> None:
    """The port of a machine: its other end is what QEMU opens."""
    remove_port(settings, who)
    fabric = settings.namespace(FABRIC)
    run(["ip", "-n", fabric, "tuntap", "add", "dev", port_name(who), "mode", "tap"])
    run(["ip", "-n", fabric, "-batch", "-"], input=port_batch(who))


def configure(settings: Settings, host: LabHost, underlay: Underlay, *, renumber: bool) -> None:
    """Tell a running host's uplink of subnets that came later; `renumber` takes its old addresses away."""
    batch = uplink_batch(host.addresses, host.mtu, underlay)
    if renumber:
        batch = f"address flush dev {UPLINK} scope global\n{batch}"
    run(["ip", "-n", settings.namespace(host.name), "-batch", "-"], input=batch)


def namespaces(settings: Settings) -> list[str]:
    """All namespaces of this lab that are there now."""
    prefix = settings.namespace("")
    if not NAMESPACES.is_dir():
        return []
    return sorted(entry.name for entry in NAMESPACES.iterdir() if entry.name.startswith(prefix))


def remove_port(settings: Settings, who: str) -> None:
    """Take a port off the underlay. A namespace that something still holds keeps nothing to speak on."""
    if namespace_path(settings, FABRIC).exists():
        run(["ip", "-n", settings.namespace(FABRIC), "link", "delete", "dev", port_name(who)], check=False)


def remove_namespace(name: str) -> None:
    if (NAMESPACES / name).exists():
        run(["ip", "netns", "delete", name])


def links(settings: Settings, who: str) -> set[str]:
    """Names of the links in a namespace."""
    out = run(["ip", "-json", "-n", settings.namespace(who), "link"]).stdout
    return {link["ifname"] for link in json.loads(out)}


def _made_namespace(settings: Settings, who: str) -> str:
    namespace = settings.namespace(who)
    if not namespace_path(settings, who).exists():
        run(["ip", "netns", "add", namespace])
    return namespace


def _alone(address: Address) -> str:
    return f"{address}/{address.max_prefixlen}"


def _nodad(address: Address) -> str:
    # Nobody else can have the address, and a host must have it before sshd starts.
    return " nodad" if address.version == 6 else ""
