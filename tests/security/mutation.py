"""Which test notices when a control is switched off: `python -m tests.security.mutation [--all]`.

Each control of a running fleet is taken away alone. The attacks named with it must notice: one that succeeds now, or
one that misses its honest twin. That a drop counter is missing says nothing of what arrived; it is enough for the second
barriers alone, where something else stops the same frames (`Control.second` says what). `--all` runs every attack against
every control (an hour and a half) and prints the same tables, which stand in docs/security.md.
"""

# ruff: noqa: E501 - a control a line is a table
from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from lab.kernel import OWNER, as_owner

from .attacks import (
    ATTACKS,
    OUTSIDE_RULE,
    SOURCE_RULE,
    addresses,
    bridge_says_nothing,
    conntrack,
    container_frames,
    foreign_port,
    forged_mtu,
    forwarder_killed,
    forwarder_taken_over,
    garbage,
    guard_alone,
    guard_first,
    guard_flushed,
    guard_killed,
    guard_killed_often,
    guard_killed_unheard,
    guard_stopped,
    hardened,
    honest_traffic,
    host_stack,
    host_to_container,
    joined_datagrams,
    link_local,
    mesh_address_from_outside,
    mesh_killed_often,
    mesh_services,
    multicast_led_away,
    names_from_outside,
    names_killed_often,
    names_of_others,
    no_learning,
    options_and_fragments,
    outer_spoof,
    outsider_vxlan,
    overlay_cut_short,
    peer_forgery,
    peer_to_host_stack,
    port_teaches_nothing,
    replayed,
    resolver_killed,
    resolvers_of_the_host,
    roaming,
    rogue_dhcp,
    route_alone,
    saved_rules,
    spoofed_answers,
    stolen_from_disk,
    through_host,
    tunnel_in_pieces,
    unknown_mac,
    without_hosts_file,
)
from .scene import BLOG, DOMAIN, PAGES, SHOP, SOLO, STOREFRONT, Arrived, Lost, Miscounted, Scene

Attack = Callable[[Scene], None]
Script = Callable[[Scene], str]
RESTORE_GUARD = "systemctl reload privnet-guard"


SHOWN = {
    Arrived: "arrival",
    Lost: "loss",
    Miscounted: "counter",
    AssertionError: "effect",
}
"""What an attack says when it notices. `arrival`: somebody got what must not arrive. `loss`: what is honest was lost.
`effect`: something else that can be seen from outside, as an answer, a learnt MAC or a device that is up. `setting`: it is
read back (`hardened`). `counter`: the guard does not count it, and nothing else is different."""


@dataclass(frozen=True)
class Control:
    """Something that keeps private networks apart, and who notices when it is gone.

    :param off: shell commands on ``host`` that take it away; ``on`` brings it back
    :param shown: how it is noticed, see :data:`SHOWN`
    :param second: for a second barrier, what else stops what it is there for, so that nothing arrives without it
    :param settings: lines of templates and programs that make it, as test_controls.py names them
    """

    name: str
    host: str
    off: Script
    on: Script
    noticed_by: tuple[Attack, ...]
    rule: str = ""
    shown: str = "arrival"
    second: str = ""
    settings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


# --- rules of the guard -------------------------------------------------------------------------------


def rule(
    chain: str,
    text: str,
    host: str,
    *noticed_by: Attack,
    name: str = "",
    shown: str = "arrival",
    second: str = "",
) -> Control:
    """A rule of the guard, deleted. ``text`` is a part of it that stands in no other rule of its chain."""
    find = f"nft -a list chain {chain.replace(' ', ' privnet ')} | grep -F '{text}' | sed 's/.*# handle //'"
    delete = f'echo "delete rule {chain.replace(" ", " privnet ")} handle $({find})" | {OWNER}'
    return Control(
        name or f"guard, {chain}: `{text}`",
        host,
        lambda _: delete,
        lambda _: RESTORE_GUARD,
        noticed_by,
        text,
        "counter" if second else shown,
        second,
    )


def weaker(chain: str, name: str, host: str, extra: Script, *noticed_by: Attack, shown: str = "arrival") -> Control:
    """A rule of the guard with one of its conditions left out: what it then lets in is accepted by a rule before it."""

    def off(scene: Scene) -> str:
        return as_owner(f"insert rule {chain.replace(' ', ' privnet ')} {extra(scene)} accept")

    return Control(f"guard, {chain}: {name}", host, off, lambda _: RESTORE_GUARD, noticed_by, shown=shown)


