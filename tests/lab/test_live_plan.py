"""A plan is told by the hosts themselves, saved, and carried out as it was looked at, or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel import difference, dump
from runs import BLOG, DEPLOY, PAGES, PYINFRA, deploy, edit, replace_once

from privnet.lab import Lab

PRIVNET = PYINFRA.with_name("privnet")
MORE = "worker: [lab-3]\n      cron: [lab-1, lab-2]"


@pytest.fixture(scope="module")
def lab(shared_fleet) -> Lab:
    return shared_fleet("lab")


@pytest.fixture(autouse=True)
def back_to_the_start(lab: Lab) -> Iterator[None]:
    """The declaration may be changed at will, and hosts by hand; the next test finds both as they were."""
    before = {path: path.read_text() for path in lab.inventory.rglob("*.yaml") if "lock" not in path.name}
    yield
    for path, text in before.items():
        path.write_text(text)
    deploy(lab, allow=True)


def privnet(lab: Lab, command: str, *arguments: str, code: int = 0) -> str:
    """What `privnet COMMAND` says, on both ways, when it ends with ``code``."""
    environment = {**os.environ, "PRIVNET_LAB": lab.name, "PYINFRA_PROGRESS": "off"}
    done = subprocess.run(
        [str(PRIVNET), command, str(lab.inventory), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    return said


def spoil_resolver(lab: Lab, host: str) -> None:
    """A resolver that somebody has told something else: only a restart puts it right."""
    config = f"/etc/privnet/names/{BLOG}.conf"
    lab.exec(host, f"echo 'log-queries' >> {config} && systemctl restart privnet-dns@{BLOG}.service")


@pytest.mark.proves("P14", "plans")
def test_a_saved_plan_is_done_and_nothing_else(lab: Lab, tmp_path: Path) -> None:
    edit(lab, "blog", "worker: [lab-3]", MORE)
    saved = tmp_path / "change.plan"
    said = privnet(lab, "plan", "--live", "--out", str(saved))
    assert "3 of 3 hosts answered, 3 of them would be changed" in said
    assert set(json.loads(saved.read_text())["live"]) == {"lab-1", "lab-2", "lab-3"}
    assert "DONE: 3 hosts as planned" in privnet(lab, "deploy", "-y", "--plan", str(saved))
    for index, host in ((1, "lab-1"), (2, "lab-2")):
        lab.exec(host, ["ip", "netns", "exec", f"{index}.cron.{PAGES}", "true"])
    said = privnet(lab, "plan", "--live")
    assert "Nothing differs from the lock file" in said and "not finished" not in said
    assert "3 of 3 hosts answered, 0 of them would be changed" in said
    # It was for once: the lock file has moved on by it.
    assert "error[PN603]: the lock file has changed" in privnet(lab, "deploy", "-y", "--plan", str(saved), code=2)


def test_a_host_that_was_changed_by_hand_is_another_plan(lab: Lab, tmp_path: Path) -> None:
    edit(lab, "blog", "worker: [lab-3]", MORE)
    saved = tmp_path / "change.plan"
    privnet(lab, "plan", "--live", "--out", str(saved))
    spoil_resolver(lab, "lab-2")
    before = dump(lab)
    said = privnet(lab, "deploy", "-y", "--plan", str(saved), code=2)
    assert "error[PN603]: host lab-2 has moved on since the plan was saved: it needs other changes" in said
    assert "lab-1 has moved on" not in said and "No host was changed." in said
    assert difference(before, dump(lab)) == ""
    # Looked at again it is done.
    privnet(lab, "plan", "--live", "--out", str(saved))
    replace_once(lab.inventory / "projects" / "blog.yaml", "cron: [lab-1, lab-2]", "cron: [lab-1, lab-3]")
    said = privnet(lab, "deploy", "-y", "--plan", str(saved), code=2)
    assert "error[PN603]: the YAML has changed since the plan was saved: projects/blog.yaml" in said
    assert difference(before, dump(lab)) == ""
    replace_once(lab.inventory / "projects" / "blog.yaml", "cron: [lab-1, lab-3]", "cron: [lab-1, lab-2]")
    assert "DONE: 3 hosts as planned" in privnet(lab, "deploy", "-y", "--plan", str(saved))


@pytest.mark.proves("P14", "plans")
def test_what_a_repair_does_to_traffic_is_told_by_the_host(lab: Lab) -> None:
    spoil_resolver(lab, "lab-1")
    lab.exec("lab-3", ["ip", "netns", "delete", f"1.worker.{PAGES}"])
    assert "Nothing differs from the lock file" in privnet(lab, "plan"), "off line it is not known"
    live = json.loads(privnet(lab, "plan", "--live", "--format", "json"))["live"]
    labels = {name: [impact["label"] for impact in host["impact"]] for name, host in live.items()}
    assert labels == {"lab-1": ["brief"], "lab-2": [], "lab-3": ["outage"]}
    said = privnet(lab, "plan", "--live")
    assert "3 of 3 hosts answered, 2 of them would be changed" in said
    assert "brief, questions for names of that network from this host: its resolver starts again" in said
    assert "outage, flows of these containers, if their namespace is gone: what ran in it has to be started" in said
    assert "DONE: 3 hosts as planned" in privnet(lab, "deploy", "-y")
    assert "0 of them would be changed" in privnet(lab, "plan", "--live")


def test_a_setting_is_told_as_the_hosts_feel_it_and_until_they_have_it(lab: Lab) -> None:
    file = lab.inventory / "fleet.yaml"
    file.write_text(file.read_text() + "\ndns:\n  ttl: 30\n")
    said = privnet(lab, "plan", "--live")
    assert "~ setting dns.ttl: 5 → 30" in said and "brief, questions for names: each resolver starts again" in said
    assert said.count("brief, questions for names of that network from this host") >= 1
    killed_when_switching(lab)
    said = privnet(lab, "plan")
    assert "Nothing differs from the lock file" in said, "it was written before"
    assert "The last run was not finished on: lab-1 (" in said and "lab-3 (" in said
    assert "DONE: 3 hosts as planned" in privnet(lab, "deploy", "-y")
    assert "not finished" not in privnet(lab, "plan")


def killed_when_switching(lab: Lab) -> None:
    """A run whose control machine dies when it comes to what has two states and no middle."""
    environment = {**os.environ, "PRIVNET_LAB": lab.name, "PYINFRA_PROGRESS": "off", "PYTHONUNBUFFERED": "1"}
    command = [str(PYINFRA), "-y", str(lab.inventory.with_suffix(".py")), str(DEPLOY)]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, text=True, env=environment, **streams) as process:  # type: ignore[call-overload]
        for line in process.stdout or ():
            if "| switch what has moved" in line:
                process.send_signal(signal.SIGKILL)
                break
        else:
            raise AssertionError("it came to its end")
