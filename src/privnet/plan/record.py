"""What a host remembers of the declaration and the lock file, so that both can be rebuilt from the hosts alone.

Pruned to what the host takes part in: the fleet's settings, its own entry, and for each private network on it the
project's document, its numbers, and where the hosts are with which it shares the network. That is no more of other
hosts than its mesh and its forwarding tables say already. Nothing is secret.

Here is only what belongs into a record; it costs nothing until somebody prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from privnet.model.base import Part
from privnet.model.fleet import Fleet, Host
from privnet.model.identifiers import Percent, Seconds
from privnet.model.project import Project
from privnet.plan.containers import Container

VERSION = 1
"""Of the record's shape. A privnet reads the records of its own version."""

_UNITS = (("d", 86400), ("h", 3600), ("m", 60))


@dataclass(frozen=True, slots=True, eq=False)
class Settings:
    """What holds for all hosts of a fleet. One object a plan, compared by identity."""

    fleet: Fleet

    def data(self) -> dict[str, Any]:
        """``fleet.yaml`` without its hosts."""
        return document(self.fleet, without="hosts")


@dataclass(frozen=True, slots=True)
class HostRecord:
    """What a host remembers of the fleet and of itself."""

    settings: Settings
    host: Host


@dataclass(frozen=True, slots=True)
class NetworkRecord:
    """What the hosts of a private network remember of its project and of each other.

    :param containers: also those on hosts that are out
    :param places: mesh address and WireGuard endpoint of each host of the network, also of those that are out
    :param out: hosts of the network that are out
    """

    project: Project
    containers: tuple[Container, ...]
    places: Mapping[str, tuple[str, str]]
    out: tuple[str, ...]


def document(part: Part, without: str = "") -> dict[str, Any]:
    """A part of a declaration as it would stand in YAML: what has its default is left out."""
    found: dict[str, Any] = {}
    for name, default, written in _fields(type(part)):
        value = getattr(part, name)
        if name != without and value != default:
            found[name] = written(value)
    return found


@cache
def _fields(model: type[Part]) -> tuple[tuple[str, Any, Callable[[Any], Any]], ...]:
    return tuple(
        (name, field.get_default(), next(_written_as(field.metadata), _data))
        for name, field in model.model_fields.items()
    )


def _written_as(metadata: list[Any]) -> Iterator[Callable[[Any], Any]]:
    """How a number is written that has a unit."""
    for kind in metadata:
        if isinstance(kind, Seconds):
            yield duration
        elif isinstance(kind, Percent):
            yield "{}%".format


def duration(seconds: int) -> str:
    """Seconds as a declaration writes them, in the largest unit that divides them: ``1h``, ``90s``."""
    for unit, length in _UNITS:
        if seconds and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _data(value: Any) -> Any:
    if isinstance(value, (str, int)):  # most values; `str | int` would be made anew by each call
        return value
    if isinstance(value, Part):
        return document(value)
    if isinstance(value, dict):
        return {key: _data(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_data(item) for item in value]
    return str(value)  # a prefix, a range of VNIs
