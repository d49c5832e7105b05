"""Which test notices when a control is switched off: `python -m tests.security.mutation [--all]`.

Each control of a running fleet is taken away alone. The attacks named with it must notice: one that succeeds now, or
one that misses its honest twin or the drop counter that proves who acted. `--all` runs every attack against every control
(an hour and a half) and prints the same table, which stands in docs/security.md.
"""

# ruff: noqa: E501 - a control a line is a table
from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .attacks import (
    ATTACKS,
    OUTSIDE_RULE,
    SOURCE_RULE,
    conntrack,
    container_frames,
    guard_alone,
    guard_flushed,
    guard_stopped,
    hardened,
    honest_traffic,
    host_stack,
    host_to_container,
    into_resolver,
    mesh_address_from_outside,
    mesh_services,
    names_from_outside,
    names_of_others,
    no_learning,
    outer_spoof,
    outsider_vxlan,
    peer_forgery,
    peer_to_host_stack,
    port_teaches_nothing,
    resolver_killed,
    resolver_taken_over,
    resolvers_of_the_host,
    roaming,
    route_alone,
    spoofed_answers,
    through_host,
    unknown_mac,
)
from .scene import BLOG, SHOP, SOLO, STOREFRONT, Scene

Attack = Callable[[Scene], None]
Script = Callable[[Scene], str]
PAUSE = "systemctl stop privnet-guard-watch"
RESTORE_GUARD = "systemctl reload privnet-guard && systemctl start privnet-guard-watch"


@dataclass(frozen=True)
class Control:
    """Something that keeps private networks apart, and who notices when it is gone.

    :param off: shell commands on ``host`` that take it away; ``on`` brings it back
    """

    name: str
    host: str
    off: Script
    on: Script
    noticed_by: tuple[Attack, ...]
    rule: str = ""

    def __str__(self) -> str:
        return self.name


# --- rules of the guard -------------------------------------------------------------------------------


def rule(chain: str, text: str, host: str, *noticed_by: Attack, name: str = "") -> Control:
    """A rule of the guard, deleted. ``text`` is a part of it that stands in no other rule of its chain."""
    find = f"nft -a list chain {chain.replace(' ', ' privnet ')} | grep -F '{text}' | sed 's/.*# handle //'"
    delete = f'handle=$({find}); nft delete rule {chain.replace(" ", " privnet ")} handle "$handle"'
    return Control(
        name or f"guard, {chain}: `{text}`",
        host,
        lambda _: f"{PAUSE}; {delete}",
        lambda _: RESTORE_GUARD,
        noticed_by,
        text,
    )


def weaker(chain: str, name: str, host: str, extra: Script, *noticed_by: Attack) -> Control:
    """A rule of the guard with one of its conditions left out: what it then lets in is accepted by a rule before it."""

    def off(scene: Scene) -> str:
        return f"{PAUSE}; nft insert rule {chain.replace(' ', ' privnet ')} {extra(scene)} accept"

    return Control(f"guard, {chain}: {name}", host, off, lambda _: RESTORE_GUARD, noticed_by)


def _speaker(scene: Scene, *, vni: bool = True, mac: bool = True, address: bool = True, kind: bool = True) -> str:
    """What lets lab-3's container of the shop in, without some of the conditions."""
    own = scene[f"1.worker.{STOREFRONT}"]
    text = "@th,224,16 0x0800 " if kind else ""
    text += f"ip saddr {scene.mesh('lab-3')}"
    if vni:
        text += f" @th,96,24 {scene.vni(SHOP):#x}"
    if mac:
        text += f" @th,176,48 0x{scene.mac(own).replace(':', '')}"
    if address:
        text += " @th,336,32 0x" + "".join(f"{int(part):02x}" for part in own.address.split("."))
    return text


def _tenant(scene: Scene) -> tuple[str, str]:
    from .attacks import TENANT

    return scene.mac(scene[TENANT]), scene[TENANT].address


