"""What a plan says of traffic: each kind of change has the label that it deserves, and no change hides another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from privnet.compiler import compile_fleet
from privnet.progress import Progress, save_progress
from privnet.report.difference import HostChange, changes_of, host_changes
from privnet.report.fleet import plan_data, plan_lines
from privnet.report.impact import LOGIN_ONLY, ORDER, Impact, Label, impacts, steps_impact
from privnet.store import lock_checksum, save_lock

Declare = Callable[..., dict[tuple[str, str, str], Impact]]
HOSTS = ("h1", "h2", "h3", "h4")
FORMATION = {"web": ["h1", "h2"], "worker": ["h3"]}


@pytest.fixture
def felt(written: Callable[..., Path], fleets: Any) -> Declare:
    """Deploys two networks, then declares something else: the impact of each change, by sign, kind and name."""

    def declare(shop: Any = None, blog: Any = None, hosts: Any = None, numbers: Any = None, **fleet: Any) -> Any:
        projects = {
            "shop": fleets.project("shop", {"a": FORMATION} if shop is None else shop, **(numbers or {})),
            "blog": fleets.project("blog", {"b": FORMATION} if blog is None else blog),
        }
        policy = {"address_quarantine": "0s"}
        return written({"hosts": hosts or fleets.hosts(*HOSTS), "policy": policy, **fleet}, projects)

    directory = declare()
    save_lock(directory, compile_fleet(directory).lock)

    def changed(*removed: str, deployed: bool = False, **more: Any) -> dict[tuple[str, str, str], Impact]:
        declare(**more)
        if deployed:
            save_lock(directory, compile_fleet(directory).lock)
        for name in removed:
            (directory / "projects" / f"{name}.yaml").unlink()
        compiled = compile_fleet(directory)
        text = "\n".join(plan_lines(compiled))
        found = {}
        for change, impact in impacts(compiled.known, compiled.lock, changes_of(compiled)):
            assert change.name in text or change.kind == "mtu"
            found[change.sign, change.kind, change.name] = impact
        return found

    return changed


def labels(found: dict[tuple[str, str, str], Impact]) -> dict[tuple[str, str], set[str]]:
    by_kind: dict[tuple[str, str], set[str]] = {}
    for (sign, kind, _), impact in found.items():
        by_kind.setdefault((sign, kind), set()).add(str(impact.label))
    return by_kind


def test_nothing_changed_is_no_change(felt: Declare) -> None:
    assert felt() == {}


def test_what_is_new_disturbs_nobody(felt: Declare, fleets: Any) -> None:
    more = {"a": {"web": ["h1", "h2", "h4"], "worker": ["h3"]}, "c": {"web": ["h1"]}}
    found = felt(shop=more, hosts=fleets.hosts(*HOSTS, "h5"))
    assert labels(found) == {("+", "container"): {"none"}, ("+", "application"): {"none"}, ("+", "host"): {"none"}}


def test_a_moved_container_alone_is_felt(felt: Declare, fleets: Any) -> None:
    found = felt(shop={"a": {"web": ["h1", "h4"], "worker": ["h3"]}})
    assert list(found) == [("~", "container", f"2.web.{fleets.ap('a')}")]
    (impact,) = found.values()
    assert (impact.label, impact.flows) == (Label.outage, "flows of the moved container")
    assert "until its process runs on the new host" in impact.reason


def test_a_removed_container_and_network(felt: Declare, fleets: Any) -> None:
    found = felt("blog", shop={"a": {"web": ["h1"], "worker": ["h3"]}})
    assert found["-", "container", f"2.web.{fleets.ap('a')}"].flows == "flows of the removed container"
    network = found["-", "network", fleets.network("blog")["id"]]
    assert (network.label, network.flows) == (Label.outage, "all flows of the network")
    assert found["-", "container", f"1.web.{fleets.ap('b')}"] == network
    assert found["-", "application", fleets.ap("b")].label is Label.none


def test_an_application_that_migrates(felt: Declare, fleets: Any) -> None:
    found = felt(shop={}, blog={"a": FORMATION, "b": FORMATION})
    assert labels(found) == {
        ("~", "application"): {"outage"},
        ("-", "container"): {"outage"},
        ("+", "container"): {"none"},
    }
    assert "other names and addresses" in found["-", "container", f"1.web.{fleets.ap('a')}"].reason


def test_a_network_whose_only_host_goes(felt: Declare, fleets: Any) -> None:
    found = felt(
        shop={"a": {"web": ["h1", "h1"], "worker": ["h3"]}},
        blog={"b": {"web": ["h1", "h1"], "worker": ["h3"]}},
        hosts=fleets.hosts("h1", "h3", "h4"),
    )
    assert found["-", "host", "h2"].label is Label.none
    assert "cut off" in found["-", "host", "h2"].reason
    assert labels(found)["~", "container"] == {"outage"}


@pytest.mark.parametrize(
    ("numbers", "fleet", "kind", "label", "flows"),
    [
        ({"vni": 7000}, {}, "network", "brief", "all flows of the network"),
        ({"cidr": "10.250.0.0/24"}, {}, "network", "outage", "all flows of the network"),
        ({"cidr": "10.240.0.0/20"}, {}, "network", "brief", "all flows of the network"),
        ({}, {"wireguard": {"mesh": "100.65.0.0/16"}}, "host", "brief", "all flows between this host and others"),
    ],
)
def test_other_numbers(felt: Declare, numbers: Any, fleet: Any, kind: str, label: str, flows: str) -> None:
    found = felt(numbers=numbers, **fleet)
    assert {(str(i.label), i.flows) for (_, k, _), i in found.items() if k == kind} == {(label, flows)}
    assert set(labels(found)) <= {("~", kind), ("~", "container"), ("~", "setting")}


def test_other_addresses_are_said_of_each_container(felt: Declare) -> None:
    assert labels(felt(numbers={"cidr": "10.250.0.0/24"}))["~", "container"] == {"outage"}


@pytest.mark.parametrize(("mtu", "label"), [(1400, "brief"), (9000, None)])
def test_a_host_that_changes_the_mtu_of_its_networks(felt: Declare, fleets: Any, mtu: int, label: str | None) -> None:
    """A host with a smaller underlay comes into a network; one with a larger changes nothing."""
    hosts = fleets.hosts(*HOSTS, h4={"address": "192.0.2.14", "mtu": mtu})
    found = felt(shop={"a": {"web": ["h1", "h2", "h4"], "worker": ["h3"]}}, hosts=hosts)
    mtus = {impact for (_, kind, _), impact in found.items() if kind == "mtu"}
    assert {str(impact.label) for impact in mtus} == ({label} if label else set())


def test_a_network_that_leaves_its_smallest_underlay(felt: Declare, fleets: Any) -> None:
    hosts = fleets.hosts(*HOSTS, h3={"address": "192.0.2.13", "mtu": 1400})
    felt(hosts=hosts, deployed=True)
    found = felt(shop={"a": {"web": ["h1", "h2"], "worker": ["h1"]}}, hosts=hosts)
    ((key, impact),) = [(key, impact) for key, impact in found.items() if key[1] == "mtu"]
    assert (key, impact.label) == (("~", "mtu", fleets.network("shop")["id"]), Label.new_flows)


# --- settings ---------------------------------------------------------------------------------------

BETWEEN = "all flows between hosts"


@pytest.mark.parametrize(
    ("fleet", "name", "was", "becomes", "label", "flows"),
    [
        ({"domain": "pn.example"}, "domain", "private-network.internal", "pn.example", "outage", "old domain"),
        ({"wireguard": {"port": 51821}}, "wireguard.port", "51820", "51821", "brief", BETWEEN),
        ({"wireguard": {"mesh": "100.64.0.0/12"}}, "wireguard.mesh", "100.64.0.0/16", "/12", "brief", BETWEEN),
        ({"vxlan": {"port": 4790}}, "vxlan.port", "4789", "4790", "brief", BETWEEN),
        ({"dns": {"ttl": 60}}, "dns.ttl", "5", "60", "brief", "questions for names"),
        ({"dns": {"upstream": ["9.9.9.9"]}}, "dns.upstream", "none", "9.9.9.9", "brief", "questions for names"),
    ],
)
def test_a_setting_of_the_fleet(
    felt: Declare, tmp_path: Path, fleet: Any, name: str, was: str, becomes: str, label: str, flows: str
) -> None:
    found = felt(**fleet)
    assert list(found) == [("~", "setting", name)]
    assert str(found["~", "setting", name].label) == label and flows in found["~", "setting", name].flows
    text = "\n".join(plan_lines(compile_fleet(tmp_path / "inventory" / "test")))
    assert f"~ setting {name}: {was} → " in text and becomes in text
    assert f"  all hosts  setting {name}\n" in text
    felt(deployed=True, **fleet)
    assert felt(**fleet) == {}, "the twin: it is deployed"


def test_other_resolvers_outside_and_none_any_more(felt: Declare) -> None:
    felt(deployed=True, dns={"upstream": ["9.9.9.9"]})
    key = "~", "setting", "dns.upstream"
    assert (felt(dns={"upstream": ["1.1.1.1"]})[key].label, felt()[key].label) == (Label.brief, Label.outage)


def test_another_internal_domain(felt: Declare) -> None:
    felt(deployed=True, dns={"upstream": ["9.9.9.9"]})
    found = felt(dns={"upstream": ["9.9.9.9"], "internal": ["corp.example"]})
    assert {name: impact.label for (_, _, name), impact in found.items()} == {"dns.internal": Label.brief}


def test_settings_of_hosts(felt: Declare, fleets: Any) -> None:
    h3 = {"address": "198.51.100.3", "mtu": 1400}
    found = felt(hosts=fleets.hosts(*HOSTS, h3=h3))
    assert {(kind, name): str(impact.label) for (_, kind, name), impact in found.items()} == {
        ("setting", "hosts.h3.address"): "brief",
        ("setting", "hosts.h3.mtu"): "none",
        ("mtu", fleets.network("shop")["id"]): "brief",
        ("mtu", fleets.network("blog")["id"]): "brief",
    }
    assert felt(hosts=fleets.hosts(*HOSTS, h3={"address": "192.0.2.13", "endpoint": "192.0.2.13:51820"})) == {
        ("~", "setting", "hosts.h3.endpoint"): LOGIN_ONLY
    }
    there = {"endpoint": "203.0.113.3:51820"}
    felt(hosts=fleets.hosts(*HOSTS, h3={"address": "192.0.2.13", **there}), deployed=True)
    moved = felt(hosts=fleets.hosts(*HOSTS, h3={"address": "198.51.100.3", **there}))
    assert moved == {("~", "setting", "hosts.h3.address"): LOGIN_ONLY}, "only a run goes to another place"


def test_many_hosts_with_other_settings_are_counted(written: Callable[..., Path], fleets: Any) -> None:
    names = [f"h{number}" for number in range(1, 41)]

    def declare(mtu: int) -> Path:
        hosts = {name: {**host, "mtu": mtu} for name, host in fleets.hosts(*names).items()}
        return written({"hosts": hosts}, {"shop": fleets.project("shop", {"a": {"web": ["h1", "h2"]}})})

    save_lock(declare(1500), compile_fleet(declare(1500)).lock)
    lines = [*plan_lines(compile_fleet(declare(1400)))]
    assert "  ~ 40 settings changed" in lines and len(lines) < 15
    assert any(line.endswith("; other settings on 40") for line in lines)


def test_a_lock_file_without_settings_says_that_it_cannot_tell(written: Callable[..., Path], fleets: Any) -> None:
    def declare(**fleet: Any) -> Path:
        projects = {"shop": fleets.project("shop", {"a": {"web": ["h1", "h2"]}})}
        return written({"hosts": fleets.hosts("h1", "h2"), **fleet}, projects)

    directory = declare()
    save_lock(directory, replace(compile_fleet(directory).lock, settings=None))
    compiled = compile_fleet(declare(dns={"ttl": 60}))
    text = "\n".join(plan_lines(compiled))
    assert "are not compared" in text and "`--live` asks the hosts" in text
    assert plan_data(compiled)["settings_compared"] is False and not compiled.lock_changed
    save_lock(directory, compiled.lock)
    compiled = compile_fleet(directory)
    assert "are not compared" not in "\n".join(plan_lines(compiled))
    assert plan_data(compiled)["settings_compared"] is True


# --- what a run has not finished --------------------------------------------------------------------


def test_a_run_that_was_not_finished_is_told(written: Callable[..., Path], fleets: Any) -> None:
    def declare(web: list[str]) -> Path:
        return written({"hosts": fleets.hosts("h1", "h2", "h3")}, {"shop": fleets.project("shop", {"a": {"web": web}})})

    directory = declare(["h1", "h2"])
    first = save_lock(directory, compile_fleet(directory).lock)

    def text() -> str:
        return "\n".join(plan_lines(compile_fleet(directory)))

    assert "there is no privnet.progress.json" in text(), "nobody has run"
    sure = {name: Progress(first.serial, lock_checksum(first)) for name in first.hosts}
    save_progress(directory, "test", sure)
    assert "progress" not in text() and "not finished" not in text()
    # A run has written new numbers, changed one host, and was killed.
    declare(["h1", "h2", "h3"])
    second = save_lock(directory, compile_fleet(directory).lock)
    now = Progress(second.serial, lock_checksum(second))
    save_progress(directory, "test", {**sure, "h1": now, "h2": replace(now, open="failed: \x1bno")})
    said = text()
    assert "Nothing differs from the lock file (serial 2)." in said
    assert "The last run was not finished on: h2 (failed: \\x1bno), h3 (it has serial 1). A plain run finishes" in said
    assert plan_data(compile_fleet(directory))["unfinished"] == {"h2": "failed: \x1bno", "h3": "it has serial 1"}
    (directory / "privnet.progress.json").write_text("{")
    assert "is not known here" in text()


def test_labels_have_an_order() -> None:
    assert [str(label) for label in ORDER] == ["none", "new flows only", "brief", "outage"]


# --- host by host -----------------------------------------------------------------------------------


def test_each_host_with_what_it_gets_and_loses(written: Callable[..., Path], fleets: Any) -> None:
    def lock(web: list[str], other: list[str]) -> Any:
        projects = {
            "shop": fleets.project("shop", {"a": {"web": web}}),
            "blog": fleets.project("blog", {"b": {"web": other}}),
        }
        return compile_fleet(written({"hosts": fleets.hosts(*HOSTS)}, projects)).lock

    old, new = lock(["h1", "h2"], ["h3", "h4"]), lock(["h1", "h3"], ["h3", "h4"])
    shop, slot = fleets.network("shop")["id"], f"2.web.{fleets.ap('a')}"
    assert host_changes(old, new) == {
        "h1": HostChange(told=[shop], meets=["h3"], parts=["h2"]),
        "h2": HostChange(goes=[slot], leaves=[shop], parts=["h1"]),
        "h3": HostChange(comes=[slot], joins=[shop], meets=["h1"]),
    }
    assert host_changes(old, old) == {}


# --- what hosts say ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "label", "flows"),
    [
        ("add write /etc/privnet/guard.nft", None, ""),
        ("add run systemctl start privnet-container@pnc6acfc00002.service", None, ""),
        ("add run wg addconf privnet new-peers.conf", None, ""),
        ("add run wg addconf privnet peers.conf", "brief", "flows to peers whose endpoint or key is another"),
        ("add run wg set privnet listen-port 51900", "brief", "all flows between this host and others"),
        ("add run sh /etc/privnet/lib/mesh.sh up restart", "brief", "all flows between this host and others"),
        ("add run sh /etc/privnet/lib/mesh.sh up start", None, ""),
        ("add run ip link delete dev pnx7000000", "brief", "flows of that network between this host and others"),
        ("retire run ip link delete dev pnx7000000", None, ""),
        ("retire run wg set privnet peer AAAA= remove", None, ""),
        (
            "switch run systemctl restart privnet-dns@pn-1.service",
            "brief",
            "questions for names of that network from this host",
        ),
        (
            "retire run systemctl stop privnet-container@pnc6acfc00002.service",
            "outage",
            "flows of these containers on this host",
        ),
        ("retire run systemctl stop privnet-container@pnc6acfc00001.service", None, ""),
        (
            "retire run [ ! -e /sys/class/net/pnc6acfc00002 ] || ip link delete dev pnc6acfc00002",
            "outage",
            "flows of these containers on this host",
        ),
        ("retire run [ ! -e /sys/class/net/pnc6acfc00001 ] || ip link delete dev pnc6acfc00001", None, ""),
        ("prepare run sh /etc/privnet/lib/mesh.sh key", None, ""),
        ("prepare run sh /etc/privnet/lib/mesh.sh key anew", "brief", "all flows between this host and others"),
        ("add run systemctl restart privnet-guard.service", "brief", "all flows of this host's containers"),
        ("add run systemctl reload privnet-guard.service", None, ""),
        (
            "add run sh /etc/privnet/lib/container.sh name pnc6acfc00002 || "
            "systemctl restart privnet-namespace@pnc6acfc00002.service",
            "outage",
            "flows of these containers, if their namespace is gone",
        ),
    ],
)
def test_a_step_on_a_host(step: str, label: str | None, flows: str) -> None:
    stage, _, line = step.partition(" ")
    found = steps_impact([(stage, line), ("add", "write /etc/privnet/mesh.conf")])
    assert [(str(impact.label), impact.flows) for impact in found] == ([(label, flows)] if label else [])


def test_the_worst_step_comes_first() -> None:
    steps = [
        ("add", "run wg set privnet listen-port 51900"),
        ("retire", "run systemctl stop privnet-container@pnc6acfc00002.service"),
    ]
    assert [impact.label for impact in steps_impact(steps)] == [Label.outage, Label.brief]


# --- out of service ---------------------------------------------------------------------------------------------


def without(fleets: Any, *out: str) -> Any:
    return {name: host | ({"state": "out"} if name in out else {}) for name, host in fleets.hosts(*HOSTS).items()}


def test_a_host_that_goes_out_is_felt_by_its_containers_and_comes_back_beside_what_is_there(
    felt: Declare, fleets: Any
) -> None:
    found = felt(hosts=without(fleets, "h3"))
    assert list(found) == [("~", "setting", "hosts.h3.state")]
    (impact,) = found.values()
    assert (impact.label, impact.flows) == (Label.outage, "flows of containers on the host")
    felt(hosts=without(fleets, "h3"), deployed=True)
    (impact,) = felt().values()
    assert str(impact) == "none: it comes back beside what is there"


def test_a_host_without_containers_goes_out_unfelt(felt: Declare, fleets: Any) -> None:
    (impact,) = felt(hosts=without(fleets, "h4")).values()
    assert str(impact) == "none: no container is on it"


def test_a_container_from_and_to_a_host_that_is_out(felt: Declare, fleets: Any) -> None:
    """Away from one it comes beside what is there, once nobody expects it there any more."""
    ap = fleets.ap("a")
    away = {"a": {"web": ["h1", "h2"], "worker": ["h1"]}}
    assert felt(shop=away, hosts=without(fleets, "h3"))["~", "container", f"1.worker.{ap}"].label is Label.outage
    felt(hosts=without(fleets, "h3"), deployed=True)
    moved = felt(shop=away, hosts=without(fleets, "h3"))
    assert labels(moved) == {("~", "container"): {"none"}}
    onto = {"a": {"web": ["h1", "h3"], "worker": ["h3", "h3"]}}
    found = felt(shop=onto, hosts=without(fleets, "h3"))
    assert found["~", "container", f"2.web.{ap}"].label is Label.outage
    assert "counts as not running" in found["+", "container", f"2.worker.{ap}"].reason
    gone = felt(shop={"a": {"web": ["h1", "h2"]}}, hosts=without(fleets, "h3"))
    assert gone["-", "container", f"1.worker.{ap}"].label is Label.none


def test_other_hosts_part_from_one_that_is_out_and_meet_it_again(felt: Declare, fleets: Any, tmp_path: Path) -> None:
    felt(hosts=without(fleets, "h3"))
    directory = next(tmp_path.rglob("fleet.yaml")).parent
    compiled = compile_fleet(directory)
    found = host_changes(compiled.known, compiled.lock)
    assert {name: host.parts for name, host in found.items()} == {"h1": ["h3"], "h2": ["h3"]}
    assert "3 hosts and 1 out of service" in next(plan_lines(compiled))
    lines = [*plan_lines(compiled, everything=True)]
    assert any(line.startswith("host h3  mesh 100.64.0.3 ") and "out of service, with 2" in line for line in lines)
    assert plan_data(compiled)["out"]["h3"]["mesh"] == "100.64.0.3"
    felt(hosts=without(fleets, "h3"), deployed=True)
    felt()
    compiled = compile_fleet(directory)
    found = host_changes(compiled.known, compiled.lock)
    assert {name: host.meets for name, host in found.items()} == {"h1": ["h3"], "h2": ["h3"], "h3": ["h1", "h2"]}


def test_nobody_feels_where_a_host_that_is_out_is(felt: Declare, fleets: Any) -> None:
    felt(hosts=without(fleets, "h3"), deployed=True)
    elsewhere = without(fleets, "h3")
    elsewhere["h3"]["address"] = "192.0.2.99"
    (impact,) = felt(hosts=elsewhere).values()
    assert str(impact) == "none: the host is out of service, and nobody's peer"
