"""What docs/editors.md tells people to paste works on what the command prints."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from privnet.diagnostics import Place, Problem
from privnet.report.annotations import render_github

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "editors.md").read_text()


@pytest.mark.parametrize("severity", ["error", "warning"])
def test_the_problem_matcher_of_vs_code_reads_an_annotation(severity: str) -> None:
    settings, tasks = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL))
    pattern = tasks["tasks"][0]["problemMatcher"]["pattern"]
    place = Place("a/b.yaml", 4, 8, 4, 12)
    line = render_github([Problem("PN304", "VNI 4242 is used", place, help="delete it", severity=severity)])
    found = re.fullmatch(pattern["regexp"], line)
    assert found is not None
    said = {name: found[number] for name, number in pattern.items() if name != "regexp"}
    assert (said["file"], said["line"], said["column"], said["code"]) == ("a/b.yaml", "4", "8", "PN304")
    assert said["severity"] == severity
    assert said["message"].startswith("VNI 4242 is used")
    assert all((ROOT / path).is_file() for path in settings["yaml.schemas"])


def test_the_pages_schemas_fit_the_fleets_of_the_repository() -> None:
    settings = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0])
    for pattern in settings["yaml.schemas"].values():
        assert list(ROOT.glob(pattern))
