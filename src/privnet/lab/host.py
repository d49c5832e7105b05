"""What both kinds of lab host have: a directory, a disk with an identity of its own, and a way to run programs."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from privnet.lab.errors import LabError
from privnet.lab.fleet import LabHost
from privnet.lab.image import Say
from privnet.lab.process import Process, run
from privnet.lab.settings import Settings
from privnet.lab.underlay import Underlay

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


Boot = Process | str | None
"""What tells one boot of a host from the next: its PID 1, or the number that its kernel drew."""


@dataclass(frozen=True, slots=True)
class DiskSource:
    """What a fresh disk is made of: a root file system of `release`.

    :param archive: a directory with .debs that apt in the host is to use
    """

    image: Path
    release: str
    archive: Path | None = None


@dataclass(frozen=True, slots=True)
class Host(ABC):
    """A host of the lab `settings`. Making one does nothing; each method looks at the host anew."""

    settings: Settings
    host: LabHost

    kind: ClassVar[str]
    """As the host's directory records it."""

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def directory(self) -> Path:
        return self.settings.host_directory(self.name)

    @property
    def root(self) -> Path:
        """Where the host's file system is mounted on this machine, while it is."""
        return self.directory / "root"

    @property
    def console(self) -> Path:
        return self.directory / "console.log"

    @property
    def patience(self) -> float:
        """How many times longer something takes there than in a host that runs on this machine's own kernel."""
        return 1.0

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
        (self.directory / "kind").write_text(f"{self.kind}\n")
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
        self._finish_disk()
        (self.directory / "disk").write_text("complete\n")

    @abstractmethod
    def _finish_disk(self) -> None:
        """Do what the kind of host needs, once all files are there."""

    def _make_access(self, public_key: str) -> None:
        etc = self.root / "etc"
        key = etc / "ssh/ssh_host_ed25519_key"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(key)])
        shutil.copy(key.with_suffix(".pub"), self.directory)
        ports = sorted({22, self.host.ssh_port})
        many = "UseDNS no\nMaxStartups 100:30:200\nMaxSessions 200\n"
        (etc / "ssh/sshd_config.d/lab.conf").write_text("".join(f"Port {port}\n" for port in ports) + many)
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
        words = (self.directory / "ssh_host_ed25519_key.pub").read_text().split()
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
    @abstractmethod
    def keeper(self) -> Process | None:
        """What runs the host on this machine, while it does."""

    @property
    @abstractmethod
    def init(self) -> Process | None:
        """The process of this machine that the host lives in, while it is up."""

    @abstractmethod
    def age(self) -> float | None:
        """Seconds since its boot, if it is up and answers."""

    @abstractmethod
    def start(self, network: Underlay, say: Say) -> None:
        """Begin to boot; `wait_booted` waits for the end of it."""

    @abstractmethod
    def reconfigure(self, network: Underlay, *, renumber: bool) -> None:
        """Tell a running host's uplink what the inventory says now, also for its next boot.

        `renumber`: the host's own addresses or MTU are not what they were.
        """

    @abstractmethod
    def wait_booted(self, timeout: float = BOOT_SECONDS, previous: Boot = None) -> None:
        """Wait until systemd in the host has started everything. Raises LabError with the console's end.

        `previous` is the boot before a reboot, which does not count.
        """

    @abstractmethod
    def reboot(self, timeout: float = SHUTDOWN_SECONDS) -> Boot:
        """Ask the host to reboot and wait until it is down. The boot that it had is returned."""

    @abstractmethod
    def power_off(self, timeout: float = SHUTDOWN_SECONDS) -> None:
        """Shut down in order. Raises LabError when the host does not within `timeout` seconds."""

    @abstractmethod
    def kill(self) -> None:
        """A power cut: nothing in the host gets a chance to tidy up. Its uplink is dead when this returns."""

    def discard(self) -> None:
        """Power cut, and the disk is thrown away."""
        self.kill()
        self.unmount()
        if self.directory.is_dir():
            shutil.rmtree(self.directory)

    def _scope(self) -> list[str]:
        """On a machine that systemd runs, control groups are asked for, not taken."""
        if not systemd_runs_here():
            return []
        unit = f"--unit={self.settings.scope(self.name)}"
        return ["systemd-run", "--scope", "--quiet", "--collect", "--property=Delegate=yes", unit, "--"]

    def _wait_started(self, timeout: float) -> None:
        """Wait for the end of a boot, in a host that takes commands."""
        try:
            state = self.exec(["systemctl", "is-system-running", "--wait"], timeout=timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise self._boot_failure(f"has not finished starting within {timeout:.0f} s") from error
        if state.stdout.strip() not in ("running", "degraded"):
            raise self._boot_failure(f"is {state.stdout.strip() or state.stderr.strip()!r}")

    def _boot_failure(self, what: str) -> LabError:
        end = self.console.read_text(errors="replace").splitlines()[-15:] if self.console.is_file() else []
        said = "".join(f"\n    {line}" for line in end)
        return LabError(f"host {self.name} {what}; the end of its console ({self.console}):{said}")

    def _still_up(self, timeout: float) -> LabError:
        what = f"host {self.name} has not shut down within {timeout:.0f} s"
        return LabError(what, help=f"privnet lab kill {self.name}")

    def _running(self) -> Process:
        init = self.init
        if init is None:
            raise LabError(f"host {self.name} is not running", help=f"privnet lab start {self.name}")
        return init

    # commands

    @abstractmethod
    def argv(self, command: Sequence[str]) -> list[str]:
        """The program of this machine that runs `command` in the host, as root."""

    def exec(
        self, command: Sequence[str], *, check: bool, timeout: float | None, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` in the host. See `Lab.exec`."""
        return execute(self.argv(command), check=check, timeout=timeout, input=input)


def clean(command: Sequence[str]) -> list[str]:
    """`command` with the environment of a fresh login as root, whatever this process's own is."""
    return ["env", "--ignore-environment", *(f"{key}={value}" for key, value in _ENVIRONMENT.items()), *command]


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


def systemd_runs_here() -> bool:
    """sd_booted(3)."""
    return Path("/run/systemd/system").is_dir()
