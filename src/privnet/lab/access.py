"""SSH into the lab: one key pair, one configuration that OpenSSH and paramiko both understand."""

from __future__ import annotations

from collections.abc import Iterable

from privnet.lab.host import Host
from privnet.lab.process import run
from privnet.lab.settings import OPERATOR, Settings


def make_key(settings: Settings) -> str:
    """The public key that hosts of this lab accept; made if there is none yet."""
    if not settings.identity.is_file():
        comment = f"privnet-lab-{settings.name}"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(settings.identity)])
    return settings.identity.with_suffix(".pub").read_text()


def write_configuration(settings: Settings, machines: Iterable[Host]) -> None:
    """Write `ssh_config` and `known_hosts` for these hosts, which must have their disks."""
    blocks = []
    known = []
    for machine in machines:
        host = machine.host
        address = host.addresses[0]
        blocks.append(f"Host {host.name}\n  HostName {address}\n  Port {host.ssh_port}\n  User {host.user}\n")
        for port in sorted({22, host.ssh_port}):
            names = [_known_as(name, port) for name in (str(address), host.name)]
            known.append(f"{','.join(names)} {machine.ssh_host_key}\n")
    # A name that is not in this lab ends in a namespace that has no way out, never at a real machine.
    common = (
        "Host *\n"
        f"  ProxyCommand ip netns exec {settings.namespace(OPERATOR)} nc -n %h %p\n"
        f"  IdentityFile {settings.identity}\n"
        "  IdentitiesOnly yes\n"
        "  IdentityAgent none\n"
        f"  UserKnownHostsFile {settings.known_hosts}\n"
        "  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking yes\n"
        "  ConnectTimeout 10\n"
        "  ServerAliveInterval 5\n"
        "  ServerAliveCountMax 3\n"
    )
    title = f"# Hosts of the lab {settings.name!r}; written by `privnet lab up`.\n"
    settings.known_hosts.write_text("".join(known))
    settings.ssh_config.write_text("\n".join([title, *blocks, common]))


def _known_as(name: str, port: int) -> str:
    """How sshd(8) writes a host in known_hosts."""
    return name if port == 22 else f"[{name}]:{port}"
