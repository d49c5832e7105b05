"""Beside the rules of other programs, as those programs make them: private traffic flows and stays apart, or a run
says why it would not flow. Their tables stay as they are. `foreign/README.md` says where the rules come from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.runs import deploy, edit

from . import frames
from .attacks import (
    assert_only,
    container_frames,
    honest_traffic,
    host_to_container,
    outsider_vxlan,
    peer_forgery,
    seen,
)
from .oracle import STRAY, Endpoint
from .scene import PAGES, SHOP, STOREFRONT, Scene

RULES = Path(__file__).parent / "foreign"
PROGRAMS = ("docker", "ufw", "firewalld")
UNDERLAY = (
    "(src net 192.0.2.0/24 or src net 198.51.100.0/24) and "
    "(tcp portrange 20000-30000 or udp portrange 20000-30000 or port 9 or icmp) and not port 4789"
)
BRIDGED = "net.bridge.bridge-nf-call-iptables"
WEB, FAR, WORKER = f"1.web.{STOREFRONT}", f"2.web.{STOREFRONT}", f"1.worker.{STOREFRONT}"


@contextmanager
def beside(scene: Scene, name: str, bridged: int, *hosts: str) -> Iterator[None]:
    """Another program's rules on some hosts, or on all, where bridged frames pass them or do not.

    At the end each of its tables says what it said, rule for rule.
    """
    # Hosts of the lab have no /etc/protocols.
    text = (RULES / f"{name}.nft").read_text().replace("ipv6-icmp", "58")
    tables = re.findall(r"^table (\w+ \w+) \{", text, re.MULTILINE)
    listing = "; ".join(f"nft -s list table {table}" for table in tables)
    hosts = hosts or tuple(scene.hosts)
    was, said = {}, {}
    try:
        for host in hosts:
            was[host] = scene.run(host, f"sysctl -n {BRIDGED}; sysctl -qw {BRIDGED}={bridged}").strip()
            scene.run(host, f"nft -f - <<'END'\n{text}\nEND")
            said[host] = scene.run(host, listing)
        yield
        for host in hosts:
            assert scene.run(host, listing) == said[host] != "", f"{host}: rules of another program were touched"
    finally:
        gone = "; ".join(f"nft delete table {table}" for table in tables)
        for host, bridged_before in was.items():
            scene.run(host, f"{gone}; sysctl -qw {BRIDGED}={bridged_before}")


def stopped_by(scene: Scene, program: str) -> set[str]:
    """What arrives of a datagram that the program is there to stop: one to a host, or to another one through it."""
    if program == "docker":
        source, target = scene[STRAY], scene["lab-2"]
    else:
        source, target = scene["outsider"], scene["lab-1"]
    with scene.watch().planting(), scene.sniffing(target) as found:
        scene.send_datagrams(source, target.address, [frames.token("stopped")], 9)
    return seen(found[target])


def in_private_networks(scene: Scene, wrong: list[str]) -> list[str]:
    """Without what only a host, or somebody outside, does not reach any more: that is what a firewall is for."""
    kept = []
    for line in wrong:
        missed = re.fullmatch(r"(.+) does not reach (.+) over .*", line)
        ends = [scene[name] for name in missed.groups()] if missed else []
        if all(end.network for end in ends):
            kept.append(line)
    return kept


# Where bridged frames do not pass these rules, it is the same for all three.
@pytest.mark.proves("other firewalls", cases=("docker-0",))
@pytest.mark.parametrize(("program", "bridged"), [("docker", 0), *((program, 1) for program in PROGRAMS)])
def test_private_traffic_flows_and_stays_apart(scene: Scene, program: str, bridged: int) -> None:
    assert stopped_by(scene, program) == {"stopped"}, "the twin: without the program's rules it arrives"
    with beside(scene, f"{program}-passes" if bridged else program, bridged):
        assert stopped_by(scene, program) == set(), "the program's rules do nothing here"
        for attack in (honest_traffic, container_frames, outsider_vxlan, peer_forgery):
            attack(scene)
        host_to_container(scene, forwards=False)
        assert deploy(scene.lab).changed == {}
        # At last: what it leaves in neighbour tables would be taken for learnt from an attack.
        assert in_private_networks(scene, scene.matrix()) == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_host_whose_firewall_would_drop_private_traffic_is_told_what_to_do(scene: Scene, program: str) -> None:
    """What the message says is how the rules were made that let private networks pass, above."""
    remedy = {
        "docker": "`iptables -I DOCKER-USER -i pnb+ -o pnb+ -j ACCEPT`",
        "ufw": "`ufw route allow in on pnb+ out on pnb+`",
        "firewalld": "`--zone=privnet --add-interface=pnb+` and with `--zone=privnet --add-forward`",
    }
    with beside(scene, program, 1, "lab-1"):
        assert arrived(scene, WEB, FAR) == set()
        refused = deploy(scene.lab, check=False)
    assert refused.code == 1 and refused.json["results"]["failed_hosts"] == ["lab-1"]
    told = " ".join(refused.output.split())
    assert "lab-1: its firewall would drop private traffic: chain " in told and remedy[program] in told
    assert arrived(scene, WEB, FAR) == {"private"}, "the twin: without the rules it arrives"


FORWARD = "type filter hook forward priority 0; policy"
OWN = {
    "policy": ("inet", f"{FORWARD} drop; ct state established accept"),
    "last rule": ("inet", f"{FORWARD} accept; reject"),
    "before routing": (
        "ip",
        'type filter hook prerouting priority -300; policy accept; iifname != { "lo", "eth0", "privnet" } drop',
    ),
    "after routing": ("inet", 'type filter hook postrouting priority 0; policy accept; oifname "pnb*" drop'),
    "bridge": ("bridge", f"{FORWARD} drop"),
    "frames that come in": ("bridge", "type filter hook prerouting priority 0; policy accept; ether type ip drop"),
    "frames that go out": ("bridge", "type filter hook postrouting priority 0; policy drop; ether type arp accept"),
    "device": ("netdev", 'type filter hook ingress device "{port}" priority 0; policy drop'),
}
"""Rules of one's own that drop private traffic: family, and chain."""


