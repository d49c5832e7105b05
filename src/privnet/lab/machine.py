"""One lab host: its disk, its processes, and running programs in it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privnet.lab import process, underlay
from privnet.lab.errors import LabError
from privnet.lab.fleet import LabHost
from privnet.lab.process import Process, run, wait_until
from privnet.lab.settings import FABRIC, Settings, port_name
from privnet.lab.underlay import Underlay

RUN_HOST: Final = Path(__file__).with_name("run-host.sh")
CONTROL_GROUPS: Final = Path("/sys/fs/cgroup")
ARCHIVE_IN_HOST: Final = "/srv/apt"
# Generous: on a busy machine fifty hosts boot at once.
BOOT_SECONDS: Final = 120.0
SHUTDOWN_SECONDS: Final = 120.0
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "USER": "root",
    "LANG": "C.UTF-8",
    "TERM": os.environ.get("TERM", "dumb"),
}


@dataclass(frozen=True, slots=True)
class DiskSource:
    """What a fresh disk is an overlay on: a root file system of `release`.

    :param archive: a directory with .debs that apt in the host is to use
    """

    image: Path
    release: str
    archive: Path | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """A host of the lab `settings`. Making one does nothing; each method looks at the machine anew."""

    settings: Settings
    host: LabHost

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def directory(self) -> Path:
        return self.settings.host_directory(self.name)

    @property
    def root(self) -> Path:
        """The host's file system as this machine sees it (mounted while the lab is up)."""
        return self.directory / "root"

    @property
    def console(self) -> Path:
        return self.directory / "console.log"

    # disk

    @property
    def has_disk(self) -> bool:
        """Whether it is complete: a crash while one is made leaves a part."""
        return (self.directory / "disk").is_file()

    @property
    def release(self) -> str:
        """The Debian release of its disk; empty if it has none."""
        record = self.directory / "release"
        return record.read_text().strip() if record.is_file() else ""

    def make_disk(self, source: DiskSource, public_key: str) -> None:
        """A fresh disk with an identity of its own.

        `public_key` may log in as root and as the users that the inventory names.
        """
        self.discard()
        for part in ("upper", "work", "root"):
            (self.directory / part).mkdir(parents=True)
        (self.directory / "image").write_text(f"{source.image}\n")
        (self.directory / "release").write_text(f"{source.release}\n")
        if source.archive is not None:
            (self.directory / "archive").write_text(f"{source.archive}\n")
        self.mount()
        etc = self.root / "etc"
        (etc / "machine-id").write_text(f"{uuid.uuid4().hex}\n")
        (etc / "hostname").write_text(f"{self.name}\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {self.name}\n")
        if source.archive is not None:
            (self.root / "srv/apt").mkdir()
            (etc / "apt/sources.list").write_text(f"deb [trusted=yes] file:{ARCHIVE_IN_HOST} ./\n")
        self._make_access(public_key)
        (self.directory / "disk").write_text("complete\n")

    def _make_access(self, public_key: str) -> None:
        etc = self.root / "etc"
        key = etc / "ssh/ssh_host_ed25519_key"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(key)])
        ports = sorted({22, self.host.ssh_port})
        configuration = "".join(f"Port {port}\n" for port in ports) + "UseDNS no\nMaxStartups 100:30:200\n"
        (etc / "ssh/sshd_config.d/lab.conf").write_text(configuration)
        self._authorize(Path("root"), public_key, owner=None)
        for user in sorted({"deploy", self.host.user} - {"root"}):
            run(["chroot", str(self.root), "useradd", "--create-home", "--shell", "/bin/bash", user])
            self._authorize(Path("home") / user, public_key, owner=user)
            rule = etc / "sudoers.d" / f"lab-{user}"
            rule.write_text(f"{user} ALL=(ALL) NOPASSWD: ALL\n")
            rule.chmod(0o440)

    def _authorize(self, home: Path, public_key: str, owner: str | None) -> None:
        directory = self.root / home / ".ssh"
        directory.mkdir(mode=0o700, exist_ok=True)
        (directory / "authorized_keys").write_text(public_key)
        if owner is not None:
            run(["chroot", str(self.root), "chown", "-R", f"{owner}:", f"/{home}/.ssh"])

    @property
    def ssh_host_key(self) -> str:
        """Key type and key, as in a known_hosts file."""
        words = (self.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
        return f"{words[0]} {words[1]}"

    def mount(self) -> None:
        if self.root.is_mount():
            return
        image = (self.directory / "image").read_text().strip()
        if not Path(image).is_dir():
            raise LabError(
                f"host {self.name}: the root file system {image} under its disk is gone from the cache",
                help="privnet lab down, then up: the hosts get fresh disks",
            )
        layers = f"lowerdir={image},upperdir={self.directory}/upper,workdir={self.directory}/work"
        run(["mount", "-t", "overlay", "privnet-lab", "-o", layers, str(self.root)])

    def unmount(self) -> None:
        while self.root.is_mount():
            # Lazy: what still looks at it (a shell of a person) shall not keep the lab from going.
            run(["umount", "--lazy", str(self.root)])

    # processes

    @property
    def keeper(self) -> Process | None:
        """The script that runs the host, while it does."""
        return Process.read(self.directory / "keeper.process")

    @property
    def init(self) -> Process | None:
        """The host's PID 1, while it is up."""
        return process.init_of_namespace(underlay.namespace_path(self.settings, self.name))

    def start(self, network: Underlay) -> None:
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
        groups = [] if _systemd_runs_here() else self._control_groups()
        values = {
            "namespace": self.settings.namespace(self.name),
            "fabric": self.settings.namespace(FABRIC),
            "port": port_name(self.name),
            "uplink": underlay.UPLINK,
            "mac": underlay.mac_address(self.name),
            "control_groups": " ".join(str(group) for group in groups),
        }
        return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())

    def _scope(self) -> list[str]:
        """On a machine that systemd runs, control groups are asked for, not taken."""
        if not _systemd_runs_here():
            return []
        unit = f"--unit={self.settings.scope(self.name)}"
        return ["systemd-run", "--scope", "--quiet", "--collect", "--property=Delegate=yes", unit, "--"]

    def _control_groups(self) -> list[Path]:
        roots = [CONTROL_GROUPS]
        if not (CONTROL_GROUPS / "cgroup.controllers").is_file():
            roots = [root for root in CONTROL_GROUPS.iterdir() if (root / "cgroup.procs").is_file()]
        return [root / "privnet-lab" / self.settings.name / self.name for root in sorted(roots)]

    def wait_booted(self, timeout: float = BOOT_SECONDS, previous: Process | None = None) -> None:
        """Wait until systemd in the host has started everything. Raises LabError with the console's end.

        `previous` is the PID 1 from before a reboot, which does not count.
        """
        if not wait_until(lambda: self._accepts_commands(previous) or self.keeper_gone, timeout):
            raise self._boot_failure(f"has not come up within {timeout:.0f} s")
        if self.keeper_gone:
            raise self._boot_failure("went down while it was starting")
        try:
            state = self.exec(["systemctl", "is-system-running", "--wait"], timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise self._boot_failure(f"has not finished starting within {timeout:.0f} s") from error
        if state.stdout.strip() not in ("running", "degraded"):
            raise self._boot_failure(f"is {state.stdout.strip() or state.stderr.strip()!r}")

    @property
    def keeper_gone(self) -> bool:
        """The script has recorded itself and has ended."""
        return (self.directory / "keeper.process").is_file() and self.keeper is None

    def _accepts_commands(self, previous: Process | None) -> bool:
        init = self.init
        if init is None or init == previous:
            return False
        return Path(f"/proc/{init.pid}/root/run/systemd/private").exists()

    def _boot_failure(self, what: str) -> LabError:
        end = self.console.read_text(errors="replace").splitlines()[-15:] if self.console.is_file() else []
        said = "".join(f"\n    {line}" for line in end)
        return LabError(f"host {self.name} {what}; the end of its console ({self.console}):{said}")

    def power_off(self, timeout: float = SHUTDOWN_SECONDS) -> None:
        """Shut down in order. Raises LabError when the host does not within `timeout` seconds."""
        nspawn = Process.read(self.directory / "nspawn.process")
        if nspawn is not None:
            nspawn.signal(signal.SIGTERM)
        if not wait_until(lambda: self.keeper is None, timeout):
            raise self._still_up(timeout)

    def reboot(self, timeout: float = SHUTDOWN_SECONDS) -> Process:
        """Ask the host to reboot and wait until it is down. The PID 1 that it had is returned."""
        before = self._running_init()
        self.exec(["systemctl", "reboot"], check=False, timeout=30)
        if not before.wait(timeout):
            raise self._still_up(timeout)
        return before

    def _still_up(self, timeout: float) -> LabError:
        what = f"host {self.name} has not shut down within {timeout:.0f} s"
        return LabError(what, help=f"privnet lab kill {self.name}")

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

    def discard(self) -> None:
        """Power cut, and the disk is thrown away."""
        self.kill()
        self.unmount()
        if self.directory.is_dir():
            shutil.rmtree(self.directory)

    # commands

    def _running_init(self) -> Process:
        init = self.init
        if init is None:
            raise LabError(f"host {self.name} is not running", help=f"privnet lab start {self.name}")
        return init

    def argv(self, command: Sequence[str]) -> list[str]:
        """The program of this machine that runs `command` in the host, in all its namespaces."""
        init = self._running_init()
        inside = ["env", "--ignore-environment", *(f"{key}={value}" for key, value in _ENVIRONMENT.items())]
        enter = ["nsenter", f"--target={init.pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        return [*enter, "--", *inside, *command]

    def exec(
        self, command: Sequence[str], *, check: bool, timeout: float | None, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` in the host. See `Lab.exec`."""
        return execute(self.argv(command), check=check, timeout=timeout, input=input)


def execute(
    argv: Sequence[str], *, check: bool, timeout: float | None, input: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program and end all it started when `timeout` seconds passed.

    Raises subprocess.CalledProcessError (when `check`) and subprocess.TimeoutExpired, with the output.
    """
    stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
    with subprocess.Popen(
        argv,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # so that a time-out ends the whole group, over the host's PID namespace
    ) as running:
        try:
            out, err = running.communicate(input, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            out, err = running.communicate()
            raise subprocess.TimeoutExpired(argv, error.timeout, out, err) from None
    result = subprocess.CompletedProcess(list(argv), running.returncode, out, err)
    if check and result.returncode:
        raise CommandFailed(result.returncode, list(argv), out, err)
    return result


class CommandFailed(subprocess.CalledProcessError):
    """A CalledProcessError that shows what the program said."""

    def __str__(self) -> str:
        said = "".join(f"\n{text.strip()}" for text in (self.stdout, self.stderr) if text and text.strip())
        return f"status {self.returncode} from `{shlex.join(self.cmd)}`{said}"


def _systemd_runs_here() -> bool:
    """sd_booted(3)."""
    return Path("/run/systemd/system").is_dir()


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
