"""Cost grows with the number of containers and not with its square. Ratios only: seconds are the machine's."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from privnet.compiler import compile_fleet, render_fleet
from privnet.plan.host import Plan

from .compile import NOW, lock_fleet
from .fleets import write_fleet

SMALL, LARGE = 40, 160
"""Hosts and networks; ten containers a network. Four times as many."""

ROOM = 2.0
"""n log n would be 4 × 1.3; the rest is caches and noise. n² would be 16."""


def seconds(work: Callable[[], object], times: int = 3) -> float:
    """CPU time of the fastest of some runs: noise only adds."""
    spent = []
    for _ in range(times):
        gc.collect()
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return min(spent)


def compiled(directory: Path) -> Plan:
    plan = compile_fleet(directory, NOW).plan
    render_fleet(plan)
    return plan


@pytest.fixture(scope="module", params=["listed", "spread", "locked"])
def fleets(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The small and the large fleet."""
    folder = tmp_path_factory.mktemp("fleets")
    for size in (SMALL, LARGE):
        write_fleet(folder / str(size), size, size, size * 10, spread=request.param == "spread")
        if request.param == "locked":
            lock_fleet(folder / str(size))
    return folder / str(SMALL), folder / str(LARGE)


def test_four_times_the_fleet_takes_about_four_times_as_long(fleets: tuple[Path, Path]) -> None:
    small, large = (seconds(lambda directory=directory: compiled(directory)) for directory in fleets)
    assert large / small < LARGE / SMALL * ROOM


def test_a_measure_of_growth_sees_a_square() -> None:
    """The twin: comparing each with each."""
    small, large = (seconds(lambda size=size: [a < b for a in range(size) for b in range(size)]) for size in (200, 800))
    assert large / small > LARGE / SMALL * ROOM


def test_a_compile_costs_little_more_than_reading(tmp_path: Path) -> None:
    """In units of this machine: how long `json.loads` takes for the bytes that are read and written."""
    write_fleet(tmp_path / "fleet", LARGE, LARGE, LARGE * 10)
    plan = compiled(tmp_path / "fleet")
    texts = {path: path.read_text() for path in (tmp_path / "fleet").rglob("*.yaml")}
    written = [file.text for files in render_fleet(plan).values() for file in files]
    data = json.dumps([*texts.values(), *written])
    unit = seconds(lambda: json.loads(data))
    assert seconds(lambda: compiled(tmp_path / "fleet")) / unit < 20


def test_counts_of_what_is_written_grow_with_membership(tmp_path: Path) -> None:
    """Exact: with ten hosts a network, four times the networks on four times the hosts is four times the files."""
    counts = []
    for size in (SMALL, LARGE):
        write_fleet(tmp_path / str(size), size, size, size * 10)
        files = render_fleet(compile_fleet(tmp_path / str(size), NOW).plan)
        counts.append(sum(len(own) for own in files.values()))
    assert counts[1] == counts[0] * LARGE // SMALL


def test_the_generator_gives_the_same_bytes_and_what_was_asked(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_fleet(tmp_path / name, 30, 20, 205)
    first, second = ({path.name: path.read_text() for path in (tmp_path / n).rglob("*.yaml")} for n in ("one", "two"))
    assert first == second
    plan = compile_fleet(tmp_path / "one", NOW).plan
    assert (len(plan.hosts), len(plan.networks)) == (30, 20)
    assert sum(len(network.containers) for network in plan.networks.values()) == 205


def test_an_edit_changes_no_byte_of_a_host_that_it_does_not_concern(tmp_path: Path) -> None:
    write_fleet(tmp_path / "fleet", LARGE, LARGE, LARGE * 10)
    lock_fleet(tmp_path / "fleet")
    before = render_fleet(compile_fleet(tmp_path / "fleet", NOW).plan)
    project = tmp_path / "fleet" / "projects" / "project-7.yaml"
    text = project.read_text()
    concerned = {host for host in before if f"{host}," in text or f"{host}]" in text}
    project.write_text(text.replace("web: [", "web: [host-150, ", 1))
    after = render_fleet(compile_fleet(tmp_path / "fleet", NOW).plan)
    changed = {host for host in before if before[host] != after[host]}
    assert changed == concerned | {"host-150"}
    assert len(changed) <= 11
