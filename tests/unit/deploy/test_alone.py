"""This machine's lock: whatever lies in its place counts as held, and nothing is written through it."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest

from privnet.deploy import alone
from privnet.deploy.alone import UNDER_WAY, Held, Unwritable, place, take
from privnet.load import LOCK_OF_RUNS as FOLDER

OWNER = f"alice@{socket.gethostname()}"
MINE = "not privnet's\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    found = tmp_path / "prod"
    found.mkdir(mode=0o755)
    return found


def refused(directory: Path) -> str:
    with pytest.raises(Held) as caught:
        take(directory, "my-run", OWNER)
    return str(caught.value)


def test_who_has_it_writes_down_who_it_is(directory: Path) -> None:
    handle = take(directory, "my-run", OWNER)
    note = (directory / UNDER_WAY).read_text()
    assert re.fullmatch(rf"run my-run of {re.escape(OWNER)}, process {os.getpid()}, since [0-9]{{10}}\n", note)
    os.close(handle)
    # What a run has left behind is nobody's lock, however long it is.
    (directory / UNDER_WAY).write_text("x" * 10_000)
    os.close(take(directory, "my-run", OWNER))
    assert len((directory / UNDER_WAY).read_text().splitlines()) == 1


def _link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def _hard_link(path: Path, target: Path) -> None:
    target.touch()
    path.hardlink_to(target)


DAMAGE: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "a link": (_link, "is a symbolic link"),
    "a link into the fleet": (lambda path, _: path.symlink_to("../fleet.yaml"), "is a symbolic link"),
    "a link to nothing": (lambda path, _: path.symlink_to("nowhere"), "is a symbolic link"),
    "a link to itself": (lambda path, _: path.symlink_to(path.name), "is a symbolic link"),
    "a link to a device": (lambda path, _: path.symlink_to("/dev/null"), "is a symbolic link"),
    "a directory": (lambda path, _: path.mkdir(), "is a directory"),
    "a directory with something in it": (lambda path, _: (path / "x").mkdir(parents=True), "is a directory"),
    "a FIFO": (lambda path, _: os.mkfifo(path), "is not an ordinary file of its own"),
    "a socket": (lambda path, _: os.mknod(path, stat.S_IFSOCK | 0o600), "cannot be opened (No such device or"),
    "another name of a file": (_hard_link, "is not an ordinary file of its own"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_no_file_of_its_own_is_held(directory: Path, tmp_path: Path, what: str) -> None:
    make, said = DAMAGE[what]
    others = [tmp_path / "target", directory / "fleet.yaml"]
    for other in others:
        other.write_text(MINE)
    (directory / FOLDER).mkdir()
    make(directory / UNDER_WAY, others[0])
    told = refused(directory)
    remove = "rm -r" if "directory" in what else "rm"
    where = directory / UNDER_WAY
    assert told.startswith(f"{where} {said}")
    assert told.endswith(f" and it counts as held. If none is: `{remove} {where}`, then run again")
    assert [other.read_text() for other in others] == [MINE, MINE]
    assert not (directory / "nowhere").exists()
    # The remedy is one.
    subprocess.run(["sh", "-c", f"{remove} {where}"], check=True)
    os.close(take(directory, "my-run", OWNER))


FOLDER_DAMAGE: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "a link": (_link, "is a symbolic link"),
    "a link to nothing": (lambda path, _: path.symlink_to("nowhere"), "is a symbolic link"),
    "a link to a directory": (lambda path, _: path.symlink_to("/var/tmp"), "is a symbolic link"),
    "a file": (lambda path, _: path.write_text(MINE), "cannot be used (Not a directory)"),
    "a FIFO": (lambda path, _: os.mkfifo(path), "cannot be used (Not a directory)"),
}


@pytest.mark.parametrize("what", FOLDER_DAMAGE)
def test_what_is_no_directory_of_its_own_is_held(directory: Path, tmp_path: Path, what: str) -> None:
    make, said = FOLDER_DAMAGE[what]
    where = directory / FOLDER
    (tmp_path / "target").write_text(MINE)
    before = sorted(Path("/var/tmp").iterdir())
    make(where, tmp_path / "target")
    told = refused(directory)
    assert told.startswith(f"{where} {said}")
    assert told.endswith(f" and it counts as held. If none is: `rm {where}`, then run again")
    assert (tmp_path / "target").read_text() == MINE and sorted(Path("/var/tmp").iterdir()) == before
    subprocess.run(["sh", "-c", f"rm {where}"], check=True)
    os.close(take(directory, "my-run", OWNER))


NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be another user of this machine for a while."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def test_two_users_of_one_checkout() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        directory = Path(folder)
        directory.chmod(0o755)
        os.close(take(directory, "my-run", OWNER))
        path = directory / UNDER_WAY
        with as_nobody():
            told = refused(directory)
        assert told.startswith(f"{path} cannot be opened (Permission denied), and belongs to root, so nobody can say ")
        # The twin: both may write in it, by its group.
        os.chown(directory, 0, NOBODY)
        directory.chmod(0o775)
        os.close(take(directory, "my-run", OWNER))
        with as_nobody():
            os.close(take(directory, "their-run", "bob@desk"))
            assert path.read_text().startswith("run their-run of bob@desk, ")
        os.close(take(directory, "my-run", OWNER))


@pytest.mark.parametrize(
    ("mode", "wanted"), [(0o755, 0o600), (0o775, 0o660), (0o2775, 0o660), (0o777, 0o666), (0o700, 0o600)]
)
@pytest.mark.parametrize("before", [None, 0o644])
def test_who_may_write_the_directory_may_have_it(directory: Path, mode: int, wanted: int, before: int | None) -> None:
    if before is not None:
        (directory / FOLDER).mkdir()
        (directory / UNDER_WAY).touch(before)
    directory.chmod(mode)
    os.chown(directory, 0, 100)
    mask = os.umask(0o077)
    try:
        os.close(take(directory, "my-run", OWNER))
    finally:
        os.umask(mask)
    found = (directory / UNDER_WAY).stat()
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (wanted, 100)


def test_a_directory_that_nothing_can_be_written_in(directory: Path) -> None:
    told = refused(directory / "nowhere")
    assert "cannot be used (No such file or directory): it says whether a run is under way" in told


@pytest.mark.parametrize("call", ["flock", "ftruncate", "pwrite", "fchmod"])
def test_no_error_of_the_system_gets_out(directory: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fails(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl if call == "flock" else os, call, fails)
    with pytest.raises(Unwritable) as caught:
        take(directory, "my-run", OWNER)
    assert str(caught.value) == (
        f"{directory / UNDER_WAY} cannot be locked and written (No locks available): with that lock a run is the only "
        "one in its directory. Put that right, then run again"
    )


@pytest.mark.parametrize(
    ("kind", "said"), [("full", "No space left on device"), ("read-only", "Read-only file system")]
)
def test_a_file_system_that_takes_no_lock_is_no_other_run(directory: Path, kind: str, said: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=8", "none", str(directory)], check=True)
    try:
        os.close(take(directory, "my-run", OWNER))
        (directory / UNDER_WAY).unlink()
        if kind == "full":
            with pytest.raises(OSError, match="No space"):
                (directory / "fill").write_bytes(bytes(2**20))
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(directory)], check=True)
        with pytest.raises(Unwritable, match=said):
            take(directory, "my-run", OWNER)
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


# --- git ----------------------------------------------------------------------------------------------


def git(directory: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=ops", "-c", "user.email=ops@example.com", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, *arguments], cwd=directory, capture_output=True, text=True, check=True)
    return done.stdout


def test_git_does_not_look_at_the_lock(directory: Path) -> None:
    """Also of a fleet that was not begun by `privnet new fleet`."""
    (directory / "fleet.yaml").write_text("fleet: prod\n")
    git(directory, "init", "--quiet")
    handle = take(directory, "my-run", OWNER)
    assert git(directory, "status", "--porcelain", "--untracked-files=all") == "?? fleet.yaml\n"
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--message", "as the guide says")
    assert git(directory, "ls-files") == "fleet.yaml\n"
    os.close(handle)


@pytest.mark.parametrize("command", [("stash", "--include-untracked"), ("clean", "-fd"), ("checkout", "--", ".")])
def test_a_run_keeps_its_lock_whatever_git_does_to_the_checkout(directory: Path, command: tuple[str, ...]) -> None:
    (directory / "fleet.yaml").write_text("fleet: prod\n")
    git(directory, "init", "--quiet")
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--message", "begin")
    handle = take(directory, "my-run", OWNER)
    (directory / "fleet.yaml").write_text("fleet: other\n")
    git(directory, *command)
    assert refused(directory).startswith(f"run my-run of {OWNER}, process {os.getpid()}, is under way in {directory} ")
    if command[0] == "stash":
        git(directory, "stash", "pop")
        assert refused(directory).startswith(f"run my-run of {OWNER}, ")
    os.close(handle)
    os.close(take(directory, "my-run", OWNER))


# --- who has it --------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from privnet.deploy.alone import take
take(Path(sys.argv[1]), "other-run", sys.argv[2])
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(directory: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Another run, which says that it is this owner's."""
    begun: list[subprocess.Popen[str]] = []

    def begin(owner: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(directory), owner]
        begun.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert begun[0].stdout is not None and begun[0].stdout.readline() == "held\n"
        return begun[0]

    yield begin
    for run in begun:
        run.kill()
        run.communicate()


