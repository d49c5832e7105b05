"""Entries that stand at another depth than what they belong to.

YAML reads a line that is indented too little, or too far, as a part of something else, and then every message is about
that. An entry is taken for such a one when its mapping has no place for it, and what it would be in at another depth
has: the entry before it, or the last one in that, or a mapping around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from privnet.diagnostics import Place, Problem, plural
from privnet.fields import find, is_model, kinds_at
from privnet.model import nodes
from privnet.model.nodes import Node, Scalar

STEP = 2
Keys = tuple[str | int, ...]


def moved(model: Any, path: str, root: nodes.Mapping, keys: Keys) -> tuple[Keys, Problem] | None:
    """Where the entry ``keys`` belongs, and what is said of that; None when it is about another thing."""
    parent = find(root, keys[:-1])
    if not keys or not isinstance(parent, nodes.Mapping) or keys[-1] not in parent:
        return None
    key, value = parent.key(str(keys[-1])), parent[parent.key(str(keys[-1]))]
    before = _before(parent, key)
    if before is None or before.line == key.line or _has_place(kinds_at(model, root, keys[:-1]), key, value):
        return None
    for owner in (*_inside(root, (*keys[:-1], before)), *_around(keys[:-1])):
        there = find(root, owner)
        free = key not in there if isinstance(there, nodes.Mapping) else there == ""
        if free and _has_place(kinds_at(model, root, owner), key, value):
            column = _column(root, owner, there)
            return (owner, _problem(path, owner, keys[:-1], key, column)) if column != key.column else None
    return None


def below(model: Any, path: str, root: nodes.Mapping, keys: Keys) -> tuple[Keys, Problem] | None:
    """The same of the entry behind ``keys``, which has no value itself."""
    parent = find(root, keys[:-1])
    if not isinstance(parent, nodes.Mapping):
        return None
    names = [*parent]
    number = names.index(parent.key(str(keys[-1]))) + 1
    return moved(model, path, root, (*keys[:-1], names[number])) if number < len(names) else None


def _before(parent: nodes.Mapping, key: Scalar) -> Scalar | None:
    names = [*parent]
    number = names.index(key)
    return names[number - 1] if number else None


def _inside(root: nodes.Mapping, owner: Keys) -> Iterator[Keys]:
    """An entry, the last one in it, and so on."""
    while True:
        yield owner
        there = find(root, owner)
        if not isinstance(there, nodes.Mapping) or not there:
            return
        owner = (*owner, [*there][-1])


def _around(inside: Keys) -> Iterator[Keys]:
    return (inside[:length] for length in range(len(inside) - 1, -1, -1))


def _has_place(kinds: Iterable[Any], key: str, value: Node) -> bool:
    """Whether one of these types may have such an entry: a field of its own, or one of many of a kind."""
    return any(key in kind.model_fields if is_model(kind) else _takes(kind, key, value) for kind in kinds)


def _takes(kind: Any, key: str, value: Node) -> bool:
    try:
        _adapter(kind).validate_python({key: value})
    except ValidationError:
        return False
    return True


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _column(root: nodes.Mapping, owner: Keys, there: Node | None) -> int:
    """Where an entry of the mapping ``owner`` begins."""
    if isinstance(there, nodes.Mapping) and there:
        return next(iter(there)).column
    parent = find(root, owner[:-1])
    return parent.key(str(owner[-1])).column + STEP if isinstance(parent, nodes.Mapping) else 1


def _problem(path: str, owner: Keys, stands_in: Keys, key: Scalar, column: int) -> Problem:
    spaces = plural(abs(column - key.column), "space")
    what, change = ("too little", "more") if column > key.column else ("too far", "less")
    return Problem(
        "PN113",
        f"`{key[:60]}` is indented {what}: it belongs to {_called(owner)}",
        Place(path, key.line, key.column, key.end_line, key.end_column),
        note=f"as it stands it is a part of {_called(stands_in)}",
        help=f"indent it, and the lines that belong to it, by {spaces} {change}",
    )


def _called(keys: Keys) -> str:
    return f"`{'.'.join(map(str, keys))}`" if keys else "the document"
