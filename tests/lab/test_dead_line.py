"""The line to a host dies without a FIN: the operator notices, the host rolls back, nobody else waits for long."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from line import dead
from person import PRIVNET, Person
from runs import replace_once

from privnet.lab import Lab

SECONDS = 60
"""A program is given up after twice as long; the kernel gives up a line that says nothing after half a minute."""
HOST = "lab-2"
ARMED = "until [ -e /var/lib/privnet/armed ]; do sleep 0.05; done"
RESTED = "until [ ! -e /var/lib/privnet/armed ]; do sleep 0.2; done"


@pytest.fixture(scope="module")
def lab(fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]) -> Lab:
    inventory = inventory_copy("lab")
    replace_once(inventory / "fleet.yaml", "policy:\n", f"policy:\n  rollback: {SECONDS}s\n")
    return fleet(inventory)


@pytest.fixture(scope="module")
def person(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Person:
    found = Person(lab, tmp_path_factory.mktemp("person"))
    found.done("deploy", "INVENTORY", "-y")
    return found


def test_a_line_that_dies_while_a_program_is_at_work(person: Person, lab: Lab) -> None:
    """The kernel says that nobody answers: the time that a program may take is not waited for."""
    # Its program waits for a unit that does not end.
    hold = "/run/systemd/system/privnet-container@.service.d/zz-slow.conf"
    slow = f"mkdir -p {Path(hold).parent}; printf '[Service]\\nExecStartPost=/bin/sleep 45\\n' > {hold}"
    lab.exec(HOST, f"{slow}; systemctl daemon-reload")
    blog = person.inventory / "projects" / "blog.yaml"
    before = blog.read_text()
    blog.write_text(before.replace("worker: [lab-3]", f"worker: [lab-3, {HOST}]"))
    command = person.argv([str(PRIVNET), "deploy", str(person.inventory), "-y"])
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=person.inventory.parent,
        env=person.environment({}),
    ) as run:
        lab.exec(HOST, ARMED, timeout=120)
        with dead(lab, HOST):
            said = run.communicate(timeout=400)[0]
            lab.exec(HOST, RESTED, timeout=4 * SECONDS)
    lab.exec(HOST, f"rm {hold}; systemctl daemon-reload")
    assert run.returncode == 1, said
    (failed,) = [line for line in said.splitlines() if line.startswith(f"  {HOST}  failed: ")]
    assert "the connection was lost" in failed and "it does not say how it has ended" not in failed, failed
    assert "DONE: 3 hosts as planned" in person.done("deploy", "INVENTORY", "-y")
    blog.write_text(before)
    person.done("deploy", "INVENTORY", "-y", "--allow-removals", "1")
