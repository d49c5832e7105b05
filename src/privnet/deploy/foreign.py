"""What a host's own rules would do to private traffic. Pure.

Which packets they are asked about, and what is said of a chain that drops one; what to do about it is
:mod:`privnet.deploy.remedies`'.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

from privnet.deploy import remedies
from privnet.deploy.firewall import OWN, Drop, Packet, Table, dropping
from privnet.deploy.remedies import Wanted, remedy
from privnet.deploy.state import HostState
from privnet.diagnostics import some
from privnet.plan.host import HostPlan

ARRIVES, LEAVES = ("ingress", "prerouting", "input"), ("output", "postrouting", "egress")
"""Hooks of what comes to a host and of what it sends, in their order."""
_OF_A_HOST = re.compile("br-|veth|virbr|cni|cali|flannel|lxc|tun|tap|wg|tailscale")
"""Devices of a host's own networks, and tunnels."""
_FRAMES = (("pnc", "pnc"), ("pnc", "pnx"), ("pnx", "pnc"))
"""Between which kinds of ports a bridge carries frames."""


def obstacles(plan: HostPlan, state: HostState) -> Iterator[str]:
    """Why this host has to be left alone, one reason a chain and a kind of packet."""
    if state.firewall.tables:
        yield from _through_iptables(plan, state)
        yield from _frames(plan, state)
        yield from _mesh(plan, state)


# --- within a bridge: always judged ------------------------------------------------------------------------


def _through_iptables(plan: HostPlan, state: HostState) -> Iterator[str]:
    """Frames of a bridge, where they pass the rules for packets too."""
    if not state.firewall.bridged:
        return
    for hook, nft, iptables, docker in (
        ("prerouting", 'iifname "pnb*"', "-i pnb+", {}),
        ("forward", 'iifname "pnb*" oifname "pnb*"', "-i pnb+ -o pnb+", {"docker": remedies.DOCKER_PASSES}),
        ("postrouting", 'oifname "pnb*"', "-o pnb+", {}),
    ):
        # First as any network's, which no rule names, then as each one's.
        for drop in dropping(state.firewall.tables, hook, _within("pnb0", hook), firm=True):
            if not any(_dropped(state, drop, packet) for packet in _of_networks(plan, hook)):
                continue
            zone = remedies.zone("privnet", "pnb+", "--add-forward")
            own = {"ufw": "`ufw route allow in on pnb+ out on pnb+`", "firewalld": zone, **docker}
            yield (
                f"its firewall would drop private traffic: chain {drop} drops what it does not know, and bridged "
                "frames pass through it (net.bridge.bridge-nf-call-iptables=1). Let private networks pass: "
                f"{remedy(drop, Wanted(nft, iptables, own if hook == 'forward' else {}))}. Or, where nothing needs "
                "that setting: `echo net.bridge.bridge-nf-call-iptables=0 > /etc/sysctl.d/60-bridge-nf.conf`, "
                "`sysctl --system`"
            )


def _within(bridge: str, hook: str) -> Packet:
    return Packet(
        iif=bridge if hook != "postrouting" else None,
        oif=bridge if hook != "prerouting" else None,
        state="untracked",
        type="",
    )


def _of_networks(plan: HostPlan, hook: str) -> Iterator[Packet]:
    for overlay in plan.overlays:
        packet = _within(overlay.network.bridge, hook)
        yield replace(packet, source=overlay.ports[-1].address, target=overlay.network.resolver)


def _dropped(state: HostState, drop: Drop, packet: Packet, families: tuple[str, ...] = ()) -> bool:
    return drop in dropping(state.firewall.tables, drop.hook, packet, families=families, firm=True)


