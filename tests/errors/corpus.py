"""The corpus of wrong declarations: where its cases are, and what is said about each.

A case is one wrong thing and the exact text that answers it:

* ``fleet/<case>.yaml`` takes the place of ``fleet.yaml`` in the fleet of ``base/``,
* ``project/<case>.yaml`` takes the place of its ``projects/shop.yaml``,
* ``tree/<case>/`` is a whole fleet; a ``lock.json`` in it says what the lock file remembers,
* ``lock/<case>/`` is a whole fleet with its lock file, judged by a whole compile and the removal guard at one moment.

The answer stands beside it in ``<case>.txt``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from privnet.check import check, removal
from privnet.compiler import compile_fleet
from privnet.diagnostics import DeclarationError, render_text
from privnet.load import LOCK_FILE, read_declaration
from privnet.model.identifiers import Prefix
from privnet.model.lock import Lock, NetworkLock
from privnet.store import load_lock

HERE = Path(__file__).parent
TODAY = "2026-01-01"
NOW = 1_700_000_000
FLEETS = ("tree", "lock")
PLACES = {"fleet": "fleet.yaml", "project": "projects/shop.yaml"}


@dataclass(frozen=True)
class Case:
    """One wrong declaration."""

    kind: str
    input: Path

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.input.stem}"

    @property
    def answer(self) -> Path:
        return self.input.with_name(f"{self.input.stem}.txt")

    def lay(self, directory: Path) -> None:
        """Puts the fleet of this case into ``directory``."""
        if self.kind in FLEETS:
            shutil.copytree(self.input, directory, dirs_exist_ok=True, symlinks=True)
            return
        shutil.copytree(HERE / "base", directory, dirs_exist_ok=True)
        shutil.copyfile(self.input, directory / PLACES[self.kind])


def cases() -> Iterator[Case]:
    """All cases, in order."""
    for kind in PLACES:
        yield from (Case(kind, path) for path in sorted((HERE / kind).glob("*.yaml")))
    for kind in FLEETS:
        yield from (Case(kind, path) for path in sorted((HERE / kind).iterdir()) if path.is_dir())


def refuse(directory: Path) -> DeclarationError | None:
    """What is wrong with the fleet in ``directory``, if only by a warning, or None. Paths are seen from inside it."""
    before = Path.cwd()
    os.chdir(directory)
    try:
        declaration = read_declaration(Path())
        whole = (directory / LOCK_FILE).exists()
        known = load_lock(Path(), declaration.fleet.fleet) if whole else _lock(directory / "lock.json")
        problems = list(check(declaration, known, TODAY))
        if whole and all(problem.severity == "warning" for problem in problems):
            fleet = compile_fleet(Path(), NOW)
            problems = [*removal.check(fleet.declaration, fleet.before, fleet.lock, None), *fleet.warnings]
        return DeclarationError(problems, declaration.sources) if problems else None
    except DeclarationError as error:
        return error
    finally:
        os.chdir(before)


def _lock(path: Path) -> Lock | None:
    if not path.exists():
        return None
    said = json.loads(path.read_text())
    networks = {
        network: NetworkLock(project, 4096, Prefix.parse("10.240.0.0/22"))
        for network, project in said["networks"].items()
    }
    return Lock("small", networks=networks, applications=said["applications"])


def answer(case: Case, directory: Path) -> str:
    """The text that a person is shown. Raises AssertionError when nothing is said."""
    case.lay(directory)
    error = refuse(directory)
    assert error is not None, f"{case.name} was accepted"
    return render_text(error.problems, color=False, sources=error.sources)
