"""Every line by which our templates and programs set something is a control that somebody misses, or none, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from privnet.deploy import state

from .attacks import ATTACKS
from .mutation import CONTROLS
from .test_sandboxes import NO_SANDBOX

pytestmark = pytest.mark.hostless

REPOSITORY = Path(__file__).parents[2]
TEMPLATES, PROGRAMS = REPOSITORY / "templates", REPOSITORY / "src/privnet/host"
ORDERED = ("After", "Before", "Wants", "Requires", "BindsTo", "PartOf", "Conflicts")
"""Each unit that such a line names is a setting of its own."""


def of_units(key: str, why: str, *units: str) -> dict[str, str]:
    """A line that several unit files have for the same reason."""
    return {f"{unit}: {key}": why for unit in units}


GUARD, OVERLAY, PORT, NAMESPACE = (
    f"privnet-{name}.service" for name in ("guard", "overlay@", "container@", "namespace@")
)
RESOLVER, FORWARDER, RESTORE = (f"privnet-{name}.service" for name in ("dns@", "forwarder@", "restore"))
SOCKET = "privnet-forwarder@.socket"
RESOLVERS_PORT, MESH, TARGET = "privnet-dns-port.conf", "wg-quick.conf", "privnet-networks.target"
SERVICES = (GUARD, OVERLAY, PORT, NAMESPACE, RESOLVER, FORWARDER, RESTORE)

UNITS_LINES = {
    **of_units("[Unit] Description", "for people", *SERVICES, SOCKET, TARGET),
    **of_units("[Service] Type", "when it counts as started", *SERVICES, MESH),
    **of_units("[Service] RemainAfterExit", "it counts as started until it is stopped", OVERLAY, PORT, NAMESPACE),
    **of_units("[Service] ExecStart", "what it is", *SERVICES),
    **of_units("[Service] ExecReload", "how a run changes it; tests/lab would miss it", GUARD, OVERLAY, PORT, RESOLVER),
    **of_units("[Service] ExecStop", "how it ends; tests/lab would miss it", OVERLAY, PORT, NAMESPACE),
    **of_units("[Service] ExecStartPost", "notes for a run what it has read", RESOLVER),
    f"{MESH}: [Service] ExecStartPost": "the program that sets `privnet/disable_ipv6` and greets the peers",
    **of_units("[Service] RestartSec", "how soon: the tests that kill it measure", GUARD, RESOLVER, MESH),
    **of_units("[Service] LimitNOFILE", "load of one's own", RESOLVER),
    **of_units("[Unit] DefaultDependencies", "the default ones would be a circle", GUARD, RESTORE, SOCKET),
    **of_units("[Unit] After=local-fs.target", "its files are there", GUARD, RESTORE),
    **of_units("[Unit] Before=shutdown.target", "it ends before the machine does", GUARD, RESTORE, SOCKET),
    **of_units("[Unit] Conflicts=shutdown.target", "it ends before the machine does", GUARD, RESTORE, SOCKET),
    **of_units("[Install] WantedBy", "that a boot starts it: tests/lab reboots", GUARD, RESTORE, TARGET),
    **of_units("[Unit] After=systemd-networkd.service", "its program waits for what networkd makes", OVERLAY, PORT),
    **of_units("[Unit] Wants=systemd-networkd.service", "without it there are no devices", OVERLAY, PORT, TARGET),
    **of_units("[Unit] Wants=privnet-guard.service", "the boot wants it by itself; overlays need it", PORT, TARGET),
    **of_units("[Unit] After=privnet-guard.service", "says no more than the units that it wants", TARGET),
    f"{PORT}: [Unit] After=privnet-guard.service": "spares it a moment: the guard alone brings ports up (container.sh)",
    **of_units("[Unit] After=wg-quick@privnet.service", "says no more than the units that it wants", TARGET),
    **of_units("[Unit] Wants=wg-quick@privnet.service", "without it there is no mesh after a boot", TARGET),
    f"{GUARD}: [Unit] After=systemd-sysctl.service": "nothing of it is read: the host's own settings come first",
    f"{GUARD}: [Service] ExecStartPre": "makes what it hears; without it there is no guard",
    f"{GUARD}: [Service] ExecStartPost": "loads the rules; without it there is no guard",
    f"{GUARD}: [Service] RuntimeDirectory": "where it hears; without it there is no guard",
    f"{GUARD}: [Service] OOMScoreAdjust": "the machines that test grant it to nobody (docs/security.md)",
    f"{PORT}: [Unit] After=privnet-namespace@%i.service": "without its namespace there is no port",
    f"{PORT}: [Unit] Requires=privnet-namespace@%i.service": "without its namespace there is no port",
    f"{NAMESPACE}: [Service] Environment": "on Debian 13 there is no namespace without it (test_releases.py)",
    f"{NAMESPACE}: [Unit] PartOf=privnet-container@%i.service": "it ends with its port",
    f"{RESOLVERS_PORT}: [Unit] Requires=privnet-container@PORT.service": "without its namespace there is no resolver",
    f"{RESOLVERS_PORT}: [Unit] After=privnet-container@PORT.service": "without its namespace there is no resolver",
    f"{FORWARDER}: [Unit] Requires=privnet-forwarder@%i.socket": "it ends with its sockets; tests/lab would miss it",
    f"{FORWARDER}: [Service] ExecStopPost": "how often one that cannot run is tried",
    f"{SOCKET}: [Socket] ListenDatagram": "where it hears: without it no name outside is answered",
    f"{SOCKET}: [Socket] ListenStream": "the same over TCP; tests/lab and the audit would miss it",
    f"{RESTORE}: [Unit] RequiresMountsFor": "what it puts back is there",
    f"{RESTORE}: [Unit] ConditionPathIsDirectory": "there is nothing to be put back",
    **{
        f"{RESTORE}: [Unit] Before={unit}": "files are put back before somebody reads them: tests/lab reboots"
        for unit in ("sysinit.target", GUARD, "network-pre.target", "systemd-networkd.service")
    },
}
BRIDGE_FLAGS = {
    f"{program}: bridge {flag}": "so on a new device; put back when somebody has changed it (tests/lab)"
    for program, flags in (
        ("container.sh", state.PORT.keys() - {"state", "learning", "flood"}),
        ("overlay.sh", (state.PORT.keys() - {"state", "learning"}) | state.BRIDGE.keys()),
    )
    for flag in flags
}

NO_CONTROL = {
    **UNITS_LINES,
    **BRIDGE_FLAGS,
    "resolver.conf: port": "what it is",
    "resolver.conf: local-ttl": "how long containers may keep a name",
    "resolver.conf: addn-hosts": "the names themselves",
    "resolver.conf: max-tcp-connections": "load of one's own: only containers of the network ask",
    "resolver.conf: rebind-domain-ok": "lets in what `dns.internal` says; tests/lab would miss it",
    "resolver.conf: server": "whom it asks about names outside: without it nobody",
    "bridge.netdev: [NetDev] Name": "what it is",
    "bridge.netdev: [NetDev] Kind": "what it is",
    "bridge.netdev: [NetDev] MACAddress": "the same on all hosts and after each boot, which no rule relies on",
    "bridge.network: [Link] MTUBytes": "what fits; overlay.sh sets it too",
    "bridge.network: [Link] RequiredForOnline": "the boot does not wait for a bridge",
    "bridge.network: [Network] ConfigureWithoutCarrier": "networkd is done with a bridge that has no port yet",
    "bridge.network: [Network] IgnoreCarrierLoss": "networkd is done with a bridge that has no port any more",
    "bridge.network: [Network] IPv6AcceptRA": "says it too: without a link-local address networkd takes none",
    "bridge.network: [Network] LLMNR": "systemd-resolved's, which speaks from a link's addresses: there are none",
    "bridge.network: [Network] MulticastDNS": "the same",
    "bridge.network: [Network] LLDP": "what networkd would hear; the guard's port rule drops it (`container_frames`)",
    "networkd.conf: [Network] ManageForeignRoutingPolicyRules": "keeps what other programs of the host have made",
    "networkd.conf: [Network] ManageForeignRoutes": "the same",
    "vxlan.netdev: [NetDev] Name": "what it is",
    "vxlan.netdev: [NetDev] Kind": "what it is",
    "vxlan.netdev: [NetDev] MACAddress": "nobody speaks to it",
    "vxlan.netdev: [NetDev] MTUBytes": "what fits; overlay.sh sets it too",
    "vxlan.netdev: [VXLAN] VNI": "what it is",
    "vxlan.netdev: [VXLAN] Local": "the address that it sends from; who is heard is the guard's",
    "vxlan.netdev: [VXLAN] DestinationPort": "what it is",
    "vxlan.netdev: [VXLAN] Independent": "it is bound to no other device",
    "wg-quick.conf: [Service] ExecStart": "calls wg-quick, or takes over an interface that is there (tests/lab)",
    "mesh.conf: [Interface] Address": "what it is; peers take nothing from another one (`outer_spoof`)",
    "mesh.conf: [Interface] ListenPort": "what it is",
    "mesh.conf: [Interface] MTU": "what fits",
    "mesh.conf: [Interface] Table": "wg-quick need not look for a route for each peer: the mesh's own holds them all",
    "peer.conf: [Peer] PublicKey": "who it is: without it there is no peer",
    "peer.conf: [Peer] Endpoint": "where it is; who else may send is the guard's (`roaming`)",
    "peer.conf: [Peer] PersistentKeepalive": "says what is so without it",
}
"""What no attack would miss, and why."""


def test_every_attack_can_fail() -> None:
    """There is a control without which it notices."""
    noticing = {attack.__name__ for control in CONTROLS.values() for attack in control.noticed_by}
    assert ATTACKS.keys() - noticing == set()


def test_every_setting_is_a_control_or_known_to_be_none() -> None:
    controls = {setting for control in CONTROLS.values() for setting in control.settings}
    assert controls & NO_CONTROL.keys() == set()
    found = settings()
    assert found - controls - NO_CONTROL.keys() == set(), "a control without an attack that misses it?"
    assert controls | NO_CONTROL.keys() == found, "these are set no more"


def test_settings_are_found() -> None:
    """The twin: one of each kind."""
    assert settings() >= {
        "resolver.conf: no-ident",
        "bridge.netdev: [Bridge] STP",
        "mesh.conf: [Interface] Table",
        "container.sh: pn0/disable_ipv6",
        "privnet-forwarder@.socket: [Socket] BindToDevice",
        "mesh.sh: privnet/disable_ipv6",
        "overlay.sh: $1/disable_ipv6",
        "overlay.sh: bridge learning",
        "container.sh: bridge hairpin",
        "privnet-guard.service: [Unit] Before=wg-quick@privnet.service",
        "privnet-guard.service: [Service] OOMScoreAdjust",
        "privnet-networks.target: [Install] WantedBy",
        "wg-quick.conf: [Service] Restart",
    }
    assert "privnet-guard.service: [Service] PrivateTmp" not in settings(), "that is test_sandboxes.py's"


def settings() -> set[str]:
    """dnsmasq's options, keys of networkd and wg-quick, lines of our units that are not their sandbox (that is
    test_sandboxes.py's), and sysctls and a bridge port's flags that programs set."""
    found = set(_of_units())
    lines = (TEMPLATES / "dnsmasq/resolver.conf.j2").read_text().splitlines()
    found |= {f"resolver.conf: {line.partition('=')[0]}" for line in lines if re.match("[a-z]", line)}
    for path in (*(TEMPLATES / "networkd").iterdir(), *(TEMPLATES / "wireguard").iterdir()):
        section = ""
        for line in path.read_text().splitlines():
            if line.startswith("["):
                section = line
            elif key := re.match(r"([A-Za-z0-9]+) ?=", line):
                found.add(f"{path.stem}: {section} {key[1]}")
    for path in PROGRAMS.iterdir():
        for flags in re.findall(r"\btype bridge(?:_slave)? (.*)", path.read_text().replace("\\\n", "")):
            found |= {f"{path.name}: bridge {flag}" for flag in flags.split()[::2]}
        folder = ""
        for part in re.split(r"[;\n]|&&|\|\|", path.read_text()):
            if cd := re.search(r"\bcd /proc/sys/net/\w+/conf/(\S+)", part):
                folder = cd[1]
            if written := re.search(r"\becho \d+ > \"?((?:/proc/sys/[^\s\"']*)|\w+)", part):
                device, _, name = written[1].rpartition("/")
                found.add(f"{path.name}: {device.rpartition('/')[2] or folder}/{name}")
    return found


def _of_units() -> Iterator[str]:
    for path in (TEMPLATES / "systemd").iterdir():
        section = ""
        for line in path.read_text().replace("{{ port }}", "PORT").splitlines():
            key, _, value = line.partition("=")
            if line.startswith("["):
                section = line
            if line[:1] in ("", "#", "[", "{") or (section == "[Service]" and not NO_SANDBOX.fullmatch(key)):
                continue
            if key in ORDERED:
                yield from (f"{path.stem}: {section} {key}={unit}" for unit in value.split())
            else:
                yield f"{path.stem}: {section} {key}"
