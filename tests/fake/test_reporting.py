"""What a run writes only to report is never why it ends, and what it says of hosts is true when it ends early."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_deploy import CONFIG, PRIVNET, Typed, typed  # noqa: F401 - a fixture
from test_runs import fleet  # noqa: F401 - a fixture

HOSTS = ("h1", "h2", "h3")
VARIABLES = ("TMPDIR", "HOME", "XDG_CACHE_HOME")


@contextmanager
def small(path: Path, *options: str) -> Iterator[None]:
    """A file system of its own at that place."""
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(("size=64k", *options)), "none", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(path: Path) -> None:
    """Nothing more can be written there."""
    for number in range(64):
        try:
            (path / f"fill.{number}").write_bytes(bytes(4096))
        except OSError:
            return
    raise AssertionError(f"{path} has room without end")


@contextmanager
def full(path: Path) -> Iterator[str]:
    with small(path):
        fill(path)
        yield str(path)


@contextmanager
def no_inodes(path: Path) -> Iterator[str]:
    with small(path, "nr_inodes=1"):
        yield str(path)


@contextmanager
def read_only(path: Path) -> Iterator[str]:
    with small(path, "ro"):
        yield str(path)


@contextmanager
def a_file(path: Path) -> Iterator[str]:
    path.touch()
    yield str(path)


@contextmanager
def just(text: str) -> Iterator[str]:
    yield text


PLACES: dict[str, Callable[[Path], object]] = {
    "full": full,
    "without inodes": no_inodes,
    "read-only": read_only,
    "a file": a_file,
    "missing": lambda path: just(f"{path}/nowhere"),
    "relative": lambda path: just("some/where"),
    "empty": lambda path: just(""),
    "no name of a file": lambda path: just("/\n\udcff/" + "x" * 300),
    "unset": lambda path: just("UNSET"),
}


def told(typed: Typed, run: subprocess.Popen[str]) -> tuple[int, str, str]:  # noqa: F811
    output, errors = run.communicate(timeout=120)
    assert run.returncode is not None
    return run.returncode, output, errors


@pytest.mark.parametrize("place", PLACES)
def test_a_run_needs_no_directory_for_what_passes(typed: Typed, tmp_path: Path, place: str) -> None:  # noqa: F811
    """All three variables at once; with the three hosts that a run changes, and one plan that asks them."""
    typed.fleet.project("p1", 1, [*HOSTS])
    with PLACES[place](tmp_path / "place") as value:  # type: ignore[attr-defined]
        typed.own = dict.fromkeys(VARIABLES, value)
        code, output, errors = typed("deploy", "test", "-y")
        assert (code, output.splitlines()[-1]) == (0, "DONE: 3 hosts as planned"), errors
        assert "Traceback" not in errors
        assert typed("plan", "test", "--live")[0] == 0
    assert not (typed.folder / "some").exists()


NO_PLACE = """
import tempfile
def nowhere(): raise FileNotFoundError(2, "No usable temporary directory found")
tempfile._get_default_tempdir = nowhere
"""


def test_a_run_needs_no_temporary_directory_at_all(typed: Typed, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "sitecustomize.py").write_text(NO_PLACE)
    typed.own = {"PYTHONPATH": str(tmp_path)}
    typed.fleet.project("p1", 1, [*HOSTS])
    code, output, errors = typed("deploy", "test", "-y")
    assert (code, output.splitlines()[-1]) == (0, "DONE: 3 hosts as planned"), errors


@pytest.mark.parametrize("how", ["fills up", "goes"])
def test_a_directory_that_is_lost_in_the_middle_stops_nothing(typed: Typed, tmp_path: Path, how: str) -> None:  # noqa: F811
    place = tmp_path / "place"
    typed.fleet.project("p1", 1, [*HOSTS])
    with small(place):
        typed.own = dict.fromkeys(VARIABLES, str(place / "own"))
        (place / "own").mkdir()
        run = typed.begin("deploy", "test", "-y", seconds=0.5)
        while "base64 -d" not in typed.log.read_text():
            assert run.poll() is None
            time.sleep(0.05)
        if how == "goes":
            shutil.rmtree(place / "own")
        fill(place)
        code, output, errors = told(typed, run)
    assert (code, output.splitlines()[-1]) == (0, "DONE: 3 hosts as planned"), errors


def test_a_fleet_s_directory_that_takes_no_progress_stops_nothing(typed: Typed) -> None:  # noqa: F811
    """The file beside the lock file, which only a plan reads."""
    typed.fleet.project("p1", 1, [*HOSTS])
    (typed.fleet.directory / ".privnet.progress.json.new").mkdir()
    code, output, errors = typed("deploy", "test", "-y")
    assert (code, output.splitlines()[-1]) == (0, "DONE: 3 hosts as planned"), errors
    assert "is not known here" in typed("plan", "test")[1]


@pytest.mark.parametrize("to", ["1>/dev/full", "2>/dev/full", "1>/dev/full 2>&1", "1>&-", "2>&-", "1>&- 2>&-"])
def test_an_output_that_nothing_can_be_written_to_stops_nothing(typed: Typed, to: str) -> None:  # noqa: F811
    typed.fleet.project("p1", 1, [*HOSTS])
    typed.prepare(0)
    command = ["bash", "-c", f"exec {PRIVNET} deploy test -y {to}"]
    ran = subprocess.run(command, cwd=typed.folder, env=typed.environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [json.loads(line)[0] for line in typed.log.read_text().splitlines() if " privnet confirm " in line] != []


# --- where what is written is more than a report -----------------------------------------------------------------


@pytest.mark.parametrize(("options", "said"), [((), "No space left on device"), (("ro",), "Read-only file system")])
def test_a_fleet_s_directory_that_takes_no_lock_refuses_the_run(
    typed: Typed,  # noqa: F811
    options: tuple[str, ...],
    said: str,
) -> None:
    """Nobody could say any more that this run is the only one; and no number that it gives would be written down."""
    directory = typed.fleet.directory
    aside = directory.with_name("aside")
    shutil.copytree(directory, aside, ignore=shutil.ignore_patterns(".privnet"))
    with small(directory, "size=1m"):
        shutil.copytree(aside, directory, dirs_exist_ok=True)
        while not options:
            try:
                with (directory / "fill").open("ab") as file:
                    file.write(bytes(4096))
            except OSError:
                break
        subprocess.run(["mount", "-o", ",".join(("remount", *options)), str(directory)], check=True)
        code, output, errors = typed("deploy", "test", "-y")
        last = output.splitlines()[-1]
        assert code == 2, output + errors
        assert last.startswith("REFUSED: nothing is changed: ") and f"({said})" in last, last
        assert "base64 -d" not in typed.log.read_text()


# --- a run that ends early -----------------------------------------------------------------------------------------

OPERATIONS = "import privnet.deploy.operations as _operations\n"
BROKEN = "def _broken(*_, **__): raise RuntimeError('broken')\n"
ERRORS: dict[str, tuple[str, dict[str, str]]] = {
    "when the hosts are asked": ("_operations._usable = _broken", {"h1": "not done"}),
    "when the plan is compared": ("_operations.changes.add = _broken", dict.fromkeys(HOSTS, "not done")),
    "when the first host is changed": (
        "_operations._extend_later = _broken",
        {"h1": "state unknown", "h2": "not done", "h3": "not done"},
    ),
    "when hosts are confirmed": ("_operations._confirmed = _broken", dict.fromkeys(HOSTS, "state unknown")),
    "when a report is written": ("_operations.Run.note_changes = _broken", dict.fromkeys(HOSTS, "not done")),
}


@pytest.mark.parametrize("when", ERRORS)
def test_an_internal_error_is_failed_and_no_host_is_said_to_be_done(typed: Typed, when: str) -> None:  # noqa: F811
    broken, states = ERRORS[when]
    typed.fleet.project("p1", 1, [*HOSTS])
    (typed.folder / "config.py").write_text(CONFIG + OPERATIONS + BROKEN + broken)
    code, output, errors = told(typed, typed.begin("deploy", "test", "-y"))
    assert code == 1, output
    assert "RuntimeError: broken" in errors
    assert "nothing to do" not in output and "DONE" not in output and "PENDING" not in output
    said = output.splitlines()
    for name, state in states.items():
        assert any(line.startswith(f"  {name}  {state}") for line in said), output
    unknown = [name for name, state in states.items() if state == "state unknown"]
    assert ("is unknown (" + " ".join(unknown) + ")" in said[-1]) == bool(unknown)
    assert said[-1].startswith("FAILED: the run ended before it was over; it says why above: ")
    # A plan that asks the hosts knows nothing then, and says so.
    code, output, errors = told(typed, typed.begin("plan", "test", "--live"))
    if "confirm" not in when and "changed" not in when:
        assert code == 1 and "the hosts could not be asked" in errors and "answered" not in output


def test_a_run_that_is_killed_is_failed_and_its_hosts_are_unknown(typed: Typed) -> None:  # noqa: F811
    typed.fleet.project("p1", 1, [*HOSTS])
    run = typed.begin("deploy", "test", "-y", seconds=1)
    while "base64 -d" not in typed.log.read_text():
        assert run.poll() is None
        time.sleep(0.05)
    (child,) = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    os.kill(int(child), 9)
    code, output, _ = told(typed, run)
    assert code == 1 and "the state of 3 hosts is unknown (h1 h2 h3)" in output, output
