"""Everything by which a host can differ from its plan, as data: what a hand does there, and how both who look tell it.

Made from what there is to compare: each managed file, each unit, each setting of a device, each entry of a table.
What is new in a plan, or in a table by which the deploy or the audit judges devices, so becomes a drift by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kernel import OWNER, as_owner

from privnet.audit.checks import overlay as audited
from privnet.audit.checks.units import ENABLED, planned_units
from privnet.deploy import state as deployed
from privnet.plan.containers import Port
from privnet.plan.host import HostPlan
from privnet.plan.overlay import Overlay, source_ports
from privnet.render import ManagedFile, render_host

STRAY_KEY = "A" * 42 + "A="


@dataclass(frozen=True)
class Drift:
    """One difference.

    :param command: for sh, on the host
    :param told: how a deviation of the audit begins; empty where the audit cannot see it, or must not
    :param step: what a step of the run has in it; empty where no run repairs it
    :param why: the reason, where one of them is silent
    :param undo: what takes it away where no run does
    :param refused: what a run says that changes no host because of it
    """

    name: str
    command: str
    told: str
    step: str
    why: str = ""
    undo: str = ""
    refused: str = ""


# --- files -------------------------------------------------------------------------------------------

WAYS = {
    "changed": ("echo '# by hand' >> {0}", "ln -sfn /dev/null {0}"),
    "deleted": ("rm {0}", "rm {0}"),
    "open to all": ("chmod 666 {0}", ""),
    "somebody else's": ("chown -h nobody {0}", "chown -h nobody {0}"),
    "a link": ("mv {0} {0}.kept && ln -s {0}.kept {0}", "rm {0} && touch {0}"),
}
"""Commands for a file, and for a link."""


def of_files(plan: HostPlan, way: str) -> Iterator[Drift]:
    """Each managed file, in one way."""
    for file in render_host(plan):
        command = WAYS[way][file.is_link].format(file.path)
        if command:
            yield Drift(f"{file.path}: {way}", command, file.path, _written(file))


def _written(file: ManagedFile) -> str:
    return re.escape(f"write {file.path}") + "$"


# --- units -------------------------------------------------------------------------------------------


def of_units(plan: HostPlan, way: str) -> Iterator[Drift]:
    """Each unit that is to be active, stopped; each that a boot begins with, disabled in one way or another."""
    if way == "stopped":
        socket = "systemctl stop systemd-networkd.socket; "
        for unit in sorted(planned_units(plan)):
            command = f"{socket if 'networkd' in unit else ''}systemctl stop {unit}"
            # A port's start takes its namespace along.
            pattern = re.escape(unit).replace("namespace", "(?:namespace|container)")
            step = "mesh.sh up start" if unit.startswith("wg-quick") else f"systemctl (re)?start .*{pattern}"
            yield Drift(f"{unit} stopped", command, f"{unit}: expected active", step)
    for unit in ENABLED if way != "stopped" else ():
        step = f"systemctl enable --quiet {re.escape(unit)}"
        command = f"systemctl disable --quiet {unit}"
        if way == "disabled in silence":
            command = f"find /etc/systemd/system \\( -path '*.wants/{unit}' -o -lname '*/{unit}' \\) -type l -delete"
        yield Drift(f"{unit} {way}", command, f"{unit} at boot: expected enabled", step)


# --- devices -----------------------------------------------------------------------------------------


def _flags(device: str, **ours: bool) -> Iterator[tuple[str, str, str]]:
    """Every flag of a bridge's port that one of both compares: name, and the command that turns it over."""
    compared = {*deployed.PORT, *audited.OFF, "flood", "mcast_flood", "bcast_flood"} - {"state", "group_fwd_mask"}
    for flag in sorted(compared):
        usual = bool(ours.get(flag, flag.endswith("flood")))
        word = "off" if usual else "on"
        yield flag, f"ip link set dev {device} type bridge_slave {flag} {word}", f"expected {'on' if usual else 'off'}"
    yield "forwarding", f"bridge link set dev {device} state 0", "expected forwarding"
    yield "group_fwd_mask", f"ip link set dev {device} type bridge_slave group_fwd_mask 8", "expected 0"


