"""pytest: one item for each host of a fleet and each check.

``pytest tests/audit --fleet inventory/prod``, or ``privnet audit inventory/prod``, which runs pytest on this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from privnet.audit.finding import Finding, Unanswered, cause
from privnet.audit.fleet import Audit, UnknownHost, prepare
from privnet.diagnostics import DeclarationError, render_text
from privnet.lab.errors import LabError

AUDIT: pytest.StashKey[Audit] = pytest.StashKey()
FINDING: pytest.StashKey[Finding] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("privnet", "audit of a fleet")
    group.addoption("--fleet", metavar="INVENTORY", help="directory of the fleet to audit")
    group.addoption("--fleet-host", metavar="HOST", action="append", default=[], help="only this host (repeatable)")
    group.addoption("--fleet-quick", action="store_true", help="send nothing between containers")


def audit_of(config: pytest.Config) -> Audit | None:
    """The audit that the command line asks for, if any."""
    directory = config.getoption("--fleet", None)
    if not directory:
        return None
    if AUDIT not in config.stash:
        only, quick = config.getoption("--fleet-host"), config.getoption("--fleet-quick")
        try:
            config.stash[AUDIT] = prepare(Path(directory), only, quick)
        except DeclarationError as error:
            raise pytest.UsageError(render_text(error.problems, color=False, sources=error.sources)) from None
        except (LabError, UnknownHost) as error:
            raise pytest.UsageError(str(error)) from None
    return config.stash[AUDIT]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"fleet_host", "fleet_check"} <= set(metafunc.fixturenames):
        audit = audit_of(metafunc.config)
        items = audit.items() if audit else []
        metafunc.parametrize(("fleet_host", "fleet_check"), items, ids=[f"{host}-{check}" for host, check in items])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a fleet there is nothing to audit, and nothing to skip either."""
    if config.getoption("--fleet", None):
        return
    nothing = [item for item in items if "fleet_check" in getattr(item, "fixturenames", ())]
    if nothing:
        items[:] = [item for item in items if item not in nothing]


@pytest.fixture(scope="session")
def fleet_audit(pytestconfig: pytest.Config) -> Iterator[Audit]:
    """The audit of the fleet that ``--fleet`` names, under way."""
    audit = audit_of(pytestconfig)
    if audit is None:
        raise pytest.UsageError("--fleet INVENTORY is missing")
    audit.begin()
    yield audit
    audit.end()


def judge(audit: Audit, host: str, check: str, item: pytest.Item) -> None:
    """Fail with expected and actual of every deviation, and what follows from it.

    What a host's silence makes impossible is skipped, and so is what only follows: it is told with its cause, once.
    """
    try:
        finding = audit.finding(host, check)
    except Unanswered as error:
        pytest.skip(f"not possible: {error}")
    item.stash[FINDING] = finding
    lines = []
    for deviation in finding.deviations:
        lines.append(f"{host}  {check}  {deviation}")
        lines += [f"    {' '.join(felt)}: {what}" for *felt, what in audit.consequences(host, deviation)]
    if lines:
        pytest.fail("\n".join(lines), pytrace=False)
    if finding.follows:
        pytest.skip("; ".join(f"{what}, from: {cause(why)}" for what, why in finding.follows))
