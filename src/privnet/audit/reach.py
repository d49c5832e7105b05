"""Who reaches whom: sampled pairs of containers that must, and pairs that must not; in the same run, by the same means.

A probe's answer carries a token of the listener, so that it proves who answered, whatever address was asked.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from privnet.audit import dns, ways
from privnet.audit.finding import Deviation, Finding, about
from privnet.audit.session import HOST, Job, Listener, Reply, Session
from privnet.diagnostics import plural
from privnet.plan.containers import Port
from privnet.plan.host import Plan
from privnet.plan.overlay import Network

T = TypeVar("T")

CONTAINERS_OF_A_HOST = 8
"""Containers of one network and host that take part, evenly chosen; every host of every network has some."""
ALL_PAIRS_UP_TO = 12
"""Containers of a network up to which every ordered pair is tried; beyond that, each has log n partners."""
FORBIDDEN_TARGETS = 3
FORBIDDEN_SECONDS = 1.0
ALLOWED_SECONDS = 12.0
"""Two of WireGuard's attempts at a handshake (REKEY_TIMEOUT is 5 s); whoever answers does so at once."""
HANDSHAKE_SECONDS = 180
"""WireGuard's REJECT_AFTER_TIME: after traffic, a handshake cannot be older."""
TOKEN = 16
CONNECTED = ("ESILENT", "ECUT", "ECONNREFUSED", "ECONNRESET")
"""Errors that somebody sent: the packet got through."""
NOT_SENT = ("ENETNS", "ELOST")
"""Errors of the prober: what was not tried proves nothing."""
UDP_OVERHEAD = 28
"""Bytes of IPv4 and UDP headers: what a packet has beside its payload."""


@dataclass(frozen=True, slots=True)
class End:
    """A container, or a host's own mesh address, that answers during this audit."""

    host: str
    network: Network | None
    netns: str
    address: str
    token: str
    listener: Listener

    def __str__(self) -> str:
        return self.netns if self.network else f"host {self.host} at {self.address}"


@dataclass(frozen=True, slots=True)
class Probe:
    """A job and what it is about."""

    job: Job
    source: str
    target: End
    number: bytes
    what: str
    allowed: bool = True


