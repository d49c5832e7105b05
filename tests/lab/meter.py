"""What a change does to traffic that it does not concern: 100 packets/s, one long stream, 10 questions/s for each flow.

    with metering(lab, Flow("1.web.ap-…", "1.worker.ap-…")) as meter:
        with meter.during("a no-op run") as seen:
            deploy(lab)
    assert_unharmed(seen)

Both programs need nothing but python3 and run inside the containers' namespaces. The watch over the underlay knows what
they send (`CANARY`). A session goes on over many changes:
each is counted by what was sent during it, and every packet is waited for.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from lab.runs import container_of, network_of, plan_of
from privnet.lab import Lab
from security.watch import CANARY

PORT = 7007
WAITED = 2.0
"""Seconds after which an answer that has not come is lost."""
STALL = 1.0
"""Seconds without anything from the stream that count as a stall."""

# Echoes datagrams and streams; ends with its standard input. A line `reset` there resets every stream.
ANSWER = """
import os, selectors, socket, struct, sys
port = int(sys.argv[1])
selector = selectors.DefaultSelector()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("0.0.0.0", port))
tcp = socket.create_server(("0.0.0.0", port))
streams = set()
for file, what in ((sys.stdin, "order"), (udp, "udp"), (tcp, "tcp")):
    selector.register(file, selectors.EVENT_READ, what)
def drop(stream):
    selector.unregister(stream); streams.discard(stream); stream.close()
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        if key.data == "order":
            if not sys.stdin.readline():
                sys.exit()
            for stream in list(streams):
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); drop(stream)
        elif key.data == "udp":
            data, address = udp.recvfrom(2048); udp.sendto(data, address)
        elif key.data == "tcp":
            stream, _ = tcp.accept(); streams.add(stream)
            selector.register(stream, selectors.EVENT_READ, "stream")
        elif key.fileobj in streams:
            try:
                data = key.fileobj.recv(65536)
                if data:
                    key.fileobj.sendall(data)
                else:
                    drop(key.fileobj)
            except OSError:
                drop(key.fileobj)
"""

# Sends and counts. Every line of its standard input ends an interval: its counts are printed as JSON when the last
# answer of it has come, or has been waited for.
SEND = """
import errno, json, selectors, socket, struct, sys, time
address, port, resolver, names, waited, stalled, canary = json.loads(sys.argv[1])
canary = canary.encode()
names = [(name, sorted(wanted)) for name, wanted in names.items()]
now = time.monotonic
selector = selectors.DefaultSelector()

class Interval:
    def __init__(self):
        self.began, self.ended = now(), None
        self.counts = dict(sent=0, lost=0, doubled=0, gap=0.0, refused=0, streamed=0, resets=0, stalls=0, silence=0.0,
                           asked=0, missing=0, wrong=0, mute=0.0)

current = Interval()
closing = []

class Echo:
    '''Numbered datagrams: what each interval sent, what came back, and the longest time without anything.'''
    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((address, port)); self.socket.setblocking(False)
        selector.register(self.socket, selectors.EVENT_READ, self.read)
        self.number, self.open, self.seen, self.last, self.due = 0, {}, set(), now(), now()
    def send(self):
        self.due += 0.01
        self.number += 1
        self.open[self.number] = (current, now()); current.counts["sent"] += 1
        try:
            self.socket.send(struct.pack("!Q", self.number) + canary + b" datagram")
        except OSError:
            current.counts["refused"] += 1
    def read(self):
        while True:
            try:
                number, = struct.unpack("!Q", self.socket.recv(64)[:8])
            except BlockingIOError:
                return
            except OSError:
                current.counts["refused"] += 1
                continue
            if number in self.open:
                del self.open[number]; self.seen.add(number)
            elif number in self.seen:
                current.counts["doubled"] += 1
            self.silent()
            self.last = now()
    def silent(self):
        current.counts["gap"] = max(current.counts["gap"], now() - self.last)
    def expire(self):
        for number in [n for n, (_, sent) in self.open.items() if now() - sent > waited]:
            self.open.pop(number)[0].counts["lost"] += 1
        self.seen = {n for n in self.seen if n > self.number - 1000}

