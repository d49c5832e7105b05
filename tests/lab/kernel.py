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
export LC_ALL=C
tell() { sed "s/^/$1: /"; }
wg show privnet dump 2>/dev/null | tail -n +2 | awk -F '\t' '{print $1, $3, $4, $8}' | sort | tell peer
ip -4 -o addr show dev privnet 2>/dev/null | awk '{print $4}' | tell mesh
cat /sys/class/net/privnet/mtu 2>/dev/null | tell mesh
for table in 'inet privnet' 'bridge privnet'; do nft -s list table $table 2>/dev/null | tr -s ' \n\t' ' ' | sed 's/, /,\n/g; s/ } }/\n&/g' | sort | tell "$table"; done
ip -4 route show type unreachable | tell route
ip -4 route show dev privnet 2>/dev/null | tell route
python3 - <<'END'
import json, subprocess
def ask(*words):
    out = subprocess.run(words, capture_output=True, text=True).stdout.strip()
    return json.loads(out) if out else []
for link in sorted(ask("ip", "-d", "-j", "link", "show"), key=lambda link: link["ifname"]):
    name = link["ifname"]
    if not name.startswith(("pnb", "pnx", "pnc", "pnu")):
        continue
    info = link.get("linkinfo", {})
    data, port = info.get("info_data", {}), info.get("info_slave_data", {})
    keep = {k: data.get(k) for k in ("id", "local", "port", "learning", "proxy", "mcast_snooping", "stp_state")}
    keep |= {k: port.get(k) for k in ("state", "learning", "flood", "isolated", "guard", "hairpin", "neigh_suppress")}
    print("link:", name, info.get("info_kind"), link["mtu"], link["address"], link.get("master"), "UP" in link["flags"], keep)
END
bridge fdb show | awk '{ for (i = 2; i < NF; i++) if ($i == "dev" && $(i+1) ~ /^pn[cx]/) print }' | grep -e ' dst ' -e ' static' | sort | tell fdb
ip -4 neigh show nud permanent | grep ' dev pnx' | sort | tell neighbour
ip -o addr show | awk '$2 ~ /^pn[bxc]/ {print $2, $4}' | sort | tell address
for path in /run/netns/*; do
	[ -e "$path" ] || continue
	name=${path##*/}
	nsenter --net="$path" sh -c 'ip -o addr show dev pn0; cat /sys/class/net/pn0/address /sys/class/net/pn0/mtu; ip route' 2>/dev/null |
		sed 's/^[0-9]*: //; s/  */ /g' | tell "netns $name"
	echo "netns $name"
done
systemctl list-units --all --plain --no-legend 'privnet-*' wg-quick@privnet.service | awk '$3 == "active" || $3 == "failed" {print $1, $3}' |
	grep -v -e privnet-rollback -e privnet-restore | sort | tell unit
systemctl list-unit-files --plain --no-legend 'privnet-*' wg-quick@privnet.service systemd-networkd.service | awk '{print $1, $2}' |
	grep -v privnet-rollback | sort | tell enabled
{
	find /etc/privnet ! -name wireguard.key ! -name applied ! -type d
	find /etc/systemd/network /etc/systemd/networkd.conf.d /etc/systemd/system /etc/netns -path '*privnet*' ! -type d
	find /etc/netns -name resolv.conf
} 2>/dev/null | sort -u | while read -r path; do
	if [ -L "$path" ]; then echo "$path -> $(readlink "$path")"; else echo "$path $(stat -c '%a %u %g' "$path") $(sha256sum < "$path")"; fi
done | tell file
sed '/^PrivateKey/d' /etc/wireguard/privnet.conf 2>/dev/null | sha256sum | tell wg-quick
grep -s . /run/privnet/names.* /run/privnet/forwarder | tell names
ls -d /var/lib/privnet/armed /run/privnet/lease /etc/privnet/.stage.* 2>/dev/null | tell left
true
"""


def dump(lab: Lab, *hosts: str) -> dict[str, list[str]]:
    """Each host's lines."""
    return {host: lab.exec(host, ["sh", "-c", _PROGRAM], timeout=60).stdout.splitlines() for host in hosts or lab.hosts}


def until_rested(lab: Lab, *hosts: str, within: float) -> None:
    """Wait until no host has anything to take back any more. AssertionError after so many seconds."""
    begun = asked = time.monotonic()
    while any(line.startswith("left: ") for lines in dump(lab, *hosts).values() for line in lines):
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
