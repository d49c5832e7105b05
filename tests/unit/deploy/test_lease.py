"""The lease of a host: `change.sh begin` in a directory of its own, by the shell that hosts have."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from privnet.render import static_files

OTHER = {"run": "earlier-run", "token": "elsewhere", "owner": "alice@desk", "seconds": "180"}
DAMAGED = "privnet: locked: its lease is damaged, so it counts as held. If no run is under way: rm -r "
TAKEN = "privnet: stale: it has put itself back since this run asked it. Run again"
Lease = dict[str, str | None]


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Begin a wave on a host whose lease has these files; exit code and what was said. What is taken is given back.

    ``meanwhile`` is what another program does there, as soon as it has the lock of all programs.
    """
    text = next(file.text for file in static_files() if file.path.endswith("/change.sh"))
    text = re.sub(r"^(memory|lease|waits|etc|units)=/", rf"\1={tmp_path}/", text, flags=re.MULTILINE)
    stage, lease = tmp_path / "stage", tmp_path / "run" / "privnet" / "lease"
    locked = 'exec 8> ../lock; flock 8; memory=../var/lib/privnet lease=../run/privnet/lease; eval "$0"'

    def run(found: Lease, broken: str = "", seconds: int = 180, meanwhile: str = "") -> tuple[int, str]:
        for path in (stage, lease, tmp_path / "var" / "lib" / "privnet"):
            path.mkdir(parents=True)
        (stage / "change.sh").write_text(text)
        there = {name: text for name, text in found.items() if text is not None}
        for name, content in there.items():
            (lease / name).write_text(f"{content}\n")
        # Nothing is armed: a host that has been through something else than was expected refuses after its lease.
        words = ("begin", "my-run", "add", "another generation", str(seconds), "ab12", "bob@home", broken)
        ours = ["sh", "-c", locked, 'sh ./change.sh "$@"', *words]
        with subprocess.Popen(ours, cwd=stage, stderr=subprocess.PIPE, text=True) as program:
            time.sleep(0.3 if meanwhile else 0)
            subprocess.run(["sh", "-c", locked, meanwhile], cwd=stage, check=True, timeout=20)
            said = program.communicate(timeout=20)[1]
        left = sorted(path.name for path in lease.iterdir()) if lease.exists() else []
        assert left == (sorted(there) if "has it since" in said or said.startswith(DAMAGED) else [])
        return program.returncode, said

    return run


def now(seconds: int = 0) -> str:
    return str(int(time.time()) + seconds)


def test_a_lease_is_held_until_it_is_over(begin: Callable[..., tuple[int, str]]) -> None:
    code, said = begin({**OTHER, "since": now(-40)})
    assert code == 75
    assert re.fullmatch(
        r"privnet: locked: run earlier-run of alice@desk has it since 4[0-9] s\. If that run is dead, the host puts "
        r"itself back within 180 s of its last step; or take it over now: privnet deploy INVENTORY --break-lease "
        r"earlier-run\n",
        said,
    )


@pytest.mark.parametrize(
    ("found", "more"),
    [
        ({"since": now(-181)}, {}),
        ({"since": now(-40), "run": "my-run"}, {}),
        ({"since": now(-40), "token": "ab12"}, {}),
        ({"since": now(-40)}, {"broken": "earlier-run"}),
        # A clock that is set back while a run is under way makes nobody else of it.
        ({"since": now(40), "token": "ab12"}, {}),
    ],
    ids=["over", "of this run", "of this machine", "broken", "of this machine, by a clock that was set back"],
)
def test_a_lease_that_may_be_taken(begin: Callable[..., tuple[int, str]], found: Lease, more: dict[str, str]) -> None:
    assert begin({**OTHER, **found}, **more) == (75, f"{TAKEN}\n")


def test_another_one_is_broken_by_no_name_but_its_own(begin: Callable[..., tuple[int, str]]) -> None:
    assert "has it since" in begin({**OTHER, "since": now()}, broken="earlier")[1]


DAMAGE: dict[str, Lease] = {
    f"{name} {how}": {name: text}
    for name in ("run", "token", "owner", "seconds", "since")
    for how, text in {"missing": None, "empty": "", "garbage": "\x01\x02", "two lines": "1\n2"}.items()
}
DAMAGE |= {
    f"{name} {text[:20]}": {name: text}
    for name in ("seconds", "since")
    for text in ("soon", "-1", "0", "08", "1 ", "1_0", "1e3", "0x10", "$(reboot)", "9" * 11, "9" * 400)
}
DAMAGE |= {"since to come": {"since": "9999999999"}, "all missing": dict.fromkeys([*OTHER, "since"])}
DAMAGE |= {"run of a command": {"run": "x; reboot"}, "run of a path": {"run": "../x"}}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_lease_is_held(begin: Callable[..., tuple[int, str]], damage: str) -> None:
    # Long over, were it whole.
    code, said = begin({**OTHER, "seconds": "10", "since": now(-1000), **DAMAGE[damage]})
    assert code == 75
    assert said.startswith(DAMAGED) and said.count("\n") == 1


LATER = {**OTHER, "run": "other-run"}
"""It began after ours: where both have a host of each other's it withdraws."""
ENDS = "rm -r $lease; echo '{}' > $memory/generation"


def test_who_began_earlier_waits_for_half_of_its_time(begin: Callable[..., tuple[int, str]]) -> None:
    start = time.monotonic()
    code, said = begin({**LATER, "since": now()}, seconds=4)
    assert code == 75 and re.match("privnet: locked: run other-run of alice@desk has it since [1-4] s", said)
    assert 1 < time.monotonic() - start < 4


@pytest.mark.parametrize(
    ("meanwhile", "why"),
    [
        (ENDS.format("other-run retire done"), "run other-run has changed it since this run asked it."),
        # Not withdrawn: nobody has confirmed in time, and it may be at work elsewhere.
        (ENDS.format("back other-run"), "it has put itself back since this run asked it."),
        ("rm -r $lease change.sh", "another program was at work while this one waited for run other-run."),
    ],
    ids=["done", "back", "another program"],
)
def test_who_has_waited_for_something_else_stops(
    begin: Callable[..., tuple[int, str]], meanwhile: str, why: str
) -> None:
    code, said = begin({**LATER, "since": now()}, meanwhile=meanwhile)
    assert code == 75 and said.startswith(f"privnet: locked: {why} Run again")


def test_who_began_later_does_not_wait(begin: Callable[..., tuple[int, str]]) -> None:
    assert "run earlier-run of alice@desk has it since" in begin({**OTHER, "since": now()}, meanwhile="sleep 1")[1]
