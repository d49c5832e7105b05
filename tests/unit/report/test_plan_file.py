"""A saved plan is carried out as it was looked at, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from privnet.compiler import compile_fleet
from privnet.diagnostics import DeclarationError
from privnet.report.plan_file import hosts_moved_on, moved_on, plan_file, read_plan_file
from privnet.store import load_lock, save_lock

NOW = 1_700_000_000
LIVE = {
    "h1": {"applied": "3 abc 20251001T0000-ab", "changes": [{"stage": "add", "lines": ["write /etc/x"]}]},
    "h2": {"applied": None, "changes": []},
}


@pytest.fixture
def fleet(written: Callable[..., Path], fleets: Any) -> Path:
    """Deployed with two containers; a third is declared."""

    def declare(web: list[str]) -> Path:
        return written({"hosts": fleets.hosts("h1", "h2")}, {"shop": fleets.project("shop", {"a": {"web": web}})})

    directory = declare(["h1", "h2"])
    save_lock(directory, compile_fleet(directory, NOW).lock)
    return declare(["h1", "h2", "h2"])


def saved(directory: Path, now: int = NOW, **more: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(plan_file(compile_fleet(directory, now), **more))
    return data


def differs(plan: dict[str, Any], directory: Path, now: int = NOW) -> list[str]:
    return [problem.message for problem in moved_on(plan, compile_fleet(directory, now))]


def test_it_says_what_it_stands_on_and_what_changes(fleet: Path) -> None:
    plan = saved(fleet)
    assert set(plan["documents"]) == {"fleet.yaml", "projects/shop.yaml"}
    lock = (fleet / "privnet.lock.yaml").read_text()
    assert plan["lock"]["serial"] == 1 and f"checksum: {plan['lock']['checksum']}\n" in lock
    assert [(change["sign"], change["kind"], change["impact"]["label"]) for change in plan["changes"]] == [
        ("+", "container", "none")
    ]
    assert (plan["removals"]["number"], plan["live"]) == (0, None)
    assert plan_file(compile_fleet(fleet, NOW)) == plan_file(compile_fleet(fleet, NOW))


def test_nothing_has_moved_on(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever one stands, and however much later it is."""
    plan = saved(fleet)
    assert differs(plan, fleet) == []
    monkeypatch.chdir(fleet)
    assert differs(plan, Path()) == []
    assert differs(plan, fleet, NOW + 10**6) == []


def test_the_yaml_has_moved_on(fleet: Path, fleets: Any) -> None:
    plan = saved(fleet)
    path = fleet / "projects" / "shop.yaml"
    path.write_text(path.read_text() + "# a word\n")
    assert differs(plan, fleet) == ["the YAML has changed since the plan was saved: projects/shop.yaml"]
    fleets.write(fleet, {"hosts": fleets.hosts("h1", "h2", "h3")}, {"blog": fleets.project("blog", {})})
    changed = "fleet.yaml, projects/blog.yaml, projects/shop.yaml"
    assert differs(plan, fleet) == [f"the YAML has changed since the plan was saved: {changed}"]


def test_the_lock_file_has_moved_on(fleet: Path) -> None:
    plan = saved(fleet)
    save_lock(fleet, load_lock(fleet, "test"))
    assert differs(plan, fleet) == ["the lock file has changed since the plan was saved: serial 1 then, 2 now"]


def test_another_lock_file_with_the_same_serial(fleet: Path) -> None:
    """Two branches that were deployed once each."""
    plan = saved(fleet)
    lock = load_lock(fleet, "test")
    (fleet / "privnet.lock.yaml").unlink()
    other = {name: replace(host, mesh=host.mesh + 100) for name, host in lock.hosts.items()}
    save_lock(fleet, replace(lock, serial=0, hosts=other, checksum=""))
    assert differs(plan, fleet) == ["the lock file has changed since the plan was saved: serial 1 then, 1 now"]


def test_a_fleet_without_a_lock_file_that_has_got_one(fleet: Path) -> None:
    (fleet / "privnet.lock.yaml").unlink()
    plan = saved(fleet)
    assert differs(plan, fleet) == []
    save_lock(fleet, compile_fleet(fleet, NOW).lock)
    assert differs(plan, fleet) == ["the lock file has changed since the plan was saved: serial 0 then, 1 now"]


