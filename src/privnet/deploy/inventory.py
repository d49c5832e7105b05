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
from privnet.compiler import refuse
from privnet.deploy.connection import connections_to
from privnet.deploy.groups import groups as groups_of
from privnet.deploy.host_keys import Identity, leave_out_unchecked
from privnet.deploy.run import Run, begin
from privnet.diagnostics import DeclarationError, Problem, plural, render_text
from privnet.known_hosts import Login, write_known_hosts
from privnet.lab.errors import LabError
from privnet.lab.settings import ssh_config_of
from privnet.load import shown_path
from privnet.model.fleet import Host

APART = {"serial": "--serial", "no_wait": "--no-wait"}
"""pyinfra's options with which it does not wait for all hosts after each operation."""

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

    Raises InventoryError, after printing every problem, when the declaration or what it would remove is refused.
    """
    _refuse_apart()
    try:
        run = begin(directory)
        declaration = run.compiled.declaration
        refuse(removal.check(declaration, run.saved, run.lock, os.environ.get(removal.ALLOW)), declaration)
        known = _known_hosts(run)
        hosts = {name: _host_data(run, name, declaration.fleet.hosts[name], known) for name in run.plan.hosts}
        if run.compiled.warnings:
            _say(run.compiled.warnings, declaration.sources)
    except DeclarationError as error:
        _say(error.problems, error.sources)
        raise InventoryError(f"{directory}: the declaration has {plural(len(error.problems), 'problem')}") from None
    except LabError as error:
        raise InventoryError(str(error)) from None
    leave_out_unchecked()
    return {group: [(name, hosts[name]) for name in some] for group, some in groups_of(declaration.fleet).items()}


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


def _known_hosts(run: Run) -> str:
    """The file with the SSH keys of hosts seen before; hosts of a lab are known in the lab."""
    fleet = run.compiled.declaration.fleet
    return "" if fleet.lab else str(write_known_hosts(fleet, run.saved))


def _host_data(run: Run, name: str, host: Host, known: str) -> dict[str, Any]:
    saved, lab = run.saved.hosts.get(name), run.compiled.declaration.fleet.lab
    pinned = saved.ssh if saved and not lab else None
    forget = f"privnet forget {shown_path(run.directory)} {name}"
    identity = run.identities[name] = Identity(name, pinned, None if lab else Login.of(host), forget)
    data: dict[str, Any] = {
        "ssh_hostname": host.address,
        "ssh_user": host.ssh.user,
        "ssh_port": host.ssh.port,
        "privnet_directory": str(run.directory),
        "ssh_paramiko_connect_kwargs": {"transport_factory": connections_to(identity)},
    }
    if host.ssh.user != "root":
        data["_sudo"] = True
    if lab:
        # A lab fleet lives in the lab only: whatever its addresses are, they are reached through the lab or not at all.
        return data | {"ssh_hostname": name, "ssh_config_file": str(ssh_config_of(run.directory))}
    # What else than privnet uses pyinfra's data, as its rsync, knows a host by the same key. One that is not known yet
    # is looked at by its identity alone.
    trust = (known, "yes") if pinned else (os.devnull, "no")
    return data | dict(zip(("ssh_known_hosts_file", "ssh_strict_host_key_checking"), trust, strict=True))
