"""Pipelines are told the same as people: SARIF, and annotations of GitHub's workflows."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema
from typer.testing import CliRunner

from privnet.cli import app
from privnet.diagnostics import CODES, Place, Problem, Related
from privnet.report.annotations import render_github, render_sarif

ERRORS = Path(__file__).parents[2] / "errors"
SCHEMA = json.loads((Path(__file__).parent / "sarif-2.1.0-part.schema.json").read_text())
PLACE = Place("inventory/prod/projects/a b.yaml", 4, 8, 4, 12)
PROBLEM = Problem(
    "PN304",
    "VNI 4242 is 100% used,\nby two: networks",
    PLACE,
    label="here",
    note="why",
    help="what to do",
    related=(Related(Place("/abs/other.yaml", 1, 2, 1, 3), "it was given here"),),
)


def sarif(*problems: Problem) -> Any:
    log = json.loads(render_sarif(problems))
    jsonschema.validate(log, SCHEMA)
    return log["runs"][0]


def test_a_sarif_log_of_no_problem_has_no_result() -> None:
    assert sarif()["results"] == []


def test_sarif_has_places_rules_and_the_second_place() -> None:
    run = sarif(PROBLEM, Problem("PN101", "x does not exist", help="y"))
    rules = run["tool"]["driver"]["rules"]
    without, result = run["results"]
    assert "locations" not in without
    assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == "PN304"
    assert rules[result["ruleIndex"]]["shortDescription"]["text"] == CODES["PN304"]
    where = result["locations"][0]["physicalLocation"]
    assert where["artifactLocation"]["uri"] == "inventory/prod/projects/a%20b.yaml"
    assert where["region"] == {"startLine": 4, "startColumn": 8, "endLine": 4, "endColumn": 12}
    other = result["relatedLocations"][0]
    assert other["message"]["text"] == "it was given here"
    assert other["physicalLocation"]["artifactLocation"]["uri"] == "file:///abs/other.yaml"
    assert run["columnKind"] == "unicodeCodePoints"


def test_an_annotation_is_one_line_and_escaped() -> None:
    line = render_github([PROBLEM])
    assert line == (
        "::error file=inventory/prod/projects/a b.yaml,line=4,endLine=4,col=8,endColumn=12,"
        "title=PN304%3A a VNI is used by two networks::"
        "VNI 4242 is 100%25 used,\\nby two: networks (here)%0Anote: why%0Ahelp: what to do"
        "%0Ait was given here: /abs/other.yaml:1"
    )
    assert render_github([]) == ""


def test_nobody_can_write_a_command_of_a_workflow() -> None:
    evil = Problem("PN101", "x\n::set-output name=a::b", Place("a,b:c\n::error", 1, 1, 1, 2), help="%0A::stop")
    (line,) = render_github([evil]).splitlines()
    assert "\n" not in line
    assert "file=a%2Cb%3Ac\\n%3A%3Aerror,line=1" in line
    assert "%250A::stop" in line


def test_every_case_of_the_corpus_that_is_refused_is_valid_sarif(tmp_path: Path) -> None:
    runner = CliRunner()
    shown = 0
    for number, path in enumerate(sorted((ERRORS / "fleet").glob("[ATXY]*.yaml"))):
        directory = tmp_path / str(number)
        shutil.copytree(ERRORS / "base", directory)
        shutil.copyfile(path, directory / "fleet.yaml")
        text = runner.invoke(app, ["check", str(directory), "--format", "sarif"]).stdout
        log = json.loads(text)
        jsonschema.validate(log, SCHEMA)
        data = json.loads(runner.invoke(app, ["check", str(directory), "--format", "json"]).stdout)
        lines = runner.invoke(app, ["check", str(directory), "--format", "github"]).stdout.splitlines()
        problems = data["problems"]
        assert [result["ruleId"] for result in log["runs"][0]["results"]] == [p["code"] for p in problems]
        assert [re.search("title=(PN[0-9]+)", line)[1] for line in lines] == [p["code"] for p in problems]  # type: ignore[index]
        shown += len(problems)
    assert shown > 30


def test_a_right_fleet_is_an_empty_log_and_no_annotation() -> None:
    for format, expected in (("sarif", []), ("github", None)):
        result = CliRunner().invoke(app, ["check", str(ERRORS / "base"), "--format", format])
        assert result.exit_code == 0
        if expected is not None:
            assert json.loads(result.stdout)["runs"][0]["results"] == expected
        else:
            assert "::" not in result.stdout