def _without_neighbours() -> Control:
    """The resolver's neighbour discovery; what it has found is forgotten."""
    plain = rule("inet upstream", "icmpv6 type", "lab-3", names_from_outside)
    forget = f"for port in $(ls /sys/class/net | grep ^pnu); do ip -6 neigh flush dev $port; done; ip -n {SHOP} -6 neigh flush dev pnu0"
    return Control(
        plain.name, plain.host, lambda scene: f"{plain.off(scene)}; {forget}", plain.on, plain.noticed_by, plain.rule
    )


GUARD = (
    rule("inet ingress", "jump wireguard", "lab-1", roaming),
    rule("inet ingress", "jump decapsulate", "lab-1", peer_forgery),
    rule("inet ingress", "not VXLAN, out of the mesh", "lab-1", mesh_services),
    rule("inet ingress", "mesh address from outside the mesh", "lab-1", mesh_address_from_outside),
    rule("inet ingress", "jump upstream", "lab-1", resolver_taken_over),
    rule("inet wireguard", "@peers accept", "lab-1", roaming),
    rule("inet wireguard", "@peers6 accept", "lab-1", roaming),
    rule("inet wireguard", SOURCE_RULE, "lab-1", roaming),
    rule("inet decapsulate", OUTSIDE_RULE, "lab-1", outsider_vxlan),
    rule("inet decapsulate", "@speakers accept", "lab-1", peer_forgery),
    rule("inet decapsulate", "not a container of that peer", "lab-1", peer_forgery),
    weaker("inet decapsulate", "any network, MAC and address of a peer", "lab-1", lambda s: f"ip saddr {s.mesh('lab-3')}", peer_forgery),
    weaker("inet decapsulate", "no look at the VNI", "lab-1", lambda s: _speaker(s, vni=False), peer_forgery),
    weaker("inet decapsulate", "no look at the inner MAC", "lab-1", lambda s: _speaker(s, mac=False), peer_forgery),
    weaker("inet decapsulate", "no look at the inner address", "lab-1", lambda s: _speaker(s, address=False), peer_forgery),
    weaker("inet decapsulate", "no look at the inner type", "lab-1", lambda s: _speaker(s, kind=False, address=False), peer_forgery),
    rule("inet upstream", "dport 53 accept", "lab-3", names_from_outside),
    _without_neighbours(),
    rule("inet upstream", "resolver to host", "lab-1", resolver_taken_over),
    rule("inet egress", "VXLAN in clear", "lab-1", guard_alone),
    rule("inet forward", "resolver through host", "lab-1", resolver_taken_over),
    rule("inet forward", "through host to resolver", "lab-1", into_resolver),
    rule("inet forward", "through host into mesh", "lab-1", through_host),
    rule("inet forward", "out of mesh through host", "lab-1", through_host),
    rule("bridge prerouting", "jump port", "lab-3", container_frames),
    rule("bridge prerouting", "notrack", "lab-3", conntrack),
    weaker("bridge port", "IPv4 as oneself tracked", "lab-3", lambda s: f"ether type ip ether saddr {_tenant(s)[0]} ip saddr {_tenant(s)[1]}", conntrack),
    rule("bridge port", "ether type arp", "lab-3", container_frames, name="guard, bridge port: ARP as oneself accepted"),
    rule("bridge port", "ether type ip", "lab-3", container_frames, name="guard, bridge port: IPv4 as oneself accepted"),
    rule("bridge port", "not the port", "lab-3", container_frames),
    weaker("bridge port", "any ARP", "lab-3", lambda s: "ether type arp", container_frames),
    weaker("bridge port", "no look at ARP's sender", "lab-3", lambda s: f"ether type arp ether saddr {_tenant(s)[0]} arp saddr ip {_tenant(s)[1]}", container_frames),
    weaker("bridge port", "no look at the MAC", "lab-3", lambda s: f"ether type ip ip saddr {_tenant(s)[1]}", container_frames),
    weaker("bridge port", "no look at the address", "lab-3", lambda s: f"ether type ip ether saddr {_tenant(s)[0]}", container_frames),
    weaker("bridge port", "IPv6", "lab-3", lambda s: "@ll,96,16 0x86dd", container_frames),
    weaker("bridge port", "VLAN tags", "lab-3", lambda s: "@ll,96,16 0x8100", container_frames),
    rule("bridge input", '"pnc*" jump host', "lab-1", host_stack),
    rule("bridge input", '"pnx*" jump host', "lab-1", peer_to_host_stack),
    rule("bridge host", "01:00:00:00:00:00 drop", "lab-3", honest_traffic),
    rule("bridge host", "private network to host", "lab-1", host_stack),
    rule("bridge output", '"pnc*"', "lab-1", host_to_container),
    rule("bridge output", '"pnx*"', "lab-1", host_to_container),
)  # fmt: skip


