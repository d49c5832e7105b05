"""Whatever a host answers: what follows of it here is never an exception, for one would end the run for all hosts."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from answers import Sections, answer, bare, key_of, text
from hypothesis import example, given, settings
from hypothesis import strategies as st

from privnet.compiler import compile_fleet
from privnet.deploy import changes, operations
from privnet.deploy.run import Run
from privnet.deploy.script import Script, Turn
from privnet.deploy.state import HostState, Unknown, parse_snapshot
from privnet.diagnostics import visible
from privnet.plan.host import plan_fleet

HERE = Path(__file__).parent
LAB = HERE.parents[2] / "inventory" / "lab"
NOW = 1_800_000_000.0
HOST, OTHER = "lab-1", "lab-2"
HASH = "0" * 64
WHICH = ["as planned", "with strays", "a real host", "a bare machine"]
STRAY = json.dumps([{"ifname": n, "ifindex": 9, "flags": [], "mtu": 1400} for n in ("pnb77", "pnx77", "pncffffffffff")])
FOREIGN = {"ifname": "flannel.1", "ifindex": 8, "flags": [], "mtu": 1450}
STRAYS: Sections = {
    "system": [
        f"time {NOW:.0f}",
        "listens 53",
        "listens 51820",
        "route default eth0",
        "route 100.64.7.0/24 tun0",
        "route 100.64.0.0/10 tun0 52",
        f"applied 1 {HASH} 20250101T000000-abcdef",
        "generation 20250101T000000-abcdef add done",
        f"armed 20250101T000000-abcdef {HASH[:32]}",
        "masked privnet-guard.service",
        "device eth0",
    ],
    "files": [
        "f 644 0:0 /etc/privnet/overlay/77.fdb\t",
        "d 777 7:7 /etc/privnet/overlay\t",
        "l 777 0:0 /etc/systemd/system/privnet-networks.target.wants/privnet-overlay@77.service\t../x",
    ],
    "mesh": [f"peer {key_of('stray')} 192.0.2.77:51820 100.64.0.77/32 off no"],
    "links": [STRAY, json.dumps([FOREIGN | {"linkinfo": {"info_kind": "vxlan", "info_data": {"port": 4789}}}])],
    "addresses": ["privnet 10.9.9.9/32", "pnb7000000 ipv6"],
    "fdb": [
        "02:70:0a:f0:00:77 dev pnx7000000 dst 100.64.0.77 self static",
        "02:70:0a:f0:00:77 dev pnx7000000 dst 100.64.0.78 self static",
        "02:70:0a:f0:00:78 dev pnx7000000 dst 100.64.0.77 port 4790 vni 9 self static",
    ],
    "neighbours": [
        "10.240.0.77 dev pnx7000000 lladdr 02:70:0a:f0:00:4d PERMANENT ",
        "10.240.0.78 dev pnx7000000 lladdr 52:54:00:12:34:56 PERMANENT ",
    ],
    "firewall": [
        "bridged yes",
        *("table ip filter {", "chain FORWARD {", "type filter hook forward priority filter; policy drop;", "}", "}"),
        *("table inet own {", "chain in {", "type filter hook input priority 0;", "jump in", "drop", "}", "}"),
    ],
    "namespaces": ["7.web.ap-0c8b7a52-93a4-4f39-9b1d-2f6f3a1c7d10\t"],
    "units": [
        line
        for unit in ("overlay@77", "container@pncffffffffff", "namespace@pncffffffffff", f"dns@pn-{HASH[:8]}")
        for line in (f"Id=privnet-{unit}.service", "LoadState=loaded", "ActiveState=failed", "SubState=failed")
    ],
    "names": [f"pn-0 no {HASH} {HASH}"],
    "answering": [
        "pn-73686f70-d05e-40ea-bf63-c4f8a75a9d8c udp 10.240.0.1:53 ",
        'pn-73686f70-d05e-40ea-bf63-c4f8a75a9d8c tcp *:53 users:(("x y",pid=7,fd=1))',
        "pn-73686f70-d05e-40ea-bf63-c4f8a75a9d8c servers 192.0.2.9#53 ",
    ],
}


@cache
def made() -> Run:
    """A run over the lab's fleet, whose hosts have keys."""
    compiled = compile_fleet(LAB)
    keys = {name: replace(host, wireguard=key_of(name)) for name, host in compiled.lock.hosts.items()}
    lock = replace(compiled.lock, hosts=keys)
    return Run(LAB, compiled, compiled.known, lock, plan_fleet(compiled.declaration, lock))


