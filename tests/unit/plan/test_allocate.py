"""Numbers are sticky, unique, deterministic, and rest before they are given again."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privnet.diagnostics import render_text
from privnet.model.fleet import VNIS
from privnet.model.identifiers import parse_address
from privnet.model.lock import HostLock, Lock, NetworkLock, Rest, Slot
from privnet.plan.allocate import Allocation, allocate

NOW = 1_700_000_000
HOUR = 3600
EMPTY = Lock(fleet="test")
FEW = settings(max_examples=50, deadline=None)

HOSTS = [f"h{number}" for number in range(6)]
ZONES = {name: f"zone-{number % 3}" for number, name in enumerate(HOSTS)}


# --- what may be declared -------------------------------------------------------------------------


@st.composite
def shapes(draw: st.DrawFn) -> tuple[list[str], dict[str, dict[str, dict[str, Any]]]]:
    """Hosts of a fleet, and project → application → process type → placement, in any order."""
    own = draw(st.lists(st.sampled_from(HOSTS), min_size=2, unique=True))
    spread = st.fixed_dictionaries(
        {"count": st.integers(0, 5), "spread": st.sampled_from(["zone", "host"])},
    )
    formation = st.one_of(st.lists(st.sampled_from(own), max_size=4), spread)
    types = st.dictionaries(st.sampled_from(["web", "worker", "cron"]), formation, max_size=3)
    projects = draw(
        st.dictionaries(
            st.sampled_from(["shop", "blog", "docs"]),
            st.dictionaries(st.sampled_from(["a", "b"]), types, max_size=2),
            max_size=3,
        )
    )
    return own, projects


def lay(fleets: Any, shape: tuple[list[str], dict[str, Any]], quarantine: str = "1h") -> Any:
    own, projects = shape
    hosts = fleets.hosts(*own)
    for name in own:
        hosts[name]["zone"] = ZONES[name]
    return fleets.declare(
        {"hosts": hosts, "policy": {"address_quarantine": quarantine}},
        # An application's id is its own in each project: it cannot be in two of them.
        {
            name: fleets.project(name, {f"{name}.{app}": types for app, types in applications.items()})
            for name, applications in projects.items()
        },
    )


def accepted(allocation: Allocation) -> Lock:
    assert not allocation.problems
    return allocation.lock


# --- sticky ---------------------------------------------------------------------------------------


@FEW
@given(before=shapes(), after=shapes())
def test_no_change_renumbers_anything_else(fleets: Any, before: Any, after: Any) -> None:
    old = accepted(allocate(lay(fleets, before), EMPTY, NOW))
    new = accepted(allocate(lay(fleets, after), old, NOW + 1))
    for name in old.hosts.keys() & new.hosts.keys():
        assert new.hosts[name] == old.hosts[name]
    for name in old.networks.keys() & new.networks.keys():
        was, becomes = old.networks[name], new.networks[name]
        assert (becomes.vni, becomes.cidr, becomes.project) == (was.vni, was.cidr, was.project)
        for slot in was.slots.keys() & becomes.slots.keys():
            assert becomes.slots[slot].address == was.slots[slot].address


@FEW
@given(before=shapes(), after=shapes())
def test_numbers_are_unique_in_range_and_not_those_that_rest(fleets: Any, before: Any, after: Any) -> None:
    old = accepted(allocate(lay(fleets, before), EMPTY, NOW))
    new = accepted(allocate(lay(fleets, after), old, NOW + 1))
    resting = {(rest.kind, rest.network, rest.number) for rest in new.quarantine}
    given_out = [("mesh", "", host.mesh) for host in new.hosts.values()]
    given_out += [("vni", "", known.vni) for known in new.networks.values()]
    for name, known in new.networks.items():
        given_out += [("address", name, slot.address) for slot in known.slots.values()]
        assert all(known.cidr.first + 2 <= slot.address < known.cidr.last for slot in known.slots.values())
    assert len(set(given_out)) == len(given_out)
    assert not resting & set(given_out)


@FEW
@given(shape=shapes(), seed=st.integers(0, 1000))
def test_the_order_of_files_and_keys_means_nothing(fleets: Any, shape: Any, seed: int) -> None:
    own, projects = shape
    rng = random.Random(seed)

    def shuffled(data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        items = [(key, shuffled(value)) for key, value in data.items()]
        rng.shuffle(items)
        return dict(items)

    other = (rng.sample(own, len(own)), shuffled(projects))
    first = accepted(allocate(lay(fleets, shape), EMPTY, NOW))
    second = accepted(allocate(lay(fleets, other), EMPTY, NOW))
    assert second == first
    assert list(second.hosts) == list(first.hosts)
    assert [list(known.slots) for known in second.networks.values()] == [
        list(known.slots) for known in first.networks.values()
    ]


@FEW
@given(shape=shapes())
def test_allocating_again_changes_nothing(fleets: Any, shape: Any) -> None:
    declaration = lay(fleets, shape)
    once = accepted(allocate(declaration, EMPTY, NOW))
    assert accepted(allocate(declaration, once, NOW + 10)) == once


@FEW
@given(before=shapes(), after=shapes())
def test_adding_and_taking_back_gives_the_same_numbers(fleets: Any, before: Any, after: Any) -> None:
    first = accepted(allocate(lay(fleets, before, "0s"), EMPTY, NOW))
    between = accepted(allocate(lay(fleets, after, "0s"), first, NOW + 1))
    again = accepted(allocate(lay(fleets, before, "0s"), between, NOW + 2))
    kept = first.networks.keys() & between.networks.keys()
    assert {name: again.networks[name].vni for name in kept} == {name: first.networks[name].vni for name in kept}


def test_the_property_tests_see_a_number_that_changes(fleets: Any) -> None:
    """The twin of the tests above: without the lock file, a host that comes first takes the number of another."""
    one = fleets.declare({"hosts": fleets.hosts("h2")}, {})
    two = fleets.declare({"hosts": fleets.hosts("h1", "h2")}, {})
    old = accepted(allocate(one, EMPTY, NOW))
    assert accepted(allocate(two, old, NOW)).hosts["h2"] == old.hosts["h2"]
    assert accepted(allocate(two, EMPTY, NOW)).hosts["h2"] != old.hosts["h2"]


def test_a_container_that_moves_keeps_its_address(fleets: Any) -> None:
    def at(host: str) -> Any:
        shop = fleets.project("shop", {"a": {"web": [host]}})
        return fleets.declare({"hosts": fleets.hosts("h1", "h2")}, {"shop": shop})

    old = accepted(allocate(at("h1"), EMPTY, NOW))
    new = accepted(allocate(at("h2"), old, NOW))
    slot = f"1.web.{fleets.ap('a')}"
    ((_, was),) = old.networks.items()
    ((_, becomes),) = new.networks.items()
    assert (was.slots[slot].host, becomes.slots[slot].host) == ("h1", "h2")
    assert was.slots[slot].address == becomes.slots[slot].address
    assert new.quarantine == ()


def test_a_host_keeps_its_keys_when_the_mesh_prefix_changes(fleets: Any) -> None:
    known = Lock("test", 3, hosts={"h1": HostLock(parse_address("100.64.0.1"), "key", "ssh")})
    declaration = fleets.declare({"hosts": fleets.hosts("h1"), "wireguard": {"mesh": "100.80.0.0/16"}}, {})
    host = accepted(allocate(declaration, known, NOW)).hosts["h1"]
    assert host == HostLock(parse_address("100.80.0.1"), "key", "ssh")


# --- quarantine -----------------------------------------------------------------------------------


def scaled(fleets: Any, count: int, quarantine: str = "1h") -> Any:
    return fleets.declare(
        {"hosts": fleets.hosts("h1"), "policy": {"address_quarantine": quarantine}},
        {"shop": fleets.project("shop", {"a": {"web": ["h1"] * count}, "b": {"web": ["h1"]}})},
    )


def test_scaling_down_frees_the_highest_index_and_its_address_rests(fleets: Any) -> None:
    three = accepted(allocate(scaled(fleets, 3), EMPTY, NOW))
    one = accepted(allocate(scaled(fleets, 1), three, NOW))
    gone = {slot.address for name, slot in _slots(three).items() if name not in _slots(one)}
    assert sorted(name.split(".")[0] for name in _slots(three).keys() - _slots(one).keys()) == ["2", "3"]
    assert {rest.number for rest in one.quarantine} == gone
    assert {rest.until for rest in one.quarantine} == {NOW + HOUR}
    again = accepted(allocate(scaled(fleets, 3), one, NOW + HOUR - 1))
    assert not {slot.address for name, slot in _slots(again).items() if name not in _slots(one)} & gone


def test_after_the_quarantine_the_lowest_address_is_given_again(fleets: Any) -> None:
    three = accepted(allocate(scaled(fleets, 3), EMPTY, NOW))
    one = accepted(allocate(scaled(fleets, 1), three, NOW))
    again = accepted(allocate(scaled(fleets, 3), one, NOW + HOUR))
    assert _slots(again) == _slots(three)
    assert again.quarantine == ()


def test_the_end_of_a_quarantine_alone_changes_nothing(fleets: Any) -> None:
    one = accepted(allocate(scaled(fleets, 1), accepted(allocate(scaled(fleets, 3), EMPTY, NOW)), NOW))
    assert accepted(allocate(scaled(fleets, 1), one, NOW + 10 * HOUR)) == one


def test_without_quarantine_an_address_is_free_at_once(fleets: Any) -> None:
    three = accepted(allocate(scaled(fleets, 3, "0s"), EMPTY, NOW))
    one = accepted(allocate(scaled(fleets, 1, "0s"), three, NOW))
    assert _slots(accepted(allocate(scaled(fleets, 3, "0s"), one, NOW + 1))) == _slots(three)


def test_the_numbers_of_a_network_and_a_host_that_go_rest_too(fleets: Any) -> None:
    shop = {"shop": fleets.project("shop", {"a": {"web": ["h1"]}})}
    old = accepted(allocate(fleets.declare({"hosts": fleets.hosts("h1", "h2")}, shop), EMPTY, NOW))
    new = accepted(allocate(fleets.declare({"hosts": fleets.hosts("h1")}, {}), old, NOW))
    assert [(rest.kind, rest.number) for rest in new.quarantine] == [
        ("mesh", old.hosts["h2"].mesh),
        ("vni", 7000000),
    ]
    back = accepted(allocate(fleets.declare({"hosts": fleets.hosts("h1", "h3")}, shop), new, NOW + 1))
    assert back.hosts["h3"].mesh != old.hosts["h2"].mesh
    assert [known.vni for known in back.networks.values()] == [7000001]


def _slots(lock: Lock) -> dict[str, Slot]:
    return {name: slot for known in lock.networks.values() for name, slot in known.slots.items()}


# --- placement ------------------------------------------------------------------------------------


def spread(fleets: Any, hosts: list[str], count: int, over: str = "host", **others: Any) -> Any:
    own = fleets.hosts(*hosts)
    for name in hosts:
        own[name]["zone"] = ZONES[name]
    apps = {"a": {"web": {"count": count, "spread": over}}, **others}
    return fleets.declare({"hosts": own}, {"shop": fleets.project("shop", apps)})


def places(lock: Lock) -> dict[str, str]:
    return {name: slot.host for name, slot in _slots(lock).items()}


@FEW
@given(
    own=st.lists(st.sampled_from(HOSTS), min_size=1, unique=True),
    count=st.integers(0, 20),
    over=st.sampled_from(["host", "zone"]),
)
def test_a_new_formation_is_divided_evenly(fleets: Any, own: list[str], count: int, over: str) -> None:
    found = Counter(places(accepted(allocate(spread(fleets, own, count, over), EMPTY, NOW))).values())
    per_host = [found[host] for host in own]
    per_zone = Counter[str]()
    for host in own:
        per_zone[ZONES[host]] += found[host]
    even = per_host if over == "host" else list(per_zone.values())
    assert max(even) - min(even) <= 1
    assert sum(per_host) == count


@FEW
@given(
    own=st.lists(st.sampled_from(HOSTS), min_size=2, unique=True),
    count=st.integers(1, 20),
    over=st.sampled_from(["host", "zone"]),
    data=st.data(),
)
def test_only_containers_of_a_host_that_goes_move(
    fleets: Any, own: list[str], count: int, over: str, data: st.DataObject
) -> None:
    old = accepted(allocate(spread(fleets, own, count, over), EMPTY, NOW))
    stay = data.draw(st.lists(st.sampled_from(own), min_size=1, unique=True))
    come = data.draw(st.lists(st.sampled_from(HOSTS), unique=True))
    new = accepted(allocate(spread(fleets, sorted({*stay, *come}), count, over), old, NOW))
    was, becomes = places(old), places(new)
    for slot, host in was.items():
        if host in {*stay, *come}:
            assert becomes[slot] == host
        else:
            assert becomes[slot] in {*stay, *come}


def test_new_containers_go_where_the_fewest_are(fleets: Any) -> None:
    crowded = {"b": {"web": ["h0", "h0", "h0", "h1"]}}
    declaration = spread(fleets, ["h0", "h1", "h2"], 1, "host", **crowded)
    assert places(accepted(allocate(declaration, EMPTY, NOW)))[f"1.web.{fleets.ap('a')}"] == "h2"


def test_scaling_up_moves_nothing_and_scaling_down_takes_the_highest(fleets: Any) -> None:
    five = accepted(allocate(spread(fleets, HOSTS, 5), EMPTY, NOW))
    eight = accepted(allocate(spread(fleets, HOSTS, 8), five, NOW))
    two = accepted(allocate(spread(fleets, HOSTS, 2), eight, NOW))
    assert places(five).items() <= places(eight).items()
    assert places(two).items() <= places(five).items()
    assert sorted(places(two)) == sorted(f"{index}.web.{fleets.ap('a')}" for index in (1, 2))


# --- what cannot be given -------------------------------------------------------------------------


def shown(allocation: Allocation, declaration: Any) -> str:
    """The problems as text, with the directory of the declaration taken out."""
    text = render_text(allocation.problems, color=False, sources=declaration.sources)
    folder = next(iter(declaration.sources)).rpartition("/fleet.yaml")[0]
    return text.replace(folder.removesuffix("/projects"), "DIR")


def test_a_mesh_that_is_full_because_numbers_rest(fleets: Any) -> None:
    declaration = fleets.declare({"hosts": fleets.hosts("h1", "h2"), "wireguard": {"mesh": "100.64.0.0/30"}}, {})
    first = parse_address("100.64.0.1")
    lock = Lock("test", 1, hosts={"h1": HostLock(first)}, quarantine=(Rest("mesh", "", first + 1, NOW + 5),))
    allocation = allocate(declaration, lock, NOW)
    assert [problem.code for problem in allocation.problems] == ["PN505"]
    assert "mesh 100.64.0.0/30 has no free number for host h2" in shown(allocation, declaration)
    assert not allocate(declaration, lock, NOW + 5).problems


def test_a_range_of_vnis_that_is_too_small(fleets: Any) -> None:
    projects = {name: fleets.project(name, {}) for name in ("shop", "blog", "docs")}
    declaration = fleets.declare({"hosts": fleets.hosts("h1"), "vxlan": {"vni": "7-8"}}, projects)
    allocation = allocate(declaration, EMPTY, NOW)
    assert [problem.code for problem in allocation.problems] == ["PN505"]
    assert "VNI range 7-8 has no free number for private network pn-" in shown(allocation, declaration)


def test_a_network_whose_free_addresses_all_rest(fleets: Any) -> None:
    def declared(count: int) -> Any:
        project = fleets.project("shop", {"a": {"web": ["h1"] * count}}, cidr="10.9.0.0/29")
        return fleets.declare({"hosts": fleets.hosts("h1")}, {"shop": project})

    lock = accepted(allocate(declared(1), accepted(allocate(declared(5), EMPTY, NOW)), NOW))
    allocation = allocate(declared(2), lock, NOW + 1)
    assert [problem.code for problem in allocation.problems] == ["PN506"]
    assert "no free address for one of its 2 containers" in shown(allocation, declared(2))
    assert not allocate(declared(2), lock, NOW + HOUR).problems


def test_a_declared_vni_that_the_lock_file_gave_to_another(fleets: Any) -> None:
    blog = {"blog": fleets.project("blog", {})}
    lock = accepted(allocate(fleets.declare({"hosts": fleets.hosts("h1")}, blog), EMPTY, NOW))
    shop = {"shop": fleets.project("shop", {}, vni=7000000)}
    declaration = fleets.declare({"hosts": fleets.hosts("h1")}, blog | shop)
    text = shown(allocate(declaration, lock, NOW), declaration)
    ids = {name: fleets.network(name)["id"] for name in ("shop", "blog")}
    assert f"VNI 7000000 of private network {ids['shop']} belongs to private network {ids['blog']} already" in text
    assert "projects/shop.yaml:1:" in text
    assert f"^^^^ given to {ids['blog']} (blog) by the lock file" in text
    assert "delete the `vni:` line" in text


def test_a_declared_vni_is_not_taken_by_a_network_that_has_none_yet(fleets: Any) -> None:
    projects = {"aaa": fleets.project("aaa", {}), "shop": fleets.project("shop", {}, vni=7000000)}
    lock = accepted(allocate(fleets.declare({"hosts": fleets.hosts("h1")}, projects), EMPTY, NOW))
    assert {known.project: known.vni for known in lock.networks.values()} == {"shop": 7000000, "aaa": 7000001}


@pytest.mark.parametrize("vni", [1, 4096, 5000, 16777215])
def test_a_network_keeps_its_vni_where_no_range_is_declared(fleets: Any, vni: int) -> None:
    """As those keep theirs that were given one from 4096 on, when that was where VNIs began."""

    def declared(*names: str, **fleet: Any) -> Any:
        return fleets.declare({"hosts": fleets.hosts("h1")} | fleet, {name: fleets.project(name, {}) for name in names})

    before = accepted(allocate(declared("shop"), EMPTY, NOW))
    ((shop, known),) = before.networks.items()
    old = replace(before, networks={shop: replace(known, vni=vni)})
    assert accepted(allocate(declared("shop"), old, NOW)) == old
    new = accepted(allocate(declared("shop", "blog"), old, NOW))
    assert {network.project: network.vni for network in new.networks.values()} == {"shop": vni, "blog": VNIS.first}
    # Its twin: a range that is declared is what somebody wants.
    moved = accepted(allocate(declared("shop", vxlan={"vni": "7000-7009"}), old, NOW))
    assert [network.vni for network in moved.networks.values()] == [7000]


def test_a_network_that_declares_another_vni_takes_it(fleets: Any) -> None:
    old = accepted(allocate(fleets.declare({"hosts": fleets.hosts("h1")}, {"a": fleets.project("a", {})}), EMPTY, NOW))
    declaration = fleets.declare({"hosts": fleets.hosts("h1")}, {"a": fleets.project("a", {}, vni=5000)})
    new = accepted(allocate(declaration, old, NOW))
    assert [known.vni for known in new.networks.values()] == [5000]
    assert new.quarantine == (Rest("vni", "", 7000000, NOW + HOUR),)


@pytest.mark.parametrize("cidr", ["10.9.0.0/24", "10.9.0.0/29"])
def test_a_network_that_changes_its_prefix_gets_new_addresses_in_it(fleets: Any, cidr: str) -> None:
    def declared(**fields: Any) -> Any:
        project = fleets.project("a", {"x": {"web": ["h1"]}}, **fields)
        return fleets.declare({"hosts": fleets.hosts("h1")}, {"a": project})

    old = accepted(allocate(declared(), EMPTY, NOW))
    new = accepted(allocate(declared(cidr=cidr), old, NOW))
    ((_, known),) = new.networks.items()
    assert isinstance(known, NetworkLock)
    assert [slot.address for slot in known.slots.values()] == [parse_address("10.9.0.2")]
