"""Hosts that a run has left waiting keep the change when a person confirms it, and roll back otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kernel import difference, dump, until_rested
from runs import assert_reachable, deploy, edit, replace_once
from test_live_plan import privnet

from privnet.lab import Lab


@pytest.fixture(scope="module")
def lab(fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]) -> Lab:
    inventory = inventory_copy("lab")
    replace_once(inventory / "fleet.yaml", "policy:\n", "policy:\n  rollback: 30s\n")
    lab = fleet(inventory)
    deploy(lab)
    return lab


@pytest.fixture(autouse=True)
def back_to_the_start(lab: Lab) -> Iterator[None]:
    before = {path: path.read_text() for path in lab.inventory.rglob("*.yaml") if "lock" not in path.name}
    yield
    for path, text in before.items():
        path.write_text(text)
    deploy(lab, allow=True)


def change(lab: Lab) -> None:
    """All waves have something to do: a container moves, another comes, and one goes."""
    edit(lab, "shop", "web: [lab-1, lab-2]", "web: [lab-1, lab-3]")
    edit(lab, "blog", "worker: [lab-3]", "worker: [lab-2]\n      cron: [lab-1, lab-3]")


def test_it_is_undone(lab: Lab) -> None:
    before = dump(lab)
    change(lab)
    said = privnet(lab, "deploy", "-y", "--confirm-within", "20m")
    assert "HELD: 3 hosts changed, for 1200 s (until " in said and "DONE" not in said
    assert difference(before, dump(lab))
    # Nobody comes between: neither a run, nor a plan that does not say so.
    assert "waits on lab-" in privnet(lab, "deploy", "-y", code=75)
    assert "A run would stop: nothing is changed: run " in privnet(lab, "plan", "--live")
    assert "UNDONE: 3 hosts as before the change" in privnet(lab, "undo")
    assert difference(before, dump(lab)) == ""
    assert "no host waits for it" in privnet(lab, "undo", code=1)


def test_it_is_confirmed(lab: Lab) -> None:
    change(lab)
    privnet(lab, "deploy", "-y", "--confirm-within", "20m")
    assert "CONFIRMED: 3 hosts keep what was changed" in privnet(lab, "confirm")
    assert not any(line.startswith("left: ") for lines in dump(lab).values() for line in lines)
    assert_reachable(lab)
    assert "DONE: 3 hosts as planned" in privnet(lab, "deploy", "-y")
    assert "not finished" not in privnet(lab, "plan")


def test_nobody_says_anything(lab: Lab) -> None:
    before = dump(lab)
    change(lab)
    privnet(lab, "deploy", "-y", "--confirm-within", "30s")
    until_rested(lab, within=30 + 60)
    assert difference(before, dump(lab)) == ""
    assert "no host waits for it" in privnet(lab, "confirm", code=1)
