"""`privnet …`: the command line. Commands import what they need when they run, so that each one starts fast.

Exit codes: 0 fine, 1 failed, 2 the declaration or the command line was refused (no host was contacted). `deploy` has
more.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from privnet.compiler import Compiled
    from privnet.deploy.outcome import Outcome
    from privnet.diagnostics import DeclarationError, Problem

FAILED = 1
REFUSED = 2
SCHEMAS = Path("schemas")
EXIT_CODES = "Exit codes: 0 fine, 1 failed, 2 the declaration or the command line was refused (no host was contacted)."


class Format(StrEnum):
    """How a command answers."""

    text = "text"
    json = "json"


class CheckFormat(StrEnum):
    """How a check answers."""

    text = "text"
    json = "json"
    sarif = "sarif"
    github = "github"


class TableFormat(StrEnum):
    """How a command answers that prints a table."""

    table = "table"
    json = "json"


def _lab() -> typer.Typer:
    app: typer.Typer = import_module("privnet.lab.cli").app
    return app


def _audit() -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command("audit")(import_module("privnet.audit.cli").audit_command)
    return app


def _import() -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command("import")(import_module("privnet.importer.cli").import_command)
    return app


_PARTS: dict[str, Callable[[], typer.Typer]] = {"lab": _lab, "audit": _audit, "import": _import}


class _Commands(TyperGroup):
    """The commands of this module, and those of other parts, which are imported when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *_PARTS]

    def get_command(self, ctx: Any, name: str) -> Any:
        if name in _PARTS:
            gc.enable()  # these can go on for long
            return typer.main.get_command(_PARTS[name]())
        return super().get_command(ctx, name)


app = typer.Typer(
    name="privnet",
    cls=_Commands,
    help=f"Private networks for groups of applications over a fleet of Linux hosts.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Inventory = Annotated[
    Path | None, typer.Argument(metavar="INVENTORY", show_default=False, help="Directory of a fleet: inventory/prod.")
]


@app.command()
def check(
    inventory: Inventory = None,
    format: Annotated[
        CheckFormat,
        typer.Option("--format", help="`json` for machines, `sarif` for code scanning, `github` for annotations."),
    ] = CheckFormat.text,
) -> None:
    """Say whether a declaration holds, and everything that is wrong with it."""
    with _told(format):
        from privnet.report.fleet import lock_state, summary, summary_data

        compiled = _compile(inventory, format, look_into_git=True)
        if format is CheckFormat.json:
            problems = json.loads(_shown(compiled.warnings, format))
            _say_json({**problems, "summary": summary_data(compiled)})
        elif format is CheckFormat.sarif:
            _say(_shown(compiled.warnings, format))
        else:
            if format is CheckFormat.github and compiled.warnings:
                _say(_shown(compiled.warnings, format))
            _say(f"{inventory}: {summary(compiled)}; {lock_state(compiled)}")


@app.command()
def forget(
    inventory: Inventory,
    host: Annotated[str, typer.Argument(metavar="HOST", help="A host that was reinstalled.")],
) -> None:
    """Take the keys that a reinstalled host shows in the next run. Until then its peers keep its old key."""
    with _told():
        from dataclasses import replace

        from privnet.store import save_lock

        compiled = _compile(inventory)
        known = compiled.known
        if host not in known.hosts:
            _refuse_unknown(host, known.hosts)
        forgotten = known.hosts[host].forget()
        if forgotten == known.hosts[host]:
            _say(f"the lock file holds no key of {host} that is to stay")
            return
        save_lock(Path(inventory or ""), replace(known, hosts={**known.hosts, host: forgotten}))
        _say(
            f"forgot the keys of {host}: the next run takes those that it shows. Until then its peers keep the old one"
        )
        from privnet.known_hosts import Login, objection

        declared, before = compiled.declaration.fleet.hosts.get(host), known.hosts[host].ssh
        # A file of the user that has the old key, too, would refuse the new one.
        if declared and before and (found := objection(Login.of(declared), f"{before.split()[0]} -")):
            _say(f"then also: {found}")


def _refuse_unknown(host: str, known: Iterable[str]) -> None:
    from privnet.diagnostics import close

    meant = close(host, known)
    guess = f"; did you mean {meant[0]}?" if meant else ""
    _refuse(f"the lock file knows no host {host!r}{guess}")


