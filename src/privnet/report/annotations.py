"""Problems for programs that show them beside the code: SARIF, and the annotations of GitHub's workflows.

They are made from the same objects as text and JSON, and say the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from privnet.diagnostics import CODES, Place, Problem, ordered, visible
from privnet.report.codes import summary

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def render_sarif(problems: Iterable[Problem]) -> str:
    """All problems as a SARIF 2.1.0 log with one run; without problems its list of results is empty.

    Columns count characters, as in text (``unicodeCodePoints``). https://docs.oasis-open.org/sarif/sarif/v2.1.0/
    """
    every = ordered(problems)
    codes = sorted({problem.code for problem in every})
    driver = {"name": "privnet", "version": version("privnet"), "rules": [_rule(code) for code in codes]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(problem, codes.index(problem.code)) for problem in every],
    }
    return json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2)


def _rule(code: str) -> dict[str, Any]:
    return {
        "id": code,
        "shortDescription": {"text": CODES[code]},
        "fullDescription": {"text": summary(code)},
        "help": {"text": f"privnet explain {code}"},
    }


def _result(problem: Problem, rule: int) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": problem.code,
        "ruleIndex": rule,
        "level": problem.severity,
        "message": {"text": "\n".join(_said(problem))},
    }
    if problem.place:
        result["locations"] = [{"physicalLocation": _location(problem.place)}]
    if problem.related:
        result["relatedLocations"] = [
            {"id": number, "message": {"text": visible(other.message)}, "physicalLocation": _location(other.place)}
            for number, other in enumerate(problem.related)
        ]
    return result


def _location(place: Place) -> dict[str, Any]:
    region = {
        "startLine": place.line,
        "startColumn": place.column,
        "endLine": place.end_line,
        "endColumn": place.end_column,
    }
    uri = quote(place.path.encode("utf-8", "surrogateescape"))
    return {"artifactLocation": {"uri": f"file://{uri}" if uri.startswith("/") else uri}, "region": region}


def _said(problem: Problem) -> Iterator[str]:
    yield visible(problem.message) + (f" ({visible(problem.label)})" if problem.label else "")
    if problem.note:
        yield f"note: {visible(problem.note)}"
    if problem.help:
        yield f"help: {visible(problem.help)}"


def render_github(problems: Iterable[Problem]) -> str:
    """One line a problem that a GitHub workflow shows as an annotation at its place.

    https://docs.github.com/actions/reference/workflow-commands-for-github-actions#setting-an-error-message
    """
    return "\n".join(map(_annotation, ordered(problems)))


def _annotation(problem: Problem) -> str:
    place = problem.place
    properties = {"title": f"{problem.code}: {CODES[problem.code]}"}
    if place:
        # A range over several lines has no columns there.
        columns = {"col": place.column, "endColumn": place.end_column} if place.line == place.end_line else {}
        at: dict[str, Any] = {"file": visible(place.path), "line": place.line, "endLine": place.end_line, **columns}
        properties = {**at, **properties}
    related = (f"{visible(other.message)}: {visible(other.place.path)}:{other.place.line}" for other in problem.related)
    shown = ",".join(f"{name}={_property(str(value))}" for name, value in properties.items())
    return f"::{problem.severity} {shown}::{_data(chr(10).join((*_said(problem), *related)))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
