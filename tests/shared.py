"""Fleets that modules share: booted and deployed to once in a process, lent to one module after another.

What a module changes is its own. Afterwards a run makes the fleet what its inventory says, and every host is compared
with what it was at first. A fleet that differs is taken down, and the next module that asks gets a new one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from lab.kernel import difference, dump
from lab.runs import deploy
from privnet.lab import Lab, LabError
from privnet.load import LOCK_FILE

Boot = Callable[[], Lab]
Prepare = Callable[[Lab], object]
"""What is done after a deploy to a fleet, and does no harm when it is done again."""


class SharedFleet:
    """One fleet, from the first module that borrows it to the end of the process."""

    def __init__(self, boot: Boot, prepare: Prepare) -> None:
        self._boot = boot
        self._prepare = prepare
        self._lab: Lab | None = None
        self._declared: dict[Path, str] = {}
        self._clean: dict[str, list[str]] = {}

    def lend(self) -> Lab:
        """The fleet as its inventory declares it, deployed to and prepared."""
        if self._lab is None:
            lab = self._boot()
            self._declared = {path: path.read_text() for path in _files(lab)}
            deploy(lab)
            self._prepare(lab)
            self._clean = dump(lab)
            self._lab = lab
        return self._lab

    def take_back(self) -> str:
        """Make the fleet as it was lent. Return why it is not, and then it is gone; the empty string when it is."""
        if self._lab is None:
            return ""
        try:
            why = self._restore(self._lab)
        except (AssertionError, LabError, OSError) as error:
            why = str(error)
        if why:
            self.end()
        return why

    def _restore(self, lab: Lab) -> str:
        shutil.rmtree(lab.inventory / "projects", ignore_errors=True)
        for path, text in self._declared.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        lab.up()
        deploy(lab, allow=True)
        self._prepare(lab)
        return difference(self._clean, dump(lab))

    def end(self) -> None:
        if self._lab is not None:
            self._lab.down()
            self._lab = None


def _files(lab: Lab) -> list[Path]:
    """The files of a fleet's declaration, and the inventory that reads them."""
    declared = (path for path in lab.inventory.rglob("*.yaml") if path.name != LOCK_FILE)
    return [*declared, lab.inventory.with_suffix(".py")]
