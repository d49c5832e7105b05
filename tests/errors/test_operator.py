"""Mistakes of a tired operator: what is typed, and the whole answer. Each is to be put right without a book.

`operator/<case>/` holds the files that were changed in the fleet of `inventory/prod`, what was typed in `command`, and
the answer in `answer.txt`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from privnet.cli import app

from .corpus import HERE

ROOT = HERE.parents[1]
CASES = sorted(path.name for path in (HERE / "operator").iterdir())
REGENERATE = "PRIVNET_REGENERATE=1 pytest tests/errors/test_operator.py; git diff tests/errors/operator"


def typed(case: str, directory: Path) -> tuple[int, str]:
    """The exit code and the answer, seen from a repository with the fleet in it."""
    shutil.copytree(ROOT / "inventory" / "prod", directory / "inventory" / "prod")
    shutil.copyfile(ROOT / "inventory" / "prod.py", directory / "inventory" / "prod.py")
    (directory / "inventory" / "prod" / "privnet.lock.yaml").unlink(missing_ok=True)
    for path in (HERE / "operator" / case).rglob("*"):
        if path.is_file() and path.parent.name != case:
            target = directory / path.relative_to(HERE / "operator" / case)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    words = (HERE / "operator" / case / "command").read_text().split()
    with contextlib.chdir(directory):
        result = CliRunner().invoke(app, words[1:], prog_name="privnet", catch_exceptions=False)
    return result.exit_code, result.stderr


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_gets_this_answer(case: str, tmp_path: Path) -> None:
    code, text = typed(case, tmp_path)
    answer = HERE / "operator" / case / "answer.txt"
    if os.environ.get("PRIVNET_REGENERATE"):
        answer.write_text(text)
    assert code == 2
    assert answer.exists(), REGENERATE
    assert text == answer.read_text(), REGENERATE
    assert " = help: " in text
    assert text.endswith("No host was contacted.\n")


def test_twenty_at_least() -> None:
    assert len(CASES) >= 20


def test_without_a_mistake_the_fleet_is_right(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "inventory" / "prod", tmp_path / "prod")
    assert CliRunner().invoke(app, ["check", str(tmp_path / "prod")]).exit_code == 0