def _speaker(
    scene: Scene, *, peer: bool = True, vni: bool = True, mac: bool = True, begin: bool = True, address: bool = True,
    kind: bool = True,
) -> str:  # fmt: skip
    """What lets lab-3's container of the shop in, without some of the conditions; that of lab-2, whoever brings it."""
    own = scene[f"1.worker.{STOREFRONT}" if peer else f"2.web.{STOREFRONT}"]
    text = "@th,224,16 0x0800 " if kind else ""
    text += f"ip saddr {scene.mesh('lab-3')}" if peer else 'iifname "privnet"'
    if vni:
        text += f" @th,96,24 {scene.vni(SHOP):#x}"
    if mac and begin:
        text += " @th,176,16 0x0270"
    if mac:
        text += f" @th,192,32 0x{scene.mac(own).replace(':', '')[4:]}"
    if address:
        text += " @th,336,32 0x" + "".join(f"{int(part):02x}" for part in own.address.split("."))
    return text


def _tenant(scene: Scene) -> tuple[str, str]:
    from .attacks import TENANT

    return scene.mac(scene[TENANT]), scene[TENANT].address


def _beside(scene: Scene) -> tuple[str, str]:
    """Somebody else on the tenant's bridge."""
    resolver = scene.resolver(SOLO, "lab-3")
    return scene.mac(resolver), resolver.address