class Stream:
    '''One connection that is to last: a line every 50 ms, echoed.'''
    def __init__(self):
        self.socket, self.due, self.heard, self.stalling = None, now(), now(), False
    def connect(self):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(2)
        try:
            self.socket.connect((address, port))
            self.socket.setblocking(False)
            selector.register(self.socket, selectors.EVENT_READ, self.read)
        except OSError:
            self.socket.close(); self.socket = None
    def broken(self):
        current.counts["resets"] += 1
        selector.unregister(self.socket); self.socket.close(); self.socket = None
    def send(self):
        self.due += 0.05
        if self.socket is None:
            return self.connect()
        try:
            self.socket.send((canary + b" stream ").ljust(64, b"x")); current.counts["streamed"] += 1
        except BlockingIOError:
            pass
        except OSError:
            self.broken()
    def read(self):
        try:
            if not self.socket.recv(65536):
                return self.broken()
        except BlockingIOError:
            return
        except OSError:
            return self.broken()
        self.silent()
        self.heard, self.stalling = now(), False
    def silent(self):
        silence = now() - self.heard
        current.counts["silence"] = max(current.counts["silence"], silence)
        if silence > stalled and not self.stalling:
            self.stalling = True; current.counts["stalls"] += 1
    def expire(self):
        self.silent()

class Questions:
    '''A question every 100 ms; each is to be answered with exactly these addresses.'''
    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((resolver, 53)); self.socket.setblocking(False)
        selector.register(self.socket, selectors.EVENT_READ, self.read)
        self.number, self.open, self.due, self.last = 0, {}, now(), now()
    def send(self):
        self.due += 0.1
        self.number = self.number % 60000 + 1
        name, wanted = names[self.number % len(names)]
        self.open[self.number] = (current, now(), wanted); current.counts["asked"] += 1
        question = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + bytes(1)
        try:
            self.socket.send(struct.pack("!6H", self.number, 0x0100, 1, 0, 0, 0) + question + struct.pack("!2H", 1, 1))
        except OSError:
            pass
    def read(self):
        while True:
            try:
                data = self.socket.recv(4096)
            except BlockingIOError:
                return
            except OSError:
                continue
            number, flags, _, count = struct.unpack("!4H", data[:8])
            if number not in self.open:
                continue
            interval, _, wanted = self.open.pop(number)
            self.silent()
            self.last = now()
            place = data.index(0, 12) + 5
            found = [socket.inet_ntoa(data[place + 16 * n + 12:place + 16 * n + 16]) for n in range(count)]
            if flags & 15 or sorted(found) != wanted:
                interval.counts["wrong"] += 1
    def silent(self):
        current.counts["mute"] = max(current.counts["mute"], now() - self.last)
    def expire(self):
        for number in [n for n, (_, sent, _) in self.open.items() if now() - sent > waited]:
            self.open.pop(number)[0].counts["missing"] += 1

def order():
    global current
    if not sys.stdin.readline():
        sys.exit()
    for part in parts:
        if part is not stream:
            part.silent()
    current.ended = now()
    closing.append(current)
    current = Interval()

echo, stream, questions = parts = Echo(), Stream(), Questions()
def all_have_answered():
    return echo.seen and stream.heard > begun and questions.last > begun

selector.register(sys.stdin, selectors.EVENT_READ, order)
begun, ready, tidied = now(), False, now()
while True:
    if not ready and all_have_answered():
        # What the first packets had to wait for, a handshake for example, is no one's change.
        current, ready = Interval(), True
        echo.last = stream.heard = questions.last = now()
        print("ready", flush=True)
    if not ready and now() - begun > 30:
        sys.exit(f"not answered within 30 s: {current.counts}")
    for part in parts:
        while part.due <= now():
            part.send()
    for key, _ in selector.select(max(0, min(part.due for part in parts) - now())):
        key.data()
    if now() - tidied > 0.1:
        tidied = now()
        for part in parts:
            part.expire()
    while closing and not any(one[0] is closing[0] for part in (echo, questions) for one in part.open.values()):
        interval = closing.pop(0)
        print(json.dumps(interval.counts | dict(seconds=interval.ended - interval.began)), flush=True)
