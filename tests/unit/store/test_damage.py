"""A damaged lock file: refused with the place and the remedy by everything that reads it, and nothing is written.

Whole fleets and whole commands here; the reader and the writer by themselves are in ``test_store.py``.
"""

from __future__ import annotations

import hashlib
import random
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from privnet.cli import app
from privnet.compiler import compile_fleet
from privnet.diagnostics import DeclarationError, render_text
from privnet.store import load_lock, lock_path, save_lock

INVENTORY = Path(__file__).parents[3] / "inventory"
NOW = 1_790_000_000
SEED = random.SystemRandom().randrange(2**32)
REMEDIES = ("git checkout", "git log", "upgrade privnet", "write `fleet:")


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """The lab's fleet as a deploy leaves it."""
    return deployed(tmp_path / "lab", "lab")


def deployed(directory: Path, name: str) -> Path:
    shutil.copytree(INVENTORY / name, directory, ignore=shutil.ignore_patterns("privnet.lock.yaml"))
    save_lock(directory, compile_fleet(directory, NOW).lock)
    return directory


def refused(directory: Path) -> str:
    """How the fleet is refused, as text. Every refusal says where and what to do, and leaves everything as it is."""
    before = contents(directory)
    with pytest.raises(DeclarationError) as caught:
        compile_fleet(directory, NOW)
    for problem in caught.value.problems:
        assert "privnet.lock.yaml" in f"{problem.message}{problem.place}", problem
        assert any(remedy in problem.help for remedy in REMEDIES), problem
    assert contents(directory) == before
    return render_text(caught.value.problems, color=False, sources=caught.value.sources)


