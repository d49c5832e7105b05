"""The removal guard: what counts as removed, how much may go, and which number lets more go."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from privnet.check import removal
from privnet.compiler import compile_fleet
from privnet.diagnostics import DeclarationError, Problem
from privnet.store import load_lock, save_lock

ROOT = Path(__file__).parents[3]
PROD = ROOT / "inventory" / "prod"


def recorded(directory: Path) -> Path:
    """With the lock file that a run leaves."""
    save_lock(directory, compile_fleet(directory).lock)
    return directory


def said(directory: Path, told: str | None = None) -> list[Problem]:
    fleet = compile_fleet(directory)
    return list(removal.check(fleet.declaration, fleet.known, fleet.lock, told))


def removed(directory: Path) -> removal.Removals:
    fleet = compile_fleet(directory)
    return removal.removals(fleet.known, fleet.lock)


@pytest.fixture
def many(written: Callable[..., Path], fleets: Any) -> Callable[..., Path]:
    """Twenty containers in two networks on ten hosts, deployed; called again, with something else declared."""
    names = [f"h{number}" for number in range(10)]

    def declare(shop: Any = None, blog: Any = None, hosts: list[str] = names, guard: str = "10%") -> Path:
        projects = {
            "shop": fleets.project("shop", {"a": {"web": names}} if shop is None else shop),
            "blog": fleets.project("blog", {"b": {"web": names}} if blog is None else blog),
        }
        return written({"hosts": fleets.hosts(*hosts), "policy": {"removal_guard": guard}}, projects)

    recorded(declare())
    return declare


# --- what counts --------------------------------------------------------------------------------------------


def test_what_only_moves_is_no_removal(many: Callable[..., Path], fleets: Any) -> None:
    """To another host, to another network, to another address: all containers of the old network, too."""
    web = [f"h{number}" for number in reversed(range(10))]
    found = removed(many(shop={}, blog={"a": {"web": web}, "b": {"web": web}}))
    assert (found.number, found.emptied) == (0, ())
    assert said(many(shop={}, blog={"a": {"web": web}, "b": {"web": web}})) == []


def test_a_tunnel_that_no_container_needs_any_more_is_no_removal(many: Callable[..., Path]) -> None:
    """45 pairs of hosts were peers, and one is. The twin: all containers are there, on two hosts."""
    web = [f"h{number % 2}" for number in range(10)]
    directory = many(shop={"a": {"web": web}}, blog={"b": {"web": web}}, guard="0%")
    lock = compile_fleet(directory).lock
    assert {slot.host for network in lock.networks.values() for slot in network.slots.values()} == {"h0", "h1"}
    assert removed(directory).number == 0 and said(directory) == []


def test_containers_networks_and_hosts_are_counted(many: Callable[..., Path], fleets: Any) -> None:
    web = [f"h{number}" for number in range(8)]
    directory = many(shop={"a": {"web": web}}, hosts=web)
    (directory / "projects" / "blog.yaml").unlink()
    found = removed(directory)
    shop, blog = fleets.network("shop")["id"], fleets.network("blog")["id"]
    assert dict(found.containers) == {shop: 2, blog: 10}
    assert (found.networks, found.hosts, found.number) == ((blog,), ("h8", "h9"), 15)
    (problem,) = said(directory)
    assert problem.code == "PN601"
    counts = "12 of 20 containers, 1 of 2 private networks, 2 of 10 hosts"
    assert problem.message == f"the plan of fleet test removes {counts}"
    assert f"network {blog} of project blog with 10 containers" in problem.note
    assert f"2 of 10 containers of network {shop} of project shop; hosts h8, h9." in problem.note
    assert "--allow-removals 15" in problem.help and "PRIVNET_ALLOW_REMOVALS=15 pyinfra" in problem.help


def test_an_application_that_leaves_for_a_project_without_a_network_is_gone(
    many: Callable[..., Path], fleets: Any
) -> None:
    directory = many(shop={})
    (directory / "projects" / "plain.yaml").write_text(
        f"project: plain\napplications: {{{fleets.ap('a')}: {{formation: {{web: [h0]}}}}}}\n"
    )
    assert sum(removed(directory).containers.values()) == 10


# --- how much may go ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("left", "refused"), [(10, False), (9, False), (8, False), (7, True), (0, True)])
def test_a_share_may_go_and_not_one_more(many: Callable[..., Path], left: int, refused: bool) -> None:
    """2 of 20 containers are 10%."""
    directory = many(shop={"a": {"web": [f"h{number}" for number in range(left)]}})
    assert [problem.code for problem in said(directory)] == (["PN601"] if refused else [])


@pytest.mark.parametrize(("left", "refused"), [(9, False), (8, True)])
def test_of_hosts_likewise(many: Callable[..., Path], left: int, refused: bool) -> None:
    hosts = [f"h{number}" for number in range(left)]
    everywhere = {"web": (hosts * 2)[:10]}
    directory = many(shop={"a": everywhere}, blog={"b": everywhere}, hosts=hosts)
    assert [problem.code for problem in said(directory)] == (["PN601"] if refused else [])


def test_a_private_network_never_goes_as_a_whole(many: Callable[..., Path]) -> None:
    """Not at 100% either, and not when it stays declared without any of its containers."""
    (problem,) = said(many(blog={}, guard="100%"))
    assert "all containers of 1 private network" in problem.note
    directory = many(guard="100%")
    (directory / "projects" / "blog.yaml").unlink()
    (problem,) = said(directory)
    assert "1 whole private network" in problem.note


# --- the number ---------------------------------------------------------------------------------------------


def test_the_exact_number_lets_it_go(many: Callable[..., Path]) -> None:
    directory = many(blog={})
    assert said(directory, "10") == []
    for wrong in ("9", "11", "100", "010", "9" * 5000):
        (problem,) = said(directory, wrong)
        assert (problem.code, "makes 10" in problem.message) == ("PN602", True)
        assert "--allow-removals 10`" in problem.help
        assert len(problem.message) < 200


@pytest.mark.parametrize("told", ["all", "-1", "1e1", "١٠", "10 ", "*"])
def test_what_is_no_number_is_refused(many: Callable[..., Path], told: str) -> None:
    assert [problem.code for problem in said(many(blog={}), told)] == ["PN602"]
    assert [problem.code for problem in said(many(), told)] == ["PN602"]


def test_a_wrong_number_is_refused_although_so_few_may_go(many: Callable[..., Path]) -> None:
    directory = many(shop={"a": {"web": ["h0"] * 9}})
    assert said(directory) == said(directory, "") == said(directory, "1") == []
    assert [problem.code for problem in said(directory, "2")] == ["PN602"]


def test_once_recorded_no_number_is_needed_any_more(many: Callable[..., Path]) -> None:
    """Neither by a plain run, nor by the same command again, which finishes one that was interrupted."""
    directory = many(blog={})
    assert said(directory) != []
    recorded(directory)
    assert said(directory) == said(directory, "10") == []


def test_a_first_deploy_removes_nothing(written: Callable[..., Path], fleets: Any) -> None:
    directory = written({"hosts": fleets.hosts("h1")}, {"shop": fleets.project("shop", {"a": {"web": ["h1"]}})})
    assert said(directory) == []


# --- the accident -------------------------------------------------------------------------------------------


@pytest.fixture
def prod(tmp_path: Path) -> Path:
    shutil.copytree(PROD, tmp_path / "prod", ignore=shutil.ignore_patterns("privnet.lock.yaml"))
    return recorded(tmp_path / "prod")


def stopped(directory: Path) -> str:
    """The code with which a run ends before it contacts a host, or nothing when it would begin."""
    try:
        problems = said(directory)
    except DeclarationError as error:
        return error.problems[0].code
    return problems[0].code if problems else ""


def test_the_twin_nothing_stops_a_run_that_removes_nothing(prod: Path) -> None:
    assert stopped(prod) == ""


@pytest.mark.parametrize("name", ["shop", "analytics"])
def test_a_projects_file_that_was_emptied(prod: Path, name: str) -> None:
    path = prod / "projects" / f"{name}.yaml"
    for text in ("", "\n", "---\n", f"project: {name}\n", "# all of it is a comment\n"):
        path.write_text(text)
        assert stopped(prod) in ("PN110", "PN601"), text
    path.unlink()
    assert stopped(prod) == "PN601"


def test_a_glob_that_matched_nothing(prod: Path) -> None:
    for path in (prod / "projects").iterdir():
        path.unlink()
    assert stopped(prod) == "PN601"
    (prod / "projects").rmdir()
    assert stopped(prod) == "PN601"


def test_the_wrong_directory(prod: Path, tmp_path: Path) -> None:
    """One without a fleet, one of another fleet with this one's lock file, and projects of another one."""
    assert stopped(tmp_path) == "PN101"
    lock = prod / "privnet.lock.yaml"
    shutil.copytree(ROOT / "inventory" / "lab", tmp_path / "lab", ignore=shutil.ignore_patterns(lock.name))
    shutil.copyfile(lock, tmp_path / "lab" / lock.name)
    assert stopped(tmp_path / "lab") == "PN503"
    shutil.rmtree(prod / "projects")
    shutil.copytree(ROOT / "tests" / "errors" / "base" / "projects", prod / "projects")
    hosts = {"par-a-1", "par-a-2", "par-b-1"}
    assert hosts <= load_lock(prod, "prod").hosts.keys(), "the other projects fit on these hosts"
    assert stopped(prod) == "PN601"


