"""A host that another lock file has changed, or whose clock is wrong, is refused by a run; the audit reports it."""

from __future__ import annotations

import pytest

from privnet.audit.actual import SECTIONS, Actual, parse_dump
from privnet.audit.identity import identity
from privnet.model.lock import Version

VERSIONS = (Version(4, "a" * 64), Version(5, "b" * 64))
LAST = "lock file by which it was changed last: expected serial 5, or one that it comes from"
NOW = 1_800_000_000


def actual(told: str) -> Actual:
    parts = {"user": "0", "told": told}
    return parse_dump("".join(f"\nmark {name}\n{parts.get(name, '')}\n" for name in SECTIONS).encode(), "mark")


@pytest.mark.parametrize(
    ("applied", "seconds", "said"),
    [
        (f"5 {'b' * 64} r", 0, []),
        (f"4 {'a' * 64} r", 119, []),
        (f"3 {'c' * 64} r", -119, []),
        ("", 0, []),
        (
            f"99 {'b' * 64} r",
            0,
            [f"{LAST}, actual serial 99 of another one"],
        ),
        (
            f"4 {'c' * 64} r",
            0,
            [f"{LAST}, actual serial 4 of another one"],
        ),
        ("", 86400, ["clock: expected within 120 s of this machine's, actual 86400 s ahead of it"]),
        ("", -121, ["clock: expected within 120 s of this machine's, actual 121 s behind it"]),
    ],
)  # fmt: skip
def test_what_a_host_is(applied: str, seconds: int, said: list[str]) -> None:
    found = identity(None, VERSIONS, actual(f"time {NOW + seconds}\napplied {applied}"), NOW)
    assert [str(deviation) for deviation in found] == said