GUARD = (
    rule("inet ingress", "jump wireguard", "lab-1", roaming, garbage, replayed),
    rule("inet ingress", "@peers accept", "lab-1", roaming, garbage, shown="loss"),
    rule("inet ingress", "@speakers accept", "lab-1", peer_forgery, shown="loss"),
    rule("inet ingress", "jump decapsulate", "lab-1", outsider_vxlan),
    rule("inet ingress", "not VXLAN, out of the mesh", "lab-1", mesh_services),
    rule("inet ingress", "mesh address from outside the mesh", "lab-1", mesh_address_from_outside),
    rule("inet wireguard", "@peers6 accept", "lab-1", roaming, shown="loss"),
    rule("inet wireguard", SOURCE_RULE, "lab-1", roaming, garbage, replayed),
    rule("inet decapsulate", OUTSIDE_RULE, "lab-1", outsider_vxlan),
    rule("inet decapsulate", "not a container of that peer", "lab-1", peer_forgery, second="`VXLAN from outside the mesh`, the rule after it, which drops the same"),
    weaker("inet decapsulate", "any network, MAC and address of a peer", "lab-1", lambda s: f"ip saddr {s.mesh('lab-3')}", peer_forgery, tunnel_in_pieces),
    weaker("inet decapsulate", "no look at where it comes in", "lab-1", lambda s: f"ip saddr {s.mesh('lab-2')}", outsider_vxlan),
    weaker("inet decapsulate", "no look at the peer", "lab-1", lambda s: _speaker(s, peer=False), peer_forgery),
    weaker("inet decapsulate", "no look at the VNI", "lab-1", lambda s: _speaker(s, vni=False), peer_forgery),
    weaker("inet decapsulate", "no look at the inner MAC", "lab-1", lambda s: _speaker(s, mac=False), peer_forgery),
    weaker("inet decapsulate", "no look at how the inner MAC begins", "lab-1", lambda s: _speaker(s, begin=False), peer_forgery),
    weaker("inet decapsulate", "no look at the inner address", "lab-1", lambda s: _speaker(s, address=False), peer_forgery, tunnel_in_pieces),
    weaker("inet decapsulate", "no look at the inner type", "lab-1", lambda s: _speaker(s, kind=False, address=False), peer_forgery),
    rule("inet egress", "VXLAN in clear", "lab-1", guard_alone),
    rule("inet forward", "through host into mesh", "lab-1", through_host),
    rule("inet forward", "out of mesh through host", "lab-1", through_host),
    rule("bridge prerouting", "jump port", "lab-3", container_frames),
    rule("bridge prerouting", "notrack", "lab-3", conntrack, shown="effect"),
    weaker("bridge port", "IPv4 as oneself tracked", "lab-3", lambda s: f"ether type ip ether saddr {_tenant(s)[0]} ip saddr {_tenant(s)[1]}", conntrack, shown="effect"),
    rule("bridge port", "ether type arp", "lab-3", container_frames, name="guard, bridge port: ARP as oneself accepted", shown="loss"),
    rule("bridge port", "ether type ip", "lab-3", container_frames, name="guard, bridge port: IPv4 as oneself accepted", shown="loss"),
    rule("bridge port", "not the port", "lab-3", container_frames, options_and_fragments),
    weaker("bridge port", "any ARP", "lab-3", lambda s: "ether type arp", container_frames),
    weaker("bridge port", "no look at ARP's port", "lab-3", lambda s: "ether type arp ether saddr {0} arp saddr ether {0} arp saddr ip {1}".format(*_beside(s)), container_frames),
    weaker("bridge port", "no look at the MAC of ARP's frame", "lab-3", lambda s: "ether type arp arp saddr ether {} arp saddr ip {}".format(*_tenant(s)), container_frames),
    weaker("bridge port", "no look at ARP's sender", "lab-3", lambda s: f"ether type arp ether saddr {_tenant(s)[0]} arp saddr ip {_tenant(s)[1]}", container_frames),
    weaker("bridge port", "no look at the port", "lab-3", lambda s: "ether type ip ether saddr {} ip saddr {}".format(*_beside(s)), container_frames),
    weaker("bridge port", "no look at the MAC", "lab-3", lambda s: f"ether type ip ip saddr {_tenant(s)[1]}", container_frames),
    weaker("bridge port", "no look at the address", "lab-3", lambda s: f"ether type ip ether saddr {_tenant(s)[0]}", container_frames),
    weaker("bridge port", "IPv6", "lab-3", lambda s: "@ll,96,16 0x86dd", container_frames, link_local),
    weaker("bridge port", "IPv4 of who asks for an address", "lab-3", lambda s: "ether type ip ip saddr 0.0.0.0", rogue_dhcp),
    weaker("bridge port", "VLAN tags", "lab-3", lambda s: "@ll,96,16 0x8100", container_frames),
    rule("bridge forward", 'iifname "pnc*" oifname "pnx*"', "lab-1", honest_traffic, shown="loss"),
    rule("bridge forward", 'meta iifkind "vxlan"', "lab-2", honest_traffic, shown="loss"),
    rule("bridge forward", 'iifname "pnc*" oifname "pnc*"', "lab-3", honest_traffic, shown="loss"),
    weaker("bridge forward", "no look at the kind of what is named like a VXLAN device, as sender", "lab-1", lambda _: 'iifname "pnx*" oifname "pnc*"', foreign_port),
    weaker("bridge forward", "no look at the kind of what is named like a VXLAN device, as receiver", "lab-1", lambda _: 'iifname "pnc*" oifname "pnx*"', foreign_port),
    rule("bridge forward", 'iifname "pnc*" counter', "lab-1", foreign_port),
    rule("bridge forward", 'iifname "pnx*" counter', "lab-1", foreign_port),
    rule("bridge forward", 'oifname "pnc*" counter', "lab-1", foreign_port),
    rule("bridge forward", 'oifname "pnx*" counter', "lab-1", foreign_port),
    rule("bridge input", '"pnc*" jump host', "lab-1", host_stack),
    rule("bridge input", '"pnx*" jump host', "lab-1", peer_to_host_stack),
    rule("bridge host", "01:00:00:00:00:00 drop", "lab-3", honest_traffic, second="the rule after it, which drops the same frames; but it would count honest ARP among the attacks"),
    rule("bridge host", "private network to host", "lab-1", host_stack, options_and_fragments),
    rule("bridge output", '"pnc*"', "lab-1", host_to_container),
    rule("bridge output", '"pnx*"', "lab-1", host_to_container, second="the guard of the other host, `not a container of that peer`: no container has the bridge's MAC"),
)  # fmt: skip


# --- everything else ----------------------------------------------------------------------------------


def control(
    name: str,
    host: str,
    off: str | Script,
    on: str | Script,
    *noticed_by: Attack,
    shown: str = "effect",
    settings: tuple[str, ...] = (),
) -> Control:
    return Control(
        name,
        host,
        off if callable(off) else lambda _: off,
        on if callable(on) else lambda _: on,
        noticed_by,
        shown="setting" if noticed_by == (hardened,) else shown,
        settings=settings,
    )


def sysctl(name: str, pattern: str, setting: str, noticed_by: Attack = hardened) -> Control:
    """IPv6 of one kind of device."""
    path = f"/proc/sys/net/ipv6/conf/{pattern}/disable_ipv6"
    each = f'for file in {path}; do echo {{}} > "$file"; done'
    return control(name, "lab-1", each.format(0), each.format(1), noticed_by, settings=(setting,))


