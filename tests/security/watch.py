"""A watch over a lab's underlay: every frame, from the boot of its hosts to their end.

Two looks at the same bridge. One takes the beginning of every frame, WireGuard's and SSH's too, and searches it for
what must never be read there: canaries and private names. The other takes the whole of every frame that is none of
WireGuard's four kinds of packet, SSH, ARP for the underlay's own addresses and IPv6 neighbour discovery; there must be
none. tcpdump filters, in the kernel; what is left for Python is a search through a pipe, cheap enough to stay on while
a test measures throughput. No frame may escape it for want of room, but in a module that floods the underlay and says
so in `FLOODS`.
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
MARK = re.compile(rb"privnet-watch ([0-9]+) ")
MARKER_SECONDS = 20
OVERLAP = 32
# The kernel hands a reader its frames by the block, or after a second. What follows a mark fills a block of 256 KiB; it
# is for the bridge itself, so that nobody else has to read it.
_MARK = """
import pathlib, socket, sys
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("underlay", 0))
own = bytes.fromhex(pathlib.Path("/sys/class/net/underlay/address").read_text().strip().replace(":", ""))
for line in sys.stdin:
    raw.send(bytes.fromhex("026c00000001026c0000000288b5") + f"privnet-watch {line.strip()} ".encode().ljust(60))
    for _ in range(480):
        raw.send(own + bytes.fromhex("026c0000000288b6") + bytes(600))
"""
FILLING = "ether proto 0x88b6"
NEIGHBOURS = "(icmp6 and ((ip6[40] >= 133 and ip6[40] <= 137) or ip6[40] == 143)) or (ip6 proto 0)"
FROM_INSIDE = "ether[0:2] = 0x0270 or ether[6:2] = 0x0270"
"""MAC addresses of private networks begin so: a frame that has one came through a bridge that leads there."""
_GLOBAL_HEADER = 24


@dataclass
class Planted:
    """What was seen while a test planted something."""

    lines: list[str] = field(default_factory=list)


class Watch:
    """Runs until :meth:`end`. ``planted`` is a tcpdump filter for what the tests themselves send.

    :param floods: why frames may escape; else none may
    """

    def __init__(self, lab: Lab, planted: str = "", floods: str = "") -> None:
        self._lab = lab
        self._floods = floods
        self._found: list[str] = []
        self._lock = threading.Lock()
        self.frames = 0
        expected = f"(not ({FROM_INSIDE}) and ({NEIGHBOURS} or {_arp(lab)} or {_own_traffic(lab)}))"
        expected += f" or {FILLING}" + (f" or ({planted})" if planted else "")
        self._everything = _tcpdump(lab, "-s", str(BEGINNING))
        self._others = _tcpdump(lab, "-s", "0", "-U", "--immediate-mode", expression=f"not ({expected})")
        self._threads = [
            threading.Thread(target=self._search, daemon=True),
            threading.Thread(target=self._list, daemon=True),
        ]
        self._marker = subprocess.Popen(lab.argv("fabric", ["python3", "-c", _MARK]), stdin=subprocess.PIPE)
        self._marked = 0
        self._arrived = {"everything": 0, "others": 0}
        for thread in self._threads:
            thread.start()

    def seen(self) -> list[str]:
        """What has been seen since it was asked last, up to this moment."""
        self._catch_up()
        with self._lock:
            found, self._found = self._found, []
        return found

    def _catch_up(self) -> None:
        """Send a frame of our own over the bridge: when both looks have it, they have all that came before."""
        if not self._lab.exists:
            return  # the test has taken the lab down, and its underlay with it: there is nothing more to come by
        ended = self._marker.poll()
        if ended is not None or self._marker.stdin is None:
            raise AssertionError(f"the watch is blind: what sends its own frames has ended ({ended})")
        self._marked += 1
        self._marker.stdin.write(f"{self._marked}\n".encode())
        self._marker.stdin.flush()
        deadline = time.monotonic() + MARKER_SECONDS
        while min(self._arrived.values()) < self._marked:
            if time.monotonic() > deadline:
                raise AssertionError("the watch is blind: its own frame has not come by")
            self._everything.send_signal(signal.SIGUSR2)  # tcpdump(8): write out what is buffered
            time.sleep(0.01)

    @contextmanager
    def planting(self) -> Iterator[Planted]:
        """What is seen during the block is the test's own; it is there at the block's end, held against nobody."""
        before = self.seen()
        planted = Planted()
        try:
            yield planted
        finally:
            planted.lines = self.seen()
            with self._lock:
                self._found = before + self._found

    def end(self) -> list[str]:
        """Stop; what had not been told yet."""
        try:
            seen = self.seen()
        finally:
            dropped = self._stop()
        print(f"the watch searched {self.frames} pieces of the underlay's traffic, {dropped} frames escaped it")
        if dropped and not self._floods:
            seen.append(f"{dropped} frames escaped the watch, in a module that has no FLOODS")
        return seen

    def _stop(self) -> int:
        """End its programs; how many frames the kernel had no room for."""
        self._marker.kill()
        for process in (self._everything, self._others):
            process.send_signal(signal.SIGINT)
        for thread in self._threads:
            thread.join(10)
        dropped = 0
        for process in (self._everything, self._others):
            said = process.stderr.read().decode() if process.stderr else ""
            process.wait(10)
            dropped += sum(int(count) for count in re.findall(r"(\d+) packets dropped by kernel", said))
        return dropped

    def _tell(self, line: str) -> None:
        with self._lock:
            if len(self._found) < 20 and line not in self._found:
                self._found.append(line)

    def _search(self) -> None:
        pipe, tail = self._everything.stdout, b""
        assert pipe
        while chunk := pipe.read1(1 << 20):  # type: ignore[attr-defined]
            self.frames += 1
            text = tail + chunk
            told = 0
            for found in FORBIDDEN.finditer(text):
                self._tell(f"the underlay carried {found[0]!r} in clear")
                told = found.end()
            for mark in MARK.finditer(text):
                self._arrived["everything"] = int(mark[1])
            # What the cut halves is found with the next piece; what is told already is not kept.
            tail = text[max(told, len(text) - OVERLAP) :]

    def _list(self) -> None:
        pipe = self._others.stdout
        assert pipe
        pipe.read(_GLOBAL_HEADER)
        while len(header := pipe.read(16)) == 16:
            frame = pipe.read(struct.unpack("<IIII", header)[2])
            if mark := MARK.search(frame):
                self._arrived["others"] = int(mark[1])
            else:
                self._tell(f"the underlay carried {_described(frame)}")


KINDS = [number << 24 for number in (1, 2, 3, 4)]
"""How a packet of WireGuard's begins: its kind, and three zeros (WireGuard whitepaper, 5.4)."""


