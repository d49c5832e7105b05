"""testinfra's SSH backend, with a limit of time and of size, and with a way to talk to a program over there.

A host may be slow, broken or taken over: nothing that it does ends the audit or fills this machine's memory.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import time
from pathlib import Path

from testinfra.backend.base import CommandResult
from testinfra.backend.ssh import SshBackend

from privnet.audit.finding import Unanswered, shown
from privnet.known_hosts import write_known_hosts
from privnet.lab.settings import ssh_config_of
from privnet.model.fleet import Fleet
from privnet.model.lock import Lock
from privnet.sudo import with_remedy

BYTES_AT_MOST = 256 * 2**20
ERROR_AT_MOST = 64 * 2**10
CONNECT_SECONDS = 10
SSH_FAILED = 255
COMMAND_SECONDS = 120.0


class Connection(SshBackend):  # type: ignore[misc] # testinfra has no type information for others
    """One host over OpenSSH.

    :param name: the host's name in the fleet
    :param destination: what ssh(1) is given; ``options`` come before it
    """

    def __init__(self, name: str, destination: str, options: tuple[str, ...], sudo: bool) -> None:
        super().__init__(destination, timeout=CONNECT_SECONDS, controlpersist=0, sudo=sudo)
        self.name = name
        self.destination = destination
        self.options = options

    def argv(self, command: str) -> list[str]:
        """The local command line that runs ``command`` over there."""
        fixed = ("-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}", "-o", "LogLevel=ERROR")
        alive = ("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")
        return ["ssh", *fixed, *alive, *self.options, "--", self.destination, command]

    def get_command(self, command: str, *args: str) -> str:
        """What the login shell over there is given, whatever shell that is: csh knows neither `A=b command` nor `exec`
        with one, a restricted one no `exec`."""
        shell = "sudo -n sh -c %s" if self.sudo else "sh -c %s"
        return str(self.quote(shell, self.quote(command, *args)))

    def run_ssh(self, command: str) -> CommandResult:
        """Run one command. Raises Unanswered when the host cannot be reached or goes on for too long or too much."""
        status, output, error = self._converse(Dialogue(self.argv(command)), b"")
        result: CommandResult = self.result(status, command.encode(), output, error)
        return result

    def ask(self, script: str, mark: str) -> bytes:
        """What a shell script prints, of which ``mark`` is a part. Raises Unanswered with what kept it from running.

        It goes over standard input: sudo would write an argument into the host's log.
        """
        dialogue = self.talk("exec sh -s")
        _, output, _ = self._converse(dialogue, script.encode())
        if mark.encode() not in output and (complaint := dialogue.complaint()):
            raise Unanswered(complaint)
        return output

    @staticmethod
    def _converse(dialogue: Dialogue, data: bytes) -> tuple[int, bytes, bytes]:
        try:
            dialogue.write(data)
            dialogue.finish_input()
            output = dialogue.read_all(COMMAND_SECONDS)
        finally:
            status = dialogue.close()
        if status == SSH_FAILED:
            raise Unanswered(dialogue.complaint() or "ssh gave up without a word")
        return status, output, dialogue.error

    def talk(self, command: str, *args: str) -> Dialogue:
        """Start a program over there, to be written to and read from."""
        return Dialogue(self.argv(self.get_command(command, *args)))


REFUSED_KEY = "Host key verification failed."
"""The last line of ssh(1) when a host's key is not the one it is to have."""
OTHER_KEY = (
    "PN508: its SSH key is not the one by which it is known: another machine answers at its address, or it was "
    "reinstalled; see `privnet explain PN508`"
)

UNKNOWN_KEY = (
    "its SSH key is known neither to the lock file nor to your SSH files: the first `privnet deploy` that reaches it "
    "writes it down"
)
_UNKNOWN = re.compile(r"^No \S+ host key is known for ", re.MULTILINE)
"""ssh(1), of a host that is in none of its files."""