def option(
    name: str, files: str, pattern: str, unit: str, *noticed_by: Attack, shown: str = "effect", host: str = "lab-3",
    settings: tuple[str, ...] = (), back: str = "",
) -> Control:  # fmt: skip
    """A line of configuration, on lab-3, where the asking container is. ``back`` follows when it is there again."""
    keep = "/run/control.kept"
    off = f"rm -rf {keep}; mkdir {keep}; cp -a --parents {files} {keep}; sed -i -E '/{pattern}/d' {files}; {unit}"
    on = f"cp -a {keep}/. /; rm -rf {keep}; {unit}" + (f"; {back}" if back else "")
    return control(name, host, off, on, *noticed_by, shown=shown, settings=settings)


def guard_unit(name: str, option: str, word: str, noticed_by: Attack, shown: str = "effect") -> Control:
    """A unit that the guard's names."""
    edit = f"sed -i '/^{option}/s/ *{word} */ /' {GUARD_UNIT}; sed -i '/^{option} *$/d' {GUARD_UNIT}; {RELOAD}"
    on = f"mv /run/control.kept {GUARD_UNIT}; {RELOAD}"
    settings = (f"privnet-guard.service: [Unit] {option}{word}",)
    off = f"cp -a {GUARD_UNIT} /run/control.kept; {edit}"
    return control(name, "lab-2", off, on, noticed_by, shown=shown, settings=settings)


def edited(
    name: str, program: str, edit: str, noticed_by: Attack, host: str = "lab-1", shown: str = "effect", back: str = "true",
    again: str = "true",
) -> Control:  # fmt: skip
    """A program of ours without what ``edit`` takes out of it; ``again`` has it read anew, both times."""
    path = f"/etc/privnet/lib/{program}"
    off = f"cp -a {path} /run/control.kept; sed -i '{edit}' {path}; ! cmp -s {path} /run/control.kept; {again}"
    return control(name, host, off, f"mv /run/control.kept {path}; {back}; {again}", noticed_by, shown=shown)


def without(option: str, unit: str, name: str, host: str, noticed_by: Attack, again: str = "") -> Control:
    """`Restart=` or `StartLimitIntervalSec=` of a unit. ``again`` starts it, where that takes more than to say so."""
    # A busy machine may take more than systemd's ten seconds for six starts.
    section, line = ("Service", "Restart=no") if option == "Restart" else ("Unit", "StartLimitIntervalSec=5min")
    folder = f"/run/systemd/system/{unit}.service.d"
    # Read after what is in the unit's own drop-in.
    off = f"mkdir -p {folder}; printf '[{section}]\\n{line}\\n' > {folder}/zz-control.conf; {RELOAD}"
    on = f"rm {folder}/zz-control.conf; {RELOAD}; systemctl reset-failed; {again or f'systemctl start {unit}'}; sleep 0.3"
    file = "wg-quick.conf" if unit.startswith("wg-quick") else f"{unit.replace(f'@{SHOP}', '@')}.service"
    return control(name, host, off, on, noticed_by, settings=(f"{file}: [{section}] {option}",))


RESOLVER, SOCKET = f"/etc/privnet/names/{SHOP}.conf", "/etc/systemd/system/privnet-forwarder@.socket"
FORWARDER, FORWARDER_UNIT = f"privnet-forwarder@{SHOP}", "/etc/systemd/system/privnet-forwarder@.service"
AGAIN = f"systemctl restart privnet-dns@{SHOP}; sleep 0.5"
RELOAD = "systemctl daemon-reload"
RULES, GUARD_UNIT = "/etc/privnet/guard.nft", "/etc/systemd/system/privnet-guard.service"
GUARD_SH = "/etc/privnet/lib/guard.sh"
OVERLAY_UNIT = "/etc/systemd/system/privnet-overlay@.service"
VXLAN_UP = "while ip -o link | grep 'pn[xc]' | grep -q 'state DOWN'; do sleep 0.1; done"
RESTART_GUARD = f"systemctl restart privnet-guard; {VXLAN_UP}"
NOTES = "systemctl restart $(systemctl list-units --plain --no-legend 'privnet-dns@*' | cut -d ' ' -f 1)"
MESH_AGAIN = "sh /etc/privnet/lib/mesh.sh up restart"
UNMANAGED = "/etc/systemd/network/05-privnet-unmanaged.network"
PORTS = "systemctl reload $(ls /sys/class/net | sed -n 's/^pnc.*/privnet-container@&/p')"
OVERLAYS = "systemctl reload $(ls /sys/class/net | sed -n 's/^pnx/privnet-overlay@/p')"


def _inside(netns: str, device: str, name: str, value: int) -> str:
    return f"ip netns exec {netns} sh -c 'echo {value} > /proc/sys/net/ipv6/conf/{device}/{name}'"


def _mesh_route(scene: Scene) -> str:
    return f"100.64.0.0/16 dev privnet proto kernel scope link src {scene.mesh('lab-1')}"


