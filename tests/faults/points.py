"""Where a run can be stopped: before and after each remote execution, in an upload, at each line of each program."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

PROGRAM = "program"
CHANGE = "change.sh"
UPLOAD = "upload"
STOP = "/run/privnet-fault/stop"
"""What a host runs where it is to be stopped; there only while a test has put it there, and gone after a boot."""
CALL = f"[ ! -e {STOP} ] || sh {STOP}"
CAME = "/run/privnet-fault/came"
"""Where a host writes down the lines that it comes by, while its directory is there."""

TAKES = ("claim", "arm", "allow", "start_timer", "go_back_later", "mark", "begin)", "done)")
"""The parts of change.sh that a wave's program goes through."""
KEEPS = ("forget_uploads", "give_back", "disarm", "tidy", "stop_timer", "confirm)")
"""Those that a confirmation goes through, as the last wave has left them."""
RETURNS = ("wait_for_time", "has_room", "unpack", "put_back", "stop_new", "end", "remove_new_devices", "back")
RETURNS += ("settle", "settle_guard", "settle_mesh", "settle_overlay", "settle_ports", "settle_names")
"""Those that a host goes through while it rolls back."""

# These go on with what stands before them: nothing can be put in between.
_CONTINUES = {"then", "else", "elif", "fi", "do", "done", "esac", ";;", "}", ")", "{", "case"}


@dataclass(frozen=True, order=True)
class Point:
    """One place of a run.

    :param way: which of the two declarations the run makes so
    :param execution: of those of its host, from 1
    :param place: ``before``, ``upload``: when half of it is sent, ``after``, or ``program:N`` or ``change.sh:N``:
        before that line of it is done
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


def noting(upload: str, execution: int) -> dict[str, str]:
    """Calls for :func:`calling` that write down every line that is come by, as of that execution."""
    texts = members(upload)
    numbers = {PROGRAM: program_lines(texts[PROGRAM])} if PROGRAM in texts else {}
    if CHANGE in texts:
        numbers[CHANGE] = change_lines(texts[CHANGE], TAKES + KEEPS + RETURNS)
    places = [f"{name}:{number}" for name, some in numbers.items() for number in some]
    directory = CAME.rpartition("/")[0]
    return {place: f"[ ! -d {directory} ] || echo {execution}/{place} >> {CAME}" for place in places}


def calling(upload: str, calls: Mapping[str, str]) -> str:
    """The same upload, which does one more thing before each of these lines."""
    for name, text in members(upload).items():
        lines = text.splitlines()
        own = {int(place.partition(":")[2]): call for place, call in calls.items() if place.startswith(f"{name}:")}
        for number in sorted(own, reverse=True):
            lines.insert(number, own[number])
        if own:
            upload = _replaced(upload, name, "\n".join(lines) + "\n")
    return upload


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
    """Every place of each host's rollback of its last wave."""
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
        if step["program"]:
            yield Point(way, host, execution, UPLOAD)
        for number in program_lines(str(step["program"])) if step["program"] else ():
            yield Point(way, host, execution, f"{PROGRAM}:{number}")
        parts = TAKES + (KEEPS if last.get(host) == execution else ())
        for number in change_lines(str(step["change"]), parts) if step["change"] else ():
            yield Point(way, host, execution, f"{CHANGE}:{number}")
        yield Point(way, host, execution, "after")


# --- what is the same command on another host, or in another wave ---------------------------------------

_NAMES = (
    (r"(pn|ap)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", r"\1-ID"),
    (r"[A-Za-z0-9+/]{43}=", "KEY"),
    (r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b", "MAC"),
    (r"\b[0-9]{8}T[0-9]{6}-[0-9a-f]{6}\b", "RUN"),
    (r"\b(pn[bcux])[0-9a-f]+", r"\1N"),
    (r"\b[0-9a-f]{32,}\b", "SUM"),
    (r"[0-9]+", "N"),
    (r"\bN\.[a-z]+\.ap-ID", "SLOT"),
    # One thing more of the same kind.
    (r"(\S+)( \1)+(?= |$)", r"\1"),
)


def same(line: str) -> str:
    """A line without its names and numbers."""
    for pattern, word in _NAMES:
        line = re.sub(pattern, word, line)
    return line


def command_at(point: Point, step: Mapping[str, object]) -> str:
    """What is about to be done there, or has just been done; ``step``: its execution, as it was written down."""
    name, _, number = point.place.partition(":")
    lines = str(step["program"] or "").splitlines()
    if name == CHANGE:
        return point.place
    if name == PROGRAM:
        return same(lines[int(number)]) if int(number) < len(lines) else "the end of a program"
    begin = next((line for line in lines if line.startswith("sh ./change.sh begin ")), "")
    wave = begin.split()[4:5]
    return " ".join([point.place, *wave, same(str(step["command"]))])
