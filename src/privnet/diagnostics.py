"""What is wrong, where, and what to do: one object, shown as text for people or as JSON for machines.

A :class:`Problem` is all that any layer says about bad input. The layers that find problems never print and
never decide how one looks; :func:`render_text` and :func:`render_json` are given the same objects.
"""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

SHOWN_AT_MOST = 20
COUNTED_AT_MOST = 100
"""Problems of one file that are looked for: more would tell nobody more, and take their time."""
QUOTED_AT_MOST = 60
LINE_SHOWN_AT_MOST = 140

CODES: dict[str, str] = {
    "PN101": "a file or directory of the declaration cannot be used",
    "PN102": "a file is larger, deeper or longer than the limit",
    "PN103": "a file is not UTF-8 text",
    "PN104": "a character that is not allowed in a declaration",
    "PN105": "text that is not YAML",
    "PN106": "a part of YAML that a declaration does not use: anchors, aliases, merge keys, tags",
    "PN107": "a key is given twice",
    "PN108": "a file holds more than one document",
    "PN109": "an unresolved merge conflict",
    "PN110": "a file declares nothing",
    "PN111": "a key that is not a name",
    "PN112": "a value that goes over several lines",
    "PN113": "an entry that is indented too little or too far",
    "PN201": "a mapping, a list or a single value where another of them is wanted",
    "PN202": "an unknown field",
    "PN203": "a required field is missing",
    "PN204": "a field without a value",
    "PN205": "not a boolean",
    "PN206": "not an integer",
    "PN207": "a number out of its range",
    "PN208": "not one of the possible values",
    "PN209": "not a percentage, a duration, a range of VNIs, a date or a release",
    "PN210": "a name that breaks the rule for names",
    "PN211": "an identifier that breaks the rule for identifiers",
    "PN212": "not an address or an endpoint that hosts can use",
    "PN213": "not a prefix in its canonical form",
    "PN214": "a prefix that cannot be used",
    "PN215": "not a domain that names can live in",
    "PN216": "text that cannot be used",
    "PN217": "a secret in the declaration",
    "PN301": "a container is placed on a host that the fleet does not have",
    "PN302": "containers cannot be spread as asked",
    "PN303": "an application is declared twice",
    "PN304": "a VNI is used by two networks",
    "PN305": "a network is declared twice",
    "PN306": "a project's name and its file's name differ",
    "PN307": "a VNI outside the fleet's range",
    "PN308": "an address is used by two hosts",
    "PN309": "an endpoint is used by two hosts",
    "PN310": "the mesh prefix has fewer addresses than there are hosts",
    "PN311": "the mesh prefix contains an address of the underlay",
    "PN312": "a network has fewer addresses than containers",
    "PN313": "two services would use one port",
    "PN314": "a DNS name would be too long",
    "PN315": "an internal domain that changes nothing, or the private one",
    "PN316": "every host is out of service",
    "PN317": "a canary that the fleet does not have",
    "PN318": "a host that cannot have had another name",
    "PN401": "an HDS application in a project with a private network",
    "PN402": "a private network without accepted terms",
    "PN403": "a private network on a project that was not empty",
    "PN404": "HDS allowed without who decided it and when",
    "PN405": "a day that has not come yet",
    "PN501": "the lock file was damaged, merged or edited",
    "PN502": "a line of the lock file that privnet did not write",
    "PN503": "the lock file of another fleet",
    "PN504": "a VNI that another network has, or had a moment ago",
    "PN505": "no number is left to give to a host or network",
    "PN506": "no address is left to give to a container",
    "PN507": "the lock file was written by another run in the meantime",
    "PN508": "a host with another key than the lock file remembers",
    "PN509": "a lock file that is not the one of all hosts",
    "PN601": "a plan that removes more than may go without being told",
    "PN602": "another number of removals than the run was told",
    "PN603": "a saved plan that the fleet has moved on from",
    "PN701": "a process type that has a meaning of its own elsewhere",
    "PN702": "a name with more addresses than an answer holds",
    "PN703": "a mesh of very many tunnels",
    "PN704": "a network in use gets another VNI or other addresses",
    "PN705": "hosts of a network have no address family in common",
    "PN706": "containers are placed on a host that is out of service",
    "PN707": "a host that has its new name already",
    "PN708": "git has a newer lock file",
}
"""Every code that a problem can have, with its title. Codes are never given a new meaning."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A stretch of a file. Lines and columns count from 1, columns in characters; the end is exclusive."""

    path: str
    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True, slots=True)
class Related:
    """A second place that a problem is about, and what it has to do with it."""

    place: Place
    message: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the input.

    ``message`` stands alone and names the value as seen; ``label`` is the text behind the caret; ``note`` says
    why it matters; ``help`` is the corrected line or the command that remedies it. ``secret`` hides what stands
    behind the place in its line. ``severity`` is "error", or "warning" for what is accepted and seldom meant.
    """

    code: str
    message: str
    place: Place | None = None
    label: str = ""
    note: str = ""
    help: str = ""
    related: tuple[Related, ...] = ()
    secret: bool = False
    severity: str = "error"


class DeclarationError(Exception):
    """The declaration is refused. ``problems`` are sorted and unique; ``sources`` maps a path to its text."""

    def __init__(self, problems: Iterable[Problem], sources: Mapping[str, str] | None = None) -> None:
        self.problems = ordered(problems)
        self.sources: Mapping[str, str] = sources or {}
        super().__init__("; ".join(f"{problem.code}: {problem.message}" for problem in self.problems[:3]))


def ordered(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The problems in the order of their places, each once; warnings last. None shows a secret."""
    return tuple(sorted(dict.fromkeys(map(_hidden, problems)), key=_order))


