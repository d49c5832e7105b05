"""`privnet import HOST… --output DIR`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from privnet.diagnostics import visible
from privnet.importer.answer import Unusable
from privnet.importer.ask import Target, ask_all
from privnet.importer.merge import Rebuilt, merge
from privnet.importer.write import check_output, texts, write_fleet
from privnet.report.fleet import summary

FAILED = 1
REFUSED = 2
TO_BE_JUDGED = 3

NOWHERE = (
    "not found on any host, because none remembers it: projects without a private network, networks without a "
    "container, numbers in quarantine, comments of the YAML"
)


def import_command(
    hosts: Annotated[
        list[str],
        typer.Argument(
            metavar="HOST…",
            show_default=False,
            help="[USER@]ADDRESS[:PORT] of each host; also names that your SSH configuration, or --ssh-config, has.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The new directory of the fleet: inventory/prod.")
    ],
    ssh_config: Annotated[
        Path | None,
        typer.Option("--ssh-config", metavar="FILE", help="As ssh's -F; for a lab, the one of `privnet lab`."),
    ] = None,
) -> None:
    """Rebuild a lost declaration and lock file from what the hosts remember.

    Each host is asked one question; nothing is changed on any. What they say is checked like any declaration before a
    file is written, and what they do not agree on is said.

    Ends with 0 when everything is known, 3 when it was written and something has to be judged by you, 1 when nothing
    could be rebuilt, 2 when the command line is refused and no host was asked.
    """
    try:
        targets = [Target.parse(text) for text in hosts]
        check_output(output)
    except Unusable as error:
        raise _ended(str(error), REFUSED) from None
    try:
        rebuilt = merge(ask_all(targets, ssh_config))
        compiled = write_fleet(output, rebuilt)
    except Unusable as error:
        raise _ended(f"{error}. Nothing was written", FAILED) from None
    except OSError as error:
        raise _ended(f"{error.filename or output}: {error.strerror or error}", FAILED) from None
    typer.echo(f"{output}: {summary(compiled)}; lock file with serial {rebuilt.lock.serial}")
    typer.echo("\n".join(_said(output, rebuilt)))
    raise typer.Exit(TO_BE_JUDGED if rebuilt.remarks else 0)


def _said(output: Path, rebuilt: Rebuilt) -> Iterator[str]:
    yield from (f"{output / name} written" for name in texts(rebuilt))
    yield f"{output / 'privnet.lock.yaml'} and {output.with_name(output.name + '.py')} written"
    yield NOWHERE
    if rebuilt.remarks:
        yield "to be judged by you:"
    yield from (f"  - {visible(remark)}" for remark in rebuilt.remarks)
    yield f"next: privnet plan {output}"


def _ended(message: str, code: int) -> typer.Exit:
    typer.secho("error: ", nl=False, err=True, fg="red", bold=True)
    typer.echo(visible(message), err=True)
    return typer.Exit(code)
