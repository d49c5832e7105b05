"""Evil values that are forced past the models are printed into no file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from privnet.compiler import compile_fleet, render_fleet
from privnet.model.identifiers import Prefix
from privnet.plan.guard import Binding, Guard, Speaker
from privnet.plan.host import HostPlan
from privnet.plan.mesh import Mesh, Peer
from privnet.plan.neighbour_table import NeighbourTable
from privnet.plan.overlay import Network
from privnet.plan.printable import FIELDS, KINDS, NotPrintable, checked, checked_all
from privnet.render import fdb_text, guard_file, mesh_text, neighbours_text, peer_block, render_host, template_root

WIDE = Path(__file__).parents[2] / "golden" / "wide" / "in"
EVIL = {
    "X01": "a\nPostUp = id",
    "X01-end": "a\n",
    "X02-substitution": "$(touch /tmp/pwned)",
    "X02-backtick": "`id`",
    "X02-semicolon": ";id",
    "X02-pipe": "|id",
    "X02-redirect": ">x",
    "X03": "{{ 7*7 }}",
    "X03-block": "{% for a in b %}",
    "X04": '"}; flush ruleset; #',
    "X04-include": 'include "/etc/passwd"',
    "X05": "../../etc/passwd",
    "X05-root": "/etc/x",
    "X05-up": "..",
    "X06-specifier": "%n",
    "X06-backslash": "a\\",
    "X06-section": "[Peer]",
    "X06-key": "PostUp=id",
    "X07": "conf-script=/bin/sh",
    "X07-more": ",10.0.0.9",
    "X07-comment": "#",
    "X08": "a\u202eb",
    "X08-digit": "１",
    "X09": "\x1b]0;evil\x07",
    "X09-return": "a\rb",
    "X10": "a" * 10_000,
    "empty": "",
}


@pytest.fixture(scope="module")
def plan() -> HostPlan:
    """A host of the widest golden fleet, with peers, several overlays and a forwarder."""
    hosts = compile_fleet(WIDE, 0).plan.hosts.values()
    return max(hosts, key=lambda host: (bool(host.outside.upstream), len(host.mesh.peers), len(host.overlays)))


def spoilt(part: Any, value: object) -> Iterator[tuple[str, Any]]:
    """``part`` with ``value`` in one place, for every place of every object in it."""
    if isinstance(part, Prefix | str | int):
        yield "", value
    elif is_dataclass(part) or hasattr(part, "_fields"):
        for name in part._fields if hasattr(part, "_fields") else [field.name for field in fields(part)]:
            for place, other in spoilt(getattr(part, name), value):
                new = part._replace(**{name: other}) if hasattr(part, "_fields") else replace(part, **{name: other})
                yield f"{type(part).__name__}.{name}{place}", new
    elif isinstance(part, tuple) and part:
        for place, other in spoilt(part[-1], value):
            yield f"[]{place}", (*part[:-1], other)


@pytest.mark.parametrize("kind", EVIL)
def test_an_evil_value_anywhere_in_a_plan_is_refused_or_changes_no_file(plan: HostPlan, kind: str) -> None:
    evil = EVIL[kind]
    before = {(file.path, file.text) for file in render_host(plan)}
    refused = 0
    for place, other in spoilt(plan, evil):
        try:
            after = render_host(other)
        except NotPrintable:
            refused += 1
            continue
        except (TypeError, ValueError, AttributeError):
            continue  # a number that is text fails where somebody counts with it
        assert {(file.path, file.text) for file in after} == before, place
    assert refused > 40


def test_the_right_plan_is_printed(plan: HostPlan) -> None:
    assert len(render_host(plan)) > 20


GOOD_KEY = "1KWhkC4GgaQCy68nzNsUE5aJ9fuLzHhB65tAlwbmA7Y="
PEER = Peer("par-a-1", GOOD_KEY, "192.0.2.1:51820", "100.64.0.1")
MESH = Mesh("100.64.0.1", "100.64.0.0/16", 16, 51820, 1440, (PEER,), ())
DIRECT: list[tuple[str, Callable[[str], object]]] = [
    ("peer's name", lambda evil: peer_block(replace(PEER, host=evil))),
    ("peer's key", lambda evil: peer_block(replace(PEER, public_key=evil))),
    ("peer's endpoint", lambda evil: peer_block(replace(PEER, endpoint=evil))),
    ("peer's address", lambda evil: peer_block(replace(PEER, address=evil))),
    ("mesh", lambda evil: mesh_text(replace(MESH, address=evil))),
    ("FDB's MAC", lambda evil: fdb_text("pnx4096", {evil: "100.64.0.1"})),
    ("FDB's VTEP", lambda evil: fdb_text("pnx4096", {"02:70:0a:f0:00:02": evil})),
    ("FDB's device", lambda evil: fdb_text(evil, {"02:70:0a:f0:00:02": "100.64.0.1"})),
    ("neighbour", lambda evil: neighbours_text("pnx4096", {evil: "02:70:0a:f0:00:02"})),
    ("neighbour's MAC", lambda evil: neighbours_text("pnx4096", {"10.240.0.2": evil})),
    ("guard's port", lambda evil: guard_file(Guard(evil, "100.64.0.0/16", 51820, (), ()))),  # type: ignore[arg-type]
    ("mesh's port in the guard", lambda evil: guard_file(Guard(4789, "100.64.0.0/16", evil, (), ()))),  # type: ignore[arg-type]
    ("guard's mesh", lambda evil: guard_file(Guard(4789, evil, 51820, (), ()))),
    (
        "speaker",
        lambda evil: guard_file(
            Guard(4789, "100.64.0.0/16", 51820, (Speaker(evil, 1, "02:70:0a:f0:00:02", "1.1.1.1"),), ())
        ),
    ),
    (
        "binding",
        lambda evil: guard_file(
            Guard(4789, "100.64.0.0/16", 51820, (), (Binding(evil, "02:70:0a:f0:00:02", "1.1.1.1"),))
        ),
    ),
]


@pytest.mark.parametrize("kind", EVIL)
@pytest.mark.parametrize(("what", "render"), DIRECT, ids=lambda value: value if isinstance(value, str) else "")
def test_what_a_host_answered_is_not_printed_as_it_came(what: str, render: Callable[[str], object], kind: str) -> None:
    with pytest.raises(NotPrintable, match="is printed into no file"):
        render(EVIL[kind])


def test_the_same_with_right_values_is_printed() -> None:
    assert f"PublicKey = {GOOD_KEY}\n" in mesh_text(MESH)
    assert fdb_text("pnx4096", {"02:70:0a:f0:00:02": "100.64.0.1"})
    assert neighbours_text("pnx4096", {"10.240.0.2": "02:70:0a:f0:00:02"})
    speaker = Speaker("100.64.0.1", 4096, "02:70:0a:f0:00:02", "10.240.0.2")
    binding = Binding("pnc0010000002", "02:70:0a:f0:00:02", "10.240.0.2")
    assert "100.64.0.1 . 0x001000" in guard_file(Guard(4789, "100.64.0.0/16", 51820, (speaker,), (binding,))).text


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_has_room_for_a_command(kind: str) -> None:
    for evil in EVIL.values():
        with pytest.raises(NotPrintable):
            checked_all(kind, [evil])


def test_two_values_are_not_one_with_a_line_end() -> None:
    checked_all("address", ["10.0.0.1", "10.0.0.2"])
    with pytest.raises(NotPrintable):
        checked_all("address", ["10.0.0.1\n10.0.0.2"])
    with pytest.raises(NotPrintable):
        checked(replace(PEER, host="a\nb"))


def test_every_field_that_a_template_prints_is_judged() -> None:
    """The names after a dot in templates are fields that `FIELDS` knows, or loops over parts that it knows."""
    printed = {
        found for path in template_root().rglob("*.j2") for found in re.findall(r"\{\{ ?(\w+)\.(\w+)", path.read_text())
    }
    parts = {"peer": Peer, "mesh": Mesh, "network": Network, "guard": Guard, "table": NeighbourTable}
    known = {(name, field) for name, part in parts.items() for field in FIELDS[part]}
    known |= {("port", field) for part, fields in FIELDS.items() if part.__name__ == "Port" for field in fields}
    judged = {("record", "address"), ("record", "names"), ("outside", "servers"), ("outside", "addresses")}
    assert printed - known == judged


def test_a_whole_fleet_is_printed() -> None:
    assert render_fleet(compile_fleet(WIDE, 0).plan)