def _arp(lab: Lab) -> str:
    """A filter for ARP between the underlay's own addresses."""
    subnets = [str(subnet) for subnet in lab.underlay.subnets if subnet.version == 4]
    ends = (" or ".join(f"arp {end} net {subnet}" for subnet in subnets) for end in ("src", "dst"))
    between = " and ".join(f"({end})" for end in ends)
    return f"(arp and len >= 42 and arp[8:2] != 0x0270 and arp[18:2] != 0x0270 and {between})"


def _own_traffic(lab: Lab) -> str:
    """A filter for WireGuard and SSH, as the fleet's YAML has their ports."""
    fleet = yaml.safe_load((lab.inventory / "fleet.yaml").read_text())
    port = (fleet.get("wireguard") or {}).get("port", 51820)
    hosts = fleet["hosts"].values()
    endpoints = [host["endpoint"].rpartition(":")[2] for host in hosts if host and "endpoint" in host]
    ssh = {22, *((host.get("ssh") or {}).get("port", 22) for host in hosts if host)}
    wireguard = sorted({port, *map(int, endpoints)})
    # Where a frame has ended there is nothing to be read: that would end the filter, and with it the look at the frame.
    kinds = " or ".join(f"udp[8:4] = {kind:#x}" for kind in KINDS)
    kinds6 = " or ".join(f"ip6[48:4] = {kind:#x}" for kind in KINDS)
    packet = f"((ip[0] = 0x45 and len >= 46 and ({kinds})) or (ip6 and len >= 66 and ({kinds6})))"
    parts = [f"(udp port {number} and {packet})" for number in wireguard]
    # "Nobody listens yet", from a host whose mesh is not up; it quotes the encrypted packet.
    parts += [
        f"(icmp and len >= 70 and icmp[0] == 3 and icmp[30:2] == {number}) or (ip6[40] == 1 and icmp6)"
        for number in wireguard
    ]
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