def of_port(port: Port) -> Iterator[Drift]:
    """A container's, or a resolver's, port from outside and from inside."""
    name, netns = port.name, port.netns
    unit = rf"systemctl reload .*privnet-container@{name}[.]service"
    inside, where = f"ip -n {netns}", f"namespace {netns}"
    for flag, command, expected in _flags(name, flood=False):
        yield Drift(f"port: {flag}", command, f"{name}: {flag}: {expected}", unit)
    told = {
        "MTU": (f"ip link set {name} mtu 1300", f"{name}: MTU"),
        "MAC": (f"ip link set {name} address 02:71:de:ad:be:ef", f"{name}: MAC"),
        "down": (f"ip link set {name} down", f"{name}: state"),
        "no bridge": (f"ip link set {name} nomaster", f"{name}: bridge"),
        "gone": (f"ip link del {name}", f"port {name} of"),
        "a bridge": (f"ip link del {name}; ip link add {name} type bridge", f"port {name} of"),
        "an address": (f"ip address add 10.250.0.9/32 dev {name}", f"{name}: address"),
        "IPv6": (f"sysctl -qw net.ipv6.conf.{name}.disable_ipv6=0", f"{name}: IPv6"),
        "a route": (f"ip route add 10.250.1.0/24 dev {name}", f"{name}: route"),
        "no MAC behind it": (f"bridge fdb del {port.mac} dev {name} master", f"FDB of {name}: {port.mac}"),
        "another MAC behind it": (
            f"bridge fdb add 02:70:de:ad:be:ef dev {name} master static",
            f"FDB of {name}: 02:70:de:ad:be:ef",
        ),
        "MTU inside": (f"{inside} link set pn0 mtu 1300", f"{where}: MTU"),
        "MAC inside": (f"{inside} link set pn0 address 02:70:de:ad:be:ef", f"{where}: MAC"),
        "down inside": (f"{inside} link set pn0 down", f"{where}: state"),
        "no address inside": (f"{inside} address flush dev pn0", f"{where}: address"),
        "two addresses inside": (f"{inside} address add 10.250.0.9/32 dev pn0", f"{where}: address"),
    }
    for what, (command, subject) in told.items():
        yield Drift(f"port: {what}", command, subject, unit)
    yield Drift(
        "port: its unit has failed",
        f"c=/etc/privnet/containers/{name}.conf; mv $c $c.x; systemctl restart privnet-container@{name}; mv $c.x $c",
        f"privnet-container@{name}.service: expected active",
        f"systemctl start .*privnet-container@{name}[.]service",
    )
    yield Drift(
        "port: its namespace is gone",
        f"ip netns del {netns}",
        f"{where}: expected there",
        f"systemctl restart .*privnet-namespace@{name}[.]service",
    )
    theirs = "what is in a container beside its interface belongs to who runs it: a run must not take it away"
    yield Drift(
        "port: another interface inside",
        f"{inside} link add mine type bridge",
        f"{where}: interface mine",
        "",
        theirs,
        f"{inside} link del mine",
    )
    yield Drift(
        "port: a default route inside",
        f"{inside} route add default dev pn0",
        f"{where}: default route",
        "",
        theirs,
        f"{inside} route del default",
    )


