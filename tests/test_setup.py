"""What `make` leaves behind, beside what all other tests run on."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def compiled() -> set[str]:
    """Modules of ours that a run compiles from their source; like pyinfra, it keeps nothing of it."""
    run = [sys.executable, "-B", "-v", "-c", "import privnet.deploy.inventory, privnet.deploy.stages"]
    said = subprocess.run(run, capture_output=True, text=True, check=True).stderr
    return set(re.findall(r"^# code object from (\S+/src/privnet/\S+\.py)$", said, re.MULTILINE))


def test_a_run_compiles_nothing_of_ours() -> None:
    source = str(REPOSITORY / "src" / "privnet" / "deploy" / "stages.py")
    Path(importlib.util.cache_from_source(source)).unlink(missing_ok=True)
    assert source in compiled(), "the twin: what is not there compiled is seen to be compiled"
    subprocess.run(["sh", str(REPOSITORY / "setup" / "setup.sh")], check=True, capture_output=True)
    assert compiled() == set()
