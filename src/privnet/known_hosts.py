"""SSH host keys: those of the lock file, in the form that SSH clients read, and what the user's own files say."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from privnet.diagnostics import visible
from privnet.model.fleet import Fleet, Host
from privnet.model.lock import Lock

PROGRAM_SECONDS = 20
_DEFAULTS = {
    "stricthostkeychecking": "ask",
    "userknownhostsfile": "~/.ssh/known_hosts ~/.ssh/known_hosts2",
    "globalknownhostsfile": "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2",
}
_NOBODY = "No user exists for uid"
_KRL = b"SSHKRL\n\0"
"""How a key revocation list begins (PROTOCOL.krl of OpenSSH); any other file of revoked keys is one of public keys."""
_FOUND = re.compile(r"# Host \S+ found: line (\d+)")
"""ssh-keygen(1), ``-F``."""


# --- of the lock file -------------------------------------------------------------------------------


def known_hosts_text(fleet: Fleet, lock: Lock) -> str:
    """One line for each host whose key is known (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    lines = []
    for name, host in sorted(fleet.hosts.items()):
        known = lock.hosts.get(name)
        if known and known.ssh:
            lines.append(f"{_place(host.address, host.ssh.port)} {known.ssh}\n")
    return "".join(lines)


def write_known_hosts(fleet: Fleet, lock: Lock) -> Path:
    """A file with these keys for this process, and for programs while it waits for them: in memory, on no disk."""
    handle = os.memfd_create("known_hosts")
    os.write(handle, known_hosts_text(fleet, lock).encode("ascii"))
    return Path(f"/proc/{os.getpid()}/fd/{handle}")


# --- of the user ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Login:
    """How a host is reached: what ssh(1) is given.

    :param user: empty for the one that ssh(1) takes by itself
    """

    address: str
    port: int = 22
    user: str = ""

    @classmethod
    def of(cls, host: Host) -> Login:
        """As it is declared."""
        return cls(host.address, host.ssh.port, host.ssh.user)


@dataclass(frozen=True, slots=True)
class Objection:
    """What speaks against a host's key.

    :param remedy: the command that takes it away, where there is one
    """

    why: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.why}{f': `{self.remedy}`' if self.remedy else ''}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a known-hosts file about a host: ``marker`` is empty, ``@revoked`` or ``@cert-authority``."""

    file: str
    line: int
    marker: str
    key: str

    @property
    def where(self) -> str:
        return f"{self.file} line {self.line}"


def strict(settings: Mapping[str, str]) -> bool:
    """Whether the user accepts no key that is not known."""
    return settings["stricthostkeychecking"] in ("yes", "true")


def objection(login: Login, key: str, settings: Mapping[str, str] | None = None) -> Objection | None:
    """What the user's SSH files and configuration have against accepting a host's key; None for nothing.

    As ssh(1) decides, with ``accept-new`` in the place of ``ask``; and stricter where a host is known by keys of other
    types alone, or by an authority, whose certificates paramiko does not ask for.

    :param key: as ``<type> <base64>``
    :param settings: those of :func:`ssh_settings`, if they were asked for before
    """
    try:
        settings = ssh_settings(login) if settings is None else settings
    except SettingsRefused as error:
        return Objection(f"ssh does not accept its configuration, so what that says of host keys is not known: {error}")
    place = settings.get("hostkeyalias") or _place(settings.get("hostname", login.address), login.port)
    entries = [*_entries(place, settings)]
    revoked = next((entry for entry in entries if entry.marker == "@revoked" and entry.key == key), None)
    if revoked:
        return Objection(f"{revoked.where} has its SSH host key as revoked")
    if why := _revoked(key, settings):
        return Objection(why)
    plain = [entry for entry in entries if not entry.marker]
    if any(entry.key == key for entry in plain) or settings["stricthostkeychecking"] in ("no", "off", "false"):
        return None
    if plain:
        other = next((entry for entry in plain if entry.key.split()[0] == key.split()[0]), plain[0])
        return Objection(
            f"{other.where} has another SSH host key for it: another machine is at its address, or its keys were made "
            "anew. If you know that they were",
            f"ssh-keygen -f {other.file} -R {place}",
        )
    authority = next((entry for entry in entries if entry.marker == "@cert-authority"), None)
    if authority:
        return Objection(
            f"{authority.where} says that an authority vouches for it (@cert-authority), which is not asked for here. "
            f"Put its key beside that line, when you have compared it: {place} {key}"
        )
    if strict(settings):
        return Objection(
            "no file of yours knows its SSH host key, and your SSH configuration says StrictHostKeyChecking yes. "
            f"When you have compared it, add this line to {_files(settings)[0]}: {place} {key}"
        )
    return None


class SettingsRefused(Exception):
    """ssh(1) connects nowhere with the user's configuration. The text is its own last line."""


def ssh_settings(login: Login) -> dict[str, str]:
    """The user's SSH configuration for a host, by OpenSSH itself.

    Its defaults where OpenSSH is not there, and for a user without an entry in passwd(5), to whom it says nothing.

    Raises SettingsRefused.
    """
    user = ("-l", login.user) if login.user else ()
    done = _run("ssh", "-G", "-p", str(login.port), *user, "--", login.address)
    if done is None or (done.returncode and _NOBODY in done.stderr):
        return dict(_DEFAULTS)
    if done.returncode:
        raise SettingsRefused(visible((done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]))
    return {**_DEFAULTS, **dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)}


def _revoked(key: str, settings: Mapping[str, str]) -> str | None:
    """What ``RevokedHostKeys`` has against a key (ssh_config(5)); None for nothing."""
    name = settings.get("revokedhostkeys", "none")
    if name == "none":
        return None
    file = _expanded(name)
    try:
        content = Path(file).read_bytes()
    except OSError:
        return f"{file} (RevokedHostKeys) cannot be read, and ssh refuses every host key then"
    if content.startswith(_KRL):
        done = _run("ssh-keygen", "-Q", "-f", file, "/dev/stdin", text=f"{key}\n")
        revoked = done is None or done.returncode != 0
    else:
        revoked = key.split()[-1].encode() in content.split()
    return f"{file} (RevokedHostKeys) has its SSH host key as revoked" if revoked else None


def _entries(place: str, settings: Mapping[str, str]) -> Iterator[Entry]:
    for file in _files(settings):
        if not Path(file).is_file():
            continue
        number = 0
        for line in _output("ssh-keygen", "-F", place, "-f", file).splitlines():
            if found := _FOUND.match(line):
                number = int(found[1])
                continue
            words = line.split()
            marker = words.pop(0) if words and words[0].startswith("@") else ""
            if len(words) >= 3:
                yield Entry(file, number, marker, f"{words[1]} {words[2]}")


def _files(settings: Mapping[str, str]) -> list[str]:
    names = f"{settings['userknownhostsfile']} {settings['globalknownhostsfile']}".split()
    return [_expanded(name) for name in names if name != "none"]


def _expanded(name: str) -> str:
    with suppress(RuntimeError):  # nobody's home
        return str(Path(name).expanduser())
    return name


def _run(*words: str, text: str = "") -> subprocess.CompletedProcess[str] | None:
    """What becomes of a program; None when it is not there, or hangs."""
    try:
        return subprocess.run(words, input=text, capture_output=True, text=True, timeout=PROGRAM_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None


def _output(*words: str) -> str:
    """What a program prints; nothing when it is not there or fails."""
    done = _run(*words)
    return done.stdout if done is not None and done.returncode == 0 else ""


def _place(address: str, port: int) -> str:
    """How a host stands in a known-hosts file."""
    return address if port == 22 else f"[{address}]:{port}"