def test_a_fleet_that_lost_its_hosts(prod: Path) -> None:
    text = (prod / "fleet.yaml").read_text()
    (prod / "fleet.yaml").write_text(text.partition("hosts:")[0] + "hosts:\n  par-a-1: {address: 192.0.2.11}\n")
    for path in (prod / "projects").iterdir():
        path.unlink()
    assert stopped(prod) == "PN601"


def cut(directory: Path, path: Path, text: bytes, what: str) -> str:
    """A cut-off file is refused, or what is left loses no network and no more than the guard lets go."""
    path.write_bytes(text)
    code = stopped(directory)
    if not code:
        found = removed(directory)
        share = compile_fleet(directory).declaration.fleet.policy.removal_guard
        assert (found.networks, found.emptied, found.hosts) == ((), (), ()), what
        assert sum(found.containers.values()) * 100 <= share * sum(found.had.values()), what
    return code


@pytest.mark.parametrize("guard", ["10%", "0%"])
def test_a_file_cut_off_at_every_line(prod: Path, guard: str) -> None:
    """A line less may be what somebody wants; with `removal_guard: 0%`, not even that goes unsaid."""
    fleet = prod / "fleet.yaml"
    fleet.write_text(fleet.read_text().replace("removal_guard: 10%", f"removal_guard: {guard}"))
    found = set()
    for path in sorted(prod.rglob("*.yaml")):
        if path.name == "privnet.lock.yaml":
            continue
        whole = path.read_bytes()
        lines = whole.splitlines(keepends=True)
        for count in range(len(lines)):
            found.add(cut(prod, path, b"".join(lines[:count]), f"{path.name} cut off after line {count}"))
        path.write_bytes(whole)
    assert {"PN601", "", "PN203"} <= found, "the cuts are not of every kind"


