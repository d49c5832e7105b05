"""Two runs at once, from one machine and from two: one proceeds, the other is told who is at work; nothing is mixed.

The second machine is a mount namespace with a copy of the fleet's directory in the same place, and its own machine-id.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "lab")]

from kernel import difference, dump, until_rested  # noqa: E402
from runs import DEPLOY, PYINFRA, deploy, project, replace_once  # noqa: E402

from privnet.check import removal  # noqa: E402
from privnet.compiler import compile_fleet  # noqa: E402
from privnet.deploy.outcome import VARIABLE  # noqa: E402
from privnet.lab import Lab  # noqa: E402
from privnet.load import LOCK_FILE  # noqa: E402

SEED = int(os.environ["PRIVNET_FAULT_SEED"])
SAME_MACHINE, TWO_MACHINES, DIFFERENT = (10, 5, 10) if "PRIVNET_FAULTS" in os.environ else (2, 1, 1)
"""Rounds."""
PLACES = ("[lab-1, lab-2]", "[lab-1, lab-2, lab-3]")
"""Of blog's ``web``: what rounds on one machine go to and fro between."""
TOLD = r"run \S+ (of \S+@\S+ has it since \d+ s|has changed it since)|PN509: nothing is changed"
UNDER_WAY = re.compile(r"nothing is changed: run [0-9TZ]+-[0-9a-f]{6} of \S+@\S+, process \d+,.* is under way")


@pytest.fixture(scope="module")
def lab(shared_fleet: Callable[[str], Lab]) -> Lab:
    return shared_fleet("lab")


@dataclass
class Run:
    """One of two runs."""

    process: subprocess.Popen[str]
    notes: Path
    output: str = ""

    @classmethod
    def begin(cls, lab: Lab, machine: Path | None = None) -> Run:
        """Start it; ``machine``: the other one's files."""
        notes = lab.inventory.parent / f"outcome-{'here' if machine is None else 'there'}.json"
        environment = {**os.environ, "PRIVNET_LAB": lab.name, "PYINFRA_PROGRESS": "off", VARIABLE: str(notes)}
        fleet = compile_fleet(lab.inventory if machine is None else machine / "fleet")
        environment[removal.ALLOW] = str(removal.removals(fleet.known, fleet.lock).number)
        command = [str(PYINFRA), "-y", str(lab.inventory.with_suffix(".py")), str(DEPLOY)]
        if machine is not None:
            command = [*_as(machine, lab), *command]
        return cls(
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment,
                cwd="/",
            ),
            notes,
        )

    def end(self) -> Run:
        """Wait for it."""
        self.output = self.process.communicate(timeout=120)[0]
        return self

    @property
    def code(self) -> int:
        return self.process.returncode

    @property
    def outcome(self) -> dict[str, Any]:
        """What it wrote down of itself and each host."""
        found: dict[str, Any] = json.loads(self.notes.read_text())
        return found


def _as(machine: Path, lab: Lab) -> list[str]:
    """Begin a command on the other machine."""
    enter = 'mount --bind "$0/machine-id" /etc/machine-id && mount --bind "$0/fleet" "$1" && shift && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", enter, str(machine), str(lab.inventory)]


def test_two_runs_of_one_machine(lab: Lab) -> None:
    blog = lab.inventory / "projects" / "blog.yaml"
    draw = random.Random(SEED)
    known: dict[str, dict[str, list[str]]] = {}
    for number in range(SAME_MACHINE):
        old, new = PLACES[number % 2], PLACES[(number + 1) % 2]
        replace_once(blog, f"web: {old}", f"web: {new}")
        first = Run.begin(lab)
        time.sleep(draw.uniform(0, 0.05))
        both = [first, Run.begin(lab)]
        for run in both:
            run.end()
        what = f"seed {SEED}, round {number}: " + "\n".join(run.output for run in both)
        assert sorted(run.code for run in both) == [0, 1], what
        refused = next(run for run in both if run.code)
        assert UNDER_WAY.search(refused.output), what
        assert known.setdefault(new, dump(lab)) == dump(lab), what
    assert deploy(lab).changed == {}


