"""A lab with private networks on it, and an attacker's hands in it: probes, forged frames, sniffers, counters.

All addresses are the oracle's. Programs are Python and need nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from privnet.lab import Lab

from . import oracle
from .oracle import Endpoint
from .watch import Watch

PROGRAMS = Path(__file__).parent / "programs"
SHOP = "pn-ad0fd6a1-d05e-40ea-bf63-c4f8a75a9d8c"
BLOG = "pn-77b1c0de-4a1f-4a53-8f0e-6f1d2b9c3a47"
SOLO = "pn-3c9e8d42-5b1a-4a77-9d3f-61f0b7c2e815"
STOREFRONT = "ap-a71da13f-7c70-4c00-a644-eee8558d8053"
PAGES = "ap-5d2e9c14-0b7a-4f66-8c3d-91f4a7e60b25"
ALONE = "ap-d4b6f1a0-93c7-4e52-8a1d-2f5b7c9e0d36"
DOMAIN = "private-network.internal"
VXLAN_PORT = 4789


NOBODY: dict[str, list[int]] = {protocol: [] for protocol in oracle.PROTOCOLS}
"""What arrives where nobody is."""


class Arrived(AssertionError):
    """Somebody got what must not reach anybody."""


class Lost(AssertionError):
    """What is honest did not arrive."""


class Miscounted(AssertionError):
    """A counter of the guard is not what it should be, and that alone: whether something arrived is not said."""


@dataclass
class Program:
    """A Python program of ``programs/`` that runs in a namespace; its first line of output is `ready`."""

    process: subprocess.Popen[str]
    name: str
    patience: float = 1.0

    def wait_ready(self) -> None:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if line != "ready\n":
            rest = self.process.communicate()
            raise AssertionError(f"{self.name}: {line}{rest[0]}{rest[1]}")

    def line(self) -> str:
        """The next line that it says, when it comes."""
        return self.process.stdout.readline() if self.process.stdout else ""

    def say(self, line: str) -> None:
        """Give it one more line to read."""
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def rest(self, seconds: float) -> list[str]:
        """All lines that it says until so many seconds have passed; then it is ended."""
        time.sleep(seconds)
        return self.process.communicate(timeout=60 * self.patience)[0].splitlines()

    def finish(self) -> object:
        """Close its standard input, which ends it; the JSON that it says then."""
        out, err = self.process.communicate(timeout=60 * self.patience)
        if self.process.returncode:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}: {out}{err}")
        return json.loads(out) if out.strip() else None


@dataclass
class Scene:
    """``lab`` as an attacker sees it."""

    lab: Lab
    watch: Callable[[], Watch]
    everybody: list[Endpoint] = field(default_factory=list)
    gone: list[Endpoint] = field(default_factory=list)
    _known: dict[tuple[str, str], str] = field(default_factory=dict)
    _vnis: dict[str, int] = field(default_factory=dict)
    _cidrs: dict[str, str] = field(default_factory=dict)

    def look(self) -> None:
        """Read the declaration and the lock file again. What has left them since is remembered until the next look."""
        before, self.everybody = self.everybody, oracle.endpoints(self.lab.inventory)
        self.gone = oracle.gone(before, self.everybody)
        networks = oracle.documents(self.lab.inventory)[2]["networks"]
        self._vnis = {network: int(numbers["vni"]) for network, numbers in networks.items()}
        self._cidrs = {network: numbers["cidr"] for network, numbers in networks.items()}
        self._known = {}

    # --- who --------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Endpoint:
        return next(endpoint for endpoint in self.everybody if endpoint.name == name)

    def resolver(self, network: str, host: str) -> Endpoint:
        return self[f"resolver of {network} on {host}"]

    @property
    def hosts(self) -> list[str]:
        return [endpoint.name for endpoint in self.everybody if endpoint.kind == "host"]

    def mesh(self, host: str) -> str:
        return self[f"{host} mesh"].address

    def vni(self, network: str) -> int:
        return self._vnis[network]

    def cidr(self, network: str) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self._cidrs[network])

    def mac(self, endpoint: Endpoint) -> str:
        """As the endpoint's own kernel has it."""
        key = (endpoint.place, endpoint.netns)
        if key not in self._known:
            self._known[key] = self.inside(endpoint, "cat /sys/class/net/pn0/address").strip()
        return self._known[key]

    def bridge_mac(self, host: str, network: str) -> str:
        key = (host, f"pnb{self.vni(network)}")
        if key not in self._known:
            self._known[key] = self.run(host, f"cat /sys/class/net/{key[1]}/address").strip()
        return self._known[key]

    # --- commands ---------------------------------------------------------------------------------

    def run(self, host: str, command: str, check: bool = True) -> str:
        return self.lab.exec(host, command, check=check).stdout

    def inside(self, endpoint: Endpoint, command: str, check: bool = True) -> str:
        """What a shell command prints in an endpoint's namespace."""
        return self.lab.exec(endpoint.place, [*_enter(endpoint), "sh", "-c", command], check=check).stdout

    def start(self, endpoint: Endpoint, program: str, unit: str = "", **arguments: object) -> Program:
        """Run a program; the caller feeds and ends it through :class:`Program`.

        :param unit: a unit of the host that is active: the program runs in its control group
        """
        command = [*_enter(endpoint), *_join(unit), "python3", "-c", (PROGRAMS / program).read_text()]
        argv = self.lab.argv(endpoint.place, command)
        pipe = subprocess.PIPE
        process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert process.stdin
        process.stdin.write(json.dumps(arguments) + "\n")
        process.stdin.flush()
        return Program(process, f"{program} in {endpoint}", self.lab.patience)

    # --- reach ------------------------------------------------------------------------------------

    def matrix(self) -> list[str]:
        """Probe every ordered pair over TCP, UDP and ICMP; where the fleet and the oracle differ.

        A probe's number is its destination port and its ICMP sequence number. What arrives is seen by raw sockets,
        behind every filter, so that packets count which nobody answers.
        """
        everybody = [*self.everybody, *self.gone]
        sources = [source for source in oracle.sources(everybody) if self._speaks(source)]
        numbered = {
            number: (source, target)
            for number, (source, target) in enumerate((s, t) for s in sources for t in everybody)
            if (source.place, source.netns) != (target.place, target.netns)
        }
        listeners = {source: self.start(source, "listen.py") for source in sources}
        for listener in listeners.values():
            listener.wait_ready()
        probers = {}
        for source in sources:
            targets = [[number, target.address] for number, (who, target) in numbered.items() if who == source]
            token = "privnet-canary-matrix" if source.network else "planted-matrix"
            probers[source] = self.start(source, "probe.py", targets=targets, token=token)
        answered = {source: prober.finish() for source, prober in probers.items()}
        arrived = {source: listener.finish() for source, listener in listeners.items()}
        ends = {(source.place, source.netns): seen for source, seen in arrived.items()}
        used = {(endpoint.network, endpoint.address) for endpoint in self.everybody}
        wrong = self._left()
        for number, (source, target) in numbered.items():
            # Where nobody is any more nothing can be seen: then it must arrive nowhere at all, unless another one of
            # the sender's network has that address now.
            elsewhere = target.gone and (source.network, target.address) not in used
            places = ends.values() if elsewhere else [ends.get((target.place, target.netns), NOBODY)]
            for protocol in oracle.PROTOCOLS:
                must = oracle.must_reach(source, target, protocol, self.everybody)
                answer = number in answered[source].get(protocol, ())
                there = any(number in seen[protocol] for seen in places) or (elsewhere and answer)
                back = protocol == "udp" or answer
                if must is True and not (there and back):
                    wrong.append(
                        f"{source} does not reach {target} over {protocol} (arrived: {there}, answered: {back})"
                    )
                if must is False and there:
                    wrong.append(f"{source} reaches {target} over {protocol}")
        return wrong

    def _speaks(self, source: Endpoint) -> bool:
        """Whether this one has a namespace of its own: of those who are gone, a removed host's alone still have."""
        known = {(endpoint.place, endpoint.netns) for endpoint in self.everybody}
        return not source.gone or ((source.place, source.netns) not in known and self._has(source))

    def _has(self, endpoint: Endpoint) -> bool:
        return not endpoint.netns or endpoint.netns in self.run(endpoint.place, "ls /run/netns").split()

    def _left(self) -> list[str]:
        """Namespaces that hosts of the fleet still have, of what is gone."""
        known = {(endpoint.place, endpoint.netns) for endpoint in self.everybody}
        return [
            f"{endpoint} has left its namespace behind"
            for endpoint in self.gone
            if endpoint.place in self.hosts and (endpoint.place, endpoint.netns) not in known and self._has(endpoint)
        ]

    def hostile(self, *, as_neighbours: bool = False) -> None:
        """Routes that an attacker would set: through the bridge's MAC, and from outside through the hosts.

        Addresses of other networks that cannot be one's own are sought behind the bridge's MAC too, or
        (``as_neighbours``) by ARP on one's own link, as all others are.
        """
        everybody = [*self.everybody, *self.gone]
        inside = [endpoint for endpoint in everybody if endpoint.kind in ("container", "resolver")]
        outside = [endpoint.address for endpoint in everybody if endpoint.kind in ("host", "mesh", "outside")]
        for endpoint in inside:
            if endpoint.gone:
                continue
            mac, own = self.bridge_mac(endpoint.place, endpoint.network), self.cidr(endpoint.network)
            foreign = {other.address for other in inside if ipaddress.IPv4Address(other.address) not in own}
            behind = sorted({*outside, *(() if as_neighbours else foreign)})
            lines = ["ip route replace default dev pn0; ip neigh flush dev pn0 nud permanent"]
            lines += [f"ip neigh replace {address} lladdr {mac} dev pn0 nud permanent" for address in behind]
            self.inside(endpoint, "; ".join(lines))
        meshes = {endpoint.place: endpoint.address for endpoint in everybody if endpoint.kind == "mesh"}
        hosts = {endpoint.place: endpoint.address for endpoint in everybody if endpoint.kind == "host"}
        routes = [f"ip route replace {mesh} via {hosts[host]}" for host, mesh in meshes.items()]
        # A host that forwards names a shorter way to what it does not serve (ICMP redirect), which no attacker takes.
        redirects = "/proc/sys/net/ipv4/conf/*/accept_redirects"
        stubborn = f"for file in {redirects}; do echo 0 > $file; done; ip route flush cache"
        for who, host in (("outsider", "lab-1"), ("operator", "lab-2")):
            via = [f"ip route replace {cidr} via {self[host].address}" for cidr in {*self._cidrs.values()}]
            self.run(who, "; ".join([stubborn, *routes, *via]))
        stray = [
            "ip netns add stray; ip link add st0 type veth peer name eth0 netns stray",
            "ip addr add 198.51.100.1/30 dev st0; ip link set st0 up; sysctl -qw net.ipv4.ip_forward=1",
            "ip -n stray addr add 198.51.100.2/30 dev eth0; ip -n stray link set eth0 up; ip -n stray link set lo up",
            "ip -n stray route add default via 198.51.100.1",
        ]
        if "stray" not in self.run(oracle.STRAY_HOST, "ip netns"):
            self.run(oracle.STRAY_HOST, "; ".join(stray))

    # --- frames -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def sniffing(
        self, *endpoints: Endpoint, token: bytes = b"planted", interface: str = "pn0"
    ) -> Iterator[dict[Endpoint, list[str]]]:
        """What arrives during the block at containers (on `pn0`) and hosts (behind their filters) with a token in it.

        A token ends at its first blank; each is listed once for each time it was seen.
        """
        programs = {
            endpoint: self.start(endpoint, "sniff.py", token=token.decode(), interface=interface)
            for endpoint in endpoints
        }
        for program in programs.values():
            program.wait_ready()
        found: dict[Endpoint, list[str]] = {}
        yield found
        time.sleep(0.3 * self.lab.patience)
        for endpoint, program in programs.items():
            found[endpoint] = program.finish()  # type: ignore[assignment]

    @contextlib.contextmanager
    def capturing(self, host: Endpoint, port: int) -> Iterator[dict[str, list[str]]]:
        """UDP payloads for a port that come to a host's uplink during the block, in hex, by their sender's address."""
        program = self.start(host, "capture.py", interface="eth0", port=port)
        program.wait_ready()
        found: dict[str, list[str]] = {}
        yield found
        time.sleep(0.3)
        found.update(program.finish())  # type: ignore[call-overload]

    def send_frames(self, endpoint: Endpoint, frames: list[bytes], interface: str = "pn0", pause: float = 0) -> None:
        """Put raw Ethernet frames on an interface of an endpoint."""
        hexes = [frame.hex() for frame in frames]
        self.start(endpoint, "send.py", interface=interface, frames=hexes, pause=pause).finish()

    @contextlib.contextmanager
    def flooding(self, endpoint: Endpoint, frames: list[bytes]) -> Iterator[list[int]]:
        """The same raw frames again and again during the whole block; at its end, how many were sent."""
        hexes = [frame.hex() for frame in frames]
        program = self.start(endpoint, "send.py", interface="pn0", frames=hexes, until_end=True)
        program.wait_ready()
        sent: list[int] = []
        try:
            yield sent
        finally:
            sent.append(program.finish())  # type: ignore[arg-type]

    def send_datagrams(
        self,
        endpoint: Endpoint,
        address: str,
        payloads: list[bytes],
        port: int = VXLAN_PORT,
        source: str = "",
        pause: float = 0,
        from_port: int = 0,
        segment: int = 0,
        unit: str = "",
    ) -> None:
        """UDP from an endpoint, with its own address or, written by hand, with another one.

        :param unit: who sends is in the control group of this unit
        :param segment: a payload is several datagrams of that size, which the kernel takes apart as late as it can
        """
        hexes = [payload.hex() for payload in payloads]
        order = {"address": address, "port": port, "payloads": hexes, "source": source, "pause": pause}
        order |= {"from_port": from_port, "segment": segment}
        self.start(endpoint, "send.py", unit, **order).finish()

    def send_packets(self, endpoint: Endpoint, packets: list[bytes]) -> None:
        """Whole IPv4 packets, made by hand, by an endpoint's own routes. The kernel fills in their checksums."""
        self.start(endpoint, "send.py", packets=[packet.hex() for packet in packets]).finish()

    # --- what the guard says ----------------------------------------------------------------------

    def drops(self, host: str) -> dict[str, int]:
        """Packets dropped by each rule of the guard, by its comment."""
        text = self.run(host, "nft list table inet privnet; nft list table bridge privnet", check=False)
        counts: dict[str, int] = {}
        for packets, comment in re.findall(r'counter packets (\d+) bytes \d+ drop comment "([^"]+)"', text):
            counts[comment] = counts.get(comment, 0) + int(packets)
        return counts

    @contextlib.contextmanager
    def dropping(self, host: str, comment: str, at_least: int = 1) -> Iterator[None]:
        """The rule with this comment must drop that many packets during the block.

        What arrived is looked at inside the block: that a rule is gone says nothing of what it was there for.
        """
        before = self.drops(host).get(comment)
        yield
        after = self.drops(host).get(comment)
        if before is None or after is None:
            raise Miscounted(f"{host} has no rule {comment!r}")
        if after - before < at_least:
            raise Miscounted(f"{host}: rule {comment!r} dropped {after - before} packets, not {at_least}")


def _enter(endpoint: Endpoint) -> list[str]:
    return ["ip", "netns", "exec", endpoint.netns] if endpoint.netns else []


def _join(unit: str) -> list[str]:
    if not unit:
        return []
    group = f"/sys/fs/cgroup$(systemctl show -P ControlGroup '{unit}')"
    return ["sh", "-c", f'echo $$ > "{group}/cgroup.procs" && exec "$@"', "-"]
