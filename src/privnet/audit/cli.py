"""`privnet audit INVENTORY`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer

from privnet.audit import plugin, test_fleet
from privnet.audit.fleet import Audit, UnknownHost, prepare
from privnet.audit.report import Report
from privnet.diagnostics import DeclarationError, render_text
from privnet.lab.errors import LabError


def audit_command(
    inventory: Annotated[Path, typer.Argument(help="Directory of the fleet, for example inventory/prod.")],
    host: Annotated[
        list[str] | None, typer.Option("--host", metavar="HOST", help="Only this host (repeat for more).")
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML.")] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write JSON.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Send nothing between containers.")] = False,
) -> None:
    """Compare every host with its plan: kernel, files, resolvers' answers, and who reaches whom.

    Ends with 0 when all is as planned, 1 when anything deviates, 2 when the declaration is refused.
    """
    audit = _prepared(inventory, host or [], quick)
    if audit.compiled.lock_changed:
        typer.echo(f"note: {inventory} has changes that have not been deployed; they show as deviations", err=True)
    report = Report(audit, json, junit is not None)
    status = pytest.main(_arguments(inventory, junit), plugins=[plugin, report, _Given(audit)])
    code = report.summary()
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        if not report.unread:
            typer.echo(f"error: pytest ended with status {int(status)}", err=True)
        code = 1
    raise typer.Exit(code)


def _prepared(inventory: Path, hosts: list[str], quick: bool) -> Audit:
    try:
        return prepare(inventory, hosts, quick)
    except DeclarationError as error:
        typer.echo(render_text(error.problems, color=sys.stderr.isatty(), sources=error.sources), err=True, nl=False)
    except (LabError, UnknownHost) as error:
        typer.secho("error: ", nl=False, err=True, fg="red", bold=True)
        typer.echo(str(error), err=True)
    raise typer.Exit(2)


class _Given:
    """Hands pytest the audit that is prepared already."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[plugin.AUDIT] = self.audit


def _arguments(inventory: Path, junit: Path | None) -> list[str]:
    """pytest without the settings of whatever directory it is started in, and without its own output."""
    file = str(Path(test_fleet.__file__))
    arguments = [
        file,
        "-p",
        "no:terminal",
        "-p",
        "no:cacheprovider",
        "--capture=no",
        "--noconftest",
        "--fleet",
        str(inventory),
    ]
    arguments += ["-c", "/dev/null", "--rootdir", str(Path(file).parent)]
    if junit is not None:
        arguments += ["--junit-xml", str(junit.absolute()), "-o", "junit_suite_name=privnet audit"]
    return arguments
