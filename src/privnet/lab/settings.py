"""Names and directories: everything that a lab makes on this machine carries the lab's name."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from privnet.lab.errors import LabError

STATE_ROOT = Path("/var/lib/privnet-lab")
CACHE_ROOT = Path("/var/cache/privnet-lab")
RUN_ROOT = Path("/run/privnet-lab")
ENVIRONMENT = "PRIVNET_LAB"
DEFAULT_NAME = "lab"

OPERATOR = "operator"
OUTSIDER = "outsider"
FABRIC = "fabric"
RESERVED = (OPERATOR, OUTSIDER, FABRIC)

# Both become parts of paths, of namespace names and of a shell script.
_LAB_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MACHINE_NAME_LENGTH = 64
_INTERFACE_NAME_LENGTH = 15


@dataclass(frozen=True, slots=True)
class Settings:
    """Where one lab keeps its things and how they are called.

    `name` is the lab's name; two labs with different names share nothing but the cached root file systems.
    """

    name: str

    def __post_init__(self) -> None:
        if not _LAB_NAME.fullmatch(self.name):
            raise LabError(
                f"{self.name!r} cannot be the name of a lab: it becomes part of paths and namespace names",
                help="use 1 to 32 lower-case letters, digits and hyphens, for example `--name rehearsal`",
            )

    @classmethod
    def chosen(cls, name: str | None = None) -> Settings:
        """The lab called `name`, else the one named by PRIVNET_LAB, else `lab`."""
        return cls(name or os.environ.get(ENVIRONMENT) or DEFAULT_NAME)

    @property
    def state(self) -> Path:
        return STATE_ROOT / self.name

    @property
    def description(self) -> Path:
        """What this lab runs: inventory, hosts, underlay (JSON)."""
        return self.state / "lab.json"

    @property
    def ssh_config(self) -> Path:
        return self.state / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        return self.state / "known_hosts"

    @property
    def identity(self) -> Path:
        return self.state / "id_ed25519"

    @property
    def inventory(self) -> Path:
        """Where rehearsal copies of an inventory lie."""
        return self.state / "inventory"

    @property
    def lock(self) -> Path:
        """Held while the lab is changed. Outside the state directory, which `down` removes."""
        return RUN_ROOT / f"{self.name}.lock"

    def host_directory(self, host: str) -> Path:
        return self.state / "hosts" / host

    def namespace(self, who: str) -> str:
        """The network namespace of a host, or of `operator`, `outsider`, `fabric`.

        Dots keep lab and host apart: neither name may hold one.
        """
        return f"privnet-lab.{self.name}.{who}"

    def machine(self, host: str) -> str:
        return _shortened(f"{self.name}.{host}", _MACHINE_NAME_LENGTH)

    def scope(self, host: str) -> str:
        """The control group (below privnet-lab/) or systemd scope that holds a host's processes."""
        return f"privnet-lab.{self.name}.{host}"


def port_name(host: str) -> str:
    """The name of a host's port on the underlay bridge, at most 15 characters; never a word of ip(8), nor `lo`."""
    return _shortened(f"p-{host}", _INTERFACE_NAME_LENGTH)


def check_host_name(host: str) -> None:
    """Refuse a host name that the lab cannot use. Raises LabError."""
    if host in RESERVED:
        raise LabError(
            f"host {host!r}: the lab has a namespace of that name for itself",
            help="give the host another name in fleet.yaml",
        )
    if not _HOST_NAME.fullmatch(host):
        raise LabError(
            f"host {host!r}: the lab makes paths and namespaces of host names and cannot use this one",
            help="use lower-case letters, digits and hyphens, at most 63, in fleet.yaml",
        )


def lab_of(directory: Path) -> Settings:
    """The lab that a `lab: true` inventory directory is deployed to.

    A rehearsal copy lies in its lab's own directory; others go to the lab that PRIVNET_LAB names, or `lab`.
    """
    resolved = directory.resolve()
    if resolved.is_relative_to(STATE_ROOT):
        return Settings(resolved.relative_to(STATE_ROOT).parts[0])
    return Settings.chosen()


def ssh_config_of(directory: Path) -> Path:
    """The SSH configuration that reaches the hosts of a `lab: true` inventory directory.

    Raises LabError when that lab is not up or runs another inventory: without this file names would be
    looked up elsewhere, and with another lab's they would mean other hosts.
    """
    lab = lab_of(directory)
    up = f"privnet lab up {directory}" + ("" if lab.name == DEFAULT_NAME else f" --name {lab.name}")
    if not lab.ssh_config.is_file():
        raise LabError(f"{directory} lives in lab {lab.name!r}, which is not up", help=up)
    runs = Path(json.loads(lab.description.read_text())["inventory"])
    if runs != directory.resolve():
        raise LabError(
            f"{directory} is not what lab {lab.name!r} runs: that is {runs}",
            help=f"give it a lab of its own, `privnet lab up {directory} --name NAME`, and say NAME in {ENVIRONMENT}; "
            f"`privnet lab down --name {lab.name}` removes the hosts of the other fleet",
        )
    return lab.ssh_config


def running_labs() -> list[str]:
    """Names of the labs that have a state directory on this machine."""
    if not STATE_ROOT.is_dir():
        return []
    return sorted(entry.name for entry in STATE_ROOT.iterdir() if (entry / "lab.json").is_file())


def _shortened(name: str, length: int) -> str:
    if len(name) <= length:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{name[: length - 6].rstrip('.-')}{digest}"
