"""`privnet lab …`"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from privnet.diagnostics import DeclarationError, render_text
from privnet.lab.archive import DEFAULT_RELEASE, RELEASES, check_release
from privnet.lab.capture import arguments
from privnet.lab.errors import LabError
from privnet.lab.lab import HostStatus, Lab
from privnet.lab.settings import DEFAULT_NAME, ENVIRONMENT, FABRIC, running_labs

app = typer.Typer(
    name="lab",
    help="A real fleet on this machine: Debian hosts in systemd-nspawn or QEMU, on an underlay of their own.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Name = Annotated[str, typer.Option("--name", envvar=ENVIRONMENT, help="Which lab; several can be up at once.")]
HostArgument = Annotated[str, typer.Argument(metavar="HOST", help="A host that the inventory declares.")]
DEFAULT_INVENTORY = Path("inventory/lab")


@contextmanager
def _told() -> Iterator[None]:
    """Say what went wrong as a sentence, and end with status 2."""
    try:
        yield
    except LabError as error:
        typer.secho("error: ", nl=False, err=True, fg="red", bold=True)
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    except DeclarationError as error:
        text = render_text(error.problems, color=sys.stderr.isatty(), sources=error.sources)
        typer.echo(text, err=True)
        raise typer.Exit(2) from None


class _Progress:
    """A line for each step, with the seconds since the command began."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, step: str) -> None:
        typer.echo(f"[{time.monotonic() - self._began:5.1f} s] {step}", err=True)


@app.command()
def up(
    inventory: Annotated[
        Path | None, typer.Argument(help=f"Inventory directory; {DEFAULT_INVENTORY} unless the lab is up.")
    ] = None,
    host: Annotated[
        list[str] | None, typer.Option("--host", metavar="HOST", help="Only this host (repeat for more).")
    ] = None,
    bare: Annotated[
        list[str] | None,
        typer.Option("--bare", metavar="HOST", help="Give this host a disk without what a deploy installs."),
    ] = None,
    machine: Annotated[
        list[str] | None,
        typer.Option("--machine", metavar="HOST", help="Run this host in QEMU, on its release's own kernel (slow)."),
    ] = None,
    release: Annotated[
        list[str] | None,
        typer.Option(
            "--release",
            metavar="HOST=RELEASE",
            help=f"Make this host's disk of another Debian release than {DEFAULT_RELEASE}: {', '.join(RELEASES)}.",
        ),
    ] = None,
    name: Name = DEFAULT_NAME,
) -> None:
    """Boot the hosts of an inventory; those that run already are left alone.

    An inventory that is not `lab: true` is rehearsed: a copy of it, on hosts of this machine.
    """
    with _told():
        progress = _Progress()
        existing = Lab(name=name)
        if inventory is None and not existing.exists:
            inventory = DEFAULT_INVENTORY
        lab = Lab(inventory, name=name, say=progress)
        lab.up(*(host or []), bare=bare or [], machines=machine or [], releases=_releases(release or []))
        if lab.rehearsal:
            typer.echo(f"A rehearsal: {lab.source} is not written to, and its hosts are not contacted.")
            typer.echo(f"Its copy, for `privnet plan`, `deploy` and `audit`: {lab.inventory}")
        typer.echo(f"Deploy with:  {lab.deploy_command()}")
        typer.echo(f"Log in with:  ssh -F {lab.ssh_config} {lab.hosts[0]}")


def _releases(options: list[str]) -> dict[str, str]:
    pairs = [option.partition("=") for option in options]
    for host, equals, _ in pairs:
        if not equals:
            raise LabError(f"--release {host}: which release?", help=f"--release {host}={max(RELEASES)}")
    return {host: check_release(release) for host, _, release in pairs}


@app.command()
def down(
    inventory: Annotated[Path | None, typer.Argument(help="Only if the lab runs this inventory.")] = None,
    name: Name = DEFAULT_NAME,
) -> None:
    """Remove the lab: processes, namespaces, mounts, disks; also what a crash has left."""
    with _told():
        Lab(inventory, name=name, say=_Progress()).down()


@app.command()
def status(name: Name = DEFAULT_NAME) -> None:
    """Show each host's state, address, process id and time since its boot."""
    with _told():
        lab = Lab(name=name)
        if not lab.exists:
            others = ", ".join(running_labs())
            typer.echo(f"lab {name!r} is not up" + (f"; up are: {others}" if others else ""))
            raise typer.Exit(1)
        typer.echo(f"lab {name}: {'rehearsal of ' if lab.rehearsal else ''}{lab.source}")
        rows = [("HOST", "STATE", "KIND", "RELEASE", "ADDRESS", "PID", "UPTIME"), *(_row(one) for one in lab.status())]
        rows += [(who, "", "", "", str(at[0]), "", "") for who, at in _places(lab)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _places(lab: Lab) -> list[tuple[str, tuple[object, ...]]]:
    return [("operator", lab.underlay.operator), ("outsider", lab.underlay.outsider)]


def _row(one: HostStatus) -> tuple[str, ...]:
    uptime = "" if one.uptime is None else _duration(one.uptime)
    return one.name, one.state, one.kind, one.release, one.address, str(one.pid or ""), uptime


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"


@app.command(name="exec")
def exec_(
    host: Annotated[str, typer.Argument(metavar="HOST", help="A host, `operator` or `outsider`.")],
    command: Annotated[list[str], typer.Argument(metavar="-- CMD", help="What to run there, as root.")],
    name: Name = DEFAULT_NAME,
) -> None:
    """Run a command in a host (or on the underlay, as `operator` or `outsider`); its status is ours."""
    with _told():
        argv = Lab(name=name).argv(host, command)
    os.execvp(argv[0], argv)


@app.command()
def reboot(host: HostArgument, name: Name = DEFAULT_NAME) -> None:
    """Reboot a host in order and wait until it is up again."""
    with _told():
        Lab(name=name, say=_Progress()).reboot(host)


@app.command()
def kill(host: HostArgument, name: Name = DEFAULT_NAME) -> None:
    """Cut a host's power. Its disk stays; `start` boots it again."""
    with _told():
        Lab(name=name, say=_Progress()).kill(host)


@app.command()
def start(host: HostArgument, name: Name = DEFAULT_NAME) -> None:
    """Switch on a host that is off, and wait until it is up."""
    with _told():
        Lab(name=name, say=_Progress()).start(host)


@app.command()
def capture(
    file: Annotated[Path, typer.Argument(help="Where to write the pcap file.")],
    expression: Annotated[list[str] | None, typer.Argument(help="A tcpdump filter.")] = None,
    name: Name = DEFAULT_NAME,
) -> None:
    """Record what crosses the underlay, between any two hosts, until Ctrl-C."""
    with _told():
        argv = Lab(name=name).argv(FABRIC, [*arguments(file), *(expression or [])])
    os.execvp(argv[0], argv)
