"""From what a host is to what it is to be: the exact commands, by kind of difference."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest
from answers import Sections, answer, bare, digest, key_of, text

from privnet.deploy import changes
from privnet.deploy.script import Script
from privnet.deploy.state import HostState, parse_snapshot
from privnet.plan.host import HostPlan

SHOP = {"shop": ["h1", "h2", "h3", "h2"]}
WAVES = {"add": changes.add, "switch": changes.switch, "retire": changes.retire}


@pytest.fixture
def plan(planned: Any) -> HostPlan:
    host: HostPlan = planned(**SHOP).hosts["h1"]
    return host


def state(sections: Sections) -> HostState:
    found = parse_snapshot(text(sections))
    assert isinstance(found, HostState), found
    return found


def commands(script: Script) -> list[str]:
    """What a script runs, with the lines that a command reads behind it, and `place`/`remove` in its middle."""
    lines = [*script.before, *(f"place {path}" for path in sorted(script.files))]
    lines += [*(f"remove {path}" for path in sorted(script.removed)), *script.after]
    shown = []
    for line in lines:
        words = shlex.split(line)
        fed = script.inputs.get(words[-1], "").splitlines()
        shown += [line, *(f"  {entry}" for entry in fed)]
    return shown


def waves(plan: HostPlan, sections: Sections) -> dict[str, list[str]]:
    """The commands of each wave that has any."""
    found = state(sections)
    scripts = {name: wave(plan, found) for name, wave in WAVES.items()}
    return {name: commands(script) for name, script in scripts.items() if script}


@pytest.mark.parametrize("fleet", [{}, {"dns": {"upstream": ["192.0.2.53"]}}], ids=["alone", "with names outside"])
@pytest.mark.parametrize("host", ["h1", "h2", "h3"])
def test_a_host_that_is_as_planned_gets_nothing(planned: Any, host: str, fleet: Any) -> None:
    plan = planned(fleet=fleet, shop=["h1", "h2"], blog=["h1"]).hosts[host]
    assert not changes.prepare(state(answer(plan)))
    assert waves(plan, answer(plan)) == {}


OFF = "/proc/sys/net/ipv6/conf/privnet/disable_ipv6"
NO_IPV6 = f"sh -c '[ ! -e {OFF} ] || echo 1 > {OFF}'"


def replaced(section: str, old: str, new: str) -> Callable[[Sections], None]:
    """Replace a text that is there, in each line of a section."""

    def drift(sections: Sections) -> None:
        assert any(old in line for line in sections[section]), (section, old)
        sections[section] = [line.replace(old, new) for line in sections[section] if line.replace(old, new)]

    return drift


def guard_unit(old: str, new: str) -> Callable[[Sections], None]:
    """Something else is true of the unit that holds the guard."""

    def drift(sections: Sections) -> None:
        at = sections["units"].index("Id=privnet-guard.service")
        sections["units"][sections["units"].index(old, at)] = new

    return drift


def added(section: str, line: str) -> Callable[[Sections], None]:
    return lambda sections: sections[section].append(line)


def without(section: str, part: str) -> Callable[[Sections], None]:
    def drift(sections: Sections) -> None:
        kept = [line for line in sections[section] if part not in line]
        assert kept != sections[section], (section, part)
        sections[section] = kept

    return drift


def inactive(unit: str, active: str = "inactive") -> Callable[[Sections], None]:
    def drift(sections: Sections) -> None:
        place = sections["units"].index(f"Id={unit}") + 2
        sections["units"][place] = f"ActiveState={active}"

    return drift


NO_DEVICES = [f"[ ! -e /sys/class/net/{name} ] || ip link delete dev {name}" for name in ("pnx9", "pnb9")]
NETWORK = "pn-"
OVERLAY = "systemctl reload privnet-overlay@7000000.service"
PORT, RESOLVER_PORT = "pnc6acfc00002", "pnc6acfc00001"
FIND = f"sh /etc/privnet/lib/container.sh name {PORT} || systemctl restart privnet-namespace@{PORT}.service"
H2_MAC, H3_MAC = "02:70:0a:f0:00:03", "02:70:0a:f0:00:04"
ROUTE = "100.64.0.0/16 proto kernel scope link src 100.64.0.1 mtu lock 1440"
STRAY_KEY = "B" * 42 + "A="

TABLE: dict[str, tuple[Callable[[Sections], None], dict[str, list[str]]]] = {
    # mesh
    "no route into the mesh": (
        without("routes", " dev privnet "),
        {"add": [f"ip route replace 100.64.0.0/16 dev privnet {ROUTE.partition(' ')[2]}"]},
    ),
    "a route into the mesh without its lock": (
        replaced("routes", " mtu lock 1440", ""),
        {"add": [f"ip route replace 100.64.0.0/16 dev privnet {ROUTE.partition(' ')[2]}"]},
    ),
    "routes of others by the mesh": (
        lambda sections: sections["routes"].extend(
            ["100.64.0.2 dev privnet scope link", "10.9.0.0/16 dev privnet table 77 scope link linkdown"]
        ),
        {
            "add": [
                "ip route delete 10.9.0.0/16 dev privnet table 77 scope link",
                "ip route delete 100.64.0.2 dev privnet scope link",
            ]
        },
    ),
    "a mark of the mesh": (
        replaced("mesh", "51820 off", "51820 0x5"),
        {"add": ["wg set privnet fwmark 0"]},
    ),
    "a preshared key": (
        replaced("mesh", "100.64.0.2/32 off no", "100.64.0.2/32 off yes"),
        {"add": [f"wg set privnet peer {key_of('h2')} preshared-key /dev/null"]},
    ),
    "IPv6 in the mesh": (
        added("addresses", "privnet ipv6"),
        {"add": [NO_IPV6]},
    ),
    "a stray MAC behind a VXLAN device": (
        added("fdb", "02:70:de:ad:be:ef dev pnx7000000 master pnb7000000 static"),
        {"add": [OVERLAY]},
    ),
    "a stray MAC of a bridge": (
        added("fdb", "02:70:de:ad:be:ef dev pnb7000000 master pnb7000000 permanent"),
        {"add": [OVERLAY]},
    ),
    "a route by a bridge": (added("routes", "10.9.0.0/16 dev pnb7000000 scope link"), {"add": [OVERLAY]}),
    "frames of a bridge through iptables": (
        replaced("links", '"nf_call_iptables": 0', '"nf_call_iptables": 1'),
        {"add": [OVERLAY]},
    ),
    "no broadcasts out of the VXLAN device": (
        replaced("links", '"flood": true', '"flood": true, "bcast_flood": false'),
        {"add": [OVERLAY]},
    ),
    "another MTU of the mesh": (
        replaced("links", '"mtu": 1440, "address": "", "linkinfo"', '"mtu": 1300, "address": "", "linkinfo"'),
        {"add": ["ip link set dev privnet mtu 1440 up"]},
    ),
    "another address in the mesh": (
        replaced("addresses", "100.64.0.1/16", "100.64.0.9/16"),
        {
            "add": [
                "ip address delete 100.64.0.9/16 dev privnet",
                "ip address replace 100.64.0.1/16 dev privnet",
            ]
        },
    ),
    "another port of the mesh": (
        replaced("mesh", f"interface {key_of('h1')} 51820", f"interface {key_of('h1')} 7"),
        {"add": ["wg set privnet listen-port 51820"]},
    ),
    "another private key in the running mesh": (
        replaced("mesh", f"interface {key_of('h1')}", f"interface {STRAY_KEY}"),
        {"add": ["wg set privnet private-key /etc/wireguard/privnet.key"]},
    ),
    "a peer too few": (
        without("mesh", f"peer {key_of('h2')}"),
        {
            "add": [
                "wg addconf privnet new-peers.conf",
                "  ",
                "  [Peer]",
                "  # h2",
                f"  PublicKey = {key_of('h2')}",
                "  Endpoint = 192.0.2.12:51820",
                "  AllowedIPs = 100.64.0.2/32",
                "  PersistentKeepalive = off",
            ]
        },
    ),
    "a peer too many, that cannot be written down": (
        added("mesh", f"peer {STRAY_KEY} (none) 10.0.0.0/8 off no"),
        {
            "retire": [f"wg set privnet peer {STRAY_KEY} remove"],
        },
    ),
    "no mesh": (
        lambda sections: sections.update(mesh=[]),
        {"add": ["sh /etc/privnet/lib/mesh.sh up restart"]},
    ),
    # overlay
    "a wrong neighbour": (
        replaced("neighbours", f"lladdr {H2_MAC}", "lladdr 02:70:de:ad:be:ef"),
        {"add": [OVERLAY]},
    ),
    "a neighbour with a MAC that is nobody's": (
        added("neighbours", "10.240.0.99 dev pnx7000000 lladdr 52:54:00:12:34:56 PERMANENT "),
        {"retire": ["ip -batch neighbours.7000000", "  neighbour delete 10.240.0.99 dev pnx7000000"]},
    ),
    "an entry to another port": (
        replaced("fdb", f"{H2_MAC} dev pnx7000000 dst 100.64.0.2", f"{H2_MAC} dev pnx7000000 dst 100.64.0.2 port 9"),
        {
            "add": [OVERLAY],
            "switch": [
                "place /etc/privnet/overlay/7000000.fdb",
                "bridge -batch moved.7000000",
                f"  fdb replace {H2_MAC} dev pnx7000000 dst 100.64.0.2 self static",
            ],
        },
    ),
    "a stray entry": (
        added("fdb", "02:70:0a:f0:00:63 dev pnx7000000 dst 100.64.0.2 self static"),
        {
            "add": ["place /etc/privnet/overlay/7000000.fdb"],
            "retire": [
                "place /etc/privnet/overlay/7000000.fdb",
                "bridge -batch fdb.7000000",
                "  fdb delete 02:70:0a:f0:00:63 dev pnx7000000 dst 100.64.0.2 self",
            ],
        },
    ),
    "two entries that flood": (
        lambda sections: sections["fdb"].extend(
            f"00:00:00:00:00:00 dev pnx7000000 dst 100.64.0.{n} self permanent" for n in (2, 3)
        ),
        {
            "retire": [
                "bridge -batch fdb.7000000",
                "  fdb delete 00:00:00:00:00:00 dev pnx7000000 dst 100.64.0.2 self",
                "  fdb delete 00:00:00:00:00:00 dev pnx7000000 dst 100.64.0.3 self",
            ],
        },
    ),
    "an isolated VXLAN": (
        replaced("links", '"learning": false, "flood": true', '"learning": false, "flood": true, "isolated": true'),
        {"add": [OVERLAY]},
    ),
    "a VXLAN of another port": (
        replaced("links", '"port": 4789', '"port": 8472'),
        {"add": ["ip link delete dev pnx7000000", "sh /etc/privnet/lib/overlay.sh create 7000000", OVERLAY]},
    ),
    "an address on the bridge": (added("addresses", "pnb7000000 10.240.0.9/22"), {"add": [OVERLAY]}),
    "an overlay that is down": (
        inactive("privnet-overlay@7000000.service"),
        {"add": ["systemctl start privnet-overlay@7000000.service"]},
    ),
    "a failed overlay of no network": (
        lambda s: s["units"].extend(
            ["Id=privnet-overlay@9.service", "LoadState=loaded", "ActiveState=failed", "SubState=x"]
        ),
        {
            "retire": [
                "systemctl stop privnet-overlay@9.service",
                "systemctl reset-failed privnet-overlay@9.service",
                *NO_DEVICES,
            ]
        },
    ),
    "a bridge and a VXLAN of no network": (
        lambda s: s["links"].append(
            json.dumps([{"ifname": n, "ifindex": 9, "flags": [], "mtu": 1} for n in ("pnb9", "pnx9")])
        ),
        {"retire": NO_DEVICES},
    ),
    "what a resolver of no network had read": (
        added("names", f"pn-65787472-d05e-40ea-bf63-c4f8a75a9d8c no {digest('hosts')} {digest('config')}"),
        {"retire": ["rm -f /run/privnet/names.pn-65787472-d05e-40ea-bf63-c4f8a75a9d8c"]},
    ),
    "what nobody has read": (added("names", f"pn-$(reboot) no {digest('hosts')} {digest('config')}"), {}),
    # containers
    "a namespace that is not what its name leads to": (
        lambda s: s["namespaces"].__setitem__(
            slice(None), [f"{line.partition(chr(9))[0]}\t" if ".web." in line else line for line in s["namespaces"]]
        ),
        {"add": [FIND, f"systemctl reload privnet-container@{PORT}.service"]},
    ),
    "an interface of the mesh without its unit": (
        inactive("wg-quick@privnet.service"),
        {"add": ["sh /etc/privnet/lib/mesh.sh up start"]},
    ),
    "too few neighbours": (
        added("system", "neighbours ipv4 2048 1024"),
        {"add": ["sh /etc/privnet/lib/neighbour-table.sh"]},
    ),
    "neighbours that are given up too early": (
        added("system", "neighbours ipv4 512 4096"),
        {"add": ["sh /etc/privnet/lib/neighbour-table.sh"]},
    ),
    "more neighbours than are needed": (added("system", "neighbours ipv4 60000 90000"), {}),
    "a second MAC behind a port": (
        added("fdb", f"02:70:0a:f0:03:03 dev {PORT} master pnb7000000 static"),
        {"add": [f"systemctl reload privnet-container@{PORT}.service"]},
    ),
    "a port that forwards nothing": (
        replaced(
            "links", '"state": "forwarding", "learning": false, "flood": false', '"state": "disabled", "flood": false'
        ),
        {"add": [f"systemctl reload privnet-container@{RESOLVER_PORT}.service privnet-container@{PORT}.service"]},
    ),
    "a port of no container": (
        lambda s: s["links"].append(json.dumps([{"ifname": "pnc6acfc000ff", "ifindex": 9, "flags": [], "mtu": 1}])),
        {"retire": ["[ ! -e /sys/class/net/pnc6acfc000ff ] || ip link delete dev pnc6acfc000ff"]},
    ),
    "a namespace of no container": (
        added("namespaces", "9.web.ap-a71da13f-7c70-4c00-a644-eee8558d8053\t"),
        {
            "retire": [
                "[ ! -e /run/netns/9.web.ap-a71da13f-7c70-4c00-a644-eee8558d8053 ] || "
                "ip netns delete 9.web.ap-a71da13f-7c70-4c00-a644-eee8558d8053"
            ]
        },
    ),
    # guard
    "no guard": (lambda sections: sections.update(guard=[]), {"add": ["systemctl restart privnet-guard.service"]}),
    "rules that somebody touched": (
        replaced("guard", "listing 0", "listing 1"),
        {"add": ["systemctl reload privnet-guard.service"]},
    ),
    "an older privnet's guard, which no process owns": (
        without("guard", "owner"),
        {"add": ["systemctl restart privnet-guard.service"]},
    ),
    "a guard that is stopped": (
        guard_unit("ActiveState=active", "ActiveState=inactive"),
        {"add": ["systemctl start privnet-guard.service"]},
    ),
    "a guard that starts again and again": (
        guard_unit("ActiveState=active", "ActiveState=activating"),
        {"add": ["systemctl restart privnet-guard.service"]},
    ),
    "an element too few": (
        lambda s: s["guard"].__setitem__(5, json.dumps({"nftables": [{"set": {"name": "ports"}}]})),
        {
            "add": [
                "sh /etc/privnet/lib/guard.sh apply guard.add",
                f'  add element bridge privnet ports {{ "{RESOLVER_PORT}" . 02:70:0a:f0:00:01 . 10.240.0.1, '
                f'"{PORT}" . 02:70:0a:f0:00:02 . 10.240.0.2 }}',
            ]
        },
    ),
    "no barrier": (
        without("routes", "unreachable"),
        {"add": ["ip route replace unreachable 100.64.0.0/16 metric 4294967295"]},
    ),
    # files
    "a file of ours that the plan has not": (
        lambda s: s["files"].append("f 644 0:0 /etc/privnet/names/pn-old.hosts\t"),
        {"retire": ["remove /etc/privnet/names/pn-old.hosts"]},
    ),
    "a unit of ours that the plan has not": (
        lambda s: (
            s["files"].append("f 644 0:0 /etc/systemd/system/privnet-old.service\t"),
            s["units"].extend(["", "Id=privnet-old.service", "LoadState=loaded", "ActiveState=active"]),
            s["units"].extend(["SubState=running", "NeedDaemonReload=no"]),
        ),
        {
            "retire": [
                "systemctl stop privnet-old.service",
                "remove /etc/systemd/system/privnet-old.service",
                "systemctl daemon-reload",
            ]
        },
    ),
    "a drop-in for networkd": (
        lambda s: s["files"].append("f 644 0:0 /etc/systemd/network/05-privnet-7000000-bridge.network.d/x.conf\t"),
        {"retire": ["remove /etc/systemd/network/05-privnet-7000000-bridge.network.d/x.conf", "networkctl reload"]},
    ),
    "files that are none of ours": (
        lambda s: s["files"].extend(
            ["f 644 0:0 /etc/systemd/network/10-privnet.network\t", "f 644 0:0 /etc/netns/mine/resolv.conf\t"]
        ),
        {},
    ),
    "a directory that others may write into": (
        lambda s: s["files"].append("d 777 0:0 /etc/privnet/names\t"),
        {"add": ["chown -h 0:0 /etc/privnet/names", "chmod 0755 /etc/privnet/names"]},
    ),
    "a directory that is none of ours": (lambda s: s["files"].append("d 777 0:0 /etc/private\t"), {}),
    "names that are no plain text": (
        added("system", "names odd"),
        {"retire": ["find /etc/privnet -path '*[! -~]*' -delete"]},
    ),
    "another mode": (
        replaced("files", "f 644 0:0 /etc/privnet/guard.conf", "f 666 0:0 /etc/privnet/guard.conf"),
        {"add": ["place /etc/privnet/guard.conf"]},
    ),
    "units that systemd has not read again": (
        replaced("units", "NeedDaemonReload=no", "NeedDaemonReload=yes"),
        {"add": ["systemctl daemon-reload"]},
    ),
    "a masked unit": (
        added("system", "masked wg-quick@privnet.service"),
        {
            "add": [
                "systemctl unmask --quiet wg-quick@privnet.service",
                "systemctl unmask --quiet --runtime wg-quick@privnet.service",
            ]
        },
    ),
    "a masked unit that is none of ours": (added("system", "masked ssh.service"), {}),
}


@pytest.mark.parametrize("what", TABLE)
def test_a_difference_gets_exactly_these_commands(plan: HostPlan, what: str) -> None:
    drift, wanted = TABLE[what]
    sections = answer(plan)
    drift(sections)
    assert waves(plan, sections) == wanted


def test_names_follow_their_file_and_what_the_resolver_has_read(plan: HostPlan) -> None:
    network = plan.overlays[0].network
    sections = answer(plan)
    sections["names"] = [f"{network.id} yes {digest('old')} {sections['names'][0].split()[3]}"]
    assert waves(plan, sections) == {"switch": [f"systemctl reload privnet-dns@{network.id}.service"]}
    for line in ("", f"{network.id} no {digest('x')} {digest('y')}"):
        sections["names"] = [line]
        assert waves(plan, sections) == {"switch": [f"systemctl restart privnet-dns@{network.id}.service"]}


OUTSIDE = {"dns": {"upstream": ["192.0.2.53", "192.0.2.54#5353"]}}
FORWARDER = "privnet-forwarder@pn-f3b5c84a-4408-5b74-9732-c65c40ac1c83"
NOT_CARRIED: dict[str, Callable[[Sections], None]] = {
    "one of its sockets is elsewhere": replaced("answering", "udp 127.0.0.2%lo:53", "udp 127.0.0.3%lo:53"),
    "it hears everywhere": replaced("answering", "tcp 127.0.0.1%lo:53", "tcp 0.0.0.0:53"),
    "systemd does not hold a socket": replaced("answering", '("systemd",pid=1,', '("systemd",pid=19,'),
    "it asks other servers": replaced("answering", "192.0.2.54#5353", "192.0.2.55#53"),
    "it asks in another order": replaced("answering", "192.0.2.53#53 192.0.2.54#5353", "192.0.2.54#5353 192.0.2.53#53"),
}


@pytest.mark.parametrize("what", NOT_CARRIED)
def test_a_forwarder_that_is_not_as_planned_is_started_anew(planned: Any, what: str) -> None:
    plan = planned(fleet=OUTSIDE, **SHOP).hosts["h1"]
    sections = answer(plan)
    NOT_CARRIED[what](sections)
    stop = f"systemctl stop --job-mode=ignore-dependencies {FORWARDER}.socket", f"systemctl stop {FORWARDER}.service"
    assert waves(plan, sections) == {"add": [*stop, f"systemctl start {FORWARDER}.socket"]}


def test_a_forwarder_that_nobody_has_asked_yet_is_as_planned(planned: Any) -> None:
    plan = planned(fleet=OUTSIDE, **SHOP).hosts["h1"]
    sections = answer(plan)
    sections["answering"] = [line for line in sections["answering"] if " servers " not in line]
    sections["units"] = [line.replace(f"{FORWARDER}.service", "x") for line in sections["units"]]
    assert waves(plan, sections) == {}


@pytest.mark.parametrize("active", ["failed", "inactive"])
def test_a_forwarder_that_hears_nothing_is_started(planned: Any, active: str) -> None:
    plan = planned(fleet=OUTSIDE, **SHOP).hosts["h1"]
    sections = answer(plan)
    at = sections["units"].index(f"Id={FORWARDER}.socket")
    sections["units"][at + 2] = f"ActiveState={active}"
    assert waves(plan, sections) == {"add": [f"systemctl start {FORWARDER}.socket"]}


def test_without_names_outside_no_forwarder_is_left(planned: Any) -> None:
    """Nor an older version's, on the host itself, with the ways that led to it."""
    sections = answer(planned(fleet=OUTSIDE, **SHOP).hosts["h1"])
    sections["units"] += ["Id=privnet-forwarder.service", "LoadState=loaded", "ActiveState=active", "SubState=running"]
    sections["files"].append("f 644 0:0 /etc/systemd/system/privnet-forwarder.service\t")
    sections["links"].append(json.dumps([{"ifname": "pnu001000", "ifindex": 9, "flags": [], "mtu": 1500}]))
    retired = waves(planned(**SHOP).hosts["h1"], sections)["retire"]
    stopped = [word for line in retired if line.startswith("systemctl stop") for word in line.split()[2:]]
    assert stopped == [f"{FORWARDER}.service", f"{FORWARDER}.socket", "privnet-forwarder.service"]
    assert "[ ! -e /sys/class/net/pnu001000 ] || ip link delete dev pnu001000" in retired


