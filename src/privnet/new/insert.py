"""Put an entry into a mapping of a document, as text: everything else in the file stays as it is, byte for byte."""

from __future__ import annotations

import re
from dataclasses import dataclass

from privnet.model import nodes
from privnet.model.nodes import Node, Scalar

STEP = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with its value in both styles.

    :param block: the lines below `key:`, without the indentation of the key; empty when the value is `flow`
    :param flow: the value on one line
    """

    key: str
    flow: str
    block: tuple[str, ...] = ()

    def lines(self, indentation: int) -> list[str]:
        """The entry in block style."""
        margin = " " * indentation
        if not self.block:
            return [f"{margin}{self.key}: {self.flow}"]
        return [f"{margin}{self.key}:", *(f"{margin}{' ' * STEP}{line}" for line in self.block)]


def insert(text: str, document: nodes.Mapping, name: str, entry: Entry) -> str:
    """``text`` with ``entry`` as the last one of the mapping that the top-level field ``name`` holds.

    The field is added at the end of the file when it is missing. Raises TypeError when it holds no mapping.
    """
    end = "\r\n" if "\r\n" in text else "\n"
    inside_flow = text[_offset(text, document.line, document.column)] == "{"
    if name not in document:
        if inside_flow:
            return _behind(text, document, Entry(name, f"{{{entry.key}: {entry.flow}}}"))
        return _at_the_end(text, document, name, entry, end)
    mapping = document[document.key(name)]
    if not isinstance(mapping, nodes.Mapping):
        raise TypeError(f"`{name}` is not a mapping")
    start = _offset(text, mapping.line, mapping.column)
    if text[start : start + 1] != "{":
        indentation = next(iter(mapping)).column - 1
        return _below(text, _last(text, mapping).end_line, entry.lines(indentation), end)
    if mapping:
        return _behind(text, mapping, entry)
    stop = _offset(text, mapping.end_line, mapping.end_column)
    if inside_flow or "#" in text[start:stop]:
        return f"{text[: stop - 1]}{entry.key}: {entry.flow}{text[stop - 1 :]}"
    key = document.key(name)
    without = text[:start].rstrip(" ") + text[stop:]
    return _below(without, key.line, entry.lines(key.column - 1 + STEP), end)


def _at_the_end(text: str, document: nodes.Mapping, name: str, entry: Entry, end: str) -> str:
    """``text`` with a new field behind everything else, but for a mark that ends the document."""
    margin = next(iter(document)).column - 1
    mark = re.compile("^[.]{3}", re.MULTILINE).search(text)
    before, after = (text[: mark.start()], text[mark.start() :]) if mark else (text, "")
    if before and not before.endswith("\n"):
        before += end
    return before + end.join(["", f"{' ' * margin}{name}:", *entry.lines(margin + STEP), ""]) + after


def _behind(text: str, mapping: nodes.Mapping, entry: Entry) -> str:
    """``text`` with an entry behind the last one of a mapping in braces."""
    last = list(mapping.values())[-1]
    behind = _offset(text, last.end_line, last.end_column)
    return f"{text[:behind]}, {entry.key}: {entry.flow}{text[behind:]}"


def _below(text: str, line: int, new: list[str], end: str) -> str:
    """``text`` with lines behind line ``line``."""
    at = -1
    for _ in range(line):
        at = text.find("\n", at + 1)
        if at < 0:
            return text + end + end.join([*new, ""])
    return text[: at + 1] + end.join([*new, ""]) + text[at + 1 :]


def _last(text: str, node: Node) -> Node:
    """What stands last in a node and knows its own end: libyaml ends a block only where the next token begins."""
    if isinstance(node, Scalar) or text[_offset(text, node.line, node.column)] in "[{":
        return node
    return _last(text, node[-1] if isinstance(node, nodes.Sequence) else list(node.values())[-1])


def _offset(text: str, line: int, column: int) -> int:
    start = 0
    for _ in range(line - 1):
        start = text.index("\n", start) + 1
    return start + column - 1