def test_a_file_cut_off_anywhere(prod: Path) -> None:
    rng = random.Random(seed := random.randrange(2**32))
    path = prod / "projects" / "shop.yaml"
    whole = path.read_bytes()
    for at in rng.sample(range(len(whole)), 60):
        cut(prod, path, whole[:at], f"cut off after {at} bytes (seed {seed})")


# --- hosts that are out of service --------------------------------------------------------------------------


@pytest.fixture
def serving(written: Callable[..., Path], fleets: Any) -> Callable[..., Path]:
    """Four hosts with a container each; called with those that are out, and where the containers are."""
    names = ["h1", "h2", "h3", "h4"]

    def declare(*out: str, web: Any = names, hosts: list[str] = names) -> Path:
        given = fleets.hosts(*hosts)
        declared = {name: host | ({"state": "out"} if name in out else {}) for name, host in given.items()}
        return written({"hosts": declared}, {"shop": fleets.project("shop", {"a": {"web": web}})})

    recorded(declare())
    return declare


def test_one_host_of_a_fleet_goes_out_without_a_number(serving: Callable[..., Path]) -> None:
    """It is 25% of this one, and nobody writes `state: out` by mistake; its return takes nothing away, either."""
    directory = serving("h2")
    assert said(directory) == [] and removed(directory).number == 0
    recorded(directory)
    assert said(serving()) == []


