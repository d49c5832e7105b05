"""pyinfra's other commands on a fleet's hosts, and privnet as a part of a larger pyinfra project."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from connector import CONNECTED, ENDED, LOG
from test_runs import HERE, SHIM, Fleet

import warm

ROOT = HERE.parents[1]


@pytest.fixture
def made(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "test", 2)


def pyinfra(made: Fleet, *arguments: str, inventory: Path | None = None) -> CompletedProcess[str]:
    """What `pyinfra` says over hosts that answer as planned; with the fleet's own inventory unless told another."""
    shim, log = made.directory.with_suffix(".py"), made.directory.with_name("executed")
    shim.write_text(SHIM)
    shim.with_name("answers.json").write_text(json.dumps(made.answers))
    for name in ("failures", "programs", "hangs", "data"):
        shim.with_name(f"{name}.json").write_text("{}")
    for path in (log, log.with_suffix(ENDED), log.with_suffix(CONNECTED)):
        path.write_text("")
    environment = {**os.environ, LOG: str(log), "PYINFRA_PROGRESS": "off"}
    return warm.run([str(inventory or shim), *arguments], environment, directory=made.directory.parent, timeout=120)


def reached(made: Fleet) -> list[str]:
    log = made.directory.with_name("executed").with_suffix(CONNECTED)
    return sorted(json.loads(line)[0] for line in log.read_text().splitlines())


def commit(directory: Path) -> None:
    git = ("git", "-c", "user.name=o", "-c", "user.email=o@x.example", "-C", str(directory))
    for command in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "deployed")):
        subprocess.run([*git, *command], check=True)


# --- commands that are no deploy ------------------------------------------------------------------


def remove_projects(made: Fleet) -> None:
    for path in (made.directory / "projects").iterdir():
        path.rename(made.directory.with_name(f"{path.name}.away"))


def spoil(name: str, text: str) -> Callable[[Fleet], object]:
    return lambda made: (made.directory / name).write_text(text)


EDITED: dict[str, tuple[Callable[[Fleet], object], str]] = {
    "a project is moved away": (remove_projects, ""),
    "a project is no YAML": (spoil("projects/p0.yaml", "project: [\n"), ""),
    "a project is in a merge": (spoil("projects/p0.yaml", "<<<<<<< HEAD\n"), ""),
    "a policy is unknown": (lambda made: made.settings(policy={"rollback": "soon"}), ""),
    "a network has no place": (lambda made: made.settings(wireguard={"mesh": "100.64.0.0/31"}), ""),
    "fleet.yaml is no YAML": (
        spoil("fleet.yaml", "fleet: test\nhosts: {\n"),
        "test/fleet.yaml cannot be read: these are the hosts of the last commit\n",
    ),
    "fleet.yaml is away": (
        lambda made: (made.directory / "fleet.yaml").unlink(),
        "test/fleet.yaml cannot be read: these are the hosts of the last commit\n",
    ),
    "the lock file is in a merge": (
        spoil("privnet.lock.yaml", "<<<<<<< HEAD\n"),
        "test/privnet.lock.yaml cannot be read: these are the SSH keys of the last commit\n",
    ),
}


@pytest.mark.parametrize("what", EDITED)
def test_a_command_on_the_hosts_works_while_the_declaration_does_not_hold(made: Fleet, what: str) -> None:
    commit(made.directory)
    edit, said = EDITED[what]
    edit(made)
    ran = pyinfra(made, "-y", "exec", "--", "uptime")
    assert ran.returncode == 0, ran.stderr
    assert reached(made) == ["h1", "h2", "h3"]
    assert said in ran.stderr and ("cannot be read" in ran.stderr) == bool(said)
    assert pyinfra(made, "debug-inventory").returncode == 0
    assert pyinfra(made, "fact", "server.Hostname").returncode == 0
    # The twin: a deploy is refused before it contacts a host.
    for words in (("-y", str(ROOT / "deploys" / "private_network.py")), ("-y", "server.shell", "true")):
        refused = pyinfra(made, *words)
        assert refused.returncode != 0 and reached(made) == []


def test_a_host_that_is_not_declared_rightly_is_left_out_of_a_command(made: Fleet) -> None:
    made.settings(
        hosts={"h1": {"address": "192.0.2.1"}, "h2": {"address": "somewhere"}, "H3": {"address": "192.0.2.3"}}
    )
    ran = pyinfra(made, "-y", "exec", "--", "uptime")
    assert (ran.returncode, reached(made)) == (0, ["h1"])
    said = 'test/fleet.yaml: left out, since they are not declared rightly: "h2", "H3"\n'
    assert said in ran.stderr


def test_a_fleet_that_is_nowhere_to_be_read_is_refused_with_what_is_wrong(made: Fleet) -> None:
    (made.directory / "fleet.yaml").write_text("fleet: test\nhosts: {\n")
    ran = pyinfra(made, "-y", "exec", "--", "uptime")
    assert ran.returncode != 0 and reached(made) == []
    assert "error[PN105]" in ran.stderr and "Traceback" not in ran.stderr


