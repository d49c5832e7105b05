"""The catalogue is whole: each kind has a case or a reason, each case an answer and a kind."""

from __future__ import annotations

from .catalogue import CASES, ELSEWHERE, IDS, MORE
from .corpus import cases

NAMES = {case.name for case in cases()}


def test_each_of_the_129_kinds_has_cases_or_a_reason() -> None:
    assert len(IDS) == 129
    assert sorted([*CASES, *ELSEWHERE]) == sorted(IDS)
    assert all(len(reason) > 30 for reason in ELSEWHERE.values())


def test_each_entry_leads_to_a_case() -> None:
    for kind, beginnings in [*CASES.items(), ("more", MORE)]:
        for beginning in beginnings:
            assert any(name.startswith(beginning) for name in NAMES), f"{kind}: {beginning}"


def test_each_case_is_of_a_kind() -> None:
    beginnings = tuple(beginning for entry in (*CASES.values(), MORE) for beginning in entry)
    assert {name for name in NAMES if not name.startswith(beginnings)} == set()


def test_more_than_250_inputs() -> None:
    assert len(NAMES) > 250
