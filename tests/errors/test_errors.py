"""Every wrong declaration of the corpus is refused with the exact text beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from privnet.diagnostics import CODES, render_json
from privnet.report.annotations import render_github, render_sarif

from .corpus import FLEETS, HERE, PLACES, Case, answer, cases, refuse

ALL = list(cases())
REGENERATE = "python -m tests.errors.regenerate"


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_a_wrong_declaration_is_refused_with_this_text(case: Case, tmp_path: Path) -> None:
    assert case.answer.exists(), f"{case.name} has no answer: {REGENERATE}"
    assert answer(case, tmp_path) == case.answer.read_text(), REGENERATE


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_text_and_json_say_the_same_and_point_into_the_file(case: Case, tmp_path: Path) -> None:
    case.lay(tmp_path)
    error = refuse(tmp_path)
    assert error is not None
    data = json.loads(render_json(error.problems))
    assert [(p["code"], p["message"]) for p in data["problems"]] == [(p.code, p.message) for p in error.problems]
    for problem in error.problems:
        assert problem.help or problem.note, "says neither why it matters nor what to do"
        if problem.place is not None:
            lines = error.sources[problem.place.path].split("\n")
            assert 1 <= problem.place.line <= len(lines)
            assert 1 <= problem.place.column <= len(lines[problem.place.line - 1]) + 1


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_an_answer_is_plain_text_without_the_library_s_words(case: Case) -> None:
    text = case.answer.read_text()
    assert text.endswith("\nNo host was contacted.\n" if "error[" in text else " and no error.\n")
    assert all(character == "\n" or character.isprintable() for character in text)
    assert not re.search("pydantic|Traceback|input_value|Value error|\\bNone\\b", text)


def test_every_answer_belongs_to_a_case() -> None:
    answers = {path for kind in (*PLACES, *FLEETS) for path in (HERE / kind).glob("*.txt")}
    assert answers == {case.answer for case in ALL}


def test_the_fleet_that_the_cases_spoil_is_right(tmp_path: Path) -> None:
    Case("tree", HERE / "base").lay(tmp_path)
    assert refuse(tmp_path) is None


def test_every_code_has_a_case() -> None:
    head = re.compile(r"^(?:error|warning)\[(PN\d+)\]", re.MULTILINE)
    shown = {code for case in ALL for code in head.findall(case.answer.read_text())}
    # Two runs at once, other machines, hundreds of hosts, a plan and what is said to one run: other tests make them.
    assert CODES.keys() - shown == {"PN507", "PN508", "PN509", "PN602", "PN603", "PN703", "PN705", "PN708"}
    assert shown - CODES.keys() == set()


SECRETS = ("4GgaQCy68nzNsUE5aJ9fuLzHhB65tAlwbmA72MWnOm8=", "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU", "hunter2")


@pytest.mark.parametrize("case", [case for case in ALL if "/H15-" in case.name], ids=lambda case: case.name)
def test_a_secret_is_not_shown(case: Case, tmp_path: Path) -> None:
    (secret,) = [secret for secret in SECRETS if secret in case.input.read_text()]
    case.lay(tmp_path)
    error = refuse(tmp_path)
    assert error is not None
    shown = answer(case, tmp_path) + render_json(error.problems) + str(error) + repr(error)
    shown += render_sarif(error.problems) + render_github(error.problems)
    assert secret[:7].lower() not in shown.lower()
