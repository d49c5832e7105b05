"""Why units failed: the last lines that they wrote to a host's journal. Pure.

systemctl says only where to look. A host is not trusted: what it says is bounded, and control characters are shown.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from privnet.diagnostics import plural, visible

NETWORKD = "systemd-networkd.service"
UNITS = ("privnet-*", "wg-quick@privnet.service", NETWORKD)
ENTRIES_AT_MOST = 400
LINES_SAID, WIDTH_SAID, UNITS_SAID = 3, 200, 3
_FIELDS = "MESSAGE,PRIORITY,UNIT,JOB_RESULT,_SYSTEMD_UNIT,_PID"
_LENGTH_AT_MOST = 20_000
_WARNING = 4


@dataclass(frozen=True, slots=True)
class _Entry:
    unit: str
    text: str
    result: str
    priority: int
    by_systemd: bool


def question(seconds: int) -> str:
    """The shell command that prints what our units have written in the last seconds, a JSON object a line."""
    units = " ".join(f"--unit='{unit}'" for unit in UNITS)
    return (
        f"journalctl --sync 2> /dev/null; journalctl --quiet --no-pager --since=-{seconds}s --lines={ENTRIES_AT_MOST} "
        f"--output=json --output-fields={_FIELDS} {units}"
    )


def causes(lines: Iterable[str]) -> str:
    """What the units have said that could not do what they were to, last; empty when none of them has."""
    entries = [entry for line in lines if (entry := _entry(line))]
    said = defaultdict[str, list[str]](list)
    failed: dict[str, str] = {}
    for entry in entries:
        if entry.result and entry.result != "done":
            failed.setdefault(entry.unit, entry.result)
    # A unit that waited for another one has nothing to say of its own.
    own = [unit for unit, result in failed.items() if result != "dependency"] or [*failed]
    for unit in own:
        said[unit] = [*_words(entries, unit)]
    if any(unit.startswith("privnet-overlay@") for unit in own):
        warnings = [e.text for e in entries if e.unit == NETWORKD and not e.by_systemd and e.priority <= _WARNING]
        said[NETWORKD] = [*said.get(NETWORKD, ()), *warnings]
    # Many units may have failed for one reason.
    alike = defaultdict[str, list[str]](list)
    for unit, texts in said.items():
        alike["; ".join(_last(texts))].append(unit)
    told = [f"{_some(units, failed)}: {text}" for text, units in alike.items() if text]
    more = f". And {plural(len(told) - UNITS_SAID, 'other unit')}" if len(told) > UNITS_SAID else ""
    return ". ".join(told[:UNITS_SAID]) + more


def _some(units: list[str], failed: Mapping[str, str]) -> str:
    more = f" and {plural(len(units) - 1, 'other')}" if len(units) > 1 else ""
    return f"{units[0]}{more}{' failed' if units[0] in failed else ''}"


def _words(entries: list[_Entry], unit: str) -> Iterator[str]:
    """What a unit's own programs have written; what systemd says of it only where there is nothing else."""
    every = [entry for entry in entries if entry.unit == unit]
    yield from [e.text for e in every if not e.by_systemd] or [e.text for e in every if e.priority <= _WARNING + 1]


def _last(texts: list[str]) -> list[str]:
    """The last few that differ, in their order."""
    newest = list(dict.fromkeys(reversed([text for text in texts if text])))[:LINES_SAID]
    return newest[::-1]


def _entry(line: str) -> _Entry | None:
    if len(line) > _LENGTH_AT_MOST:
        return None
    try:
        found = json.loads(line)
        words = {key: value for key, value in found.items() if isinstance(value, str)}
        unit = words.get("UNIT") or words["_SYSTEMD_UNIT"]
        text = _text(found.get("MESSAGE"))
        priority = int(words.get("PRIORITY", "6")[:2])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    shown = visible(" ".join(text.split())[:WIDTH_SAID])
    by_systemd = words.get("_PID") == "1"
    return _Entry(visible(unit[:100]), shown, words.get("JOB_RESULT", "") if by_systemd else "", priority, by_systemd)


def _text(message: object) -> str:
    """A message; one with control characters is a list of bytes (journalctl(1))."""
    if isinstance(message, list):
        return bytes(message).decode("utf-8", "replace")
    return message if isinstance(message, str) else ""
