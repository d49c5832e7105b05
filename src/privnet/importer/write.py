"""A rebuilt fleet as files: YAML that the ordinary compiler has accepted before anybody sees it."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from privnet.compiler import Compiled, compile_fleet
from privnet.diagnostics import DeclarationError, visible
from privnet.importer.answer import Unusable
from privnet.importer.merge import Rebuilt
from privnet.load import FLEET_FILE, PROJECTS_DIRECTORY
from privnet.model.fleet import Fleet
from privnet.model.project import Project
from privnet.new.documents import INVENTORY
from privnet.plan.record import document
from privnet.report.difference import difference_lines, differences
from privnet.store import lock_path, lock_text

_PLAIN = re.compile("[A-Za-z0-9](?:[A-Za-z0-9 ._/%@+-]*[A-Za-z0-9_/%])?")
"""Texts that YAML reads as they are, wherever they stand."""
_NO_VALUE = ("null", "Null", "NULL")


def check_output(output: Path) -> None:
    """Raises Unusable unless ``output`` and the inventory beside it can be written without overwriting anything."""
    if not output.name or output.name == "..":
        raise Unusable(f"{output}: give the name of a new directory, for example inventory/prod")
    if os.path.lexists(output) and (not output.is_dir() or output.is_symlink() or any(output.iterdir())):
        raise Unusable(f"{output} is there already, and nothing is overwritten; give a new directory")
    shim = output.with_name(f"{output.name}.py")
    if os.path.lexists(shim) and (not shim.is_file() or shim.read_text() != INVENTORY):
        raise Unusable(f"{shim} is there already and is not what would be written; give another directory")


def write_fleet(output: Path, rebuilt: Rebuilt) -> Compiled:
    """Write the fleet, all of it or nothing. Raises Unusable when it does not hold; OSError.

    What the declaration would change in the rebuilt lock file, if hosts were in the middle of a change, is added to
    the remarks.
    """
    check_output(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
        draft = Path(folder) / output.name
        (draft / PROJECTS_DIRECTORY).mkdir(parents=True)
        for name, text in texts(rebuilt).items():
            (draft / name).write_text(text)
        lock_path(draft).write_text(lock_text(rebuilt.lock))
        compiled = _compiled(draft)
        if compiled.lock_changed:
            changes = difference_lines(differences(compiled.known, compiled.lock))
            rebuilt.remarks += [f"the next run would change: {line.strip()}" for line in changes]
        else:
            # The same numbers in the order in which a run writes them.
            lock_path(draft).write_text(lock_text(replace(compiled.lock, serial=rebuilt.lock.serial)))
        draft.rename(output)
    output.with_name(f"{output.name}.py").write_text(INVENTORY)
    return compiled


def _compiled(draft: Path) -> Compiled:
    try:
        return compile_fleet(draft)
    except DeclarationError as error:
        found = [f"{problem.code}: {visible(problem.message)}" for problem in error.problems[:5]]
        raise Unusable(f"what the hosts remember is no declaration that holds: {'; '.join(found)}") from None


def texts(rebuilt: Rebuilt) -> Mapping[str, str]:
    """Every YAML file of the declaration by its name."""
    projects = {f"{PROJECTS_DIRECTORY}/{p.project}.yaml": _lines(_project(p)) for p in rebuilt.projects}
    return {FLEET_FILE: _lines(_fleet(rebuilt.fleet, rebuilt.guessed)), **projects}


def _lines(lines: Iterator[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _fleet(fleet: Fleet, guessed: Mapping[str, str]) -> Iterator[str]:
    yield f"# The fleet {fleet.fleet}, rebuilt by `privnet import` from what its hosts remember."
    yield "# Fields that are not here have their defaults."
    for key, value in document(fleet, without="hosts").items():
        yield f"{key}: {_flow(value)}"
    yield ""
    yield "hosts:"
    for name, host in fleet.hosts.items():
        if name in guessed:
            yield f"  # {name} did not say what it is. Not known: {guessed[name]}."
        yield f"  {name}: {_flow(document(host))}"


def _project(project: Project) -> Iterator[str]:
    data = document(project)
    yield "# One project: a group of applications with one owner. Rebuilt by `privnet import` from what hosts remember."
    yield f"project: {data.pop('project')}"
    if "private_network" in data:
        yield ""
        yield "# All applications below are in this network: they reach each other on every port, and nobody else does."
        yield "private_network:"
        yield from (f"  {key}: {_flow(value)}" for key, value in data["private_network"].items())
    if "applications" in data:
        yield ""
        yield "applications:"
    for application, fields in data.get("applications", {}).items():
        yield f"  {application}:" if fields else f"  {application}: {{}}"
        for key, value in fields.items():
            if key == "formation":
                yield "    formation:"
                yield from (f"      {kind}: {_flow(placed)}" for kind, placed in value.items())
            else:
                yield f"    {key}: {_flow(value)}"


def _flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and (not _PLAIN.fullmatch(value) or value in _NO_VALUE):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)