@cache
def answers() -> dict[str, list[str]]:
    """What hosts say: as planned, with one of everything that can be wrong, a real one's, and a bare machine's."""
    planned = answer(made().plan.hosts[HOST])
    return {
        "as planned": text(planned),
        "with strays": text({name: [*lines, *STRAYS.get(name, ())] for name, lines in planned.items()}),
        "a real host": (HERE / "captured" / "lab-1.txt").read_text().splitlines(),
        "a bare machine": text(bare()),
    }


@cache
def planned_state() -> HostState | Unknown:
    return parse_snapshot(answers()["as planned"])


def followed(lines: Iterable[str]) -> HostState | Unknown:
    """Everything that a run does on this machine with an answer; what it says of it is one clean line."""
    run = made()
    found = parse_snapshot(lines)
    if isinstance(found, Unknown):
        _is_clean(found.why, 300)
        return found
    run.stopped, run.judged, run.executing = None, None, False
    run.answers = {(OTHER, False): planned_state(), (HOST, False): found}
    for why in [*run.judge(NOW, run.plan.hosts).values(), run.stopped or ""]:
        _is_clean(why, 4000)
    run.executing = True
    for why in (run.lost_key(HOST, found), run.learn(HOST, found), *(why for _, why in run.held(HOST, found))):
        _is_clean(why or "", 600)
    for wave in ("prepare", "add", "switch", "retire"):
        program = getattr(changes, wave)
        script = program(found) if wave == "prepare" else program(run.plan_of(HOST), found)
        uploaded(script, run.turn(HOST, wave, found))
    return found


UPLOADED: set[int] = set()


def uploaded(script: Script, turn: Turn) -> None:
    """Upload what a stage does, and print it; what was uploaded before still can be."""
    key = hash((repr(script), turn))
    if key not in UPLOADED:
        script.upload(turn)
        json.dumps(script.lines())
        UPLOADED.add(key)


def _is_clean(why: str, length: int) -> None:
    assert visible(why) == why and len(why) < length, why


@pytest.mark.parametrize(
    ("been", "why"),
    [({}, "nothing is changed"), ({HOST: "r1 add done"}, "another run is at work, so what this one has begun")],
    ids=["before", "after"],
)
def test_that_nothing_is_changed_is_said_while_it_is_so(been: dict[str, str], why: str) -> None:
    run = made.__wrapped__()
    run.first, run.been = {"add": HOST}, been
    told = SimpleNamespace(stderr_lines=["privnet: locked: run r7 of alice@desk has it since 40 s"])
    operations._heard(run, SimpleNamespace(name=HOST), told)
    assert run.stopped is not None and run.stopped.startswith(why)
    assert run.stopped.endswith(f": {HOST}: run r7 of alice@desk has it since 40 s")


@pytest.mark.parametrize("what", WHICH)
def test_honest_answers_are_read(what: str) -> None:
    assert isinstance(followed(answers()[what]), HostState)


def test_one_of_everything_that_can_be_wrong_is_acted_upon() -> None:
    """The twin of what follows: the answers that are spoilt lead to something."""
    found = followed(answers()["with strays"])
    assert isinstance(found, HostState)
    plan = made().plan_of(HOST)
    said = "\n".join([*changes.add(plan, found).lines(), *changes.retire(plan, found).lines()])
    for part in ("chown -h 0:0", "pnx77", "pncffffffffff", "set privnet peer", "overlay/77.fdb", "netns delete 7.web"):
        assert part in said
    assert len(made().judge(NOW, made().plan.hosts)[HOST].split("; ")) > 3