@app.command()
def plan(
    inventory: Inventory = None,
    format: Annotated[Format, typer.Option("--format", help="`json` has everything, however large.")] = Format.text,
    all: Annotated[bool, typer.Option("--all", help="Also what stays: each network, container and host.")] = False,
    live: Annotated[
        bool, typer.Option("--live", help="Ask each host, too, what a run would do to it; changes nothing.")
    ] = False,
    steps: Annotated[
        bool, typer.Option("--steps", help="With --live: also what would be written and executed on each host.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Save the plan, for `privnet deploy --plan FILE`.")
    ] = None,
) -> None:
    """Show what a run would change, compared with the lock file, and which traffic would feel it."""
    with _told(format):
        from privnet.report.fleet import plan_data, plan_lines

        if out is not None and out.is_symlink():
            _refuse(f"{out} is a symbolic link, and what it leads to would be overwritten; give the file's own name")
        if steps and not live:
            _refuse("`--steps` are those that hosts need: they are asked with `--live`")
        compiled = _compile(inventory, format, look_into_git=True)
        found = _ask(compiled) if live else None
        if format is Format.json:
            _say_json({**plan_data(compiled), **_live_data(found, compiled)})
        else:
            _say(*plan_lines(compiled, everything=all), *_live_lines(found, compiled, steps))
        if out is not None:
            from privnet.report.plan_file import plan_file

            out.write_text(plan_file(compiled, _answers(found)), encoding="utf-8")
            _say_aside(f"{out} written: `privnet deploy {inventory} --plan {out}` does this and nothing else")


