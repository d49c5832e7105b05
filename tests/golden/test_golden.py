"""The same declaration gives the same bytes: those in the repository, whatever the order of files and keys."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import yaml

from privnet.render import HOST_PROGRAMS, UNIT_FILES, static_files

from .trees import CASES, EXAMPLE, HERE, REGENERATE, compiled, printed, stored

ROOT = HERE.parents[1]


@pytest.mark.parametrize("name", CASES)
def test_a_fleet_gives_these_bytes(name: str) -> None:
    now, before = printed(HERE / name), stored(HERE / name)
    assert sorted(now) == sorted(before), f"if this is meant: {REGENERATE}"
    for path, text in now.items():
        assert text == before[path], f"{path}; if this is meant: {REGENERATE}"


def test_the_lab_case_is_the_example() -> None:
    case = HERE / "lab" / "in"
    for path in EXAMPLE.rglob("*.yaml"):
        if path.name != "privnet.lock.yaml":
            assert (case / path.relative_to(EXAMPLE)).read_text() == path.read_text(), f"to copy it: {REGENERATE}"
    assert sorted(path.name for path in (case / "projects").iterdir()) == sorted(
        path.name for path in (EXAMPLE / "projects").iterdir()
    )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_files_and_keys_means_nothing(name: str, seed: int, tmp_path: Path) -> None:
    """Without the lock file too: the first numbers that are given do not depend on any order."""
    rng = random.Random(seed)
    changed = 0
    (tmp_path / "projects").mkdir()
    documents = [path for path in (HERE / name / "in").rglob("*.yaml") if path.name != "privnet.lock.yaml"]
    rng.shuffle(documents)
    for path in documents:
        text = yaml.serialize(_shuffled(yaml.compose(path.read_text()), rng))
        changed += list(yaml.safe_load(text)) != list(yaml.safe_load(path.read_text()))
        (tmp_path / path.relative_to(HERE / name / "in")).write_text(text)
    assert changed, "the shuffle changed nothing"
    first = compiled(tmp_path)
    shutil.copyfile(HERE / name / "in" / "privnet.lock.yaml", tmp_path / "privnet.lock.yaml")
    assert compiled(tmp_path) == stored(HERE / name)
    (tmp_path / "privnet.lock.yaml").unlink()
    shutil.rmtree(tmp_path / "projects")
    for path in documents:
        copy = tmp_path / path.relative_to(HERE / name / "in")
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
    assert compiled(tmp_path) == first


def _shuffled(node: yaml.Node, rng: random.Random) -> yaml.Node:
    if isinstance(node, yaml.MappingNode):
        rng.shuffle(node.value)
        for _, value in node.value:
            _shuffled(value, rng)
    return node


def test_what_every_host_has_is_what_its_source_is() -> None:
    files = {Path(file.path).name: file.text for file in static_files() if not file.is_link}
    for program in HOST_PROGRAMS:
        assert files[program] == (ROOT / "src" / "privnet" / "host" / program).read_text()
    for unit in UNIT_FILES:
        assert files[unit] == (ROOT / "templates" / "systemd" / f"{unit}.j2").read_text()
