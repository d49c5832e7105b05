"""Which of `make check`, `make test` and `make test-deep` runs a test: each test is in exactly one of these tiers.

* `check`: what needs no host.
* `test`: the tests on hosts which say that they prove a promise or a feature, by the marker `proves`.
* `deep`: all other tests on hosts. A new test is here until it says what it proves.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TIERS = ("check", "test", "deep")
ON_HOSTS = tuple(HERE / name for name in ("lab", "security", "faults", "machines"))
"""A test below these boots hosts, unless it or its module has the marker `hostless`."""
MACHINES = HERE / "machines"


def needs_hosts(item: pytest.Item) -> bool:
    below = any(directory in item.path.parents for directory in ON_HOSTS)
    return below and item.get_closest_marker("hostless") is None


def proved_by(item: pytest.Item) -> tuple[str, ...]:
    """The promises and features that a test proves.

    `cases` of the marker are ids of parametrized cases: the others of the test prove the same, and are in `deep`.
    """
    case = item.callspec.id if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ""
    marks = [mark for mark in item.iter_markers("proves") if case in mark.kwargs.get("cases", (case,))]
    return tuple(dict.fromkeys(name for mark in marks for name in mark.args))


def tier_of(item: pytest.Item) -> str:
    if not needs_hosts(item):
        return "check"
    return "test" if proved_by(item) else "deep"


def sort_into_tiers(items: list[pytest.Item]) -> None:
    """Give each test the marker of its tier, and tests on hosts the marker `lab`."""
    for item in items:
        item.add_marker(tier_of(item))
        if needs_hosts(item):
            item.add_marker("lab")
        if MACHINES in item.path.parents:
            # Guests without KVM take all processors, which disturbs whoever measures loss.
            item.add_marker("machines")
            item.add_marker("alone")


Known = dict[str, tuple[list[str], list[str]]]
"""Tiers and proofs of each test, by its pytest id."""
KNOWN: pytest.StashKey[Known] = pytest.StashKey()


def _known(items: list[pytest.Item]) -> Known:
    tiers = {item.nodeid: [mark.name for mark in item.iter_markers() if mark.name in TIERS] for item in items}
    return {item.nodeid: (tiers[item.nodeid], [*proved_by(item)]) for item in items}


def remember(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Keep what is known of all tests, if this session has collected all and not yet left out any."""
    if [Path(argument).resolve() for argument in session.config.args] == [HERE]:
        session.stash[KNOWN] = _known(items)


def collected(session: pytest.Session) -> Known:
    """What is known of all tests: of this session, or as a pytest of its own finds them, which takes seconds."""
    if KNOWN in session.stash:
        return session.stash[KNOWN]
    command = [sys.executable, __file__]
    said = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=True).stdout
    (found,) = (line for line in said.splitlines() if line.startswith("{"))
    return {name: (tiers, proofs) for name, (tiers, proofs) in json.loads(found).items()}


class _Lister:
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        print(json.dumps(_known(session.items)))


if __name__ == "__main__":
    options = ["--collect-only", "-qq", "--no-summary", "-p", "no:cacheprovider"]
    sys.exit(pytest.main(options, plugins=[_Lister()]))
