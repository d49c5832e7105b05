"""A host with another name keeps all that it has, and nobody feels it; and so does a project."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from privnet.check import removal
from privnet.compiler import Compiled, compile_fleet, render_fleet
from privnet.known_hosts import known_hosts_text
from privnet.progress import Diary, Progress, load_progress, save_progress
from privnet.report.difference import Change, changes_of, host_changes
from privnet.report.fleet import plan_data, plan_lines
from privnet.report.impact import Label, impacts
from privnet.store import save_lock

HOSTS = ("h1", "h2", "h3")
Declare = Callable[..., Compiled]


@pytest.fixture
def declared(written: Callable[..., Path], fleets: Any) -> Declare:
    """Three deployed hosts with containers that are listed and containers that privnet placed; then other hosts."""

    def declare(hosts: Any = None, web: Any = HOSTS, save: bool = False, name: str = "shop") -> Compiled:
        applications = {"a": {"web": web, "worker": {"count": 3}}}
        project = fleets.project("shop", applications)
        directory = written({"hosts": hosts or fleets.hosts(*HOSTS)}, {name: project})
        if name != "shop":
            (directory / "projects" / "shop.yaml").unlink()
        compiled = compile_fleet(directory)
        if not compiled.known.serial:
            keys = {
                host: replace(known, wireguard=f"{host[1] * 42}A=", ssh=f"ssh-ed25519 {host[1] * 68}")
                for host, known in compiled.lock.hosts.items()
            }
            save_lock(directory, replace(compiled.lock, hosts=keys))
        elif save:
            save_lock(directory, compiled.lock)
        return compile_fleet(directory)

    declare()
    return declare


def renamed(fleets: Any, **more: Any) -> dict[str, Any]:
    """The hosts, of which `h2` is `paris-2` now."""
    hosts = fleets.hosts("h1", "h2", "h3")
    return {"h1": hosts["h1"], "h3": hosts["h3"], "paris-2": {**hosts["h2"], "renamed_from": "h2", **more}}


PLACES = ("h1", "paris-2", "h3")


def test_a_renamed_host_keeps_its_numbers_its_keys_and_its_containers(declared: Declare, fleets: Any) -> None:
    """Those that privnet placed, too; the twin: without the statement it is a new host, and one is gone."""
    before = declared()
    after = declared(renamed(fleets), PLACES)
    assert after.lock.hosts == {{"h2": "paris-2"}.get(name, name): known for name, known in before.lock.hosts.items()}
    (was,), (becomes,) = before.lock.networks.values(), after.lock.networks.values()
    assert {slot: (at.address, at.host) for slot, at in becomes.slots.items()} == {
        slot: (at.address, at.host.replace("h2", "paris-2")) for slot, at in was.slots.items()
    }
    assert after.lock.quarantine == () and after.warnings == ()
    hosts = renamed(fleets)
    del hosts["paris-2"]["renamed_from"]
    new = declared(hosts, PLACES)
    assert new.lock.hosts["paris-2"].wireguard is None and new.lock.quarantine != ()


def test_nothing_is_removed_moved_or_felt(declared: Declare, fleets: Any) -> None:
    after = declared(renamed(fleets), PLACES)
    assert changes_of(after) == (Change("~", "rename", "paris-2", "", "h2", "paris-2"),)
    ((_, impact),) = impacts(after.before, after.lock, changes_of(after))
    assert impact.label is Label.none
    assert host_changes(after.before, after.lock) == {}
    assert list(removal.check(after.declaration, after.before, after.lock, None)) == []
    text = "\n".join(plan_lines(after))
    assert "~ rename paris-2: was host h2; it keeps its mesh address, its keys and its containers" in text
    assert "impact at most: none" in text and "Removes" not in text and "REFUSED" not in text
    assert plan_data(after)["removals"]["number"] == 0
    assert after.lock_changed, "the lock file has it by its new name when the run is over"


def test_on_hosts_nothing_but_names_changes(declared: Declare, fleets: Any) -> None:
    """The comment above a peer, and the record, which is for people and for `privnet import`."""
    before = render_fleet(declared().plan)
    after = render_fleet(declared(renamed(fleets), PLACES).plan)
    for name, files in before.items():
        new = {file.path: file.text for file in after[{"h2": "paris-2"}.get(name, name)]}
        differing = {file.path for file in files if file.text != new[file.path]}
        assert differing <= {"/etc/privnet/record.json", "/etc/privnet/mesh.conf"}
        assert "renamed_from" not in new["/etc/privnet/record.json"]
        meshes = next(file.text for file in files if file.path.endswith("mesh.conf")), new["/etc/privnet/mesh.conf"]
        assert sorted(meshes[0].replace("# h2\n", "# paris-2\n").split("\n")) == sorted(meshes[1].split("\n"))


def test_its_ssh_key_stays_pinned(declared: Declare, fleets: Any) -> None:
    after = declared(renamed(fleets), PLACES)
    known = known_hosts_text(after.plan.fleet, after.lock)
    assert f"192.0.2.12 ssh-ed25519 {'2' * 68}" in known


def test_another_address_in_the_same_run_is_felt_as_that(declared: Declare, fleets: Any) -> None:
    after = declared(renamed(fleets, address="192.0.2.99"), PLACES)
    assert [(change.kind, change.name) for change in changes_of(after)] == [
        ("rename", "paris-2"), ("setting", "hosts.paris-2.address")
    ]  # fmt: skip


def test_several_hosts_are_renamed_at_once(declared: Declare, fleets: Any) -> None:
    hosts = {f"paris-{name[1]}": {**host, "renamed_from": name} for name, host in fleets.hosts(*HOSTS).items()}
    after = declared(hosts, ["paris-1", "paris-2", "paris-3"])
    assert {change.kind for change in changes_of(after)} == {"rename"}
    assert list(removal.check(after.declaration, after.before, after.lock, None)) == []


def test_a_statement_that_is_done_or_means_nobody_is_told(declared: Declare, fleets: Any) -> None:
    """A warning, since the next run does what the declaration says; deleted it changes no host."""
    first = declared(renamed(fleets), PLACES, save=True)
    (warning,) = first.warnings
    assert (warning.code, warning.severity, warning.help) == ("PN707", "warning", "delete the line")
    assert changes_of(first) == () and not first.lock_changed
    hosts = renamed(fleets)
    del hosts["paris-2"]["renamed_from"]
    last = declared(hosts, PLACES)
    assert last.warnings == () and render_fleet(last.plan) == render_fleet(first.plan)


def test_a_name_is_free_again_for_another_machine_in_a_later_run(declared: Declare, fleets: Any) -> None:
    declared(renamed(fleets), PLACES, save=True)
    hosts = renamed(fleets) | {"h2": {"address": "192.0.2.50"}}
    del hosts["paris-2"]["renamed_from"]
    last = declared(hosts, PLACES)
    assert [(change.sign, change.kind, change.name) for change in changes_of(last)] == [("+", "host", "h2")]


def test_what_is_known_of_its_last_run_goes_with_it(declared: Declare, fleets: Any) -> None:
    after = declared(renamed(fleets), PLACES)
    directory = after.declaration.directory
    save_progress(directory, "test", {"h2": Progress(3, "abc", "failed: no", failed=True)})
    Diary(directory, "test", after.plan.hosts, after.renames)._write()
    assert load_progress(directory, "test") == {"paris-2": Progress(3, "abc", "failed: no", failed=True)}


# --- projects -------------------------------------------------------------------------------------------------


def test_a_project_with_another_name_and_the_same_network_is_not_felt(declared: Declare, fleets: Any) -> None:
    after = declared(name="boutique")
    found = {
        (change.kind, change.sign): impact for change, impact in impacts(after.before, after.lock, changes_of(after))
    }
    assert {key: str(impact.label) for key, impact in found.items()} == {
        ("network", "~"): "none",
        ("application", "~"): "none",
    }
    assert found["application", "~"].reason == "its project has another name, and the same private network"
    assert "impact at most: none" in "\n".join(plan_lines(after)) and host_changes(after.before, after.lock) == {}
    # The twin: an application that goes to another network is felt.
    directory = after.declaration.directory
    (directory / "projects" / "boutique.yaml").unlink()
    moved = fleets.project("shop", {})
    other = {**fleets.project("blog", {"a": {"web": list(HOSTS), "worker": {"count": 3}}})}
    for name, project in (("shop", moved), ("blog", other)):
        (directory / "projects" / f"{name}.yaml").write_text(json.dumps({"project": name, **project}))
    after = compile_fleet(directory)
    pairs = impacts(after.before, after.lock, changes_of(after))
    felt = {change.kind: impact.label for change, impact in pairs if change.sign == "~"}
    assert felt["application"] is Label.outage
