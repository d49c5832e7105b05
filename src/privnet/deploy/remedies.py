"""What a person does about a chain that drops what privnet sends, by the program that keeps the chain. Pure.

Each lasts over a reboot, or says what else makes it last.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from privnet.deploy.firewall import Drop

_RULE = "DOCKER-USER -i pnb+ -o pnb+ -j ACCEPT"
_DROP_IN = "/etc/systemd/system/docker.service.d"
DOCKER_PASSES = (
    f"`iptables -I {_RULE}`, which a reboot takes away. So that each start of Docker does it: `mkdir -p {_DROP_IN}`, "
    f"`printf '%s\\n' '[Service]' 'ExecStartPost=-/usr/sbin/iptables -D {_RULE}' 'ExecStartPost=/usr/sbin/iptables -I "
    f"{_RULE}' > {_DROP_IN}/private-networks.conf`, `systemctl daemon-reload`"
)
_NFT_LASTS = ", and the same where its table is loaded from (Debian: /etc/nftables.conf), or a reboot loses it"
_IPTABLES_LASTS = ", then `netfilter-persistent save` (of the package iptables-persistent), or a reboot loses it"
_EBTABLES_LASTS = ", and the same where your rules are made at boot, or a reboot loses it"
_FIREWALLD_LASTS = "then `firewall-cmd --reload`"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What has to be let through: in nft's words, in those of iptables (or ebtables), and what programs with commands
    of their own call it, by their name."""

    nft: str
    iptables: str
    commands: dict[str, str] = field(default_factory=dict)


def remedy(drop: Drop, wanted: Wanted) -> str:
    """The commands that let through what a chain drops."""
    if own := wanted.commands.get(drop.maker):
        return own
    table = "" if drop.table == "filter" else f" -t {drop.table}"
    match drop.maker:
        case "iptables" | "ip6tables" | "iptables-legacy" | "ip6tables-legacy" | "docker":
            program = "iptables" if drop.maker == "docker" else drop.maker
            return f"`{program}{table} -I {drop.chain} {wanted.iptables} -j ACCEPT`{_IPTABLES_LASTS}"
        case "ebtables" | "ebtables-legacy":
            return f"`{drop.maker}{table} -I {drop.chain} {wanted.iptables} -j ACCEPT`{_EBTABLES_LASTS}"
    return f"`nft insert rule {drop.family} {drop.table} {drop.chain} {wanted.nft} accept`{_NFT_LASTS}"


def zone(name: str, interface: str, more: str) -> str:
    """A zone of firewalld's for an interface."""
    return (
        f"`firewall-cmd --permanent --new-zone={name}`, the same with `--zone={name} --add-interface={interface}` and "
        f"with `--zone={name} {more}`, {_FIREWALLD_LASTS}"
    )


def port(number: str) -> str:
    """A port of firewalld's."""
    return f"`firewall-cmd --permanent --add-port={number}/udp`, {_FIREWALLD_LASTS}"
