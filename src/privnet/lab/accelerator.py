"""How machines run: by the processor's own virtualisation (KVM) where that works, else translated by QEMU (TCG).

/dev/kvm says little: where virtual machines are nested it may be there and hang, or break off, as soon as a kernel
runs in it. So the kernel of a machine is booted once, without a disk, until it has nothing left to do.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privnet.lab.image import Say
from privnet.lab.settings import RUN_ROOT

PROGRAM: Final = "qemu-system-x86_64"
PROBE_SECONDS: Final = 20.0
DEVICE: Final = Path("/dev/kvm")
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
# What a kernel says that has found its way through all of its start, and no disk.
_DONE: Final = "Unable to mount root fs"


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One of QEMU's accelerators.

    :param cpu: the model whose instructions it runs best
    :param patience: how many times longer than on this machine itself something may take
    """

    name: str
    cpu: str
    patience: float

    @property
    def arguments(self) -> list[str]:
        return ["-accel", self.name, "-cpu", self.cpu]


KVM: Final = Accelerator("kvm", "host", 2)
# A model with few wide instructions: a kernel that finds them uses them, and here they are slow.
TCG: Final = Accelerator("tcg", "qemu64,+ssse3,+sse4.1,+sse4.2", 5)
ACCELERATORS: Final = {accelerator.name: accelerator for accelerator in (KVM, TCG)}


def choose(kernel: Path, say: Say, memory: Path = RUN_ROOT / "accelerator.json") -> Accelerator:
    """KVM if `kernel` runs with it. The answer is remembered in `memory` until this machine reboots."""
    boot = _BOOT_ID.read_text().strip()
    remembered = json.loads(memory.read_text()) if memory.is_file() else {}
    if remembered.get("boot") != boot:
        problem = probe(KVM, kernel, PROBE_SECONDS) if DEVICE.exists() else f"there is no {DEVICE}"
        if problem:
            say(f"machines run without KVM, several times slower: {problem}")
        remembered = {"boot": boot, "accelerator": (TCG if problem else KVM).name}
        memory.parent.mkdir(parents=True, exist_ok=True)
        new = memory.with_suffix(".new")
        new.write_text(json.dumps(remembered))
        new.replace(memory)
    return ACCELERATORS[remembered["accelerator"]]


def probe(accelerator: Accelerator, kernel: Path, timeout: float) -> str:
    """Boot `kernel` without a disk; why that does not work, or nothing."""
    with tempfile.NamedTemporaryFile("r", errors="replace") as console:
        argv = [
            PROGRAM, *accelerator.arguments, "-M", "q35", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot",
            "-kernel", str(kernel), "-append", "console=ttyS0 panic=-1 root=/dev/none",
            "-serial", f"file:{console.name}",
        ]  # fmt: skip
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            return f"with {accelerator.name} Debian's kernel has not come up within {timeout:.0f} s"
        if _DONE in console.read():
            return ""
        said = (done.stderr.strip().splitlines() or ["nothing"])[0]
        return f"with {accelerator.name} Debian's kernel does not come up; QEMU says: {said}"