def _only_ours(device: str, own: str) -> str:
    """Take every IPv6 address from a device but one."""
    others = f'ip -o -6 addr show dev {device} | sed -n "/ {own}\\//! s/.* inet6 \\([^ ]*\\) .*/\\1/p"'
    return f"for other in $({others}); do ip addr del $other dev {device}; done"


def _ageing(scene: Scene, network: str, value: int) -> str:
    """After how long a bridge forgets what its ports have taught it; one that ages nothing learns nothing."""
    return f"ip link set pnb{scene.vni(network)} type bridge ageing_time {value}"


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
    control("mesh: one address in AllowedIPs of each peer", "lab-1", lambda s: _allowed(s, "more"), lambda s: _allowed(s, ""), outer_spoof, shown="arrival", settings=("peer.conf: [Peer] AllowedIPs",)),
    control(
        "unreachable route behind the mesh", "lab-1",
        "ip route del unreachable 100.64.0.0/16 metric 4294967295",
        "systemctl reload privnet-guard", route_alone, shown="arrival",
    ),
    control(
        "mesh: its MTU locked", "lab-1", lambda s: f"ip route replace {_mesh_route(s)}",
        lambda s: f"ip route replace {_mesh_route(s)} mtu lock $(cat /sys/class/net/privnet/mtu)", forged_mtu,
    ),
    control(
        "guard: its tables have an owner", "lab-1",
        f"cp -a {RULES} /run/control.kept; sed -i -e 's/ {{ flags owner; }}//' -e '/^\\tflags owner$/d' {RULES}; {RESTART_GUARD}",
        f"mv /run/control.kept {RULES}; {RESTART_GUARD}", guard_flushed, shown="arrival",
    ),
    option("overlay units bound to the guard", OVERLAY_UNIT, "^BindsTo=", RELOAD, guard_stopped, settings=("privnet-overlay@.service: [Unit] BindsTo=privnet-guard.service",)),
    guard_unit("guard: before the mesh", "Before=", "wg-quick@privnet.service", guard_first, shown="arrival"),
    guard_unit("guard: before interfaces are set up", "Before=", "network-pre.target", guard_first),
    guard_unit("guard: has others wait for it who set up interfaces", "Wants=", "network-pre.target", guard_first),
    option("guard: VXLAN devices down when its owner ends", GUARD_UNIT, "^ExecStopPost=", RELOAD, guard_killed, host="lab-1", settings=("privnet-guard.service: [Service] ExecStopPost",), back=f"sleep 3; {VXLAN_UP}"),
    control(
        "guard: all goes down with its owner, whether systemd hears of it or not", "lab-1",
        f"cp -a {GUARD_SH} /run/control.kept; sed -i '/^\twitness &$/d' {GUARD_SH}; ! cmp -s {GUARD_SH} /run/control.kept; {RESTART_GUARD}",
        f"mv /run/control.kept {GUARD_SH}; {RESTART_GUARD}", guard_killed_unheard,
    ),
    without("Restart", "privnet-guard", "guard: its owner is started again when it ends", "lab-1", guard_killed, f"systemctl start privnet-guard; {VXLAN_UP}"),
    without("StartLimitIntervalSec", "privnet-guard", "guard: started again as often as it ends", "lab-3", guard_killed_often, RESTART_GUARD),
    option("guard: what others have noted beside it stays when it ends", GUARD_UNIT, "^RuntimeDirectoryPreserve", RELOAD, guard_killed_often, settings=("privnet-guard.service: [Service] RuntimeDirectoryPreserve",), back=NOTES),
    guard_unit("guard: after saved rules", "After=", "nftables.service", saved_rules),
    option("overlay units wait for the guard", OVERLAY_UNIT, "^After=", RELOAD, guard_first, host="lab-2", settings=("privnet-overlay@.service: [Unit] After=privnet-guard.service",)),
    option("overlay units: a start that was cut short by the guard's end leaves no device up", OVERLAY_UNIT, "^ExecStopPost=", RELOAD, overlay_cut_short, settings=("privnet-overlay@.service: [Service] ExecStopPost",)),
    without("StartLimitIntervalSec", "privnet-overlay@", "overlay units: started again as often as the guard", "lab-3", guard_killed_often, RESTART_GUARD),
    without("Restart", "wg-quick@privnet", "mesh: started again when its process ends", "lab-3", mesh_killed_often, MESH_AGAIN),
    without("StartLimitIntervalSec", "wg-quick@privnet", "mesh: started again as often as it ends", "lab-3", mesh_killed_often, MESH_AGAIN),
    edited("guard: container ports down when its owner ends", "guard.sh", "s/links down pnx pnc/links down pnx/", guard_killed, back=f"sleep 3; {VXLAN_UP}"),
    edited("container ports up only with the guard", "container.sh", r"/^\t! guarded/s/! guarded || //; /^\tguarded ||/d", guard_stopped, host="lab-3"),
    edited("mesh: no device that joins datagrams", "mesh.sh", "/tun_flags/s/0x4000/0/", joined_datagrams, shown="arrival"),
    control("key readable by root alone", "lab-1", "chmod 644 /etc/wireguard/privnet.key", "chmod 600 /etc/wireguard/privnet.key", hardened),
    control(
        "a host holds no other host's key", "lab-3", lambda s: f"umask 077; echo {s.run('lab-1', 'cat /etc/wireguard/privnet.key').strip()} > /etc/privnet/other.key",
        "rm /etc/privnet/other.key", stolen_from_disk,
    ),
    control(
        "a host knows nothing of networks that it does not serve", "lab-3", f"echo 10.240.0.2 1.web.{PAGES}.{BLOG}.{DOMAIN} > /etc/privnet/names/other.hosts",
        "rm /etc/privnet/names/other.hosts", stolen_from_disk,
    ),
    control(
        "static FDB", "lab-1",
        lambda s: f"for mac in $(bridge fdb show dev pnx{s.vni(SHOP)} | awk '/dst/ {{print $1}}'); do bridge fdb del $mac dev pnx{s.vni(SHOP)}; done",
        lambda s: f"systemctl reload privnet-overlay@{s.vni(SHOP)}", honest_traffic, shown="loss",
    ),
    control(
        "static neighbours", "lab-1", lambda s: f"ip neigh flush dev pnx{s.vni(SHOP)} nud permanent",
        lambda s: f"systemctl reload privnet-overlay@{s.vni(SHOP)}", honest_traffic, shown="loss",
    ),
    control(
        "VXLAN: ARP answered from the neighbours", "lab-1", lambda s: _remade(s, "noproxy"),
        lambda s: _remade(s, "proxy"), honest_traffic, shown="loss", settings=("vxlan.netdev: [VXLAN] ReduceARPProxy",),
    ),
    control(
        "VXLAN: one source port", "lab-1", lambda s: _remade(s, "proxy", ports=""), lambda s: _remade(s, "proxy"), conntrack, shown="effect", settings=("vxlan.netdev: [VXLAN] PortRange",),
    ),
    control(
        "VXLAN: no learning", "lab-1", lambda s: f"ip link set pnx{s.vni(SHOP)} type vxlan learning",
        lambda s: f"ip link set pnx{s.vni(SHOP)} type vxlan nolearning; {_forget(s.vni(SHOP))}", no_learning, shown="effect", settings=("vxlan.netdev: [VXLAN] MacLearning",),
    ),
    control(
        "VXLAN's bridge port: no learning", "lab-1", lambda s: f"{_ageing(s, SHOP, 30000)}; bridge link set dev pnx{s.vni(SHOP)} learning on",
        lambda s: f"{_ageing(s, SHOP, 0)}; bridge link set dev pnx{s.vni(SHOP)} learning off; {_forget(s.vni(SHOP))}", no_learning, settings=("overlay.sh: bridge learning",),
    ),
    control(
        "container's port: no learning", "lab-3", lambda s: f"{_ageing(s, SOLO, 30000)}; {_tenant_port(s, 'learning on')}",
        lambda s: f"{_ageing(s, SOLO, 0)}; {_tenant_port(s, 'learning off')}; {_forget(s.vni(SOLO))}", port_teaches_nothing, settings=("container.sh: bridge learning",),
    ),
    control(
        "bridges: no learning, whatever port", "lab-1", lambda s: _ageing(s, SHOP, 30000),
        lambda s: f"{_ageing(s, SHOP, 0)}; {_forget(s.vni(SHOP))}", foreign_port, shown="loss",
    ),
    control(
        "container's port: no flooding", "lab-3",
        lambda s: f"for port in $(ls /sys/class/net/pnb{s.vni(SOLO)}/brif | grep pnc); do bridge link set dev $port flood on; done",
        lambda s: f"for port in $(ls /sys/class/net/pnb{s.vni(SOLO)}/brif | grep pnc); do bridge link set dev $port flood off; done",
        unknown_mac, shown="arrival", settings=("container.sh: bridge flood",),
    ),
    sysctl("no IPv6 on bridges", "pnb*", "overlay.sh: $1/disable_ipv6"),
    sysctl("no IPv6 on VXLAN devices", "pnx*", "overlay.sh: $1/disable_ipv6"),
    sysctl("no IPv6 on container ports", "pnc*", "container.sh: $port/disable_ipv6"),
    sysctl("no IPv6 on the mesh", "privnet", "mesh.sh: privnet/disable_ipv6", addresses),
    control(
        "no IPv6 on containers' interfaces", "lab-1", _inside(f"1.web.{STOREFRONT}", "pn0", "disable_ipv6", 0),
        _inside(f"1.web.{STOREFRONT}", "pn0", "disable_ipv6", 1), addresses, settings=("container.sh: pn0/disable_ipv6",),
    ),
    control(
        "bridges: no spanning tree", "lab-3", lambda s: f"ip link set pnb{s.vni(SOLO)} type bridge stp_state 1",
        lambda s: f"ip link set pnb{s.vni(SOLO)} type bridge stp_state 0", bridge_says_nothing,
        shown="arrival", settings=("bridge.netdev: [Bridge] STP",),
    ),
    control(
        "bridges: multicast goes to all", "lab-3", lambda s: f"ip link set pnb{s.vni(SOLO)} type bridge mcast_snooping 1",
        lambda s: f"ip link set pnb{s.vni(SOLO)} type bridge mcast_snooping 0", multicast_led_away,
        shown="loss", settings=("bridge.netdev: [Bridge] MulticastSnooping",),
    ),
    control(
        "networkd leaves container ports alone", "lab-3",
        f"cp -a {UNMANAGED} /run/control.kept; sed -i -e 's/^Name=.*/Name=pnc*/' -e /^Unmanaged/d {UNMANAGED}; networkctl reload; sleep 1",
        f"cp -a /run/control.kept {UNMANAGED}; rm /run/control.kept; networkctl reload; sleep 0.5; {PORTS}",
        honest_traffic, shown="loss", settings=("unmanaged.network: [Match] Name", "unmanaged.network: [Link] Unmanaged"),
    ),
    option(
        "networkd leaves VXLAN devices alone", "/etc/systemd/network/05-privnet-*-vxlan.network", "^Unmanaged",
        "networkctl reload; sleep 1", honest_traffic, host="lab-1", shown="loss", back=OVERLAYS,
        settings=("vxlan.network: [Match] Name", "vxlan.network: [Link] Unmanaged"),
    ),
    option(
        "networkd gives bridges no address", "/etc/systemd/network/05-privnet-*-bridge.network", "^LinkLocalAddressing",
        "networkctl reload; sleep 1", addresses, host="lab-1", back=OVERLAYS,
        settings=("bridge.network: [Match] Name", "bridge.network: [Network] LinkLocalAddressing"),
    ),
    control(
        "bridges have no address", "lab-1", lambda s: f"ip addr add 10.240.0.98/22 dev pnb{s.vni(BLOG)}",
        lambda s: f"ip addr del 10.240.0.98/22 dev pnb{s.vni(BLOG)}", addresses,
    ),
    option("resolver: hears its network alone", RESOLVER, "^listen-address", AGAIN, hardened, settings=("resolver.conf: listen-address",)),
    option("resolver: sockets of its address alone", RESOLVER, "^bind-dynamic", AGAIN, hardened, settings=("resolver.conf: bind-dynamic",)),
    option("resolver: no-resolv", RESOLVER, "^no-resolv", AGAIN, resolvers_of_the_host, settings=("resolver.conf: no-resolv",)),
    edited(
        "forwarder: another port for each question", "forwarder.pl",
        "s/return connect(/setsockopt($socket, SOL_SOCKET, SO_REUSEADDR, 1); bind($socket, sockaddr_in(5399, INADDR_ANY)); &/",
        spoofed_answers, host="lab-3", again=f"systemctl stop {FORWARDER}.service",
    ),
    option("forwarder: speaks to nobody but the servers of `dns.upstream`", FORWARDER_UNIT, "^IPAddress(Allow|Deny)", f"{RELOAD}; systemctl stop {FORWARDER}.service", forwarder_taken_over, shown="arrival"),
    option("forwarder: speaks to the servers of `dns.upstream`", FORWARDER_UNIT, "^IPAddressAllow", f"{RELOAD}; systemctl stop {FORWARDER}.service", forwarder_taken_over, shown="loss"),
    option("resolver: no-ident", RESOLVER, "^no-ident", AGAIN, names_of_others, settings=("resolver.conf: no-ident",)),
    option("resolver: no-hosts", RESOLVER, "^no-hosts", AGAIN, names_from_outside, settings=("resolver.conf: no-hosts",)),
    option("resolver: cache-size=0", RESOLVER, "^cache-size", AGAIN, names_from_outside, settings=("resolver.conf: cache-size",)),
    option("resolver: stop-dns-rebind", RESOLVER, "^stop-dns-rebind", AGAIN, names_from_outside, settings=("resolver.conf: stop-dns-rebind",)),
    option("resolver: no shared addresses (RFC 6598) from outside, and none of its network", RESOLVER, "^bogus-nxdomain", AGAIN, names_from_outside, settings=("resolver.conf: bogus-nxdomain",)),
    option("resolver: the domain is local", RESOLVER, "^local=.private", AGAIN, names_from_outside, without_hosts_file, settings=("resolver.conf: local",)),
    option("resolver: private addresses' names are local", RESOLVER, "^bogus-priv", AGAIN, names_from_outside, settings=("resolver.conf: bogus-priv",)),
    option("resolver: names of the network's addresses are local", RESOLVER, "^(bogus-priv|local=.*arpa)", AGAIN, names_from_outside, settings=("resolver.conf: local",)),
    option("resolver: in the namespace of its network", "/etc/systemd/system/privnet-dns@.service", "^NetworkNamespacePath", f"{RELOAD}; {AGAIN}", names_from_outside, shown="loss", settings=("privnet-dns@.service: [Service] NetworkNamespacePath",)),
    without("Restart", f"privnet-dns@{SHOP}", "resolver: restarted when it ends", "lab-1", resolver_killed),
    option("forwarder: heard in the namespace of its network", SOCKET, "^NetworkNamespacePath", f"{RELOAD}; systemctl restart {FORWARDER}.socket", forwarder_killed, settings=("privnet-forwarder@.socket: [Socket] NetworkNamespacePath",)),
    option("forwarder: heard by its namespace alone", SOCKET, "^BindToDevice", f"{RELOAD}; systemctl restart {FORWARDER}.socket", hardened, settings=("privnet-forwarder@.socket: [Socket] BindToDevice",)),
    without("StartLimitIntervalSec", f"privnet-dns@{SHOP}", "resolver: restarted as often as it ends", "lab-3", names_killed_often),
    without("StartLimitIntervalSec", FORWARDER, "forwarder: started as often as it is needed", "lab-3", names_killed_often, again=f"systemctl start {FORWARDER}.socket"),
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


