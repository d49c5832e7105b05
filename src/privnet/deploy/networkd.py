"""What the host's own files make systemd-networkd and udev do with devices, judged from their [Match]. Pure.

Only what a file says of devices counts: what it says of the host (Host=, Virtualization= …) is taken as true.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from privnet.deploy.changes.host import NETWORKD
from privnet.deploy.changes.mesh import INTERFACE
from privnet.deploy.state import HostState, SetupFile
from privnet.diagnostics import some
from privnet.plan.host import HostPlan
from privnet.render import BEFORE_OTHERS

NEEDED = (NETWORKD, "wg-quick@.service", "dbus.service", "dbus.socket")
"""Units of others without which nothing of ours runs, or can be asked."""
_NAMES = frozenset({"Name", "OriginalName"})
_OF_OTHERS = frozenset({"MACAddress", "PermanentMACAddress", "Path", "SSID", "BSSID", "WLANInterfaceType"})
"""Keys that no device of ours fits: each has a MAC of its own, and none has a path on a bus."""
_CONDITIONS = frozenset(
    {"Host", "Virtualization", "KernelCommandLine", "KernelVersion", "Credential", "Architecture", "Firmware"}
)
"""Keys about the host. A [Match] of these alone fits every device where they hold (networkd-network.c of systemd)."""
_TELLING = frozenset({"Type", "Kind", "Driver", "Property", *_NAMES, *_OF_OTHERS, *_CONDITIONS})
_CHANGES = re.compile(r"(?:Name|MACAddress|MTUBytes)=.+|MACAddressPolicy=random")


@dataclass(frozen=True, slots=True)
class _Device:
    name: str
    type: str
    kind: str


def _devices(plan: HostPlan, kernel_wireguard: bool) -> Iterator[_Device]:
    """Those of private networks on a host, each with what networkd calls its type (DEVTYPE) and its kind."""
    yield _Device(INTERFACE, *(("wireguard", "wireguard") if kernel_wireguard else ("none", "tun")))
    for overlay in plan.overlays:
        yield _Device(overlay.network.bridge, "bridge", "bridge")
        yield _Device(overlay.network.vxlan, "vxlan", "vxlan")
        yield from (_Device(port.name, "ether", "veth") for port in overlay.ports)


def obstacles(plan: HostPlan, state: HostState) -> Iterator[str]:
    """Files of others that would set up devices which are not theirs, and units that nobody can start."""
    for unit in sorted(state.masked.intersection(NEEDED)):
        yield f"its {unit} is masked, and private networks need it: `systemctl unmask {unit}` there, then run again"
    networkd = state.units.get(NETWORKD)
    running = networkd is not None and networkd.active == "active"
    if not running and (found := [file.path for file in state.setups if _sets_up_others(file, state.devices)]):
        # It is started before there is a rollback, so it must find nothing to do but what it is given later.
        yield (
            "its systemd-networkd is off, private networks need it, and once started it would set up devices of the "
            f"host by {some(found)}: "
            "that can cut the host off, and nothing would take it back. Move away what is not meant to be used "
            "(`mv FILE FILE.off`); or, if all of it is, `systemctl enable --now systemd-networkd` there, where you can "
            "look after it. Then run again"
        )
    own = [*_devices(plan, state.kernel_wireguard)]
    if found := [file.path for file in state.setups if _comes_first(file) and _fits(file, own)]:
        yield (
            f"networkd would set up devices of private networks by {some(found)}, which "
            f"{_them(found, 'comes', 'come')} before privnet's files ({BEFORE_OTHERS}privnet-…): at its next restart "
            f"they would lose their bridge. Give {_them(found, 'it a name that comes', 'them names that come')} later "
            "(`mv 01-all.network 50-all.network`), or a [Match] that leaves `pn*` and `privnet` out"
        )
    if found := [file.path for file in state.setups if _changes(file) and _fits(file, own)]:
        yield (
            f"udev would rename devices of private networks, or change their MAC or MTU, by {some(found)}: give "
            f"{_them(found, 'it', 'them')} a [Match] that leaves `pn*` and `privnet` out"
        )


def _sets_up_others(file: SetupFile, devices: Iterable[str]) -> bool:
    """Whether networkd would set up a device of the host by it, as far as names tell."""
    if not file.path.endswith(".network") or not file.match:
        return False
    names = [value for key, value in file.match if key in _NAMES]
    if not names or any("!" in value for value in names):
        # Chosen by something else than a name; what systemd ships so is for wireless devices.
        return not file.path.startswith("/usr/lib/")
    globs = " ".join(names).split()
    return any(fnmatchcase(device, glob) for device in devices for glob in globs)


def _comes_first(file: SetupFile) -> bool:
    return file.path.endswith(".network") and file.path.rpartition("/")[2] < f"{BEFORE_OTHERS}privnet-"


def _changes(file: SetupFile) -> bool:
    return file.path.endswith(".link") and any(map(_CHANGES.fullmatch, file.changes))


def _fits(file: SetupFile, devices: Iterable[_Device]) -> bool:
    """Whether it may fit a device of ours; an empty [Match] fits none (systemd.network(5))."""
    wanted: dict[str, str] = {}
    for key, value in file.match:
        # An empty value takes back what was said before.
        wanted[key] = f"{wanted.get(key, '')} {value}".strip() if value else ""
    telling = {key: value for key, value in wanted.items() if value and key in _TELLING}
    return bool(telling) and any(_fits_device(telling, device) for device in devices)


def _fits_device(wanted: Mapping[str, str], device: _Device) -> bool:
    found = {"Type": device.type, "Kind": device.kind, "Driver": device.kind} | dict.fromkeys(_NAMES, device.name)
    for key, value in wanted.items():
        if key in _OF_OTHERS:
            return False
        # What udev knows of a device (Property=) is not known here.
        if key in found and not _among(found[key], value):
            return False
    return True


def _among(word: str, globs: str) -> bool:
    """A list of globs; with `!` before it, of those that it must not be."""
    other = globs.startswith("!")
    return any(fnmatchcase(word, glob) for glob in globs.removeprefix("!").split()) != other


def _them(paths: list[str], one: str, several: str) -> str:
    return one if len(paths) == 1 else several