def test_two_runs_of_two_machines(lab: Lab, tmp_path: Path) -> None:
    """Both want to change every host, each in its own way."""
    deploy(lab)
    draw = random.Random(SEED)
    machine = _other_machine(tmp_path)
    worker = "worker: [lab-3]"
    wanted = ("worker: [lab-1, lab-2, lab-3]", "worker: [lab-3]\n      cron: [lab-1, lab-2, lab-3]")
    known: dict[int, dict[str, list[str]]] = {}
    for number in range(TWO_MACHINES):
        _copy_fleet(lab, machine)
        places = (lab.inventory, machine / "fleet")
        for place, want in zip(places, wanted, strict=True):
            replace_once(place / "projects" / "blog.yaml", worker, want)
        order = draw.choice([(None, machine), (machine, None)])
        begun = {}
        for which in order:
            begun[which] = Run.begin(lab, which)
            time.sleep(draw.uniform(0, 0.5))
        both = [begun[None].end(), begun[machine].end()]
        what = f"seed {SEED}, round {number}: " + "\n----\n".join(run.output for run in both)
        assert sorted(run.code for run in both) == [0, 1], what
        winner = 0 if both[0].code == 0 else 1
        loser = both[1 - winner].output
        told = re.search(TOLD, loser)
        assert told, what
        found = dump(lab)
        assert known.setdefault(winner, found) == found, what
        # Who came too late has numbers of its own in its copy, and is refused until it has the other's.
        late = Run.begin(lab, None if winner else machine).end()
        assert late.code == 1, late.output
        assert "PN509: nothing is changed" in late.output
        assert dump(lab) == found
        shutil.copy(places[winner] / LOCK_FILE, places[1 - winner] / LOCK_FILE)
        late = Run.begin(lab, None if winner else machine).end()
        assert late.code == 0, late.output
        # The next round begins where this one did.
        if winner == 0:
            shutil.copy(machine / "fleet" / LOCK_FILE, lab.inventory / LOCK_FILE)
        replace_once(lab.inventory / "projects" / "blog.yaml", wanted[0], worker)
        deploy(lab, allow=True)


def test_two_runs_that_begin_on_different_hosts(lab: Lab, tmp_path: Path) -> None:
    """Each wants two hosts, and one of them is the same. No two hosts end up with numbers of different operators."""
    _wait_at_most(lab, 15)
    before = dump(lab)
    draw = random.Random(SEED)
    machine = _other_machine(tmp_path)
    for number in range(DIFFERENT):
        _copy_fleet(lab, machine)
        places = (lab.inventory, machine / "fleet")
        new = [place / "projects" / f"{name}.yaml" for place, name in zip(places, ("left", "right"), strict=True)]
        new[0].write_text(project("left", 1, "[lab-1, lab-2]"))
        new[1].write_text(project("right", 2, "[lab-2, lab-3]"))
        first = Run.begin(lab, (None, machine)[number % 2])
        time.sleep(draw.uniform(0, 0.3))
        both = [first, Run.begin(lab, (machine, None)[number % 2])]
        both = [run.end() for run in both][:: -1 if number % 2 else 1]
        what = f"seed {SEED}, round {number}: " + "\n----\n".join(run.output for run in both)
        print(f"seed {SEED}, round {number}: {[run.code for run in both]}")
        assert sorted(run.code for run in both) == [0, 1], what
        for run in both:
            assert run.code == 0 or re.search(TOLD, run.output), what
        until_rested(lab, within=60)
        applied = {tuple(lab.exec(host, "cat /etc/privnet/applied").stdout.split()[:2]) for host in lab.hosts}
        highest = max(applied, key=lambda found: int(found[0]))
        assert len([found for found in applied if found[0] == highest[0]]) == 1, f"{applied}\n{what}"
        # Who has won has all. The other takes the lock file, and goes on.
        if (winner := places[[run.code for run in both].index(0)]) != lab.inventory:
            shutil.copy(winner / LOCK_FILE, lab.inventory / LOCK_FILE)
        new[0].unlink()
        last = deploy(lab, allow=True)
        assert last.code == 0 and dump(lab) == before, last.output


