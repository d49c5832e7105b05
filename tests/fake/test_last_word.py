"""A run may leave its last word to a person: hosts wait, are confirmed, or roll back."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from test_runs import Fleet, Ran, fleet, moving, states

from privnet.deploy import command
from privnet.deploy.waiting import WORD

__all__ = ["fleet"]


def changed(fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch) -> tuple[Fleet, Ran]:
    """Hosts that a run leaves waiting for ten minutes."""
    made = fleet()
    made.project("p0", 0, ["h1", "h3"])
    monkeypatch.setenv(command.WITHIN, "600")
    ran = made.run("--json", "-y")
    monkeypatch.delenv(command.WITHIN)
    return made, ran


def waiting(made: Fleet, *hosts: str) -> None:
    """What these hosts answer from then on."""
    for name in hosts:
        lines = made.answers[name]
        at = lines.index("##privnet packages")
        lines[at:at] = ["armed r7 elsewhere", "held yes", "generation r7 switch done"]


def test_hosts_are_held_and_not_confirmed(fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch) -> None:
    _, ran = changed(fleet, monkeypatch)
    assert ran.code == 0, ran.stderr
    assert set(states(ran).values()) == {"held"}
    assert not any(" privnet confirm " in line for _, line in ran.executed)
    assert {name for name, line in ran.executed if " privnet hold " in line and " 600 &&" in line} == {"h1", "h2", "h3"}
    # No execution more than otherwise.
    assert ran.asked == {"h1": 4, "h2": 3, "h3": 3}


def test_a_host_that_keeps_something_old_is_held_all_the_same(
    fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host without an answer may still send there. The held one waits for a person, and no run may come before."""
    made = moving(fleet)
    made.data["h3"] = {"away": True}
    monkeypatch.setenv(command.WITHIN, "600")
    ran = made.run("--json", "-y")
    assert states(ran) == {"h1": "held", "h2": "held", "h3": "unreached"}
    assert ran.outcome["hosts"]["h2"]["why"] == "what is old stays until a later run"


def test_another_run_changes_nothing_meanwhile(fleet: Callable[..., Fleet]) -> None:
    made = fleet()
    made.project("p0", 0, ["h1", "h3"])
    waiting(made, "h2")
    ran = made.run("--json", "-y")
    assert ran.code == 1 and ran.programs == {}
    why = (
        "nothing is changed: run r7 waits on h2 for a person: `privnet confirm INVENTORY` keeps what it has done, "
        "`privnet undo INVENTORY` rolls it back"
    )
    assert ran.outcome["stopped"] == {"why": why, "kind": "locked"}


@pytest.mark.parametrize(("word", "becomes"), [("confirm", "changed"), ("undo", "undone")])
def test_a_person_says_the_last_word(
    fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch, word: str, becomes: str
) -> None:
    made = fleet()
    waiting(made, "h1", "h2")
    ran = said(made, monkeypatch, word)
    assert states(ran) == {"h1": becomes, "h2": becomes, "h3": "unchanged"}
    assert ran.programs == {}
    assert sorted(name for name, line in ran.executed if f" privnet {word} r7 'r7 switch done'" in line) == ["h1", "h2"]


def said(made: Fleet, monkeypatch: pytest.MonkeyPatch, word: str) -> Ran:
    monkeypatch.setenv(WORD, word)
    return made.run("--json", "-y", deploy=command.HERE / "last_word.py")


def test_nothing_is_confirmed_while_a_host_does_not_answer(
    fleet: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would roll back alone. To undo the others waits for nobody."""
    made = fleet()
    waiting(made, "h1", "h2")
    made.data["h3"] = {"away": True}
    ran = said(made, monkeypatch, "confirm")
    why = "nothing is confirmed, since hosts without an answer would roll back alone: h3. Try again when they answer"
    assert ran.outcome["stopped"]["why"].startswith(why)
    assert not any(" privnet confirm " in line for _, line in ran.executed)
    ran = said(made, monkeypatch, "undo")
    assert states(ran) == {"h1": "undone", "h2": "undone", "h3": "unreached"}
    assert json.dumps(ran.outcome["stopped"]) == "null"
