"""The hosts of a fleet, however wrong the rest of its declaration is: enough to reach them, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from privnet.committed import committed_file
from privnet.load import FLEET_FILE, Document, open_document, parse_document
from privnet.model import nodes
from privnet.model.fleet import Fleet, Host
from privnet.model.identifiers import HostName

_FLEET = TypeAdapter(Fleet)
_HOSTS = TypeAdapter(dict[HostName, Host])
_NEEDED = ("fleet", "lab")


@dataclass(frozen=True, slots=True)
class Reached:
    """A fleet with the hosts that can be reached; nothing else in it counts.

    :param left_out: hosts that are not declared rightly
    :param committed: whether this is the last commit's, since the file of now cannot be read
    """

    fleet: Fleet
    left_out: tuple[str, ...]
    committed: bool


def reached(directory: Path) -> Reached | None:
    """The hosts that ``fleet.yaml`` names, or else that of the last commit; None when neither can be read."""
    now = open_document(directory / FLEET_FILE)
    then = Document(now.path)
    return _reached(now.node, False) or _reached(_committed(directory, then), True)


def _committed(directory: Path, document: Document) -> nodes.Mapping | None:
    parse_document(committed_file(directory, FLEET_FILE), document)
    return document.node


def _reached(node: nodes.Mapping | None, committed: bool) -> Reached | None:
    declared = node.get(nodes.Scalar("hosts")) if node is not None else None
    if node is None or not isinstance(declared, nodes.Mapping):
        return None
    hosts: dict[str, Host] = {}
    left_out = []
    for name, host in declared.items():
        try:
            hosts |= _HOSTS.validate_python({name: host})
        except ValidationError:
            left_out.append(str(name))
    # Not `lab`, if that is unreadable: hosts of a lab have addresses that may be somebody's.
    said: Mapping[str, object] = {name: node[nodes.Scalar(name)] for name in _NEEDED if name in node}
    try:
        fleet = _FLEET.validate_python({**said, "hosts": hosts})
    except ValidationError:
        return None
    return Reached(fleet, tuple(left_out), committed)