def test_a_quarantine_that_ended_gives_other_numbers(fleet: Path, fleets: Any) -> None:
    """The address of the container that went is free an hour later, so the next one gets it."""
    shop = {"shop": fleets.project("shop", {"a": {"web": ["h1"]}})}
    fleets.write(fleet, {"hosts": fleets.hosts("h1", "h2")}, shop)
    save_lock(fleet, compile_fleet(fleet, NOW).lock)
    both = {"shop": fleets.project("shop", {"a": {"web": ["h1"]}, "b": {"web": ["h2"]}})}
    fleets.write(fleet, {"hosts": fleets.hosts("h1", "h2")}, both)
    plan = saved(fleet)
    assert differs(plan, fleet, NOW + 3599) == []
    (message,) = differs(plan, fleet, NOW + 3601)
    assert message.startswith("from the same YAML and lock file other numbers follow")


def test_a_plan_of_another_fleet(fleet: Path) -> None:
    plan = saved(fleet) | {"fleet": "other\x1b[2J"}
    assert differs(plan, fleet) == ["the plan is of fleet other\\x1b[2J, not of test"]


# --- hosts --------------------------------------------------------------------------------------------


def hosts_differ(fleet: Path, **now: Any) -> list[str]:
    plan = saved(fleet, live=LIVE)
    return [problem.message for problem in hosts_moved_on(plan, LIVE | now)]


def test_no_host_has_moved_on(fleet: Path) -> None:
    assert hosts_differ(fleet) == []
    plan = saved(fleet, live=LIVE)
    assert list(hosts_moved_on(plan, {"h1": LIVE["h1"]})) == [], "one that does not answer is not judged"


def test_a_host_that_another_run_has_changed(fleet: Path) -> None:
    (message,) = hosts_differ(fleet, h1=LIVE["h1"] | {"applied": "4 def 20251002T0000-cd"})
    assert message == (
        "host h1 has moved on since the plan was saved: it was changed by another run: "
        "serial 3 by run 20251001T0000-ab then, serial 4 by run 20251002T0000-cd now"
    )
    (message,) = hosts_differ(fleet, h2=LIVE["h2"] | {"applied": "4 def 20251002T0000-cd"})
    assert "nothing applied then, serial 4 by run" in message


def test_a_host_that_somebody_has_touched(fleet: Path) -> None:
    (message,) = hosts_differ(fleet, h2={"applied": None, "changes": [{"stage": "add", "lines": ["write /etc/y"]}]})
    assert message.startswith("host h2 has moved on since the plan was saved: it needs other changes than then")


def test_a_host_that_was_not_seen_when_the_plan_was_saved(fleet: Path) -> None:
    (message,) = hosts_differ(fleet, h3={"applied": None, "changes": []})
    assert message.startswith("host h3 is not part of the plan")


# --- files that are no plan ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "1",
        "null",
        "[" * 100_000,
        "{}",
        '{"version": 1}',
        '{"version": 1, "fleet": 1, "documents": {}, "lock": {}, "changes": [], "live": null}',
        '{"version": 1, "fleet": "x", "documents": {}, "lock": {}, "changes": [], "live": {"h": 1}}',
        '{"version": 1, "fleet": "x", "documents": {}, "lock": {}, "changes": [1], "live": null}',
        '{"version": 2, "fleet": "x", "documents": {}, "lock": {}, "changes": [], "live": null}',
    ],
)
def test_what_is_no_saved_plan_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan"
    path.write_text(text)
    with pytest.raises(DeclarationError) as caught:
        read_plan_file(path)
    (problem,) = caught.value.problems
    assert problem.code == "PN603" and str(path) in problem.message and "--out" in problem.help


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DeclarationError):
        read_plan_file(path)


def test_a_cut_off_plan_is_refused(fleet: Path, tmp_path: Path) -> None:
    text = plan_file(compile_fleet(fleet, NOW))
    path = tmp_path / "plan"
    path.write_text(text)
    assert read_plan_file(path)["fleet"] == "test"
    for count in range(0, len(text) - 2, 97):
        path.write_text(text[:count])
        with pytest.raises(DeclarationError):
            read_plan_file(path)