def of_overlay(plan: HostPlan, overlay: Overlay) -> Iterator[Drift]:
    """A network's bridge, its VXLAN device, and the tables of the latter."""
    network, remote = overlay.network, overlay.remotes[0]
    bridge, vxlan, vni = network.bridge, network.vxlan, network.vni
    mac, address, vtep = remote.container.mac, remote.container.address, remote.vtep
    wrong = next(peer.address for peer in plan.mesh.peers if peer.address != vtep)
    unit = rf"systemctl reload .*privnet-overlay@{vni}[.]service"
    for flag, command, expected in _flags(vxlan):
        yield Drift(f"VXLAN: {flag}", command, f"{vxlan}: {flag}: {expected}", unit)
    names = {key: what for key, (_, what) in audited.BRIDGE.items()}
    # The kernel of the lab's hosts has no VLANs.
    for key in sorted({*deployed.BRIDGE, *names} - {"vlan_filtering"}):
        # A tree takes a second option, and a bridge with IEEE's own groups may not have them passed on.
        value = {"group_fwd_mask": 8, "ageing_time": 30000}.get(key, 1)
        command = f"ip link set dev {bridge} type bridge {key} {value}"
        yield Drift(f"bridge: {key}", command, f"{bridge}: {names.get(key, key)}", unit)
    recreate = rf"overlay[.]sh create {vni}"
    port = plan.guard.vxlan_port
    low, high = source_ports(port)
    anew = (
        f"ip link del {vxlan}; ip link add {vxlan} address {overlay.mac} mtu {network.mtu} type vxlan id {{id}} "
        f"local {{local}} dstport {{port}} srcport {{source}} {{learning}} {{proxy}} {{more}}; "
        f"ip link set {vxlan} master {bridge} up"
    )
    as_planned = {
        "id": vni,
        "local": overlay.vtep,
        "port": port,
        "source": f"{low} {high}",
        "learning": "nolearning",
        "proxy": "proxy",
        "more": "",
    }
    fixed = {
        "VNI": {"id": 99999},
        "local": {"local": "192.0.2.200"},
        "port": {"port": 4444},
        "source ports": {"source": "0 0"},
        "learning": {"learning": "learning"},
        "proxy": {"proxy": ""},
        "remote": {"more": "remote 192.0.2.201"},
    }
    for what, other in fixed.items():
        yield Drift(f"VXLAN: {what}", anew.format(**(as_planned | other)), f"{vxlan}: {what}", recreate)
    told = {
        "bridge: MTU": (f"ip link set {bridge} mtu 1300", f"{bridge}: MTU"),
        "bridge: MAC": (f"ip link set {bridge} address 02:72:de:ad:be:ef", f"{bridge}: MAC"),
        "bridge: down": (f"ip link set {bridge} down", f"{bridge}: state"),
        "bridge: address": (f"ip address add 10.250.2.9/32 dev {bridge}", f"{bridge}: address"),
        "bridge: IPv6": (f"sysctl -qw net.ipv6.conf.{bridge}.disable_ipv6=0", f"{bridge}: IPv6"),
        "bridge: route": (f"ip route add 10.250.3.0/24 dev {bridge}", f"{bridge}: route"),
        "bridge: a MAC of its own": (f"bridge fdb add 02:72:de:ad:be:ef dev {bridge} self local", f"FDB of {bridge}"),
        "VXLAN: MTU": (f"ip link set {vxlan} mtu 1300", f"{vxlan}: MTU"),
        "VXLAN: down": (f"ip link set {vxlan} down", f"{vxlan}: state"),
        "VXLAN: no bridge": (f"ip link set {vxlan} nomaster", f"{vxlan}: master"),
        "VXLAN: address": (f"ip address add 10.250.4.9/32 dev {vxlan}", f"{vxlan}: address"),
        "VXLAN: IPv6": (f"sysctl -qw net.ipv6.conf.{vxlan}.disable_ipv6=0", f"{vxlan}: IPv6"),
        "VXLAN: route": (f"ip route add 10.250.5.0/24 dev {vxlan}", f"{vxlan}: route"),
        "VXLAN: a MAC behind it": (f"bridge fdb add 02:70:de:ad:be:ef dev {vxlan} master static", f"FDB of {vxlan}"),
        "FDB: gone": (f"bridge fdb del {mac} dev {vxlan} dst {vtep} self", f"FDB of {vxlan}: {mac}"),
        "FDB: another port": (
            f"bridge fdb replace {mac} dev {vxlan} dst {vtep} port 999 self static",
            f"FDB of {vxlan}: {mac}",
        ),
        "neighbour: gone": (f"ip neigh del {address} dev {vxlan}", f"neighbours of {vxlan}: {address}"),
        "neighbour: another MAC": (
            f"ip neigh replace {address} lladdr 02:70:de:ad:be:ef dev {vxlan} nud permanent",
            f"neighbours of {vxlan}: {address}",
        ),
        "neighbour: not for ever": (
            f"ip neigh replace {address} lladdr {mac} dev {vxlan} nud noarp",
            f"neighbours of {vxlan}: {address}",
        ),
    }
    for what, (command, subject) in told.items():
        step = rf"bridge -batch moved[.]{vni}" if what == "FDB: another port" else unit
        yield Drift(what, command, subject, step)
    gone = {
        "FDB: another VTEP": (
            f"bridge fdb replace {mac} dev {vxlan} dst {wrong} self static",
            f"FDB of {vxlan}: {mac}",
            rf"moved[.]{vni}",
        ),
        "FDB: one too many": (
            f"bridge fdb add 02:70:0a:fa:00:09 dev {vxlan} dst {wrong} self static",
            f"FDB of {vxlan}: 02:70:0a:fa:00:09",
            rf"bridge -batch fdb[.]{vni}",
        ),
        "FDB: floods": (
            f"bridge fdb append 00:00:00:00:00:00 dev {vxlan} dst {wrong} self permanent",
            f"FDB of {vxlan}: 00:00",
            rf"bridge -batch fdb[.]{vni}",
        ),
        "neighbour: one too many": (
            f"ip neigh add 10.250.0.9 lladdr 02:70:0a:fa:00:09 dev {vxlan} nud noarp",
            f"neighbours of {vxlan}: 10.250.0.9",
            rf"ip -batch neighbours[.]{vni}",
        ),
        "VXLAN: gone": (f"ip link del {vxlan}", f"device {vxlan}", recreate),
        "VXLAN: a bridge": (f"ip link del {vxlan}; ip link add {vxlan} type bridge", f"device {vxlan}", recreate),
        "bridge: gone": (f"ip link del {bridge}", f"device {bridge}", recreate),
    }
    for what, (command, subject, step) in gone.items():
        yield Drift(what, command, subject, step)