# --- everything else ----------------------------------------------------------------------------------


def control(name: str, host: str, off: str | Script, on: str | Script, *noticed_by: Attack) -> Control:
    return Control(
        name,
        host,
        off if callable(off) else lambda _: off,
        on if callable(on) else lambda _: on,
        noticed_by,
    )


def sysctl(name: str, pattern: str) -> Control:
    """IPv6 of one kind of device."""
    path = f"/proc/sys/net/ipv6/conf/{pattern}/disable_ipv6"
    each = f'for file in {path}; do echo {{}} > "$file"; done'
    return control(name, "lab-1", each.format(0), each.format(1), hardened)


def option(name: str, files: str, pattern: str, unit: str, *noticed_by: Attack) -> Control:
    """A line of configuration, on lab-3, where the asking container is."""
    keep, back = "/run/control.kept", "cp -a /run/control.kept/. /"
    off = f"rm -rf {keep}; mkdir {keep}; cp -a --parents {files} {keep}; sed -i -E '/{pattern}/d' {files}; {unit}"
    return control(name, "lab-3", off, f"{back}; rm -rf {keep}; {unit}", *noticed_by)


RESOLVER, FORWARDER = f"/etc/privnet/names/{SHOP}.conf", "/etc/privnet/forwarder.conf"
BOTH = f"{RESOLVER} {FORWARDER}"
AGAIN = f"systemctl restart privnet-dns@{SHOP} privnet-forwarder; sleep 0.5"
RELOAD = "systemctl daemon-reload"


def _tenant_port(scene: Scene, flag: str) -> str:
    from .attacks import TENANT

    number = int(scene[TENANT].address.rpartition(".")[2])
    return f"bridge link set dev pnc{scene.vni(SOLO):06x}{number:04x} {flag}"


def _forget(vni: int) -> str:
    """What bridge and VXLAN device have learnt while they could, static entries that moved among it."""
    learnt = f"$(bridge fdb show dev pnx{vni} | awk '/ dst / && !/static|permanent/ {{print $1}}')"
    return (
        f"ip link set pnb{vni} type bridge fdb_flush; for mac in {learnt}; do bridge fdb del $mac dev pnx{vni} self; done; "
        f"systemctl reload $(ls /sys/class/net/pnb{vni}/brif | sed -n 's/^pnc.*/privnet-container@&/p')"
    )


def _remade(scene: Scene, flag: str, host: str = "lab-1", ports: str = "srcport 4789 4790") -> str:
    """The shop's VXLAN device on a host, made anew: these properties cannot be changed."""
    vni = scene.vni(SHOP)
    device, make = f"pnx{vni}", f"type vxlan id {vni} local {scene.mesh(host)} dstport 4789 {ports} nolearning {flag}"
    return (
        f"mac=$(cat /sys/class/net/{device}/address); mtu=$(cat /sys/class/net/{device}/mtu); ip link del {device}; "
        f"ip link add {device} address $mac mtu $mtu {make}; systemctl reload privnet-overlay@{vni}"
    )


def _allowed(scene: Scene, more: str) -> str:
    key = scene.run("lab-3", "wg show privnet public-key").strip()
    taken = scene.run("lab-2", "wg show privnet public-key").strip()
    own, other = scene.mesh("lab-3"), scene.mesh("lab-2")
    if more:
        return f"wg set privnet peer {key} allowed-ips {own}/32,{other}/32"
    return f"wg set privnet peer {key} allowed-ips {own}/32 peer {taken} allowed-ips {other}/32"