def test_a_moved_container_is_added_switched_and_retired_in_this_order(planned: Any) -> None:
    before, after = planned(shop=["h1", "h2"]).hosts, planned(shop=["h1", "h3"]).hosts
    third = waves(after["h1"], answer(before["h1"]))
    assert f"  fdb replace {H2_MAC} dev pnx7000000 dst 100.64.0.3 self static" in third["switch"]
    assert not any("dst 100.64.0.3" in line for line in third["add"] if "place" not in line)
    assert any(line.startswith("  add element inet privnet speakers") for line in third["add"])
    assert any(line.startswith("  delete element inet privnet speakers") for line in third["retire"])
    assert f"wg set privnet peer {key_of('h2')} remove" in third["retire"]
    source = waves(after["h2"], answer(before["h2"]))
    assert "systemctl stop" in source["retire"][0] or "systemctl stop" in source["retire"][1]
    assert not any("delete" in line or "stop" in line for line in source.get("add", []))


def test_a_bare_machine_gets_packages_key_and_networkd_and_no_more(plan: HostPlan) -> None:
    script = changes.prepare(state(bare()))
    assert re.fullmatch(r"DEBIAN_FRONTEND=noninteractive apt-get .* \|\| \{ .* update .*\}", script.before[0])
    # Only after apt has failed: it waits for another apt, and dpkg would not.
    assert " || { DEBIAN_FRONTEND=noninteractive dpkg --configure -a < /dev/null && " in script.before[0]
    assert "dnsmasq-base nftables wireguard-tools wireguard-go" in script.before[0]
    assert script.after == [
        "sh /etc/privnet/lib/mesh.sh key",
        "systemctl daemon-reload",
        "systemctl enable --quiet systemd-networkd.service",
        "systemctl disable --quiet systemd-networkd-wait-online.service",
        "systemctl restart systemd-networkd.service",
    ]


