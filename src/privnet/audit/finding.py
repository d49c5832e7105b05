"""What a check says of a host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from privnet.diagnostics import visible

SHOWN_AT_MOST = 200
"""Characters of one expected or actual value on a terminal: whatever a host prints, a line stays a line."""

NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Deviation:
    """One thing that is not as planned.

    :param subject: what it is about, in the words of the plan
    :param thing: what it is that is not as planned, for others to stand on: ``unit …``, ``device …``, ``port …``
    :param stands_on: things, or subjects, without which this could not be as planned either
    :param host: of a cause: where it is, when that is not where it is felt
    """

    subject: str
    expected: str
    actual: str
    thing: str = field(default="", compare=False)
    stands_on: frozenset[str] = field(default=frozenset(), compare=False)
    host: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{shown(self.subject)}: expected {shown(self.expected)}, actual {shown(self.actual)}"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check of one host.

    :param seen: what was compared, in a few words
    :param follows: what is not as planned because another deviation is its cause, and that one
    """

    seen: str
    deviations: tuple[Deviation, ...] = ()
    follows: tuple[tuple[Deviation, Deviation], ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything is as planned."""
        return not self.deviations and not self.follows


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


def about(thing: str, deviations: Iterable[Deviation], *stands_on: str) -> Iterator[Deviation]:
    """The same deviations, with what they are about and what that stands on, where they do not say it themselves."""
    for deviation in deviations:
        yield deviation if deviation.thing else replace(deviation, thing=thing, stands_on=frozenset(stands_on))


def fold(findings: Mapping[str, Finding], before: Iterable[Finding] = ()) -> dict[str, Finding]:
    """One host's findings with each consequence beside its cause, so that what was done to a host once is told once.

    Nothing is left out: a consequence is still reported, and its check is not ok; it only is no deviation of its own.

    :param before: findings of that host that are told already
    """
    found = [deviation for finding in (*before, *findings.values()) for deviation in finding.deviations]
    found += [deviation for finding in before for deviation, _ in finding.follows]
    causes: dict[str, Deviation] = {}
    for deviation in found:
        for name in _names(deviation):
            causes.setdefault(name, deviation)
    return {name: _folded(finding, causes) for name, finding in findings.items()}


def fold_across(
    findings: Mapping[tuple[str, str], Finding], told: Mapping[str, Iterable[Finding]]
) -> dict[tuple[str, str], Finding]:
    """The same for findings about more hosts than one, by host and check; their ``stands_on`` are of :func:`on`.

    :param told: of each host the findings about itself alone, folded
    """
    causes: dict[str, Deviation] = {}
    for host, ones in told.items():
        known = list(ones)
        # What only follows leads to what it follows from.
        pairs = [(deviation, deviation) for finding in known for deviation in finding.deviations]
        pairs += [pair for finding in known for pair in finding.follows]
        for what, why in pairs:
            for name in _names(what):
                causes.setdefault(on(host, name), replace(why, host=host, stands_on=frozenset()))
    return {place: _folded(finding, causes) for place, finding in findings.items()}


def cause(deviation: Deviation) -> str:
    """In a few words, where it is told what follows from it."""
    return shown(deviation.subject) + (f" on {deviation.host}" if deviation.host else "")


def on(host: str, thing: str) -> str:
    """A host's thing, among those of all hosts."""
    return f"{host}: {thing}"


def _names(deviation: Deviation) -> list[str]:
    return [name for name in (deviation.thing, deviation.subject) if name]


def _folded(finding: Finding, causes: Mapping[str, Deviation]) -> Finding:
    roots, follows = [], []
    for deviation in finding.deviations:
        cause = _cause(deviation, causes)
        if cause is None:
            roots.append(deviation)
        else:
            follows.append((deviation, cause))
    return replace(finding, deviations=tuple(roots), follows=tuple(follows))


def _cause(deviation: Deviation, causes: Mapping[str, Deviation]) -> Deviation | None:
    """The deviation at the beginning of it all. What stands on what has no circles, so there is one."""
    nearest = next((causes[thing] for thing in sorted(deviation.stands_on) if thing in causes), None)
    return None if nearest is None else _cause(nearest, causes) or nearest
