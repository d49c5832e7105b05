"""Each test is in one tier, docs/tests.md says which proves what, and .ci/run runs all but machines, once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from security.attacks import ATTACKS
from security.mutation import CONTROLS
from tiers import ON_HOSTS, TIERS, Known, collected

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tests.md").read_text()
PROMISES = {f"P{number}" for number in range(1, 17)}
ROW = re.compile(r"^\| ([^|`]+) \| (check|test|deep) \| `([^`]+)` \| (`.+`) \|$", re.MULTILINE)
Proofs = set[tuple[str, str]]
"""What is proved, and by which test."""


def table() -> dict[str, Proofs]:
    """The rows of the page, by tier. A test is its file and its name, with its case in brackets if the page has one."""
    found: dict[str, Proofs] = {tier: set() for tier in TIERS}
    for what, tier, file, names in ROW.findall(PAGE):
        found[tier] |= {(what, f"{file}::{name}") for name in re.findall(r"`([^`]+)`", names)}
    return found


def features() -> set[str]:
    section = (ROOT / "README.md").read_text().partition("\n## Features\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| ([a-z ]+) \|", section, re.MULTILINE))


@pytest.fixture(scope="session")
def known(request: pytest.FixtureRequest) -> Known:
    """Each test: its tiers, and what it says that it proves."""
    return collected(request.session)


def is_of(test: str, name: str) -> bool:
    """Whether a collected test is what the page names: a case of it, if the page names none."""
    return name in (test, test.partition("[")[0])


def test_each_test_is_in_exactly_one_tier(known: Known) -> None:
    """`pytest -m TIER` selects by these markers."""
    assert [test for test, (tiers, _) in known.items() if len(tiers) != 1] == []
    assert {tiers[0] for tiers, _ in known.values()} == {*TIERS}


def test_a_case_that_is_named_exists(known: Known) -> None:
    """A misspelt case of a marker would leave the test out of `make test` without a word."""
    for file in (file for path in ON_HOSTS if path.exists() for file in path.glob("test_*.py")):
        for cases, name in re.findall(r"proves\([^\n]*cases=\(([^)]*)\)\)\n(?:@[^\n]*\n)*def (\w+)", file.read_text()):
            for case in re.findall(r'"([^"]+)"', cases):
                assert f"{file.relative_to(ROOT)}::{name}[{case}]" in known


def missing(found: dict[str, Proofs], known: Known) -> list[str]:
    """Tests that a page names, and that are not there, or not in that tier."""
    return sorted(
        f"{tier}: {name}"
        for tier, proofs in found.items()
        for _, name in proofs
        if not any(tiers == [tier] and is_of(test, name) for test, (tiers, _) in known.items())
    )


def test_the_page_names_tests_that_are_in_the_tier_it_says(known: Known) -> None:
    assert missing(table(), known) == []


def test_a_name_that_is_wrong_or_in_another_tier_is_seen(known: Known) -> None:
    wrong = "tests/lab/test_import.py::test_nothing"
    elsewhere = "tests/security/test_attacks.py::test_attack_fails[guard_alone]"
    assert missing({"deep": {("P1", wrong), ("P1", elsewhere)}}, known) == [f"deep: {wrong}", f"deep: {elsewhere}"]


def test_the_page_has_what_tests_say_of_themselves(known: Known) -> None:
    said = {(what, test) for test, (_, proofs) in known.items() for what in proofs}
    written = table()["test"]
    unwritten = {(what, test) for what, test in said if not any(w == what and is_of(test, name) for w, name in written)}
    unsaid = {(what, name) for what, name in written if not any(w == what and is_of(test, name) for w, test in said)}
    assert (unwritten, unsaid) == (set(), set()), "docs/tests.md and the markers `proves` differ"


def test_each_promise_and_each_feature_has_a_test_on_hosts_in_make_test() -> None:
    assert set(re.findall(r"^\| (P\d+) \| [^|]+ \|$", PAGE, re.MULTILINE)) == PROMISES
    assert len(features()) >= 10
    assert {what for what, _ in table()["test"]} == PROMISES | features()
    assert {what for proofs in table().values() for what, _ in proofs} == PROMISES | features()


def test_each_control_has_its_tests(known: Known) -> None:
    tests = "tests/security/test_attacks.py"
    assert {f"{tests}::test_a_missing_control_is_noticed[{name}]" for name in CONTROLS} <= known.keys()
    assert {f"{tests}::test_attack_fails[{name}]" for name in ATTACKS} <= known.keys()


@pytest.mark.parametrize(
    ("statuses", "runs", "code"),
    [("0 0", "test test-deep", 0), ("1 0", "test", 1), ("0 1", "test test-deep", 1), ("5 0", "test", 5)],
)
def test_a_push_fails_with_the_first_part_that_fails(tmp_path: Path, statuses: str, runs: str, code: int) -> None:
    """`.ci/run` with another `make`, which notes what it is asked for and says how the tests have ended."""
    (tmp_path / "statuses").write_text(statuses.replace(" ", "\n") + "\n")
    program = f'cd {tmp_path}; echo "$2" >> asked; head -n 1 statuses > "$PYTEST_STATUS"; sed -i 1d statuses'
    (tmp_path / "make").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "make").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([ROOT / ".ci" / "run"], env=environment, check=False)
    assert ((tmp_path / "asked").read_text().split(), done.returncode) == (runs.split(), code)


COMMANDS = {"check": "check", "test": "check test", "deep": "deep", "machines": "machines"}


@pytest.mark.parametrize("tier", COMMANDS)
def test_a_command_runs_the_whole_of_its_tier(tmp_path: Path, tier: str) -> None:
    """`setup/test.sh` with another pytest, which notes what it is asked for, and for root."""
    for directory in ("setup", ".venv/bin", "bin"):
        (tmp_path / directory).mkdir(parents=True)
    shutil.copy(ROOT / "setup" / "test.sh", tmp_path / "setup")
    (tmp_path / "setup" / "setup.sh").touch()
    (tmp_path / "setup" / "machines.sh").write_text("touch installed\n")
    note = 'while [ $# -gt 0 ]; do [ "$1" != -m ] || [ "$2" = pytest ] || echo "$2" >> asked; shift; done'
    for path, program in ((".venv/bin/python", note), ("bin/id", "echo 0")):
        (tmp_path / path).write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / path).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    subprocess.run(["sh", tmp_path / "setup" / "test.sh", tier], env=environment, check=True)
    assert (tmp_path / "asked").read_text().split() == COMMANDS[tier].split()
    assert (tmp_path / "installed").exists() == (tier in ("deep", "machines")), "QEMU"
