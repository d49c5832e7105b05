"""One run at a time over a fleet's directory on this machine: a file whose lock ends with the process that has it.

The file lies in a directory that git leaves alone: committed it would be in everybody's way, and `git stash` would put
another file in its place. Both lie in a checkout, so they may be anything. What is not an ordinary file of its own
counts as held, and nothing is written through it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import pwd
import re
import shlex
import socket
import stat
import time
from pathlib import Path

from privnet.load import LOCK_OF_RUNS, shown_path
from privnet.store import replace_file

UNDER_WAY = f"{LOCK_OF_RUNS}/run"
IGNORED = "# Of this machine alone, and only for the time of a run.\n*\n"
MACHINE_ID = Path("/etc/machine-id")
LOCKS = Path("/proc/locks")

_NO_PLACE = {errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO}

_NOTE = re.compile(r"run ([0-9A-Za-z-]{1,60}) of ([ -~]{1,200}), process ([0-9]{1,10}), since ([0-9]{1,12})\n")
_FLOCK = re.compile(r"^[0-9]+: FLOCK +\S+ +WRITE +([0-9]+) \S+:([0-9]+) ", re.MULTILINE)


class Held(Exception):
    """Another run has the lock, or nobody can say that none has it. The message says why, and what to do."""


class Unwritable(Exception):
    """The lock cannot be taken here, whoever has it: its file system is full or read-only. The message says so."""


def take(directory: Path, run: str, owner: str) -> int:
    """Take the lock, until the process ends; its descriptor. Raises Held or Unwritable."""
    path = directory / UNDER_WAY
    try:
        _make(path.parent)
    except OSError as error:
        if error.errno in _NO_PLACE or _is_ours(path.parent):
            raise Unwritable(_unwritable(path, error)) from None
        raise Held(_unusable(path.parent, f"cannot be used ({error.strerror})")) from None
    try:
        # O_NONBLOCK: to open a FIFO must not wait.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno in _NO_PLACE:
            raise Unwritable(_unwritable(path, error)) from None
        raise Held(_unusable(path, f"cannot be opened ({error.strerror})")) from None
    try:
        _take(handle, path, run, owner)
    except OSError as error:
        os.close(handle)
        raise Unwritable(_unwritable(path, error)) from None
    except Held:
        os.close(handle)
        raise
    return handle


def _make(folder: Path) -> None:
    """The directory of the lock, for whoever may write the fleet's; with what git reads in it. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _let_in(handle, folder.parent, 0o755, 0o020, 0o002)
    finally:
        os.close(handle)
    if not os.path.lexists(folder / ".gitignore"):
        replace_file(folder / ".gitignore", IGNORED.encode())


def _is_ours(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.geteuid()


def _take(handle: int, path: Path, run: str, owner: str) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Held(f"{holder(handle, shown_path(path.parent.parent))}") from None
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or not os.path.samestat(found, os.lstat(path)):
        raise Held(_unusable(path, "is not an ordinary file of its own"))
    # Who can read a file can lock it.
    _let_in(handle, path.parent.parent, 0o600, 0o060, 0o006)
    os.ftruncate(handle, 0)
    note = f"run {run} of {owner}, process {os.getpid()}, since {int(time.time())}\n"
    os.pwrite(handle, note.encode("ascii", "replace"), 0)


def _let_in(handle: int, directory: Path, owner: int, group: int, others: int) -> None:
    """Who may write the directory may have the lock, and nobody else."""
    folder = directory.stat()
    if os.fstat(handle).st_uid != os.geteuid():
        return
    with contextlib.suppress(PermissionError):
        os.fchown(handle, -1, folder.st_gid)
    shared = folder.st_mode & stat.S_IWGRP and os.fstat(handle).st_gid == folder.st_gid
    os.fchmod(handle, owner | (group if shared else 0) | (others if folder.st_mode & stat.S_IWOTH else 0))


def _unwritable(path: Path, error: OSError) -> str:
    return (
        f"{shown_path(path)} cannot be locked and written ({error.strerror}): with that lock a run is the only one in "
        "its directory. Put that right, then run again"
    )


def _unusable(path: Path, why: str) -> str:
    shown = shown_path(path)
    try:
        found = path.lstat()
    except OSError:
        return f"{shown} {why}: it says whether a run is under way. Run as somebody who may write in its directory"
    if stat.S_ISLNK(found.st_mode):
        why = "is a symbolic link"
    elif stat.S_ISDIR(found.st_mode) and path.name != LOCK_OF_RUNS:
        why = "is a directory"
    elif found.st_uid != os.geteuid():
        why += f", and belongs to {_user(found.st_uid)}"
    remove = "rm -r" if stat.S_ISDIR(found.st_mode) else "rm"
    return (
        f"{shown} {why}, so nobody can say whether another run is under way, and it counts as held. If none is: "
        f"`{remove} {shlex.quote(shown)}`, then run again"
    )


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def holder(handle: int, where: str) -> str:
    """Who has the lock, since when, and what to do; who has just taken it writes that down only then."""
    for _ in range(20):
        note = _NOTE.fullmatch(os.pread(handle, 400, 0).decode("ascii", "replace"))
        pids = _pids(handle)
        # What a run that is over has left there names a process that is another one's by now.
        if note is not None and (not pids or int(note[3]) in pids):
            age = max(0, int(time.time()) - int(note[4]))
            here = int(note[3]) in pids and note[2].endswith(f"@{socket.gethostname()}")
            end = f"; if it hangs: `kill {note[3]}`" if here else ""
            return (
                f"run {note[1]} of {note[2]}, process {note[3]}, is under way in {where} since {age} s. Wait for its "
                f"end{end}"
            )
        time.sleep(0.01)
    return f"another run is under way in {where}. Wait for its end"


def _pids(handle: int) -> set[int]:
    """The processes that have a file's lock, as far as this machine's kernel knows them by number."""
    try:
        text = LOCKS.read_text()
    except OSError:
        return set()
    inode = os.fstat(handle).st_ino
    return {int(found[1]) for found in _FLOCK.finditer(text) if int(found[2]) == inode}


def place(directory: Path) -> str:
    """What all runs have in common that the lock keeps apart: this machine, and the directory.

    Machines that were made from one image have one machine-id, and containers none; so the name of the host counts too.
    """
    try:
        machine = MACHINE_ID.read_text().strip()
    except OSError:
        machine = ""
    return hashlib.sha256(f"{machine}\n{socket.gethostname()}\n{directory}".encode()).hexdigest()[:32]
