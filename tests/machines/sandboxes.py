"""What each line of our units' sandboxes refuses, tried on a host's own kernel."""

from __future__ import annotations

import shlex

from privnet.lab import Lab
from security.oracle import OPERATOR

SEND, READ_DISK = f"echo x >/dev/udp/{OPERATOR}/9", "head -c 1 /dev/nvme0n1"
REFUSED = {
    "IPAddressDeny=any": SEND,
    "RestrictAddressFamilies=AF_NETLINK AF_UNIX": SEND,
    "DevicePolicy=closed": READ_DISK,
    "PrivateDevices=yes": READ_DISK,
    "CapabilityBoundingSet=CAP_NET_ADMIN": "mount -t tmpfs none /mnt",
    "SystemCallFilter=@system-service": "mount -t tmpfs none /mnt",
    "SystemCallFilter=~@resources @privileged": "chroot / true",
    "RestrictNamespaces=yes": "unshare --net true",
    "MemoryDenyWriteExecute=yes": "python3 -c 'import mmap; mmap.mmap(-1, 4096, prot=7)'",
    "ProtectKernelModules=yes": "modprobe dummy",
    "ProtectKernelTunables=yes": "echo 0 >/proc/sys/net/ipv4/ip_no_pmtu_disc",
    "ProtectControlGroups=yes": "mkdir -p /sys/fs/cgroup/probe",
    "ProtectSystem=strict": "touch /etc/probe",
    "ProtectHome=yes": "ls /root/.ssh",
    "RestrictSUIDSGID=yes": "touch /run/probe && chmod u+s /run/probe",
}
"""What a line of our units' sandboxes refuses. Without the line each command does what it says, as root."""
CLEAN = """
while umount /mnt 2>/dev/null; do :; done
rmdir /sys/fs/cgroup/probe; rm -f /etc/probe /run/probe; modprobe -r dummy; true"""
TRY = "systemd-run --quiet --wait --collect --property={line} bash -c {command}"


def done_with_and_without(lab: Lab, host: str) -> list[str]:
    """Which commands a host does, in transient units: `with LINE` or `without LINE`."""
    tries = []
    for line, command in REFUSED.items():
        for case, used in (("with", line), ("without", "Nice=0")):
            words = TRY.format(line=shlex.quote(used), command=shlex.quote(command))
            tries.append(f"{words} && echo {case} {shlex.quote(line)}")
    return lab.exec(host, "\n".join([*tries, CLEAN]), timeout=120, check=False).stdout.splitlines()
