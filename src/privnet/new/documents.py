"""The texts of new documents and entries. They are valid as they are written, and say what to put where."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from privnet.new.insert import Entry

INVENTORY = "from privnet.deploy.inventory import groups as _groups\n\nglobals().update(_groups())\n"
"""What pyinfra is given; the fleet's directory lies beside it and has its name."""

IGNORE = """\
# What a run leaves here that is of this machine alone.
/.privnet/
/.*.new
"""
ATTRIBUTES = """\
# The lock file has a checksum: git must not change its line ends.
/privnet.lock.yaml text eol=lf
/privnet.progress.json text eol=lf
"""


@dataclass(frozen=True, slots=True)
class Terms:
    """An acceptance of the terms of private networks."""

    accepted_by: str
    version: str
    accepted_on: str


def fresh(prefix: str) -> str:
    """A new identifier: ``ap-…`` or ``pn-…``."""
    return f"{prefix}{uuid.uuid4()}"


def plain(text: str) -> str:
    """A text as a YAML value: in quotes, with what would end them escaped."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _schema_line(kind: str, folder: Path) -> str:
    """The line by which an editor finds the schema, when there are schemas where one works."""
    schema = Path("schemas") / f"{kind}.schema.json"
    if not schema.exists():
        return ""
    return f"# yaml-language-server: $schema={os.path.relpath(schema.resolve(), folder.resolve())}\n"


def fleet(name: str, folder: Path, hosts: dict[str, str]) -> str:
    """``fleet.yaml`` of a fleet that begins; without hosts, one that is there to be replaced."""
    example = "" if hosts else "  # From the addresses kept for documentation: put your own.\n"
    some = hosts or {"host-1": "192.0.2.11"}
    lines = "".join(f"  {host}: {{address: {plain(address)}}}\n" for host, address in some.items())
    return f"""\
{_schema_line("fleet", folder)}# The fleet {name}: its hosts, and what holds for all of them.
# Fields that are not here have their defaults.
fleet: {name}

# The end of every container's name: 1.web.<application>.<network>.private-network.internal
domain: private-network.internal

policy:
  hds: refuse              # HDS applications have no access to private networks
  address_quarantine: 1h   # an address rests this long before another container gets it
  removal_guard: 10%       # a run that would remove more of the containers or hosts has to be told the number

hosts:
  # `address` is where SSH and WireGuard reach the host. Also: zone, mtu, endpoint: "192.0.2.1:51820",
  # ssh: {{user: deploy, port: 2222}}
{example}{lines}"""


def project(name: str, folder: Path, terms: Terms | None) -> str:
    """A project's file: with a private network when its terms were accepted, else with how to enable one."""
    head = f"{_schema_line('project', folder)}# One project: a group of applications with one owner.\nproject: {name}\n"
    if terms is None:
        network = f"""\
# Without a private network. To enable one, read and accept the terms, then record it while the project is empty:
# private_network:
#   id: {fresh("pn-")}
#   terms: {{accepted_by: NAME, accepted_on: YYYY-MM-DD, version: VERSION}}
"""
    else:
        accepted = f"accepted_by: {plain(terms.accepted_by)}, accepted_on: {terms.accepted_on}"
        network = f"""\
# All applications below are in this network: they reach each other on every port, and nobody else reaches them.
private_network:
  id: {fresh("pn-")}
  terms: {{{accepted}, version: {plain(terms.version)}}}
"""
    return f"{head}\n{network}\n# `privnet new application` adds one.\napplications: {{}}\n"


def application(name: str, hosts: list[str]) -> Entry:
    """An application with a fresh id; its ``web`` containers on some hosts, or none yet."""
    web = f"web: [{', '.join(hosts)}]"
    hint = "   # a host for each container: [HOST, HOST], or {count: 2, spread: host}"
    named = (f"name: {plain(name)}",) if name else ()
    block = (*named, "formation:", f"  {web}{'' if hosts else hint}")
    flow = ", ".join((*named, f"formation: {{{web}}}"))
    return Entry(fresh("ap-"), f"{{{flow}}}", block)


def host(name: str, address: str, zone: str) -> Entry:
    """A host of the fleet."""
    return Entry(name, f"{{address: {plain(address)}{f', zone: {plain(zone)}' if zone else ''}}}")
