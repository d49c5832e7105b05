"""`pyinfra inventory/X.py …` refuses a declaration as `privnet check` does: one message, no host, no traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import warm
from privnet.compiler import compile_fleet
from privnet.store import save_lock

ROOT = Path(__file__).parents[3]
DEPLOY = str(ROOT / "deploys" / "private_network.py")


def run(directory: Path, *more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return warm.run(["inventory/small.py", *more], {**os.environ, **variables}, directory)


def lay(directory: Path) -> None:
    shutil.copytree(ROOT / "tests" / "errors" / "base", directory / "inventory" / "small")
    shutil.copyfile(ROOT / "inventory" / "prod.py", directory / "inventory" / "small.py")


def test_a_refused_declaration_is_one_message_and_exit_code_1(tmp_path: Path) -> None:
    lay(tmp_path)
    shop = tmp_path / "inventory" / "small" / "projects" / "shop.yaml"
    shop.write_text(shop.read_text().replace("par-a-2", "par-a-9"))
    done = run(tmp_path, "-y", DEPLOY)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert said.count("error[PN301]") == 1
    assert "did you mean `par-a-" in said
    assert "No host was contacted." in said
    assert "the declaration has 1 problem" in said
    assert "Traceback" not in said
    assert "Connecting" not in said


def test_a_damaged_lock_file_likewise(tmp_path: Path) -> None:
    lay(tmp_path)
    (tmp_path / "inventory" / "small" / "privnet.lock.yaml").write_text("version: 1\nchecksum: 0\nfleet: small\n")
    done = run(tmp_path, "exec", "--", "true")
    said = done.stdout + done.stderr
    assert (done.returncode, said.count("error[PN501]"), "Traceback" in said) == (1, 1, False)


def test_a_right_one_is_not_refused(tmp_path: Path) -> None:
    lay(tmp_path)
    done = run(tmp_path, "debug-inventory")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "par-a-1" in said
    assert "error[" not in said


def test_a_mass_removal_is_refused_before_any_host_is_asked(tmp_path: Path) -> None:
    """With the deploy itself, also in a dry run: the hosts' addresses would not answer for a long time."""
    lay(tmp_path)
    fleet = tmp_path / "inventory" / "small"
    save_lock(fleet, compile_fleet(fleet).lock)
    lock = (fleet / "privnet.lock.yaml").read_bytes()
    (fleet / "projects" / "shop.yaml").unlink()
    for arguments in (("-y", DEPLOY), ("--dry", DEPLOY)):
        for told in ({}, {"PRIVNET_ALLOW_REMOVALS": "2"}, {"PRIVNET_ALLOW_REMOVALS": "all"}):
            done = run(tmp_path, *arguments, **told)
            said = done.stdout + done.stderr
            assert done.returncode == 1
            assert said.count("error[PN602]" if told else "error[PN601]") == 1, said
            assert "No host was contacted." in said and "Connecting" not in said and "Traceback" not in said
    assert (fleet / "privnet.lock.yaml").read_bytes() == lock
    done = run(tmp_path, "debug-inventory", PRIVNET_ALLOW_REMOVALS="3")
    assert (done.returncode, "error[" in done.stdout + done.stderr) == (0, False)