def test_another_run_is_named_with_its_age_and_how_to_end_it(
    directory: Path, other: Callable[[str], subprocess.Popen[str]]
) -> None:
    run = other(OWNER)
    path = directory / UNDER_WAY
    path.write_text(re.sub("since .*", f"since {int(time.time()) - 40}", path.read_text()))
    told = refused(directory)
    head, _, age = told.partition(" since ")
    assert head == f"run other-run of {OWNER}, process {run.pid}, is under way in {directory}"
    assert re.fullmatch(rf"4[0-9] s\. Wait for its end; if it hangs: `kill {run.pid}`", age)
    # It is true.
    subprocess.run(["sh", "-c", f"kill {run.pid}"], check=True)
    run.wait(timeout=20)
    os.close(take(directory, "my-run", OWNER))


def test_a_run_of_another_machine_is_not_to_be_killed_here(
    directory: Path, other: Callable[[str], subprocess.Popen[str]]
) -> None:
    """A process of that number is another one here."""
    run = other("alice@elsewhere")
    told = refused(directory)
    who = f"run other-run of alice@elsewhere, process {run.pid}"
    assert re.fullmatch(rf"{who}, is under way in {directory} since [0-9] s\. Wait for its end", told)


@pytest.mark.parametrize(
    "note",
    [
        "",
        "run old of {OWNER}, process 1, since 1700000000\n",
        "\x1b[2J\n",
        "run x of a, process " + "9" * 30 + ", since 1\n",
        "x" * 5000,
    ],
    ids=["nothing yet", "what is left of another", "a command for the terminal", "a number that is none", "long"],
)
def test_who_does_not_say_who_it_is_yet_is_another_run(
    directory: Path, other: Callable[[str], subprocess.Popen[str]], note: str
) -> None:
    other(OWNER)
    (directory / UNDER_WAY).write_text(note.replace("{OWNER}", OWNER))
    assert refused(directory) == f"another run is under way in {directory}. Wait for its end"