def _order(problem: Problem) -> tuple[object, ...]:
    place = problem.place or Place("", 0, 0, 0, 0)
    return (problem.severity, place.path, place.line, place.column, problem.code, problem.message)


_SECRETS = re.compile(
    "(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=(?![A-Za-z0-9+/=])"  # 32 bytes in base64: a WireGuard key
    "|(?<=://)[^\\s/@]*:[^\\s/@]+(?=@)"  # user and password of a URL
)


def hidden(text: str) -> str:
    """``text`` with dots for all that looks like a secret, as long as it was: places in it stay right.

    A public key looks like a private one. Neither has a place in a declaration, and no message is clearer by it.
    """
    return _SECRETS.sub(lambda found: "·" * len(found[0]), text)


def _hidden(problem: Problem) -> Problem:
    said = (problem.message, problem.label, problem.note, problem.help, *(other.message for other in problem.related))
    if not any(map(_SECRETS.search, said)):
        return problem
    return replace(
        problem,
        message=hidden(problem.message),
        label=hidden(problem.label),
        note=hidden(problem.note),
        help=hidden(problem.help),
        related=tuple(Related(other.place, hidden(other.message)) for other in problem.related),
    )


def visible(text: str) -> str:
    """``text`` with everything that a terminal would not show as itself written as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible_character(character) for character in text)


def _visible_character(character: str) -> str:
    # Lone surrogates stand for bytes that were not UTF-8 (surrogateescape).
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if character.isprintable() and not unicodedata.combining(character):
        return character
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    if short is not None:
        return short
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quoted(text: str) -> str:
    """A value of the user in a message: in quotes, escaped, without secrets, cut at 60 characters."""
    text = hidden(text[: 2 * QUOTED_AT_MOST])
    if len(text) > QUOTED_AT_MOST:
        text = text[:QUOTED_AT_MOST] + "…"
    return f'"{visible(text)}"'


def close(text: str, choices: Iterable[str]) -> list[str]:
    """The one choice that looks most like ``text``, or none."""
    known = list(choices)
    text = text[:100]
    spellings = dict.fromkeys((text, text.lower()))
    return next(filter(None, (difflib.get_close_matches(wanted, known, n=1, cutoff=0.7) for wanted in spellings)), [])


def nearest(text: str, choices: Iterable[str]) -> str:
    """``did you mean X?`` for the choice that looks like ``text``, or an empty string."""
    return "".join(f"did you mean `{found}`?" for found in close(text, choices))


def plural(count: int, noun: str) -> str:
    """``1 host``, ``2 hosts``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def some(names: Sequence[str], at_most: int = 3) -> str:
    """The first of them, and how many others there are."""
    others = len(names) - at_most
    return ", ".join(names[:at_most]) + (f" and {plural(others, 'other')}" if others > 0 else "")


def sentences(*parts: str) -> str:
    """The parts that say something, as one text."""
    return "; ".join(part for part in parts if part)


def render_text(problems: Iterable[Problem], *, color: bool, sources: Mapping[str, str]) -> str:
    """The problems for a person, at most 20, with the lines they are about.

    The last line says that no host was contacted: every error is found before that.
    """
    every = ordered(problems)
    paint = _paint if color else _plain
    shown = _without_secrets(every, sources)
    blocks = [_block(problem, shown, paint) for problem in every[:SHOWN_AT_MOST]]
    if len(every) > SHOWN_AT_MOST:
        blocks.append(_not_shown(every))
    return "\n\n".join([*blocks, _outcome(every)]) + "\n"


def _not_shown(every: tuple[Problem, ...]) -> str:
    more = f"{len(every) - SHOWN_AT_MOST} more"
    ended = _not_counted_to_the_end(every)
    if not ended:
        return f"and {more}"
    others = f" and {plural(len(ended) - 1, 'other file')}" if len(ended) > 1 else ""
    return f"and at least {more}: no more than {COUNTED_AT_MOST} are counted in {visible(ended[0])}{others}"


def _not_counted_to_the_end(every: tuple[Problem, ...]) -> list[str]:
    files = Counter(problem.place.path for problem in every if problem.place)
    return [path for path, count in files.items() if count >= COUNTED_AT_MOST]


def _outcome(every: tuple[Problem, ...]) -> str:
    if not every or any(problem.severity == "error" for problem in every):
        return "No host was contacted."
    return f"{plural(len(every), 'warning')}, and no error."


