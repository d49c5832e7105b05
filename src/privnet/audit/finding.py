"""What a check says of a host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from privnet.diagnostics import visible

SHOWN_AT_MOST = 200
"""Characters of one expected or actual value on a terminal: whatever a host prints, a line stays a line."""

NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Deviation:
    """One thing that is not as planned.

    :param subject: what it is about, in the words of the plan
    """

    subject: str
    expected: str
    actual: str

    def __str__(self) -> str:
        return f"{shown(self.subject)}: expected {shown(self.expected)}, actual {shown(self.actual)}"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check of one host.

    :param seen: what was compared, in a few words
    """

    seen: str
    deviations: tuple[Deviation, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything is as planned."""
        return not self.deviations


class Unanswered(Exception):
    """A host could not be asked, or its answer could not be read; the message says why."""


def shown(text: str) -> str:
    """``text`` as a terminal may show it: one line, no control characters, not endless."""
    clean = visible(text)
    return clean if len(clean) <= SHOWN_AT_MOST else f"{clean[:SHOWN_AT_MOST]}…"


def compare(subject: str, expected: object, actual: object) -> list[Deviation]:
    """A deviation if the two differ."""
    return [] if expected == actual else [Deviation(subject, str(expected), str(actual))]


def compare_tables(
    expected: Mapping[str, str], actual: Mapping[str, str], subject: str, prefix: str = ""
) -> list[Deviation]:
    """A deviation for each key that is missing, stray, or has another value."""
    found = []
    for key in sorted(expected.keys() | actual.keys()):
        wanted, seen = expected.get(key, NOTHING), actual.get(key, NOTHING)
        if wanted != seen:
            found.append(Deviation(f"{subject}: {prefix}{key}", wanted, seen))
    return found


def compare_sets(expected: Iterable[str], actual: Iterable[str], subject: str) -> list[Deviation]:
    """A deviation for each member that is missing or stray."""
    wanted, seen = set(expected), set(actual)
    missing = [Deviation(subject, member, NOTHING) for member in sorted(wanted - seen)]
    return missing + [Deviation(subject, NOTHING, member) for member in sorted(seen - wanted)]
