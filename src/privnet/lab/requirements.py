"""What a lab needs of this machine. What is missing is said all at once, with what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from privnet.lab.errors import LabError
from privnet.lab.process import run

PROGRAMS: Final = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "setsid": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "nc": "netcat-openbsd",
    "tcpdump": "tcpdump",
}
PROGRAMS_OF_MACHINES: Final = {
    "qemu-system-x86_64": "--no-install-recommends qemu-system-x86",
    "mkfs.ext4": "e2fsprogs",
}
# Each is tried in a network namespace that is thrown away.
_KERNEL: Final = {
    "veth devices (CONFIG_VETH)": "ip link add privnet-a type veth peer name privnet-b",
    "bridges (CONFIG_BRIDGE)": "ip link add privnet-c type bridge",
    "VXLAN devices (CONFIG_VXLAN)": "ip link add privnet-d type vxlan id 4096 dstport 4789 local 192.0.2.1",
    "nftables, family inet (CONFIG_NF_TABLES_INET)": "nft add table inet privnet",
    "nftables, family bridge (CONFIG_NF_TABLES_BRIDGE)": "nft add table bridge privnet",
}


_INOTIFY: Final = Path("/proc/sys/fs/inotify/max_user_instances")
_INSTANCES: Final = 4096


def make_room() -> str | None:
    """Raise the number of inotify instances a user may have, if it is too small for a fleet. Gives a line to say.

    All hosts of all labs are one user to the kernel, and each takes about fifteen. Linux gives 128; beyond them
    systemd's path units fail, and wireguard-go does not answer (`Protocol not supported`).
    """
    present = int(_INOTIFY.read_text())
    if present >= _INSTANCES:
        return None
    _INOTIFY.write_text(f"{_INSTANCES}\n")
    return f"raised fs.inotify.max_user_instances from {present} to {_INSTANCES}"


def check(*, machines: bool = False) -> None:
    """Raise LabError that names everything the lab is missing here.

    :param machines: some of its hosts are to be machines
    """
    if os.geteuid() != 0:
        raise LabError("a lab makes namespaces and mounts, which only root may", help="run it with sudo")
    missing = [
        f"{problem}\n      {remedy}"
        for problem, remedy in _missing(PROGRAMS | (PROGRAMS_OF_MACHINES if machines else {}))
    ]
    if missing:
        listed = "".join(f"\n  - {problem}" for problem in missing)
        help = "`make setup` installs missing packages" + (", `make test-machines` also QEMU" if machines else "")
        raise LabError(f"this machine cannot run a lab:{listed}", help=help)


def _missing(programs: dict[str, str]) -> list[tuple[str, str]]:
    found = [
        (f"the program {program} is not installed", f"apt-get install {package}")
        for program, package in programs.items()
        if shutil.which(program) is None
    ]
    if not Path("/dev/net/tun").is_char_device():
        found.append(("/dev/net/tun is missing (wireguard-go needs it)", "modprobe tun; pass it into a container"))
    if not _has_overlay():
        found.append(("the kernel has no overlayfs (disks of hosts)", "modprobe overlay"))
    if found:
        return found
    return [
        (f"the kernel has no {feature}: {said}", "boot a kernel that has it, or load its module")
        for feature, said in _missing_kernel_features().items()
    ]


def _has_overlay() -> bool:
    def listed() -> bool:
        return "\toverlay\n" in Path("/proc/filesystems").read_text()

    if not listed() and shutil.which("modprobe"):
        run(["modprobe", "overlay"], check=False)
    return listed()


def _missing_kernel_features() -> dict[str, str]:
    script = "".join(f"{{ {command}; }} 2>&1 || echo failed\necho ---\n" for command in _KERNEL.values())
    tried = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True)
    if tried.returncode:
        return {"network namespaces": tried.stderr.strip()}
    answers = tried.stdout.split("---\n")
    pairs = zip(_KERNEL, answers, strict=False)
    return {feature: answer.splitlines()[0] for feature, answer in pairs if "failed" in answer.splitlines()}
