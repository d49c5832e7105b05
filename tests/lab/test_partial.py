"""Hosts that do not answer, hang, or cannot: the others go on, and a later plain run finishes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kernel import difference, dump
from runs import DEPLOY, PYINFRA, WATCHED, deploy, edit, inside, replace_once

from privnet.lab import Lab


@pytest.fixture(scope="module")
def lab(fleet: Callable[..., Lab], inventory_copy: Callable[[str], Path]) -> Lab:
    inventory = inventory_copy("lab")
    replace_once(inventory / "fleet.yaml", "policy:\n", "policy:\n  rollback: 15s\n")
    lab = fleet(inventory, bare=("lab-2",))  # a host that can get packages
    deploy(lab)
    return lab


@pytest.fixture(autouse=True)
def back_to_the_start(lab: Lab) -> Iterator[None]:
    """Each test begins with the fleet as declared, and a later plain run finishes what the test left undone."""
    before = dump(lab)
    blog = lab.inventory / "projects" / "blog.yaml"
    text = blog.read_text()
    yield
    after = deploy(lab)
    assert after.code == 0
    assert deploy(lab).changed == {}
    blog.write_text(text)
    deploy(lab)
    assert difference(before, dump(lab)) == ""


def change(lab: Lab) -> None:
    """One container more on each host."""
    edit(lab, "blog", "worker: [lab-3]", "worker: [lab-3]\n      cron: [lab-1, lab-2, lab-3]")


def run(lab: Lab, tmp_path: Path) -> tuple[int, dict[str, Any], float]:
    """A run: its exit code, what became of each host, and how long it took."""
    begun = time.monotonic()
    with started(lab, tmp_path / "outcome") as process:
        output, _ = process.communicate(timeout=200)
    print(output)
    return process.returncode, json.loads((tmp_path / "outcome").read_text()), time.monotonic() - begun


def typed(lab: Lab) -> tuple[int, str, float]:
    """`privnet deploy INVENTORY -y`, as an operator types it: its exit code, what it says, and how long it took."""
    begun = time.monotonic()
    done = subprocess.run(
        [str(PYINFRA.with_name("privnet")), "deploy", str(lab.inventory), "-y"],
        env={**os.environ, "PRIVNET_LAB": lab.name, "PYINFRA_PROGRESS": "off"}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=200, cwd="/",
    )  # fmt: skip
    said = done.stdout + done.stderr
    print(said)
    return done.returncode, said, time.monotonic() - begun


@contextmanager
def started(lab: Lab, outcome: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PRIVNET_LAB": lab.name, "PYINFRA_PROGRESS": "off", "PRIVNET_OUTCOME": str(outcome)}
    command = [str(PYINFRA), "-y", str(lab.inventory.with_suffix(".py")), str(DEPLOY)]
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    environment["PYTHONUNBUFFERED"] = "1"
    with subprocess.Popen(command, text=True, env=environment, **streams) as process:
        yield process


def states(outcome: dict[str, Any]) -> dict[str, str]:
    return {name: host["state"] for name, host in outcome["hosts"].items()}


@contextmanager
def hanging(lab: Lab, host: str) -> Iterator[None]:
    """A host whose SSH server takes connections, and never says a word."""
    lab.exec(host, "systemctl kill --signal=STOP ssh.service")
    try:
        yield
    finally:
        lab.exec(host, "systemctl kill --signal=CONT ssh.service")


def test_a_host_that_hangs_before_the_run(lab: Lab) -> None:
    """`privnet deploy` ends with 3: one is pending."""
    change(lab)
    with hanging(lab, "lab-2"):
        code, said, seconds = typed(lab)
    assert code == 3
    assert re.findall(r"(?m)^  (lab-\d)  (changed and confirmed|no answer)", said) == [
        ("lab-1", "changed and confirmed"), ("lab-3", "changed and confirmed"), ("lab-2", "no answer"),
    ]  # fmt: skip
    assert "PENDING: 1 host not done, all others are" in said and "the same command again finishes them" in said
    assert seconds < 60
    # The new containers of the others are there, and reach each other.
    cron = "cron.ap-5d2e9c14-0b7a-4f66-8c3d-91f4a7e60b25"
    address = inside(lab, f"3.{cron}", "ip", "-4", "-o", "addr", "show", "dev", "pn0").split()[3].partition("/")[0]
    inside(lab, f"1.{cron}", "ping", *WATCHED, "-n", "-c", "2", "-W", "2", address)


def test_a_host_that_hangs_during_the_run(lab: Lab, tmp_path: Path) -> None:
    change(lab)
    begun = time.monotonic()
    with started(lab, tmp_path / "outcome") as process:
        for line in process.stdout or ():
            if "| record keys" in line:
                break
        with hanging(lab, "lab-2"):
            process.communicate(timeout=200)
    outcome = json.loads((tmp_path / "outcome").read_text())
    assert process.returncode == 1
    assert states(outcome) == {"lab-1": "changed", "lab-2": "failed", "lab-3": "changed"}
    assert time.monotonic() - begun < 100


def test_a_host_that_lacks_a_package_and_cannot_get_it(lab: Lab, tmp_path: Path) -> None:
    away = "mv /etc/apt /etc/apt.away && mkdir /etc/apt && rm -rf /var/lib/apt/lists/*"
    lab.exec("lab-2", f"dpkg --remove --force-depends nftables >/dev/null && {away}")
    change(lab)
    try:
        code, outcome, _ = run(lab, tmp_path)
    finally:
        lab.exec("lab-2", "rm -r /etc/apt && mv /etc/apt.away /etc/apt")
    assert code == 1
    assert states(outcome) == {"lab-1": "changed", "lab-2": "failed", "lab-3": "changed"}
    assert "nftables" in outcome["hosts"]["lab-2"]["why"]


SMALL = """mkdir -p /run/packages && mount --bind /var/lib/dpkg /run/packages
mount -t tmpfs -o size=20m none /var/lib && mkdir /var/lib/dpkg && mount --bind /run/packages /var/lib/dpkg"""
"""It still says which packages it has: what it cannot say would be told instead."""


def test_a_host_without_room(lab: Lab) -> None:
    """`privnet deploy` ends with 1: one has failed."""
    before = dump(lab, "lab-2")
    change(lab)
    lab.exec("lab-2", SMALL)
    try:
        code, said, _ = typed(lab)
    finally:
        lab.exec("lab-2", "umount /var/lib/dpkg /var/lib /run/packages")
    assert code == 1
    assert "  lab-2  failed: the file system of /var/lib has 20 MiB left, a run needs 50: make room there\n" in said
    assert re.findall(r"(?m)^  (lab-\d)  changed and confirmed", said) == ["lab-1", "lab-3"]
    assert "FAILED: " in said and "the same command again tries those that are not done" in said
    assert difference(before, dump(lab, "lab-2")) == ""
