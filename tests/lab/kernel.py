# ruff: noqa: E501
"""What a host is, as lines of text that are equal whenever the hosts are: kernel, units and files, without counters.

Asked with a program of its own: what the product says about a host is not what proves it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from privnet.lab import Lab

OWNER = "sh /etc/privnet/lib/guard.sh apply /dev/stdin"
"""Reads nft's commands. Nobody can change the guard's tables but the process that owns them."""


def as_owner(commands: str) -> str:
    """A shell command by which that process does something to the guard."""
    return f"echo {shlex.quote(commands)} | {OWNER}"


# What each of a host's own tools says; a host may have no Python.
_PROGRAM = r"""
export LC_ALL=C
section() { printf '##section %s\n' "$*"; }
section peers; wg show privnet dump 2> /dev/null | tail -n +2 # the first line has the host's key
section inet privnet; nft -s list table inet privnet 2> /dev/null
section bridge privnet; nft -s list table bridge privnet 2> /dev/null
section routes; ip -4 route show
section links; ip -d -j addr show; echo
section fdb; bridge fdb show
section neighbours; ip -4 neigh show nud permanent
for path in /run/netns/*; do
	[ -e "$path" ] || continue
	section "netns ${path##*/}"
	printf 'addr show dev pn0\nroute show\n' | nsenter --net="$path" ip -force -j -batch - 2> /dev/null
	echo
done
section units; systemctl list-units --all --plain --no-legend 'privnet-*' wg-quick@privnet.service
section enabled; systemctl list-unit-files --plain --no-legend 'privnet-*' wg-quick@privnet.service systemd-networkd.service
files() {
	find /etc/privnet ! -name wireguard.key ! -name applied "$@"
	find /etc/systemd/network /etc/systemd/networkd.conf.d /etc/systemd/system -path '*privnet*' "$@"
	find /etc/netns -name resolv.conf "$@"
}
section files; files ! -type d -printf '%p %m %U %G %l\n' 2> /dev/null
section digests; files -type f -print0 2> /dev/null | xargs -0r sha256sum 2> /dev/null
section config; sed '/^PrivateKey/d' /etc/wireguard/privnet.conf 2> /dev/null
section names; grep -s . /run/privnet/names.*
section left; ls -d /var/lib/privnet/armed /run/privnet/lease /etc/privnet/.stage.* 2> /dev/null
true
"""
_DEVICE = ("id", "local", "port", "learning", "proxy", "mcast_snooping", "stp_state", "ageing_time")
_PORT = ("state", "learning", "flood", "isolated", "guard", "hairpin", "neigh_suppress")


def dump(lab: Lab, *hosts: str) -> dict[str, list[str]]:
    """Each host's lines."""
    asked = hosts or lab.hosts
    with ThreadPoolExecutor() as pool:
        said = pool.map(lambda host: lab.exec(host, _PROGRAM, timeout=60).stdout, asked)
        return dict(zip(asked, map(_lines, said), strict=True))


def _lines(said: str) -> list[str]:
    sections = {}
    for part in said.split("##section ")[1:]:
        name, _, body = part.partition("\n")
        sections[name] = [line for line in body.splitlines() if line.strip()]
    peers = [line.split("\t") for line in sections["peers"]]
    units = [line.split() for line in sections["units"]]
    routes = [line for line in sections["routes"] if line.startswith("unreachable ") or " dev privnet " in f"{line} "]
    entries = [line for line in sections["fdb"] if re.search(r" dev pn[cx]", line) and re.search(" dst | static", line)]
    told = {
        "peer": [f"{key} {endpoint} {allowed} {keepalive}" for key, _, endpoint, allowed, *_, keepalive in peers],
        **{table: _sets(sections[table]) for table in ("inet privnet", "bridge privnet")},
        "route": routes,
        **_links(sections["links"]),
        "fdb": entries,
        "neighbour": [line for line in sections["neighbours"] if " dev pnx" in line],
        **{name: _namespace(lines) for name, lines in sections.items() if name.startswith("netns ")},
        "unit": [f"{unit} {now}" for unit, _, now, *_ in units if now in _LASTS and not _PASSES(f"{unit} {now}")],
        "enabled": [" ".join(line.split()[:2]) for line in sections["enabled"] if "privnet-rollback" not in line],
        "file": [*sections["files"], *sections["digests"]],
        "wg-quick": [hashlib.sha256("\n".join(sections["config"]).encode()).hexdigest()],
        "names": sections["names"],
        "left": sections["left"],
    }
    found = [f"{what}: {line}" for what, lines in told.items() for line in sorted(lines)]
    return [*found, *(name for name in sections if name.startswith("netns "))]


_LASTS = ("active", "failed")
# What is there for the time of a run, and what its socket starts when a name outside is asked for.
_PASSES = re.compile("privnet-(rollback|restore|forwarder@.*[.]service active)").match


def _sets(listing: list[str]) -> list[str]:
    """A table with each element of its sets on a line of its own: their order is no one's."""
    return " ".join(" ".join(listing).split()).replace(", ", ",\n").replace("} }", "}\n}").splitlines()


def _links(said: list[str]) -> dict[str, list[str]]:
    links = {link["ifname"]: link for link in json.loads("".join(said)) if "ifname" in link}
    mesh = [f"mtu {links['privnet']['mtu']}", *_addresses(links["privnet"])] if "privnet" in links else []
    ours = {name: link for name, link in links.items() if name.startswith(("pnb", "pnx", "pnc"))}
    addresses = [f"{name} {address}" for name, link in ours.items() for address in _addresses(link)]
    return {"mesh": mesh, "link": [_link(name, link) for name, link in ours.items()], "address": addresses}


def _link(name: str, link: dict[str, Any]) -> str:
    info = link.get("linkinfo", {})
    device, port = info.get("info_data", {}), info.get("info_slave_data", {})
    keep = {key: device.get(key) for key in _DEVICE} | {key: port.get(key) for key in _PORT}
    up = "UP" in link["flags"]
    return f"{name} {info.get('info_kind')} {link['mtu']} {link['address']} {link.get('master')} {up} {keep}"


def _addresses(link: dict[str, Any]) -> list[str]:
    return [f"{one['local']}/{one['prefixlen']} {one['scope']}" for one in link.get("addr_info", ())]


def _namespace(said: list[str]) -> list[str]:
    """What its own end of a port is, and its routes."""
    found = []
    for one in (one for line in said for one in json.loads(line) if one):
        found += [f"{one['address']} {one['mtu']}" if "mtu" in one else json.dumps(one), *_addresses(one)]
    return found


def until_rested(lab: Lab, *hosts: str, within: float) -> None:
    """Wait until no host has anything to take back any more. AssertionError after so many seconds."""
    begun = asked = time.monotonic()
    left = "ls -d /var/lib/privnet/armed /run/privnet/lease /etc/privnet/.stage.* 2> /dev/null || true"
    while any(lab.exec(host, left).stdout for host in hosts or lab.hosts):
        assert asked - begun < within, "a host has not rolled back"
        time.sleep(0.5)
        asked = time.monotonic()
    print(f"back {asked - begun:.1f} s later")


def difference(before: dict[str, list[str]], after: dict[str, list[str]]) -> str:
    """Empty when both are equal; otherwise what a person needs to see."""
    lines = []
    for host in sorted({*before, *after}):
        changed = difflib.unified_diff(before.get(host, []), after.get(host, []), "before", "after", n=0, lineterm="")
        lines += [f"{host}: {line}" for line in changed]
    return "\n".join(lines)