class Dialogue:
    """A local process (ssh) whose output is read with a deadline and a limit."""

    def __init__(self, argv: list[str], bytes_at_most: int = BYTES_AT_MOST) -> None:
        self.bytes_at_most = bytes_at_most
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        self.error = b""
        self._buffer = bytearray()
        self._read = 0
        self._selector = selectors.DefaultSelector()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                self._selector.register(stream, selectors.EVENT_READ)

    def write(self, data: bytes, seconds: float = COMMAND_SECONDS) -> None:
        """Send all of ``data``, taking in what arrives meanwhile. Raises Unanswered."""
        stdin = self.process.stdin
        if stdin is None or stdin.closed:
            raise Unanswered("the connection is closed")
        os.set_blocking(stdin.fileno(), False)
        self._selector.register(stdin, selectors.EVENT_WRITE)
        deadline, rest, broken = time.monotonic() + seconds, memoryview(data), False
        try:
            while rest:
                if stdin in self._wait(deadline):
                    rest = rest[os.write(stdin.fileno(), rest[:65536]) :]
        except BrokenPipeError:
            broken = True
        finally:
            self._selector.unregister(stdin)
        if broken:
            self._drain(time.monotonic() + 2)
            raise Unanswered(self.complaint() or "the connection broke")

    def finish_input(self) -> None:
        """Tell the program that nothing more comes."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def read_line(self, seconds: float = COMMAND_SECONDS) -> str:
        """One line without its end. Raises Unanswered at the end of the output or of the time."""
        deadline, seen = time.monotonic() + seconds, 0
        while (end := self._buffer.find(b"\n", seen)) < 0:
            seen = len(self._buffer)
            if not self._selector.get_map():
                raise Unanswered(self.complaint() or "its answer ended too early")
            self._wait(deadline)
        line = self._buffer[:end].decode("utf-8", "surrogateescape")
        del self._buffer[: end + 1]
        return line

    def read_all(self, seconds: float) -> bytes:
        """Everything until the end. Raises Unanswered when that takes too long."""
        self._drain(time.monotonic() + seconds)
        return bytes(self._buffer)

    def complaint(self) -> str:
        """The last line of what ssh or the program said on standard error."""
        said = self.error.decode("utf-8", "surrogateescape")
        last = shown(next((line.strip() for line in reversed(said.split("\n")) if line.strip()), ""))
        if last == REFUSED_KEY:
            return UNKNOWN_KEY if _UNKNOWN.search(said) else OTHER_KEY
        return with_remedy(last)

    def close(self) -> int:
        """End the local process and give its status."""
        self.finish_input()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._selector.close()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return self.process.returncode

    def _drain(self, deadline: float) -> None:
        while self._selector.get_map():
            self._wait(deadline)

    def _wait(self, deadline: float) -> set[object]:
        """Wait for something to happen and take in what arrived; the streams that can be written to."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise Unanswered("its answer did not come in time")
        writable: set[object] = set()
        for key, _ in self._selector.select(left):
            if key.fileobj is self.process.stdin:
                writable.add(key.fileobj)
                continue
            data = os.read(key.fd, 1 << 18)
            if not data:
                self._selector.unregister(key.fileobj)
            elif key.fileobj is self.process.stderr:
                self.error = (self.error + data)[-ERROR_AT_MOST:]
            else:
                self._take(data)
        return writable

    def _take(self, data: bytes) -> None:
        self._read += len(data)
        if self._read > self.bytes_at_most:
            self.process.kill()
            raise Unanswered(f"its answer is longer than {self.bytes_at_most:,} bytes")
        self._buffer += data


def connections_to(directory: Path, fleet: Fleet, lock: Lock) -> dict[str, Connection]:
    """Connections to every host of a fleet; none is opened yet.

    Raises LabError when a lab fleet's lab is not up.
    """
    if fleet.lab:
        options: tuple[str, ...] = ("-F", str(ssh_config_of(directory)))
        return {name: Connection(name, name, options, host.ssh.user != "root") for name, host in fleet.hosts.items()}
    known_hosts = write_known_hosts(fleet, lock)
    connections = {}
    for name, host in fleet.hosts.items():
        options = ("-l", host.ssh.user, "-p", str(host.ssh.port))
        known = lock.hosts.get(name)
        if known and known.ssh:
            options += ("-o", f"UserKnownHostsFile={known_hosts}", "-o", "StrictHostKeyChecking=yes")
        connections[name] = Connection(name, host.address, options, host.ssh.user != "root")
    return connections
