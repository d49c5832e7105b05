"""A lab host in systemd-nspawn: on this machine's own kernel, booted in a second."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from privnet.lab import process, underlay
from privnet.lab.host import ARCHIVE_IN_HOST, BOOT_SECONDS, SHUTDOWN_SECONDS, Boot, Host, clean, systemd_runs_here
from privnet.lab.image import Say
from privnet.lab.process import Process, wait_until
from privnet.lab.settings import FABRIC, port_name
from privnet.lab.underlay import Underlay

RUN_HOST: Final = Path(__file__).with_name("run-host.sh")
CONTROL_GROUPS: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class NspawnHost(Host):
    """A host that shares this machine's kernel, with namespaces and a control group of its own."""

    kind: ClassVar[str] = "nspawn"

    def _finish_disk(self) -> None:
        """The overlay is the disk."""

    @property
    def keeper(self) -> Process | None:
        """The script that runs the host, while it does."""
        return Process.read(self.directory / "keeper.process")

    @property
    def init(self) -> Process | None:
        """The host's PID 1, while it is up."""
        return process.init_of_namespace(underlay.namespace_path(self.settings, self.name))

    def age(self) -> float | None:
        """Seconds since its PID 1 began."""
        init = self.init
        return None if init is None else init.age

    def start(self, network: Underlay, say: Say) -> None:
        """Begin to boot; `wait_booted` waits for the end of it."""
        self.kill()  # what a crash of its keeper has left would be in the way
        self.mount()
        directory = self.directory
        self._write_batches(network)
        (directory / "nspawn").write_text("".join(f"{argument}\n" for argument in self._nspawn_arguments()))
        (directory / "settings").write_text(self._shell_settings())
        before = self._keeper_record()
        with self.console.open("ab") as console:
            # In a session of its own: Ctrl-C in the terminal that started it must not reach the host.
            subprocess.run(
                ["setsid", "--fork", *self._scope(), "sh", str(RUN_HOST), str(directory)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                cwd="/",
                check=True,
            )
        wait_until(lambda: self._keeper_record() != before, 10)

    def _write_batches(self, network: Underlay) -> None:
        uplink = underlay.uplink_batch(self.host.addresses, self.host.mtu, network)
        (self.directory / "pair.batch").write_text(underlay.pair_batch(self.settings, self.name))
        (self.directory / "port.batch").write_text(underlay.port_batch(self.name))
        (self.directory / "uplink.batch").write_text(uplink)

    def reconfigure(self, network: Underlay, *, renumber: bool) -> None:
        """Tell a running host's uplink what the inventory says now, also for its next boot.

        `renumber`: the host's own addresses or MTU are not what they were.
        """
        self._write_batches(network)
        if self.init is not None:
            underlay.configure(self.settings, self.host, network, renumber=renumber)

    def _keeper_record(self) -> str:
        record = self.directory / "keeper.process"
        return record.read_text() if record.is_file() else ""

    def _nspawn_arguments(self) -> list[str]:
        arguments = [
            "--quiet", f"--directory={self.root}", "--boot", f"--machine={self.settings.machine(self.name)}",
            f"--hostname={self.name}", "--register=no", "--keep-unit", "--settings=no", "--private-users=no",
            f"--network-namespace-path={underlay.namespace_path(self.settings, self.name)}",
            "--capability=CAP_NET_ADMIN", "--system-call-filter=bpf", "--bind=/dev/net/tun", "--link-journal=no",
            "--resolv-conf=off", "--timezone=off", "--console=pipe",
        ]  # fmt: skip
        archive = self.directory / "archive"
        if archive.is_file():
            arguments.append(f"--bind-ro={archive.read_text().strip()}:{ARCHIVE_IN_HOST}")
        return arguments

    def _shell_settings(self) -> str:
        groups = [] if systemd_runs_here() else self._control_groups()
        values = {
            "namespace": self.settings.namespace(self.name),
            "fabric": self.settings.namespace(FABRIC),
            "port": port_name(self.name),
            "control_groups": " ".join(str(group) for group in groups),
        }
        return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())

    def _control_groups(self) -> list[Path]:
        roots = [CONTROL_GROUPS]
        if not (CONTROL_GROUPS / "cgroup.controllers").is_file():
            roots = [root for root in CONTROL_GROUPS.iterdir() if (root / "cgroup.procs").is_file()]
        return [root / "privnet-lab" / self.settings.name / self.name for root in sorted(roots)]

    def wait_booted(self, timeout: float = BOOT_SECONDS, previous: Boot = None) -> None:
        """Wait until systemd in the host has started everything. Raises LabError with the console's end.

        `previous` is the PID 1 from before a reboot, which does not count.
        """
        if not wait_until(lambda: self._accepts_commands(previous) or self.keeper_gone, timeout):
            raise self._boot_failure(f"has not come up within {timeout:.0f} s")
        if self.keeper_gone:
            raise self._boot_failure("went down while it was starting")
        self._wait_started(timeout)

    @property
    def keeper_gone(self) -> bool:
        """The script has recorded itself and has ended."""
        return (self.directory / "keeper.process").is_file() and self.keeper is None

    def _accepts_commands(self, previous: Boot) -> bool:
        init = self.init
        if init is None or init == previous:
            return False
        return Path(f"/proc/{init.pid}/root/run/systemd/private").exists()

    def power_off(self, timeout: float = SHUTDOWN_SECONDS) -> None:
        """Shut down in order. Raises LabError when the host does not within `timeout` seconds."""
        nspawn = Process.read(self.directory / "nspawn.process")
        if nspawn is not None:
            nspawn.signal(signal.SIGTERM)
        if not wait_until(lambda: self.keeper is None, timeout):
            raise self._still_up(timeout)

    def reboot(self, timeout: float = SHUTDOWN_SECONDS) -> Boot:
        """Ask the host to reboot and wait until it is down. The PID 1 that it had is returned."""
        before = self._running()
        self.exec(["systemctl", "reboot"], check=False, timeout=30)
        if not before.wait(timeout):
            raise self._still_up(timeout)
        return before

    def kill(self) -> None:
        """A power cut: nothing in the host gets a chance to tidy up. Its uplink is dead when this returns.

        KILL to nspawn itself would leave the host running, orphaned; so PID 1 first, and what is left after.
        """
        for victim in (self.init, Process.read(self.directory / "nspawn.process")):
            if victim is not None:
                victim.signal(signal.SIGKILL)
                victim.wait(10)
        keeper = self.keeper
        if keeper is not None and not keeper.wait(10):
            keeper.signal(signal.SIGKILL)
        self._end_leftovers()
        underlay.remove_port(self.settings, self.name)
        underlay.remove_namespace(self.settings.namespace(self.name))

    def _end_leftovers(self) -> None:
        """End what is in our control groups, which nobody else enters, and remove the groups."""
        for group in self._control_groups():
            if not group.is_dir():
                continue
            for pid in _members(group):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_until(lambda group=group: not _members(group), 10)  # type: ignore[misc]
            _remove_groups(group)
            for parent in (group.parent, group.parent.parent):
                with suppress(OSError):  # other hosts or labs are in it
                    parent.rmdir()

    def argv(self, command: Sequence[str]) -> list[str]:
        """The program of this machine that runs `command` in the host, in all its namespaces."""
        init = self._running()
        enter = ["nsenter", f"--target={init.pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        return [*enter, "--", *clean(command)]


def _members(group: Path) -> list[int]:
    pids = []
    for procs in group.rglob("cgroup.procs"):
        with suppress(OSError):  # the group went away while we looked
            pids += [int(line) for line in procs.read_text().split()]
    return [pid for pid in pids if pid]


def _remove_groups(group: Path) -> None:
    below = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True)
    for directory in [*below, group]:
        with suppress(OSError):  # kept by something that is not ours
            directory.rmdir()
