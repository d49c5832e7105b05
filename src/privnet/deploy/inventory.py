"""pyinfra's inventory from a fleet's directory.

``inventory/prod.py`` calls :func:`groups`; what it finds wrong is printed in full, and pyinfra ends before it contacts
a host. So it does with a plan that removes more than it may (``check.removal``), also in a dry run.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from pyinfra.api.exceptions import InventoryError

from privnet.check import removal
from privnet.check.renames import renames
from privnet.committed import committed_lock
from privnet.compiler import refuse
from privnet.deploy import unreached
from privnet.deploy.connection import connections_to
from privnet.deploy.groups import EVERY
from privnet.deploy.groups import groups as groups_of
from privnet.deploy.host_keys import Identity, leave_out_unchecked
from privnet.deploy.run import begin
from privnet.diagnostics import DeclarationError, Problem, plural, quoted, render_text
from privnet.hosts import Reached, reached
from privnet.known_hosts import Login, write_known_hosts
from privnet.lab.errors import LabError
from privnet.lab.settings import ssh_config_of
from privnet.load import FLEET_FILE, shown_path
from privnet.model.fleet import Fleet, Host
from privnet.model.lock import Lock
from privnet.store import load_lock, lock_path

APART = {"serial": "--serial", "no_wait": "--no-wait"}
"""pyinfra's options with which it does not wait for all hosts after each operation."""

NO_DEPLOY = ("exec", "fact", "debug-inventory")
"""pyinfra's commands that cannot be a deploy of privnet's: what they do is what is typed."""

Groups = dict[str, list[tuple[str, dict[str, Any]]]]


def groups() -> Groups:
    """The hosts in service of the fleet whose directory lies beside the calling inventory file and has its name.

    A link to another fleet's inventory file is a file of its own: the fleet is the one beside the link.

    Raises InventoryError, after printing every problem, when the declaration is refused.
    """
    caller = Path(inspect.stack()[1].filename).absolute()
    return fleet_groups(caller.with_suffix(""))


def fleet_groups(directory: Path) -> Groups:
    """pyinfra's groups for a fleet's directory: all hosts, and one group a zone.

    Raises InventoryError, after printing every problem, when the declaration or what it would remove is refused. A
    command that is no deploy needs the hosts alone: it works while the declaration is being changed.
    """
    _refuse_apart()
    directory = directory.resolve()
    try:
        if _is_no_deploy() and (found := reached(directory)):
            return _hosts_alone(directory, found)
        run = begin(directory)
        declaration = run.compiled.declaration
        refuse(removal.check(declaration, run.compiled.before, run.lock, os.environ.get(removal.ALLOW)), declaration)
        if run.compiled.warnings:
            _say(run.compiled.warnings, declaration.sources)
        unreached.note(run)
        return _groups(directory, declaration.fleet, run.compiled.before, run.identities)
    except DeclarationError as error:
        _say(error.problems, error.sources)
        raise InventoryError(f"{directory}: the declaration has {plural(len(error.problems), 'problem')}") from None
    except LabError as error:
        raise InventoryError(str(error)) from None


def _is_no_deploy() -> bool:
    context = click.get_current_context(silent=True)
    words = context.params.get("operations") if context is not None else None
    return words is not None and words[:1] in {(word,) for word in NO_DEPLOY}


def _hosts_alone(directory: Path, found: Reached) -> Groups:
    """Hosts as they are reached now, whatever else the declaration says."""
    file = shown_path(directory / FLEET_FILE)
    if found.committed:
        sys.stderr.write(f"{file} cannot be read: these are the hosts of the last commit\n")
    if found.left_out:
        names = ", ".join(map(quoted, found.left_out))
        sys.stderr.write(f"{file}: left out, since they are not declared rightly: {names}\n")
    try:
        saved = load_lock(directory, found.fleet.fleet)
    except DeclarationError:
        kept = committed_lock(directory, found.fleet.fleet)
        if kept is None:
            raise
        saved = kept
        sys.stderr.write(
            f"{shown_path(lock_path(directory))} cannot be read: these are the SSH keys of the last commit\n"
        )
    return _groups(directory, found.fleet, saved.renamed(renames(found.fleet, saved)), {})


def _groups(directory: Path, fleet: Fleet, saved: Lock, identities: dict[str, Identity]) -> Groups:
    """Everything that pyinfra is told of the hosts, by group."""
    # The file with the SSH keys of hosts seen before; hosts of a lab are known in the lab.
    known = "" if fleet.lab else str(write_known_hosts(fleet, saved))
    groups = groups_of(fleet)
    hosts = {}
    for name in groups[EVERY]:
        host = fleet.hosts[name]
        entry = saved.hosts.get(name)
        pinned = entry.ssh if entry and not fleet.lab else None
        forget = f"privnet forget {shown_path(directory)} {name}"
        identities[name] = Identity(name, pinned, None if fleet.lab else Login.of(host), forget)
        hosts[name] = _host_data(directory, name, host, identities[name], fleet.lab, known)
    leave_out_unchecked()
    return {group: [(name, hosts[name]) for name in some] for group, some in groups.items()}


def _refuse_apart() -> None:
    context = click.get_current_context(silent=True)
    for name, option in APART.items():
        if context is not None and context.params.get(name):
            raise InventoryError(
                f"{option} lets a host go on before the others are where it is: old containers would go before new "
                "ones are there. Run without it"
            )


def _say(problems: Iterable[Problem], sources: Mapping[str, str]) -> None:
    sys.stderr.write(render_text(problems, color=sys.stderr.isatty(), sources=sources))


def _host_data(directory: Path, name: str, host: Host, identity: Identity, lab: bool, known: str) -> dict[str, Any]:
    data: dict[str, Any] = {
        "ssh_hostname": host.address,
        "ssh_user": host.ssh.user,
        "ssh_port": host.ssh.port,
        "privnet_directory": str(directory),
        "ssh_paramiko_connect_kwargs": {"transport_factory": connections_to(identity)},
    }
    if host.ssh.user != "root":
        data["_sudo"] = True
    if lab:
        # A lab fleet lives in the lab only: whatever its addresses are, they are reached through the lab or not at all.
        return data | {"ssh_hostname": name, "ssh_config_file": str(ssh_config_of(directory))}
    # What else than privnet uses pyinfra's data, as its rsync, knows a host by the same key. One that is not known yet
    # is looked at by its identity alone.
    trust = (known, "yes") if identity.pinned else (os.devnull, "no")
    return data | dict(zip(("ssh_known_hosts_file", "ssh_strict_host_key_checking"), trust, strict=True))