@pytest.mark.parametrize("how", OWN)
def test_a_rule_of_ones_own_that_drops_private_traffic(scene: Scene, how: str) -> None:
    """The command that the message prints lets private networks pass."""
    family, chain = OWN[how]
    port = f"pnc{scene.vni(SHOP):06x}{int(scene[WEB].address.rpartition('.')[2]):04x}"
    chain = chain.replace("{port}", port)
    scene.run("lab-1", f"sysctl -qw {BRIDGED}=1; nft 'table {family} own {{ chain own {{ {chain}; }}; }}'")
    try:
        assert arrived(scene, WEB, FAR) == set()
        refused = deploy(scene.lab, check=False)
        fix = re.search(r"would drop private traffic.*?`(nft [^`]+)`", " ".join(refused.output.split()))
        assert refused.code == 1 and fix is not None, refused.output
        scene.run("lab-1", fix[1])
        assert arrived(scene, WEB, FAR) == {"private"}
        assert deploy(scene.lab).changed == {}
    finally:
        scene.run("lab-1", f"nft delete table {family} own; sysctl -qw {BRIDGED}=0")


def arrived(scene: Scene, source: str, target: str) -> set[str]:
    with scene.sniffing(scene[target]) as found:
        scene.send_datagrams(scene[source], scene[target].address, [frames.token("private")], 9)
    return seen(found[scene[target]])


def to_wireguard(scene: Scene, host: Endpoint) -> set[str]:
    """Whether a datagram comes to WireGuard's port that is no answer to anything: from a peer, by another port."""
    with scene.watch().planting(), scene.sniffing(host) as found:
        scene.send_datagrams(scene["lab-1"], host.address, [frames.token("first")], 51820)
    return seen(found[host])


@pytest.mark.parametrize("program", ["ufw", "firewalld"])
def test_nothing_is_switched_to_a_host_that_keeps_its_new_peers_out(scene: Scene, program: str) -> None:
    """It is said before anything is changed there; the others go on; with the ports open a plain run finishes."""
    lab, worker, host = scene.lab, scene[WORKER], scene["lab-3"]
    assert to_wireguard(scene, host) == {"first"}, "the twin: without the program's rules it arrives"
    with beside(scene, f"{program}-closed", 0, "lab-3"):
        assert to_wireguard(scene, host) == set()
        # What is open for an answer is open for all: over the mesh the host is reached all the same, for a while.
        for one, other in (("lab-3", "lab-1"), ("lab-1", "lab-3")):
            scene.run(one, f"ping -c 1 -W 5 {scene.mesh(other)}")
        assert deploy(lab).changed == {}, "a mesh that runs is left alone"
    edit(lab, "shop", "worker: [lab-3]", "worker: [lab-2]")
    deploy(lab)
    edit(lab, "shop", "worker: [lab-2]", "worker: [lab-3]")
    edit(lab, "blog", "worker: [lab-2]", "worker: [lab-2, lab-1]")
    with beside(scene, f"{program}-closed", 0, "lab-3"):
        refused = deploy(lab, check=False)
    assert refused.code == 1 and refused.json["results"]["failed_hosts"] == ["lab-3"]
    told = " ".join(refused.output.split())
    keeps = "privnet: lab-3: its firewall keeps peers out: chain "
    assert keeps in told and "drops UDP port 51820, to which lab-1 (192.0.2.11), lab-2 (192.0.2.12) would speak" in told
    assert "drops UDP port 4789 out of the mesh, from lab-1, lab-2." in told
    scene.look()
    moved = {slot: scene.run(at, "ls /run/netns") for slot, at in ((WORKER, "lab-2"), (f"2.worker.{PAGES}", "lab-1"))}
    assert all(slot in there for slot, there in moved.items()), "the others did not go on, or the old place is gone"
    vni, mac = scene.vni(SHOP), f"02:70:{':'.join(f'{int(part):02x}' for part in worker.address.split('.'))}"
    assert scene.mesh("lab-2") in scene.run("lab-1", f"bridge fdb show dev pnx{vni} | grep {mac}"), "it was switched"
    with beside(scene, program, 0, "lab-3"):
        deploy(lab)
        assert deploy(lab).changed == {}
        scene.look()
        assert arrived(scene, WEB, WORKER) == {"private"}
        assert arrived(scene, WORKER, WEB) == {"private"}
        assert to_wireguard(scene, host) == {"first"}
    edit(lab, "blog", "worker: [lab-2, lab-1]", "worker: [lab-2]")
    deploy(lab)
    scene.look()
    with scene.sniffing(scene[WEB]) as found:
        scene.send_datagrams(scene[FAR], scene[WEB].address, [frames.token("honest")], 9)
    assert_only(found[scene[WEB]], {"honest"}, scene[WEB])
