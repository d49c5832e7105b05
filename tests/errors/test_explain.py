"""Every code has a page, and what a page calls wrong and right is so."""

from __future__ import annotations

import re
import subprocess
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from privnet.check import removal
from privnet.cli import app
from privnet.compiler import compile_fleet, refuse
from privnet.deploy.run import begin
from privnet.deploy.state import HostState
from privnet.diagnostics import CODES, DeclarationError
from privnet.model.lock import HostLock
from privnet.report.codes import explanation, page, summary
from privnet.store import load_lock, save_lock

PAGES = Path(__file__).parents[2] / "src" / "privnet" / "explain"
NOW = 1_700_000_000
FLEET = """\
fleet: small
hosts:
  par-a-1: {address: 192.0.2.11, zone: par-a}
  par-a-2: {address: 192.0.2.12, zone: par-a}
  par-b-1: {address: 192.0.2.13, zone: par-b}
"""
SHOP = """\
project: shop
private_network:
  id: pn-ad0fd6a1-d05e-40ea-bf63-c4f8a75a9d8c
  terms: {accepted_by: ops@shop.example, accepted_on: 2025-09-25, version: beta-1}
applications:
  ap-a71da13f-7c70-4c00-a644-eee8558d8053:
    formation:
      web: [par-a-1]
"""
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
IN_TEXT = ("PN507", "PN508", "PN509", "PN602", "PN603", "PN703", "PN708")
"""What two runs, two machines or hundreds do, or one run is told, cannot be typed; other tests do it."""


def section(code: str, title: str) -> list[tuple[str, str]]:
    """The language and the text of each block below a heading of a page."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", page(code), re.DOTALL | re.MULTILINE)
    return BLOCK.findall(found[1]) if found else []


def deploy(directory: Path) -> None:
    """What a deploy leaves in the directory: the lock file."""
    save_lock(directory, compile_fleet(directory, NOW).lock)


def deployed(directory: Path) -> None:
    """A small fleet as it stands after a deploy, committed."""
    (directory / "projects").mkdir()
    (directory / "fleet.yaml").write_text(FLEET)
    (directory / "projects" / "shop.yaml").write_text(SHOP)
    deploy(directory)
    git = ("git", "-c", "user.name=o", "-c", "user.email=o@x.example", "-C", str(directory))
    for command in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "deployed")):
        subprocess.run([*git, *command], check=True)


def perform(blocks: list[tuple[str, str]], directory: Path) -> None:
    """Do in a fleet's directory what blocks of a page show."""
    for language, text in blocks:
        if language == "sh":
            for number, part in enumerate(re.split(r"^# a deploy.*\n", text, flags=re.MULTILINE)):
                if number:
                    deploy(directory)
                subprocess.run(["sh", "-e", "-c", part], cwd=directory, check=True)
        else:
            assert language == "yaml", language
            name = re.match(r"# (\S+)\n", text)
            assert name is not None, text
            (directory / name[1]).write_text(text)


def codes(directory: Path, guarded: bool = False) -> list[str]:
    """What is wrong with the declaration; ``guarded``: also with what a run would remove."""
    try:
        fleet = compile_fleet(directory, NOW)
        if guarded:
            refuse(removal.check(fleet.declaration, fleet.known, fleet.lock, None), fleet.declaration)
    except DeclarationError as error:
        return [problem.code for problem in error.problems]
    return [problem.code for problem in fleet.warnings]


def test_every_code_has_a_page_and_every_page_a_code() -> None:
    assert {path.name for path in PAGES.iterdir()} == {f"{code}.md" for code in CODES}


@pytest.mark.parametrize("code", CODES)
def test_a_page_says_what_why_and_what_to_do(code: str) -> None:
    text = page(code)
    assert text.startswith(f"# {code}: {CODES[code]}\n\n")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["Wrong", *(["Right"] if code not in IN_TEXT else []), "What to do"]
    assert 60 < len(summary(code)) < 500
    assert all(len(line) <= 100 for line in BLOCK.sub("", text).split("\n"))
    assert not [line for line in explanation(code) if line.startswith(("```", "#"))]


@pytest.mark.parametrize("code", [code for code in CODES if code not in IN_TEXT])
def test_what_a_page_calls_wrong_has_its_code_and_what_it_calls_right_has_none(code: str, tmp_path: Path) -> None:
    wrong, right = section(code, "Wrong"), section(code, "Right")
    assert wrong
    assert right
    if wrong[0][0] == "sh":
        guarded = code.startswith("PN6")
        deployed(tmp_path)
        perform(wrong, tmp_path)
        assert codes(tmp_path, guarded) == [code]
        perform(right, tmp_path)
        assert codes(tmp_path, guarded) == []
        return
    for name, blocks, expected in (("wrong", wrong, {code}), ("right", right, set())):
        directory = tmp_path / name
        (directory / "projects").mkdir(parents=True)
        (directory / "fleet.yaml").write_text(FLEET)
        perform(blocks, directory)
        assert set(codes(directory)) == expected


def test_pn507_is_what_the_later_of_two_runs_is_told(tmp_path: Path) -> None:
    deployed(tmp_path)
    lock = load_lock(tmp_path, "small")
    save_lock(tmp_path, lock)
    with pytest.raises(DeclarationError) as caught:
        save_lock(tmp_path, lock)
    assert [problem.code for problem in caught.value.problems] == ["PN507"]
    save_lock(tmp_path, load_lock(tmp_path, "small"))


def test_pn508_is_what_a_run_says_of_another_machine(tmp_path: Path) -> None:
    deployed(tmp_path)
    lock = load_lock(tmp_path, "small")
    known = HostLock(lock.hosts["par-a-1"].mesh, "A" * 42 + "Q=")
    save_lock(tmp_path, replace(lock, hosts={**lock.hosts, "par-a-1": known}))
    run = begin(tmp_path)
    assert run.learn("par-a-1", _answer("A" * 42 + "Q=")) is None
    assert str(run.learn("par-a-1", _answer("B" * 42 + "Q="))).startswith("PN508: ")


def _answer(key: str) -> HostState:
    nothing: dict[str, Any] = {field.name: None for field in fields(HostState)}
    return HostState(**{**nothing, "public_key": key})


def test_explain_shows_the_page() -> None:
    shown = CliRunner().invoke(app, ["explain", "pn304"]).stdout
    assert shown.startswith("PN304: a VNI is used by two networks\n\nA VNI is the number")
    assert "\n    project: shop\n" in shown
    assert "See also: PN301, " in shown
