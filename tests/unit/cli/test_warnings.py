"""Warnings are shown in every format, beside the answer, and change no exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from privnet.cli import app
from privnet.deploy.inventory import fleet_groups
from privnet.diagnostics import COUNTED_AT_MOST, Place, Problem, render_json, render_text

PROD = Path(__file__).parents[3] / "inventory" / "prod"


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """The example with a process type that means something else elsewhere, and without its lock file."""
    shutil.copytree(PROD, tmp_path / "prod")
    (tmp_path / "prod" / "privnet.lock.yaml").unlink(missing_ok=True)
    path = tmp_path / "prod" / "projects" / "shop.yaml"
    path.write_text(path.read_text().replace("web:", "tcp:", 1))
    return tmp_path / "prod"


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [*map(str, words)], prog_name="privnet", catch_exceptions=False)


def test_as_text_they_stand_beside_the_answer(fleet: Path) -> None:
    done = run("check", fleet)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{fleet}: 6 hosts") or f"{fleet}: " in done.stdout
    assert done.stderr.startswith("warning[PN701]: process type `tcp`")
    assert done.stderr.endswith("\n1 warning, and no error.\n")


def test_json_stays_json_whatever_is_warned_of(fleet: Path) -> None:
    done = run("names", fleet, "--format", "json")
    assert done.exit_code == 0
    json.loads(done.stdout)
    assert "warning[PN701]" in done.stderr


def test_a_check_has_them_in_its_answer_for_machines(fleet: Path) -> None:
    done = run("check", fleet, "--format", "json")
    assert (done.exit_code, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert [(problem["code"], problem["severity"]) for problem in said["problems"]] == [("PN701", "warning")]
    assert said["summary"]
    done = run("check", fleet, "--format", "sarif")
    assert [result["level"] for result in json.loads(done.stdout)["runs"][0]["results"]] == ["warning"]
    done = run("check", fleet, "--format", "github")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith("::warning file=")
    assert ": 6 hosts" in done.stdout or " hosts, " in done.stdout


def test_errors_come_first_and_decide(fleet: Path) -> None:
    path = fleet / "projects" / "shop.yaml"
    path.write_text(path.read_text() + "  ap-00000000-0000-4000-8000-000000000001: {formation: {web: [nowhere]}}\n")
    done = run("check", fleet)
    assert done.exit_code == 2
    assert done.stderr.startswith("error[PN301]")
    assert "\nwarning[PN701]" in done.stderr
    assert done.stderr.endswith("No host was contacted.\n")


def test_pyinfra_s_inventory_shows_them_and_goes_on(fleet: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert fleet_groups(fleet)["fleet"]
    assert capfd.readouterr().err.startswith("warning[PN701]")


def test_the_example_itself_has_none() -> None:
    done = run("check", PROD)
    assert (done.exit_code, done.stderr) == (0, "")


def test_errors_are_not_hidden_behind_twenty_warnings() -> None:
    warnings = [Problem("PN701", "w", Place("a", line, 1, line, 2), severity="warning") for line in range(1, 30)]
    text = render_text([*warnings, Problem("PN301", "e", Place("z", 1, 1, 1, 2))], color=False, sources={})
    assert text.startswith("error[PN301]: e")
    assert "and 10 more" in text


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"a": 21}, "\nand 1 more\n"),
        ({"a": COUNTED_AT_MOST - 1}, "\nand 79 more\n"),
        ({"a": COUNTED_AT_MOST}, "\nand at least 80 more: no more than 100 are counted in a\n"),
        (
            {"a": COUNTED_AT_MOST, "b": 1, "c": COUNTED_AT_MOST},
            "\nand at least 181 more: no more than 100 are counted in a and 1 other file\n",
        ),
    ],
)
def test_it_is_said_when_more_may_be_wrong_than_was_counted(counts: dict[str, int], said: str) -> None:
    problems = [
        Problem("PN301", "e", Place(path, line, 1, line, 2))
        for path, count in counts.items()
        for line in range(1, count + 1)
    ]
    assert said in render_text(problems, color=False, sources={})
    ended = [path for path, count in counts.items() if count == COUNTED_AT_MOST]
    assert json.loads(render_json(problems))["incomplete"] == ended