@pytest.mark.parametrize("sleeps", [False, True], ids=["both at work", "who began later sleeps"])
def test_two_runs_that_have_a_host_of_each_other(lab: Lab, tmp_path: Path, sleeps: bool) -> None:
    """Both want lab-2 and lab-3, and each has come first to one of them: one goes on, and nothing of the other stays.

    It is the one that began earlier; when the other does not withdraw in time, it is that one.
    """
    # Half of it the earlier run tries again; in the other half the one that was asleep has to go on.
    _wait_at_most(lab, 60 if sleeps else 30)
    before = dump(lab)
    machine = _other_machine(tmp_path)
    _copy_fleet(lab, machine)
    here, there = lab.inventory / "projects" / "left.yaml", machine / "fleet" / "projects" / "right.yaml"
    here.write_text(project("left", 1, "[lab-1, lab-2, lab-3]"))
    there.write_text(project("right", 2, "[lab-2, lab-3]"))
    begun: dict[Path | None, Run] = {}
    try:
        for place in (None, machine) if sleeps else (machine, None):
            begun[place] = Run.begin(lab, place)
            _hold(begun[place], place / "fleet" if place else lab.inventory)
        earlier, later = begun.values()
        mine, other = begun[None], begun[machine]
        assert earlier.outcome["run"] < later.outcome["run"]
        _until_it_has(lab, "lab-2", other)
        _until_it_has(lab, "lab-3", mine)
        goes, stops = (later, earlier) if sleeps else (earlier, later)
        for run in (earlier,) if sleeps else (earlier, later):
            run.process.send_signal(signal.SIGCONT)
        stops.end()
        if sleeps:
            # Nobody goes on yet: what the host says itself, long before its time is up.
            assert difference({"lab-3": before["lab-3"]}, dump(lab, "lab-3")) == ""
        later.process.send_signal(signal.SIGCONT)
        goes.end()
    finally:
        for run in begun.values():
            run.process.kill()
    what = "\n----\n".join(run.output for run in (goes, stops))

    assert [goes.code, stops.code] == [0, 1], what
    stopped = stops.outcome["stopped"]
    begun = r"another run is at work, so what this one has begun is taken back: lab-[23]: "
    held = rf"run {goes.outcome['run']} of \S+ has it since \d+ s\. "
    assert stopped["kind"] == "locked" and re.match(begun + held, stopped["why"]), what
    met, had = ("lab-2", "lab-3") if stops is mine else ("lab-3", "lab-2")
    hosts = stops.outcome["hosts"]
    assert "changed" not in {host["state"] for host in hosts.values()}, what
    assert (hosts[met]["state"], hosts[had]["state"]) == ("failed", "pending"), what
    assert hosts[had]["why"].startswith("it is as it was before: another run is at work, so"), what
    # Who was first has all, as if it had been alone; the other takes its lock file and goes on.
    winner = lab.inventory if goes is mine else machine / "fleet"
    again = Run.begin(lab, None if goes is mine else machine).end()
    states = {host["state"] for host in again.outcome["hosts"].values()}
    assert (again.code, states) == (0, {"unchanged"}), again.output
    if goes is other:
        shutil.copy(winner / LOCK_FILE, lab.inventory / LOCK_FILE)
    here.unlink()
    last = deploy(lab, allow=True)
    assert last.code == 0 and dump(lab) == before, last.output


def _other_machine(tmp_path: Path) -> Path:
    machine = tmp_path / "other"
    machine.mkdir()
    (machine / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    return machine


def _copy_fleet(lab: Lab, machine: Path) -> None:
    shutil.rmtree(machine / "fleet", ignore_errors=True)
    shutil.copytree(lab.inventory, machine / "fleet", ignore=shutil.ignore_patterns(".privnet"))


def _wait_at_most(lab: Lab, seconds: int) -> None:
    """For a confirmation."""
    path = lab.inventory / "fleet.yaml"
    text = re.sub(r"  rollback: \d+s\n", "", path.read_text())
    path.write_text(text.replace("policy:\n", f"policy:\n  rollback: {seconds}s\n", 1))
    deploy(lab)


def _hold(run: Run, place: Path) -> None:
    """Stop a run as soon as it has written its lock file: it has asked all hosts then, and changed none."""
    path = place / LOCK_FILE
    old = path.stat().st_ino
    while path.stat().st_ino == old:
        assert run.process.poll() is None, run.end().output
        # What comes next takes a hundred times as long.
        time.sleep(0.001)
    run.process.send_signal(signal.SIGSTOP)


def _until_it_has(lab: Lab, host: str, run: Run) -> None:
    """Let a run go on until it has come to a host, which nobody has."""
    lease = "test -e /run/privnet/lease"
    assert lab.exec(host, lease, check=False).returncode != 0
    run.process.send_signal(signal.SIGCONT)
    while lab.exec(host, lease, check=False).returncode != 0:
        assert run.process.poll() is None, run.end().output
    run.process.send_signal(signal.SIGSTOP)