@dataclass(slots=True)
class Reach:
    """The part of the audit that sends packets.

    :param hosts: the hosts that are audited; pairs with others are not tried
    """

    plan: Plan
    hosts: Collection[str]
    tokens: dict[tuple[str, str], str] = field(default_factory=dict)
    ends: dict[tuple[str, str], End] = field(default_factory=dict)
    chosen: dict[str, dict[str, tuple[Port, ...]]] = field(init=False)

    def __post_init__(self) -> None:
        networks = self.plan.networks
        self.chosen = {network_id: sample(networks[network_id], self.hosts, self.plan) for network_id in networks}

    def wanted(self, host: str) -> dict[str, tuple[str, str]]:
        """What listens on a host: ``{netns: (address, token)}``."""
        found = {}
        if self.plan.hosts[host].overlays:
            found[HOST] = self.plan.hosts[host].mesh.address, self._token(host, HOST)
        for ports in self.chosen.values():
            found |= {port.netns: (port.address, self._token(host, port.netns)) for port in ports.get(host, ())}
        return found

    def _token(self, host: str, netns: str) -> str:
        return self.tokens.setdefault((host, netns), secrets.token_hex(TOKEN // 2))

    def open(self, host: str, session: Session) -> list[str]:
        """Start a host's listeners; the namespaces where that could not be."""
        wanted = self.wanted(host)
        networks = {
            port.netns: self.plan.networks[network_id]
            for network_id, ports in self.chosen.items()
            for port in ports.get(host, ())
        }
        failed = []
        for netns, listener in session.listen(wanted).items():
            address, token = wanted[netns]
            if listener is None:
                failed.append(netns)
            else:
                self.ends[host, netns] = End(host, networks.get(netns), netns, address, token, listener)
        return failed

    # --- allowed --------------------------------------------------------------------------------

    def pairs(self, host: str) -> Iterator[tuple[Port, End]]:
        """The containers of a host with the partners that each must reach."""
        for network_id, ports in self.chosen.items():
            order = interleaved(ports)
            steps = steps_of(len(order))
            for place, (owner, port) in enumerate(order):
                if owner != host:
                    continue
                for step in steps:
                    other, target = order[(place + step) % len(order)]
                    end = self.ends.get((other, target.netns))
                    if end is not None and end.network is self.plan.networks[network_id]:
                        yield port, end

    def by_name(self, host: str, session: Session) -> tuple[dict[tuple[str, str], str], list[Deviation]]:
        """Addresses that each container's resolver gives for its partners' names."""
        pairs = list(self.pairs(host))
        messages, jobs = [], []
        for number, (port, end) in enumerate(pairs):
            network = end.network
            if network is None:
                continue
            messages.append(dns.question(number, f"{end.netns}.{network.names.suffix}", dns.A))
            jobs.append(Job(port.netns, "udp", network.resolver, 53, messages[-1]))
        found: dict[tuple[str, str], str] = {}
        deviations: list[Deviation] = []
        for (port, end), message, reply in zip(pairs, messages, session.run(jobs), strict=True):
            address = _resolved(message, reply)
            if address == end.address:
                found[port.netns, end.netns] = address
            else:
                other = Deviation(f"{port.netns} asks for {end.netns}", end.address, address)
                deviations += about("", [other], *ways.of_question(self.plan, host, port.netns, end.netns))
        return found, deviations

    def probes(self, host: str, resolved: Mapping[tuple[str, str], str]) -> Iterator[Probe]:
        """To the address that each partner's name has: every port, UDP and TCP, and a packet of full size."""
        for port, end in self.pairs(host):
            address = resolved.get((port.netns, end.netns))
            if address is None:
                continue
            for number in end.listener.udp:
                yield _probe(port.netns, port.netns, address, end, "udp", number)
            for number in end.listener.tcp:
                yield _probe(port.netns, port.netns, address, end, "tcp", number)
            size = port.mtu - UDP_OVERHEAD
            yield _probe(port.netns, port.netns, address, end, "udp", end.listener.udp[-1], size=size)

    # --- forbidden ------------------------------------------------------------------------------

    def forbidden(self, host: str) -> Iterator[Probe]:
        """From containers to other networks and to the host, and from the host to its containers."""
        for network_id, ports in self.chosen.items():
            foreign = self._foreign(host, self.plan.networks[network_id])
            for port in ports.get(host, ()):
                for end in foreign:
                    yield from self._both(port.netns, port.netns, end)
        own = [end for (owner, netns), end in sorted(self.ends.items()) if owner == host and netns != HOST]
        for end in own[:FORBIDDEN_TARGETS]:
            yield from self._both(HOST, f"host {host}", end, mode="near")

    def _foreign(self, host: str, network: Network) -> list[End]:
        """A few containers of other networks, here first, and the host itself."""
        others = [end for _, end in sorted(self.ends.items()) if end.network is not None and end.network is not network]
        own = {container.address for container in network.containers}
        others.sort(key=lambda end: (end.address in own, end.host != host, end.host, end.netns))
        ends = others[:FORBIDDEN_TARGETS]
        mesh = self.ends.get((host, HOST))
        return [*ends, mesh] if mesh else ends

    def _both(self, netns: str, source: str, end: End, mode: str = "any") -> Iterator[Probe]:
        yield _probe(netns, source, end.address, end, "udp", end.listener.udp[1], allowed=False, mode=mode)
        yield _probe(netns, source, end.address, end, "tcp", end.listener.tcp[1], allowed=False, mode=mode)

    def underlay(self, host: str) -> list[Probe]:
        """From one container of each network to the host's SSH port, where something certainly listens."""
        target = self.plan.fleet.hosts[host]
        if ":" in target.address:
            return []
        nobody = End(host, None, HOST, target.address, "", Listener((), ()))
        ports = [ports[host][0] for ports in self.chosen.values() if ports.get(host)]
        return [
            Probe(
                Job(port.netns, "tcp", target.address, target.ssh.port, b"", seconds=FORBIDDEN_SECONDS),
                port.netns, nobody, b"", f"TCP {target.ssh.port}", allowed=False,
            )
            for port in ports
        ]  # fmt: skip

    def wake(self, host: str, session: Session) -> None:
        """Let one host of each pair begin their handshake: when both begin at once, both can fail and wait for 5 s."""
        first: dict[str, Probe] = {}
        for port, end in self.pairs(host):
            if end.host > host:
                first.setdefault(end.host, _probe(port.netns, port.netns, end.address, end, "udp", end.listener.udp[0]))
        session.run(replace(probe.job, seconds=FORBIDDEN_SECONDS) for probe in first.values())

    # --- together -------------------------------------------------------------------------------

    def run(self, host: str, session: Session) -> tuple[Finding, Finding]:
        """Who is reached, and who is not: the findings ``reach`` and ``isolation``."""
        resolved, deviations = self.by_name(host, session)
        probes = [*self.probes(host, resolved), *self.forbidden(host), *self.underlay(host)]
        replies = session.run(probe.job for probe in probes)
        failed: dict[tuple[str, End], list[tuple[Probe, Reply]]] = defaultdict(list)
        tried: dict[tuple[str, End], int] = defaultdict(int)
        crossed: list[Deviation] = []
        for probe, reply in zip(probes, replies, strict=True):
            if not probe.allowed:
                crossed += self._crossing(host, probe, reply)
                continue
            tried[probe.source, probe.target] += 1
            if not _answers(probe, reply):
                failed[probe.source, probe.target].append((probe, reply))
        for key, losses in failed.items():
            deviations += self._losses(host, losses, tried[key])
        answers = sum(probe.allowed for probe in probes)
        reach = Finding(f"{plural(len(tried), 'pair')} by name, {plural(answers, 'probe')}", tuple(deviations))
        return reach, Finding(plural(len(probes) - answers, "forbidden probe"), tuple(crossed))

    def _crossing(self, host: str, probe: Probe, reply: Reply) -> list[Deviation]:
        if reply.error in NOT_SENT:
            lost = Deviation(f"{probe.source} → {probe.target}, {probe.what}", "a probe that is sent", str(reply))
            return [*about("", [lost], *ways.of_sender(self.plan, host, probe.job.netns))]
        if probe.target.token == "":
            came = not reply.error or reply.error in CONNECTED
        elif reply.error:
            # Asked by the host, a refusal may be a real machine's beside it; asked by a container, it can only be ours.
            came = reply.error in CONNECTED and probe.job.netns != HOST and not self._is_own(host, probe)
        else:
            token = reply.data[TOKEN : 2 * TOKEN].decode("ascii", "replace")
            who = next((end for end in self.ends.values() if end.token == token), None)
            own = self.ends.get((host, probe.source))
            came = who is not None and (own is None or who.network is not own.network)
        if not came:
            return []
        crossing = Deviation(f"{probe.source} → {probe.target}, {probe.what}", "no way", str(reply))
        target = (probe.target.host, probe.target.netns)
        return [*about("", [crossing], *ways.of_crossing(self.plan, (host, probe.job.netns), target))]

    def _losses(self, host: str, losses: list[tuple[Probe, Reply]], tried: int) -> Iterator[Deviation]:
        """What a pair lost; one deviation when it lost everything in the same way."""
        first = losses[0][0]
        target = first.target
        subject = f"{first.source} → {target.netns} on {target.host}"
        pair = (host, first.source), (target.host, target.netns)
        actual = {_actual(reply) for _, reply in losses}
        if len(losses) == tried and len(actual) == 1:
            lost = Deviation(f"{subject}, UDP and TCP", "an answer", actual.pop())
            yield from about("", [lost], *ways.of_packet(self.plan, *pair))
            return
        for probe, reply in losses:
            lost = Deviation(f"{subject}, {probe.what}", "an answer", _actual(reply))
            yield from about("", [lost], *ways.of_packet(self.plan, *pair, full=probe.job.mode == "df"))

    def _is_own(self, host: str, probe: Probe) -> bool:
        """Whether the address asked is also one of the source's own network, where a refusal is nobody else's."""
        source = self.ends.get((host, probe.source))
        network = source.network if source else None
        return network is not None and any(c.address == probe.target.address for c in network.containers)

    def handshakes(self, host: str, session: Session) -> Finding:
        """A recent handshake with every peer to which packets of this audit went."""
        peers = {peer.host: peer.public_key for peer in self.plan.hosts[host].mesh.peers}
        partners = sorted({end.host for _, end in self.pairs(host)} & peers.keys())
        ages = session.handshakes()
        deviations: list[Deviation] = []
        for partner in partners:
            age = ages.get(peers[partner])
            if age is None or age > HANDSHAKE_SECONDS:
                actual = "none" if age is None else f"{age} s ago"
                old = Deviation(f"handshake with {partner}", f"within {HANDSHAKE_SECONDS} s", actual)
                deviations += about("", [old], *ways.of_handshake(self.plan, host, partner))
        return Finding(f"{plural(len(partners), 'peer')} with a recent handshake", tuple(deviations))


def sample(network: Network, hosts: Collection[str], plan: Plan) -> dict[str, tuple[Port, ...]]:
    """The containers of a network that take part, by host: a few of each host, always the same ones."""
    found = {}
    for host in network.hosts:
        if host not in hosts:
            continue
        overlay = next(overlay for overlay in plan.hosts[host].overlays if overlay.network is network)
        ports = overlay.ports[1:]
        found[host] = tuple(ports[:: -(-len(ports) // CONTAINERS_OF_A_HOST)])
    return found


def interleaved(ports: Mapping[str, tuple[T, ...]]) -> list[tuple[str, T]]:
    """The chosen containers so that neighbours are on different hosts wherever there are several."""
    longest = max((len(chosen) for chosen in ports.values()), default=0)
    return [
        (host, chosen[row]) for row in range(longest) for host, chosen in sorted(ports.items()) if row < len(chosen)
    ]


def steps_of(count: int) -> Sequence[int]:
    """How many places further the partners of each of ``count`` containers are: 1, 2, 4 … in a large network."""
    if count <= ALL_PAIRS_UP_TO:
        return range(1, count)
    return [1 << bit for bit in range(count.bit_length()) if 1 << bit < count]


def _probe(
    netns: str, source: str, address: str, end: End, protocol: str, port: int, *,
    size: int = 0, allowed: bool = True, mode: str = "any",
) -> Probe:  # fmt: skip
    number = secrets.token_hex(TOKEN // 2).encode()
    payload = number.ljust(max(size, 2 * TOKEN), b"\0")
    seconds = ALLOWED_SECONDS if allowed else FORBIDDEN_SECONDS
    what = f"{protocol.upper()} {port}" + (f" with {size + UDP_OVERHEAD} bytes unfragmented" if size else "")
    job = Job(netns, protocol, address, port, payload, "df" if size else mode, seconds)
    return Probe(job, source, end, number, what, allowed)


def _answers(probe: Probe, reply: Reply) -> bool:
    expected = probe.number + probe.target.token.encode()
    return not reply.error and reply.data[: 2 * TOKEN] == expected and len(reply.data) == len(probe.job.payload)


def _actual(reply: Reply) -> str:
    return str(reply) if reply.error else f"{reply} from somebody else"


def _resolved(message: bytes, reply: Reply) -> str:
    if reply.error:
        return str(reply)
    try:
        answer = dns.read_answer(message, reply.data)
    except ValueError as error:
        return str(error)
    return " ".join(answer.values) or answer.rcode
