"""One hand-made deviation at a time: the audit names it and nothing else, the next run repairs it and nothing else."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from kernel import OWNER, as_owner
from runs import SHOP, STOREFRONT, assert_lossless, assert_reachable, deploy, flowing, plan_of

from privnet.audit.finding import Finding
from privnet.audit.fleet import prepare
from privnet.lab import Lab
from privnet.plan.host import HostPlan
from privnet.plan.overlay import Overlay

pytestmark = pytest.mark.lab

HOST = "lab-1"
STRAY_KEY = "A" * 42 + "A="

# Everything of privnet on a host, as its own tools show it; asked of the kernel, never of the deploy code.
LOOK = r"""
export LC_ALL=C
settings='(hairpin|guard|learning|flood|isolated|neigh_suppress) o\S+|nolearning|proxy ttl'
settings="$settings|(ageing_time|nf_call_iptables) [0-9]+"
shown='mtu [0-9]+ qdisc|master \S+|state \S+|<[^>]*>|link/ether \S+|vxlan id [0-9]+ local [0-9.]+|dstport [0-9]+'
for d in $(ls /sys/class/net | grep -E '^(pn|privnet)'); do
    echo "== $d" $(ip -d -o link show dev $d | grep -oE "$shown|$settings")
done
ip -o -4 addr show | grep -oE '(pn|privnet)\S* +inet \S+' | sort
ls -d /proc/sys/net/ipv6/conf/pn[bxc]* | while read -r d; do echo "$d $(cat "$d/disable_ipv6")"; done
ip route show dev privnet; ip route show type unreachable
bridge fdb show | grep ' dev pn' | grep -vE '^(33:33|01:00)' | sort
ip neigh show | grep ' dev pnx' | sort
wg show privnet public-key; wg show privnet listen-port
wg show privnet allowed-ips | sort; wg show privnet endpoints | sort; wg show privnet persistent-keepalive | sort
nft -s list table inet privnet; nft -s list table bridge privnet
owner=/proc/$(systemctl show -P MainPID privnet-guard)
grep -c '^State:.T' $owner/status; [ $owner/fd/0 -ef /run/privnet/guard.commands ] && echo heard
for n in $(ls /run/netns); do
    echo "== $n"; ip -n $n -o addr show | sed -E 's/^[0-9]+: //; s/@if[0-9]+//'; ip -n $n route
    ip -n $n -o link show | grep -oE 'pn\S+@|mtu [0-9]+|link/ether \S+'
done
systemctl list-units --all --plain --no-legend 'privnet-*' wg-quick@privnet.service systemd-networkd.service |
    awk '{print $1, $2, $3, $4}'
systemctl is-enabled wg-quick@privnet.service privnet-networks.target privnet-guard.service systemd-networkd.service
find /etc/privnet /etc/systemd /etc/netns /etc/wireguard /run/systemd/system -printf '%M %U:%G %p %l\n' 2> /dev/null |
    grep -E 'privnet|netns|wireguard' | sort -k 3
find /etc/privnet /etc/netns /etc/systemd/network /etc/systemd/system/privnet-* -type f | sort -u |
    xargs -d '\n' sha256sum
sort /run/privnet/names.*
"""

# Which objects they are: what is made, started, reloaded or written again has another number, whatever it looks like.
WHICH = r"""
export LC_ALL=C
for d in $(ls /sys/class/net | grep -E '^(pn|privnet)'); do echo "device $d=$(cat /sys/class/net/$d/ifindex)"; done
for n in $(ls /run/netns); do echo "namespace $n=$(stat -L -c %i /run/netns/$n)"; done
for family in inet bridge; do
    nft -a list table $family privnet | sed -n "1s/.*handle/table $family=/p"
done
systemctl show --property=Id,InvocationID,StateChangeTimestampMonotonic 'privnet-*' wg-quick@privnet.service \
    systemd-networkd.service | awk -F = '
        $1 == "Id" { id = $2 } $1 != "" && $1 != "Id" { more = more " " $2 }
        $1 == "" { print "unit " id "=" more; id = more = "" } END { if (id) print "unit " id "=" more }'
