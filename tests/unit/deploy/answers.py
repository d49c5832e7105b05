"""What a host answers when it is exactly as its plan says: the text of a snapshot, to be changed by a test."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping

from privnet.plan.host import HostPlan
from privnet.render import ManagedFile, guard_structure, mesh_text, render_host, render_names

SERVICES = (
    "systemd-networkd.service",
    "privnet-guard.service",
    "wg-quick@privnet.service",
)
ROOM = (
    "disk /etc 1000000 4096 100000",
    "disk /run 1000000 4096 100000",
    "disk /var/lib 1000000 4096 0",
    "release 252",
    "os debian 12",
)
PACKAGES = {
    "wireguard-tools": "1.0.20210914-1+b1",
    "nftables": "1.0.6-2+deb12u2",
    "dnsmasq-base": "2.90-4~deb12u1",
    "iproute2": "6.1.0-3",
}
Sections = dict[str, list[str]]
BRIDGE: dict[str, object] = {
    "stp_state": 0, "ageing_time": 0, "vlan_filtering": 0, "mcast_snooping": 0, "group_fwd_mask": "0",
    "nf_call_iptables": 0, "nf_call_ip6tables": 0, "nf_call_arptables": 0,
}  # fmt: skip


def key_of(name: str) -> str:
    """A public key that belongs to a host's name."""
    return f"{name.replace('-', ''):A<42}A="


def answer(plan: HostPlan) -> Sections:
    """The sections of a snapshot of a host that is as planned."""
    files = render_host(plan)
    found: Sections = {
        "system": [
            "user 0",
            f"machine {digest(plan.name)[:32]}",
            f"time {time.time():.0f}",
            *ROOM,
            "wireguard kernel",
            "systemd yes",
            *(f"enabled {unit} enabled" for unit in (*SERVICES, "privnet-restore.service", "privnet-networks.target")),
            "enabled systemd-networkd-wait-online.service disabled",
        ],
        "packages": [f"ii  {name} {version}" for name, version in PACKAGES.items()],
        "files": [_file(file) for file in files] + ["f 600 0:0 /etc/wireguard/privnet.key\t"],
        "digests": [f"{digest(file.text)}  {file.path}" for file in files if not file.is_link],
        "key": [
            f"key {key_of(plan.name)}",
            f"config 600 0:0 {digest(mesh_text(plan.mesh))}",
            f"configkey {key_of(plan.name)}",
        ],
        "mesh": [
            f"interface {key_of(plan.name)} {plan.mesh.port} off",
            *(f"peer {peer.public_key} {peer.endpoint} {peer.address}/32 off no" for peer in plan.mesh.peers),
        ],
        "links": [json.dumps(_links(plan))],
        "addresses": [f"privnet {plan.mesh.address}/{plan.mesh.length}"],
        "routes": [
            f"unreachable {plan.mesh.prefix} metric 4294967295 ",
            f"{plan.mesh.prefix} dev privnet proto kernel scope link src {plan.mesh.address} mtu lock {plan.mesh.mtu} ",
        ],
        "fdb": [],
        "neighbours": [],
        "firewall": [],
        "guard": [
            "sum " + "0" * 64,
            "listing " + "0" * 64,
            "owner heard",
            f"structure {guard_structure(plan.guard.vxlan_port, plan.guard.mesh, plan.guard.port)}",
            json.dumps({"nftables": [{"set": {"name": "speakers", "elem": _speakers(plan)}}]}),
            json.dumps({"nftables": [{"set": {"name": "ports", "elem": _bindings(plan)}}]}),
        ],
        "namespaces": [],
        "units": [],
        "names": [],
        "answering": [],
        "ways": [],
        "networkd": [],
        "failed": [],
        "end": [],
    }
    units = [*SERVICES, "privnet-networks.target"]
    for overlay in plan.overlays:
        network = overlay.network
        config, hosts = render_names(network, plan.ttl, plan.domain, plan.outside)
        found["names"].append(f"{network.id} yes {digest(hosts.text)} {digest(config.text)}")
        units += [f"privnet-overlay@{network.vni}.service", f"privnet-dns@{network.id}.service"]
        found["answering"].append(f"{network.id} resolver 700")
        found["answering"] += _heard(network.id, network.resolver, '(("dnsmasq",pid=700,fd=4))')
        if plan.outside.upstream:
            units += [f"privnet-forwarder@{network.id}.{kind}" for kind in ("socket", "service")]
            program = "/usr/bin/perl /etc/privnet/lib/forwarder.pl"
            found["answering"].append(f"{network.id} servers {program} {' '.join(plan.outside.servers)} ")
        for place in plan.outside.places:
            found["answering"] += _heard(network.id, f"{place}%lo", '(("perl",pid=701,fd=3),("systemd",pid=1,fd=40))')
        for remote in overlay.remotes:
            mac, address = remote.container.mac, remote.container.address
            found["fdb"].append(f"{mac} dev {network.vxlan} dst {remote.vtep} self static")
            found["neighbours"].append(f"{address} dev {network.vxlan} lladdr {mac} PERMANENT ")
        for port in overlay.ports:
            units += [f"privnet-container@{port.name}.service", f"privnet-namespace@{port.name}.service"]
            found["fdb"] += [
                f"{port.mac} dev {port.name} master {port.bridge} static",
                f"{port.host_mac} dev {port.name} master {port.bridge} permanent",
                f"33:33:00:00:00:01 dev {port.name} self permanent",
            ]
            inside = {
                "ifname": "pn0",
                "flags": ["UP"],
                "mtu": port.mtu,
                "address": port.mac,
                "link_index": _index(port.name),
                "addr_info": [{"local": port.address, "prefixlen": port.length}],
            }
            found["namespaces"].append(f"{port.netns}\t{json.dumps([inside])}")
    for unit in units:
        found["units"] += [
            f"Id={unit}",
            "LoadState=loaded",
            "ActiveState=active",
            f"SubState={'running' if unit in SERVICES else 'exited'}",
            "NeedDaemonReload=no",
        ]
    return found


