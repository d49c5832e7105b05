"""What a host's own firewall would do to private traffic, and what to do about it. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

from privnet.deploy.firewall import Drop, Packet, dropping
from privnet.deploy.state import HostState
from privnet.diagnostics import some
from privnet.plan.host import HostPlan


def obstacles(plan: HostPlan, state: HostState) -> Iterator[str]:
    """Why this host has to be left alone, one reason a rule set."""
    yield from _forwarding(state)
    yield from _ways_in(plan, state)


def _forwarding(state: HostState) -> Iterator[str]:
    if not state.firewall.bridged:
        return
    # No name that a rule of somebody else's would be for: only what lets all private networks pass counts.
    private = Packet(iif="pnb0", oif="pnb0", state="untracked", type="")
    drop = next(dropping(state.firewall.tables, "forward", private, firm=True), None)
    if drop is None and state.firewall.legacy:
        drop = Drop("FORWARD of iptables-legacy", "legacy")
    if drop is not None:
        yield (
            f"its firewall would drop private traffic: chain {drop.chain} drops what it does not know, and bridged "
            "frames pass through it (net.bridge.bridge-nf-call-iptables=1). Let private networks pass: "
            f"{_PASS.get(drop.maker, _PASS_NFT).format(drop.chain)}; or set net.bridge.bridge-nf-call-iptables=0"
        )


_PASS = {
    "docker": "`iptables -I DOCKER-USER -i pnb+ -o pnb+ -j ACCEPT`",
    "ufw": "`ufw route allow in on pnb+ out on pnb+`",
    "legacy": "`iptables-legacy -I FORWARD -i pnb+ -o pnb+ -j ACCEPT`",
    "firewalld": "`firewall-cmd --permanent --new-zone=privnet`, the same with `--zone=privnet --add-interface=pnb+` "
    "and with `--zone=privnet --add-forward`, then `firewall-cmd --reload`",
}
_PASS_NFT = '`nft insert rule {} iifname "pnb*" oifname "pnb*" accept`'


def _ways_in(plan: HostPlan, state: HostState) -> Iterator[str]:
    """Whether hosts that speak to this one for the first time come through its firewall, and what they bring.

    A mesh that runs is left alone, however it does.
    """
    if not state.firewall.tables:
        return
    places = _places(plan)
    running = {peer.endpoint for peer in state.mesh.peers.values()} if state.mesh else set[str]()
    new = {host: at for host, at in sorted(places.items()) if host != plan.name and at[1] not in running}
    if not new:
        return
    port, vxlan = str(plan.mesh.port), str(plan.guard.vxlan_port)
    # Something there may translate another port into this one, which a firewall can ask for.
    translated = places[plan.name][1].rpartition(":")[2] != port
    into = Packet(dport=port, status=None if translated else "")
    # What comes over IPv6 is not judged.
    outside = {host: endpoint.rpartition(":")[0] for host, (_, endpoint) in new.items() if "[" not in endpoint}
    for drop, hosts in _kept_out(state, into, outside).items():
        remedy = _LET_IN.get(drop.maker, _LET_IN_NFT).format(port, drop.chain)
        who = some([f"{host} ({outside[host]})" for host in hosts])
        yield (
            f"its firewall keeps peers out: chain {drop.chain} drops UDP port {port}, to which {who} would speak: they "
            f"would reach it only for a while after it has spoken itself. Let them in: {remedy}"
        )
    inner = Packet("privnet", target=plan.mesh.address, sport=vxlan, dport=vxlan)
    for drop, hosts in _kept_out(state, inner, {host: vtep for host, (vtep, _) in new.items()}).items():
        remedy = _LET_OUT.get(drop.maker, _LET_OUT_NFT).format(vxlan, drop.chain)
        yield (
            f"its firewall would drop private traffic: chain {drop.chain} drops UDP port {vxlan} out of the mesh, from "
            f"{some(hosts)}. {remedy}"
        )


def _kept_out(state: HostState, packet: Packet, sources: Mapping[str, str]) -> dict[Drop, list[str]]:
    """Chains that drop a packet, each with those of the hosts that it may come from."""
    found = defaultdict[Drop, list[str]](list)
    for table in state.firewall.tables:
        whoever = [*dropping((table,), "input", packet)]
        for host, source in sources.items():
            drops = dropping((table,), "input", replace(packet, source=source)) if table.knows_sources else whoever
            for drop in drops:
                found[drop].append(host)
    return found


_LET_IN = {
    "ufw": "`ufw allow {0}/udp`",
    "firewalld": "`firewall-cmd --permanent --add-port={0}/udp`, then `firewall-cmd --reload`",
}
_LET_IN_NFT = "`nft insert rule {1} udp dport {0} accept`"
_LET_OUT = {
    "ufw": "Let it in: `ufw allow in on privnet to any port {0} proto udp`",
    "firewalld": "Let it in: `firewall-cmd --permanent --new-zone=mesh`, the same with "
    "`--zone=mesh --add-interface=privnet` and with `--zone=mesh --add-port={0}/udp`, then `firewall-cmd --reload`",
    "tailscale": "Tailscale drops 100.64.0.0/10 from everybody else: give the fleet another `wireguard.mesh`",
}
_LET_OUT_NFT = 'Let it in: `nft insert rule {1} iifname "privnet" udp dport {0} accept`'


def _places(plan: HostPlan) -> dict[str, tuple[str, str]]:
    """Mesh address and endpoint of this host and of all with which it shares a private network."""
    found: dict[str, tuple[str, str]] = {}
    for overlay in plan.overlays:
        found |= overlay.network.record.places
    return found