@app.command()
def deploy(
    inventory: Inventory = None,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="A plan saved by `privnet plan --out`: do this, or nothing."),
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option("--limit", metavar="HOST", help="Only this host or group (repeat for more).")
    ] = None,
    dry: Annotated[bool, typer.Option("--dry", help="Ask the hosts, and change nothing.")] = False,
    allow_removals: Annotated[
        str | None,
        typer.Option("--allow-removals", metavar="N", help="The exact number of containers, networks, hosts that go."),
    ] = None,
    break_lease: Annotated[
        str | None,
        typer.Option("--break-lease", metavar="RUN", help="Take over hosts that this run holds, which has ended."),
    ] = None,
    confirm_within: Annotated[
        str | None,
        typer.Option("--confirm-within", metavar="10m", help="Leave it to `privnet confirm` to keep the change."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Bring the fleet to what its YAML says: the pyinfra deploy, and what has become of it.

    Exit codes: 0 done, 1 failed, 2 refused (nothing was changed), 3 some hosts pending: the same command again finishes
    them, 75 locked: another run is under way.
    """
    with _told():
        from privnet.check.removal import ALLOW
        from privnet.deploy.command import Request, chosen, judge, perform
        from privnet.deploy.groups import groups

        compiled = _compile(inventory)
        within = _seconds(confirm_within)
        told = allow_removals if allow_removals is not None else os.environ.get(ALLOW)
        hosts, unknown = chosen(compiled.plan.fleet, limit or [])
        for pattern in unknown:
            _known_host(pattern, compiled, groups(compiled.plan.fleet))
        if plan is not None:
            told = told or _still_the_plan(plan, compiled)
        told = _agree(compiled, told, ask=not (yes or dry))
        request = Request(Path(inventory or ""), tuple(limit or []), dry, told, break_lease, within)
        verdict = judge(perform(request), hosts, dry, compiled.plan.fleet.policy.rollback, within)
        with _read_or_not():
            _say("", *verdict.lines)
        raise typer.Exit(verdict.code)


@app.command()
def confirm(
    inventory: Inventory = None,
    limit: Annotated[
        list[str] | None, typer.Option("--limit", metavar="HOST", help="Only this host or group (repeat for more).")
    ] = None,
) -> None:
    """Keep what `privnet deploy --confirm-within` has changed, on all hosts that wait."""
    _last_word(inventory, limit, "confirm")


@app.command()
def undo(
    inventory: Inventory = None,
    limit: Annotated[
        list[str] | None, typer.Option("--limit", metavar="HOST", help="Only this host or group (repeat for more).")
    ] = None,
) -> None:
    """Roll back what `privnet deploy --confirm-within` has changed, on all hosts that wait."""
    _last_word(inventory, limit, "undo")


def _last_word(inventory: Path | None, limit: list[str] | None, word: str) -> None:
    with _told():
        from privnet.check.removal import removals
        from privnet.deploy.command import Request, chosen, perform
        from privnet.deploy.groups import groups
        from privnet.deploy.waiting import said

        compiled = _compile(inventory)
        hosts, unknown = chosen(compiled.plan.fleet, limit or [])
        for pattern in unknown:
            _known_host(pattern, compiled, groups(compiled.plan.fleet))
        # Whatever the YAML says by now: nothing of it is done.
        number = str(removals(compiled.before, compiled.lock).number)
        found = perform(Request(Path(inventory or ""), tuple(limit or []), allow=number, word=word)).outcome
        code, lines = said(found, hosts, word)
        with _read_or_not():
            _say("", *lines)
        raise typer.Exit(code)


def _seconds(text: str | None) -> int:
    """A time for which hosts wait for a person; 0 for none."""
    from privnet.model.identifiers import ROLLBACK_LAST, Invalid, Seconds

    try:
        return Seconds("--confirm-within", ROLLBACK_LAST, minimum=30).parse(text) if text is not None else 0
    except Invalid as error:
        _refuse(f"{error.message}{f': {error.help}' if error.help else ''}")
        raise


def _agree(compiled: Compiled, told: str | None, ask: bool) -> str | None:
    """Let nobody remove more than was said; show the plan to whom can be asked, and let them decide.

    The number of removals that the run is told: as given, or as a person has just agreed to it.
    """
    from privnet.check import removal
    from privnet.compiler import refuse
    from privnet.report.fleet import plan_lines

    ask_here = ask and sys.stdin.isatty()
    problems = list(removal.check(compiled.declaration, compiled.before, compiled.lock, told))
    if ask_here:
        _say(*plan_lines(compiled, ask=True))
        if problems and not told:
            found = removal.removals(compiled.before, compiled.lock)
            _say(*(f"  {part}" for part in removal.named(found)))
            if not removal.agrees(found, typer.prompt(removal.question(found), default="", show_default=False)):
                _refuse("not deployed: no host was contacted")
            return str(found.number)
    refuse(problems, compiled.declaration)
    if ask and not ask_here:
        _refuse("nobody can be asked here: `-y` deploys without asking, `privnet plan` shows what that would change")
    if ask and not typer.confirm("Deploy this?"):
        _refuse("not deployed: no host was contacted")
    return told


def _still_the_plan(file: Path, compiled: Compiled) -> str | None:
    """The number of removals that was looked at. Raise DeclarationError when something else would be done by now."""
    from privnet.compiler import refuse
    from privnet.diagnostics import render_text
    from privnet.report.plan_file import agreed_removals, hosts_moved_on, moved_on, read_plan_file

    saved = read_plan_file(file)
    refuse(moved_on(saved, compiled), compiled.declaration)
    if saved["live"] is None:
        return agreed_removals(saved, compiled)
    problems = list(hosts_moved_on(saved, _answers(_ask(compiled)) or {}))
    if problems:
        said = render_text(problems, color=sys.stderr.isatty(), sources={})
        _say_aside(said.rstrip().removesuffix("No host was contacted.") + "No host was changed.")
        raise typer.Exit(REFUSED)
    return agreed_removals(saved, compiled)


def _ask(compiled: Compiled) -> Outcome:
    """What a run would do to each host: a dry run that is told how much goes, since nothing does."""
    from privnet.check.removal import removals
    from privnet.deploy.command import Request, is_cut_short, perform

    number = removals(compiled.before, compiled.lock).number
    ended = perform(Request(compiled.declaration.directory, dry=True, allow=str(number)), quiet=True)
    if ended.outcome is None or ended.interrupted or is_cut_short(ended):
        _say_aside(ended.said.rstrip())
        _say_error("the hosts could not be asked")
        raise typer.Exit(FAILED)
    return ended.outcome


def _answers(found: Outcome | None) -> Mapping[str, Any] | None:
    from privnet.deploy.command import live_data

    return live_data(found) if found else None


def _live_data(found: Outcome | None, compiled: Compiled) -> dict[str, Any]:
    from privnet.deploy.command import live_report

    return {"live": live_report(found, compiled)} if found else {}


def _live_lines(found: Outcome | None, compiled: Compiled, steps: bool) -> Iterator[str]:
    from privnet.deploy.command import live_lines

    if found:
        yield ""
        yield from live_lines(found, compiled, steps)


@app.command()
def render(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where to write: DIR/HOST/etc/….")],
    inventory: Inventory = None,
    host: Annotated[str | None, typer.Option("--host", metavar="HOST", help="Only the files of this host.")] = None,
) -> None:
    """Write the managed files of every host, or of one, below a directory.

    The directory must be empty, new, or of an earlier render; files of an earlier render that are no longer wanted are
    removed from it. No file holds a secret.
    """
    with _told():
        from privnet.compiler import render_fleet
        from privnet.diagnostics import plural
        from privnet.render import render_host
        from privnet.report.tree import NotOurs, write_tree

        compiled = _compile(inventory)
        if host is None:
            trees = render_fleet(compiled.plan)
        else:
            _known_host(host, compiled)
            trees = {host: render_host(compiled.plan.hosts[host])}
        try:
            done = write_tree(output, trees, whole=host is None)
        except NotOurs as error:
            _refuse(str(error))
        files = f"{plural(done.written, 'file')} written, {done.kept:,} unchanged, {done.removed:,} removed"
        _say(f"{output}: {plural(len(trees), 'host')}, {files}")


@app.command()
def names(
    inventory: Inventory = None,
    format: Annotated[TableFormat, typer.Option("--format", help="A table, or JSON.")] = TableFormat.table,
    vni: Annotated[bool, typer.Option("--vni", help="The VNIs in use or in quarantine, instead of names.")] = False,
) -> None:
    """List every name, its type (A, PTR, or NODATA: it exists without an address), its addresses and hosts."""
    with _told(format):
        from privnet.report.names import name_rows, names_data, vni_data, vni_rows

        compiled = _compile(inventory)
        if format is TableFormat.json:
            _say_json(vni_data(compiled) if vni else names_data(compiled.plan))
        else:
            _say(*table(vni_rows(compiled) if vni else name_rows(compiled.plan)))


@app.command()
def report(
    inventory: Inventory = None,
    format: Annotated[Format, typer.Option("--format", help="`json` for other programs.")] = Format.text,
) -> None:
    """Print the evidence for an auditor: who accepted what, what is in which network, how it is encrypted."""
    with _told(format):
        from privnet.report.evidence import evidence_data, evidence_lines

        compiled = _compile(inventory)
        if format is Format.json:
            _say_json(evidence_data(compiled))
        else:
            _say(*evidence_lines(compiled))


new = typer.Typer(
    help="Write commented, valid YAML with fresh identifiers. Nothing is ever overwritten.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(new, name="new")
Existing = Annotated[Path, typer.Argument(metavar="INVENTORY", help="Directory of a fleet: inventory/prod.")]


@new.command("fleet")
def new_fleet(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The new directory: inventory/NAME.")],
    host: Annotated[
        list[str] | None, typer.Option("--host", metavar="NAME=ADDRESS", help="A host (repeat for more).")
    ] = None,
) -> None:
    """Begin a fleet: its directory, and the inventory for pyinfra beside it."""
    with _told():
        from privnet.new.write import new_fleet as write

        pairs = [given.partition("=") for given in host or []]
        if any(not (name and address) for name, _, address in pairs):
            _refuse("a host is given as NAME=ADDRESS: --host par-a-1=192.0.2.11")
        written = write(directory, {name: address for name, _, address in pairs})
        _say(*(f"{path} written" for path in written), f"next: privnet new project {directory} NAME")


@new.command("project")
def new_project(
    inventory: Existing,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The project's name.")],
    accepted_by: Annotated[
        str, typer.Option("--accepted-by", metavar="WHO", help="Who read and accepted the terms of private networks.")
    ] = "",
    terms: Annotated[str, typer.Option("--terms", metavar="VERSION", help="Which version of the terms.")] = "",
    accepted_on: Annotated[
        str, typer.Option("--accepted-on", metavar="YYYY-MM-DD", help="When; today unless given.")
    ] = "",
) -> None:
    """Begin a project; with a private network when its terms were accepted."""
    with _told():
        import datetime

        from privnet.new.documents import Terms
        from privnet.new.write import new_project as write

        if bool(accepted_by) != bool(terms):
            _refuse("a private network needs both: --accepted-by WHO and --terms VERSION; without them it has none")
        day = accepted_on or datetime.date.today().isoformat()
        _fleet_at(inventory)
        path = write(inventory, name, Terms(accepted_by, terms, day) if terms else None)
        _say(f"{path} written", f"next: privnet new application {inventory} {name}")


@new.command("application")
def new_application(
    inventory: Existing,
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="The project that it belongs to.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="A name for people.")] = "",
    host: Annotated[
        list[str] | None, typer.Option("--host", metavar="HOST", help="Host of a `web` container (repeat for more).")
    ] = None,
) -> None:
    """Add an application with a fresh id to a project."""
    with _told():
        from privnet.new.write import new_application as write

        _fleet_at(inventory)
        path, application = write(inventory, project, name, host or [])
        _say(f"{path}: {application} added", f"next: privnet plan {inventory}")


@new.command("host")
def new_host(
    inventory: Existing,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The host's name.")],
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Its IP address on the underlay.")],
    zone: Annotated[str, typer.Option("--zone", metavar="ZONE", help="Hosts that fail together.")] = "",
) -> None:
    """Add a host to a fleet."""
    with _told():
        from privnet.new.write import new_host as write

        _fleet_at(inventory)
        _say(f"{write(inventory, name, address, zone)}: {name} added", f"next: privnet plan {inventory}")


@app.command()
def schema(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write them.")] = SCHEMAS,
) -> None:
    """Write the JSON Schemas of the declaration's documents, for editors."""
    with _told():
        from privnet.schema import write

        written = write(directory)
        _say(*(f"{path} written" for path in written))
        if not written:
            _say(f"{directory}: up to date")


@app.command()
def explain(code: Annotated[str, typer.Argument(metavar="CODE", help="As in error[PN304].")]) -> None:
    """Say what a problem's code means."""
    from privnet.diagnostics import CODES, nearest
    from privnet.report.codes import explanation

    wanted = code.strip().removeprefix("error[").removesuffix("]").upper()
    if wanted not in CODES:
        _refuse(f"there is no code {wanted}: codes are PN and three digits" + _also(nearest(wanted, CODES)))
    _say(*explanation(wanted))


# --- what commands share --------------------------------------------------------------------------


def _compile(inventory: Path | None, format: str = "text", *, look_into_git: bool = False) -> Compiled:
    """The compiled fleet; its warnings are said beside the answer, unless ``format`` puts them into it."""
    from privnet.compiler import compile_fleet

    compiled = compile_fleet(_fleet_at(inventory))
    if look_into_git:
        from dataclasses import replace

        from privnet.committed import newer_committed

        newer = newer_committed(compiled.declaration.directory, compiled.known)
        compiled = replace(compiled, warnings=(*compiled.warnings, *newer))
    if compiled.warnings and format == "text":
        _say_text(compiled.warnings, compiled.declaration.sources)
    return compiled


def _fleet_at(inventory: Path | None) -> Path:
    """The directory, when it is a fleet's. Raises DeclarationError with the one that was probably meant."""
    from privnet.diagnostics import DeclarationError
    from privnet.load import FLEET_FILE

    if inventory is None or not (inventory / FLEET_FILE).exists():
        raise DeclarationError([_no_inventory(inventory)])
    return inventory


def _no_inventory(inventory: Path | None) -> Problem:
    from privnet.diagnostics import Problem, close, visible
    from privnet.load import FLEET_FILE

    fleets = _fleets_nearby(inventory)
    there = f"fleets here: {', '.join(fleets)}" if fleets else f"a fleet's directory holds {FLEET_FILE} and projects/"
    if inventory is None:
        return Problem("PN101", "no inventory was given", help=there)
    shown = visible(str(inventory))
    if inventory.is_dir():
        return Problem("PN101", f"{shown} is not the directory of a fleet: it has no {FLEET_FILE}", help=there)
    if inventory.name == FLEET_FILE or inventory.suffix == ".py":
        meant = str(inventory.parent if inventory.name == FLEET_FILE else inventory.with_suffix(""))
        found = [meant] if meant in fleets else []
    else:
        found = close(str(inventory), fleets)
    why = "is not a directory" if inventory.exists() else "does not exist"
    return Problem("PN101", f"{shown} {why}", help=f"did you mean `{found[0]}`?" if found else there)


def _fleets_nearby(inventory: Path | None) -> list[str]:
    """Directories of fleets where one would look: below the working directory, and beside what was given."""
    from privnet.load import FLEET_FILE

    folders = [Path(), Path("inventory")]
    if inventory is not None:
        folders += [inventory, inventory.parent]
    found = {path.parent for folder in folders if folder.is_dir() for path in folder.glob(f"*/{FLEET_FILE}")}
    return sorted(str(path) for path in found)


def _known_host(host: str, compiled: Compiled, groups: Iterable[str] = ()) -> None:
    from privnet.diagnostics import nearest, quoted, some

    hosts = compiled.plan.hosts
    if host in compiled.plan.fleet.out:
        _refuse(f"{host} is out of service (`state: out` in fleet.yaml), so no run goes there and it has no plan")
    if host in hosts:
        return
    there = f"its hosts are {', '.join(sorted(hosts))}" if len(hosts) <= 20 else f"it has {len(hosts):,} hosts"
    if groups:
        there += f"; its groups are {some(sorted(groups), 20)}"
        _refuse(
            f"the fleet has no host or group {quoted(host)}" + _also(nearest(host, [*hosts, *groups])) + _also(there)
        )
    _refuse(f"the fleet has no host {quoted(host)}" + _also(nearest(host, hosts) or there))


def _also(more: str) -> str:
    return f"; {more}" if more else ""


@contextmanager
def _told(format: str = "text") -> Iterator[None]:
    """Say what is wrong instead of a traceback, and end with the exit code that fits."""
    from privnet.diagnostics import DeclarationError
    from privnet.new import NotWritten

    try:
        yield
    except DeclarationError as error:
        _say_problems(error, format)
        raise typer.Exit(REFUSED) from None
    except NotWritten as error:
        _refuse(str(error))
    except BrokenPipeError:
        raise  # typer ends without a word
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _say_error(f"{where}{error.strerror or error}")
        raise typer.Exit(FAILED) from None


@contextmanager
def _read_or_not() -> Iterator[None]:
    """Say what does not change how a command ends."""
    from privnet.unread import say_no_more

    try:
        yield
    except OSError:
        say_no_more()


def _refuse(message: str) -> None:
    _say_error(message)
    raise typer.Exit(REFUSED)


# --- the only place that prints -------------------------------------------------------------------


def _say(*lines: str) -> None:
    if lines:
        typer.echo("\n".join(lines))


def _say_aside(*lines: str) -> None:
    """Beside the answer, for who watches."""
    typer.echo("\n".join(lines), err=True)


def _say_json(data: object) -> None:
    _say(json.dumps(data, indent=2, ensure_ascii=False))


def _say_error(message: str) -> None:
    from privnet.diagnostics import visible

    typer.secho("error: ", nl=False, err=True, fg="red", bold=True)
    typer.echo(visible(message), err=True)


def _say_problems(error: DeclarationError, format: str) -> None:
    if format in ("json", "sarif", "github"):
        _say(_shown(error.problems, format))
    else:
        _say_text(error.problems, error.sources)


def _say_text(problems: Iterable[Problem], sources: Mapping[str, str]) -> None:
    from privnet.diagnostics import render_text

    typer.echo(render_text(problems, color=sys.stderr.isatty(), sources=sources), err=True, nl=False)


def _shown(problems: Iterable[Problem], format: str) -> str:
    from privnet.diagnostics import render_json
    from privnet.report.annotations import render_github, render_sarif

    return {"json": render_json, "sarif": render_sarif, "github": render_github}[format](problems)


def table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Rows as aligned columns, never wrapped: names are there to be copied."""
    every = list(rows)
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    for row in every:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def main() -> None:
    """The command ``privnet``."""
    from privnet.unread import open_missing

    open_missing()
    gc.disable()  # a command is over before its garbage is worth a walk over all that it has read
    app()


if __name__ == "__main__":
    main()
