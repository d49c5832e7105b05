"""A plan as somebody looked at it, in a file; and whether it is still the plan.

The file holds what the plan stood on (the documents of the declaration, the lock file, and with ``--live`` what each
host said) and what it changes. It says nothing about how: that is computed again, and must be the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from privnet.compiler import Compiled
from privnet.diagnostics import DeclarationError, Problem, visible
from privnet.load import FLEET_FILE, PROJECTS_DIRECTORY
from privnet.model.lock import Lock
from privnet.report.fleet import plan_data, removal_data
from privnet.store import lock_text

VERSION = 1
BYTES_AT_MOST = 256 * 2**20
_ASK_AGAIN = "look at the plan again, and save it: `privnet plan INVENTORY --out FILE`"
_NOTE = "what would be done now is not what was looked at"

Live = Mapping[str, Mapping[str, Any]]
"""What each host that has answered was found to be: ``applied``, and ``changes`` that a run would make."""


def plan_file(compiled: Compiled, live: Live | None = None) -> str:
    """The file's content; the same for the same plan.

    :param live: what hosts said, when they were asked
    """
    plan = plan_data(compiled)
    data = {
        "version": VERSION,
        "fleet": compiled.plan.fleet.fleet,
        "documents": _documents(compiled),
        "lock": {"serial": compiled.known.serial, "checksum": _checksum(compiled.known)},
        "changes": plan["changes"],
        "host_changes": plan["host_changes"],
        "removals": plan["removals"],
        "live": live,
    }
    return json.dumps(data, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def read_plan_file(path: Path) -> dict[str, Any]:
    """A saved plan. Raises DeclarationError when it is none, OSError when there is none."""
    with path.open("rb") as file:
        text = file.read(BYTES_AT_MOST + 1)
    try:
        data = json.loads(text) if len(text) <= BYTES_AT_MOST else None
    except (ValueError, RecursionError):
        data = None
    shape: dict[str, Any] = {"fleet": str, "documents": dict, "lock": dict, "changes": list, "live": (dict, type(None))}
    if not isinstance(data, dict) or not all(isinstance(data.get(key, ...), kind) for key, kind in shape.items()):
        raise DeclarationError([_not_a_plan(path, "is not a saved plan")])
    if data.get("version") != VERSION:
        raise DeclarationError([_not_a_plan(path, "was saved by another version of privnet")])
    if not all(isinstance(part, dict) for part in (*data["changes"], *(data["live"] or {}).values())):
        raise DeclarationError([_not_a_plan(path, "is not a saved plan")])
    return data


def _not_a_plan(path: Path, why: str) -> Problem:
    return Problem("PN603", f"{visible(str(path))} {why}", help=_ASK_AGAIN)


def moved_on(saved: Mapping[str, Any], compiled: Compiled) -> Iterator[Problem]:
    """What is no longer as it was when the plan was saved: the YAML, the lock file, or what follows from them."""
    if saved["fleet"] != compiled.plan.fleet.fleet:
        text = f"the plan is of fleet {visible(str(saved['fleet']))}, not of {compiled.plan.fleet.fleet}"
        yield Problem("PN603", text, note=_NOTE, help=_ASK_AGAIN)
        return
    was, found = saved["documents"], _documents(compiled)
    changed = sorted(name for name in {*was, *found} if was.get(name) != found.get(name))
    if changed:
        names = ", ".join(map(visible, changed[:10])) + (f" and {len(changed) - 10} more" if len(changed) > 10 else "")
        yield Problem("PN603", f"the YAML has changed since the plan was saved: {names}", note=_NOTE, help=_ASK_AGAIN)
    lock = {"serial": compiled.known.serial, "checksum": _checksum(compiled.known)}
    if saved["lock"] != lock:
        yield Problem(
            "PN603",
            f"the lock file has changed since the plan was saved: serial {saved['lock'].get('serial')} then, "
            f"{compiled.known.serial} now",
            note=f"another run has been there; {_NOTE}",
            help=_ASK_AGAIN,
        )
    if not changed and saved["lock"] == lock and _what(saved["changes"]) != _what(plan_data(compiled)["changes"]):
        yield Problem(
            "PN603",
            "from the same YAML and lock file other numbers follow than when the plan was saved",
            note=f"a quarantine has ended since, or it was saved by another privnet; {_NOTE}",
            help=_ASK_AGAIN,
        )


def agreed_removals(saved: Mapping[str, Any], compiled: Compiled) -> str | None:
    """The number of removals that a saved plan shows, when a run would remove the same; it needs no other consent."""
    found = removal_data(compiled)
    return str(found["number"]) if found["number"] and saved.get("removals") == found else None


def hosts_moved_on(saved: Mapping[str, Any], live: Live) -> Iterator[Problem]:
    """Hosts that are no longer as they were when the plan was saved with ``--live``.

    One that does not answer now is not judged: a run leaves it as it is.
    """
    for name, was in sorted((saved["live"] or {}).items()):
        found = live.get(name)
        if found is None:
            continue
        if found["applied"] != was.get("applied"):
            then, now = _applied(was.get("applied")), _applied(found["applied"])
            what = f"it was changed by another run: {then} then, {now} now"
        elif found["changes"] != was.get("changes"):
            what = "it needs other changes than then: something on it is different"
        else:
            continue
        text = f"host {name} has moved on since the plan was saved: {what}"
        yield Problem("PN603", text, note=_NOTE, help=_ASK_AGAIN)
    for name in sorted(live.keys() - (saved["live"] or {}).keys()):
        what = "it had not answered when the plan was saved, and does now"
        yield Problem("PN603", f"host {name} is not part of the plan: {what}", note=_NOTE, help=_ASK_AGAIN)


def _applied(text: object) -> str:
    if not text:
        return "nothing applied"
    serial, _, rest = visible(str(text)).partition(" ")
    return f"serial {serial} by run {rest.rpartition(' ')[2]}"


def _documents(compiled: Compiled) -> dict[str, str]:
    """The digest of each document, by its path inside the fleet's directory."""
    found = {}
    for path, text in compiled.declaration.sources.items():
        name = Path(path).name
        key = name if name == FLEET_FILE else f"{PROJECTS_DIRECTORY}/{name}"
        found[key] = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return found


def _checksum(lock: Lock) -> str:
    """The lock file's own; empty when there is none yet."""
    return lock_text(lock).partition("checksum: ")[2].partition("\n")[0] if lock.serial else ""


def _what(changes: Iterable[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """Changes without the times of quarantines, and without what is said about them."""
    keys = ("sign", "kind", "name", "where", "was", "becomes")
    return [tuple(change.get(key) for key in keys) for change in changes if change.get("kind") != "quarantine"]
