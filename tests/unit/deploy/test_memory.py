# ruff: noqa: E501 - sentences stand as they are printed
"""What hosts remember against what the lock file knows of its own past."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from answers import bare, text

from privnet.deploy.memory import RECORD, doubt
from privnet.deploy.state import Applied, FileState, HostState, parse_snapshot
from privnet.model.lock import Lock, Version
from privnet.store import VERSIONS_KEPT, load_lock, lock_path, lock_text, lock_versions, save_lock

PLACE = Path("inventory/prod")
OTHER = "a" * 64
AP = "ap-a71da13f-7c70-4c00-a644-{:012}"
Remembered = Mapping[str, tuple[int, str] | None]


def said(
    versions: tuple[Version, ...], hosts: Remembered, silent: tuple[str, ...] = (), having: tuple[str, ...] = ()
) -> str | None:
    state = parse_snapshot(text(bare()))
    assert isinstance(state, HostState)
    states = {
        name: replace(
            state,
            applied=Applied(*found, f"run-of-{name}") if found else None,
            files={RECORD: FileState("f", "644", "0:0", "0" * 64)} if name in having else {},
        )
        for name, found in hosts.items()
    }
    return doubt(PLACE, versions, states, silent)


def version(serial: int) -> Version:
    return Version(serial, f"{serial:064x}")


def known(*serials: int) -> tuple[Version, ...]:
    return tuple(map(version, serials))


def own(serial: int) -> tuple[int, str]:
    return serial, version(serial).checksum


WRONG: dict[str, tuple[tuple[Version, ...], Remembered, str]] = {
    "an older copy": (
        known(5, 6),
        {"h1": own(6), "h2": own(7)},
        "h2 was changed last by serial 7 of the lock file, and this one has 6: it is an older copy, as after `git revert`. "
        "What is newer would be taken away. Take the newest lock file and keep the YAML: ",
    ),
    "the newest is named": (known(6), {"h1": own(7), "h2": own(9), "h3": own(8)}, "h2 was changed last by serial 9"),
    "no lock file": ((), {"h1": own(3)}, "h1 was changed last by serial 3 of the lock file, and there is none here"),
    "another copy": (
        known(6),
        {"h1": own(6), "h2": (6, OTHER)},
        "h2 was changed by run run-of-h2 with another lock file of",
    ),
    "another copy, by name the first": (
        known(6),
        {"h1": (6, OTHER), "h2": own(6)},
        "h1 was changed by run run-of-h1 with",
    ),
    "another copy, and lower": (known(6), {"h1": (6, OTHER), "h2": own(2)}, "h1 was changed by run run-of-h1 with"),
    "a copy that went its own way": (
        known(3, 4, 5, 6),
        {"h1": own(6), "h2": (4, OTHER), "h3": (5, OTHER)},
        "h2 was changed by run run-of-h2 with another lock file of serial 4 than the one from which this one, of 6, "
        "comes (1 other host likewise): two copies have been deployed, as two branches have them. Take the newest lock file "
        "and keep the YAML: `git log --all -- inventory/prod/privnet.lock.yaml` shows its versions, `git checkout COMMIT "
        "-- inventory/prod/privnet.lock.yaml` takes one. If it is lost, or each of two copies has changed hosts, `privnet "
        "import` rebuilds it from the fleet",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_lock_file_that_cannot_be_the_one_of_all_hosts(what: str) -> None:
    versions, hosts, sentence = WRONG[what]
    told = said(versions, hosts)
    assert told is not None
    assert told.startswith(f"PN509: nothing is changed: {sentence}")
    assert "git log --all -- inventory/prod/privnet.lock.yaml" in told and "privnet import" in told


RIGHT: dict[str, tuple[tuple[Version, ...], Remembered]] = {
    "of it": (known(6), {"h1": own(6), "h2": own(6)}),
    "of one before it": (known(4, 5, 6), {"h1": own(6), "h2": own(4)}),
    "of one before its memory": (known(4, 5, 6), {"h1": own(6), "h2": (3, OTHER)}),
    "of one before it had a memory": (known(6), {"h1": (5, OTHER), "h2": own(6)}),
    "of one that was rebuilt from hosts without it": (known(2, 6, 7), {"h1": (4, OTHER)}),
    "of two copies from which it was rebuilt": (
        (*known(5), Version(5, OTHER), *known(6)),
        {"h1": own(5), "h2": (5, OTHER)},
    ),
    "of none": (known(6), {"h1": own(6), "h2": None}),
    "nothing anywhere, and no lock file": ((), {"h1": None, "h2": None}),
}


@pytest.mark.parametrize("what", RIGHT)
def test_a_lock_file_that_can_be_the_one_of_all_hosts(what: str) -> None:
    assert said(*RIGHT[what]) is None


def test_hosts_that_do_not_answer_matter_only_without_a_lock_file() -> None:
    hosts: Remembered = {"h1": None}
    assert said(known(1), hosts, silent=("h2",)) is None
    told = said((), hosts, silent=("h5", "h2", "h3", "h4"))
    assert told == (
        "PN509: nothing is changed: there is no privnet.lock.yaml in inventory/prod, and whether private networks are on "
        "h2, h3, h4 and 1 other already nobody has said: numbers in use there would be given to others. Take the newest "
        "lock file and keep the YAML: `git log --all -- inventory/prod/privnet.lock.yaml` shows its versions, `git "
        "checkout COMMIT -- inventory/prod/privnet.lock.yaml` takes one. If it is lost, or each of two copies has changed "
        "hosts, `privnet import` rebuilds it from the fleet. If the fleet is new: run without `--limit` while every host "
        "answers, and leave hosts that are not there yet out of inventory/prod/fleet.yaml"
    )


def test_a_host_with_a_record_has_been_in_private_networks_whatever_else_it_remembers() -> None:
    told = said((), {"h1": None, "h2": None}, silent=("h3",), having=("h2",))
    assert told is not None and "private networks are on h2 already, and there is no privnet.lock.yaml in inv" in told
    assert said(known(1), {"h1": None, "h2": None}, having=("h2",)) is None


def test_an_old_backup_is_found_out_however_often_it_was_written(tmp_path: Path) -> None:
    """Real files: a copy of serial 4 that is deployed to a host of its own until its serial is above all others."""
    real, copy = tmp_path / "real", tmp_path / "copy"
    for place in (real, copy):
        place.mkdir()
    lock = Lock(fleet="test")
    for _ in range(4):
        lock = save_lock(real, lock)
    lock_path(copy).write_text(lock_text(lock))
    away = lock_versions(lock)[-1]
    for number in range(3):
        lock = save_lock(real, replace(lock, applications={AP.format(number): "shop"}))
    hosts = {"h1": _pair(lock_versions(lock)[-1]), "h2": _pair(away)}
    assert said(lock_versions(lock), hosts) is None, "the twin: h2 was away"
    backup = load_lock(copy, "test")
    for number in range(10):
        told = said(lock_versions(backup), hosts)
        assert (
            told is not None and ("changed last by serial 7" if backup.serial < 7 else "another lock file of") in told
        )
        # Another project of its own, or it would be the same file.
        backup = save_lock(copy, replace(backup, applications={AP.format(number): "blog"}))
    assert backup.serial == 14


def _pair(one: Version) -> tuple[int, str]:
    return one.serial, one.checksum


def test_only_so_many_versions_are_kept(tmp_path: Path) -> None:
    lock = Lock(fleet="test")
    for _ in range(VERSIONS_KEPT + 5):
        lock = save_lock(tmp_path, lock)
    assert [one.serial for one in lock.history] == [*range(5, VERSIONS_KEPT + 5)]
    assert load_lock(tmp_path, "test") == lock
