"""Root file systems of lab hosts: built once by mmdebstrap, cached, never written to afterwards.

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

from privnet.lab import archive, settings
from privnet.lab.archive import DEFAULT_RELEASE
from privnet.lab.process import run
from privnet.lab.underlay import NETWORKD_FILE

# An empty Debian host that one can log in to: what the deploy is promised, and no more.
BARE_PACKAGES: Final = ("systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "iproute2")
# What the deploy needs, so that it finds nothing to install where there is nothing to install from …
DEPLOY_PACKAGES: Final = ("nftables", "wireguard-tools", "wireguard-go", "dnsmasq-base", "procps")
# … and what people and tests look around with.
TOOL_PACKAGES: Final = (
    "bind9-dnsutils", "curl", "iperf3", "iputils-arping", "iputils-ping", "less", "netcat-openbsd",
    "python3", "tcpdump", "tcsh",
)  # fmt: skip

# What Ubuntu has in place of GNU's programs.
_MORE_TOOLS: Final = {"trixie": ("rust-coreutils",)}

# Run by mmdebstrap with the new root as $1. Archive addresses and this machine's apt settings do not belong
# in a host; host keys and machine-id are made for each host; timers that reach for the network or trim disks
# would only disturb measurements. Generators that find nothing in a container (systemd.generator(7): for disks, the
# kernel's command line, consoles, scripts of SysV's init) cost half of each daemon-reload, and the message of the day
# takes three programs for each connection, none of which shows it to anyone.
_TIDY: Final = r"""
set -eu
rm -f "$1"/etc/ssh/ssh_host_* "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/apt/sources.list
rm -f "$1"/etc/apt/sources.list.d/* "$1"/etc/apt/trusted.gpg.d/*mmdebstrap*
rm -f "$1"/etc/resolv.conf
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
# A machine is a Debian host in earnest: its own kernel, networkd and resolved in charge, a login manager, AppArmor, and
# all generators. At each boot it finds in the firmware's configuration device (fw_cfg) what its uplink is.
_MACHINE_PACKAGES: Final = (
    "linux-image-cloud-amd64", "kmod", "udev", "systemd-resolved", "libpam-systemd", "apparmor",
)  # fmt: skip
_MACHINE_TIDY: Final = rf"""
rm -rf "$1"/etc/systemd/system-generators
rm -f "$1"/boot/initrd.img-*
# Debian 13 has a hundred profiles of browsers and the like, which take two minutes to load where QEMU translates.
find "$1"/etc/apparmor.d -maxdepth 1 -type f ! -name '*tcpdump' ! -name 'unix-chkpwd' ! -name 'systemd-*' -delete
# The first boot need not make again what is generated (systemd-update-done.service(8)).
touch "$1"/etc/.updated "$1"/var/.updated
ln -sf ../run/systemd/resolve/stub-resolv.conf "$1"/etc/resolv.conf
# Until networkd has told resolved about the uplink it would ask the whole link for its own name.
mkdir "$1"/etc/systemd/resolved.conf.d
printf '[Resolve]\nLLMNR=no\nMulticastDNS=no\n' >"$1"/etc/systemd/resolved.conf.d/lab.conf
cat >"$1"/etc/systemd/system/lab-uplink.service <<'UNIT'
[Unit]
DefaultDependencies=no
Before=systemd-networkd.service network-pre.target
Wants=network-pre.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/sbin/modprobe qemu_fw_cfg
ExecStart=/usr/bin/install -D -m 0644 /sys/firmware/qemu_fw_cfg/by_name/opt/privnet-lab/uplink/raw {NETWORKD_FILE}

[Install]
WantedBy=systemd-networkd.service
UNIT
chroot "$1" systemctl --quiet enable systemd-networkd.service systemd-resolved.service lab-uplink.service
"""
_RECIPE_VERSION: Final = 2
# Taken from another release. A kernel without WireGuard needs a wireguard-go that does not join datagrams.
_BORROWED: Final = {("trixie", "wireguard-go"): "bookworm"}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Image:
    """A root file system in the cache: `name`, the packages asked for, their release, and where it lies.

    A package of another release is asked for as `package/release`, as apt writes it.
    """

    name: str
    packages: tuple[str, ...]
    release: str = DEFAULT_RELEASE
    tidy: str = _TIDY

    @property
    def digest(self) -> str:
        """Of everything that decides what is inside: another list of packages is another root file system."""
        recipe = json.dumps([_RECIPE_VERSION, self.release, self.tidy, sorted(self.packages)])
        return hashlib.sha256(recipe.encode()).hexdigest()[:12]

    @property
    def path(self) -> Path:
        return settings.CACHE_ROOT / f"{self.name}-{self.release}-{self.digest}"

    @property
    def root(self) -> Path:
        return self.path / "root"

    @property
    def manifest(self) -> Path:
        """SHA-256 of the package database as it was after the build."""
        return self.path / "manifest"

    @property
    def patience(self) -> str:
        """How long it takes to build, for people."""
        return "a minute" if _MACHINE_TIDY in self.tidy else "half a minute"

    @property
    def releases(self) -> tuple[str, ...]:
        """Of all its packages, its own first."""
        borrowed = [release for _, slash, release in (name.partition("/") for name in self.packages) if slash]
        return (self.release, *dict.fromkeys(borrowed))


def _from(release: str, packages: tuple[str, ...]) -> tuple[str, ...]:
    borrowed = {name: f"{name}/{other}" for (own, name), other in _BORROWED.items() if own == release}
    return tuple(borrowed.get(name, name) for name in packages)


def full(release: str = DEFAULT_RELEASE) -> Image:
    """What lab hosts run: all that a deploy needs, and tools."""
    packages = BARE_PACKAGES + DEPLOY_PACKAGES + TOOL_PACKAGES + _MORE_TOOLS.get(release, ())
    return Image("full", _from(release, packages), release)


def bare(release: str = DEFAULT_RELEASE) -> Image:
    """A host as Debian's installer leaves it."""
    return Image("bare", BARE_PACKAGES, release)


def machine(release: str = DEFAULT_RELEASE) -> Image:
    """What machines run: the same, with the release's kernel, which has WireGuard."""
    packages = tuple(name for name in BARE_PACKAGES + DEPLOY_PACKAGES + TOOL_PACKAGES if name != "wireguard-go")
    return Image("machine", packages + _MACHINE_PACKAGES, release, _TIDY + _MACHINE_TIDY)


def ready(image: Image, say: Say) -> Path:
    """The root file system of `image`; built (half a minute) if it is not there or was changed.

    Raises LabError when apt or mmdebstrap fail, with what they said.
    """
    with _one_builder():
        if not _intact(image):
            _discard(image.path)
            say(f"building the root file system {image.name!r} of Debian {image.release} ({image.patience}, once)")
            _build(image)
        return image.root


def package_archive(
    say: Say, release: str = DEFAULT_RELEASE, more: Image | None = None, less: Image | None = None
) -> Path:
    """A local apt archive of everything that one image has and another lacks: .debs and an index, in one directory.

    Built once per pair of images, which are the full one and the bare one unless given. Raises LabError.
    """
    more, less = more or full(release), less or bare(release)
    status = ready(less, say) / "var/lib/dpkg/status"
    directory = settings.CACHE_ROOT / f"archive-{release}-{more.digest}-{less.digest}"
    with _one_builder():
        if not (directory / "Packages").is_file():
            say(f"downloading packages of Debian {release} for the lab's own apt archive (once)")
            _download(more, less, status, directory)
    return directory


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
        archive.with_fresh_lists(lambda: _bootstrap(image, building))
        (building / "manifest").write_text(_database_digest(building / "root"))
        building.rename(image.path)
    finally:
        _discard(building)


def _bootstrap(image: Image, directory: Path) -> None:
    _discard(directory / "root")
    sources = directory / "sources.list"
    options = directory / "apt.conf"
    tidy = directory / "tidy"
    sources.write_text(archive.sources(*image.releases))
    options.write_text(archive.acquire_options())
    tidy.write_text(f"#!/bin/sh{image.tidy}")
    tidy.chmod(0o755)
    try:
        run(
            [
                "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase",
                f"--include={','.join(image.packages)}", f"--aptopt={options}", f"--customize-hook={tidy}",
                image.release, str(directory / "root"), str(sources),
            ]
        )  # fmt: skip
    finally:
        for file in (sources, options, tidy):
            file.unlink()


def _download(more: Image, less: Image, status: Path, directory: Path) -> None:
    building = Path(tempfile.mkdtemp(prefix="building-archive-", dir=settings.CACHE_ROOT))
    building.chmod(0o755)
    try:
        wanted = tuple(package for package in more.packages if package not in less.packages)
        archive.download(wanted, more.releases, status, building)
        for left in building.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            elif left.suffix != ".deb":
                left.unlink()
        (building / "Packages").write_text(_index(building))
        _discard(directory)
        building.rename(directory)
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
