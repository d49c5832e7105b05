"""Names outside: what each server of ``dns.upstream`` is asked, from where a resolver asks it, and a resolver itself.

What a server answers is its own business, a refusal too: that it answers is what counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from privnet.audit import dns
from privnet.audit.checks.resolvers import grounds, hearers
from privnet.audit.finding import Deviation, about
from privnet.audit.session import Job, Reply, Session
from privnet.plan.host import HostPlan
from privnet.plan.overlay import Network, Overlay
from privnet.render import ETC, FORWARDER

FOREIGN = "example.com"
"""Asked where no domain is declared that the servers know."""
PROTOCOLS = ("udp", "tcp")
SECONDS = 4.0
"""More than the first question may take, which starts a forwarder."""


def questions(host: HostPlan) -> int:
    """How many are asked."""
    return len(host.overlays) * len(PROTOCOLS) * (len(host.outside.upstream) + 1) if host.outside.upstream else 0


def ask(host: HostPlan, session: Session) -> Iterator[Deviation]:
    """Ask each server by the way that resolvers have, and each resolver from its first container."""
    if not host.outside.upstream:
        return
    name = next(iter(host.outside.internal), FOREIGN)
    message = dns.question(1, name, dns.A)
    jobs = [job for overlay in host.overlays for job in _jobs(host, overlay, message)]
    replies = iter(session.run(jobs))
    for network in (overlay.network for overlay in host.overlays):
        for protocol in PROTOCOLS:
            over = f"over {protocol.upper()} in {network.id}"
            servers = [(server, _read(message, next(replies))) for server in host.outside.upstream]
            by_resolver = _read(message, next(replies))
            answered = {rcode for _, (rcode, _) in servers if rcode}
            if not answered:
                said = ", ".join(f"{server}: {why}" for server, (_, why) in servers)
                silent = Deviation(f"dns.upstream {over}", "an answer", said)
                yield from about(_way(network, protocol), [silent], *_ways(network))
            # What a server refused may have been asked of another.
            elif by_resolver[0] not in {"NOERROR", "NXDOMAIN", *answered}:
                wrong = Deviation(f"{name} {over}", "what dns.upstream answers", by_resolver[0] or by_resolver[1])
                yield from about("", [wrong], f"resolver of {network.id}", *_ways(network))


def _jobs(host: HostPlan, overlay: Overlay, message: bytes) -> Iterator[Job]:
    network = overlay.network
    for protocol in PROTOCOLS:
        for place in host.outside.places:
            yield Job(network.id, protocol, place, 53, message, seconds=SECONDS)
        yield Job(overlay.ports[1].netns, protocol, network.resolver, 53, message, seconds=SECONDS)


def _read(message: bytes, reply: Reply) -> tuple[str, str]:
    """The kind of an answer, empty where there is none, and what came instead."""
    if reply.error:
        return "", str(reply)
    try:
        return dns.read_answer(message, reply.data).rcode, ""
    except ValueError as error:
        return "", str(error)


def _way(network: Network, protocol: str) -> str:
    return f"way outside of {network.id} over {protocol}"


def _ways(network: Network) -> tuple[str, ...]:
    """What an answer from outside stands on."""
    return hearers(network), f"file {ETC}/lib/{FORWARDER}", *grounds(network)
