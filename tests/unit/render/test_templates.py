"""Templates print: values, their attributes, loops over them, and whether there are any. Nothing is decided in one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from jinja2 import Environment, nodes
from jinja2.exceptions import UndefinedError

from privnet import render
from privnet.model.identifiers import Prefix
from privnet.plan.overlay import Network
from privnet.render import reverse_zones, template_root

TEMPLATES = sorted(template_root().rglob("*"))
PRINTING = (nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Getattr, nodes.Tuple)
ALLOWED = (*PRINTING, nodes.For, nodes.If)


def logic(source: str) -> list[str]:
    """What a template does beyond printing."""
    found = []
    for node in Environment(autoescape=False).parse(source).find_all(nodes.Node):
        joins = isinstance(node, nodes.Filter) and node.name == "join"
        text = isinstance(node, nodes.Const) and isinstance(node.value, str)
        if not (isinstance(node, ALLOWED) or joins or text):
            found.append(type(node).__name__)
        if isinstance(node, nodes.For) and (node.test or node.else_ or node.recursive):
            found.append("For with a test")
        if isinstance(node, nodes.If) and (node.elif_ or node.else_ or not isinstance(node.test, PRINTING)):
            found.append("If with a choice")
    return found


@pytest.mark.parametrize("path", [path for path in TEMPLATES if path.is_file()], ids=lambda path: path.name)
def test_a_template_only_prints(path: Path) -> None:
    assert path.suffix == ".j2"
    assert logic(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "{% set a = 1 %}",
        "{{ a + 1 }}",
        "{{ a(1) }}",
        "{{ a | upper }}",
        "{{ a['b'] }}",
        "{% if a == 1 %}x{% endif %}",
        "{% if a %}x{% else %}y{% endif %}",
        "{% for a in b if a %}{% endfor %}",
        "{% for a in b %}{% else %}c{% endfor %}",
        "{% include 'x' %}",
        "{% macro m() %}{% endmacro %}",
        "{{ a if b }}",
        "{{ a ~ b }}",
        "{{ 3 }}",
    ],
)
def test_logic_in_a_template_is_seen(source: str) -> None:
    assert logic(source)


def test_a_value_that_is_missing_is_an_error_and_not_an_empty_text() -> None:
    with pytest.raises(UndefinedError):
        render._print("wireguard/mesh.conf", mesh=SimpleNamespace(peers=(), address="100.64.0.1"), peers="")


def test_every_template_is_used() -> None:
    source = Path(render.__file__).read_text()
    units = {f"systemd/{name}" for name in render.UNIT_FILES}
    for path in TEMPLATES:
        if path.is_file():
            name = str(path.relative_to(template_root())).removesuffix(".j2")
            assert f'"{name}"' in source or name in units, f"{name} is never printed"


@pytest.mark.parametrize(
    ("cidr", "zones"),
    [
        ("10.240.0.0/22", ["0.240.10", "1.240.10", "2.240.10", "3.240.10"]),
        ("10.0.0.0/16", ["0.10"]),
        ("172.16.4.8/29", ["4.16.172"]),
        ("192.168.0.0/24", ["0.168.192"]),
        ("10.20.0.0/20", [f"{third}.20.10" for third in range(16)]),
    ],
)
def test_reverse_zones_cover_the_prefix(cidr: str, zones: list[str]) -> None:
    assert list(reverse_zones(Prefix.parse(cidr))) == [f"{zone}.in-addr.arpa" for zone in zones]


def test_networks_are_told_apart_by_identity() -> None:
    """The caches of `render` are keyed by them: comparing their containers would take longer than printing them."""
    assert Network.__hash__ is object.__hash__