@pytest.mark.parametrize("enabled", ["enabled", "disabled"])
def test_a_networkd_that_runs_is_restarted_by_a_wave_alone(plan: HostPlan, enabled: str) -> None:
    """It may have an uplink, and files that somebody has changed since it read them; a wave can be taken back."""
    sections = bare()
    sections["system"] = [
        line.replace("systemd-networkd.service not-found", f"systemd-networkd.service {enabled}")
        for line in sections["system"]
    ]
    networkd = ("Id=systemd-networkd.service", "LoadState=loaded", "ActiveState=active", "SubState=running")
    sections["units"] = [*networkd, "NeedDaemonReload=no"]
    script = changes.prepare(state(sections))
    assert script.files and not any(path.startswith("/etc/systemd/network") for path in script.files)
    assert not any("restart" in line for line in script.after)
    assert ("systemctl enable --quiet systemd-networkd.service" in script.after) == (enabled == "disabled")
    # The twin.
    wave = changes.add(plan, state(sections))
    assert "/etc/systemd/networkd.conf.d/privnet.conf" in wave.files
    assert "systemctl try-restart systemd-networkd.service" in wave.after


HOSTILE_NAMES = [
    "$(reboot)",
    "a b",
    "a;b",
    "`x`",
    "'",
    '"',
    "-rf",
    "..",
    "*",
    "pnc$(x)",
    "pnx9;x",
    "privnet-x;y.service",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_that_a_host_answers_reaches_no_shell(plan: HostPlan, name: str) -> None:
    sections = answer(plan)
    # What no device or unit can be called is not believed at all (test_state.py).
    if " " not in name:
        sections["links"].append(json.dumps([{"ifname": name[-15:], "ifindex": 9, "flags": [], "mtu": 1}]))
        sections["units"] += [f"Id={name}", "LoadState=loaded", "ActiveState=failed", "SubState=x"]
    sections["namespaces"].append(f"{name}\t")
    sections["fdb"].append(f"02:70:0a:f0:00:63 dev {name} dst {name} self static")
    sections["system"].append(f"masked {name}")
    sections["mesh"].append(f"peer {STRAY_KEY} {name.replace(' ', '')} {name.replace(' ', '')} off no")
    sections["files"].append(f"f 644 0:0 /etc/privnet/names/x{name}\t".replace("..", ".x"))
    found = state(sections)
    for wave in WAVES.values():
        script = wave(plan, found)
        for line in [*script.before, *script.after]:
            words = shlex.split(line)
            assert line == shlex.join(words) or line.startswith("[ ! -e /"), line
            assert not any(word == name for word in words), line
        assert all(name not in text for key, text in script.inputs.items())


def test_a_device_that_is_made_anew_loses_what_the_first_wave_has_given_it_again(plan: HostPlan) -> None:
    """That wave writes down the container that leaves, and the new device reads it from there."""
    sections = answer(plan)
    replaced("links", '"local": "100.64.0.1"', '"local": "100.65.0.1"')(sections)
    leaves = "02:70:0a:f0:00:63"
    added("fdb", f"{leaves} dev pnx7000000 dst 100.64.0.2 self static")(sections)
    found = waves(plan, sections)
    assert "ip link delete dev pnx7000000" in found["add"]
    assert leaves in changes.add(plan, state(sections)).files["/etc/privnet/overlay/7000000.fdb"].text
    assert f"  fdb delete {leaves} dev pnx7000000 dst 100.64.0.2 self" in found["retire"]
    assert "place /etc/privnet/overlay/7000000.fdb" in found["retire"]


def test_an_mtu_that_becomes_large_enough_for_ipv6_leaves_it_off(plan: HostPlan) -> None:
    sections = answer(plan)
    replaced("links", f'"mtu": {plan.mesh.mtu}', '"mtu": 1240')(sections)
    found = waves(plan, sections)["add"]
    assert found.index(NO_IPV6) > found.index(f"ip link set dev privnet mtu {plan.mesh.mtu} up")
