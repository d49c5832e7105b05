"""Which kind of lab host a host is: its directory tells."""

from __future__ import annotations

from typing import Final

from privnet.lab.fleet import LabHost
from privnet.lab.host import Host
from privnet.lab.nspawn import NspawnHost
from privnet.lab.qemu import Machine
from privnet.lab.settings import Settings

KINDS: Final[dict[str, type[Host]]] = {kind.kind: kind for kind in (NspawnHost, Machine)}


def host_of(settings: Settings, host: LabHost) -> Host:
    """The host as its disk says; one without a disk is none yet."""
    record = settings.host_directory(host.name) / "kind"
    kind = record.read_text().strip() if record.is_file() else NspawnHost.kind
    return KINDS[kind](settings, host)
