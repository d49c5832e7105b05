"""The dialogue with ``probe.pl`` on one host: one SSH execution, from the first question to the last packet."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources

from privnet.audit.connection import Connection, Dialogue
from privnet.audit.finding import Unanswered, shown

END = "\n__END__\n"
BOOT = r'$/ = "\n__END__\n"; my $text = <STDIN>; $/ = "\n"; @ARGV = ($text, "dialogue"); eval $text; die $@ if $@'
HOST = "-"
"""Where a job runs that does not run in a namespace: on the host itself."""

PORTS = (9, 20117, 61117)
"""UDP and TCP ports on which containers answer during an audit: low, middle and high, hardly used by anything."""

GREETING_SECONDS, GREETINGS_AT_MOST = 30, 1000

_LISTENING = re.compile(r"listening (\S+) udp ([0-9 ]+) tcp ([0-9 ]+)")
_RESULT = re.compile(r"([0-9]{1,9}) (![A-Za-z0-9]{1,20}|(?:[0-9a-f]{2})*)")
_HANDSHAKE = re.compile(r"peer ([A-Za-z0-9+/]{43}=) (-?[0-9]{1,12})")


@dataclass(frozen=True, slots=True)
class Job:
    """One message to send, and the wait for its answer.

    :param netns: where from; HOST for the host itself
    :param mode: ``any``; ``df``: must not be fragmented; ``near``: not by a gateway
    :param seconds: how long to wait
    """

    netns: str
    protocol: str
    address: str
    port: int
    payload: bytes
    mode: str = "any"
    seconds: float = 3.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: bytes, or the name of the error (``ETIMEDOUT``: nothing)."""

    data: bytes = b""
    error: str = ""

    def __str__(self) -> str:
        return ERRORS.get(self.error, self.error) if self.error else f"an answer of {len(self.data)} bytes"


NO_ANSWER = "no answer"
ERRORS = {
    "ETIMEDOUT": NO_ANSWER,
    "ESILENT": "a connection without an answer",
    "ECONNREFUSED": "refused",
    "ENETUNREACH": "network unreachable",
    "EHOSTUNREACH": "host unreachable",
    "EMSGSIZE": "message too long",
    "ENETNS": "the namespace cannot be entered",
    "ELOST": "the prober lost it",
    "ECUT": "an answer that was cut off",
}


@dataclass(frozen=True, slots=True)
class Listener:
    """Where a container answers during this audit."""

    udp: tuple[int, ...]
    tcp: tuple[int, ...]


class Session:
    """One host's prober. Every method raises Unanswered when the host no longer plays along."""

    def __init__(self, connection: Connection) -> None:
        # The program goes over standard input: sudo would write an argument into the host's log.
        command = "PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C exec perl -e %s"
        self._dialogue: Dialogue = connection.talk(command, BOOT)
        try:
            program = (resources.files("privnet.audit") / "probe.pl").read_text()
            self._dialogue.write(f"{program}{END}".encode())
            # A login shell may have something to say before it.
            until = time.monotonic() + GREETING_SECONDS
            for _ in range(GREETINGS_AT_MOST):
                if self._dialogue.read_line(until - time.monotonic()) == "ready":
                    return
            raise Unanswered("the prober did not start")
        except Unanswered:
            self._dialogue.close()
            raise

    def listen(self, wanted: Mapping[str, tuple[str, str]]) -> dict[str, Listener | None]:
        """Answer in these namespaces: ``{netns: (address, ident)}``; None where that cannot be."""
        ports = " ".join(map(str, PORTS))
        lines = [f"listen {netns} {address} {ident} {ports}\n" for netns, (address, ident) in wanted.items()]
        self._dialogue.write("".join(lines).encode())
        found: dict[str, Listener | None] = {}
        for netns in wanted:
            line = self._dialogue.read_line()
            match = _LISTENING.fullmatch(line)
            if match is None:
                if line != f"listening {netns} failed":
                    raise Unanswered(f"the prober said what it should not: {shown(line)}")
                found[netns] = None
                continue
            found[netns] = Listener(_ports(match[2]), _ports(match[3]))
        return found

    def run(self, jobs: Iterable[Job]) -> list[Reply]:
        """All jobs at once; their replies in the same order."""
        lines = []
        for number, job in enumerate(jobs):
            rest = f"{job.protocol} {job.address} {job.port} {job.mode} {job.seconds * 1000:.0f} {job.payload.hex()}"
            lines.append(f"job {job.netns} {number} {rest}\n")
        if not lines:
            return []
        self._dialogue.write(("".join(lines) + "run\n").encode())
        replies: dict[int, Reply] = {}
        while (line := self._dialogue.read_line()) != "done":
            match = _RESULT.fullmatch(line)
            if match is None or int(match[1]) >= len(lines):
                raise Unanswered(f"the prober said what it should not: {shown(line)}")
            result = match[2]
            replies[int(match[1])] = Reply(error=result[1:]) if result.startswith("!") else Reply(bytes.fromhex(result))
        return [replies.get(number, Reply(error="ELOST")) for number in range(len(lines))]

    def handshakes(self) -> dict[str, int]:
        """Seconds since the last handshake with each peer that has had one, by public key."""
        self._dialogue.write(b"handshakes\n")
        found = {}
        while (line := self._dialogue.read_line()) != "done":
            match = _HANDSHAKE.fullmatch(line)
            if match is None:
                raise Unanswered(f"the prober said what it should not: {shown(line)}")
            found[match[1]] = int(match[2])
        return found

    def close(self) -> None:
        """End the prober and all of its listeners."""
        self._dialogue.close()


def _ports(text: str) -> tuple[int, ...]:
    return tuple(int(port) for port in text.split()[: len(PORTS)])
