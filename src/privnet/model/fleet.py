"""``fleet.yaml``: the hosts, and what holds for all of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from privnet.model.base import Part
from privnet.model.decision import Override
from privnet.model.identifiers import (
    MTU_FIRST,
    MTU_LAST,
    QUARANTINE_LAST,
    ROLLBACK_LAST,
    VNI_LAST,
    Address,
    Boolean,
    Domain,
    Endpoint,
    FleetName,
    HostName,
    Integer,
    Internal,
    Lengths,
    Percent,
    Prefix,
    Release,
    Seconds,
    SshUser,
    Upstream,
    VniRange,
    Zone,
    parse_endpoint,
)

NetworkPrefix = Annotated[Prefix, Lengths("network prefix", 16, 29)]


class WireGuard(Part):
    """The mesh between the hosts."""

    mesh: Annotated[Prefix, Lengths("mesh prefix", 8, 30)] = Field(
        default=Prefix.parse("100.64.0.0/16"),
        description="Prefix from which each host gets its mesh address. It must not contain an "
        "address of the underlay.",
        examples=["100.64.0.0/16"],
        json_schema_extra={"default": "100.64.0.0/16"},
    )
    port: Annotated[int, Integer(1, 65535, "WireGuard port")] = Field(
        default=51820, description="UDP port on which every host of the fleet listens.", examples=[51820]
    )


VNIS = VniRange(7000000, 7999999)
"""Where nothing is declared. Other users of VXLAN, as swarm engines, count from 1 or 4096."""


class Vxlan(Part):
    """The overlays inside the mesh."""

    port: Annotated[int, Integer(1, 65535, "VXLAN port")] = Field(
        default=4789, description="UDP port of VXLAN inside the mesh.", examples=[4789]
    )
    vni: VniRange = Field(
        default=VNIS,
        description=f"VNIs that private networks are given, first-last, within 1-{VNI_LAST}.",
        examples=[str(VNIS)],
        json_schema_extra={"default": str(VNIS)},
    )


class NetworkDefaults(Part):
    """What a private network is unless its project says otherwise."""

    cidr: NetworkPrefix = Field(
        default=Prefix.parse("10.240.0.0/22"),
        description="Addresses of a private network, /16 to /29. Networks are separate: all may use the same.",
        examples=["10.240.0.0/22"],
        json_schema_extra={"default": "10.240.0.0/22"},
    )


class Dns(Part):
    """The resolvers of the private networks."""

    ttl: Annotated[int, Integer(1, 3600, "DNS TTL")] = Field(
        default=5, description="Seconds for which an answer may be kept.", examples=[5]
    )
    upstream: tuple[Upstream, ...] = Field(
        default=(),
        description="Resolvers for names outside the private domain: IP literals with an optional #port. "
        "Without any, such names are refused.",
        examples=[["9.9.9.9", "2620:fe::fe", "127.0.0.53#53"]],
    )
    internal: tuple[Internal, ...] = Field(
        default=(),
        description="Domains that `upstream` knows and whose names have private addresses: theirs are answered. "
        "An answer with a private address for any other name is dropped.",
        examples=[["corp.example"]],
    )


class Policy(Part):
    """What the operator of the fleet has decided."""

    hds: Literal["refuse", "allow"] = Field(
        default="refuse",
        description="Whether HDS applications may be in a project with a private network.",
        examples=["refuse"],
    )
    hds_allowed: Override | None = Field(
        default=None,
        description="Needed with `hds: allow`: who decided that HDS applications may have access, and when.",
        examples=[{"by": "dpo@shop.example", "on": "2025-10-01"}],
    )
    address_quarantine: Annotated[int, Seconds("address quarantine", QUARANTINE_LAST)] = Field(
        default=3600,
        description="How long an address rests before it is given to another container: a number and s, m, h or d.",
        examples=["1h"],
        json_schema_extra={"default": "1h"},
    )
    removal_guard: Annotated[int, Percent("removal guard")] = Field(
        default=10,
        description="The share of the fleet's containers, and of its hosts, that one run may remove without being "
        "told the number. A whole private network never goes without it.",
        examples=["10%"],
        json_schema_extra={"default": "10%"},
    )
    rollback: Annotated[int, Seconds("rollback", ROLLBACK_LAST, minimum=10)] = Field(
        default=180,
        description="How long a changed host waits for a confirmation over a new SSH connection before it puts itself "
        "back to what it was: a number and s, m or h, at least 10s.",
        examples=["180s"],
        json_schema_extra={"default": "180s"},
    )
    canary: HostName | None = Field(
        default=None,
        description="The host that a run changes before any other, when it has something to do there and is fit.",
        examples=["par-a-1"],
    )
    confirm: Literal["mesh", "ssh"] = Field(
        default="mesh",
        description="What a change has to leave intact before it is confirmed. `ssh`: the way of new SSH connections. "
        "`mesh`: that too, and each peer that answered a host before the change answers it again.",
        examples=["mesh"],
    )
    releases: tuple[Release, ...] = Field(
        default=(),
        description="Releases of hosts that are accepted though privnet is not tested on them: ID and VERSION_ID of "
        "/etc/os-release.",
        examples=[["ubuntu 24.04"]],
    )


class Ssh(Part):
    """How pyinfra reaches a host."""

    user: SshUser = Field(
        default="root", description="User to log in as; any other than root needs sudo.", examples=["deploy"]
    )
    port: Annotated[int, Integer(1, 65535, "SSH port")] = Field(
        default=22, description="TCP port of the SSH server.", examples=[22]
    )


class Host(Part):
    """A machine that runs containers."""

    address: Address = Field(
        description="IP address on the underlay: for SSH, and for WireGuard unless `endpoint` is given.",
        examples=["192.0.2.11"],
    )
    endpoint: Endpoint | None = Field(
        default=None,
        description="Where the other hosts reach its WireGuard, when that is not `address` and `wireguard.port`.",
        examples=["198.51.100.7:51820", "[2001:db8::7]:51820"],
    )
    zone: Zone | None = Field(
        default=None,
        description="Hosts that fail together; `spread: zone` divides containers over zones.",
        examples=["par-a"],
    )
    mtu: Annotated[int, Integer(MTU_FIRST, MTU_LAST, "host MTU")] = Field(
        default=1500, description="Largest packet of the underlay, in bytes.", examples=[1500]
    )
    state: Literal["in", "out"] = Field(
        default="in",
        description="`out`: no run goes there, no host has it as a peer, and its containers count as not running. Its "
        "numbers stay its own.",
        examples=["out"],
    )
    renamed_from: HostName | None = Field(
        default=None,
        description="The name that it had until now: it keeps its numbers, keys and containers. For one run.",
        examples=["par-a-1"],
    )
    ssh: Ssh = Field(
        default=Ssh(), description="SSH login, when it is not root on port 22.", examples=[{"user": "deploy"}]
    )

    def wireguard_endpoint(self, port: int) -> tuple[str, int]:
        """Address and UDP port at which the other hosts reach it; ``port`` is the fleet's."""
        return parse_endpoint(self.endpoint) if self.endpoint is not None else (self.address, port)


