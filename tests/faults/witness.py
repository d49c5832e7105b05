"""Who watches while a run is stopped: a flow that must not suffer, and strangers that must not be reached.

Two containers send all the time, with a canary in every datagram: 100/s to a container of their own network, and 20/s
to each of those that they must not reach, where somebody would answer.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from runs import container_of, plan_of

from privnet.lab import Lab

PORT = 7117
WAITED = 2.0
"""Seconds after which an answer that has not come is lost."""

ANSWER = """
import selectors, socket, sys
selector = selectors.DefaultSelector()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("0.0.0.0", int(sys.argv[1])))
selector.register(udp, 1, "udp"); selector.register(sys.stdin, 1, "order")
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        if key.data == "order":
            sys.exit()
        data, address = udp.recvfrom(2048); udp.sendto(data, address)
"""

# Every line of its standard input ends an interval, whose counts are printed when its last answer was waited for.
SEND = """
import json, select, socket, sys, time
good, bad, port, waited = json.loads(sys.argv[1])
addresses = {}
def to(address):
    # Not connected: there may be no way to a stranger, which is no error here.
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.setblocking(False)
    addresses[udp] = (address, port)
    return udp
def send(udp, number):
    try:
        udp.sendto(b"privnet-canary %016d" % number, addresses[udp])
    except OSError:
        pass  # it counts as lost
def answers(udp):
    while True:
        try:
            yield int(udp.recv(2048).rpartition(b" ")[2])
        except BlockingIOError:
            return
        except OSError:
            pass
friend, strangers = to(good), [to(address) for address in bad]
number, outstanding, due = 0, {}, time.monotonic()
counts, closing = dict(sent=0, lost=0, forbidden=0, tried=0), []
current = counts
print("ready", flush=True)
while True:
    now = time.monotonic()
    while due <= now:
        due += 0.01; number += 1
        outstanding[number] = (current, now); current["sent"] += 1
        send(friend, number)
        if number % 5 == 0:
            for stranger in strangers:
                current["tried"] += 1; send(stranger, number)
    readable = select.select([sys.stdin, friend, *strangers], [], [], max(0, due - time.monotonic()))[0]
    for found in answers(friend):
        outstanding.pop(found, None)
    for stranger in strangers:
        current["forbidden"] += sum(1 for _ in answers(stranger))
    now = time.monotonic()
    for late in [n for n, (_, sent) in outstanding.items() if now - sent > waited]:
        outstanding.pop(late)[0]["lost"] += 1
    if sys.stdin in readable:
        if not sys.stdin.readline():
            sys.exit()
        closing.append((current, number)); current = dict(sent=0, lost=0, forbidden=0, tried=0)
    while closing and not any(n <= closing[0][1] for n in outstanding):
        print(json.dumps(closing.pop(0)[0]), flush=True)
"""


@dataclass(frozen=True)
class Flow:
    """Between two containers that no run touches; ``strangers``: slots and hosts that ``source`` must not reach."""

    source: str
    target: str
    strangers: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """What became of a flow: ``forbidden`` answers of strangers, of so many ``tried``."""

    flow: Flow
    sent: int
    lost: int
    forbidden: int
    tried: int


class Witnesses:
    """They run until the block ends; a host that has lost power takes its own with it."""

    def __init__(self, lab: Lab, flows: Sequence[Flow]) -> None:
        self._lab, self._flows, self._stack = lab, tuple(flows), ExitStack()
        self._senders: list[subprocess.Popen[str]] = []
        self._processes: list[subprocess.Popen[str]] = []

    def begin(self) -> None:
        """Everything answers, then everything sends."""
        slots = {s for flow in self._flows for s in (flow.target, *flow.strangers) if s not in self._lab.hosts}
        for slot in sorted(slots):
            self._run(container_of(self._lab, slot).host, _within(slot), ANSWER, str(PORT))
        for host in sorted({s for flow in self._flows for s in flow.strangers if s in self._lab.hosts}):
            self._run(host, [], ANSWER, str(PORT))
        for flow in self._flows:
            good = container_of(self._lab, flow.target).address
            bad = [address for stranger in flow.strangers for address in self._addresses(stranger)]
            task = json.dumps([good, bad, PORT, WAITED])
            self._senders.append(self._run(container_of(self._lab, flow.source).host, _within(flow.source), SEND, task))

    def cut(self) -> list[Seen]:
        """What became of each flow since the last cut."""
        for sender in self._senders:
            sender.stdin.write("cut\n")  # type: ignore[union-attr]
            sender.stdin.flush()  # type: ignore[union-attr]
        lines = [sender.stdout.readline() for sender in self._senders]  # type: ignore[union-attr]
        return [Seen(flow, **json.loads(line)) for flow, line in zip(self._flows, lines, strict=True)]

    @property
    def alive(self) -> bool:
        """Whether all of them are at work."""
        return bool(self._processes) and all(process.poll() is None for process in self._processes)

    def end(self) -> None:
        """All of them end with their standard input, or have ended with their host."""
        self._stack.close()
        self._senders.clear()
        self._processes.clear()

    def _addresses(self, stranger: str) -> list[str]:
        if stranger not in self._lab.hosts:
            return [container_of(self._lab, stranger).address]
        mesh = plan_of(self._lab).hosts[stranger].mesh
        return [str(self._lab.machine(stranger).host.addresses[0]), mesh.address]

    def _run(self, host: str, within: list[str], program: str, argument: str) -> subprocess.Popen[str]:
        argv = self._lab.argv(host, [*within, "python3", "-c", program, argument])
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._stack.callback(_end, process)
        self._processes.append(process)
        said = process.stdout.readline() if process.stdout else ""
        if said != "ready\n":
            raise AssertionError(f"{host}: a witness said {said!r}")
        return process


def _within(slot: str) -> list[str]:
    return ["ip", "netns", "exec", slot]


def _end(process: subprocess.Popen[str]) -> None:
    for stream in (process.stdin, process.stdout):
        with suppress(BrokenPipeError):
            stream.close()  # type: ignore[union-attr]
    process.wait(timeout=30)
