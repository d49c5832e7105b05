"""The one question."""

from __future__ import annotations

import base64
import gzip
import shlex
from collections.abc import Iterable
from functools import cache
from importlib import resources

from pyinfra.api import FactBase, QuoteString, StringCommand

from privnet.deploy.state import HostState, Unknown, parse_snapshot


def _packed(endpoints: tuple[str, ...]) -> str:
    """The program in one line of letters and digits: csh as a login shell takes no quoted line break."""
    program = f"endpoints={shlex.quote(' '.join(endpoints))}\n{_program()}"
    return base64.b64encode(gzip.compress(program.encode(), mtime=0)).decode()


@cache
def _program() -> str:
    return (resources.files("privnet.deploy") / "snapshot.sh").read_text()


class Addresses(tuple[str, ...]):
    """pyinfra prints what a fact is asked with where it fails: there may be a thousand."""

    def __repr__(self) -> str:
        return f"{len(self)} addresses"


class Snapshot(FactBase[HostState | Unknown]):
    """Everything of privnet on a host, on disk and in the kernel, in one answer."""

    def command(self, endpoints: tuple[str, ...] = ()) -> StringCommand:
        return StringCommand(*question(endpoints))

    def process(self, output: Iterable[str]) -> HostState | Unknown:
        return parse_snapshot(output)

    @staticmethod
    def default() -> HostState | Unknown:
        return Unknown("it gave no answer")


def question(endpoints: tuple[str, ...] = ()) -> tuple[str | QuoteString, ...]:
    """The words of the one question, which may stand behind another command.

    :param endpoints: addresses to which the host is asked the way
    """
    # What is no plain text is a `?`: made there, on a host that does what it is asked to, and here (`connection`).
    plain = ("|", "tr", "-c", QuoteString(r"\11\12\40-\176"), "'?'")
    return "sh", "-c", QuoteString(f'eval "$(echo {_packed(endpoints)} | base64 --decode | gzip -d)"'), *plain