OTHERS = (
    control("mesh: one address in AllowedIPs of each peer", "lab-1", lambda s: _allowed(s, "more"), lambda s: _allowed(s, ""), outer_spoof),
    control(
        "unreachable route behind the mesh", "lab-1",
        "ip route del unreachable 100.64.0.0/16 metric 4294967295",
        "systemctl reload privnet-guard", route_alone,
    ),
    control("watch over the guard", "lab-1", PAUSE, RESTORE_GUARD, guard_flushed),
    option("overlay units bound to the guard", "/etc/systemd/system/privnet-overlay@.service", "^BindsTo=", RELOAD, guard_stopped),
    control("key readable by root alone", "lab-1", "chmod 644 /etc/privnet/wireguard.key", "chmod 600 /etc/privnet/wireguard.key", hardened),
    control(
        "static FDB", "lab-1",
        lambda s: f"for mac in $(bridge fdb show dev pnx{s.vni(SHOP)} | awk '/dst/ {{print $1}}'); do bridge fdb del $mac dev pnx{s.vni(SHOP)}; done",
        lambda s: f"systemctl reload privnet-overlay@{s.vni(SHOP)}", honest_traffic,
    ),
    control(
        "static neighbours", "lab-1", lambda s: f"ip neigh flush dev pnx{s.vni(SHOP)} nud permanent",
        lambda s: f"systemctl reload privnet-overlay@{s.vni(SHOP)}", honest_traffic,
    ),
    control(
        "VXLAN: ARP answered from the neighbours", "lab-1", lambda s: _remade(s, "noproxy"),
        lambda s: _remade(s, "proxy"), honest_traffic,
    ),
    control(
        "VXLAN: one source port", "lab-1", lambda s: _remade(s, "proxy", ports=""), lambda s: _remade(s, "proxy"), conntrack,
    ),
    control(
        "VXLAN: no learning", "lab-1", lambda s: f"ip link set pnx{s.vni(SHOP)} type vxlan learning",
        lambda s: f"ip link set pnx{s.vni(SHOP)} type vxlan nolearning; {_forget(s.vni(SHOP))}", no_learning,
    ),
    control(
        "VXLAN's bridge port: no learning", "lab-1", lambda s: f"bridge link set dev pnx{s.vni(SHOP)} learning on",
        lambda s: f"bridge link set dev pnx{s.vni(SHOP)} learning off; {_forget(s.vni(SHOP))}", no_learning,
    ),
    control(
        "container's port: no learning", "lab-3", lambda s: _tenant_port(s, "learning on"),
        lambda s: f"{_tenant_port(s, 'learning off')}; {_forget(s.vni(SOLO))}", port_teaches_nothing,
    ),
    control(
        "container's port: no flooding", "lab-3",
        lambda s: f"for port in $(ls /sys/class/net/pnb{s.vni(SOLO)}/brif | grep pnc); do bridge link set dev $port flood on; done",
        lambda s: f"for port in $(ls /sys/class/net/pnb{s.vni(SOLO)}/brif | grep pnc); do bridge link set dev $port flood off; done",
        unknown_mac,
    ),
    sysctl("no IPv6 on bridges", "pnb*"),
    sysctl("no IPv6 on VXLAN devices", "pnx*"),
    sysctl("no IPv6 on container ports", "pnc*"),
    control(
        "bridges have no address", "lab-1", lambda s: f"ip addr add 10.240.0.98/22 dev pnb{s.vni(BLOG)}",
        lambda s: f"ip addr del 10.240.0.98/22 dev pnb{s.vni(BLOG)}", hardened,
    ),
    option("resolver: hears its network alone", RESOLVER, "^listen-address", AGAIN, hardened),
    option("resolver: sockets of its address alone", RESOLVER, "^bind-dynamic", AGAIN, hardened),
    option("forwarder: hears resolvers alone", FORWARDER, "^interface", AGAIN, hardened),
    option("forwarder: not the host's own programs", FORWARDER, "^except-interface", AGAIN, hardened),
    option("forwarder: sockets of its addresses alone", FORWARDER, "^bind-dynamic", AGAIN, hardened),
    option("resolver: no-resolv", RESOLVER, "^no-resolv", AGAIN, resolvers_of_the_host),
    option("forwarder: no-resolv", FORWARDER, "^no-resolv", AGAIN, resolvers_of_the_host),
    control(
        "forwarder: another port for each question", "lab-3", f"echo query-port=5399 >> {FORWARDER}; {AGAIN}",
        f"sed -i /^query-port/d {FORWARDER}; {AGAIN}", spoofed_answers,
    ),
    option("resolver: no-ident", RESOLVER, "^no-ident", AGAIN, names_of_others),
    option("resolver: no-hosts", RESOLVER, "^no-hosts", AGAIN, names_from_outside),
    option("resolver: cache-size=0", RESOLVER, "^cache-size", AGAIN, names_from_outside),
    option("resolver and forwarder: stop-dns-rebind", BOTH, "^stop-dns-rebind", AGAIN, names_from_outside),
    option("resolver and forwarder: the domain is local", BOTH, "^local=.private", AGAIN, names_from_outside),
    option("resolver and forwarder: private addresses' names are local", BOTH, "^bogus-priv", AGAIN, names_from_outside),
    option("resolver and forwarder: names of the network's addresses are local", BOTH, "^(bogus-priv|local=.*arpa)", AGAIN, names_from_outside),
    control(
        "resolver: restarted when it ends", "lab-1",
        f"mkdir -p /run/systemd/system/privnet-dns@{SHOP}.service.d; printf '[Service]\\nRestart=no\\n' > /run/systemd/system/privnet-dns@{SHOP}.service.d/control.conf; {RELOAD}",
        f"rm /run/systemd/system/privnet-dns@{SHOP}.service.d/control.conf; {RELOAD}; systemctl start privnet-dns@{SHOP}; sleep 0.3",
        resolver_killed,
    ),
)  # fmt: skip

