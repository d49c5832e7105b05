"""The lease of a host: `change.sh begin` in a directory of its own, by the shell that hosts have."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from privnet.render import static_files

OTHER = {"run": "other-run", "token": "elsewhere", "owner": "alice@desk", "seconds": "180"}
DAMAGED = "privnet: locked: its lease is damaged, so it counts as held. If no run is under way: rm -r "
TAKEN = "privnet: stale: it has put itself back since this run asked it. Run again"
Lease = dict[str, str | None]


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Begin a wave on a host whose lease has these files; exit code and what was said. What is taken is given back."""
    program = next(file.text for file in static_files() if file.path.endswith("/change.sh"))
    program = re.sub(r"^(memory|lease|waits|etc|units)=/", rf"\1={tmp_path}/", program, flags=re.MULTILINE)
    (tmp_path / "change.sh").write_text(program)
    lease = tmp_path / "run" / "privnet" / "lease"

    def run(found: Lease, broken: str = "", run: str = "my-run") -> tuple[int, str]:
        lease.mkdir(parents=True)
        there = {name: text for name, text in found.items() if text is not None}
        for name, text in there.items():
            (lease / name).write_text(f"{text}\n")
        # Nothing is armed: a host that has been through something else than was expected refuses after its lease.
        words = ("begin", run, "add", "another generation", "180", "ab12", "bob@home", broken)
        done = subprocess.run(["sh", str(tmp_path / "change.sh"), *words], capture_output=True, text=True, timeout=20)
        left = sorted(path.name for path in lease.iterdir()) if lease.exists() else []
        assert left == ([] if done.stderr.strip() == TAKEN else sorted(there))
        return done.returncode, done.stderr

    return run


def now(seconds: int = 0) -> str:
    return str(int(time.time()) + seconds)


def test_a_lease_is_held_until_it_is_over(begin: Callable[..., tuple[int, str]]) -> None:
    code, said = begin({**OTHER, "since": now(-40)})
    assert code == 75
    assert re.fullmatch(
        r"privnet: locked: run other-run of alice@desk has it since 4[0-9] s\. If that run is dead, the host puts "
        r"itself back within 180 s of its last step; or take it over now: privnet deploy INVENTORY --break-lease "
        r"other-run\n",
        said,
    )


@pytest.mark.parametrize(
    ("found", "more"),
    [
        ({"since": now(-181)}, {}),
        ({"since": now(-40), "run": "my-run"}, {}),
        ({"since": now(-40), "token": "ab12"}, {}),
        ({"since": now(-40)}, {"broken": "other-run"}),
        # A clock that is set back while a run is under way makes nobody else of it.
        ({"since": now(40), "token": "ab12"}, {}),
    ],
    ids=["over", "of this run", "of this machine", "broken", "of this machine, by a clock that was set back"],
)
def test_a_lease_that_may_be_taken(begin: Callable[..., tuple[int, str]], found: Lease, more: dict[str, str]) -> None:
    assert begin({**OTHER, **found}, **more) == (75, f"{TAKEN}\n")


def test_another_one_is_broken_by_no_name_but_its_own(begin: Callable[..., tuple[int, str]]) -> None:
    assert "has it since" in begin({**OTHER, "since": now()}, broken="other")[1]


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
