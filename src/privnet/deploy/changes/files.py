"""Managed files: which differ, and which should not be there."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from privnet.deploy.script import Script
from privnet.deploy.state import HostState
from privnet.model.identifiers import APPLICATION_ID, LABEL
from privnet.render import ETC, NETWORKD, UNITS, ManagedFile

_OWN_NETNS = re.compile(rf"/etc/netns/[1-9][0-9]*[.]{LABEL}[.]{APPLICATION_ID}/resolv[.]conf")
_LATER = re.compile(
    rf"{ETC}/(?:guard[.]nft|mesh[.]conf|record[.]json|neighbour-table[.]conf|overlay/[0-9]+[.](?:fdb|neighbours)|names/.*)"
)
"""Files that are written elsewhere: by features, each wave its own text of them, or with anything else."""
_UNITS = re.compile(rf"(?:{UNITS}|/run/systemd/system)/.*")
_OWN_UNIT = re.compile(r"privnet-[a-z0-9@.-]+|wg-quick@privnet[.]service")
_OWN_IN_NETWORKD = re.compile(rf"{NETWORKD}/[0-9]+-privnet-.*|/etc/systemd/networkd[.]conf[.]d/privnet[.]conf")


def differs(file: ManagedFile, state: HostState) -> bool:
    """Whether a managed file is not on the host exactly as it is to be."""
    found = state.files.get(file.path)
    if found is None or found.owner != "0:0" or found.mode != file.mode:
        return True
    if file.is_link:
        return found.kind != "l" or found.content != file.text
    return found.kind != "f" or found.content != hashlib.sha256(file.text.encode()).hexdigest()


def named_by_files(state: HostState, pattern: re.Pattern[str]) -> set[str]:
    """What files of ours on a host are about, by the one group of ``pattern``. Their units may run, or be started."""
    return {found[1] for path in state.files if (found := pattern.fullmatch(path))}


def units_that_run(state: HostState, pattern: re.Pattern[str]) -> set[str]:
    """The same of units that are loaded and not inactive."""
    running = (name for name, unit in state.units.items() if unit.active != "inactive")
    return {found[1] for name in running if (found := pattern.fullmatch(name))}


def add(managed: Iterable[ManagedFile], state: HostState, script: Script) -> None:
    """Write what differs, except for the files that only the features know when to write."""
    folders = [path for path, found in state.files.items() if found.kind == "d"]
    for path in sorted(path for path in folders if path == ETC or path.startswith(f"{ETC}/")):
        # Who may write into a directory of ours may replace what is in it.
        script.run("chown", "-h", "0:0", path, early=True)
        script.run("chmod", "0755", path, early=True)
    for unit in sorted(unit for unit in state.masked if _OWN_UNIT.fullmatch(unit)):
        script.run("systemctl", "unmask", "--quiet", unit, early=True)
        script.run("systemctl", "unmask", "--quiet", "--runtime", unit, early=True)
    for file in managed:
        if not _LATER.fullmatch(file.path) and differs(file, state):
            script.place(file)
    written = set(script.files)
    if any(_UNITS.fullmatch(path) for path in written) or any(unit.stale for unit in state.units.values()):
        script.run("systemctl", "daemon-reload")
    if "/etc/systemd/networkd.conf.d/privnet.conf" in written and "systemd-networkd.service" in state.units:
        # Only a start of networkd reads it (networkd.conf(5)); static configuration survives one.
        script.disturbs = True
        script.run("systemctl", "try-restart", "systemd-networkd.service")
    elif any(path.startswith(NETWORKD) for path in written):
        script.run("networkctl", "reload")


def retire(managed: Iterable[ManagedFile], state: HostState, script: Script) -> None:
    """Delete every file of ours that the plan does not have."""
    wanted = {file.path for file in managed}
    stray = {path for path, f in state.files.items() if f.kind != "d" and path not in wanted and _is_ours(path)}
    if state.odd_names:
        script.run("find", ETC, "-path", "*[! -~]*", "-delete")
    for path in sorted(stray):
        unit = path.removeprefix(f"{UNITS}/")
        if unit in state.units and state.units[unit].active != "inactive":
            script.end([unit], state.failed)
        script.remove(path)
    if any(path.startswith(NETWORKD) for path in stray):
        script.run("networkctl", "reload")
    if any(_UNITS.fullmatch(path) for path in stray):
        script.run("systemctl", "daemon-reload")


def _is_ours(path: str) -> bool:
    if path.startswith("/etc/netns/"):
        return bool(_OWN_NETNS.fullmatch(path))
    if _UNITS.fullmatch(path):
        unit = path.removeprefix(f"{UNITS}/").removeprefix("/run/systemd/system/")
        return unit.startswith(("privnet-", "wg-quick@privnet.service"))
    if path.startswith("/etc/systemd/"):
        return bool(_OWN_IN_NETWORKD.fullmatch(path))
    return path.startswith(f"{ETC}/")
