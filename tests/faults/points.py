"""Where a run can be stopped: before and after each remote execution, and at each line of each program of its."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

PROGRAM = "program"
CHANGE = "change.sh"
STOP = "/run/privnet-fault/stop"
"""What a host runs where it is to be stopped; there only while a test has put it there, and gone after a boot."""
CALL = f"[ ! -e {STOP} ] || sh {STOP}"

TAKES = ("claim", "arm", "allow", "start_timer", "go_back_later", "mark", "begin)", "done)")
"""The parts of change.sh that a wave's program goes through."""
KEEPS = ("forget_uploads", "give_back", "disarm", "tidy", "stop_timer", "confirm)")
"""Those that a confirmation goes through, as the last wave has left them."""
RETURNS = ("wait_for_time", "has_room", "unpack", "put_back", "stop_new", "end", "remove_new_devices", "back")
RETURNS += ("settle", "settle_guard", "settle_mesh", "settle_overlay", "settle_ports", "settle_names")
"""Those that a host goes through on its way back."""

# These go on with what stands before them: nothing can be put in between.
_CONTINUES = {"then", "else", "elif", "fi", "do", "done", "esac", ";;", "}", ")", "{", "case"}


@dataclass(frozen=True, order=True)
class Point:
    """One place of a run.

    :param way: which of the two declarations the run makes so
    :param execution: of those of its host, from 1
    :param place: ``before``, ``after``, or ``program:N`` or ``change.sh:N``: before that line of it is done
    """

    way: str
    host: str
    execution: int
    place: str

    def __str__(self) -> str:
        return f"{self.way}/{self.host}/{self.execution}/{self.place}"

    @classmethod
    def of(cls, text: str) -> Point:
        """The point of that name."""
        way, host, execution, place = text.split("/")
        return cls(way, host, int(execution), place)

    @property
    def inside(self) -> bool:
        """Whether it is on the host, in the middle of a program."""
        return ":" in self.place


def program_lines(text: str) -> list[int]:
    """Lines of a stage's program, from 0, before which it can be stopped; one more is its end."""
    lines = text.splitlines()
    # Everything up to there only says what placing and discarding are.
    begin = max(number for number, line in enumerate(lines) if line == "}") + 1
    return [*range(begin, len(lines) + 1)]


def change_lines(text: str, parts: tuple[str, ...]) -> list[int]:
    """Lines of change.sh, from 0, that begin a command in one of these functions or cases."""
    found, part, before = [], "", ""
    for number, line in enumerate(text.splitlines()):
        if match := re.match(r"(\w+)\(\) [({]$|(\w+\))$", line):
            part = match[1] or match[2]
        elif line and not line.startswith("\t"):
            part = ""
        word = line.split()[0] if line.strip() else "#"
        plain = re.match(r"\t[^\t#]\S*(?<!\))(?: |$)", line) and not before.endswith(("\\", "||", "&&"))
        if part in parts and plain and word not in _CONTINUES:
            found.append(number)
        before = line
    return found


def members(upload: str) -> dict[str, str]:
    """The texts of an upload's own files: ``program``, and ``change.sh`` when it is a wave's."""
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(base64.b64decode(upload)))) as tar:
        return {name: tar.extractfile(name).read().decode() for name in tar.getnames() if name in (PROGRAM, CHANGE)}  # type: ignore[union-attr]


def stopping_at(upload: str, place: str) -> str:
    """The same upload, which comes by :data:`STOP` at that place."""
    name, _, number = place.partition(":")
    text = members(upload)[name]
    lines = text.splitlines()
    lines.insert(int(number), CALL)
    return _replaced(upload, name, "\n".join(lines) + "\n")


def _replaced(upload: str, name: str, text: str) -> str:
    buffer = io.BytesIO()
    digest = hashlib.sha256(text.encode()).hexdigest()
    with (
        tarfile.open(fileobj=io.BytesIO(gzip.decompress(base64.b64decode(upload)))) as old,
        tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as new,
    ):
        for member in old:
            file = old.extractfile(member) if member.isfile() else None
            data = file.read() if file else b""
            if member.name == name:
                data = text.encode()
            elif member.name == "manifest":
                data = re.sub(rf"(?m)^[0-9a-f]{{64}}  {re.escape(name)}$", f"{digest}  {name}", data.decode()).encode()
            member.size = len(data)
            new.addfile(member, io.BytesIO(data) if file else None)
    return base64.encodebytes(gzip.compress(buffer.getvalue(), mtime=0)).decode()


def ways_back(way: str, tour: list[dict[str, object]]) -> Iterator[Point]:
    """Every place of each host's way back from its last wave."""
    last = {str(step["host"]): step for step in tour if step["change"]}
    for host, step in last.items():
        for number in change_lines(str(step["change"]), RETURNS):
            yield Point(way, host, int(str(step["execution"])), f"{CHANGE}:{number}")


def points_of(way: str, tour: list[dict[str, object]]) -> Iterator[Point]:
    """Every place of a run, from what :mod:`faulty_pyinfra` wrote down of it."""
    last = {str(step["host"]): step["execution"] for step in tour if step["change"]}
    for step in tour:
        host, execution = str(step["host"]), int(str(step["execution"]))
        yield Point(way, host, execution, "before")
        for number in program_lines(str(step["program"])) if step["program"] else ():
            yield Point(way, host, execution, f"{PROGRAM}:{number}")
        parts = TAKES + (KEEPS if last.get(host) == execution else ())
        for number in change_lines(str(step["change"]), parts) if step["change"] else ():
            yield Point(way, host, execution, f"{CHANGE}:{number}")
        yield Point(way, host, execution, "after")