def contents(directory: Path) -> Mapping[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def spoil(directory: Path, change: Callable[[bytes], bytes]) -> None:
    path = lock_path(directory)
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert path.read_bytes() != before


def test_undamaged_it_is_read_and_says_no_change(fleet: Path) -> None:
    assert not compile_fleet(fleet, NOW).lock_changed


def test_cut_at_every_byte(fleet: Path) -> None:
    """An empty file and one with nothing but its heading among them: none of them is a fresh start."""
    path = lock_path(fleet)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DeclarationError) as caught:
            load_lock(fleet, "lab")
        assert any(remedy in caught.value.problems[0].help for remedy in REMEDIES), length
        assert path.stat().st_size == length
    for length in (0, 1, whole.index(b"version"), whole.index(b"fleet:"), whole.index(b"hosts:"), len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "privnet.lock.yaml" in refused(fleet)


def test_bits_flipped_in_every_byte(fleet: Path) -> None:
    """One bit of each byte, behind the comment, which says nothing."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    path = lock_path(fleet)
    whole = path.read_bytes()
    for at in range(whole.index(b"version:"), len(whole)):
        bit = 1 << rng.randrange(8)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        with pytest.raises(DeclarationError) as caught:
            load_lock(fleet, "lab")
        problem = caught.value.problems[0]
        assert any(remedy in problem.help for remedy in REMEDIES), (at, bit, problem)
    for at in rng.sample(range(whole.index(b"version:"), len(whole)), 20):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << rng.randrange(8))]) + whole[at + 1 :])
        refused(fleet)


def test_blocks_lost_or_swapped(fleet: Path) -> None:
    """What a bad disk or a bad copy does: a stretch of zeros, a stretch that is missing, two that changed places."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    whole = lock_path(fleet).read_bytes()
    for _ in range(60):
        first, second, third = sorted(rng.sample(range(whole.index(b"version:"), len(whole)), 3))
        head, one, two, tail = whole[:first], whole[first:second], whole[second:third], whole[third:]
        for damaged in (head + bytes(len(one)) + two + tail, head + two + tail, head + two + one + tail):
            if damaged != whole:
                lock_path(fleet).write_bytes(damaged)
                refused(fleet)


@pytest.mark.parametrize(
    "damaged",
    [b"", b"\n", b"\x00" * 4096, b"# Written by privnet\n", b"{}\n", b"null\n", b"version: 1\n", b"---\n...\n"],
    ids=["empty", "a line", "zeros", "heading", "braces", "null", "version", "document"],
)
def test_a_file_without_content_is_no_fresh_start(fleet: Path, damaged: bytes) -> None:
    lock_path(fleet).write_bytes(damaged)
    refused(fleet)
    for command in (["check"], ["plan"], ["names"], ["report"]):
        told = CliRunner().invoke(app, [*command, str(fleet)])
        assert told.exit_code == 2, told.output
        assert not told.exception or isinstance(told.exception, SystemExit)
    assert lock_path(fleet).read_bytes() == damaged


def test_a_heading_with_the_right_checksum_of_nothing(fleet: Path) -> None:
    checksum = hashlib.sha256(b"").hexdigest()
    lock_path(fleet).write_text(f"version: 1\nchecksum: {checksum}\n")
    refused(fleet)


def test_swapped_with_that_of_another_fleet(fleet: Path, tmp_path: Path) -> None:
    other = deployed(tmp_path / "prod", "prod")
    shutil.copy(lock_path(other), lock_path(fleet))
    text = refused(fleet)
    assert "error[PN503]" in text
    assert 'belongs to fleet "prod", not to "lab"' in text


@pytest.mark.parametrize(
    ("pattern", "new"),
    [
        (rb"serial: 1\n", b"serial: 2\n"),
        (rb"mesh: 100.64.0.1\n", b"mesh: 100.64.0.9\n"),
        (rb"  lab-2:\n.*\n", b""),
        (rb"10[.]240[.]0[.]2 lab-1", b"10.240.0.2 lab-2"),
        (rb"\n$", b"\n\n"),
        (rb"\n", b"\r\n"),
        (rb"(  ap-.*\n)(  ap-.*\n)", rb"\2\1"),
    ],
    ids=["serial", "number", "a host deleted", "a container moved", "a line added", "line ends", "lines swapped"],
)
def test_edited_by_hand(fleet: Path, pattern: bytes, new: bytes) -> None:
    spoil(fleet, lambda whole: re.sub(pattern, new, whole))
    assert "error[PN501]" in refused(fleet)


def test_merged(fleet: Path) -> None:
    """With the marks of a conflict, and as a merge without one: both sides' lines, well-formed and wrong."""
    whole = lock_path(fleet).read_bytes()
    conflict = b"<<<<<<< HEAD\nserial: 2\n=======\nserial: 3\n>>>>>>> other\n"
    spoil(fleet, lambda before: before.replace(b"serial: 1\n", conflict))
    text = refused(fleet)
    assert "error[PN109]" in text
    assert "git checkout --ours" in text
    lock_path(fleet).write_bytes(whole.replace(b"applications:\n", b"applications:\n  ap-" + AP + b": shop\n"))
    assert "error[PN501]" in refused(fleet)


AP = b"11111111-2222-4333-8444-555555555555"


def test_an_older_copy_does_not_overwrite_the_newer_file(fleet: Path) -> None:
    """A run that began from an older copy finds the newer file, and the other way round; neither is written over."""
    old = compile_fleet(fleet, NOW).known
    newer = save_lock(fleet, old)
    with pytest.raises(DeclarationError) as caught:
        save_lock(fleet, old)
    assert caught.value.problems[0].code == "PN507"
    before = lock_path(fleet).read_bytes()
    lock_path(fleet).write_bytes(before.replace(b"serial: 2", b"serial: 1"))  # not restored, but edited to look older
    refused(fleet)
    lock_path(fleet).write_bytes(before)
    assert load_lock(fleet, "lab") == newer


def test_a_save_over_a_damaged_file_is_refused(fleet: Path) -> None:
    """Damage that happens while a run goes on: what the run knows does not replace what it cannot read."""
    known = compile_fleet(fleet, NOW).known
    for damaged in (b"", b"# Written by privnet\n", lock_path(fleet).read_bytes()[:-1]):
        lock_path(fleet).write_bytes(damaged)
        with pytest.raises(DeclarationError) as caught:
            save_lock(fleet, known)
        assert caught.value.problems[0].help
        assert lock_path(fleet).read_bytes() == damaged
    assert [path.name for path in fleet.iterdir() if path.name.startswith(".")] == []
