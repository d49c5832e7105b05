"""What a person and a machine get to see of a deviation: it, and below it all that follows from it, on any host."""

from __future__ import annotations

import json
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from privnet.audit.finding import NOTHING, Deviation, Finding, Unanswered
from privnet.audit.fleet import Audit
from privnet.audit.report import SHOWN_AT_MOST, Report
from privnet.compiler import compile_fleet

ENTRY = Deviation("FDB of pnx1: a", "b", NOTHING)
SILENCE = Deviation("1.web → 2.web on lab-1, UDP and TCP", "an answer", "no answer")
OTHER = Deviation("2.web → 3.web on lab-2, UDP and TCP", "an answer", "no answer")


def reported(path: Path, findings: dict[tuple[str, str], Finding]) -> Report:
    """An audit that has these findings, and lab-2 as a host that ends in the middle."""
    compiled = compile_fleet(Path(__file__).parents[2] / "golden" / "lab" / "in")
    audit = Audit(path, compiled, {}, ("lab-1", "lab-2", "lab-3"))
    for place in audit.items():
        audit._results[place] = Future()
        if place == ("lab-2", "handshakes"):
            audit._results[place].set_exception(Unanswered("it went away"))
        else:
            audit._results[place].set_result(findings.get(place, Finding("all")))
    report = Report(audit, path / "audit.json")
    for place in audit.items():
        if place != ("lab-2", "handshakes"):
            report.findings[place] = audit._results[place].result()
            report._line(*place, report.findings[place] or Finding(""))
    return report


def test_what_follows_is_below_its_cause_on_whichever_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    far = replace(ENTRY, host="lab-1")
    report = reported(tmp_path, {
        ("lab-1", "overlay"): Finding("", (ENTRY,)),
        ("lab-1", "reach"): Finding("", (), ((SILENCE, far),)),
        ("lab-3", "reach"): Finding("", (OTHER,), ((SILENCE, far),)),
    })  # fmt: skip
    assert report.summary() == 1
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    at = lines.index(str(ENTRY))
    assert lines[at + 1 : at + 3] == [f"lab-1 reach: {SILENCE}", f"lab-3 reach: {SILENCE}"]
    follows = lines.index("lab-1  reach       FOLLOWS")
    assert lines[follows + 1] == "from: FDB of pnx1: a on lab-1"
    # What nothing explains is a deviation, whatever else follows there.
    red = lines.index("lab-3  reach       DEVIATION")
    assert lines[red + 1] == str(OTHER)
    assert lines[-1].startswith("2 deviations on lab-1, lab-3  (2 consequences; 3 hosts, ")
    hosts = json.loads((tmp_path / "audit.json").read_text())["hosts"]
    (deviation,) = hosts["lab-1"]["overlay"]["deviations"]
    felt = [(one["host"], one["check"], one["subject"]) for one in deviation["consequences"]]
    assert felt == [("lab-1", "reach", SILENCE.subject), ("lab-3", "reach", SILENCE.subject)]
    (follow,) = hosts["lab-3"]["reach"]["follows"]
    assert (follow["from"], follow["on"], hosts["lab-3"]["reach"]["result"]) == (ENTRY.subject, "lab-1", "deviation")


def test_of_many_consequences_some_are_shown_and_all_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = tuple((replace(SILENCE, subject=f"pair {number}"), ENTRY) for number in range(SHOWN_AT_MOST + 5))
    report = reported(tmp_path, {
        ("lab-1", "overlay"): Finding("", (ENTRY,)), ("lab-1", "reach"): Finding("", (), many),
    })  # fmt: skip
    report.summary()
    shown = capsys.readouterr().out
    assert shown.count("lab-1 reach: pair ") == SHOWN_AT_MOST and "… and 5 more (--json FILE has all)" in shown
    (deviation,) = json.loads((tmp_path / "audit.json").read_text())["hosts"]["lab-1"]["overlay"]["deviations"]
    assert len(deviation["consequences"]) == SHOWN_AT_MOST + 5
