"""The one question."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources

from pyinfra.api import FactBase, QuoteString, StringCommand

from privnet.deploy.state import HostState, Unknown, parse_snapshot


class Snapshot(FactBase[HostState | Unknown]):
    """Everything of privnet on a host, on disk and in the kernel, in one answer."""

    def command(self) -> StringCommand:
        return StringCommand(*question())

    def process(self, output: Iterable[str]) -> HostState | Unknown:
        return parse_snapshot(output)

    @staticmethod
    def default() -> HostState | Unknown:
        return Unknown("it gave no answer")


def question() -> tuple[str | QuoteString, ...]:
    """The words of the one question, which may stand behind another command."""
    program = (resources.files("privnet.deploy") / "snapshot.sh").read_text()
    # What is no plain text is a `?`: made there, on a host that does what it is asked to, and here (`connection`).
    return "sh", "-c", QuoteString(program), "|", "tr", "-c", QuoteString(r"\11\12\40-\176"), "'?'"