def bare() -> Sections:
    """The sections of a snapshot of a Debian machine on which privnet has never been."""
    found: Sections = {name: [] for name in ("system", "packages", "files", "digests", "key", "mesh", "links")}
    found |= {name: [] for name in ("addresses", "routes", "fdb", "neighbours", "firewall", "guard", "namespaces")}
    found |= {"units": [], "names": [], "answering": [], "ways": [], "networkd": [], "failed": [], "end": []}
    found["system"] = ["user 0", "machine 0123456789abcdef0123456789abcdef", "systemd yes", *ROOM]
    found["system"].append(f"time {time.time():.0f}")
    found["system"] += [f"enabled {unit} not-found" for unit in SERVICES]
    found["packages"] = ["ii  iproute2 6.1.0-3", "un  dnsmasq-base "]
    return found


def text(sections: Mapping[str, list[str]]) -> list[str]:
    """The lines of an answer."""
    return [line for name, lines in sections.items() for line in (f"##privnet {name}", *lines)]


def digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _heard(network: str, address: str, users: str) -> list[str]:
    return [f"{network} {protocol} {address}:53 users:{users}" for protocol in ("udp", "tcp")]


def _file(file: ManagedFile) -> str:
    if file.is_link:
        return f"l 777 0:0 {file.path}\t{file.text}"
    return f"f {file.mode:o} 0:0 {file.path}\t"


def _index(port: str) -> int:
    """Another one for each port of the few networks and containers of a test: an index has 32 bits, a name 40."""
    return int(port[5:], 16)


def _links(plan: HostPlan) -> list[dict[str, object]]:
    links: list[dict[str, object]] = [_link("privnet", "", plan.mesh.mtu, "")]
    for overlay in plan.overlays:
        network = overlay.network
        links.append(_link(network.bridge, "bridge", network.mtu, network.bridge_mac, data=BRIDGE))
        vxlan = {
            "id": network.vni,
            "local": overlay.vtep,
            "port": plan.guard.vxlan_port,
            "port_range": {"low": plan.guard.vxlan_port, "high": plan.guard.vxlan_port + 1},
            "learning": False,
            "proxy": True,
        }
        port = {"state": "forwarding", "learning": False, "flood": True}
        links.append(_link(network.vxlan, "vxlan", network.mtu, overlay.mac, network.bridge, vxlan, port))
        for attached in overlay.ports:
            port = {"state": "forwarding", "learning": False, "flood": False, "guard": False}
            links.append(_link(attached.name, "veth", attached.mtu, attached.host_mac, attached.bridge, port=port))
    return links


def _link(
    name: str,
    kind: str,
    mtu: int,
    mac: str,
    master: str = "",
    data: dict[str, object] | None = None,
    port: dict[str, object] | None = None,
) -> dict[str, object]:
    info = {"info_kind": kind, "info_data": data or {}, "info_slave_data": port or {}}
    index = _index(name) if name.startswith("pnc") else 2
    link = {"ifname": name, "ifindex": index, "flags": ["UP"], "mtu": mtu, "address": mac, "linkinfo": info}
    return link | ({"master": master} if master else {})


def _speakers(plan: HostPlan) -> list[dict[str, object]]:
    return [
        {"concat": [s.vtep, s.vni << 8, address, address]}
        for s in plan.guard.speakers
        for address in [int(s.mac.replace(":", "")[4:], 16)]
    ]


def _bindings(plan: HostPlan) -> list[dict[str, object]]:
    return [{"concat": [b.port, b.mac, b.address]} for b in plan.guard.bindings]