# --- spoilt ---------------------------------------------------------------------------------------------

NUMBERS = ["", "-1", "0", "1e999", "null", '""', "0x10", "\u0663", "65536", str(2**64 + 1)]
NUMBERS += ["9" * digits for digits in (20, 400, 5000)]
WORDS = ["", "\x1b]0;owned\x07", "$(reboot)", "\t", "\ud800", "..", "a" * 300]


def _numbers(line: str) -> Iterator[tuple[int, int]]:
    """Where numbers stand, outside of digests; in JSON one of each key, and of those that have none the first."""
    seen: Counter[str] = Counter()
    for found in re.finditer('(?:"([a-z_]+)": ?"?)?(?<![0-9a-f])([0-9]+)(?![0-9a-f]{20})', line):
        key = found[1] or ""
        seen[key] += 1
        if seen[key] == 1 or (not key and seen[key] <= 12):
            yield found.span(2)


def _kinds(lines: list[str]) -> dict[tuple[str, ...], tuple[int, str]]:
    """One line of each kind, with its place: of one kind are lines of a part that begin alike."""
    kinds: dict[tuple[str, ...], tuple[int, str]] = {}
    section = ""
    for place, line in enumerate(lines):
        section = line if line.startswith("##") else section
        first, *rest = re.split("[ =\t]", re.sub("[0-9a-f]{2,}|[0-9]", "", line))
        kinds.setdefault((section, first[:10], str(len(rest))), (place, line))
    return kinds


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: repr(number[:20]) + f"x{len(number)}")
def test_each_number_of_each_kind_of_line_in_turn(number: str) -> None:
    lines = answers()["with strays"]
    for place, line in _kinds(lines).values():
        for begin, end in [*_numbers(line)][:40]:
            followed([*lines[:place], line[:begin] + number + line[end:], *lines[place + 1 :]])


@pytest.mark.parametrize("word", WORDS, ids=lambda word: ascii(word[:20]))
def test_each_word_of_each_kind_of_line_in_turn(word: str) -> None:
    lines = answers()["with strays"]
    for place, line in _kinds(lines).values():
        for found in [*re.finditer("[^ =\t:,]+", line)][:40]:
            begin, end = found.span()
            followed([*lines[:place], line[:begin] + word + line[end:], *lines[place + 1 :]])


SPOIL = st.tuples(
    st.sampled_from(["number", "word", "cut", "leave out", "twice", "elsewhere", "leaf"]),
    st.integers(0, 10**4),
    st.integers(0, 10**4),
    st.sampled_from([*NUMBERS, *WORDS]) | st.text(max_size=30),
)


def _spoil(lines: list[str], how: str, where: int, what: int, junk: str) -> None:
    place = where % len(lines)
    line = lines[place]
    spans = [*_numbers(line)] if how == "number" else [found.span() for found in re.finditer("[^ =\t]+", line)]
    if how in ("number", "word") and spans:
        begin, end = spans[what % len(spans)]
        lines[place] = line[:begin] + junk + line[end:]
    elif how == "leave out" and len(lines) > 1:
        del lines[place]
    elif how == "twice":
        lines.insert(place, line)
    elif how == "elsewhere":
        lines.insert(what % len(lines), line)
    elif how == "leaf" and line.startswith("["):
        lines[place] = _with_leaf(line, what, junk)
    else:
        cut = what % (len(line) + 1)
        lines[place] = line[:cut] + junk


