"""A lab host in QEMU, a machine: on a kernel of its own, as Debian's archive has it, on the same underlay.

QEMU runs in the fabric's namespace, its network device is a tap in the fabric's bridge. The kernel is booted without a
loader and without an initramfs: disks at NVMe and ext4 are built into Debian's cloud kernels. The host's networkd is
told its addresses at each boot, by a file that the firmware's configuration device (fw_cfg) carries. Programs are run
in it over SSH.
"""

from __future__ import annotations

import math
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from privnet.lab import accelerator, process, underlay
from privnet.lab.accelerator import ACCELERATORS, TCG, Accelerator
from privnet.lab.errors import LabError
from privnet.lab.host import BOOT_SECONDS, SHUTDOWN_SECONDS, Boot, Host, clean
from privnet.lab.image import Say
from privnet.lab.process import Process, run, wait_until
from privnet.lab.settings import FABRIC, RUN_ROOT, port_name
from privnet.lab.underlay import Underlay

_DISK_SIZE: Final = "4G"
_MEMORY_MIB: Final = 1024
# `cache=unsafe` leaves to this machine when its disk is written. What the guest had not written is lost at a power cut.
_DRIVE: Final = "format=raw,if=none,id=disk,cache=unsafe,file="
_COMMAND_LINE: Final = "root=/dev/nvme0n1 rw console=ttyS0 quiet mitigations=off net.ifnames=0"
_LEFT_OVER_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class Machine(Host):
    """A host with hardware of its own, as far as it can tell."""

    kind: ClassVar[str] = "machine"

    @property
    def accelerator(self) -> Accelerator:
        """What it runs with since it was switched on last."""
        record = self.directory / "accelerator"
        return ACCELERATORS[record.read_text().strip()] if record.is_file() else TCG

    @property
    def patience(self) -> float:
        return self.accelerator.patience

    # disk

    @property
    def _image(self) -> Path:
        return self.directory / "disk.img"

    @property
    def _kernel(self) -> Path:
        return self.directory / "vmlinuz"

    def mount(self) -> None:
        """Only while it is made: from then on the disk is the machine's alone."""
        if not self.has_disk:
            Host.mount(self)

    def _finish_disk(self) -> None:
        """A file system of its own, with all that the overlay shows; the overlay has done its work then."""
        kernels = sorted((self.root / "boot").glob("vmlinuz-*"))
        if len(kernels) != 1:
            raise LabError(f"host {self.name}: its image has {len(kernels)} kernels, not one")
        shutil.copy(kernels[0], self._kernel)
        run(["mkfs.ext4", "-q", "-F", "-d", str(self.root), str(self._image), _DISK_SIZE])
        self.unmount()
        for part in ("upper", "work", "root"):
            shutil.rmtree(self.directory / part)

    # processes

    @property
    def keeper(self) -> Process | None:
        return Process.read(self.directory / "qemu.process")

    @property
    def init(self) -> Process | None:
        return self.keeper

    def age(self) -> float | None:
        uptime = self.exec(["cat", "/proc/uptime"], check=False, timeout=10).stdout.split()
        return float(uptime[0]) if uptime else None

    def start(self, network: Underlay, say: Say) -> None:
        self.kill()
        chosen = accelerator.choose(self._kernel, say)
        (self.directory / "accelerator").write_text(f"{chosen.name}\n")
        self._uplink.write_text(underlay.networkd_file(self.host.addresses, self.host.mtu, network))
        underlay.make_tap(self.settings, self.name)
        numbered = self.directory / "qemu.pid"
        inside = ["ip", "netns", "exec", self.settings.namespace(FABRIC)]
        run([*self._scope(), *inside, accelerator.PROGRAM, *self._arguments(chosen), "-pidfile", str(numbered)])
        begun = Process.of(int(numbered.read_text()))
        if begun is not None:
            begun.record(self.directory / "qemu.process")

    @property
    def _uplink(self) -> Path:
        return self.directory / "uplink.network"

    @property
    def parameters(self) -> Path:
        """A file with more parameters for the kernel. They are read at each start."""
        return self.directory / "kernel-parameters"

    def _command_line(self) -> str:
        more = self.parameters.read_text().split() if self.parameters.is_file() else []
        return " ".join([_COMMAND_LINE, *more])

    def _arguments(self, chosen: Accelerator) -> list[str]:
        tap = f"tap,id=net,ifname={port_name(self.name)},script=no,downscript=no"
        mac = underlay.mac_address(self.name)
        return [
            *chosen.arguments, "-M", "q35", "-m", str(_MEMORY_MIB), "-smp", "1", "-nodefaults",
            "-display", "none", "-daemonize",
            "-chardev", f"file,id=console,append=on,path={self.console}", "-serial", "chardev:console",
            "-kernel", str(self._kernel), "-append", self._command_line(),
            "-drive", f"{_DRIVE}{self._image}", "-device", "nvme,drive=disk,serial=lab",
            "-netdev", tap, "-device", f"virtio-net-pci,netdev=net,mac={mac},host_mtu={underlay.PORT_MTU},romfile=",
            "-device", "virtio-rng-pci", "-fw_cfg", f"name=opt/privnet-lab/uplink,file={self._uplink}",
        ]  # fmt: skip

    def reconfigure(self, network: Underlay, *, renumber: bool) -> None:
        text = underlay.networkd_file(self.host.addresses, self.host.mtu, network)
        if self._uplink.is_file() and self._uplink.read_text() == text:
            return
        self._uplink.write_text(text)
        # Its own connection may be what this ends, so nobody waits for it.
        later = "systemd-run --quiet --collect --no-block sh -c 'sleep 1; networkctl reload'"
        self.exec(["sh", "-c", f"cat >{underlay.NETWORKD_FILE} && {later}"], check=True, timeout=30, input=text)
        if renumber:
            self._hang_up()

    def wait_booted(self, timeout: float = BOOT_SECONDS, previous: Boot = None) -> None:
        timeout *= self.patience

        def settled() -> bool:
            return self.keeper is None or self._boot() not in (previous, "")

        if not wait_until(settled, timeout, interval=0.5):
            raise self._boot_failure(f"has not come up within {timeout:.0f} s")
        if self.keeper is None:
            raise self._boot_failure("went down while it was starting")
        self._wait_started(BOOT_SECONDS)

    def _boot(self) -> str:
        """The number of its present boot, or nothing while it does not answer."""
        asked = self._ask(["cat", "/proc/sys/kernel/random/boot_id"])
        return asked.stdout.strip()

    def _ask(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run it over a connection of its own: one that an earlier boot has left would only hang."""
        return process.run([*self._ssh("-o", "ControlPath=none"), self.name, shlex.join(command)], check=False)

    def power_off(self, timeout: float = SHUTDOWN_SECONDS) -> None:
        if self.keeper is None:
            return
        self.exec(["systemctl", "poweroff"], check=False, timeout=30)
        if not wait_until(lambda: self.keeper is None, timeout * self.patience):
            raise self._still_up(timeout * self.patience)
        self._hang_up()

    def reboot(self, timeout: float = SHUTDOWN_SECONDS) -> Boot:
        self._running()
        before = self._boot()
        self.exec(["systemctl", "reboot"], check=False, timeout=30)
        self._hang_up()
        if not wait_until(lambda: self._boot() != before, timeout * self.patience, interval=0.5):
            raise self._still_up(timeout * self.patience)
        return before

    def kill(self) -> None:
        keeper = self.keeper
        if keeper is not None:
            keeper.signal(signal.SIGKILL)
            keeper.wait(10)
        self._hang_up()
        underlay.remove_port(self.settings, self.name)

    # commands

    @property
    def _connection(self) -> Path:
        """Where the SSH connection that programs share is to be found."""
        return RUN_ROOT / f"{self.settings.name}.{port_name(self.name)}.ssh"

    def _ssh(self, *options: str) -> list[str]:
        common = ["-l", "root", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]
        return ["ssh", "-F", str(self.settings.ssh_config), *common, *options]

    def _hang_up(self) -> None:
        if self._connection.exists():
            control = ["-o", f"ControlPath={self._connection}"]
            process.run(["ssh", "-F", "none", *control, "-O", "exit", self.name], check=False)
            self._connection.unlink(missing_ok=True)

    def argv(self, command: Sequence[str]) -> list[str]:
        self._running()
        shared = ["-o", "ControlMaster=auto", "-o", "ControlPersist=yes", "-o", f"ControlPath={self._connection}"]
        return [*self._ssh(*shared), self.name, f"exec {shlex.join(clean(command))}"]

    def exec(
        self, command: Sequence[str], *, check: bool, timeout: float | None, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """See `Lab.exec`. The end of the connection does not end a program there, so its time is limited there too."""
        if timeout is not None:
            timeout *= self.patience
            command = ["timeout", "--signal=KILL", str(math.ceil(timeout) + _LEFT_OVER_SECONDS), *command]
        return Host.exec(self, command, check=check, timeout=timeout, input=input)
