"""What the demo says when it cannot go on, without hosts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRIVNET = """#!/bin/sh
[ "$1 $2" != "lab up" ] || {{ echo "error: lab 'lab' runs another fleet, /srv/prod" >&2; exit 2; }}
echo "$@" >> {calls}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The scripts of a checkout, with a `privnet` whose lab is another fleet's."""
    for name in ("setup/demo.sh", "Makefile"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "setup" / "setup.sh").write_text("exit 0\n")
    program = tmp_path / ".venv" / "bin" / "privnet"
    program.parent.mkdir(parents=True)
    program.write_text(PRIVNET.format(calls=tmp_path / "calls"))
    program.chmod(0o755)
    return tmp_path


def test_the_demo_advises_nothing_that_removes_the_lab_of_another_fleet(checkout: Path) -> None:
    root = checkout / "bin" / "id"
    root.parent.mkdir()
    root.write_text("#!/bin/sh\necho 0\n")
    root.chmod(0o755)
    search = {**os.environ, "PATH": f"{root.parent}:{os.environ['PATH']}"}
    ran = subprocess.run(["sh", "setup/demo.sh"], cwd=checkout, capture_output=True, text=True, env=search)
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == [
        "error: lab 'lab' runs another fleet, /srv/prod",
        "",
        "error: this failed: .venv/bin/privnet lab up inventory/lab",
        "  = help: it says above what is missing, or that the lab runs another fleet: `PRIVNET_LAB=demo make demo` "
        "leaves that alone",
    ]
    assert "down" not in ran.stdout + ran.stderr


def test_make_down_removes_the_demo_alone(checkout: Path) -> None:
    subprocess.run(["make", "down"], cwd=checkout, check=True, capture_output=True)
    assert (checkout / "calls").read_text() == "lab down inventory/lab\n"
