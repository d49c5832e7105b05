"""Debian's package archive, as this machine's own apt reaches it; no archive is named here.

A lab host may run another release than this machine. Where apt knows no source of that release, the sources of the
release that it does know are taken, with the other name: the archive keeps all of them side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privnet.lab.errors import LabError
from privnet.lab.process import run

RELEASES: Final = {"bookworm": "Debian 12", "trixie": "Debian 13"}
"""The releases of lab hosts, by the name that the archive has for them."""
DEFAULT_RELEASE: Final = "bookworm"
_FIELDS: Final = ("CREATED_BY", "ORIGIN", "CODENAME", "REPO_URI", "RELEASE", "COMPONENT", "SIGNED_BY")


def check_release(release: str) -> str:
    """`release`, if lab hosts can run it. Raises LabError."""
    if release not in RELEASES:
        known = ", ".join(f"{name} ({version})" for name, version in RELEASES.items())
        raise LabError(f"lab hosts cannot run the release {release!r}; they can run {known}")
    return release


@dataclass(frozen=True, slots=True)
class _Source:
    """One component of one suite: `codename` is what the archive calls the suite (`bookworm-security`), and `suite`
    what this machine's apt configuration calls it (perhaps `stable-security`)."""

    codename: str
    address: str
    suite: str
    component: str
    signed_by: str

    @property
    def base(self) -> str:
        return self.codename.partition("-")[0]

    def entry(self, release: str) -> str:
        """The one-line apt entry of the same part of `release`."""
        suite = self.suite if self.base == release else release + self.codename[len(self.base) :]
        # A key that the configuration quotes in full is one of those in Debian's keyring, which apt trusts anyway.
        option = f"[signed-by={self.signed_by}] " if self.signed_by.startswith("/") else ""
        return f"deb {option}{self.address} {suite} {self.component}\n"


def sources(*releases: str) -> str:
    """apt entries of all these releases. Raises LabError if this machine's apt knows no source of Debian."""
    lines = run(["apt-get", "indextargets", "--format", "|".join(f"$({field})" for field in _FIELDS)]).stdout
    return "".join(entries(lines, release) for release in dict.fromkeys(releases))


def entries(index_targets: str, release: str) -> str:
    """apt entries of `release`, by what `apt-get indextargets` says of this machine: a line of _FIELDS a target."""
    known: dict[str, list[_Source]] = {}
    for line in index_targets.splitlines():
        created_by, origin, *fields = line.split("|")
        if created_by == "Packages" and origin == "Debian":
            source = _Source(*fields)
            known.setdefault(source.base, []).append(source)
    if not known:
        raise LabError(
            "apt on this machine knows no package source of Debian, which lab hosts are made from",
            help="add the Debian archive to /etc/apt/sources.list and run `apt-get update`",
        )
    own = known.get(release) or known[min(known)]
    return "".join(dict.fromkeys(source.entry(release) for source in own))


def acquire_options() -> str:
    """How this machine's apt reaches its sources (proxies, certificates), for another apt."""
    return run(["apt-config", "dump", "--format", '%F "%v";%n', "Acquire"]).stdout


def with_fresh_lists(action: Callable[[], object]) -> None:
    """Do it with the package lists apt has; when that fails, once more with new ones."""
    try:
        action()
    except LabError:
        run(["apt-get", "--quiet", "update"])
        action()


def download(packages: tuple[str, ...], releases: tuple[str, ...], status: Path, directory: Path) -> None:
    """Put the .debs into `directory` that a system with the package database `status` lacks for `packages`."""
    parts = {name: directory / name for name in ("lists", "partial", "sources.list")}
    parts["lists"].mkdir()
    parts["partial"].mkdir()
    parts["sources.list"].write_text(sources(*releases))
    options = [
        "--quiet", "--yes", "--no-install-recommends",
        f"--option=Dir::Etc::sourcelist={parts['sources.list']}", "--option=Dir::Etc::sourceparts=-",
        f"--option=Dir::State::lists={parts['lists']}", f"--option=Dir::State::status={status}",
        f"--option=Dir::Cache::archives={directory}", "--option=Dir::Cache::pkgcache=",
        "--option=Dir::Cache::srcpkgcache=", "--option=APT::Sandbox::User=root",
    ]  # fmt: skip
    run(["apt-get", *options, "update"])
    run(["apt-get", *options, "--download-only", "install", *packages])