find /etc/privnet /etc/systemd /etc/netns /etc/wireguard -type f -printf 'file %p=%i %T@\n' | grep -E 'privnet|netns'
"""

OF_THE_RUN = re.compile(r"/etc/privnet/applied|privnet-(restore|rollback)")
"""What a run that changes a host leaves there of itself."""


@dataclass(frozen=True)
class Drift:
    """What a hand does on a host, what the audit says of it, and what a run may touch to repair it.

    :param command: for sh
    :param seen: check, and the one deviation as the audit prints it, as far as it is the same in every run
    :param renewed: objects (of :data:`WHICH`) that the run makes, starts, loads or writes again
    :param follows: checks that are not as planned either, because of the one deviation
    """

    command: str
    seen: tuple[str, str]
    renewed: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def lab(shared_fleet) -> Iterator[Lab]:
    """Three hosts, deployed to."""
    lab = shared_fleet("lab")
    assert deploy(lab).changed == {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRIVNET_LAB", lab.name)  # the audit runs in this process
        yield lab


def look(lab: Lab) -> list[str]:
    """The host as its own tools show it."""
    return [line for line in lab.exec(HOST, LOOK, check=False).stdout.splitlines() if not OF_THE_RUN.search(line)]


def look_and_which(lab: Lab) -> tuple[list[str], dict[str, str]]:
    """The same, and its objects by name, with what tells them from objects made anew."""
    seen, _, objects = lab.exec(HOST, f"{LOOK}\necho =====\n{WHICH}", check=False).stdout.partition("=====\n")
    lines = [line for line in seen.splitlines() if not OF_THE_RUN.search(line)]
    pairs = (line.split("=", 1) for line in objects.splitlines())
    return lines, {name: number for name, number in pairs if not OF_THE_RUN.search(name)}


def audit(lab: Lab, host: str = HOST) -> dict[str, Finding]:
    """What the audit of one host finds amiss, by check; nothing is sent between containers."""
    auditing = prepare(lab.inventory, [host], quick=True)
    try:
        found = {check: auditing.finding(host, check) for host, check in auditing.items()}
    finally:
        auditing.end()
    return {check: finding for check, finding in found.items() if not finding.ok}


def told(findings: dict[str, Finding]) -> list[tuple[str, str]]:
    return [(check, str(deviation)) for check, finding in findings.items() for deviation in finding.deviations]


# --- one at a time ----------------------------------------------------------------------------------------


def _mesh(plan: HostPlan) -> dict[str, Drift]:
    peer = plan.mesh.peers[0]
    key, who = peer.public_key, f"peer {peer.host}"
    peer_set = f"wg set privnet peer {key}"
    address, prefix = f"{plan.mesh.address}/{plan.mesh.length}", plan.mesh.prefix
    moved = f"ip address del {address} dev privnet; ip address add 100.64.0.9/16 dev privnet"
    return {
        "a peer deleted": Drift(f"{peer_set} remove", ("mesh", f"{who}: expected {key}, actual nothing")),
        "a peer's addresses changed": Drift(
            f"{peer_set} allowed-ips 100.64.99.9/32",
            ("mesh", f"{who}: allowed addresses: expected {peer.address}/32, actual 100.64.99.9/32"),
        ),
        "a peer's endpoint changed": Drift(
            f"{peer_set} endpoint 192.0.2.99:51820",
            ("mesh", f"{who}: endpoint: expected {peer.endpoint}, actual 192.0.2.99:51820"),
        ),
        "a peer added": Drift(
            f"wg set privnet peer {STRAY_KEY} allowed-ips 100.64.9.9/32",
            ("mesh", f"peer: expected nothing, actual stray {STRAY_KEY} at (none) for 100.64.9.9/32"),
        ),
        "the mesh's address changed": Drift(
            moved, ("mesh", f"privnet: address: expected {address}, actual 100.64.0.9/16")
        ),
        "the mesh stopped": Drift(
            "systemctl stop wg-quick@privnet.service",
            ("units", "wg-quick@privnet.service: expected active, actual inactive (dead)"),
            ("device privnet", "unit wg-quick@privnet.service"),
            follows=("mesh",),
        ),
        "the unreachable route removed": Drift(
            f"ip route del unreachable {prefix} metric 4294967295",
            ("guard", f"barrier behind the mesh: expected unreachable {prefix} metric 4294967295, actual nothing"),
        ),
    }


def _overlay(plan: HostPlan, overlay: Overlay) -> dict[str, Drift]:
    network, remote = overlay.network, overlay.remotes[0]
    bridge, vxlan, mtu = network.bridge, network.vxlan, network.mtu
    mac, address, vtep = remote.container.mac, remote.container.address, remote.vtep
    wrong = next(peer.address for peer in plan.mesh.peers if peer.address != vtep)
    unit, files = f"unit privnet-overlay@{network.vni}.service", f"file /etc/privnet/overlay/{network.vni}"
    ports = tuple(f"unit privnet-container@{port.name}.service" for port in overlay.ports)
    return {
        "an FDB entry deleted": Drift(
            f"bridge fdb del {mac} dev {vxlan} dst {vtep} self",
            ("overlay", f"FDB of {vxlan}: {mac}: expected {vtep}, actual nothing"),
            (unit,),
        ),
        "an FDB entry changed": Drift(
            f"bridge fdb replace {mac} dev {vxlan} dst {wrong} self static",
            ("overlay", f"FDB of {vxlan}: {mac}: expected {vtep}, actual {wrong}"),
            (f"{files}.fdb",),
        ),
        "an FDB entry added": Drift(
            f"bridge fdb append 00:00:00:00:00:00 dev {vxlan} dst {wrong} self permanent",
            ("overlay", f"FDB of {vxlan}: 00:00:00:00:00:00: expected nothing, actual {wrong}"),
        ),
        "a neighbour deleted": Drift(
            f"ip neigh del {address} dev {vxlan}",
            ("overlay", f"neighbours of {vxlan}: {address}: expected {mac}, actual nothing"),
            (unit,),
        ),
        "a neighbour changed": Drift(
            f"ip neigh replace {address} lladdr 02:70:de:ad:be:ef dev {vxlan} nud permanent",
            ("overlay", f"neighbours of {vxlan}: {address}: expected {mac}, actual 02:70:de:ad:be:ef"),
            (unit,),
        ),
        "a VXLAN device deleted": Drift(
            f"ip link del {vxlan}",
            ("overlay", f"device {vxlan}: expected a VXLAN device, actual nothing"),
            (f"device {vxlan}", unit),
        ),
        "a bridge deleted": Drift(
            f"ip link del {bridge}",
            ("overlay", f"device {bridge}: expected a bridge, actual nothing"),
            (f"device {bridge}", unit, *ports),
            follows=("containers", "names"),
        ),
        "a VXLAN device's MTU changed": Drift(
            f"ip link set {vxlan} mtu 1300", ("overlay", f"{vxlan}: MTU: expected {mtu}, actual 1300"), (unit,)
        ),
        "a bridge's MTU changed": Drift(
            f"ip link set {bridge} mtu 1300", ("overlay", f"{bridge}: MTU: expected {mtu}, actual 1300"), (unit,)
        ),
        "a bridge that learns": Drift(
            f"ip link set {bridge} type bridge ageing_time 30000",
            ("overlay", f"{bridge}: ageing time: expected 0, actual 30000"),
            (unit,),
        ),
        "a bridge's frames through iptables": Drift(
            f"ip link set {bridge} type bridge nf_call_iptables 1",
            ("overlay", f"{bridge}: frames through iptables: expected 0, actual 1"),
            (unit,),
        ),
        "a VXLAN device down": Drift(
            f"ip link set {vxlan} down", ("overlay", f"{vxlan}: state: expected up, actual down"), (unit,)
        ),
        "an address on a bridge": Drift(
            f"ip address add 10.240.3.3/32 dev {bridge}",
            ("overlay", f"{bridge}: address: expected nothing, actual 10.240.3.3/32"),
            (unit,),
        ),
        "IPv6 on a bridge": Drift(
            f"sysctl -qw net.ipv6.conf.{bridge}.disable_ipv6=0",
            ("overlay", f"{bridge}: IPv6: expected off, actual on"),
            (unit,),
        ),
    }


def _containers(overlay: Overlay) -> dict[str, Drift]:
    # Not the first container: that is the one which asks the resolver for the audit.
    port = overlay.ports[2]
    name, netns, bridge = port.name, port.netns, port.bridge
    unit, namespace = f"unit privnet-container@{name}.service", f"unit privnet-namespace@{name}.service"
    inside, where = f"ip -n {netns}", f"namespace {netns}"
    address = f"{port.address}/{port.length}"
    return {
        "a port's MTU changed": Drift(
            f"ip link set {name} mtu 1300", ("containers", f"{name}: MTU: expected {port.mtu}, actual 1300"), (unit,)
        ),
        "a port out of its bridge": Drift(
            f"ip link set {name} nomaster",
            ("containers", f"{name}: bridge: expected {bridge}, actual nothing"),
            (unit,),
        ),
        "a port isolated": Drift(
            f"bridge link set dev {name} isolated on",
            ("containers", f"{name}: isolated: expected off, actual on"),
            (unit,),
        ),
        "a port that learns": Drift(
            f"bridge link set dev {name} learning on",
            ("containers", f"{name}: learning: expected off, actual on"),
            (unit,),
        ),
        "a port deleted": Drift(
            f"ip link del {name}",
            ("containers", f"port {name} of {netns}: expected a veth device, actual nothing"),
            (f"device {name}", unit),
        ),
        "a container's namespace deleted": Drift(
            f"ip netns del {netns}",
            ("containers", f"{where}: expected there, actual nothing"),
            (f"device {name}", where, unit, namespace),
        ),
        "a stray namespace": Drift(
            f"ip netns add 9.web.{STOREFRONT}",
            ("containers", f"namespace 9.web.{STOREFRONT}: expected nothing, actual a stray namespace"),
            (f"namespace 9.web.{STOREFRONT}",),
        ),
        "a container's address removed": Drift(
            f"{inside} address flush dev pn0",
            ("containers", f"{where}: address: expected {address}, actual nothing"),
            (unit,),
        ),
        "a second address in a container": Drift(
            f"{inside} address add 10.240.3.9/32 dev pn0",
            ("containers", f"{where}: address: expected {address}, actual {address} 10.240.3.9/32"),
            (unit,),
        ),
        "a container's MAC changed": Drift(
            f"{inside} link set dev pn0 address 02:70:de:ad:be:ef",
            ("containers", f"{where}: MAC: expected {port.mac}, actual 02:70:de:ad:be:ef"),
            (unit,),
        ),
        "a container's unit stopped": Drift(
            f"systemctl stop privnet-container@{name}.service",
            ("units", f"privnet-container@{name}.service: expected active, actual inactive (dead)"),
            (f"device {name}", where, unit, namespace),
            follows=("containers",),
        ),
    }


def _guard(plan: HostPlan) -> dict[str, Drift]:
    speaker = plan.guard.speakers[0]
    mac = speaker.mac.replace(":", "")
    number = int(mac[4:], 16)
    element = f"{speaker.vtep} . 0x{speaker.vni:x}00 . 0x{mac[4:]} . 0x{mac[4:]}"
    stray = f"{speaker.vtep} . 0x{speaker.vni:x}00 . 0x0af003fe . 0x0af003fe"
    handle = "nft -a list chain inet privnet egress | sed -n 's/.*VXLAN in clear.*handle //p'"
    whole = ("table bridge", "table inet", "unit privnet-guard.service")
    overlays = tuple(f"unit privnet-overlay@{overlay.network.vni}.service" for overlay in plan.overlays)
    guard = "element of inet privnet speakers"
    peers = ", ".join(peer.endpoint.partition(":")[0] for peer in plan.mesh.peers)
    return {
        "a guard element deleted": Drift(
            as_owner(f"delete element inet privnet speakers {{ {element} }}"),
            ("guard", f"{guard}: expected {speaker.vtep} . {speaker.vni << 8} . {number} . {number}, "),
        ),
        "a guard element added": Drift(
            as_owner(f"add element inet privnet speakers {{ {stray} }}"),
            ("guard", f"{guard}: expected nothing, actual {speaker.vtep} . {speaker.vni << 8} . {0x0AF003FE} . "),
            ("file /etc/privnet/guard.nft",),
        ),
        "a guard rule deleted": Drift(
            f'echo "delete rule inet privnet egress handle $({handle})" | {OWNER}',
            ("guard", "rules of inet privnet egress: expected th dport 4789 meta l4proto 17 oifname != "),
            whole,
        ),
        "a guard table deleted": Drift(
            as_owner("delete table bridge privnet"),
            ("guard", "table bridge privnet: expected loaded, actual nothing"),
            whole,
        ),
        "the guard stopped": Drift(
            "systemctl stop privnet-guard.service",
            ("units", "privnet-guard.service: expected active, actual inactive (dead)"),
            (*whole, *overlays),
            follows=("overlay", "containers", "names", "guard"),
        ),
        "the guard's owner frozen": Drift(
            "systemctl kill -s STOP privnet-guard.service",
            ("guard", "the guard's owner: expected hears what it is told, actual T (stopped)"),
            (*whole, *overlays),
        ),
        "the guard's owner out of reach": Drift(
            "rm /run/privnet/guard.commands; mkfifo /run/privnet/guard.commands",
            ("guard", "the guard's owner: expected hears what it is told, actual cannot be told anything"),
            (*whole, *overlays),
        ),
        "the guard's tables of nobody": Drift(
            "systemctl stop privnet-guard.service; "
            "sed -e 's/ { flags owner; }//' -e '/^\tflags owner$/d' /etc/privnet/guard.nft | nft -f -; "
            f"nft add element inet privnet peers '{{ {peers} }}'",
            ("units", "privnet-guard.service: expected active, actual inactive (dead)"),
            (*whole, *overlays),
            follows=("overlay", "containers", "names", "guard"),
        ),
    }


def _names_and_files(overlay: Overlay) -> dict[str, Drift]:
    network = overlay.network
    unit, suffix, record = f"privnet-dns@{network.id}.service", network.names.suffix, network.names.records[0]
    hosts, conf = f"/etc/privnet/names/{network.id}.hosts", f"/etc/privnet/names/{network.id}.conf"
    own = f"/etc/systemd/system/{unit}"
    template = "/etc/systemd/system/privnet-dns@.service"
    return {
        "a resolver stopped": Drift(
            f"systemctl stop {unit}",
            ("units", f"{unit}: expected active, actual inactive (dead)"),
            (f"unit {unit}",),
            follows=("names",),
        ),
        "a unit masked": Drift(
            f"systemctl mask --quiet {unit}",
            ("files", f"{own}: expected nothing, actual a stray file"),
            follows=("units",),
        ),
        "a unit disabled": Drift(
            "systemctl disable --quiet privnet-networks.target",
            ("units", "privnet-networks.target at boot: expected enabled, actual disabled"),
        ),
        "a unit's file changed": Drift(
            f"echo '# by hand' >> {template}",
            ("files", f"{template} (sha256): expected "),
            (f"file {template}",),
            follows=("units",),
        ),
        "networkd stopped": Drift(
            "systemctl stop systemd-networkd.socket systemd-networkd.service",
            ("units", "systemd-networkd.service: expected active, actual inactive (dead)"),
            ("unit systemd-networkd.service",),
        ),
        "a name removed": Drift(
            f"sed -i '/^{record.address} /d' {hosts}; systemctl reload {unit}; sleep 0.3",
            ("files", f"{hosts} (sha256): expected "),
            (f"file {hosts}", f"unit {unit}"),
            follows=("units", "names"),
        ),
        "a name added": Drift(
            f"echo '10.240.3.3 evil.{suffix}' >> {hosts}",
            ("files", f"{hosts} (sha256): expected "),
            (f"file {hosts}", f"unit {unit}"),
        ),
        "a resolver's configuration changed": Drift(
            f"echo '# by hand' >> {conf}", ("files", f"{conf} (sha256): expected "), (f"file {conf}",)
        ),
        "a file's mode changed": Drift(
            f"chmod 666 {conf}",
            ("files", f"{conf} (mode and owner): expected 644 0:0, actual 666 0:0"),
            (f"file {conf}",),
        ),
        "a stray file": Drift(
            "touch /etc/privnet/by-hand",
            ("files", "/etc/privnet/by-hand: expected nothing, actual a stray file"),
            ("file /etc/privnet/by-hand",),
        ),
        "the key's mode changed": Drift(
            "chmod 644 /etc/wireguard/privnet.key",
            ("files", "/etc/wireguard/privnet.key (mode and owner): expected f 600 0:0, actual f 644 0:0"),
        ),
    }


KINDS: dict[str, Callable[[HostPlan, Overlay], dict[str, Drift]]] = {
    "mesh": lambda plan, overlay: _mesh(plan),
    "overlay": _overlay,
    "containers": lambda plan, overlay: _containers(overlay),
    "guard": lambda plan, overlay: _guard(plan),
    "names and files": lambda plan, overlay: _names_and_files(overlay),
}


def host_plan(lab: Lab) -> tuple[HostPlan, Overlay]:
    """The plan of the host, and its part in one network."""
    plan = plan_of(lab).hosts[HOST]
    return plan, next(overlay for overlay in plan.overlays if overlay.network.id == SHOP)


@pytest.fixture(scope="module")
def planned(lab: Lab) -> list[str]:
    """The host as it is to be: the audit finds nothing in it."""
    assert audit(lab) == {}
    return look(lab)


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_told_alone_and_repaired_alone(lab: Lab, planned: list[str], kind: str, subtests) -> None:
    for what, drift in KINDS[kind](*host_plan(lab)).items():
        with subtests.test(what):
            told_and_repaired(lab, planned, drift)
    # Each left the host in the same state, so once is enough to see that the audit finds nothing in it.
    assert audit(lab) == {}


def told_and_repaired(lab: Lab, planned: list[str], drift: Drift) -> None:
    lab.exec(HOST, ["sh", "-euc", drift.command])
    findings = audit(lab)
    drifted, before = look_and_which(lab)
    run = deploy(lab, check=False)
    repaired, after = look_and_which(lab)

    assert drifted != planned, "the drift changes nothing: the test sees nothing"
    (check, begins), *others = told(findings)
    assert not others and check == drift.seen[0], told(findings)
    assert begins.startswith(drift.seen[1]) and ": expected " in begins and ", actual " in begins, begins
    assert set(findings) == {check, *drift.follows}, findings

    assert run.code == 0, run.output
    assert {host for hosts in run.changed.values() for host in hosts} == {HOST}
    renewed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert renewed == set(drift.renewed)
    assert_same(repaired, planned)


def test_there_are_enough_of_them(lab: Lab) -> None:
    """And what a run may touch stands against all that there is to be touched."""
    found = [name for kind in KINDS.values() for name in kind(*host_plan(lab))]
    assert len(found) == len(set(found)) >= 25
    objects = look_and_which(lab)[1]
    assert {name.split()[0] for name in objects} == {"device", "namespace", "table", "unit", "file"}
    assert len(objects) > 60


def test_a_run_without_drift_renews_nothing(lab: Lab) -> None:
    before = look_and_which(lab)
    assert deploy(lab).changed == {}
    assert look_and_which(lab) == before


# --- many at once, and what the audit does not ask for ---------------------------------------------------


def many(lab: Lab) -> dict[str, list[str]]:
    _, overlay = host_plan(lab)
    resolver, port, *_ = overlay.ports
    bridge, vxlan = overlay.network.bridge, overlay.network.vxlan
    first = overlay.remotes[0]
    networkd = f"/etc/systemd/network/05-privnet-{overlay.network.vni}-bridge.network.d"
    return {
        "kernel": [
            "ip route del 100.64.0.0/16 dev privnet",
            f"bridge fdb replace {first.container.mac} dev {vxlan} dst {first.vtep} port 999 self static",
            f"bridge fdb append 00:00:00:00:00:00 dev {vxlan} dst 100.64.0.2 self permanent",
            f"bridge fdb append 00:00:00:00:00:00 dev {vxlan} dst 100.64.0.3 self permanent",
            f"bridge link set dev {vxlan} isolated on",
            f"bridge link set dev {port.name} state 0 hairpin on",
            f"bridge fdb add 02:70:0a:f0:03:03 dev {port.name} master static",
            f"ip address add 10.240.0.200/22 dev {bridge}",
            "ip link add pnc00100000ff type veth peer name zz",
            "ip link set privnet mtu 1300",
            f"wg set privnet peer {STRAY_KEY} allowed-ips 10.0.0.0/8",
            as_owner(
                'add element inet privnet speakers { 100.64.0.2 . 0x100000 . 0x0af000fe . 0x0af000fe comment "x" }; '
                'add element bridge privnet ports { "eth0" . 0a:00:00:00:00:01 . 10.1.1.1 }'
            ),
        ],
        "files": [
            "chmod 777 /etc/privnet/containers",
            "chown nobody /etc/privnet/names /etc/wireguard/privnet.key",
            r"touch $(printf '/etc/privnet/a\377b') "
            "\"$(printf '/etc/privnet/c\\nd')\"",
            f"mkdir {networkd}; printf '[Link]\\nMTUBytes=1200\\n' > {networkd}/x.conf; networkctl reload",
            "rm -rf /run/privnet",
            "rm /etc/privnet/guard.conf; mkdir /etc/privnet/guard.conf",
        ],
        "units and namespaces": [
            f"systemctl mask --quiet --now privnet-dns@{SHOP}.service wg-quick@privnet.service",
            f"systemctl mask --quiet --runtime --now privnet-container@{port.name}.service",
            "systemctl start privnet-overlay@9999.service",
            "systemctl disable --quiet privnet-guard.service systemd-networkd.service",
            f"ip netns del {resolver.netns}",
        ],
        "everything of ours but the key": [
            "rm -rf /etc/netns /etc/systemd/network/*privnet* /etc/systemd/system/privnet-* /etc/privnet/[a-v]*",
        ],
    }


@pytest.mark.proves("repair", cases=("kernel", "units and namespaces"))
@pytest.mark.parametrize("kind", ("kernel", "files", "units and namespaces", "everything of ours but the key"))
def test_one_run_repairs_many_at_once(lab: Lab, planned: list[str], kind: str) -> None:
    with flowing(lab, (f"2.web.{STOREFRONT}", f"1.worker.{STOREFRONT}")) as flows:
        for command in many(lab)[kind]:
            lab.exec(HOST, command, check=False)
        assert look(lab) != planned, "the drift changes nothing: the test sees nothing"
        first = deploy(lab)
    assert_lossless(flows)
    assert {host for hosts in first.changed.values() for host in hosts} == {HOST}
    assert_same(look(lab), planned)
    assert deploy(lab).changed == {}
    assert_reachable(lab)


# --- what a run leaves alone ------------------------------------------------------------------------------


def test_a_lost_key_is_not_replaced(lab: Lab, planned: list[str]) -> None:
    key = lab.exec(HOST, "wg show privnet public-key").stdout
    lab.exec(HOST, "mv /etc/wireguard/privnet.key /root/")
    with flowing(lab, (f"1.web.{STOREFRONT}", f"1.worker.{STOREFRONT}")) as flows:
        result = deploy(lab, check=False)
    assert_lossless(flows)
    assert result.code == 1
    assert result.json["results"]["failed_hosts"] == [HOST]
    found = re.search(r"PN508: .* /etc/wireguard/privnet.key is gone.*: `(umask.*)` there as root", result.output)
    assert found, result.output
    assert lab.exec(HOST, "ls /etc/wireguard/privnet.key", check=False).returncode != 0
    lab.exec(HOST, found[1])
    assert deploy(lab).changed == {}
    assert lab.exec(HOST, "wg pubkey < /etc/wireguard/privnet.key").stdout == key
    assert_same(look(lab), planned)


def assert_same(found: list[str], planned: list[str]) -> None:
    assert found == planned, "\n".join(difflib.unified_diff(planned, found, lineterm="", n=0))
