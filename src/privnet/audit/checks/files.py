"""Managed files: what a boot restores."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from privnet.audit.actual import Actual, File
from privnet.audit.finding import NOTHING, Deviation, Finding, about, compare
from privnet.diagnostics import plural
from privnet.model.identifiers import APPLICATION_ID, LABEL
from privnet.plan.host import HostPlan
from privnet.render import ETC, KEY, NETWORKD, UNITS, ManagedFile, render_host

OWN = (KEY, f"{ETC}/applied")
"""What a host has for itself: its key, and which lock file it was changed by last."""
CONFIG = "/etc/wireguard/privnet.conf"
_OURS = re.compile(
    rf"{ETC}/.*|{NETWORKD}/[0-9]+-privnet-.*|/etc/systemd/networkd[.]conf[.]d/privnet[.]conf"
    rf"|(?:{UNITS}|/run/systemd/system)/(?:privnet-|wg-quick@privnet[.]service).*"
    rf"|/etc/netns/[1-9][0-9]*[.]{LABEL}[.]{APPLICATION_ID}/resolv[.]conf"
)


def check(plan: HostPlan, actual: Actual) -> Finding:
    """Every managed file is there with its content, mode and owner, and no other file is in our places."""
    managed = {file.path: file for file in render_host(plan)}
    deviations = [*_keys(managed, actual)]
    for path, file in managed.items():
        deviations += about(f"file {path}", _managed(file, actual.files.get(path)))
    for path, found in sorted(actual.files.items()):
        if path in managed or path in OWN:
            continue
        if found.kind == "d":
            deviations.append(Deviation(f"{path} (mode and owner)", "d 755 0:0", f"d {found.mode} {found.owner}"))
        elif _OURS.fullmatch(path):
            deviations += about(f"file {path}", [Deviation(path, NOTHING, "a stray file")])
    if actual.odd_names:
        deviations.append(Deviation(ETC, "names of plain text", "a name with other characters"))
    return Finding(plural(len(managed), "file"), tuple(deviations))


def _managed(file: ManagedFile, found: File | None) -> list[Deviation]:
    if found is None:
        return [Deviation(file.path, "a link" if file.is_link else "a file", NOTHING)]
    if file.is_link:
        target = compare(
            file.path, f"link to {file.text}", f"link to {found.content}" if found.kind == "l" else "a file"
        )
        return target or compare(f"{file.path} (owner)", "0:0", found.owner)
    digest = hashlib.sha256(file.text.encode()).hexdigest()
    return [
        *compare(f"{file.path} (sha256)", digest, found.content if found.kind == "f" else "no regular file"),
        *compare(f"{file.path} (mode and owner)", f"{file.mode:o} 0:0", f"{found.mode} {found.owner}"),
    ]


def _keys(managed: dict[str, ManagedFile], actual: Actual) -> Iterator[Deviation]:
    """The key is the host's own and nobody else's to read; wg-quick's file holds it and the mesh."""
    for path in (KEY, CONFIG):
        found = actual.files.get(path)
        seen = f"{found.kind} {found.mode} {found.owner}" if found else NOTHING
        yield from compare(f"{path} (mode and owner)", "f 600 0:0", seen)
    mesh = hashlib.sha256(managed[f"{ETC}/mesh.conf"].text.encode()).hexdigest()
    yield from compare(f"{CONFIG} (sha256 without the key)", mesh, actual.config_digest or NOTHING)
    running = actual.wireguard.public_key if actual.wireguard else ""
    if running and actual.config_key != running:
        yield Deviation(f"public key of the key in {CONFIG}", running, actual.config_key or NOTHING)
