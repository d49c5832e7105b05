"""Who watches while a run is stopped: a flow that must not suffer, and strangers that must not be reached.

Two containers send all the time, with a canary in every datagram: 100/s to a container of their own network, and 20/s
to each of those that they must not reach, where somebody listens and counts. What is for a host is a frame for the
bridge's MAC, as an attacker would send it: a container has no route to one.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from runs import container_of, plan_of

from privnet.lab import Lab

PORT = 7117
WAITED = 2.0
"""Seconds after which an answer that has not come is lost."""

SHORTEST = 1.5
"""Seconds that an interval lasts at least: a run that is stopped at once is watched long enough to say something."""

# Every line of its standard input is answered by how many strangers' datagrams have come since the last one.
ANSWER = """
import selectors, socket, sys
selector = selectors.DefaultSelector()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("0.0.0.0", int(sys.argv[1])))
selector.register(udp, 1, "udp"); selector.register(sys.stdin, 1, "order")
print("ready", flush=True)
forbidden = 0
while True:
    for key, _ in selector.select():
        if key.data == "order":
            if not sys.stdin.readline():
                sys.exit()
            print(forbidden, flush=True); forbidden = 0
            continue
        data, address = udp.recvfrom(2048)
        if b"stranger" in data:
            forbidden += 1
        else:
            udp.sendto(data, address)
"""

# Every line of its standard input ends an interval, whose counts are printed when its last answer was waited for.
SEND = """
import json, select, socket, struct, sys, time
good, bad, outside, mac, port, waited = json.loads(sys.argv[1])
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.setblocking(False)
udp.bind(("0.0.0.0", 0))
far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); far.setblocking(False)
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); raw.bind(("pn0", 0x0800))
own = open("/sys/class/net/pn0/address").read().strip()
def send(through, address, word, number):
    try:
        through.sendto(b"privnet-canary %s %016d" % (word, number), (address, port))
    except OSError:
        return 0  # a friend's counts as lost
    return 1
def checksum(data):
    total = sum(struct.unpack(">%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
def frame(address):
    text = b"privnet-canary stranger"
    head = struct.pack(">BBHHHBBH", 0x45, 0, 28 + len(text), 1, 0, 64, 17, 0)
    head += socket.inet_aton(source) + socket.inet_aton(address)
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    ethernet = bytes.fromhex((mac + own).replace(":", "")) + bytes.fromhex("0800")
    return ethernet + head + struct.pack(">HHHH", udp.getsockname()[1], port, 8 + len(text), 0) + text
probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); probe.connect((good, port)); source = probe.getsockname()[0]
frames = [frame(address) for address in outside]
def answers():
    while True:
        try:
            yield int(udp.recv(2048).rpartition(b" ")[2])
        except BlockingIOError:
            return
        except OSError:
            pass
def interval():
    return dict(sent=0, lost=0, tried=0, first=None)
number, outstanding, due, current, closing = 0, {}, time.monotonic(), interval(), []
print("ready", flush=True)
while True:
    now = time.monotonic()
    while due <= now:
        due += 0.01; number += 1
        outstanding[number] = (current, now); current["sent"] += 1
        send(udp, good, b"friend", number)
        if number % 5 == 0:
            current["tried"] += sum(send(far, stranger, b"stranger", number) for stranger in bad)
            current["tried"] += sum(raw.send(data) > 0 for data in frames)
    readable = select.select([sys.stdin, udp], [], [], max(0, due - time.monotonic()))[0]
    for found in answers():
        outstanding.pop(found, None)
    now = time.monotonic()
    for late in [n for n, (_, sent) in outstanding.items() if now - sent > waited]:
        counts, sent = outstanding.pop(late)
        counts["lost"] += 1
        counts["first"] = counts["first"] or time.time() - (now - sent)
    if sys.stdin in readable:
        if not sys.stdin.readline():
            sys.exit()
        closing.append((current, number)); current = interval()
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
    """What became of a flow, how much was ``tried`` at strangers, and when the ``first`` was sent that was lost."""

    flow: Flow
    sent: int
    lost: int
    tried: int
    first: float | None


class Witnesses:
    """They run until the block ends; a host that has lost power takes its own with it."""

    def __init__(self, lab: Lab, flows: Sequence[Flow]) -> None:
        self._lab, self._flows, self._stack = lab, tuple(flows), ExitStack()
        self._senders: list[subprocess.Popen[str]] = []
        self._listeners: dict[str, subprocess.Popen[str]] = {}
        self._processes: list[subprocess.Popen[str]] = []
        self._since = time.monotonic()

    def begin(self) -> None:
        """Everything answers, then everything sends."""
        slots = {s for flow in self._flows for s in (flow.target, *flow.strangers) if s not in self._lab.hosts}
        for slot in sorted(slots):
            host = container_of(self._lab, slot).host
            self._listeners[slot] = self._run(host, _within(slot), ANSWER, str(PORT))
        for host in sorted({s for flow in self._flows for s in flow.strangers if s in self._lab.hosts}):
            self._listeners[host] = self._run(host, [], ANSWER, str(PORT))
        for flow in self._flows:
            source = container_of(self._lab, flow.source)
            good = container_of(self._lab, flow.target).address
            bad = [container_of(self._lab, s).address for s in flow.strangers if s not in self._lab.hosts]
            outside = [address for s in flow.strangers if s in self._lab.hosts for address in self._addresses(s)]
            mac = self._lab.exec(source.host, f"cat /sys/class/net/{source.port}/master/address").stdout.strip()
            task = json.dumps([good, bad, outside, mac, PORT, WAITED])
            self._senders.append(self._run(source.host, _within(flow.source), SEND, task))
        self._since = time.monotonic()

    def cut(self) -> tuple[list[Seen], dict[str, int]]:
        """What became of each flow since the last cut, and where strangers' datagrams have arrived.

        Waits until the interval is ``SHORTEST`` long. Of those that went with their host there is nothing.
        """
        time.sleep(max(0, self._since + SHORTEST - time.monotonic()))
        self._since = time.monotonic()
        said = list(_said([*self._senders, *self._listeners.values()]))
        senders, listeners = said[: len(self._senders)], said[len(self._senders) :]
        flows = [Seen(flow, **json.loads(line)) for flow, line in zip(self._flows, senders, strict=False) if line]
        return flows, {where: int(line) for where, line in zip(self._listeners, listeners, strict=True) if line}

    @property
    def alive(self) -> bool:
        """Whether all of them are at work."""
        return bool(self._processes) and all(process.poll() is None for process in self._processes)

    def end(self) -> None:
        """All of them end with their standard input, or have ended with their host."""
        self._stack.close()
        self._senders.clear()
        self._listeners.clear()
        self._processes.clear()

    def _addresses(self, stranger: str) -> list[str]:
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


def _said(processes: Sequence[subprocess.Popen[str]]) -> Iterator[str]:
    for process in processes:
        with suppress(BrokenPipeError):
            process.stdin.write("cut\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
    for process in processes:
        yield process.stdout.readline()  # type: ignore[union-attr]


def _within(slot: str) -> list[str]:
    return ["ip", "netns", "exec", slot]


def _end(process: subprocess.Popen[str]) -> None:
    for stream in (process.stdin, process.stdout):
        with suppress(BrokenPipeError):
            stream.close()  # type: ignore[union-attr]
    process.wait(timeout=30)
