"""Every part of a document, spoilt in every way: a right fleet in, thousands of wrong ones out.

A mutation replaces the text of one value or key, at its place in the file, so that comments, styles and everything
else stay as a person wrote them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from privnet.load import read_document
from privnet.model import nodes
from privnet.model.nodes import Node, Scalar


@dataclass(frozen=True)
class Mutation:
    """A file of a fleet with one thing changed."""

    name: str
    file: str
    text: str


@dataclass(frozen=True)
class _Field:
    """One entry of a mapping or item of a list, with its stretch of the text."""

    trail: str
    start: int
    end: int
    key: str
    value: str
    in_list: bool

    def entry(self, key: str, value: str) -> str:
        return value if self.in_list else f"{key}: {value}"


KEY = "4GgaQCy68nzNsUE5aJ9fuLzHhB65tAlwbmA72MWnOm8="
WAYS = {
    "null": "null",
    "nothing": '""',
    "number": "42",
    "negative": "-1",
    "boolean": "true",
    "list": "[a, b]",
    "mapping": "{a: b}",
    "empty list": "[]",
    "empty mapping": "{}",
    "too long": "x" * 5000,
    "many digits": "9" * 5000,
    "newline": '"a\\nPostUp = id"',
    "escape": '"\\u202ea"',
    "shell": '"$(id)"',
    "template": '"{{ 7*7 }}"',
    "path": '"../../etc/passwd"',
    "address": "192.0.2.99",
    "private key": KEY,
}
"""What a value is replaced by."""


def mutations(directory: Path) -> Iterator[Mutation]:
    """All mutations of all documents of a fleet."""
    for path in sorted([directory / "fleet.yaml", *directory.glob("projects/*.yaml")]):
        name = str(path.relative_to(directory))
        text = path.read_text()
        fields = [*_fields(read_document(path), text, "")]
        for number, field in enumerate(fields):
            for way, changed in _ways(text, field, fields[number - 1]):
                yield Mutation(f"{name} {field.trail} {way}", name, changed)


def _ways(text: str, field: _Field, neighbour: _Field) -> Iterator[tuple[str, str]]:
    def put(entry: str) -> str:
        return text[: field.start] + entry + text[field.end :]

    yield "deleted", put("")
    yield "twice", put(_twice(text, field))
    yield "neighbour's value", put(field.entry(field.key, neighbour.value))
    for way, value in WAYS.items():
        yield way, put(field.entry(field.key, value))
    if not field.in_list:
        yield "key misspelt", put(field.entry(field.key + "x", field.value))
        yield "key too long", put(field.entry("k" * 500, field.value))
        yield "key a number", put(field.entry("1", field.value))
        yield "key a newline", put(field.entry('"a\\nb"', field.value))
        yield "neighbour's key", put(field.entry(neighbour.key or "web", field.value))


def _twice(text: str, field: _Field) -> str:
    entry = text[field.start : field.end]
    line = text[text.rfind("\n", 0, field.start) + 1 : field.start]
    inline = line.strip() != ""
    return f"{entry}, {entry}" if inline else f"{entry}\n{line}{entry}"


def _fields(node: Node, text: str, trail: str) -> Iterator[_Field]:
    if isinstance(node, nodes.Mapping):
        for key, value in node.items():
            yield _field(text, f"{trail}.{key}", key, value)
            yield from _fields(value, text, f"{trail}.{key}")
    elif isinstance(node, nodes.Sequence):
        for number, value in enumerate(node):
            yield _field(text, f"{trail}[{number}]", None, value)
            yield from _fields(value, text, f"{trail}[{number}]")


def _field(text: str, trail: str, key: Scalar | None, value: Node) -> _Field:
    first: Node = value if key is None else key
    start, end = _offset(text, first.line, first.column), _offset(text, value.end_line, value.end_column)
    written = text[_offset(text, value.line, value.column) : end].rstrip()
    end -= len(text[start:end]) - len(text[start:end].rstrip())
    if not isinstance(value, Scalar) and "\n" in written:
        written = "{a: {b: c}}"  # a block stands nowhere but where it is
    return _Field(trail.lstrip("."), start, end, key or "", written, key is None)


def _offset(text: str, line: int, column: int) -> int:
    start = 0
    for _ in range(line - 1):
        start = text.index("\n", start) + 1
    return start + column - 1
