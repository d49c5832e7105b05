"""Root file systems of lab hosts: built once by mmdebstrap, cached, never written to afterwards.

The packages come from where this machine's own apt takes its Debian packages; no archive is named here.
Hosts lay an overlay on a root file system, so that a fresh disk costs nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privnet.lab import settings
from privnet.lab.errors import LabError
from privnet.lab.process import run

RELEASE: Final = "bookworm"
# An empty Debian host that one can log in to: what the deploy is promised, and no more.
BARE_PACKAGES: Final = ("systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "iproute2")
# What the deploy needs, so that it finds nothing to install where there is nothing to install from …
DEPLOY_PACKAGES: Final = ("nftables", "wireguard-tools", "wireguard-go", "dnsmasq-base", "procps")
# … and what people and tests look around with.
TOOL_PACKAGES: Final = (
    "bind9-dnsutils", "curl", "iperf3", "iputils-arping", "iputils-ping", "less", "netcat-openbsd",
    "python3", "tcpdump",
)  # fmt: skip

# Run by mmdebstrap with the new root as $1. Archive addresses and this machine's apt settings do not belong
# in a host; host keys and machine-id are made for each host; timers that reach for the network or trim disks
# would only disturb measurements. Generators that find nothing in a container (systemd.generator(7): for disks, the
# kernel's command line, consoles, scripts of SysV's init) cost half of each daemon-reload, and the message of the day
# takes three programs for each connection, none of which shows it to anyone.
_TIDY: Final = r"""
set -eu
rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/apt/sources.list
rm -f "$1"/etc/apt/sources.list.d/* "$1"/etc/apt/trusted.gpg.d/*mmdebstrap*
: >"$1"/etc/resolv.conf
: >"$1"/etc/machine-id
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    e2scrub_reap.service; do
    chroot "$1" systemctl --quiet disable "$unit" || true
done
chroot "$1" systemctl --quiet mask console-getty.service
rm -f "$1"/etc/update-motd.d/*
mkdir -p "$1"/etc/systemd/system-generators
for path in "$1"/usr/lib/systemd/system-generators/systemd-*; do
    ln -s /dev/null "$1/etc/systemd/system-generators/${path##*/}"
done
for unit in ssh dbus systemd-networkd nftables; do
    printf '%s %s\n' "$unit" "$(chroot "$1" systemctl is-enabled "$unit" 2>/dev/null)" || true
done >"$1"/etc/privnet-lab-units
"""
_RECIPE_VERSION: Final = 1

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Image:
    """A root file system in the cache: `name`, the packages asked for, and where it lies."""

    name: str
    packages: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of everything that decides what is inside: another list of packages is another root file system."""
        recipe = json.dumps([_RECIPE_VERSION, RELEASE, _TIDY, sorted(self.packages)])
        return hashlib.sha256(recipe.encode()).hexdigest()[:12]

    @property
    def path(self) -> Path:
        return settings.CACHE_ROOT / f"{self.name}-{self.digest}"

    @property
    def root(self) -> Path:
        return self.path / "root"

    @property
    def manifest(self) -> Path:
        """SHA-256 of the package database as it was after the build."""
        return self.path / "manifest"


FULL: Final = Image("full", BARE_PACKAGES + DEPLOY_PACKAGES + TOOL_PACKAGES)
BARE: Final = Image("bare", BARE_PACKAGES)


def ready(image: Image, say: Say) -> Path:
    """The root file system of `image`; built (half a minute) if it is not there or was changed.

    Raises LabError when apt or mmdebstrap fail, with what they said.
    """
    with _one_builder():
        if not _intact(image):
            _discard(image.path)
            say(f"building the root file system {image.name!r} (half a minute, once)")
            _build(image)
        return image.root


def package_archive(say: Say) -> Path:
    """A local apt archive of everything that FULL has and BARE lacks: .debs and an index, in one directory.

    Built once per pair of images. Raises LabError.
    """
    bare = ready(BARE, say)
    archive = settings.CACHE_ROOT / f"archive-{FULL.digest}-{BARE.digest}"
    with _one_builder():
        if not (archive / "Packages").is_file():
            say("downloading packages for the lab's own apt archive (once)")
            _download(bare, archive)
    return archive


