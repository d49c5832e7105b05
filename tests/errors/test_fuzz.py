"""Whatever bytes or values come: an answer in our own words, or a fleet whose files obey their grammars."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from .corpus import HERE
from .test_mutations import inside, judge

BASE = HERE / "base"
AP = "ap-a71da13f-7c70-4c00-a644-eee8558d8053"
PN = "pn-ad0fd6a1-d05e-40ea-bf63-c4f8a75a9d8c"
TERMS = {"accepted_by": "ops@shop.example", "accepted_on": "2025-09-25", "version": "beta-1"}
QUICK = settings(max_examples=150, deadline=2000, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def judged(fleet: bytes, shop: bytes) -> int:
    """How many problems a fleet of two files has, after every one was looked at."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        (directory / "projects").mkdir()
        (directory / "fleet.yaml").write_bytes(fleet)
        (directory / "projects" / "shop.yaml").write_bytes(shop)
        return len(judge(directory))


FLEET = (BASE / "fleet.yaml").read_bytes()
SHOP = (BASE / "projects" / "shop.yaml").read_bytes()


@QUICK
@given(st.binary(min_size=1, max_size=300))
@example(b"\xff\xfea\x00")
@example(b"%YAML 9.9\n---\nproject: shop\n")
@example(b"project: shop\n...\n")
@example(b"? [a]\n: b\n")
@example(b"project: &a [*a]\n")
@example(b"!<tag:yaml.org,2002:str> project: shop\n")
def test_any_bytes(data: bytes) -> None:
    assert judged(FLEET, data) > 0 or b"project" in data


@QUICK
@given(st.text(alphabet="project: shop\n-{}[]\"'#&*!|>%@`,?~\t\\0a\u00e9\u2028", max_size=120))
def test_text_that_looks_like_yaml(text: str) -> None:
    judged(FLEET, text.encode())


@QUICK
@given(st.integers(0, len(SHOP)), st.integers(0, 12), st.binary(max_size=6))
def test_a_right_file_with_a_stretch_replaced(start: int, length: int, new: bytes) -> None:
    judged(FLEET, SHOP[:start] + new + SHOP[start + length :])


EVIL = st.sampled_from(
    [
        "a\nb",
        "$(id)",
        "`id`",
        "{{ 7*7 }}",
        "..",
        "a/b",
        "%n",
        "#",
        "\u202e",
        "１",
        "\x1b[0m",
        "[Peer]",
        "no",
        "010",
        "~",
    ]
)
WORDS = st.one_of(EVIL, st.text(max_size=12), st.from_regex("[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True))
HOSTS = st.sampled_from(["par-a-1", "par-a-2", "par-b-1"])
VALUES = st.recursive(
    st.one_of(WORDS, st.integers(-5, 70000), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=5,
)
FORMATIONS = st.dictionaries(
    st.one_of(st.sampled_from(["web", "worker", "clock"]), WORDS),
    st.one_of(
        st.lists(st.one_of(HOSTS, WORDS), max_size=4),
        st.fixed_dictionaries(
            {"count": st.integers(0, 6)}, optional={"spread": st.sampled_from(["zone", "host", "x"])}
        ),
        VALUES,
    ),
    max_size=3,
)
PROJECTS = st.fixed_dictionaries(
    {"project": st.one_of(st.just("shop"), WORDS)},
    optional={
        "private_network": st.fixed_dictionaries(
            {"id": st.one_of(st.just(PN), WORDS), "terms": st.one_of(st.just(TERMS), VALUES)},
            optional={
                "cidr": st.one_of(st.sampled_from(["10.0.0.0/28", "10.1.0.0/16", "192.168.0.0/29"]), WORDS),
                "vni": st.one_of(st.integers(0, 2**24 + 1), WORDS),
            },
        ),
        "applications": st.dictionaries(
            st.one_of(st.just(AP), WORDS),
            st.fixed_dictionaries(
                {}, optional={"name": WORDS, "hds": st.one_of(st.booleans(), WORDS), "formation": FORMATIONS}
            ),
            max_size=2,
        ),
        "surprise": VALUES,
    },
)
FLEETS = st.fixed_dictionaries(
    {
        "fleet": st.one_of(st.just("small"), WORDS),
        "hosts": st.just(
            {
                name: {"address": f"192.0.2.1{n}", "zone": name[:5]}
                for n, name in enumerate(("par-a-1", "par-a-2", "par-b-1"))
            }
        ),
    },
    optional={
        "domain": st.one_of(st.sampled_from(["apps.internal", "a.b.c.example"]), WORDS),
        "dns": st.fixed_dictionaries(
            {}, optional={"ttl": st.integers(0, 4000), "upstream": st.lists(st.one_of(st.just("9.9.9.9#5353"), WORDS))}
        ),
        "wireguard": st.fixed_dictionaries({}, optional={"port": st.integers(0, 70000), "mesh": st.one_of(WORDS)}),
        "policy": VALUES,
    },
)


@QUICK
@given(FLEETS, PROJECTS)
def test_any_values_in_the_shape_of_a_declaration(fleet: Any, project: Any) -> None:
    judged(json.dumps(fleet).encode(), json.dumps(project).encode())


PLAIN = st.fixed_dictionaries(
    {
        "project": st.just("shop"),
        "private_network": st.just({"id": PN, "terms": TERMS}),
        "applications": st.dictionaries(
            st.uuids(version=4).map(lambda number: f"ap-{number}"),
            st.fixed_dictionaries(
                {
                    "formation": st.dictionaries(
                        st.from_regex("[a-z]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True),
                        st.one_of(st.lists(HOSTS, max_size=4), st.fixed_dictionaries({"count": st.integers(0, 6)})),
                        max_size=3,
                    )
                }
            ),
            max_size=3,
        ),
    }
)


@QUICK
@given(PLAIN)
def test_every_right_declaration_gives_right_files(project: Any) -> None:
    assert judged(FLEET, json.dumps(project).encode()) == 0


def test_the_judge_sees_what_is_wrong() -> None:
    assert judged(FLEET, SHOP) == 0
    assert judged(FLEET, SHOP.replace(b"par-a-2", b"par-a-9")) == 1
    assert inside.__doc__
