"""What each unit's sandbox leaves open, said by `systemd-analyze security`; and that each of its options is noticed.

This is the mutation of the units' options: each is taken out of the rendered unit alone, and what is open is then not
what stands here. The `systemd-analyze` of each release that a host may run says it. Options that only let something in
(a system call, a path to write, a device) are missed by the unit itself when they are gone: it does not start, and
every test on hosts notices.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from privnet.lab import archive, image
from privnet.plan.names import Outside
from privnet.render import UNITS, render_forwarder, static_files

pytestmark = pytest.mark.hostless

WG_QUICK = "wg-quick@privnet.service"
NETLINK = {"RestrictAddressFamilies_AF_NETLINK", "RestrictAddressFamilies_AF_UNIX"}
INTERNET = {*NETLINK, "RestrictAddressFamilies_AF_INET_INET6", "IPAddressDeny"}
ROOT = {"UserOrDynamicUser", "RootDirectoryOrRootImage"}
EVERYWHERE = {"DeviceAllow", "PrivateMounts", "PrivateUsers"}
NETWORK = {"PrivateNetwork", "CapabilityBoundingSet_CAP_NET_ADMIN", "ProcSubset", *ROOT, *NETLINK, *EVERYWHERE}
RESOLVER = {
    "AmbientCapabilities", "CapabilityBoundingSet_CAP_NET_BIND_SERVICE_BROADCAST_RAW)", "PrivateNetwork",
    "RootDirectoryOrRootImage", *INTERNET, *EVERYWHERE,
}  # fmt: skip
OPEN = {
    "privnet-guard.service": NETWORK,
    "privnet-overlay@.service": {*NETWORK, "ProtectKernelTunables"},
    "privnet-container@.service": {
        *NETWORK, "ProtectKernelTunables", "CapabilityBoundingSet_CAP_SYS_ADMIN", "RestrictNamespaces_net",
    },
    # It sees the host's mounts: that is what it is for.
    "privnet-namespace@.service": {
        "CapabilityBoundingSet_CAP_SYS_ADMIN", "SystemCallFilter_mount", "ProcSubset", "PrivateDevices", "PrivateTmp",
        "ProtectControlGroups", "ProtectHome", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables",
        "ProtectProc", "ProtectSystem", "IPAddressDeny", *ROOT, *EVERYWHERE,
    },
    # It puts files back as they were, their owners among it.
    "privnet-restore.service": {
        "CapabilityBoundingSet_CAP_CHOWN_FSETID_SETFCAP", "CapabilityBoundingSet_CAP_DAC_FOWNER_IPC_OWNER",
        "SystemCallFilter_privileged", "ProcSubset", *ROOT, *NETLINK, *EVERYWHERE,
    },
    "privnet-dns@.service": RESOLVER,
    "privnet-forwarder@.service": {
        "PrivateNetwork", "RootDirectoryOrRootImage", "RestrictAddressFamilies_AF_INET_INET6", "IPAddressDeny",
        *EVERYWHERE,
    },
    WG_QUICK: {*NETWORK, *INTERNET, "ProtectKernelTunables", "PrivateDevices"},
}  # fmt: skip
"""By unit, what is not closed, in the words of `systemd-analyze security --json`."""

BETTER_THAN = {unit: 3.2 if unit.startswith("privnet-namespace@") else 3.0 for unit in OPEN}
NO_SANDBOX = re.compile(
    "Type|Environment|Exec[A-Za-z]+|OOMScoreAdjust|Restart|RestartSec|RemainAfterExit|RuntimeDirectory.*|NetworkNamespacePath|LimitNOFILE"
)
LETS_IN = {
    "ReadWritePaths=/run", "ReadWritePaths=-/run/privnet", "ReadWritePaths=/etc /var/lib/privnet /run",
    "DeviceAllow=/dev/net/tun rw", "SystemCallErrorNumber=EPERM", "SystemCallFilter=~setfsuid:EPERM setfsgid:EPERM",
    "PrivateMounts=no",
}  # fmt: skip


def units() -> dict[str, str]:
    """The text of each unit file; wg-quick's is Debian's with a drop-in."""
    every = (*static_files(), *render_forwarder(Outside(("192.0.2.1", "2001:db8::1"))))
    files = {file.path.removeprefix(f"{UNITS}/"): file.text for file in every}
    own = {path: text for path, text in files.items() if path.startswith("privnet-") and path.endswith(".service")}
    drop_in = files[f"{WG_QUICK}.d/privnet.conf"]
    own = {path: text for path, text in own.items() if "/" not in path}
    return {**own, WG_QUICK: f"[Service]\nExecStart=/usr/bin/wg-quick up %i\n{drop_in}"}


def options(text: str) -> Iterator[str]:
    """The lines that make a unit's sandbox."""
    for section in re.split(r"^(?=\[)", text, flags=re.MULTILINE):
        for line in section.splitlines() if section.startswith("[Service]") else ():
            key = line.partition("=")[0]
            if line[:1] not in ("", "#", "[") and not NO_SANDBOX.fullmatch(key) and line not in LETS_IN:
                yield line