def of_mesh(plan: HostPlan) -> Iterator[Drift]:
    """The mesh's interface, its route, and each field of a peer."""
    mesh = plan.mesh
    peer = mesh.peers[0]
    of_peer, subject = f"wg set privnet peer {peer.public_key}", f"peer {peer.host}"
    told = {
        "gone": (f"{of_peer} remove", f"{subject}: expected"),
        "allowed addresses": (f"{of_peer} allowed-ips 100.64.99.9/32", f"{subject}: allowed"),
        "endpoint": (f"{of_peer} endpoint 192.0.2.99:51820", f"{subject}: endpoint"),
        "keepalive": (f"{of_peer} persistent-keepalive 25", f"{subject}: keepalive"),
    }
    for what, (command, begins) in told.items():
        yield Drift(f"peer: {what}", command, begins, "wg addconf privnet")
    yield Drift(
        "peer: preshared key",
        f"wg genpsk | {of_peer} preshared-key /dev/stdin",
        f"{subject}: preshared",
        "preshared-key",
    )
    yield Drift(
        "peer: one too many",
        f"wg set privnet peer {STRAY_KEY} allowed-ips 100.64.9.9/32",
        "peer: expected nothing",
        f"wg set privnet peer {re.escape(STRAY_KEY)} remove",
    )
    route, prefix = "ip route replace .* mtu lock", mesh.prefix
    own = f"{mesh.address}/{mesh.length}"
    stray = "ip route delete 10.250.6.0/24 dev privnet"
    told3 = {
        "port": ("wg set privnet listen-port 7777", "privnet: UDP port", "wg set privnet listen-port"),
        "fwmark": ("wg set privnet fwmark 5", "privnet: fwmark", "wg set privnet fwmark 0"),
        "key": (
            "wg genkey | wg set privnet private-key /dev/stdin",
            "public key of the key",
            "wg set privnet private-key",
        ),
        "MTU": ("ip link set privnet mtu 1300", "privnet: MTU", "ip link set dev privnet mtu"),
        "down": ("ip link set privnet down", "privnet: state", "ip link set dev privnet mtu .* up"),
        "another address": (
            f"ip address del {own} dev privnet; ip address add 100.64.0.99/16 dev privnet",
            "privnet: address",
            "ip address replace",
        ),
        "a second address": (
            "ip address add 10.250.7.9/32 dev privnet",
            "privnet: address",
            "ip address delete 10.250.7.9/32",
        ),
        "IPv6": ("sysctl -qw net.ipv6.conf.privnet.disable_ipv6=0", "privnet: IPv6", "privnet/disable_ipv6"),
        "route: gone": (f"ip route del {prefix} dev privnet", "privnet: route", route),
        "route: no lock": (f"ip route replace {prefix} dev privnet", "privnet: route", route),
        "route: less": (
            f"ip route replace {prefix} dev privnet proto kernel scope link src {mesh.address} mtu lock 1300",
            "privnet: route",
            route,
        ),
        "route: another one": ("ip route add 10.250.6.0/24 dev privnet", "privnet: route: expected nothing", stray),
        "route: in another table": (
            "ip route add 10.250.6.0/24 dev privnet table 77",
            "privnet: route: expected nothing",
            f"{stray} .*table 77",
        ),
        "route: past the lock": (
            f"ip route add {peer.address} dev privnet",
            "privnet: route: expected nothing",
            f"ip route delete {peer.address} dev privnet",
        ),
        "barrier: gone": (
            f"ip route del unreachable {prefix} metric 4294967295",
            "barrier behind the mesh",
            "ip route replace unreachable",
        ),
        "interface: gone": ("ip link del privnet", "interface privnet", "mesh.sh up restart"),
    }
    for what, (command, begins, step) in told3.items():
        yield Drift(f"mesh: {what}", command, begins, step)