CONTROLS: dict[str, Control] = {control.name: control for control in (*GUARD, *OTHERS)}


@contextmanager
def switched_off(scene: Scene, control: Control) -> Iterator[None]:
    """The fleet without one control."""
    scene.run(control.host, control.off(scene))
    try:
        yield
    finally:
        scene.run(control.host, control.on(scene))


def notices(scene: Scene, attack: Attack) -> bool:
    """Whether an attack tells that something is wrong."""
    try:
        with scene.watch().planting():
            attack(scene)
    except AssertionError:
        return True
    return False


def table(noticed: dict[str, list[str]]) -> str:
    """The published table."""
    lines = ["| control | noticed by |", "| --- | --- |"]
    lines += [
        f"| {name} | {', '.join(f'`{attack}`' for attack in attacks) or '**nobody**'} |"
        for name, attacks in noticed.items()
    ]
    return "\n".join(lines) + "\n"


def declared() -> str:
    """The table as the list above has it."""
    return table({name: [attack.__name__ for attack in control.noticed_by] for name, control in CONTROLS.items()})


def main() -> int:
    """Boot a fleet, take each control away, print who noticed. Status 1 when one went unnoticed."""
    import os
    import shutil

    from privnet.lab import Lab

    here = Path(__file__).parent
    sys.path.insert(0, str(here.parent))
    from lab.runs import deploy  # type: ignore[import-not-found]

    from .watch import Watch

    os.environ["PRIVNET_LAB"] = "mutation"
    with tempfile.TemporaryDirectory() as temporary:
        inventory = Path(temporary) / "inventory"
        shutil.copytree(here / "inventory", inventory)
        shutil.copy(here / "inventory.py", temporary)
        lab = Lab(inventory, name="mutation")
        lab.down()
        lab.up()
        try:
            watch = Watch(lab, "ip")
            deploy(lab)
            scene = Scene(lab, lambda: watch)
            scene.look()
            scene.hostile()
            noticed = {}
            for name, control in CONTROLS.items():
                attacks = ATTACKS.values() if "--all" in sys.argv else control.noticed_by
                with switched_off(scene, control):
                    noticed[name] = [attack.__name__ for attack in attacks if notices(scene, attack)]
                print(f"{name}: {', '.join(noticed[name]) or 'NOBODY'}", file=sys.stderr, flush=True)
            watch.end()
        finally:
            lab.down()
    sys.stdout.write(table(noticed))
    return 0 if all(noticed.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
