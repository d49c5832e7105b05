"""How far the last runs have come: told while it is known, and otherwise said not to be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from privnet.progress import PROGRESS_FILE, Diary, Progress, load_progress, save_progress, unfinished

SUM, OTHER = "a" * 64, "b" * 64
HOSTS = {"h1": Progress(3, SUM), "h2": Progress(2, SUM), "h3": Progress(3, SUM, "failed: no")}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save_progress(tmp_path, "test", HOSTS)
    assert load_progress(tmp_path, "test") == HOSTS
    assert load_progress(tmp_path, "other") is None
    text = (tmp_path / PROGRESS_FILE).read_text()
    assert [line for line in text.splitlines() if '"h2"' in line] == [
        f'  "h2": {{"serial": 2, "checksum": "{SUM}", "open": ""}},'
    ]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, '{"version": 2, "fleet": "test", "hosts": {}}', "\xff"]
)
def test_what_is_damaged_is_not_known(tmp_path: Path, text: str) -> None:
    (tmp_path / PROGRESS_FILE).write_bytes(text.encode("latin-1"))
    assert load_progress(tmp_path, "test") is None


@pytest.mark.parametrize("entry", [1, {"serial": "3"}, {"serial": True}, {"open": None}, {"more": 1}])
def test_an_entry_of_another_shape(tmp_path: Path, entry: object) -> None:
    (tmp_path / PROGRESS_FILE).write_text(json.dumps({"version": 1, "fleet": "test", "hosts": {"h1": entry}}))
    assert load_progress(tmp_path, "test") is None


def test_cut_anywhere_it_is_not_known(tmp_path: Path) -> None:
    save_progress(tmp_path, "test", HOSTS)
    text = (tmp_path / PROGRESS_FILE).read_text().rstrip()
    for length in range(len(text)):
        (tmp_path / PROGRESS_FILE).write_text(text[:length])
        assert load_progress(tmp_path, "test") is None


def test_who_is_not_known_to_have_the_lock_file() -> None:
    assert unfinished(HOSTS, ("h1", "h2", "h3", "h4"), 3, SUM) == {
        "h2": "it has serial 2",
        "h3": "failed: no",
        "h4": "no run has come to its end there",
    }
    assert unfinished(HOSTS, ("h1",), 3, OTHER) == {"h1": "it has another lock file of that serial"}


def test_what_a_run_begins_is_on_disk_before_it_does_it(tmp_path: Path) -> None:
    save_progress(tmp_path, "test", {**HOSTS, "gone": Progress(3, SUM)})
    diary = Diary(tmp_path, "test", ("h1", "h2", "h3"))
    diary.begun("h1", 3, SUM, "pending: x" + "y" * 1000)
    found = load_progress(tmp_path, "test")
    assert found is not None and found.keys() == {"h1", "h2", "h3"}
    assert found["h1"].serial == 3 and found["h1"].open.startswith("pending: xy") and len(found["h1"].open) == 300
    # Of the others it is known already that they are not done: nothing has to be written before they change.
    diary.begun("h2", 3, SUM, "pending: x")
    assert load_progress(tmp_path, "test") == found
    diary.done("h1", 3, SUM)
    diary.begun("h1", 3, SUM, "again")
    after = load_progress(tmp_path, "test")
    assert after is not None and (after["h1"], after["h2"].open) == (Progress(3, SUM, "again"), "pending: x")


def test_a_directory_that_takes_no_file_ends_no_run(tmp_path: Path) -> None:
    Diary(tmp_path / "nowhere", "test", ("h1",)).begun("h1", 0, "", "x")