def of_guard(plan: HostPlan) -> Iterator[Drift]:
    """Rules, elements, and the process that owns them."""
    speaker, binding = plan.guard.speakers[0], plan.guard.bindings[0]
    number = speaker.mac.replace(":", "")[4:]
    element = f"{speaker.vtep} . 0x{speaker.vni:x}00 . 0x{number} . 0x{number}"
    stray = f"{speaker.vtep} . 0x{speaker.vni:x}00 . 0x0afa0009 . 0x0afa0009"
    bound = f'"{binding.port}" . {binding.mac} . {binding.address}'
    add, delete, reload = "guard.sh apply guard.add", "guard.sh apply guard.delete", "systemctl reload privnet-guard"
    restart = "systemctl restart privnet-guard"
    handle = "nft -a list chain inet privnet egress | sed -n 's/.*VXLAN in clear.*handle //p'"
    peer = plan.mesh.peers[0].endpoint.partition(":")[0]
    told = {
        "speaker gone": (
            as_owner(f"delete element inet privnet speakers {{ {element} }}"),
            "element of inet privnet sp",
            add,
        ),
        "speaker too many": (
            as_owner(f"add element inet privnet speakers {{ {stray} }}"),
            "element of inet privnet sp",
            delete,
        ),
        "binding gone": (
            as_owner(f"delete element bridge privnet ports {{ {bound} }}"),
            "element of bridge privnet",
            add,
        ),
        "binding too many": (
            as_owner('add element bridge privnet ports { "pnc00100000ff" . 02:70:0a:fa:00:09 . 10.250.0.9 }'),
            "element of bridge privnet",
            delete,
        ),
        "peer gone": (
            as_owner(f"delete element inet privnet peers {{ {peer} }}"),
            "element of inet privnet peers",
            reload,
        ),
        "peer too many": (
            as_owner("add element inet privnet peers { 192.0.2.99 }"),
            "element of inet privnet peers",
            reload,
        ),
        "rule gone": (f'echo "delete rule inet privnet egress handle $({handle})" | {OWNER}', "rules of inet", reload),
        "rule too many": (as_owner("insert rule inet privnet ingress accept"), "rules of inet privnet ingress", reload),
        "chain too many": (as_owner("add chain inet privnet mine"), "chain inet privnet mine", reload),
        "table gone": (as_owner("delete table bridge privnet"), "table bridge privnet", reload),
        "owner frozen": ("systemctl kill -s STOP privnet-guard.service", "the guard's owner", restart),
        "owner out of reach": (
            "rm /run/privnet/guard.commands; mkfifo /run/privnet/guard.commands",
            "the guard's owner",
            restart,
        ),
        "note gone": ("rm /run/privnet/guard.sum", "what the guard has noted", reload),
        "note of other rules": ("echo x > /run/privnet/guard.structure", "what the guard has noted", reload),
    }
    for what, (command, begins, step) in told.items():
        yield Drift(f"guard: {what}", command, begins, step)
    yield Drift(
        "guard: a table of nearly its name",
        "nft add table ip privnet",
        "table ip privnet",
        "",
        "a run removes no rules that privnet has not loaded",
        "nft delete table ip privnet",
    )
    yield Drift(
        "guard: in saved rules",
        "mkdir -p /etc/nftables.d; echo 'table inet privnet {}' > /etc/nftables.d/x.nft",
        "saved rules",
        "",
        "the rules that a host keeps are its administrator's to write",
        "rm -r /etc/nftables.d",
    )


