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
from privnet.deploy.connection import connection
from privnet.deploy.host_keys import explain_other_host_keys
from privnet.deploy.run import Run, begin
from privnet.diagnostics import DeclarationError, Problem, plural, render_text
from privnet.known_hosts import write_known_hosts
from privnet.lab.errors import LabError
from privnet.lab.settings import ssh_config_of
from privnet.load import shown_path
from privnet.model.fleet import Host

APART = {"serial": "--serial", "no_wait": "--no-wait"}
"""pyinfra's options with which it does not wait for all hosts after each operation."""

Groups = dict[str, list[tuple[str, dict[str, Any]]]]


def groups() -> Groups:
    """The hosts of the fleet whose directory lies beside the calling inventory file and has its name.

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
        hosts = {
            name: _host_data(run, name, host, known) for name, host in run.compiled.declaration.fleet.hosts.items()
        }
        if run.compiled.warnings:
            _say(run.compiled.warnings, declaration.sources)
    except DeclarationError as error:
        _say(error.problems, error.sources)
        raise InventoryError(f"{directory}: the declaration has {plural(len(error.problems), 'problem')}") from None
    except LabError as error:
        raise InventoryError(str(error)) from None
    explain_other_host_keys({data["ssh_hostname"]: name for name, data in hosts.items()}, shown_path(directory))
    found: Groups = {"fleet": list(hosts.items())}
    for name, host in run.compiled.declaration.fleet.hosts.items():
        if host.zone:
            found.setdefault(f"zone_{host.zone.replace('-', '_')}", []).append((name, hosts[name]))
    return found


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


def _known_hosts(run: Run) -> str | None:
    """The file with the SSH keys of hosts seen before; hosts of a lab are known in the lab."""
    fleet = run.compiled.declaration.fleet
    if fleet.lab or not any(host.ssh for host in run.saved.hosts.values()):
        return None
    return str(write_known_hosts(run.directory, fleet, run.saved))


def _host_data(run: Run, name: str, host: Host, known: str | None) -> dict[str, Any]:
    data: dict[str, Any] = {
        "ssh_hostname": host.address,
        "ssh_user": host.ssh.user,
        "ssh_port": host.ssh.port,
        "privnet_directory": str(run.directory),
        "ssh_paramiko_connect_kwargs": {"transport_factory": connection},
    }
    if host.ssh.user != "root":
        data["_sudo"] = True
    if run.compiled.declaration.fleet.lab:
        # A lab fleet lives in the lab only: whatever its addresses are, they are reached through the lab or not at all.
        return data | {"ssh_hostname": name, "ssh_config_file": str(ssh_config_of(run.directory))}
    if known and run.saved.hosts.get(name) and run.saved.hosts[name].ssh:
        # A host seen before is known by its key, and nobody else is let in under its name.
        data["ssh_known_hosts_file"] = known
        data["ssh_strict_host_key_checking"] = "yes"
    return data