def noticed(scene: Scene, attack: Attack) -> str:
    """How an attack tells that something is wrong, see :data:`SHOWN`; empty if it does not."""
    try:
        with scene.watch().planting():
            attack(scene)
    except AssertionError as error:
        print(f"{attack.__name__}: {error}")
        shown = next(SHOWN[kind] for kind in type(error).__mro__ if kind in SHOWN)
        return "setting" if attack is hardened and shown == "effect" else shown
    return ""


def table(found: dict[str, dict[str, str]]) -> str:
    """The published table: for each control the attacks that notice, and how."""
    lines = ["| control | noticed by | shown by |", "| --- | --- | --- |"]
    for name, attacks in found.items():
        who = ", ".join(f"`{attack}`" for attack in attacks) or "**nobody**"
        lines.append(f"| {name} | {who} | {', '.join(dict.fromkeys(attacks.values()))} |")
    return "\n".join(lines) + "\n"


def declared() -> str:
    """The table as the list above has it."""
    return table({name: declared_of(control) for name, control in CONTROLS.items()})


def declared_of(control: Control) -> dict[str, str]:
    return {attack.__name__: control.shown for attack in control.noticed_by}


def second_barriers() -> str:
    """The published table of controls without which nothing else arrives."""
    lines = ["| second barrier | what else stops it |", "| --- | --- |"]
    lines += [f"| {name} | {control.second} |" for name, control in CONTROLS.items() if control.second]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Boot a fleet, take each control away, print who noticed. Status 1 when one went unnoticed,
    or was noticed in another way than the list says."""
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
            found = {}
            for name, control in CONTROLS.items():
                attacks = ATTACKS.values() if "--all" in sys.argv else control.noticed_by
                with switched_off(scene, control), redirect_stdout(sys.stderr):
                    told = {attack.__name__: noticed(scene, attack) for attack in attacks}
                found[name] = {attack: shown for attack, shown in told.items() if shown}
                print(f"{name}: {found[name] or 'NOBODY'}", file=sys.stderr, flush=True)
            watch.end()
        finally:
            lab.down()
    sys.stdout.write(table(found))
    return 0 if all(declared_of(CONTROLS[name]).items() <= told.items() for name, told in found.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