@contextmanager
def _one_builder() -> Iterator[None]:
    """Two labs that start at once build the cache once."""
    settings.CACHE_ROOT.mkdir(parents=True, exist_ok=True)
    with (settings.CACHE_ROOT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _intact(image: Image) -> bool:
    return image.manifest.is_file() and image.manifest.read_text() == _database_digest(image.root)


def _database_digest(root: Path) -> str:
    database = root / "var/lib/dpkg/status"
    return hashlib.sha256(database.read_bytes()).hexdigest() if database.is_file() else ""


def _discard(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def _build(image: Image) -> None:
    building = Path(tempfile.mkdtemp(prefix=f"building-{image.name}-", dir=settings.CACHE_ROOT))
    building.chmod(0o755)
    try:
        _with_fresh_lists(lambda: _bootstrap(image, building))
        (building / "manifest").write_text(_database_digest(building / "root"))
        building.rename(image.path)
    finally:
        _discard(building)


def _bootstrap(image: Image, directory: Path) -> None:
    _discard(directory / "root")
    sources = directory / "sources.list"
    options = directory / "apt.conf"
    tidy = directory / "tidy"
    sources.write_text(_sources())
    options.write_text(_acquire_options())
    tidy.write_text(f"#!/bin/sh{_TIDY}")
    tidy.chmod(0o755)
    try:
        run(
            [
                "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase",
                f"--include={','.join(image.packages)}", f"--aptopt={options}", f"--customize-hook={tidy}",
                RELEASE, str(directory / "root"), str(sources),
            ]
        )  # fmt: skip
    finally:
        for file in (sources, options, tidy):
            file.unlink()


def _download(bare: Path, archive: Path) -> None:
    building = Path(tempfile.mkdtemp(prefix="building-archive-", dir=settings.CACHE_ROOT))
    building.chmod(0o755)
    (building / "partial").mkdir()
    wanted = [package for package in FULL.packages if package not in BARE.packages]
    try:
        _with_fresh_lists(
            lambda: run(
                [
                    "apt-get", "--quiet", "--yes", "--download-only", "--no-install-recommends",
                    f"--option=Dir::State::status={bare}/var/lib/dpkg/status",
                    f"--option=Dir::Cache::archives={building}",
                    "--option=APT::Sandbox::User=root",
                    "install", *wanted,
                ]
            )
        )  # fmt: skip
        shutil.rmtree(building / "partial")
        (building / "lock").unlink(missing_ok=True)
        (building / "Packages").write_text(_index(building))
        _discard(archive)
        building.rename(archive)
    finally:
        _discard(building)


def _index(directory: Path) -> str:
    """The `Packages` file of a flat archive: each package's own control fields, and where its file is.

    See "Repository Format" in the Debian wiki, and apt-ftparchive(1).
    """
    stanzas = []
    for file in sorted(directory.glob("*.deb")):
        control = run(["dpkg-deb", "--field", str(file)]).stdout.rstrip("\n")
        content = file.read_bytes()
        stanzas.append(
            f"{control}\nFilename: ./{file.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
        )
    return "\n".join(stanzas)


def _with_fresh_lists(action: Callable[[], object]) -> None:
    """Do it with the package lists apt has; when that fails, once more with new ones."""
    try:
        action()
    except LabError:
        run(["apt-get", "--quiet", "update"])
        action()


def _sources() -> str:
    """This machine's own Debian package sources, as one-line apt entries. Raises LabError if it has none."""
    wanted = "$(CREATED_BY)|$(ORIGIN)|$(CODENAME)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
    lines = run(["apt-get", "indextargets", "--format", wanted]).stdout.splitlines()
    entries = []
    for line in lines:
        created_by, origin, codename, address, release, component = line.split("|")
        if created_by == "Packages" and origin == "Debian" and codename.startswith(RELEASE):
            entries.append(f"deb {address} {release} {component}\n")
    if not entries:
        raise LabError(
            f"apt on this machine knows no package source of Debian {RELEASE}, which lab hosts are made from",
            help="add the Debian archive to /etc/apt/sources.list and run `apt-get update`",
        )
    return "".join(entries)


def _acquire_options() -> str:
    """How this machine's apt reaches its sources (proxies, certificates), for the apt of mmdebstrap."""
    return run(["apt-config", "dump", "--format", '%F "%v";%n', "Acquire"]).stdout