def _frames(plan: HostPlan, state: HostState) -> Iterator[str]:
    """Frames of a bridge as such: rules of the family bridge, and of ports."""
    found = defaultdict[Drop, dict[str, None]](dict)
    for hook in ("prerouting", "forward", "postrouting"):
        for into, out in _FRAMES:
            for kind in ("IPv4", "ARP"):
                packet = Packet(
                    iif=f"{into}0" if hook != "postrouting" else None,
                    oif=f"{out}0" if hook != "prerouting" else None,
                    protocol="udp" if kind == "IPv4" else "",
                    family=kind.lower(),
                    state="untracked",
                    type="",
                )
                for drop in dropping(state.firewall.tables, hook, packet, families=("bridge",), firm=True):
                    found[drop].setdefault(kind)
    for drop, kinds in found.items():
        nft = {"prerouting": 'iifname "pn*"', "postrouting": 'oifname "pn*"'}
        ebtables = {"prerouting": "-i pn+", "postrouting": "-o pn+"}
        wanted = Wanted(nft.get(drop.hook, 'iifname "pn*" oifname "pn*"'), ebtables.get(drop.hook, "-i pn+ -o pn+"))
        yield (
            f"its firewall would drop private traffic: chain {drop} drops frames within bridges ({', '.join(kinds)}), "
            f"those of private networks among them. Let them pass: {remedy(drop, wanted)}"
        )
    ours = {name for overlay in plan.overlays for name in (overlay.network.vxlan, *(p.name for p in overlay.ports))}
    for hook in ("ingress", "egress"):
        for device in sorted(ours & _devices(state.firewall.tables, hook)):
            packet = Packet(iif=device, oif=device, state="untracked", type="")
            for drop in dropping(state.firewall.tables, hook, packet, firm=True):
                way = "comes by" if hook == "ingress" else "goes to"
                yield (
                    f"its firewall would drop private traffic: chain {drop} drops what {way} {device}, which is "
                    f"privnet's. Take the chain away: `nft delete chain {drop}`, also where it is loaded from"
                )


def _devices(tables: tuple[Table, ...], hook: str) -> set[str]:
    return {device for table in tables for base in table.bases if base.hook == hook for device in base.devices}


# --- between hosts: judged for hosts that are new to this one -----------------------------------------------


def _mesh(plan: HostPlan, state: HostState) -> Iterator[str]:
    """Whether hosts that speak to this one for the first time come through its firewall, and what they bring, and
    whether it can answer. A mesh that runs is left alone, however it does."""
    every = places(plan)
    running = {peer.endpoint for peer in state.mesh.peers.values()} if state.mesh else set[str]()
    new = {host: at for host, at in sorted(every.items()) if host != plan.name and at[1] not in running}
    if not new:
        return
    port, vxlan = str(plan.mesh.port), str(plan.guard.vxlan_port)
    # Something there may translate another port into this one, which a firewall can ask for.
    translated = every[plan.name][1].rpartition(":")[2] != port
    uplink = _uplink(state)
    cut = {host: endpoint.rpartition(":") for host, (_, endpoint) in new.items()}
    ends = {host: (address.strip("[]"), there) for host, (address, _, there) in cut.items()}
    arriving, leaving = dict[str, Packet](), dict[str, Packet]()
    for host, (address, there) in ends.items():
        family = "ipv6" if ":" in address else "ipv4"
        arriving[host] = Packet(
            iif=uplink, source=address, dport=port, status=None if translated else "", family=family
        )
        leaving[host] = Packet(
            oif=uplink, target=address, sport=port, dport=there, state=None, type=None, family=family
        )
    yield from _keeps_out(state, port, {host: ends[host][0] for host in new}, arriving)
    for drop, hosts in _drops(state, LEAVES, leaving).items():
        there = ends[hosts[0]][1]
        own = {"ufw": f"`ufw allow out proto udp to any port {there}`"}
        yield (
            f"its firewall keeps it from peers: chain {drop} drops what it would send from UDP port {port} to "
            f"{some([f'{host} ({ends[host][0]})' for host in hosts])}. Let it out: "
            f"{remedy(drop, Wanted(f'udp sport {port}', f'-p udp --sport {port}', own))}"
        )
    yield from _overlay(state, plan, vxlan, {host: vtep for host, (vtep, _) in new.items()})