CLOSED_BY_ITSELF = {"bookworm": set[str](), "trixie": {"PrivateMounts"}}
"""What other options imply there (since systemd 254), unless a unit says that it must not be."""

each_release = pytest.mark.parametrize("release", archive.RELEASES)
each_unit = pytest.mark.parametrize("unit", OPEN)


@functools.cache
def root(release: str) -> Path:
    """The root file system of a host; tests write nothing there."""
    return image.ready(image.full(release), print)


_ANALYZE = """
mount --bind "$1" "$2/mnt" && mount -t proc proc "$2/proc" && exec chroot "$2" sh -c 'cd /mnt && exec "$@"' - \
    systemd-analyze security --offline=true --no-pager "$3" "$4"
"""


def analyzed(release: str, directory: Path, unit: str, text: str, option: str = "--json=off") -> str:
    """What the `systemd-analyze security` of a release says of a unit file."""
    # Of a unit of the early boot it says that file systems are not its business; ours has a sandbox all the same.
    (directory / unit).write_text(text.replace("DefaultDependencies=no\n", ""))
    command = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        _ANALYZE,
        "analyze",
        str(directory),
        str(root(release)),
        option,
        f"./{unit}",
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def left_open(release: str, directory: Path, unit: str, text: str) -> dict[str, str]:
    """What is not closed, and how far."""
    listed = json.loads(analyzed(release, directory, unit, text, "--json=short"))
    return {item["json_field"]: f"{item['exposure']} {item['description']}" for item in listed if item["exposure"]}


def test_each_unit_of_ours_is_here() -> None:
    assert units().keys() == OPEN.keys()


@each_release
@each_unit
def test_nothing_else_is_open(release: str, unit: str, tmp_path: Path) -> None:
    expected = OPEN[unit] if "PrivateMounts=no\n" in units()[unit] else OPEN[unit] - CLOSED_BY_ITSELF[release]
    assert left_open(release, tmp_path, unit, units()[unit]).keys() == expected
    summary = analyzed(release, tmp_path, unit, units()[unit])
    found = re.search(r"exposure level for \S+ (\d+[.]\d)", summary)
    assert found is not None and float(found[1]) < BETTER_THAN[unit], summary


@each_release
@each_unit
def test_each_option_that_is_missing_is_noticed(release: str, unit: str, tmp_path: Path) -> None:
    text = units()[unit]
    whole = left_open(release, tmp_path, unit, text)
    unnoticed = [
        option
        for option in options(text)
        if left_open(release, tmp_path, unit, text.replace(f"{option}\n", "", 1)) == whole
    ]
    assert unnoticed == [], "these options change nothing that this test sees: they are to go, or to be tested"


OUTSIDE = {"privnet-forwarder@.service": ["ExecStopPost=+/bin/sleep 0.2"]}
"""It waits and reads nothing, also where no sandbox can be made (tests/lab/test_outside.py)."""


@each_unit
def test_no_command_is_outside_its_sandbox(unit: str) -> None:
    """By a `+` before it (systemd.service(5), "Command lines"), which `systemd-analyze` does not count."""
    commands = re.findall("^Exec[A-Za-z]+=.*", units()[unit], re.MULTILINE)
    prefixed = [command for command in commands if re.match(r"\w+=[-@:!]*([+]|!!)", command)]
    assert commands and prefixed == OUTSIDE.get(unit, [])
