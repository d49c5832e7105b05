# ruff: noqa: E501 - sentences stand as they are printed
"""PN509 names the commit whose lock file no host contradicts, and the command that takes it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from answers import bare, text
from typer.testing import CliRunner

from privnet.cli import app
from privnet.committed import committed_locks, newer_committed
from privnet.compiler import compile_fleet
from privnet.deploy.memory import doubt
from privnet.deploy.state import Applied, HostState, parse_snapshot
from privnet.model.lock import Lock, Version
from privnet.store import load_lock, lock_path, lock_versions, save_lock

ROOT = Path(__file__).parents[3]
AP = "ap-a71da13f-7c70-4c00-a644-{:012}"


class Repository:
    """A repository with one fleet, whose directory has a blank in its name."""

    def __init__(self, root: Path) -> None:
        self.root, self.fleet = root, root / "my fleets" / "prod"
        self.git("init", "--quiet", "--initial-branch=main")
        (root / "README").write_text("a commit before the first run\n")
        self.commit("begin")

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=ops", "-c", "user.email=ops@example.com", "-c", "commit.gpgsign=false")
        done = subprocess.run(["git", *identity, *arguments], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "--short", "HEAD")

    def deploy(self, number: int) -> Version:
        """What a run leaves: a lock file with something new, committed; and the version that hosts remember."""
        self.fleet.mkdir(parents=True, exist_ok=True)
        known = load_lock(self.fleet, "test") if lock_path(self.fleet).exists() else Lock(fleet="test")
        saved = save_lock(self.fleet, replace(known, applications={**known.applications, AP.format(number): "shop"}))
        self.commit(f"deploy {number}")
        return lock_versions(saved)[-1]

    def said(self, hosts: Mapping[str, Version]) -> str | None:
        """What a run would say, were these the versions that hosts remember."""
        state = parse_snapshot(text(bare()))
        assert isinstance(state, HostState)
        states = {
            name: replace(state, applied=Applied(found.serial, found.checksum, f"run-of-{name}"))
            for name, found in hosts.items()
        }
        known = lock_versions(load_lock(self.fleet, "test"))
        return doubt(self.fleet, known, states, (), lambda: committed_locks(self.fleet, "test"))

    def follow(self, told: str) -> str:
        """Do what is said, word for word; the commit that it names."""
        command = re.findall("`(git checkout [^`]*)`", told)[0]
        subprocess.run(["sh", "-c", command], cwd=self.root, check=True, capture_output=True)
        return shlex.split(command)[2]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.chdir(tmp_path)
    return Repository(tmp_path)


def test_after_a_revert_the_reverted_commit_has_the_lock_file(repository: Repository) -> None:
    first = repository.deploy(1)
    second = repository.deploy(2)
    newest = repository.git("rev-parse", "--short", "HEAD")
    hosts = {"h1": second, "h2": first}
    assert repository.said(hosts) is None, "the twin: before the revert all is well"
    repository.git("revert", "--no-edit", "HEAD")
    assert repository.said(hosts) == (
        "PN509: nothing is changed: h1 was changed last by serial 2 of the lock file, and this one has 1: it is an older "
        f"copy, as after `git revert`. What is newer would be taken away. Commit {newest} has the newest lock file, of "
        f"serial 2. Take it and keep the YAML as it is: `git checkout {newest} -- 'my fleets/prod/privnet.lock.yaml'`, then "
        "run again"
    )
    assert repository.follow(repository.said(hosts) or "") == newest
    assert repository.said(hosts) is None


@pytest.mark.parametrize("how", ["an older tag", "a lost file", "a revert of several", "a reset"])
def test_each_way_to_an_older_lock_file_is_undone_by_the_command(repository: Repository, how: str) -> None:
    remembered = [repository.deploy(number) for number in range(1, 5)]
    repository.git("tag", "newest")
    match how:
        case "an older tag":
            repository.git("checkout", "--quiet", "HEAD~2")
        case "a lost file":
            lock_path(repository.fleet).unlink()
        case "a revert of several":
            repository.git("revert", "--no-edit", "HEAD~2..HEAD")
        case _:
            repository.git("reset", "--quiet", "--hard", "HEAD~1")
    hosts = {"h1": remembered[-1], "h2": remembered[0]}
    told = repository.said(hosts)
    assert told is not None
    assert repository.follow(told) == repository.git("rev-parse", "--short", "newest")
    assert repository.said(hosts) is None


def test_of_two_branches_the_one_that_was_deployed_last_has_the_lock_file(repository: Repository) -> None:
    """Each has the same serial; a merge conflict was solved by the side that was not deployed."""
    first = repository.deploy(1)
    repository.git("checkout", "--quiet", "-b", "theirs")
    deployed = repository.deploy(2)
    theirs = repository.git("rev-parse", "--short", "HEAD")
    repository.git("checkout", "--quiet", "main")
    assert repository.deploy(3).serial == deployed.serial
    hosts = {"h1": deployed, "h2": first}
    told = repository.said(hosts)
    assert told is not None and "another lock file of serial 2 too" in told
    assert repository.follow(told) == theirs
    assert repository.said(hosts) is None


def test_no_commit_is_named_that_a_host_contradicts(repository: Repository) -> None:
    """Both branches have changed a host: neither lock file is right for all."""
    repository.git("checkout", "--quiet", "-b", "theirs")
    deployed = repository.deploy(2)
    repository.git("checkout", "--quiet", "main")
    mine = repository.deploy(3)
    told = repository.said({"h1": deployed, "h2": mine})
    assert told is not None and "Commit " not in told
    assert "If it is lost, or each of two copies has changed hosts, `privnet import` rebuilds it from the fleet" in told


def test_without_a_repository_the_message_says_how_to_look_for_one(repository: Repository) -> None:
    newer = repository.deploy(1)
    lock_path(repository.fleet).unlink()
    repository.deploy(2)
    (repository.root / ".git").rename(repository.root / "away")
    told = repository.said({"h1": Version(9, newer.checksum)})
    assert told is not None
    assert "`git log --all -- 'my fleets/prod/privnet.lock.yaml'` shows its versions, `git checkout COMMIT -- '" in told


def test_a_lock_file_in_git_that_is_damaged_or_of_another_fleet_is_passed_over(repository: Repository) -> None:
    right = repository.deploy(1)
    found = repository.git("rev-parse", "--short", "HEAD")
    for spoilt in ("<<<<<<< HEAD\n", lock_path(repository.fleet).read_text().replace("fleet: test", "fleet: other")):
        lock_path(repository.fleet).write_text(spoilt)
        repository.commit("spoil")
    assert [(commit, known[-1]) for commit, known in committed_locks(repository.fleet, "test")] == [(found, right)]


def test_the_recipe_of_the_guide_keeps_the_newest_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    recipe = page.partition("## Going back to an earlier declaration")[2].split("```")[1].splitlines()[1:]
    monkeypatch.chdir(tmp_path)
    repository = Repository(tmp_path)
    repository.fleet = tmp_path / "inventory" / "prod"
    yaml, progress = repository.fleet / "fleet.yaml", repository.fleet / "privnet.progress.json"
    for number in (1, 2):
        repository.fleet.mkdir(parents=True, exist_ok=True)
        yaml.write_text(f"version {number}")
        progress.write_text(f"{number}")
        newest = repository.deploy(number)
    gits = [line for line in recipe if line.startswith(("git revert", "git checkout"))]
    assert len(gits) == 2
    for line in gits:
        subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True, capture_output=True)
    assert yaml.read_text() == "version 1" and progress.read_text() == "2"
    assert repository.said({"h1": newest}) is None


def test_check_and_plan_warn_of_a_newer_lock_file_in_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pull request that reverts YAML and lock file differs in nothing, and cannot be deployed."""
    monkeypatch.chdir(tmp_path)
    repository = Repository(tmp_path)
    shutil.copytree(ROOT / "tests" / "errors" / "base", repository.fleet)

    def deploy(message: str) -> str:
        save_lock(repository.fleet, compile_fleet(repository.fleet).lock)
        return repository.commit(message)

    def said(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, [*words], prog_name="privnet", catch_exceptions=False)
        return done.exit_code, done.stderr

    deploy("first")
    shop = repository.fleet / "projects" / "shop.yaml"
    shop.write_text(shop.read_text().replace("[par-a-1, par-a-2]", "[par-a-1]"))
    newest = deploy("second")
    fleet = "my fleets/prod"
    for command in ("check", "plan"):
        assert said(command, fleet) == (0, ""), "the twin: the newest one is there"
    repository.git("revert", "--no-edit", "HEAD")
    told = (
        f"warning[PN708]: git has a newer lock file: serial 2 in commit {newest}, and this one has 1\n"
        " --> my fleets/prod/privnet.lock.yaml:1:1\n"
        "  = note: hosts that were changed by it contradict an older one, and a run is refused (PN509)\n"
        f"  = help: take it and keep the YAML as it is: `git checkout {newest} -- 'my fleets/prod/privnet.lock.yaml'`\n"
        "\n1 warning, and no error.\n"
    )
    for command in ("check", "plan"):
        assert said(command, fleet) == (0, told)
    assert repository.follow(told) == newest
    assert said("check", fleet) == (0, "")
    lock_path(repository.fleet).unlink()
    assert f"serial 2 in commit {newest}, and there is none here" in said("check", fleet)[1]


def test_a_lock_file_that_went_its_own_way_is_no_newer_one(repository: Repository) -> None:
    """As after an import: git has a higher serial that does not come from this one."""
    for number in range(3):
        repository.deploy(number)
    lock_path(repository.fleet).unlink()
    mine = save_lock(repository.fleet, Lock(fleet="test", applications={AP.format(9): "blog"}))
    assert [*newer_committed(repository.fleet, mine)] == []