class Fleet(Part):
    """A fleet: its hosts, and what holds for all of them."""

    fleet: FleetName = Field(description="The fleet's name.", examples=["prod"])
    lab: Annotated[bool, Boolean("`lab`")] = Field(
        default=False,
        description="The fleet lives in the lab on this machine and nowhere else.",
        examples=[True],
    )
    domain: Domain = Field(
        default="private-network.internal",
        description="The domain that ends every name of a container.",
        examples=["private-network.internal"],
    )
    wireguard: WireGuard = Field(
        default=WireGuard(), description="The mesh between the hosts.", examples=[{"mesh": "100.64.0.0/16"}]
    )
    vxlan: Vxlan = Field(default=Vxlan(), description="The overlays inside the mesh.", examples=[{"vni": str(VNIS)}])
    network: NetworkDefaults = Field(
        default=NetworkDefaults(),
        description="What a private network is unless its project says otherwise.",
        examples=[{"cidr": "10.240.0.0/22"}],
    )
    dns: Dns = Field(default=Dns(), description="The resolvers of the private networks.", examples=[{"ttl": 5}])
    policy: Policy = Field(
        default=Policy(),
        description="What the operator of the fleet has decided.",
        examples=[{"hds": "refuse"}],
    )
    hosts: dict[HostName, Host] = Field(
        min_length=1,
        description="The hosts by name.",
        examples=[{"par-a-1": {"address": "192.0.2.11", "zone": "par-a"}}],
    )

    @property
    def out(self) -> tuple[str, ...]:
        """Hosts that are out of service."""
        return tuple(name for name, host in self.hosts.items() if host.state == "out")
