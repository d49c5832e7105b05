"""The fields that the models have, and what stands in a document where they are."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from privnet.model import nodes
from privnet.model.fleet import Fleet
from privnet.model.nodes import Node, Scalar
from privnet.model.project import Project


def _step(node: Node | None, part: str | int) -> Node | None:
    if isinstance(node, nodes.Mapping) and isinstance(part, str):
        return node.get(typing.cast("Scalar", part))
    if isinstance(node, nodes.Sequence) and isinstance(part, int) and part < len(node):
        return node[part]
    return None


def find(node: Node, keys: Iterable[str | int]) -> Node | None:
    """The part of ``node`` that ``keys`` lead to, or None."""
    here: Node | None = node
    for part in keys:
        here = _step(here, part)
    return here


def kind_at(model: Any, node: Node | None, keys: tuple[str | int, ...]) -> Any:
    """The type of the part ``keys``; of a choice, the one that fits what stands there."""
    here, inside = model, node
    for part in keys:
        here, inside = _inner(here, part), _step(inside, part)
        models = [member for member in members(here) if is_model(member)]
        here = models[0] if models and isinstance(inside, nodes.Mapping) else next(iter(members(here)), None)
    return bare(here)


def kinds_at(model: Any, node: Node, keys: tuple[str | int, ...]) -> list[Any]:
    """The types that the part ``keys`` may have; only mappings' where one stands there."""
    some = members(_inner(kind_at(model, node, keys[:-1]), keys[-1])) if keys else [bare(model)]
    return [kind for kind in some if not isinstance(find(node, keys), nodes.Mapping) or not _is_list(kind)]


def _is_list(kind: Any) -> bool:
    return get_origin(kind) is tuple


def fields_at(model: Any, node: Node, keys: tuple[str | int, ...]) -> type[BaseModel] | None:
    """The model that holds the fields of the part ``keys``."""
    here = kind_at(model, node, keys)
    return here if is_model(here) else None


def is_model(kind: Any) -> bool:
    """Whether a type is one of the parts of a document that have fields."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def members(kind: Any) -> list[Any]:
    """The types of a choice, or the one type."""
    kind = bare(kind)
    return [bare(one) for one in get_args(kind)] if get_origin(kind) in (Union, UnionType) else [kind]


def _inner(kind: Any, part: str | int) -> Any:
    kind = bare(kind)
    if is_model(kind):
        field = kind.model_fields.get(str(part))
        return field.annotation if field else None
    arguments = get_args(kind)
    return arguments[-1] if arguments and arguments[-1] is not ... else arguments[0] if arguments else None


def bare(kind: Any) -> Any:
    """A type without what is only noted of it."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return kind


def nothing_in(keys: tuple[str, ...]) -> str:
    """How it is written that there is nothing in the field ``keys``; empty where something has to be."""
    model = next((model for model in (Fleet, Project) if keys and keys[0] in model.model_fields), None)
    owner, kind = kind_at(model, None, keys[:-1]), kind_at(model, None, keys)
    if is_model(owner) and (keys[-1] not in owner.model_fields or owner.model_fields[keys[-1]].is_required()):
        return ""
    if is_model(kind):
        return "" if any(field.is_required() for field in kind.model_fields.values()) else "{}"
    return {dict: "{}", tuple: "[]"}.get(get_origin(kind), "")


def homes(name: str) -> list[str]:
    """Where a field of this name may stand, as `part.field` and the document it belongs to."""
    found: list[str] = []
    for document, model in (("fleet.yaml", Fleet), ("a project's file", Project)):
        found.extend(f"{trail} in {document}" for trail in _trails(model, "") if trail.split(".")[-1] == name)
    return found


def field_names(model: Any) -> Iterator[str]:
    """The names of all fields of a document, whatever part they belong to."""
    return (trail.rpartition(".")[2] for trail in _trails(model, ""))


def _trails(kind: Any, prefix: str) -> Iterable[str]:
    kind = bare(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield f"{prefix}{name}"
            yield from _trails(field.annotation, f"{prefix}{name}.")
    elif get_origin(kind) is dict:
        yield from _trails(get_args(kind)[1], f"{prefix[:-1]}.<name>.")
    elif get_origin(kind) in (Union, UnionType):
        for member in get_args(kind):
            yield from _trails(member, prefix)