def _without_secrets(problems: Iterable[Problem], sources: Mapping[str, str]) -> Mapping[str, str]:
    """The sources as they may be shown: a secret could be on the line of another problem too."""
    shown = dict(sources)
    for problem in problems:
        if problem.secret and problem.place and problem.place.path in shown:
            lines = shown[problem.place.path].split("\n")
            number = problem.place.line - 1
            lines[number] = lines[number][: problem.place.end_column - 1] + ": …"
            shown[problem.place.path] = "\n".join(lines)
    return shown


def render_json(problems: Iterable[Problem]) -> str:
    """All problems for a machine, as one JSON object. ``incomplete`` names files that may have more than are here."""
    every = ordered(problems)
    data = {
        "problems": [_as_data(problem) for problem in every],
        "incomplete": [_name(path) for path in _not_counted_to_the_end(every)],
        "hosts_contacted": 0,
    }
    return json.dumps(data, indent=2)


def _name(path: str) -> str:
    return path.encode("utf-8", "backslashreplace").decode()


def _as_data(problem: Problem) -> dict[str, object]:
    return {
        "code": problem.code,
        "severity": problem.severity,
        **_place_as_data(problem.place),
        "message": problem.message,
        "label": problem.label,
        "note": problem.note,
        "help": problem.help,
        "related": [{**_place_as_data(r.place), "message": r.message} for r in problem.related],
    }


def _place_as_data(place: Place | None) -> dict[str, object]:
    if place is None:
        return {"file": None, "line": None, "column": None, "end_line": None, "end_column": None}
    return {
        "file": _name(place.path),
        "line": place.line,
        "column": place.column,
        "end_line": place.end_line,
        "end_column": place.end_column,
    }


_Painter = Callable[[str, str], str]
_STYLES = {
    "error": "\x1b[1;31m",
    "warning": "\x1b[1;33m",
    "strong": "\x1b[1m",
    "frame": "\x1b[1;34m",
    "note": "\x1b[1;32m",
}


def _paint(style: str, text: str) -> str:
    return f"{_STYLES[style]}{text}\x1b[0m"


def _plain(style: str, text: str) -> str:
    return text


class _Frame:
    """The left margin of a block, as wide as the line number in it."""

    def __init__(self, place: Place | None, paint: _Painter) -> None:
        self.width = len(str(place.line)) if place else 2
        self.paint = paint

    def margin(self, number: str = "") -> str:
        return self.paint("frame", f"{number:>{self.width}} |")

    def arrow(self, place: Place) -> str:
        return f"{self.paint('frame', '-->'.rjust(self.width + 3))} {visible(place.path)}:{place.line}:{place.column}"

    def remark(self, kind: str, text: str) -> str:
        return f"{' ' * self.width} {self.paint('frame', '=')} {self.paint('strong', kind + ':')} {visible(text)}"


def _block(problem: Problem, sources: Mapping[str, str], paint: _Painter) -> str:
    frame = _Frame(problem.place, paint)
    kind = paint(problem.severity, f"{problem.severity}[{problem.code}]")
    lines = [kind + paint("strong", f": {visible(problem.message)}")]
    if problem.place:
        lines.append(frame.arrow(problem.place))
        lines.extend(_snippet(problem, problem.place, sources, frame, paint))
    for related in problem.related:
        lines.append(f"{paint('note', 'note')}: {visible(related.message)}")
        lines.append(frame.arrow(related.place))
    if problem.note:
        lines.append(frame.remark("note", problem.note))
    if problem.help:
        lines.append(frame.remark("help", problem.help))
    return "\n".join(lines)


def _snippet(problem: Problem, place: Place, sources: Mapping[str, str], frame: _Frame, paint: _Painter) -> list[str]:
    line = source_line(sources.get(place.path, ""), place.line)
    if line is None:
        return []
    line = hidden(line)
    start = min(place.column - 1, len(line))
    end = place.end_column - 1 if place.end_line == place.line else len(line)
    end = max(min(end, len(line)), start)
    cut = max(0, start - LINE_SHOWN_AT_MOST // 2)
    before = ("…" if cut else "") + visible(line[cut:start])
    marked = visible(line[start : min(end, start + LINE_SHOWN_AT_MOST // 2)])
    shown_to = min(end, start + LINE_SHOWN_AT_MOST // 2)
    after = visible(line[shown_to : shown_to + LINE_SHOWN_AT_MOST // 2])
    after += "…" if len(line) > shown_to + LINE_SHOWN_AT_MOST // 2 else ""
    label = f" {visible(problem.label)}" if problem.label else ""
    carets = paint(problem.severity, "^" * max(1, _width(marked)) + label)
    return [
        frame.margin(),
        f"{frame.margin(str(place.line))} {before}{marked}{after}".rstrip(),
        f"{frame.margin()} {' ' * _width(before)}{carets}",
        frame.margin(),
    ]


def source_line(text: str, number: int) -> str | None:
    """Line ``number`` (from 1) of ``text`` without its end, or None when there is no such line."""
    start = 0
    for _ in range(number - 1):
        start = text.find("\n", start) + 1
        if start == 0:
            return None
    if start >= len(text):
        return None
    end = text.find("\n", start)
    return text[start : end if end >= 0 else len(text)].rstrip("\r")


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
