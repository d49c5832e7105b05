"""What an audit says: a line for each host and check while it runs, a summary, and JSON for machines."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path

import pytest
import typer

from privnet.audit.finding import Deviation, Finding, cause
from privnet.audit.fleet import Audit
from privnet.audit.plugin import FINDING
from privnet.diagnostics import plural
from privnet.unread import say_no_more

SHOWN_AT_MOST = 10
"""Deviations of one host and check on the terminal, and consequences of each; JSON has all."""


class Report:
    """A pytest plugin that takes the place of pytest's own terminal output."""

    def __init__(self, audit: Audit, json_file: Path | None, junit: bool = False) -> None:
        self.audit = audit
        self.json_file = json_file
        self.kept = junit or json_file is not None
        self.unread = False
        self.findings: dict[tuple[str, str], Finding | None] = {}
        self.why_not: dict[tuple[str, str], list[str]] = {}
        self._began = time.monotonic()
        self._width = max(map(len, audit.hosts), default=0)

    @property
    def deviations(self) -> int:
        """How many there are."""
        return sum(len(finding.deviations) for finding in self.findings.values() if finding is not None)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Show a result as soon as it is there."""
        report = yield
        if call.when == "call" and isinstance(item, pytest.Function):
            host, check = (str(item.callspec.params[name]) for name in ("fleet_host", "fleet_check"))
            finding = item.stash.get(FINDING, None)
            self.findings[host, check] = finding
            if finding is None:
                reason = call.excinfo.exconly().rpartition("not possible: ")[2] if call.excinfo else ""
                self.why_not.setdefault((host, reason), []).append(check)
            else:
                self._show(item.session, host, check, finding)
        return report

    def _show(self, session: pytest.Session, host: str, check: str, finding: Finding) -> None:
        try:
            self._line(host, check, finding)
        except OSError:
            say_no_more()
            # Nobody would learn of what is found from here on, but where it is written to a file.
            self.unread = not self.kept
            session.shouldstop = self.unread and "nobody reads what is found"

    def _line(self, host: str, check: str, finding: Finding) -> None:
        head = f"{host.ljust(self._width)}  {check.ljust(10)}  "
        if finding.ok:
            typer.echo(f"{head}{typer.style('ok', fg='green')}  {finding.seen}")
            return
        count = len(finding.deviations) or len(finding.follows)
        word, color = ("DEVIATION", "red") if finding.deviations else ("FOLLOWS", "yellow")
        typer.echo(f"{head}{typer.style(word, fg=color, bold=True)}" + (f"  {count}" if count > 1 else ""))
        for deviation in finding.deviations[:SHOWN_AT_MOST]:
            typer.echo(f"{' ' * len(head)}{deviation}")
            follows = self.audit.consequences(host, deviation)
            _list([f"{felt} {name}: {what}" for felt, name, what in follows], len(head) + 2)
        if count > SHOWN_AT_MOST and finding.deviations:
            typer.echo(f"{' ' * len(head)}… and {count - SHOWN_AT_MOST} more (--json FILE has all)")
        if not finding.deviations:
            _list(sorted({f"from: {cause(why)}" for _, why in finding.follows}), len(head))

    def summary(self) -> int:
        """The last lines, the JSON file, and the exit code."""
        written = self._write()
        try:
            code = self._summary()
        except OSError:
            say_no_more()
            code = self._summary()
        return code if written else 1

    def _summary(self) -> int:
        seconds = time.monotonic() - self._began
        for (host, reason), checks in self.why_not.items():
            typer.echo(f"{host.ljust(self._width)}  not possible: {', '.join(checks)}: {reason}")
        found = {place: finding for place, finding in self.findings.items() if finding is not None}
        red = {host for (host, _), finding in found.items() if finding.deviations} | {host for host, _ in self.why_not}
        what = f"{plural(len(self.audit.hosts), 'host')}, {plural(len(found), 'check')}, {seconds:.1f} s"
        if follows := sum(len(finding.follows) for finding in found.values()):
            what = f"{plural(follows, 'consequence')}; {what}"
        if red:
            hosts = ", ".join(host for host in self.audit.hosts if host in red)
            typer.secho(f"{plural(self.deviations, 'deviation')} on {hosts}  ({what})", fg="red", bold=True)
        elif self.findings:
            typer.secho(f"as planned  ({what})", fg="green", bold=True)
        return 1 if red or not self.findings else 0

    def _write(self) -> bool:
        """Write the JSON file, if one is wanted; whether that was possible."""
        if self.json_file is None:
            return True
        data = self.as_data(time.monotonic() - self._began)
        try:
            self.json_file.write_text(json.dumps(data, indent=2, ensure_ascii=True) + "\n")
        except OSError as error:
            typer.echo(f"error: {self.json_file} cannot be written: {error.strerror}", err=True)
            return False
        return True

    def as_data(self, seconds: float) -> dict[str, object]:
        """Everything that was found."""
        hosts: dict[str, dict[str, object]] = {host: {} for host in self.audit.hosts}
        for (host, check), finding in self.findings.items():
            hosts[host][check] = self._finding_as_data(host, finding)
        green = bool(self.findings) and all(finding is not None and finding.ok for finding in self.findings.values())
        return {
            "fleet": self.audit.compiled.declaration.fleet.fleet,
            "green": green,
            "deviations": self.deviations,
            "seconds": round(seconds, 1),
            "hosts": hosts,
        }

    def _finding_as_data(self, host: str, finding: Finding | None) -> dict[str, object]:
        if finding is None:
            return {"result": "not possible", "deviations": []}
        result = "deviation" if finding.deviations else "follows" if finding.follows else "ok"
        deviations = [
            _deviation_as_data(deviation) | {"consequences": [
                {"host": felt, "check": check} | _deviation_as_data(what)
                for felt, check, what in self.audit.consequences(host, deviation)
            ]}
            for deviation in finding.deviations
        ]  # fmt: skip
        follows = [
            _deviation_as_data(what) | {"from": why.subject, "on": why.host or host} for what, why in finding.follows
        ]
        return {"result": result, "seen": finding.seen, "deviations": deviations, "follows": follows}


def _list(lines: list[str], indent: int) -> None:
    for line in lines[:SHOWN_AT_MOST]:
        typer.echo(f"{' ' * indent}{line}")
    if len(lines) > SHOWN_AT_MOST:
        typer.echo(f"{' ' * indent}… and {len(lines) - SHOWN_AT_MOST} more (--json FILE has all)")


def _deviation_as_data(deviation: Deviation) -> dict[str, str]:
    return {"subject": deviation.subject, "expected": deviation.expected, "actual": deviation.actual}