def test_who_has_just_taken_it_is_named_a_moment_later(
    directory: Path, other: Callable[[str], subprocess.Popen[str]]
) -> None:
    other(OWNER)
    path = directory / UNDER_WAY
    note = path.read_text()
    path.write_text("")
    Timer(0.05, path.write_text, [note]).start()
    assert refused(directory).startswith(f"run other-run of {OWNER}, ")


def test_without_the_kernels_word_nobody_is_told_to_kill(
    directory: Path, other: Callable[[str], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = other(OWNER)
    assert f"`kill {run.pid}`" in refused(directory), "the twin"
    monkeypatch.setattr(alone, "LOCKS", directory / "nothing")
    told = refused(directory)
    assert told.startswith(f"run other-run of {OWNER}, process {run.pid}, is under way in ") and "kill" not in told


# --- where a run is started --------------------------------------------------------------------------


def test_machines_of_one_image_are_two_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One machine-id and one path, as runners of a pipeline have them; and containers, which have none."""
    directory = Path("/builds/fleet/inventory/prod")
    for text in ("0123456789abcdef0123456789abcdef\n", ""):
        (tmp_path / "machine-id").write_text(text)
        monkeypatch.setattr(alone, "MACHINE_ID", tmp_path / "machine-id")
        found = {}
        for name in ("runner-1", "runner-2"):
            monkeypatch.setattr(socket, "gethostname", lambda name=name: name)
            found[name] = place(directory)
            assert found[name] == place(directory), "the twin: one machine is one place"
            assert re.fullmatch("[0-9a-f]{32}", found[name])
        assert found["runner-1"] != found["runner-2"]
    assert place(directory) != place(directory.parent)


def test_a_user_without_an_entry_in_passwd_is_named_by_number() -> None:
    """As in a container that was started with `--user`."""
    program = (
        "import os; [os.environ.pop(name, None) for name in ('LOGNAME', 'USER', 'LNAME', 'USERNAME')]; "
        "from privnet.deploy.run import user_name; os.setuid(54321); print(user_name())"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == "uid-54321\n"
