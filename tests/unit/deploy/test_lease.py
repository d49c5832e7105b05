"""The lease of a host: `change.sh begin` in a directory of its own, by the shell that hosts have."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from privnet.deploy.script import CONFIRM
from privnet.render import static_files

OTHER = {"run": "earlier-run", "token": "elsewhere", "owner": "alice@desk", "seconds": "180"}
DAMAGED = "privnet: locked: its lease is damaged, so it counts as held. If no run is under way: rm -r "
TAKEN = "privnet: stale: it has rolled back since this run asked it. Run again"
Lease = dict[str, str | None]


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Begin a wave on a host whose lease has these files; exit code and what was said. What is taken is given back."""
    (tmp_path / "change.sh").write_text(_change_program(tmp_path))
    lease = tmp_path / "run" / "privnet" / "lease"

    def run(found: Lease, broken: str = "") -> tuple[int, str]:
        lease.mkdir(parents=True)
        there = {name: content for name, content in found.items() if content is not None}
        for name, content in there.items():
            (lease / name).write_text(f"{content}\n")
        # Nothing is armed: a host that has been through something else than was expected refuses after its lease.
        words = ("begin", "my-run", "add", "another generation", "180", "ab12", "bob@home", broken)
        done = subprocess.run(["sh", str(tmp_path / "change.sh"), *words], capture_output=True, text=True, timeout=20)
        left = sorted(path.name for path in lease.iterdir()) if lease.exists() else []
        assert left == ([] if done.stderr.strip() == TAKEN else sorted(there))
        return done.returncode, done.stderr

    return run


def _change_program(root: Path) -> str:
    text = next(file.text for file in static_files() if file.path.endswith("/change.sh"))
    text = text.replace("/run/privnet/program.lock", f"{root}/program.lock")
    return re.sub(r"^(memory|lease|waits|etc|units)=/", rf"\1={root}/", text, flags=re.MULTILINE)


def now(seconds: int = 0) -> str:
    return str(int(time.time()) + seconds)


def test_a_lease_is_held_until_it_is_over(begin: Callable[..., tuple[int, str]]) -> None:
    code, said = begin({**OTHER, "since": now(-40)})
    assert code == 75
    assert re.fullmatch(
        r"privnet: locked: run earlier-run of alice@desk has it since 4[0-9] s\. If that run is dead, the host rolls "
        r"back within 180 s of its last step; or take it over now: privnet deploy INVENTORY --break-lease "
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


@pytest.mark.parametrize(
    ("found", "before", "kind"),
    [
        (LATER, "another generation", "later"),
        (LATER, "back yet-another-run", "locked"),
        (LATER, None, "locked"),
        (OTHER, "another generation", "locked"),
    ],
    ids=["it withdraws", "it has confirmed a wave", "it has failed there", "we withdraw"],
)
def test_whether_the_other_run_may_withdraw(
    begin: Callable[..., tuple[int, str]], tmp_path: Path, found: Lease, before: str | None, kind: str
) -> None:
    if before is not None:
        armed = tmp_path / "var" / "lib" / "privnet" / "armed"
        armed.mkdir(parents=True)
        (armed / "before").write_text(f"{before}\n")
    code, said = begin({**found, "since": now(-40)})
    assert code == 75 and said.startswith(f"privnet: {kind}: run {found['run']} of alice@desk has it since 4")


@pytest.mark.parametrize(
    ("expected", "generation", "said"),
    [
        ("none", "back my-run", "stale: it has rolled back since this run asked it. Run again"),
        ("going back dead-run", "back dead-run", "stale: it has rolled back since this run asked it. Run again"),
        ("dead-run add done", "back dead-run", "stale: it has rolled back since this run asked it. Run again"),
        (
            "dead-run add done",
            "back other-run",
            "locked: run other-run has been at work there since this run asked it, and was taken back. Run again",
        ),
        (
            "dead-run add done",
            "dead-run switch done",
            "locked: run dead-run has changed it since this run asked it. Run again, with the lock file of that run",
        ),
    ],
)
def test_a_host_that_is_no_longer_what_a_run_has_found(
    tmp_path: Path, expected: str, generation: str, said: str
) -> None:
    memory = tmp_path / "var" / "lib" / "privnet"
    for path in (memory, tmp_path / "run" / "privnet"):
        path.mkdir(parents=True)
    (memory / "generation").write_text(f"{generation}\n")
    (tmp_path / "change.sh").write_text(_change_program(tmp_path))
    words = ["sh", str(tmp_path / "change.sh"), "begin", "my-run", "add", expected, "180", "ab12", "bob@home", ""]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (75, f"privnet: {said}\n")
    assert not (tmp_path / "run" / "privnet" / "lease").exists()


BACK = "privnet: stale: it has rolled back to what it was before: no confirmation came in time. Run again\n"
CHANGED = "privnet: stale: run other-run has changed it meanwhile. Take its lock file, and run again\n"


@pytest.mark.parametrize("word", ["confirm", "extend", "undo", "withdraw"])
@pytest.mark.parametrize("armed", [None, "my-run", "other-run"])
@pytest.mark.parametrize(
    ("generation", "said"),
    [
        ("back my-run", BACK),
        ("going back my-run", BACK),
        ("my-run switch begun", BACK),
        ("back other-run", BACK),
        ("none", BACK),
        ("other-run add begun", CHANGED),
        ("other-run retire done", CHANGED),
    ],
)
def test_a_host_that_is_no_longer_what_a_run_has_left(
    tmp_path: Path, word: str, armed: str | None, generation: str, said: str
) -> None:
    memory = tmp_path / "var" / "lib" / "privnet"
    memory.mkdir(parents=True)
    (memory / "generation").write_text(f"{generation}\n")
    if armed is not None:
        (memory / "armed").mkdir()
        (memory / "armed" / "run").write_text(f"{armed}\n")
        (memory / "armed" / "change.sh").write_text(_change_program(tmp_path))
    program = CONFIRM.replace("/var/lib/privnet", str(memory))
    words = ["sh", "-c", program, "privnet", word, "my-run", "my-run switch done"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (75, "", said)


def test_what_is_confirmed_already_is_confirmed(tmp_path: Path) -> None:
    """The answer to the first confirmation was lost."""
    (tmp_path / "generation").write_text("my-run switch done\n")
    program = ["sh", "-c", CONFIRM.replace("/var/lib/privnet", str(tmp_path)), "privnet"]
    for word, code in (("confirm", 0), ("extend", 75), ("undo", 75), ("withdraw", 75)):
        assert subprocess.run([*program, word, "my-run", "my-run switch done"], timeout=20).returncode == code
