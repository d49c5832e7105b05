"""The golden cases: a fleet's documents and lock file in `in/`, and what must come of them beside it.

`out/HOST/…` holds the files of each host but for those that every host has, which are what their sources are;
`plan.txt` and `names.txt` what the commands print. The case `lab` is `inventory/lab` with a lock file.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from privnet.cli import table
from privnet.compiler import compile_fleet, render_fleet
from privnet.model.lock import HostLock
from privnet.render import static_files
from privnet.report.fleet import plan_lines
from privnet.report.names import name_rows
from privnet.store import lock_path, save_lock

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "inventory" / "lab"
CASES = tuple(sorted(path.parent.name for path in HERE.glob("*/in")))
NOW = 1_790_000_000
REGENERATE = "python -m tests.golden.regenerate"


def printed(case: Path) -> dict[str, str]:
    """What must stand beside `in/`, by path; a symbolic link as `-> target`."""
    return compiled(case / "in")


def compiled(directory: Path) -> dict[str, str]:
    """The same for any directory of a fleet."""
    fleet = compile_fleet(directory, NOW)
    static = {file.path for file in static_files()}
    texts = {
        f"out/{host}{file.path}": f"-> {file.text}" if file.is_link else file.text
        for host, files in render_fleet(fleet.plan).items()
        for file in files
        if file.path not in static
    }
    texts["plan.txt"] = "".join(f"{line}\n" for line in plan_lines(fleet, everything=True))
    texts["names.txt"] = "".join(f"{line}\n" for line in table(name_rows(fleet.plan)))
    return texts


def stored(case: Path) -> dict[str, str]:
    """What stands beside `in/` now."""
    files = [case / "plan.txt", case / "names.txt", *(case / "out").rglob("*")]
    return {
        str(path.relative_to(case)): f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
        for path in files
        if path.is_symlink() or path.is_file()
    }


def store(case: Path, texts: Mapping[str, str]) -> None:
    """Put ``texts`` beside `in/`."""
    shutil.rmtree(case / "out", ignore_errors=True)
    for name, text in texts.items():
        path = case / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            path.symlink_to(text.removeprefix("-> "))
        else:
            path.write_text(text)


def lock(directory: Path) -> None:
    """Write a lock file with a key for each host, unless there is one."""
    if lock_path(directory).exists():
        return
    fleet = compile_fleet(directory, NOW)
    hosts = {
        name: HostLock(known.mesh, f"{'K' * 40}{number:02}Q=", f"ssh-ed25519 {'S' * 66}{number:02}")
        for number, (name, known) in enumerate(fleet.lock.hosts.items())
    }
    save_lock(directory, replace(fleet.lock, hosts=hosts))


def copy_example() -> None:
    """Bring the case `lab` to what `inventory/lab` declares."""
    target = HERE / "lab" / "in"
    shutil.rmtree(target / "projects", ignore_errors=True)
    for path in EXAMPLE.rglob("*.yaml"):
        if path.name != lock_path(EXAMPLE).name:
            copy = target / path.relative_to(EXAMPLE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
