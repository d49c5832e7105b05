"""The lock file: written whole or not at all, and refused with a place and a remedy when it is not what was written."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from privnet.diagnostics import DeclarationError, render_text
from privnet.model.identifiers import Prefix
from privnet.model.lock import HostLock, Lock, NetworkLock, Rest, Slot, Version
from privnet.store import load_lock, lock_path, lock_text, save_lock

AP = "ap-a71da13f-7c70-4c00-a644-eee8558d8053"
PN = "pn-ad0fd6a1-d05e-40ea-bf63-c4f8a75a9d8c"
KEY = "A" * 42 + "Q="
SLOTS = {f"{index}.web.{AP}": Slot(0x0AF00001 + index, "a") for index in (1, 2, 10)}
LOCK = Lock(
    fleet="test",
    serial=7,
    hosts={
        "a": HostLock(0x64400001, KEY, "ssh-ed25519 " + "B" * 68),
        "b": HostLock(0x64400002),
    },
    networks={PN: NetworkLock("shop", 4096, Prefix.parse("10.240.0.0/22"), SLOTS)},
    applications={AP: "shop"},
    quarantine=(
        Rest("address", PN, 0x0AF00009, 1_700_000_000),
        Rest("mesh", "", 0x64400009, 1_700_000_000),
        Rest("vni", "", 4097, 1_700_000_000),
    ),
    history=(Version(5, "5" * 64), Version(6, "6" * 64)),
)


def refused(directory: Path) -> str:
    """How a lock file is refused, as text; every refusal says where and what to do."""
    with pytest.raises(DeclarationError) as caught:
        load_lock(directory, "test")
    for problem in caught.value.problems:
        assert problem.help, problem
        assert "privnet.lock.yaml" in f"{problem.message}{problem.place}", problem
    return render_text(caught.value.problems, color=False, sources=caught.value.sources)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    saved = save_lock(tmp_path, replace(LOCK, serial=0))
    assert saved.serial == 1
    assert load_lock(tmp_path, "test") == saved
    assert lock_text(load_lock(tmp_path, "test")) == lock_path(tmp_path).read_text()


def test_no_lock_file_is_an_empty_one(tmp_path: Path) -> None:
    assert load_lock(tmp_path, "test") == Lock(fleet="test")


def test_a_saved_file_remembers_those_before_it(tmp_path: Path) -> None:
    """Also one from before lock files remembered anything: by the checksum that it has, which hosts have from it."""
    lock_path(tmp_path).write_text(lock_text(replace(LOCK, history=())))
    assert "history" not in lock_path(tmp_path).read_text()
    seen = []
    for _ in range(3):
        seen.append((load_lock(tmp_path, "test").serial, stated(tmp_path)))
        # What a caller says of the past does not count.
        save_lock(tmp_path, replace(load_lock(tmp_path, "test"), history=()))
        assert [(one.serial, one.checksum) for one in load_lock(tmp_path, "test").history] == seen
    assert [serial for serial, _ in seen] == [7, 8, 9]
    lines = [f"  - {serial} {digest}\n" for serial, digest in seen]
    assert lock_path(tmp_path).read_text().endswith("".join(["history:\n", *lines]))


def stated(directory: Path) -> str:
    """The checksum that stands in the file."""
    return lock_path(directory).read_text().partition("checksum: ")[2].partition("\n")[0]


def test_the_text_is_for_reviewers(tmp_path: Path) -> None:
    text = lock_text(LOCK)
    assert text.startswith("# Written by privnet")
    assert f"      10.web.{AP}: 10.240.0.11 a\n" in text
    assert text.isascii()
    assert max(map(len, text.splitlines())) < 120


def test_cut_at_every_byte_it_is_refused(tmp_path: Path) -> None:
    text = lock_text(LOCK)
    for length in range(len(text)):
        lock_path(tmp_path).write_text(text[:length])
        assert refused(tmp_path).startswith("error[PN")
    lock_path(tmp_path).write_text(text)
    assert load_lock(tmp_path, "test") == LOCK, "whole it is not"


def test_with_any_bit_flipped_it_is_refused(tmp_path: Path) -> None:
    """But for its comment, which says nothing."""
    data = lock_text(LOCK).encode()
    body = data.index(b"version:")
    rng = random.Random(1)
    places = [(at, 1 << bit) for at in range(body, len(data)) for bit in range(8)]
    for at, mask in rng.sample(places, 1200):
        lock_path(tmp_path).write_bytes(data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])
        refused(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("serial: 7", "serial: 8", "PN501"),
        ("10.240.0.2 a", "10.240.0.3 a", "PN501"),
        ("checksum: ", "checksun: ", "PN501"),
        ("version: 1", "version: 2", "PN"),
        ("fleet: test", "fleet: test\n<<<<<<< mine", "PN"),
    ],
)
def test_an_edited_or_merged_file_says_so(tmp_path: Path, old: str, new: str, code: str) -> None:
    lock_path(tmp_path).write_text(lock_text(LOCK).replace(old, new, 1))
    assert f"error[{code}" in refused(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"serial": -1},
        {"hosts": {"a": HostLock(1, "not a key")}},
        {"hosts": {"UPPER": HostLock(1)}},
        {"networks": {"pn-1": NetworkLock("shop", 5, Prefix.parse("10.0.0.0/24"))}},
        {"networks": {PN: NetworkLock("shop", 2**24, Prefix.parse("10.0.0.0/24"))}},
        {"networks": {PN: NetworkLock("shop", 5, Prefix.parse("10.0.0.0/24"), {"0.web.x": Slot(1, "a")})}},
        {"networks": {PN: NetworkLock("shop", 5, Prefix.parse("10.0.0.0/24"), {f"1.web.{AP}": Slot(1, "; rm -rf /")})}},
        {"quarantine": (Rest("nothing", "", 1, 1),)},
        {"applications": {"ap-1": "shop"}},
        {"history": (Version(6, "not a checksum"),)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_right_checksum_does_not_make_wrong_content_right(tmp_path: Path, change: dict[str, Any]) -> None:
    lock_path(tmp_path).write_text(lock_text(replace(LOCK, **change)))
    assert "privnet.lock.yaml:" in refused(tmp_path)


def test_the_lock_file_of_another_fleet(tmp_path: Path) -> None:
    lock_path(tmp_path).write_text(lock_text(replace(LOCK, fleet="other")))
    assert 'belongs to fleet "other", not to "test"' in refused(tmp_path)


@pytest.mark.parametrize("kind", ["directory", "link", "fifo", "empty", "binary"])
def test_something_else_in_its_place(tmp_path: Path, kind: str) -> None:
    path = lock_path(tmp_path)
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes(b"" if kind == "empty" else bytes(range(256)))
    assert refused(tmp_path).startswith("error[PN")


def test_a_save_after_another_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    first = save_lock(tmp_path, Lock(fleet="test"))
    mine, theirs = replace(first, applications={AP: "mine"}), replace(first, applications={AP: "theirs"})
    save_lock(tmp_path, theirs)
    before = lock_path(tmp_path).read_bytes()
    with pytest.raises(DeclarationError) as caught:
        save_lock(tmp_path, mine)
    (problem,) = caught.value.problems
    assert problem.code == "PN507"
    assert "it has serial 2, this run began with 1" in problem.message
    assert "run the same command again" in problem.help
    assert lock_path(tmp_path).read_bytes() == before


def test_a_save_over_another_file_of_the_same_serial_is_refused(tmp_path: Path) -> None:
    """Two branches that were deployed once each, and a checkout of the other one while a run goes on."""
    first = save_lock(tmp_path, Lock(fleet="test"))
    before = lock_path(tmp_path).read_bytes()
    save_lock(tmp_path, replace(first, applications={AP: "theirs"}))
    theirs = lock_path(tmp_path).read_bytes()
    lock_path(tmp_path).write_bytes(before)
    save_lock(tmp_path, replace(load_lock(tmp_path, "test"), applications={AP: "ours"}))
    ours = load_lock(tmp_path, "test")
    lock_path(tmp_path).write_bytes(theirs)
    with pytest.raises(DeclarationError) as caught:
        save_lock(tmp_path, replace(ours, applications={}))
    (problem,) = caught.value.problems
    assert problem.code == "PN507"
    assert "another one has serial 2 now too" in problem.message and problem.help
    assert lock_path(tmp_path).read_bytes() == theirs
    lock_path(tmp_path).write_bytes(before)
    save_lock(tmp_path, replace(load_lock(tmp_path, "test"), applications={AP: "ours"}))
    assert save_lock(tmp_path, replace(ours, applications={})).serial == 3, "the twin: it is the file that was read"


def test_of_many_who_save_at_once_one_wins(tmp_path: Path) -> None:
    start = threading.Barrier(8)
    outcomes: list[str] = []

    def save(number: int) -> None:
        start.wait()
        try:
            save_lock(tmp_path, replace(Lock(fleet="test"), applications={AP: f"p{number}"}))
            outcomes.append("saved")
        except DeclarationError as error:
            outcomes.append(error.problems[0].code)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["PN507"] * 7 + ["saved"]
    assert load_lock(tmp_path, "test").serial == 1


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = save_lock(tmp_path, LOCK_AT_START)
    before = lock_path(tmp_path).read_bytes()

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(OSError, match="No space"):
            save_lock(tmp_path, replace(first, applications={AP: "x"}))
    assert lock_path(tmp_path).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [lock_path(tmp_path).name]
    assert save_lock(tmp_path, replace(first, applications={AP: "x"})).serial == 2


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_a_save_writes_through_no_link(tmp_path: Path, target: str) -> None:
    """One that was committed under the name that the next lock file is written under."""
    directory = tmp_path / "fleet"
    directory.mkdir()
    (tmp_path / "elsewhere").write_text("not privnet's\n")
    (directory / f".{lock_path(directory).name}.new").symlink_to(tmp_path / target)
    saved = save_lock(directory, LOCK_AT_START)
    assert load_lock(directory, "test") == saved
    assert (tmp_path / "elsewhere").read_text() == "not privnet's\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "fleet"]
    assert [path.name for path in directory.iterdir()] == [lock_path(directory).name]


def test_a_save_keeps_the_mode_of_the_file(tmp_path: Path) -> None:
    """A group that shares a checkout goes on to share it."""
    first = save_lock(tmp_path, LOCK_AT_START)
    lock_path(tmp_path).chmod(0o660)
    save_lock(tmp_path, first)
    assert lock_path(tmp_path).stat().st_mode & 0o777 == 0o660


LOCK_AT_START = Lock(fleet="test")


def test_no_reader_ever_sees_half_a_file(tmp_path: Path) -> None:
    """A reader that reads all the time, while a writer writes a larger and larger file."""
    save_lock(tmp_path, LOCK_AT_START)
    done = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not done.is_set():
            seen.append(load_lock(tmp_path, "test").serial)

    reader = threading.Thread(target=read)
    reader.start()
    lock = load_lock(tmp_path, "test")
    for number in range(30):
        hosts = {f"h{index}": HostLock(index + 1) for index in range(number * 5)}
        lock = save_lock(tmp_path, replace(lock, hosts=hosts))
    done.set()
    reader.join()
    assert seen == sorted(seen)
    assert seen


_TWICE_UNDER_GEVENT = """
from gevent import monkey; monkey.patch_all()
import sys
from pathlib import Path
import gevent
from privnet.model.lock import Lock
from privnet.store import save_lock
def save():
    print(save_lock(Path(sys.argv[1]), save_lock(Path(sys.argv[1]), Lock(fleet="test"))).serial)
gevent.spawn(save).join()
"""


def test_a_run_saves_twice_although_gevent_puts_off_the_close(tmp_path: Path) -> None:
    """In pyinfra's process ``os.close`` of a directory happens when the event loop turns, behind the second save."""
    command = [sys.executable, "-c", _TWICE_UNDER_GEVENT, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.stdout == "2\n", done.stderr
