"""Every line by which our templates and programs set something is a control that somebody misses, or none, and why."""

from __future__ import annotations

import re
from pathlib import Path

from .attacks import ATTACKS
from .mutation import CONTROLS

REPOSITORY = Path(__file__).parents[2]
TEMPLATES, PROGRAMS = REPOSITORY / "templates", REPOSITORY / "src/privnet/host"

NO_CONTROL = {
    "resolver.conf: port": "what it is",
    "resolver.conf: local-ttl": "how long containers may keep a name",
    "resolver.conf: addn-hosts": "the names themselves",
    "resolver.conf: max-tcp-connections": "load of one's own: only containers of the network ask",
    "resolver.conf: server": "whom it asks about names outside: without it nobody",
    "forwarder.conf: port": "what it is",
    "forwarder.conf: server": "whom it asks: without it nobody",
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
    "mesh.conf: [Interface] Address": "what it is; peers take nothing from another one (`outer_spoof`)",
    "mesh.conf: [Interface] ListenPort": "what it is",
    "mesh.conf: [Interface] MTU": "what fits",
    "mesh.conf: [Interface] Table": "wg-quick need not look for a route for each peer: the mesh's own holds them all",
    "mesh.conf: [Interface] PostUp": "the program that sets `privnet/disable_ipv6` and greets the peers",
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
        "forwarder.conf: no-ident",
        "bridge.netdev: [Bridge] STP",
        "mesh.conf: [Interface] Table",
        "container.sh: $UPSTREAM/accept_ra",
        "container.sh: pnu0/addr_gen_mode",
        "mesh.sh: privnet/disable_ipv6",
        "overlay.sh: $1/disable_ipv6",
    }


def settings() -> set[str]:
    """dnsmasq's options, keys of networkd and wg-quick, and sysctls that programs write."""
    found = set()
    for name in ("resolver.conf", "forwarder.conf"):
        lines = (TEMPLATES / f"dnsmasq/{name}.j2").read_text().splitlines()
        found |= {f"{name}: {line.partition('=')[0]}" for line in lines if re.match("[a-z]", line)}
    for path in (*(TEMPLATES / "networkd").iterdir(), *(TEMPLATES / "wireguard").iterdir()):
        section = ""
        for line in path.read_text().splitlines():
            if line.startswith("["):
                section = line
            elif key := re.match(r"([A-Za-z0-9]+) ?=", line):
                found.add(f"{path.stem}: {section} {key[1]}")
    for path in PROGRAMS.iterdir():
        folder = ""
        for part in re.split(r"[;\n]|&&|\|\|", path.read_text()):
            if cd := re.search(r"\bcd /proc/sys/net/\w+/conf/(\S+)", part):
                folder = cd[1]
            if written := re.search(r"\becho \d+ > \"?((?:/proc/sys/[^\s\"']*)|\w+)", part):
                device, _, name = written[1].rpartition("/")
                found.add(f"{path.name}: {device.rpartition('/')[2] or folder}/{name}")
    return found
