"""Any input up to 1 MiB is judged in 2 s and 300 MB; a mistake in a large fleet costs no more than a good compile."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.fleets import write_fleet

from .corpus import HERE

ROOT = HERE.parents[1]
SECONDS = 2.0
QUIET = 0.25
"""Seconds that a check of a small fleet takes on a machine with nothing else to do; the limit grows with what it takes
here and now."""
KIB = 300 * 1024
PROGRAM = "import sys; from privnet.cli import main; sys.argv = ['privnet', *sys.argv[1:]]; main()"
MIB = 2**20
AP = "ap-a71da13f-7c70-4c00-a644-eee8558d8053"


@dataclass(frozen=True)
class Judged:
    """What a check in a process of its own took and said."""

    code: int
    said: str
    seconds: float
    kib: int


# A process keeps the size of the one it was forked from as its greatest so far, over exec too (getrusage(2)):
# between the test run, which is large, and the check stands one that is small.
MEASURE = """
import os, sys
child = os.posix_spawn(sys.executable, sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 1, 2)])
_, status, usage = os.wait4(child, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss, file=sys.stderr)
"""


def judged(directory: Path, *more: str) -> Judged:
    """`privnet check` on a fleet; seconds of processor time, since others use the machine too."""
    check = [sys.executable, "-c", PROGRAM, "check", str(directory), *more]
    done = subprocess.run([sys.executable, "-c", MEASURE, *check], capture_output=True, text=True)
    code, seconds, kib = done.stderr.split()
    return Judged(int(code), done.stdout, float(seconds), int(kib))


def lay(tmp_path: Path, shop: str) -> Path:
    directory = tmp_path / "small"
    shutil.copytree(HERE / "base", directory)
    (directory / "projects" / "shop.yaml").write_text(shop)
    return directory


def bomb() -> str:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "\n".join(rows) + "\n"


def filled(line: Callable[[int], str], size: int = MIB) -> str:
    """A project of many lines, just under a size in bytes."""
    text, number = ["project: shop\n"], 0
    left = size - len(text[0])
    while (row := line(number)) and len(row) <= left:
        text.append(row)
        left -= len(row)
        number += 1
    return "".join(text)


INPUTS: dict[str, tuple[Callable[[], str], str]] = {
    "alias bomb": (bomb, "PN106"),
    "bomb of 1 MiB": (lambda: filled(lambda n: f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n"), "PN106"),
    "deep": (lambda: "project: " + "[" * 500_000, "PN102"),
    "deep and closed": (lambda: "project: " + "[" * 500_000 + "]" * 500_000, "PN102"),
    "deep by indentation": (lambda: filled(lambda n: " " * n + "a:\n"), "PN102"),
    "deep mappings": (lambda: "{a: " * 250_000, "PN102"),
    "digits": (lambda: f"project: shop\nprivate_network: {{vni: {'9' * 5000}}}\n", "PN206"),
    "digits of 1 MiB": (lambda: f"project: shop\nprivate_network: {{vni: {'9' * (MIB - 100)}}}\n", "PN206"),
    "values": (lambda: "project: shop\napplications: [" + "a," * 300_000 + "]\n", "PN102"),
    "values below the limit": (lambda: "project: shop\napplications: [" + "a," * 199_000 + "]\n", "PN201"),
    "unknown fields": (lambda: filled(lambda n: f"f{n}: {n}\n"), "PN202"),
    "nearly known fields": (lambda: filled(lambda n: f"privatenetwork{n}: x\n", MIB // 4), "PN202"),
    "keys given twice": (lambda: filled(lambda n: "project: shop\n"), "PN107"),
    "applications": (
        lambda: "project: shop\napplications:\n" + filled(lambda n: f"  ap-{n}: {{}}\n", MIB - 20)[14:],
        "PN211",
    ),
    "one unknown host": (
        lambda: f"project: shop\napplications: {{{AP}: {{formation: {{web: [{'hh, ' * 190_000}]}}}}}}\n",
        "PN301",
    ),
    "characters of no width": (lambda: "project: shop\nx: " + "\u200b" * 340_000 + "\n", "PN104"),
    "lists as keys": (lambda: filled(lambda n: f"[a, b]: {n}\n"), "PN111"),
    "wrong process types": (
        lambda: (
            f"project: shop\napplications:\n  {AP}:\n    formation:\n"
            + filled(lambda n: f"      T_{n}: [a]\n", MIB - 100)[14:]
        ),
        "PN210",
    ),
    "types": (
        lambda: (
            f"project: shop\napplications:\n  {AP}:\n    formation:\n"
            + "".join(f"      t{n}: [nowhere-{n}]\n" for n in range(30_000))
        ),
        "PN301",
    ),
    "one long line": (lambda: "project: " + "x" * (MIB - 20), "PN210"),
    "forbidden characters": (lambda: "project: shop\n# " + "\u202e" * 300_000, "PN104"),
    "conflict markers": (lambda: filled(lambda n: "<<<<<<< HEAD\n"), "PN109"),
    "2 MiB": (lambda: "project: shop\n" + "#" * 2 * MIB, "PN102"),
    "unclosed quotes": (lambda: filled(lambda n: f"a{n}: 'b\n"), "PN105"),
    "text of many lines": (lambda: "project: |\n" + "  x\n" * 250_000, "PN112"),
}


FLEETS: dict[str, tuple[Callable[[int], str], str]] = {
    "wrong addresses": (lambda n: f"  h{n}: {{address: 10.0.0}}\n", "PN212"),
    "one endpoint": (lambda n: f"  h{n}: {{address: {address(n)}, endpoint: '192.0.2.1:51820'}}\n", "PN309"),
    "hosts in the mesh prefix": (lambda n: f"  h{n}: {{address: 100.64.{n >> 8 & 255}.{n & 255}}}\n", "PN311"),
    "hosts that containers do not name": (lambda n: f"  h{n}: {{address: {address(n)}}}\n", "PN301"),
}
"""A line of ``hosts:``, some 20,000 times."""


def address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


@pytest.fixture(scope="module")
def slowness() -> float:
    """How much slower than quiet the machine is."""
    return max(1.0, max(judged(HERE / "base").seconds for _ in range(2)) / QUIET)


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_is_judged_in_2_seconds_and_300_mb(name: str, slowness: float, tmp_path: Path) -> None:
    make, code = INPUTS[name]
    done = judged(lay(tmp_path, make()))
    assert done.code == 2, done.said
    assert f"error[{code}]" in done.said
    assert done.said.endswith("No host was contacted.\n")
    assert len(done.said) < 20_000
    assert done.seconds < SECONDS * slowness
    assert done.kib < KIB


@pytest.mark.parametrize("name", FLEETS)
def test_a_fleet_of_20_000_hosts_is_judged_in_2_seconds_and_300_mb(name: str, slowness: float, tmp_path: Path) -> None:
    line, code = FLEETS[name]
    directory = lay(tmp_path, (HERE / "base" / "projects" / "shop.yaml").read_text())
    (directory / "fleet.yaml").write_text("fleet: small\nhosts:\n" + filled(line, MIB - 100).partition("\n")[2])
    done = judged(directory)
    assert (done.code, f"error[{code}]" in done.said) == (2, True), done.said
    assert done.seconds < SECONDS * slowness
    assert done.kib < KIB


def test_a_right_fleet_in_such_a_process_is_accepted(tmp_path: Path) -> None:
    done = judged(lay(tmp_path, (HERE / "base" / "projects" / "shop.yaml").read_text()))
    assert (done.code, done.seconds < SECONDS, done.kib < KIB) == (0, True, True), done


def test_one_mistake_among_10_000_containers_takes_the_time_of_a_good_compile(tmp_path: Path) -> None:
    """The message stands alone, and looking for the nearest host name among 1,000 costs next to nothing."""
    directory = tmp_path / "large"
    write_fleet(directory, hosts=1000, networks=1000, containers=10_000)
    good = min((judged(directory) for _ in range(2)), key=lambda done: done.seconds)
    assert good.code == 0, good.said
    path = directory / "projects" / "project-500.yaml"
    path.write_text(path.read_text().replace("web: [host-", "web: [hots-", 1))
    bad = min((judged(directory) for _ in range(2)), key=lambda done: done.seconds)
    assert bad.code == 2
    assert bad.said.count("error[") == 1
    assert "did you mean `host-" in bad.said
    assert bad.seconds < 1.2 * good.seconds + 0.2


def test_all_wrong_is_no_slower_either(tmp_path: Path) -> None:
    directory = tmp_path / "large"
    write_fleet(directory, hosts=200, networks=200, containers=5000)
    for path in (directory / "projects").iterdir():
        path.write_text(path.read_text().replace("host-", "hosts-"))
    begun = time.monotonic()
    done = judged(directory)
    assert "and 4980 more" in done.said, done.said[-200:]
    assert done.seconds < 3 * SECONDS
    assert time.monotonic() - begun < 60
