"""What each resolver is asked, and what it must answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from privnet.audit import dns, outside, ways
from privnet.audit.finding import Deviation, Finding, about
from privnet.audit.session import NO_ANSWER, Job, Reply, Session
from privnet.diagnostics import plural
from privnet.plan.host import HostPlan, Plan
from privnet.plan.overlay import Network, Overlay
from privnet.render import ETC

ASKED_BY_TCP = 50
"""Names of one network that are also asked over TCP; beyond that, evenly chosen ones, and every truncated answer."""
OTHER_NETWORKS = 3
NOBODY = "privnet-audit-nobody"


@dataclass(frozen=True, slots=True)
class Question:
    """A question from inside a container to its resolver.

    :param rcode: what must come
    :param values: the answer's records in any order
    """

    network: str
    netns: str
    resolver: str
    name: str
    kind: int
    protocol: str
    rcode: str
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        over = "" if self.protocol == "udp" else " over TCP"
        where = "" if self.network in self.name else f" in {self.network}"
        return f"{self.name} {dns.TYPES[self.kind]}{over}{where}"


def ask(plan: Plan, host: HostPlan, session: Session) -> Finding:
    """Ask every resolver of a host for every name of its network, and for some that it must not know."""
    questions = [q for overlay in host.overlays for q in network_questions(plan, host, overlay)]
    deviations: list[Deviation] = []
    again = _round(host, questions, session, deviations)
    again = _round(host, again, session, deviations)
    deviations += [Deviation(str(q), "a whole answer", "a truncated one") for q in again]
    deviations += outside.ask(host, session)
    seen = f"{plural(len(questions) + outside.questions(host), 'question')} to {plural(len(host.overlays), 'resolver')}"
    return Finding(seen, tuple(deviations))


def _round(host: HostPlan, questions: list[Question], session: Session, deviations: list[Deviation]) -> list[Question]:
    """Ask; the questions whose answers did not fit and are to be asked over TCP."""
    asked = [dns.question(number, question.name, question.kind) for number, question in enumerate(questions)]
    jobs = [
        Job(question.netns, question.protocol, question.resolver, 53, message)
        for question, message in zip(questions, asked, strict=True)
    ]
    again = []
    replies = session.run(jobs)
    silent = _silent(questions, replies)
    for network, why in sorted(silent.items()):
        deviations += about("", [Deviation(f"resolver of {network}", "answers", why)], *_way_to(network, host))
    for question, message, reply in zip(questions, asked, replies, strict=True):
        if question.network in silent:
            continue
        truncated, found = _judge(question, message, reply, host.ttl)
        deviations += about("", found, *(f"file {ETC}/names/{question.network}.{kind}" for kind in ("hosts", "conf")))
        if truncated:
            again.append(replace(question, protocol="tcp"))
    return again


def _silent(questions: list[Question], replies: list[Reply]) -> dict[str, str]:
    """Networks whose resolver answered nothing at all, and what came instead: one deviation, not one for each name."""
    said: dict[str, set[str]] = {}
    for question, reply in zip(questions, replies, strict=True):
        said.setdefault(question.network, set()).add(str(reply) if reply.error else "")
    # Kernels limit how often they say that nobody listens, so silence beside a refusal is a refusal.
    return {
        network: ", ".join(sorted(errors - {NO_ANSWER} or errors))
        for network, errors in said.items()
        if "" not in errors
    }


def _way_to(network: str, host: HostPlan) -> tuple[str, ...]:
    """What an answer of a network's resolver stands on: its unit, the container that asks, and what is between them."""
    overlay = next(overlay for overlay in host.overlays if overlay.network.id == network)
    between = [f"unit privnet-dns@{network}.service", f"device {overlay.network.bridge}"]
    for port in overlay.ports[:2]:
        between += [f"state of {port.name}", *ways.inside(port)]
    return tuple(between)


def _judge(question: Question, message: bytes, reply: Reply, ttl: int) -> tuple[bool, list[Deviation]]:
    expected = _words(question.rcode, question.values)
    if reply.error:
        return False, [Deviation(str(question), expected, str(reply))]
    try:
        answer = dns.read_answer(message, reply.data)
    except ValueError as error:
        return False, [Deviation(str(question), expected, str(error))]
    if answer.truncated and question.protocol == "udp":
        return True, []
    actual = _words(answer.rcode, answer.values)
    if (answer.rcode, answer.values) != (question.rcode, tuple(sorted(question.values))):
        return False, [Deviation(str(question), expected, actual)]
    if answer.ttls - {ttl}:
        return False, [Deviation(f"{question}: TTL", str(ttl), " ".join(map(str, sorted(answer.ttls))))]
    return False, []


def _words(rcode: str, values: tuple[str, ...]) -> str:
    if rcode == "NOERROR" and not values:
        return "NODATA"
    return " ".join(sorted(values)) if rcode == "NOERROR" else rcode


def network_questions(plan: Plan, host: HostPlan, overlay: Overlay) -> Iterator[Question]:
    """What a resolver is asked, from the first container that it has on this host."""
    network = overlay.network
    netns = overlay.ports[1].netns

    def asks(name: str, kind: int, rcode: str, values: tuple[str, ...] = (), protocol: str = "udp") -> Question:
        return Question(network.id, netns, network.resolver, name, kind, protocol, rcode, values)

    addresses = name_table(network)
    by_tcp = _sample(list(addresses), ASKED_BY_TCP)
    for name, values in addresses.items():
        yield asks(name, dns.A, "NOERROR", values)
        yield asks(name, dns.AAAA, "NOERROR")
        if name in by_tcp:
            yield asks(name, dns.A, "NOERROR", values, "tcp")
    for record in network.names.records:
        yield asks(dns.reverse_name(record.address), dns.PTR, "NOERROR", record.names[:1])
    for name in _unknown(plan, network):
        yield asks(name, dns.A, "NXDOMAIN")
    yield asks(f"{NOBODY}.{network.names.suffix}", dns.A, "NXDOMAIN", protocol="tcp")
    if not host.outside.upstream:
        yield asks(outside.FOREIGN, dns.A, "REFUSED")


def name_table(network: Network) -> dict[str, tuple[str, ...]]:
    """Every name of a network and its addresses; none for a name that only exists."""
    table: dict[str, list[str]] = {name: [] for name in network.names.empty}
    for record in network.names.records:
        for name in record.names:
            table.setdefault(name, []).append(record.address)
    return {name: tuple(addresses) for name, addresses in sorted(table.items())}


def _unknown(plan: Plan, network: Network) -> Iterator[str]:
    """Names that must not exist here: of nobody, and of other networks."""
    yield f"{NOBODY}.{network.names.suffix}"
    others = [other for key, other in sorted(plan.networks.items()) if key != network.id and other.names.records]
    for other in others[:OTHER_NETWORKS]:
        yield other.names.records[0].names[0]
        yield other.names.records[0].names[-1]


def _sample(names: list[str], count: int) -> set[str]:
    step = max(1, -(-len(names) // count))
    return set(names[::step])