"""


@dataclass(frozen=True)
class Flow:
    """From one container to another; its questions go to the sender's resolver.

    :param asked: slots whose names are asked for; the target's own if left out
    """

    source: str
    target: str
    asked: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{_short(self.source)} → {_short(self.target)}"


@dataclass
class Counts:
    """What became of a flow during one change.

    :param sent: datagrams, of which so many were ``lost``, came back ``doubled``, or were ``refused`` by a host
    :param gap: longest time without a datagram, in seconds; ``silence`` of the stream, ``mute`` of the resolver
    :param resets: ends of the one stream; ``stalls``: times of more than :data:`STALL` without anything from it
    :param missing: questions without an answer, and such with a ``wrong`` one
    """

    what: str = ""
    flow: str = ""
    seconds: float = 0.0
    sent: int = 0
    lost: int = 0
    doubled: int = 0
    refused: int = 0
    gap: float = 0.0
    streamed: int = 0
    resets: int = 0
    stalls: int = 0
    silence: float = 0.0
    asked: int = 0
    missing: int = 0
    wrong: int = 0
    mute: float = 0.0

    @property
    def unharmed(self) -> bool:
        return not any((self.lost, self.doubled, self.refused, self.resets, self.stalls, self.missing, self.wrong))

    def __str__(self) -> str:
        packets = f"{self.lost}/{self.sent} lost, {self.doubled} doubled, gap {self.gap * 1000:.0f} ms"
        stream = f"{self.resets} resets, {self.stalls} stalls, silence {self.silence * 1000:.0f} ms"
        names = f"{self.missing} missing + {self.wrong} wrong of {self.asked} answers, mute {self.mute * 1000:.0f} ms"
        return f"{self.what}, {self.seconds:.1f} s: {self.flow}: {packets}; {stream}; {names}"


@dataclass
class Meter:
    """A session over some flows."""

    flows: tuple[Flow, ...]
    senders: list[subprocess.Popen[str]]
    answerers: dict[str, subprocess.Popen[str]]
    counts: list[Counts] = field(default_factory=list)

    @contextmanager
    def during(self, what: str) -> Iterator[dict[Flow, Counts]]:
        """What became of each flow from half a second before the block to half a second after it."""
        seen: dict[Flow, Counts] = {}
        self._cut()
        time.sleep(0.5)
        yield seen
        time.sleep(0.5)
        for flow, counts in zip(self.flows, self._cut(), strict=True):
            seen[flow] = Counts(what, str(flow), **counts)
            self.counts.append(seen[flow])
            print(seen[flow])

    def reset(self, slot: str) -> None:
        """Let a container reset its streams."""
        _tell(self.answerers[slot], "reset")

    def _cut(self) -> list[dict[str, float]]:
        for sender in self.senders:
            _tell(sender, "cut")
        return [json.loads(_line(sender)) for sender in self.senders]


@contextmanager
def metering(lab: Lab, *flows: Flow) -> Iterator[Meter]:
    """A session: everything flows when the block begins."""
    with ExitStack() as stack:
        answerers = {
            slot: stack.enter_context(_program(lab, container_of(lab, slot).host, slot, ANSWER, str(PORT)))
            for slot in dict.fromkeys(flow.target for flow in flows)
        }
        senders = [
            stack.enter_context(
                _program(lab, container_of(lab, flow.source).host, flow.source, SEND, json.dumps(_task(lab, flow)))
            )
            for flow in flows
        ]
        time.sleep(0.5)
        yield Meter(flows, senders, answerers)


@contextmanager
def answering_when_there(lab: Lab, host: str, slot: str) -> Iterator[None]:
    """Echoes in a namespace that is not there yet, from the moment when it is."""
    wait = f"for n in $(seq 3000); do [ ! -e /run/netns/{slot} ] || break; sleep 0.02; done"
    wait += f'; exec ip netns exec {slot} python3 -c "$0" "$1"'
    with _running(lab.argv(host, ["sh", "-c", wait, ANSWER, str(PORT)])):
        yield


def assert_unharmed(seen: dict[Flow, Counts], *flows: Flow) -> None:
    """Nothing lost, doubled, reset, stalled, wrong or missing on these flows, all of them if none is named."""
    for flow in flows or seen:
        counts = seen[flow]
        # A busy machine may hold the meter back: what it has not sent cannot have been lost.
        assert counts.sent > 80 * counts.seconds > 50, counts
        assert counts.streamed > 15 * counts.seconds and counts.asked > 8 * counts.seconds, counts
        assert counts.unharmed, counts


def _task(lab: Lab, flow: Flow) -> list[object]:
    target = container_of(lab, flow.target)
    network = next(n for n in plan_of(lab).networks.values() if target in n.containers)
    slots = flow.asked or (flow.target,)
    names = {f"{slot}.{network.names.suffix}": [container_of(lab, slot).address] for slot in slots}
    return [target.address, PORT, network_of(lab, network.id).resolver, names, WAITED, STALL, CANARY.decode()]


@contextmanager
def _program(lab: Lab, host: str, slot: str, program: str, argument: str) -> Iterator[subprocess.Popen[str]]:
    with _running(lab.argv(host, ["ip", "netns", "exec", slot, "python3", "-c", program, argument])) as process:
        if _line(process) != "ready":
            raise AssertionError(f"{host}: the meter in {slot} did not start")
        yield process


@contextmanager
def _running(argv: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A program that ends when its standard input does."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


def _tell(process: subprocess.Popen[str], line: str) -> None:
    if process.stdin is not None:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()


def _line(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline().strip() if process.stdout else ""


def _short(slot: str) -> str:
    return slot.partition(".ap-")[0] + "." + slot.partition(".ap-")[2][:4]
