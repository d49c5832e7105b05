# ruff: noqa: E501
"""What a host is, as lines of text that are equal whenever the hosts are: kernel, units and files, without counters.

Asked with a program of its own: what the product says about a host is not what proves it.
"""

from __future__ import annotations

import difflib
import shlex
import time

from privnet.lab import Lab

OWNER = "sh /etc/privnet/lib/guard.sh apply /dev/stdin"
"""Reads nft's commands. Nobody can change the guard's tables but the process that owns them."""


def as_owner(commands: str) -> str:
    """A shell command by which that process does something to the guard."""
    return f"echo {shlex.quote(commands)} | {OWNER}"


_PROGRAM = r"""
import ctypes, hashlib, json, os, re, subprocess
from pathlib import Path

os.environ["LC_ALL"] = "C"

def run(*words, told=None):
    return subprocess.run(words, capture_output=True, text=True, input=told).stdout

def tell(what, lines):
    for line in sorted(lines):
        print(f"{what}: {line}")

def lines_of(path):
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        return []

def addresses(link):
    return [f"{one['local']}/{one['prefixlen']} {one['scope']}" for one in link.get("addr_info", ())]

peers = [line.split("\t") for line in run("wg", "show", "privnet", "dump").splitlines()[1:]]
tell("peer", [f"{key} {endpoint} {allowed} {keepalive}" for key, _, endpoint, allowed, _, _, _, keepalive in peers])
for table in ("inet privnet", "bridge privnet"):
    text = " ".join(run("nft", "-s", "list", "table", *table.split()).split())
    tell(table, text.replace(", ", ",\n").replace("} }", "}\n}").splitlines())
routes = run("ip", "-4", "route", "show").splitlines()
tell("route", [route for route in routes if route.startswith("unreachable ") or " dev privnet " in f"{route} "])

links = [link for link in json.loads(run("ip", "-d", "-j", "addr", "show")) if link.get("ifname")]
data_keys = ("id", "local", "port", "learning", "proxy", "mcast_snooping", "stp_state")
port_keys = ("state", "learning", "flood", "isolated", "guard", "hairpin", "neigh_suppress")
for link in sorted(links, key=lambda link: link["ifname"]):
    name = link["ifname"]
    if name == "privnet":
        tell("mesh", [f"mtu {link['mtu']}", *addresses(link)])
    if not name.startswith(("pnb", "pnx", "pnc", "pnu")):
        continue
    info = link.get("linkinfo", {})
    data, port = info.get("info_data", {}), info.get("info_slave_data", {})
    keep = {k: data.get(k) for k in data_keys} | {k: port.get(k) for k in port_keys}
    print("link:", name, info.get("info_kind"), link["mtu"], link["address"], link.get("master"), "UP" in link["flags"], keep)
    tell("address", [f"{name} {address}" for address in addresses(link)])
entries = run("bridge", "fdb", "show").splitlines()
tell("fdb", [e for e in entries if re.search(r" dev pn[cx]", e) and (" dst " in e or " static" in e)])
neighbours = run("ip", "-4", "neigh", "show", "nud", "permanent").splitlines()
tell("neighbour", [line for line in neighbours if " dev pnx" in line])

libc, own = ctypes.CDLL(None), os.open("/proc/self/ns/net", os.O_RDONLY)
for path in sorted(Path("/run/netns").glob("*")):
    there = os.open(path, os.O_RDONLY)
    found = []
    if libc.setns(there, 0x40000000) == 0:  # CLONE_NEWNET; it fails where a file is a mount point of nothing
        shown = run("ip", "-force", "-j", "-batch", "-", told="addr show dev pn0\nroute show\n").splitlines()
        for one in (one for line in shown if line.strip() for one in json.loads(line)):
            text = f"{one['address']} {one['mtu']}" if "mtu" in one else json.dumps(one, sort_keys=True)
            found += [text, *addresses(one)]
        libc.setns(own, 0x40000000)
    os.close(there)
    tell(f"netns {path.name}", found)
    print(f"netns {path.name}")

units = run("systemctl", "list-units", "--all", "--plain", "--no-legend", "privnet-*", "wg-quick@privnet.service")
now = [(words[0], words[2]) for words in map(str.split, units.splitlines()) if words[2] in ("active", "failed")]
tell("unit", [f"{unit} {state}" for unit, state in now if not re.search("privnet-(rollback|restore)", unit)])
wanted = ("privnet-*", "wg-quick@privnet.service", "systemd-networkd.service")
enabled = run("systemctl", "list-unit-files", "--plain", "--no-legend", *wanted).splitlines()
tell("enabled", [" ".join(line.split()[:2]) for line in enabled if "privnet-rollback" not in line])

def ours():
    for path in Path("/etc/privnet").rglob("*"):
        if path.name not in ("wireguard.key", "applied"):
            yield path
    for place in ("network", "networkd.conf.d", "system"):
        yield from (path for path in Path("/etc/systemd", place).rglob("*") if "privnet" in str(path))
    yield from Path("/etc/netns").rglob("*")

for path in sorted(set(ours())):
    try:
        if path.is_symlink():
            print("file:", path, "->", os.readlink(path))
        elif path.is_file():
            mode, digest = path.stat(), hashlib.sha256(path.read_bytes()).hexdigest()
            print("file:", path, f"{mode.st_mode & 0o7777:o}", mode.st_uid, mode.st_gid, digest)
    except FileNotFoundError:  # a run is at work
        pass
config = [line for line in lines_of(Path("/etc/wireguard/privnet.conf")) if not line.startswith("PrivateKey")]
print("wg-quick:", hashlib.sha256("\n".join(config).encode()).hexdigest())
marks = [*Path("/run/privnet").glob("names.*"), Path("/run/privnet/forwarder")]
tell("names", [f"{mark} {line}" for mark in marks for line in lines_of(mark)])
tell("left", [str(path) for path in (Path("/var/lib/privnet/armed"), Path("/run/privnet/lease")) if path.exists()])
tell("left", [str(path) for path in Path("/etc/privnet").glob(".stage.*")])
"""


def dump(lab: Lab, *hosts: str) -> dict[str, list[str]]:
    """Each host's lines."""
    return {
        host: lab.exec(host, ["python3", "-Sc", _PROGRAM], timeout=60).stdout.splitlines()
        for host in hosts or lab.hosts
    }


def until_rested(lab: Lab, *hosts: str, within: float) -> None:
    """Wait until no host has anything to take back any more. AssertionError after so many seconds."""
    begun = asked = time.monotonic()
    left = "ls -d /var/lib/privnet/armed /run/privnet/lease /etc/privnet/.stage.* 2> /dev/null || true"
    while any(lab.exec(host, left).stdout for host in hosts or lab.hosts):
        assert asked - begun < within, "a host has not put itself back"
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
