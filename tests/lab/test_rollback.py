"""A change that is not confirmed is taken back by the host itself: nobody else is needed, and a boot does it too."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kernel import difference, dump
from runs import DEPLOY, PYINFRA, deploy, edit, replace_once

from privnet.lab import Lab

SECONDS = 15


@pytest.fixture(scope="module")
def lab(fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]) -> Lab:
    inventory = inventory_copy("lab")
    replace_once(inventory / "fleet.yaml", "policy:\n", f"policy:\n  rollback: {SECONDS}s\n")
    lab = fleet(inventory)
    deploy(lab)
    return lab


def killed_at(lab: Lab, stage: str) -> str:
    """A run whose control machine dies when ``stage`` begins; what it had printed."""
    environment = {**os.environ, "PRIVNET_LAB": lab.name, "PYINFRA_PROGRESS": "off", "PYTHONUNBUFFERED": "1"}
    command = [str(PYINFRA), "-y", str(lab.inventory.with_suffix(".py")), str(DEPLOY)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, stdin=subprocess.DEVNULL
    ) as process:
        printed = ""
        for line in process.stdout or ():
            printed += line
            if f"| {stage}" in line:
                process.send_signal(signal.SIGKILL)
                break
    assert f"| {stage}" in printed, printed
    return printed


def until_rested(lab: Lab) -> None:
    """Wait until no host has anything to take back any more."""
    deadline = time.monotonic() + SECONDS + 30
    while any(line.startswith("left: ") for lines in dump(lab).values() for line in lines):
        assert time.monotonic() < deadline, "a host has not put itself back"
        time.sleep(1)


def change(lab: Lab) -> None:
    """A container moves, an application comes, another goes."""
    edit(lab, "shop", "web: [lab-1, lab-2]", "web: [lab-1, lab-3]")
    edit(lab, "blog", "worker: [lab-3]", "worker: [lab-2, lab-3]\n      cron: [lab-2]")


def undo(lab: Lab) -> None:
    edit(lab, "shop", "web: [lab-1, lab-3]", "web: [lab-1, lab-2]")
    edit(lab, "blog", "worker: [lab-2, lab-3]\n      cron: [lab-2]", "worker: [lab-3]")


# The run is killed when a stage begins, so what came before it is done and not confirmed.
STAGES = {"after what is new was added": "switch what has moved", "after the switch": "retire what is gone", "at its end": "confirm"}


@pytest.mark.parametrize("when", STAGES)
def test_the_control_machine_dies(lab: Lab, when: str) -> None:
    before = dump(lab)
    change(lab)
    killed_at(lab, STAGES[when])
    during = dump(lab)
    # The twin: something was changed, and the hosts know that it is not confirmed.
    assert any(line == "left: /var/lib/privnet/armed" for lines in during.values() for line in lines)
    assert difference(before, {h: [line for line in lines if not line.startswith("left: ")] for h, lines in during.items()})
    until_rested(lab)
    after = dump(lab)
    if when == "after what is new was added":
        assert difference(before, after) == ""
    else:
        # An earlier wave was confirmed by the next one: the hosts are back at its end, where old and new both work.
        assert {host for host in after if after[host] != before[host]} <= set(lab.hosts)
    deploy(lab)
    done = deploy(lab)
    assert done.changed == {}
    assert not any(line.startswith("left: ") for lines in dump(lab).values() for line in lines)
    undo(lab)
    deploy(lab)
    assert difference(before, dump(lab)) == ""


def test_the_same_operator_need_not_wait(lab: Lab) -> None:
    before = dump(lab)
    change(lab)
    killed_at(lab, "retire what is gone")
    done = deploy(lab)
    assert done.changed["confirm"]
    assert deploy(lab).changed == {}
    undo(lab)
    deploy(lab)
    assert difference(before, dump(lab)) == ""


def test_a_boot_takes_it_back(lab: Lab) -> None:
    before = dump(lab)
    change(lab)
    killed_at(lab, "switch what has moved")
    lab.kill("lab-2")
    lab.start("lab-2")
    until_rested(lab)
    assert difference(before, dump(lab)) == ""
    undo(lab)
    deploy(lab)


def test_a_host_that_the_change_itself_cuts_off_comes_back(lab: Lab) -> None:
    """The mesh's prefix is moved over the operator's address: answers to it go nowhere from then on."""
    before = dump(lab)
    operator = str(lab.underlay.operator[0])
    prefix = f"{operator.rpartition('.')[0]}.{int(operator.rpartition('.')[2]) & ~7}/29"
    lock = lab.inventory / "privnet.lock.yaml"
    kept, fleet = lock.read_bytes(), (lab.inventory / "fleet.yaml").read_text()
    (lab.inventory / "fleet.yaml").write_text(fleet + f"\nwireguard: {{mesh: {prefix}}}\n")
    cut = deploy(lab, check=False)
    assert cut.code != 0
    assert "cannot be reached over a new connection" in cut.output or "Error" in cut.output
    until_rested(lab)
    assert difference(before, dump(lab)) == ""
    (lab.inventory / "fleet.yaml").write_text(fleet)
    deploy(lab)
    assert kept
    assert difference(before, dump(lab)) == ""
    assert deploy(lab).changed == {}


def test_another_operator_is_told_and_changes_nothing(lab: Lab) -> None:
    """A lease that a run from another machine holds, seen by a run from this one."""
    before = dump(lab)
    lab.exec(
        "lab-1",
        "mkdir -p /run/privnet/lease && cd /run/privnet/lease && echo other-run > run && echo alice@desk > owner"
        " && echo elsewhere > token && echo 180 > seconds && date +%s > since",
    )
    edit(lab, "blog", "worker: [lab-3]", "worker: [lab-1, lab-3]")
    refused = deploy(lab, check=False)
    assert refused.code != 0
    assert "run other-run of alice@desk has it since" in refused.output
    assert "--break-lease other-run" in refused.output
    lab.exec("lab-1", "rm -r /run/privnet/lease")
    assert difference(before, dump(lab)) == ""
    deploy(lab)
    edit(lab, "blog", "worker: [lab-1, lab-3]", "worker: [lab-3]")
    deploy(lab)
    assert difference(before, dump(lab)) == ""


def test_a_damaged_lease_is_held(lab: Lab) -> None:
    lab.exec("lab-1", "mkdir -p /run/privnet/lease")
    edit(lab, "blog", "worker: [lab-3]", "worker: [lab-1, lab-3]")
    refused = deploy(lab, check=False)
    assert "its lease is damaged, so it counts as held" in refused.output
    lab.exec("lab-1", "rm -r /run/privnet/lease")
    edit(lab, "blog", "worker: [lab-1, lab-3]", "worker: [lab-3]")
    deploy(lab)


def test_an_older_copy_of_the_lock_file_is_refused(lab: Lab) -> None:
    lock = lab.inventory / "privnet.lock.yaml"
    old = lock.read_bytes()
    edit(lab, "blog", "worker: [lab-3]", "worker: [lab-1, lab-3]")
    deploy(lab)
    new = lock.read_bytes()
    before = dump(lab)
    for copy in (old, None):
        lock.unlink()
        if copy is not None:
            lock.write_bytes(copy)
        refused = deploy(lab, check=False)
        assert refused.code != 0
        assert "PN509: nothing is changed: lab-" in refused.output
        assert difference(before, dump(lab)) == ""
    lock.write_bytes(new)
    edit(lab, "blog", "worker: [lab-1, lab-3]", "worker: [lab-3]")
    deploy(lab)


def test_a_container_stays_where_it_is_while_its_new_host_does_not_answer(lab: Lab) -> None:
    before = dump(lab)
    lab.kill("lab-3")
    edit(lab, "shop", "web: [lab-1, lab-2]", "web: [lab-1, lab-3]")
    waits = deploy(lab, check=False)
    assert waits.code != 0  # lab-3 does not answer
    assert "2.web.ap-a71da13f-7c70-4c00-a644-eee8558d8053 in pn-" in waits.output
    assert "goes to lab-3, which is not ready" in waits.output
    assert "netns 2.web.ap-a71da13f-7c70-4c00-a644-eee8558d8053" in dump(lab, "lab-2")["lab-2"]
    lab.start("lab-3")
    deploy(lab)
    assert "netns 2.web.ap-a71da13f-7c70-4c00-a644-eee8558d8053" not in dump(lab, "lab-2")["lab-2"]
    assert deploy(lab).changed == {}
    edit(lab, "shop", "web: [lab-1, lab-3]", "web: [lab-1, lab-2]")
    deploy(lab)
    assert difference(before, dump(lab)) == ""
