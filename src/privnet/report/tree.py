"""Write managed files below a directory of our own, one directory a host; what an earlier render left is removed."""

# One `Path` object a file would take as long as writing the file.
# ruff: noqa: PTH108, PTH114, PTH115, PTH116, PTH120, PTH123, PTH211
from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from privnet.render import ManagedFile
from privnet.store import replace_file

MANIFEST = ".privnet-render"
"""Lists what we wrote, relative to the directory: its presence makes the directory ours."""


class NotOurs(Exception):
    """The directory holds something that no render wrote. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Written:
    """How many files were written, were right already, and were removed."""

    written: int
    kept: int
    removed: int


def write_tree(directory: Path, hosts: Mapping[str, Iterable[ManagedFile]], *, whole: bool) -> Written:
    """Bring ``directory`` to hold the files of ``hosts``.

    :param whole: ``hosts`` is the whole fleet, so that other hosts of an earlier render are removed
    Raises NotOurs for a directory that is not empty and was not made by a render, OSError when it cannot be written.
    """
    earlier = _earlier(directory)
    directory.mkdir(parents=True, exist_ok=True)
    wanted = {f"{host}{file.path}": file for host, files in hosts.items() for file in files}
    stale = {path for path in earlier if path not in wanted and (whole or path.partition("/")[0] in hosts)}
    # First the list, so that a render that was interrupted is still known as ours, then the files.
    _record(directory, earlier | set(wanted))
    for folder in sorted({os.path.dirname(path) for path in wanted}):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    root = str(directory)
    written = sum(_write(f"{root}/{path}", file) for path, file in wanted.items())
    for path in stale:
        _remove(directory, path)
    _record(directory, (earlier - stale) | set(wanted))
    return Written(written, len(wanted) - written, len(stale))


def _earlier(directory: Path) -> set[str]:
    manifest = directory / MANIFEST
    if manifest.is_file() and not manifest.is_symlink():
        return {path for path in manifest.read_text(encoding="utf-8").splitlines() if _is_inside(path)}
    if directory.is_dir() and any(directory.iterdir()):
        raise NotOurs(f"{directory} is not empty and was not made by `privnet render`: give an empty or new directory")
    return set()


def _is_inside(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/") and path.count("/") > 0


def _record(directory: Path, paths: Iterable[str]) -> None:
    replace_file(directory / MANIFEST, "".join(f"{path}\n" for path in sorted(paths)).encode())


def _write(path: str, file: ManagedFile) -> bool:
    """Write one file unless it is right already; whether it was written."""
    if file.is_link:
        return _link(path, file.text)
    data = file.text.encode()
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, file.mode)
    except FileExistsError:
        if _holds(path, data, file.mode):
            return False
        os.unlink(path)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, file.mode)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
    return True


def _link(path: str, target: str) -> bool:
    try:
        os.symlink(target, path)
    except FileExistsError:
        if os.path.islink(path) and os.readlink(path) == target:
            return False
        os.unlink(path)
        os.symlink(target, path)
    return True


def _holds(path: str, data: bytes, mode: int) -> bool:
    if os.path.islink(path) or os.stat(path).st_mode & 0o777 & ~_umask() != mode & ~_umask():
        return False
    with open(path, "rb") as file:
        return file.read(len(data) + 1) == data


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def _remove(directory: Path, path: str) -> None:
    """Remove a file and the directories that it leaves empty."""
    target = directory / path
    target.unlink(missing_ok=True)
    for folder in target.parents:
        if folder == directory or not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()
