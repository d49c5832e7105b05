"""The lock file that a run has read against the one that is there once it has this machine's lock."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from privnet.compiler import compile_fleet
from privnet.deploy.run import Run
from privnet.plan.host import plan_fleet
from privnet.store import load_lock, lock_path, save_lock

LAB = Path(__file__).parents[3] / "inventory" / "lab"
AP = "ap-a71da13f-7c70-4c00-a644-000000000001"


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    shutil.copytree(LAB, tmp_path / "lab", ignore=shutil.ignore_patterns(".*"))
    save_lock(tmp_path / "lab", compile_fleet(tmp_path / "lab").lock)
    return tmp_path / "lab"


def held(run: Run) -> str | None:
    run.hold()
    if run.under_way is not None:
        os.close(run.under_way)
    return run.stopped


def begun(fleet: Path) -> Run:
    compiled = compile_fleet(fleet)
    return Run(fleet, compiled, compiled.known, compiled.lock, plan_fleet(compiled.declaration, compiled.lock))


def test_a_lock_file_that_stays_is_gone_on_with(fleet: Path) -> None:
    assert held(begun(fleet)) is None


def test_a_run_that_ended_in_between(fleet: Path) -> None:
    run = begun(fleet)
    save_lock(fleet, replace(load_lock(fleet, "lab"), applications={AP: "shop"}))
    said = held(run)
    assert said == (
        "nothing is changed: since this run began, the lock file has changed: it has serial 2, this run began with 1. "
        "Run again"
    )


def test_another_branch_that_was_checked_out_in_between(fleet: Path) -> None:
    before = lock_path(fleet).read_bytes()
    save_lock(fleet, replace(load_lock(fleet, "lab"), applications={AP: "theirs"}))
    theirs = lock_path(fleet).read_bytes()
    lock_path(fleet).write_bytes(before)
    save_lock(fleet, replace(load_lock(fleet, "lab"), applications={AP: "ours"}))
    run = begun(fleet)
    lock_path(fleet).write_bytes(theirs)
    said = held(run)
    assert said is not None and "another one has serial 2 now too, as two branches have" in said
