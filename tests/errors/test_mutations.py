"""No way around: whatever is changed in a right fleet is refused at a place inside a file, or gives right files."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from privnet.compiler import compile_fleet, render_fleet
from privnet.diagnostics import CODES, DeclarationError, Problem, render_json, render_text
from privnet.render import ManagedFile, static_files

from .corpus import HERE, NOW
from .mutations import KEY, WAYS, mutations

ROOT = HERE.parents[1]
FLEETS = {
    "base": HERE / "base",
    "lab": ROOT / "inventory" / "lab",
    "prod": ROOT / "inventory" / "prod",
    "wide": ROOT / "tests" / "golden" / "wide" / "in",
}
STATIC = {file.path for file in static_files()}


@cache
def grammars() -> Any:
    """The grammars of every kind of file."""
    path = ROOT / "tests" / "unit" / "render" / "test_grammar.py"
    spec = importlib.util.spec_from_file_location("grammars_of_files", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def grammar_of(path: str) -> Callable[[str], None]:
    (found,) = [check for pattern, check in grammars().GRAMMARS if re.fullmatch(pattern, path)]
    return found


SEEN: set[tuple[str, str]] = set()


def obeys(file: ManagedFile) -> None:
    """A file's text is right for its kind; one that was seen before still is."""
    key = (file.path, file.text)
    if key in SEEN or file.path in STATIC:
        return
    if file.is_link:
        assert re.fullmatch(grammars().LINK, file.path), file.path
    else:
        grammar_of(file.path)(file.text)
    SEEN.add(key)


def judge(directory: Path) -> tuple[Problem, ...]:
    """What is wrong with a fleet; when nothing is, all of its files obey their grammars."""
    try:
        compiled = compile_fleet(directory, NOW)
    except DeclarationError as error:
        text = render_text(error.problems, color=False, sources=error.sources)
        assert all(character == "\n" or character.isprintable() for character in text)
        assert KEY[:8] not in text
        assert KEY[:8] not in render_json(error.problems)
        for problem in error.problems:
            inside(problem, error)
        return error.problems
    for files in render_fleet(compiled.plan).values():
        for file in files:
            obeys(file)
    return ()


def _replace(path: Path, text: str) -> None:
    """By another file: of one that is made empty first a file system may wait for the disk."""
    path.unlink()
    path.write_text(text)


def inside(problem: Problem, error: DeclarationError) -> None:
    """A problem has a known code, says what to do, and stands at a place in a file of the fleet."""
    assert problem.code in CODES
    assert problem.help or problem.note
    assert problem.place is not None, problem
    for place in (problem.place, *(related.place for related in problem.related)):
        lines = error.sources[place.path].split("\n")
        assert 1 <= place.line <= len(lines)
        assert 1 <= place.column <= len(lines[place.line - 1]) + 1


@pytest.mark.parametrize("name", FLEETS)
def test_a_right_fleet_with_anything_changed(name: str, tmp_path: Path) -> None:
    directory = tmp_path / name
    shutil.copytree(FLEETS[name], directory, ignore=shutil.ignore_patterns("privnet.lock.yaml", ".*"))
    assert judge(directory) == ()
    seen: Counter[str] = Counter()
    for mutation in mutations(directory):
        path = directory / mutation.file
        before = path.read_text()
        _replace(path, mutation.text)
        try:
            problems = judge(directory)
        except Exception as error:
            raise AssertionError(f"{mutation.name}: {error!r}\n{mutation.text}") from error
        _replace(path, before)
        seen["refused" if problems else "accepted"] += 1
        seen.update({problem.code for problem in problems})
    assert seen["refused"] > 5 * seen["accepted"] > 0, seen
    assert seen["refused"] > 500
    assert len(seen) > 20, seen


def test_every_way_is_tried() -> None:
    tried = Counter(mutation.name.split(" ", 2)[2] for mutation in mutations(FLEETS["base"]))
    assert set(WAYS) | {"deleted", "twice", "neighbour's value", "neighbour's key", "key a newline"} <= set(tried)
