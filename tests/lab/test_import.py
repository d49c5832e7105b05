"""The repository is lost; the hosts remember it, and go on as if nothing had happened."""

from __future__ import annotations

import re
import shutil

import pytest
from runs import PAGES, assert_lossless, deploy, flowing
from typer.testing import CliRunner, Result

from privnet.cli import app
from privnet.lab import Lab


@pytest.fixture(scope="module")
def lab(shared_fleet) -> Lab:
    """Three hosts, deployed to."""
    return shared_fleet("lab")


@pytest.mark.proves("import")
def test_a_lost_fleet_is_rebuilt_from_its_hosts(lab: Lab) -> None:
    before = (lab.inventory / "privnet.lock.yaml").read_text()
    lose(lab)
    rebuilt = rebuild(lab)
    assert rebuilt.exit_code == 0, rebuilt.output
    assert "3 hosts, 2 projects, 2 private networks, 8 containers" in rebuilt.output
    assert "not found on any host" in rebuilt.output
    assert "Nothing differs from the lock file" in plan(lab)
    # All of it but what no host remembers: the project without a private network, how often it was written, what it was
    # before it was that by which the hosts were changed; and the SSH keys, which connections show.
    after = (lab.inventory / "privnet.lock.yaml").read_text()
    lost = {line for line in before.splitlines() if line not in after.splitlines()}
    lost -= {line for line in lost if re.fullmatch("  - [0-9]+ [0-9a-f]{64}", line)}
    assert {line.split(":")[0].strip() for line in lost} <= {CLINIC, "checksum", "serial", "ssh"}
    with flowing(lab, (f"1.web.{PAGES}", f"1.worker.{PAGES}")) as flows:
        # No host: the SSH keys that the first connections show go into the lock file.
        assert deploy(lab).changed.keys() == {"record keys"}
    assert_lossless(flows)
    assert deploy(lab).changed == {}


def test_a_stray_container_and_a_missing_one_are_said(lab: Lab) -> None:
    """The twin of the silence above."""
    lab.exec("lab-1", f"ip netns add 9.web.{PAGES} && ip netns delete 1.web.{PAGES}")
    lose(lab)
    rebuilt = rebuild(lab)
    assert rebuilt.exit_code == 3, rebuilt.output
    assert f"9.web.{PAGES} runs on lab-1, and is not recorded there" in rebuilt.output
    assert f"1.web.{PAGES} is recorded on lab-1, and does not run there" in rebuilt.output
    lab.exec("lab-1", f"ip netns delete 9.web.{PAGES}")
    deploy(lab)


def test_a_host_that_is_down_is_rebuilt_from_what_the_others_know(lab: Lab) -> None:
    lab.kill("lab-2")
    lose(lab)
    rebuilt = rebuild(lab)
    assert rebuilt.exit_code == 3, rebuilt.output
    assert "lab-2 (lab-2) did not answer" in rebuilt.output
    assert "# lab-2 did not say what it is." in (lab.inventory / "fleet.yaml").read_text()
    assert "Nothing differs from the lock file" in plan(lab)
    assert deploy(lab, "--limit", "lab-1", "--limit", "lab-3").changed.keys() == {"record keys"}


CLINIC = "ap-9b64d7e2-1f05-4b8c-a7e9-30c52d8f41ab"


def lose(lab: Lab) -> None:
    shutil.rmtree(lab.inventory)
    lab.inventory.with_suffix(".py").unlink()


def rebuild(lab: Lab) -> Result:
    options = ["--output", str(lab.inventory), "--ssh-config", str(lab.ssh_config)]
    return CliRunner().invoke(app, ["import", *options, *lab.hosts])


def plan(lab: Lab) -> str:
    done = CliRunner().invoke(app, ["plan", str(lab.inventory)])
    assert done.exit_code == 0, done.output
    return done.output