def of_host(plan: HostPlan) -> Iterator[Drift]:
    """What is the host's own, and what is in our places and not of ours."""
    overlay = plan.overlays[0]
    network, vni = overlay.network.id, overlay.network.vni
    names, unit = f"/etc/privnet/names/{network}", f"privnet-dns@{network}.service"
    key, config = "/etc/wireguard/privnet.key", "/etc/wireguard/privnet.conf"
    drop_in = "wg-quick@privnet.service.d/mine.conf"
    told = {
        "a directory open to all": (
            "chmod 777 /etc/privnet/names",
            "/etc/privnet/names (mode",
            "chmod 0755 /etc/privnet/names",
        ),
        "a directory of somebody": (
            "chown nobody /etc/privnet/lib",
            "/etc/privnet/lib (mode",
            "chown .*/etc/privnet/lib",
        ),
        "an odd name": (
            "touch \"$(printf '/etc/privnet/a\\nb')\"",
            "/etc/privnet: expected names",
            "find /etc/privnet",
        ),
        "key open to all": (f"chmod 644 {key}", f"{key} (mode", "mesh.sh key"),
        "key of somebody": (f"chown nobody {key}", f"{key} (mode", "mesh.sh key"),
        "key a link": (f"mv {key} /root/k; ln -s /root/k {key}", f"{key} (mode", "mesh.sh key"),
        "wg-quick's file changed": (f"echo '# x' >> {config}", f"{config} (sha256", "mesh.sh assemble"),
        "wg-quick's file gone": (f"rm {config}", f"{config} (mode", "mesh.sh assemble"),
        "wg-quick's file open": (f"chmod 644 {config}", f"{config} (mode", "mesh.sh assemble"),
        "wg-quick's file of somebody": (f"chown nobody {config}", f"{config} (mode", "mesh.sh assemble"),
        "a stray link": (
            "ln -s /dev/null /etc/systemd/system/privnet-networks.target.wants/privnet-x.service",
            "/etc/systemd/system/privnet-n",
            "remove .*privnet-x",
        ),
        "a resolver's note gone": (
            f"rm /run/privnet/names.{network}",
            f"what {unit} has read",
            f"systemctl restart {unit}",
        ),
        "a resolver stopped by a signal": (
            f"systemctl kill -s STOP {unit}",
            f"tcp port 53 of {overlay.network.resolver} in namespace {network}",
            f"systemctl restart {unit}",
        ),
        "a name by hand": (
            f"echo '10.250.0.9 x' >> {names}.hosts; systemctl reload {unit}; sleep 0.5",
            f"{names}.hosts",
            f"reload {unit}",
        ),
        "a setting by hand": (
            f"echo '# x' >> {names}.conf; systemctl restart {unit}; sleep 0.5",
            f"{names}.conf",
            f"restart {unit}",
        ),
        "a resolver masked": (
            f"systemctl mask --quiet {unit}",
            f"/etc/systemd/system/{unit}",
            f"systemctl unmask .*{unit}",
        ),
        "a port masked until a boot": (
            f"systemctl mask --quiet --runtime privnet-container@{overlay.ports[1].name}",
            f"/run/systemd/system/privnet-container@{overlay.ports[1].name}",
            "systemctl unmask .*--runtime",
        ),
        "the mesh masked": (
            "systemctl mask --quiet wg-quick@privnet",
            "/etc/systemd/system/wg-quick@privnet.service",
            "systemctl unmask .*wg-quick@privnet",
        ),
        "restore has failed": (
            "mkdir -p /run/systemd/system/privnet-restore.service.d /var/lib/privnet/armed;"
            "printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' "
            "> /run/systemd/system/privnet-restore.service.d/x.conf;"
            "systemctl daemon-reload; systemctl start privnet-restore || true; rmdir /var/lib/privnet/armed",
            "privnet-restore.service: expected not failed",
            "systemctl reset-failed privnet-restore",
        ),
        "a namespace too many": (
            "ip netns add 99.web.ap-a71da13f-7c70-4c00-a644-eee8558d8053",
            "namespace 99.web",
            "ip netns delete 99.web",
        ),
        "a port too many": (
            "ip link add pnc00100000ff type bridge",
            "device pnc00100000ff",
            "ip link delete dev pnc00100000ff",
        ),
        "a bridge too many": ("ip link add pnb77777 type bridge", "device pnb77777", "ip link delete dev pnb77777"),
    }
    for what, (command, begins, step) in told.items():
        yield Drift(f"host: {what}", command, begins, step)
    strays = {
        "in our directory": "/etc/privnet/by-hand",
        "of networkd": "/etc/systemd/network/77-privnet-x.network",
        "of networkd, beside ours": f"/etc/systemd/network/60-privnet-{vni}-bridge.network.d/x.conf",
        "of a unit": "/etc/systemd/system/privnet-dns@.service.d/x.conf",
        "of a unit until a boot": "/run/systemd/system/privnet-guard.service.d/x.conf",
        "of the mesh": f"/etc/systemd/system/{drop_in}",
        "of the mesh until a boot": f"/run/systemd/system/{drop_in}",
        "of no container": "/etc/netns/99.web.ap-a71da13f-7c70-4c00-a644-eee8558d8053/resolv.conf",
    }
    for what, path in strays.items():
        command = f"mkdir -p {path.rpartition('/')[0]}; touch {path}"
        yield Drift(f"stray file {what}", command, path, re.escape(f"remove {path}"))
    listen = "python3 -c 'import socket, time; s = socket.create_server((\"127.0.0.1\", 53)); time.sleep(600)'"
    yield Drift(
        "host: another resolver",
        f"systemd-run --quiet --collect --unit=mine -p NetworkNamespacePath=/run/netns/{network} {listen}; sleep 1",
        f"tcp port 53 of 127.0.0.1 in namespace {network}: expected nothing",
        "",
        "a run ends no program that privnet has not started",
        "systemctl stop mine",
        f"answers at TCP port 53 of 127[.]0[.]0[.]1 in the network namespace {network}",
    )
    yield Drift(
        "host: a device of nearly its name",
        "ip link add pnxmine type bridge",
        "device pnxmine",
        "",
        "a run deletes no device by a name that privnet never gives",
        "ip link del pnxmine",
    )
