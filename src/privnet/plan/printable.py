"""The last check before printing: every value of a plan has the shape of its kind.

A declaration cannot bring a value here that has another shape (``privnet.model`` has refused it), so this is a second
lock on the same door: for a bug in a pass between, for a key that a host answered, for a plan that somebody made by
hand. Templates print into files of six languages; a newline, a quote or a ``$(`` would be a command in one of them. A
value is judged where it is printed, once: what is printed for many hosts is printed once and shared.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from privnet.diagnostics import quoted
from privnet.model.identifiers import APPLICATION_ID, DOMAIN, LABEL, NAME, NETWORK_ID, PREFIX
from privnet.plan.containers import Container, Port
from privnet.plan.guard import Binding, Guard, Speaker
from privnet.plan.mesh import Mesh, Peer
from privnet.plan.names import Names, Record
from privnet.plan.neighbour_table import NeighbourTable
from privnet.plan.overlay import Network, Overlay, Remote

T = TypeVar("T")

_ADDRESS = "[0-9]{1,3}(?:[.][0-9]{1,3}){3}"
_ADDRESS_V6 = "[0-9a-f]*:[0-9a-f:.]+"
_NUMBER = "0|[1-9][0-9]{0,9}"
_MAC = "02(:[0-9a-f]{2}){5}"
_SLOT = rf"[1-9][0-9]{{0,5}}[.]{LABEL}[.]{APPLICATION_ID}"
_PORT = "pnc[0-9a-f]{10}"

KINDS: dict[str, str] = {
    "address": _ADDRESS,
    "application": APPLICATION_ID,
    "bridge": "pnb[1-9][0-9]{0,7}",
    "domain": DOMAIN,
    "endpoint": rf"({_ADDRESS}|\[{_ADDRESS_V6}\]):[1-9][0-9]{{0,4}}",
    "internal": NAME,
    "key": "[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=",
    "label": LABEL,
    "mac": _MAC,
    "name": rf"([a-z0-9]([a-z0-9-]{{0,61}}[a-z0-9])?[.])+{LABEL}",
    "netns": f"{_SLOT}|{NETWORK_ID}",
    "network": NETWORK_ID,
    "number": _NUMBER,
    "port": _PORT,
    "prefix": PREFIX,
    "slot": _SLOT,
    "upstream": f"({_ADDRESS}|{_ADDRESS_V6})(#[1-9][0-9]{{0,4}})?",
    "vxlan": "pnx[1-9][0-9]{0,7}",
}
"""What may be printed, by kind."""

FIELDS: dict[type, dict[str, str]] = {
    Peer: {"host": "label", "public_key": "key", "endpoint": "endpoint", "address": "address"},
    Mesh: {"address": "address", "prefix": "prefix", "length": "number", "port": "number", "mtu": "number"},
    NeighbourTable: {"ipv4": "number", "ipv6": "number"},
    Guard: {"vxlan_port": "number", "mesh": "prefix", "port": "number"},
    Speaker: {"vtep": "address", "vni": "number", "mac": "mac", "address": "address"},
    Binding: {"port": "port", "mac": "mac", "address": "address"},
    Network: {
        "id": "network",
        "vni": "number",
        "cidr": "prefix",
        "mtu": "number",
        "resolver": "address",
        "bridge": "bridge",
        "vxlan": "vxlan",
        "bridge_mac": "mac",
    },
    Names: {"suffix": "name"},
    Record: {"address": "address"},
    Overlay: {"vtep": "address", "mac": "mac"},
    Remote: {"vtep": "address"},
    Container: {"slot": "slot", "address": "address", "mac": "mac", "port": "port"},
    Port: {
        "name": "port",
        "netns": "netns",
        "vni": "number",
        "bridge": "bridge",
        "address": "address",
        "length": "number",
        "mac": "mac",
        "host_mac": "mac",
        "mtu": "number",
    },
}
"""The fields of a plan's parts that are printed, each with its kind."""

_LINES = {kind: re.compile(f"(?:(?:{text})\n)*", re.ASCII) for kind, text in KINDS.items()}
"""Any number of values of a kind, one a line: no value may hold a line's end, so that one match judges many."""


def _whole(fields: Mapping[str, str]) -> tuple[Callable[[object], Any], re.Pattern[str]]:
    """What gets the fields of a part, and the pattern of all of them, one a line."""
    shape = "".join(f"(?:{KINDS[kind]})\n" for kind in fields.values())
    return operator.attrgetter(*fields), re.compile(shape, re.ASCII)


_WHOLE = {part: _whole(fields) for part, fields in FIELDS.items()}


class NotPrintable(ValueError):
    """A value of a plan has not the shape of its kind. Nothing was printed."""


def checked(part: T) -> T:
    """``part`` itself, when all of its printed fields have their shapes. Raises NotPrintable."""
    get, shape = _WHOLE[type(part)]
    values = get(part)
    if not shape.fullmatch("%s\n" * len(values) % values if type(values) is tuple else f"{values}\n"):
        raise _refused(part)
    return part


def checked_all(kind: str, values: Iterable[object]) -> None:
    """Raises NotPrintable unless every value is of ``kind``."""
    texts = [*map(str, values)]
    lines = "\n".join([*texts, ""])
    if not _LINES[kind].fullmatch(lines) or lines.count("\n") != len(texts):
        wrong = next((text for text in texts if not _is(kind, text)), "")
        raise NotPrintable(f"{quoted(wrong)} is no {kind}, and is printed into no file")


def _is(kind: str, text: str) -> bool:
    return "\n" not in text and _LINES[kind].fullmatch(f"{text}\n") is not None


def _refused(part: object) -> NotPrintable:
    for name, kind in FIELDS[type(part)].items():
        text = str(getattr(part, name))
        if not _is(kind, text):
            return NotPrintable(
                f"{type(part).__name__}.{name} {quoted(text)} is no {kind}, and is printed into no file"
            )
    return NotPrintable(f"a {type(part).__name__} has a value that is printed into no file")