def test_a_second_host_that_goes_out_is_told(serving: Callable[..., Path], fleets: Any) -> None:
    """Together with the first, or a run later."""
    (problem,) = said(serving("h2", "h3"))
    assert problem.code == "PN601"
    assert problem.message.endswith(", and takes 2 of 4 containers and 2 of 4 hosts out of service")
    assert "50% of the containers and 50% of the hosts would be gone or out of service" in problem.note
    assert "hosts h2, h3 out of service" in problem.note and "--allow-removals 4" in problem.help
    assert said(serving("h2", "h3"), "4") == []
    recorded(serving("h2"))
    (problem,) = said(serving("h2", "h3"))
    assert "50% of the hosts" in problem.note and "host h3 out of service" in problem.note
    assert "if that is not meant, delete `state: out`" in problem.help and "--allow-removals 2" in problem.help
    recorded(serving("h2", "h3"))
    assert said(serving("h2", "h3")) == [], "once recorded it is not counted again"


def test_containers_that_are_placed_on_a_host_that_is_out_are_counted(serving: Callable[..., Path]) -> None:
    """It is out alone, and what goes there stops all the same."""
    (problem,) = said(serving("h2", web=["h2"] * 4))
    assert "all containers of 1 private network" in problem.note
    assert "3 of 4 containers of network" in problem.note and "--allow-removals 3" in problem.help
    recorded(serving("h2"))
    assert removed(serving("h2", web=["h1", "h2", "h1", "h4"])).number == 0, "it has moved between hosts in service"
    assert sum(removed(serving("h2", web=["h1", "h2", "h2", "h4"])).stopped.values()) == 1


def test_what_was_on_a_host_that_is_out_is_counted_when_it_goes(serving: Callable[..., Path]) -> None:
    """The state is no way round the guard."""
    recorded(serving("h2"))
    found = removed(serving(web=["h1", "h3", "h4"], hosts=["h1", "h3", "h4"]))
    assert (found.hosts, sum(found.containers.values()), found.number) == (("h2",), 1, 2)
    assert said(serving(web=["h1", "h3", "h4"], hosts=["h1", "h3", "h4"])) != []


def test_a_move_away_from_it_is_no_removal(serving: Callable[..., Path]) -> None:
    assert removed(serving("h2", web=["h1", "h1", "h3", "h4"])).number == 0


# --- who is asked for it ------------------------------------------------------------------------------------


def test_the_name_of_a_network_is_enough_when_nothing_else_goes(many: Callable[..., Path], fleets: Any) -> None:
    directory = many()
    (directory / "projects" / "blog.yaml").unlink()
    found, blog = removed(directory), fleets.network("blog")["id"]
    assert removal.question(found) == (
        "Type 11, the number of all that goes, or blog, the project of the network, to deploy this"
    )
    assert [removal.agrees(found, typed) for typed in ("11", " blog ", blog)] == [True] * 3
    assert not any(removal.agrees(found, typed) for typed in ("", "10", "y", "shop", "BLOG"))
    emptied = removed(many(blog={"b": {"web": []}}))
    assert removal.agrees(emptied, "blog") and removal.agrees(emptied, "10")


def test_of_more_than_one_network_or_a_part_of_one_it_is_the_number(many: Callable[..., Path]) -> None:
    web = [f"h{number}" for number in range(7)]
    part = removed(many(shop={"a": {"web": web}}))
    assert removal.question(part) == "Type 3, the number of all that goes, to deploy this"
    assert not removal.agrees(part, "shop") and removal.agrees(part, "3")
    hosts = [f"h{number}" for number in range(9)]
    both = removed(many(shop={"a": {"web": []}}, blog={"b": {"web": [*hosts, "h0"]}}, hosts=hosts))
    assert both.hosts == ("h9",) and not removal.agrees(both, "shop") and removal.agrees(both, "11")