def _with_leaf(line: str, what: int, junk: str) -> str:
    """JSON in which one value is another: text, or what the junk is as JSON."""
    found = re.compile(r'(?<=":)(?:"[^"]*"|[0-9.]+|true|false|\{|\[)')
    try:
        spans = [match.span() for match in found.finditer(json.dumps(json.loads(line), separators=(",", ":")))]
        line = json.dumps(json.loads(line), separators=(",", ":"))
        begin, end = spans[what % len(spans)]
    except (ValueError, ZeroDivisionError):
        return line
    return line[:begin] + (junk if what % 2 else json.dumps(junk)) + line[end:]


@settings(max_examples=400, deadline=None)
@given(what=st.sampled_from(WHICH), spoil=st.lists(SPOIL, max_size=6))
@example(what="with strays", spoil=[])
def test_an_answer_that_is_spoilt_anywhere(what: str, spoil: list[tuple[str, int, int, str]]) -> None:
    lines = [*answers()[what]]
    for one in spoil:
        _spoil(lines, *one)
    followed(lines)


@settings(max_examples=100, deadline=None)
@given(section=st.sampled_from(sorted(bare())), more=st.lists(st.text(max_size=200), max_size=10))
def test_an_answer_of_anything(section: str, more: list[str]) -> None:
    followed(more)
    followed(text(bare() | {section: more}))
    planned = answer(made().plan.hosts[HOST])
    followed(text(planned | {section: [*planned[section], *more]}))


RULES = ("table ip t {", "chain in {", "type filter hook input priority 0; policy drop;", "ip saddr 192.0.2.77 accept")
MANY: dict[str, tuple[str, Callable[[int], str]]] = {
    "units that are masked": ("system", lambda n: f"masked privnet-{n}"),
    "routes into the mesh": ("system", lambda n: f"route 100.64.{n % 250}.0/24 tun{n}"),
    "routes of other tables": ("system", lambda n: f"route 100.64.{n % 250}.0/24 tun{n} {n % 99}"),
    "tables of a firewall": ("firewall", lambda n: f"table ip t{n} {{"),
    "chains of a firewall": ("firewall", lambda n: "table ip t {" if n == 10**6 else f"chain c{n} {{"),
    "rules of a firewall": ("firewall", lambda n: RULES[min(n - 10**6, 3)]),
    "directories": ("files", lambda n: f"d 777 0:0 /etc/privnet/{n}\t"),
    "files": ("files", lambda n: f"f 644 0:0 /etc/privnet/{n}\t"),
    "peers": ("mesh", lambda n: f"peer {n:A>42}A= 192.0.2.9:5 10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32 off no"),
    "addresses": ("addresses", lambda n: f"privnet 10.{n >> 16}.{n >> 8 & 255}.{n & 255}/8"),
    "devices": ("links", lambda n: f'[{{"ifname": "pnx{n}", "ifindex": 1, "flags": [], "mtu": 1}}]'),
    "destinations": (
        "fdb",
        lambda n: f"02:70:0a:f0:00:77 dev pnx7000000 dst 10.{n >> 16}.{n >> 8 & 255}.{n & 255} self",
    ),
}


@pytest.mark.parametrize("what", MANY)
def test_a_megabyte_of_one_thing_takes_no_longer_than_it_is_long(what: str) -> None:
    """What takes the square of it would stand still for minutes here, and for hours at ten times as much."""
    section, line = MANY[what]
    planned = answer(made().plan.hosts[HOST])
    many = [line(n) for n in range(10**6, 10**6 + 10**6 // len(line(10**6)))]
    begun = time.process_time()
    assert isinstance(followed(text(planned | {section: [*planned[section], *many]})), HostState)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("value", ["{},", "[],", '{"a":1},', "0,"])
def test_more_values_than_a_host_has_are_not_read(value: str) -> None:
    """Sixty megabytes of them would be up to 1.5 GB here."""
    found = parse_snapshot(text(bare() | {"links": [f"[{value * 4_000_000}{value[:-1]}]"]}))
    assert found == Unknown("its answer has more than 4,000,000 values")
    assert isinstance(parse_snapshot(text(bare() | {"links": [f"[{'{},' * 1_900_000}{{}}]"]})), HostState)
