"""What follows from another deviation is told beside it, and never lost."""

from __future__ import annotations

from privnet.audit.finding import NOTHING, Deviation, Finding, about, fold


def deviating(subject: str, thing: str, *stands_on: str) -> Deviation:
    (found,) = about(thing, [Deviation(subject, "there", NOTHING)], *stands_on)
    return found


UNIT = deviating("a unit", "unit a")
NAMESPACE = deviating("a namespace", "namespace a", "unit a")
PORT = deviating("a port", "port a", "namespace a")
OTHER = deviating("another port", "port b", "namespace b")


def test_a_consequence_follows_from_the_first_cause_also_over_others() -> None:
    folded = fold({"units": Finding("", (UNIT,)), "containers": Finding("", (NAMESPACE, PORT, OTHER))})
    assert folded["units"].deviations == (UNIT,)
    assert folded["containers"].deviations == (OTHER,)
    assert folded["containers"].follows == ((NAMESPACE, UNIT), (PORT, UNIT))


def test_without_its_cause_each_is_a_deviation() -> None:
    folded = fold({"containers": Finding("", (PORT, OTHER))})
    assert folded["containers"] == Finding("", (PORT, OTHER))


def test_a_check_that_only_follows_is_not_ok() -> None:
    states = fold({"units": Finding("", (UNIT,)), "containers": Finding("", (NAMESPACE,))})
    answers = deviating("a resolver", "", "namespace a")
    names = fold({"names": Finding("", (answers,))}, states.values())["names"]
    assert names.deviations == () and names.follows == ((answers, UNIT),)
    assert not names.ok and not states["containers"].ok
    assert Finding("").ok
