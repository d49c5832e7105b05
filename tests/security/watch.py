"""A watch over a lab's underlay: every frame, from the boot of its hosts to their end.

Two looks at the same bridge. One takes the beginning of every frame, WireGuard's and SSH's too, and searches it for
what must never be read there: canaries and private names. The other takes the whole of every frame that is none of
WireGuard, SSH, ARP and IPv6 neighbour discovery; there must be none. tcpdump filters, in the kernel; what is left for
Python is a search through a pipe, cheap enough to stay on while a test measures throughput.
"""

from __future__ import annotations

import re
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import yaml

from privnet.lab import Lab

CANARY = b"privnet-canary"
"""Stands in the payload of all traffic that tests send through private networks."""
FORBIDDEN = re.compile(re.escape(CANARY) + rb"[ -~]{0,40}|private-network")
BEGINNING = 512
"""Bytes of each frame that are searched: outer and inner headers are 150, the payload comes after them."""
SETTLE = 0.3
FLUSH = 0.05
NEIGHBOURS = "arp or (icmp6 and ((ip6[40] >= 133 and ip6[40] <= 137) or ip6[40] == 143)) or (ip6 proto 0)"
_GLOBAL_HEADER = 24


@dataclass
class Planted:
    """What was seen while a test planted something."""

    lines: list[str] = field(default_factory=list)


class Watch:
    """Runs until :meth:`end`. ``planted`` is a tcpdump filter for what the tests themselves send."""

    def __init__(self, lab: Lab, planted: str = "") -> None:
        self._found: list[str] = []
        self._lock = threading.Lock()
        self.frames = 0
        expected = f"{NEIGHBOURS} or {_own_traffic(lab)}" + (f" or ({planted})" if planted else "")
        self._everything = _tcpdump(lab, "-s", str(BEGINNING))
        self._others = _tcpdump(lab, "-s", "0", "-U", "--immediate-mode", expression=f"not ({expected})")
        self._threads = [
            threading.Thread(target=self._search, daemon=True),
            threading.Thread(target=self._list, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def seen(self) -> list[str]:
        """What has been seen since it was asked last."""
        if self._everything.poll() is None:
            self._everything.send_signal(signal.SIGUSR2)  # tcpdump(8): write out what is buffered
            time.sleep(FLUSH)
        with self._lock:
            found, self._found = self._found, []
        return found

    @contextmanager
    def planting(self) -> Iterator[Planted]:
        """What is seen during the block is the test's own; it is there at the block's end, held against nobody."""
        before = self.seen()
        planted = Planted()
        try:
            yield planted
        finally:
            # On a busy machine tcpdump takes its time: the end has come when something was seen and then nothing more.
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                time.sleep(SETTLE)
                more = self.seen()
                planted.lines += more
                if planted.lines and not more:
                    break
            with self._lock:
                self._found = before + self._found

    def end(self) -> list[str]:
        """Stop; what had not been told yet. Fails when the watch saw nothing at all: then it proved nothing."""
        time.sleep(SETTLE)
        for process in (self._everything, self._others):
            process.send_signal(signal.SIGINT)
        for thread in self._threads:
            thread.join(10)
        dropped = 0
        for process in (self._everything, self._others):
            said = process.stderr.read().decode() if process.stderr else ""
            process.wait(10)
            dropped += sum(int(count) for count in re.findall(r"(\d+) packets dropped by kernel", said))
        seen = self.seen()
        if not self.frames:
            seen.append("the watch saw no frame at all")
        print(f"the watch searched {self.frames} pieces of the underlay's traffic, {dropped} frames escaped it")
        return seen

    def _tell(self, line: str) -> None:
        with self._lock:
            if len(self._found) < 20:
                self._found.append(line)

    def _search(self) -> None:
        pipe, tail = self._everything.stdout, b""
        assert pipe
        while chunk := pipe.read1(1 << 20):  # type: ignore[attr-defined]
            self.frames += 1
            text = tail + chunk
            for found in FORBIDDEN.finditer(text):
                self._tell(f"the underlay carried {found[0]!r} in clear")
            # A match that the cut would halve is found with the next piece; one that is told already is not kept.
            tail = text[-len(CANARY) :]

    def _list(self) -> None:
        pipe = self._others.stdout
        assert pipe
        pipe.read(_GLOBAL_HEADER)
        while len(header := pipe.read(16)) == 16:
            frame = pipe.read(struct.unpack("<IIII", header)[2])
            self._tell(f"the underlay carried {_described(frame)}")


def _own_traffic(lab: Lab) -> str:
    """A filter for WireGuard and SSH, as the fleet's YAML has their ports."""
    fleet = yaml.safe_load((lab.inventory / "fleet.yaml").read_text())
    port = (fleet.get("wireguard") or {}).get("port", 51820)
    hosts = fleet["hosts"].values()
    endpoints = [host["endpoint"].rpartition(":")[2] for host in hosts if host and "endpoint" in host]
    ssh = {22, *((host.get("ssh") or {}).get("port", 22) for host in hosts if host)}
    wireguard = sorted({port, *map(int, endpoints)})
    parts = [f"udp port {number}" for number in wireguard]
    # "Nobody listens yet", from a host whose mesh is not up; it quotes the encrypted packet.
    parts += [f"(icmp[0] == 3 and icmp[30:2] == {number}) or (ip6[40] == 1 and icmp6)" for number in wireguard]
    return " or ".join([*parts, *(f"tcp port {number}" for number in sorted(ssh))])


def _tcpdump(lab: Lab, *options: str, expression: str = "") -> subprocess.Popen[bytes]:
    command = ["tcpdump", "-i", "underlay", "-nn", "-B", "16384", "-Z", "root", *options, "-w", "-"]
    argv = lab.argv("fabric", [*command, *([expression] if expression else [])])
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    said = []
    for line in process.stderr or ():
        said.append(line.decode())
        if "listening on" in said[-1]:
            return process
    raise AssertionError(f"tcpdump did not start: {''.join(said)}")


def _described(frame: bytes) -> str:
    kind = struct.unpack("!H", frame[12:14])[0]
    if kind == 0x0800:
        protocol, source, target = frame[23], *(".".join(map(str, frame[at : at + 4])) for at in (26, 30))
        ports = struct.unpack("!HH", frame[34:38]) if protocol in (6, 17) else ("", "")
        clear = " (VXLAN in clear)" if 4789 in ports else ""
        return f"IPv4 protocol {protocol} {source}:{ports[0]} > {target}:{ports[1]}, {len(frame)} bytes{clear}"
    return f"a frame of type {kind:#06x}, {len(frame)} bytes: {frame[:64].hex()}"