def _keeps_out(state: HostState, port: str, places: Mapping[str, str], packets: Mapping[str, Packet]) -> Iterator[str]:
    wanted = Wanted(
        f"udp dport {port}",
        f"-p udp --dport {port}",
        {"ufw": f"`ufw allow {port}/udp`", "firewalld": remedies.port(port)},
    )
    for drop, hosts in _drops(state, ARRIVES, packets).items():
        yield (
            f"its firewall keeps peers out: chain {drop} drops UDP port {port}, to which "
            f"{some([f'{host} ({places[host]})' for host in hosts])} would speak: they would reach it only for a while "
            f"after it has spoken itself. Let them in: {remedy(drop, wanted)}"
        )


def _overlay(state: HostState, plan: HostPlan, vxlan: str, vteps: Mapping[str, str]) -> Iterator[str]:
    """VXLAN where it comes out of the mesh, and where it goes into it."""
    own = plan.mesh.address
    came = Packet("privnet", target=own, sport=vxlan, dport=vxlan)
    goes = Packet(oif="privnet", source=own, sport=vxlan, dport=vxlan, state=None, type=None)
    tailscale = "give the fleet another `wireguard.mesh`, since Tailscale drops 100.64.0.0/10 from everybody else"
    let_in = Wanted(
        f'iifname "privnet" udp dport {vxlan}',
        f"-i privnet -p udp --dport {vxlan}",
        {
            "ufw": f"`ufw allow in on privnet to any port {vxlan} proto udp`",
            "firewalld": remedies.zone("mesh", "privnet", f"--add-port={vxlan}/udp"),
            "tailscale": tailscale,
        },
    )
    let_out = Wanted(
        f'oifname "privnet" udp dport {vxlan}',
        f"-o privnet -p udp --dport {vxlan}",
        {"ufw": f"`ufw allow out on privnet to any port {vxlan} proto udp`"},
    )
    for hooks, wanted, way, packets in (
        (ARRIVES, let_in, "out of the mesh, from", {h: replace(came, source=vtep) for h, vtep in vteps.items()}),
        (LEAVES, let_out, "into the mesh, to", {h: replace(goes, target=vtep) for h, vtep in vteps.items()}),
    ):
        for drop, hosts in _drops(state, hooks, packets).items():
            yield (
                f"its firewall would drop private traffic: chain {drop} drops UDP port {vxlan} {way} {some(hosts)}. "
                f"Let it through: {remedy(drop, wanted)}"
            )


def _drops(state: HostState, hooks: tuple[str, ...], packets: Mapping[str, Packet]) -> dict[Drop, list[str]]:
    """Chains that drop packets, each with those of the hosts whose packets they are."""
    found = defaultdict[Drop, list[str]](list)
    for table in state.firewall.tables:
        known = dict[Packet, list[Drop]]()
        for host, packet in packets.items():
            asked = packet if table.knows_addresses else _of_anybody(packet)
            if asked not in known:
                known[asked] = [drop for hook in hooks for drop in dropping((table,), hook, asked)]
            for drop in known[asked]:
                found[drop].append(host)
    return found


def _of_anybody(packet: Packet) -> Packet:
    """Where no rule asks for addresses one packet stands for all."""
    return replace(packet, source=None, target=None)


def _uplink(state: HostState) -> str | None:
    """The device of all other hosts, where there is only one that it can be."""
    found = {device for _, device in state.routes if not OWN.fullmatch(device) and not _OF_A_HOST.match(device)}
    return found.pop() if len(found) == 1 else None


def places(plan: HostPlan) -> dict[str, tuple[str, str]]:
    """Mesh address and endpoint of this host and of all with which it shares a private network."""
    found: dict[str, tuple[str, str]] = {}
    for overlay in plan.overlays:
        found |= overlay.network.record.places
    return found
