"""Managed files: which differ, and which should not be there."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from privnet.deploy.script import Script
from privnet.deploy.state import HostState
from privnet.model.identifiers import APPLICATION_ID, LABEL
from privnet.render import ETC, NETWORKD, TARGET, UNITS, ManagedFile

_OWN_NETNS = re.compile(rf"/etc/netns/[1-9][0-9]*[.]{LABEL}[.]{APPLICATION_ID}/resolv[.]conf")
_LATER = re.compile(rf"{ETC}/(?:guard[.]nft|mesh[.]conf|overlay/[0-9]+[.](?:fdb|neighbours)|names/.*)")
"""Files that the features write themselves, each wave its own text of them."""
_UNITS = re.compile(rf"{UNITS}/.*")


def differs(file: ManagedFile, state: HostState) -> bool:
    """Whether a managed file is not on the host exactly as it is to be."""
    found = state.files.get(file.path)
    if found is None or found.owner != "0:0" or found.mode != file.mode:
        return True
    if file.is_link:
        return found.kind != "l" or found.content != file.text
    return found.kind != "f" or found.content != hashlib.sha256(file.text.encode()).hexdigest()


def add(managed: Iterable[ManagedFile], state: HostState, script: Script) -> None:
    """Write what differs, except for the files that only the features know when to write."""
    for file in managed:
        if not _LATER.fullmatch(file.path) and differs(file, state):
            script.place(file)
    written = set(script.files)
    if any(_UNITS.fullmatch(path) for path in written) or any(unit.stale for unit in state.units.values()):
        script.run("systemctl", "daemon-reload")
    if "/etc/systemd/networkd.conf.d/privnet.conf" in written and "systemd-networkd.service" in state.units:
        # Only a start of networkd reads it (networkd.conf(5)); static configuration survives one.
        script.run("systemctl", "try-restart", "systemd-networkd.service")
    elif any(path.startswith(NETWORKD) for path in written):
        script.run("networkctl", "reload")


def retire(managed: Iterable[ManagedFile], state: HostState, script: Script) -> None:
    """Delete every file of ours that the plan does not have."""
    wanted = {file.path for file in managed} | {f"{ETC}/wireguard.key"}
    stray = {path for path in state.files if path not in wanted and _is_ours(path)}
    for path in stray:
        script.remove(path)
    if any(path.startswith(NETWORKD) for path in stray):
        script.run("networkctl", "reload")
    if any(_UNITS.fullmatch(path) for path in stray):
        script.run("systemctl", "daemon-reload")


def _is_ours(path: str) -> bool:
    if path.startswith("/etc/netns/"):
        return bool(_OWN_NETNS.fullmatch(path))
    if path.startswith(f"{UNITS}/"):
        own = (f"{UNITS}/privnet-", f"{UNITS}/{TARGET}.wants/", f"{UNITS}/wg-quick@privnet.service.d/privnet")
        return path.startswith(own)
    if path.startswith("/etc/systemd/"):
        name = path.rpartition("/")[2]
        return name == "privnet.conf" or name.startswith(("05-privnet-", "60-privnet-"))
    return path.startswith(f"{ETC}/")