@pytest.mark.parametrize("text", ["lab: maybe", "lab: tru"])
def test_no_host_is_reached_when_nobody_knows_whether_it_lives_in_a_lab(made: Fleet, text: str) -> None:
    """Its address may be somebody's."""
    (made.directory / "fleet.yaml").write_text(f"fleet: test\n{text}\nhosts:\n  h1: {{address: 192.0.2.1}}\n")
    assert pyinfra(made, "-y", "exec", "--", "uptime").returncode != 0
    assert reached(made) == []


# --- a larger project -----------------------------------------------------------------------------


def examples() -> dict[str, str]:
    """The files that the guide shows, by name."""
    page = (ROOT / "docs" / "operations.md").read_text()
    section = page.partition("## In a larger pyinfra project")[2].partition("\n## ")[0]
    blocks = [block.partition("```")[0] for block in section.split("```python\n")[1:]]
    return {block.splitlines()[0].removeprefix("# "): block for block in blocks}


@pytest.fixture
def larger(tmp_path: Path) -> Fleet:
    """The project of the guide, over hosts that answer; one of another group beside them."""
    made = Fleet(tmp_path / "inventory" / "prod", 2)
    (tmp_path / "deploy.py").write_text(examples()["deploy.py"])
    answers = SHIM.replace("from privnet.deploy.inventory import groups as _groups\n", "").partition("globals()")[0]
    data = "for _group in [name for name in globals() if name in ('fleet', 'databases')]:\n"
    data += "    globals()[_group] = [(host[0], host[1] | _data(host[0])) if isinstance(host, tuple) else"
    data += " (host, _data(host)) for host in globals()[_group]]\n"
    beside = answers.replace("Path(__file__)", "Path(__file__).parent.joinpath('inventory', 'x')")
    (tmp_path / "inventory.py").write_text(f"{examples()['inventory.py']}\n{beside}\n{data}")
    made.answers["db-1.example.net"] = []
    return made


def project(made: Fleet) -> Path:
    return made.directory.parents[1]


def test_a_fleet_is_a_part_of_a_larger_project(larger: Fleet) -> None:
    """As the guide shows it: own operations before and after, and hosts that are none of the fleet."""
    root = project(larger)
    ran = pyinfra(larger, "-y", str(root / "deploy.py"), inventory=root / "inventory.py")
    assert ran.returncode == 0, ran.stderr
    assert reached(larger) == ["db-1.example.net", "h1", "h2", "h3"]
    log = [json.loads(line) for line in larger.directory.with_name("executed").read_text().splitlines()]
    asked = sorted(name for name, command in log if "gzip -d" in command)
    assert asked == ["h1", "h2", "h3"]


def test_a_host_of_no_fleet_fails_with_a_sentence_and_the_others_go_on(larger: Fleet) -> None:
    root = project(larger)
    deploy = (root / "deploy.py").read_text().replace('if "fleet" in host.groups:\n    ', "")
    (root / "deploy.py").write_text(deploy)
    ran = pyinfra(larger, "-y", "--json", str(root / "deploy.py"), inventory=root / "inventory.py")
    assert "Traceback" not in ran.stderr and "AttributeError" not in ran.stderr
    results = json.loads(ran.stdout)["results"]
    assert results["failed_hosts"] == ["db-1.example.net"]
    said = (
        "privnet: db-1.example.net is no host of a fleet in this inventory, so nothing is done to it. Deploy with "
        '`privnet deploy INVENTORY` or the fleet\'s own inventory file; in a larger project: `if "fleet" in '
        "host.groups: private_network()`"
    )
    assert ran.stderr.count(said) == 1
    log = [json.loads(line) for line in larger.directory.with_name("executed").read_text().splitlines()]
    assert sorted(name for name, command in log if "gzip -d" in command) == ["h1", "h2", "h3"]


def test_a_host_that_is_named_at_the_prompt_is_no_host_of_a_fleet(made: Fleet, tmp_path: Path) -> None:
    inventory = tmp_path / "one.py"
    inventory.write_text(
        f"import sys; sys.path[:0] = [{str(HERE)!r}]\nfrom connector import install\ninstall()\none = ['192.0.2.1']\n"
    )
    ran = pyinfra(made, "-y", str(ROOT / "deploys" / "private_network.py"), inventory=inventory)
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    assert "privnet: 192.0.2.1 is no host of a fleet in this inventory" in ran.stderr


def test_one_inventory_may_have_a_part_of_a_fleet(larger: Fleet) -> None:
    """As with `--limit`: hosts that are not there are not asked."""
    root = project(larger)
    with (root / "inventory.py").open("a") as file:
        file.write("fleet = [entry for entry in fleet if entry[0] != 'h3']\n")
    ran = pyinfra(larger, "-y", str(root / "deploy.py"), inventory=root / "inventory.py")
    assert ran.returncode == 0, ran.stderr
    assert reached(larger) == ["db-1.example.net", "h1", "h2"]
