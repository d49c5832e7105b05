"""A fleet deployed the way a person does it: by its real addresses, with SSH files of the person's own.

Everything runs in the network namespace of a lab's operator, where directories of the test lie over ``~/.ssh`` and
``/etc/ssh``. The fleet does not say ``lab: true``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from privnet.compiler import compile_fleet
from privnet.lab import Lab
from privnet.model.lock import Lock

PRIVNET = Path(sys.executable).parent / "privnet"
_ENTER = """
mount --make-rprivate / && mount --bind "$1" /root/.ssh && mount --bind "$2" /etc/ssh && shift 2 &&
exec "$@"
"""


class Person:
    """Somebody who deploys a copy of a lab's inventory to the lab's hosts."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.ssh, self.system = directory / "ssh", directory / "etc-ssh"
        self.inventory = directory / "real"
        shutil.copytree(lab.inventory, self.inventory, ignore=shutil.ignore_patterns("privnet.*", ".privnet*"))
        shutil.copy(lab.inventory.with_suffix(".py"), self.inventory.with_suffix(".py"))
        fleet = self.inventory / "fleet.yaml"
        fleet.write_text(fleet.read_text().replace("lab: true\n", ""))
        self.ssh.mkdir(mode=0o700)
        for name in ("id_ed25519", "id_ed25519.pub"):
            shutil.copy(lab.settings.state / name, self.ssh)
        self.system.mkdir()
        Path("/root/.ssh").mkdir(mode=0o700, exist_ok=True)

    def __call__(self, *words: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """``privnet WORDS``, with ``INVENTORY`` for the fleet's directory."""
        command = [str(PRIVNET), *(str(self.inventory) if word == "INVENTORY" else word for word in words)]
        return subprocess.run(
            self.argv(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.inventory.parent,
            env=self.environment(environment or {}),
            timeout=400,
        )

    def argv(self, command: list[str]) -> list[str]:
        """The program of this machine that runs a command as that person."""
        return self.lab.argv(
            "operator", ["unshare", "--mount", "sh", "-c", _ENTER, "-", str(self.ssh), str(self.system), *command]
        )

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        own = {"PYINFRA_PROGRESS": "off", "NO_COLOR": "1"}
        unset = ("PRIVNET_LAB", "SSH_AUTH_SOCK")
        kept = {name: value for name, value in os.environ.items() if name not in unset}
        return {name: value for name, value in {**kept, **own, **more}.items() if value != "UNSET"}

    def done(self, *words: str, environment: Mapping[str, str] | None = None) -> str:
        """The same, which must end well; what it printed."""
        ended = self(*words, environment=environment)
        assert ended.returncode == 0, ended.stdout
        return ended.stdout

    @property
    def lock(self) -> Lock:
        return compile_fleet(self.inventory).known

    @property
    def known_hosts(self) -> Path:
        return self.ssh / "known_hosts"
