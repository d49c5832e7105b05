"""Imports go one way, so that each layer can be read without those to its right."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "privnet"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("diagnostics", "unread"),
    ("model",),
    ("fields",),
    ("indentation",),
    ("shape",),
    ("load", "lock_lines", "schema"),
    ("check", "store", "progress"),
    ("plan",),
    ("render",),
    ("compiler",),
    ("report", "new", "committed"),
    ("hosts",),
    ("lab", "known_hosts", "sudo"),
    ("deploy", "audit"),
    ("importer",),
    ("cli",),
)
"""From left to right; those of one layer do not import each other, but for a package its own modules."""

RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
ONLY_IN = {
    "pyinfra": "deploy",
    "testinfra": "audit",
    "pytest": "audit",
    "jinja2": "render",
    "yaml": "load",
    "typer": "cli",
}
LEFT = ("model", "fields", "indentation", "shape", "check", "plan", "diagnostics")
"""Standard library and pydantic only."""


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def part(path: Path) -> str:
    """Which part of the package a module belongs to."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(source: str, path: Path) -> Iterator[str]:
    """Every module that a source imports, at its top or inside a function."""
    package = ("privnet", *path.relative_to(SOURCE).parts[:-1])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names if module == "privnet")


def steps_back(source: str, path: Path) -> list[str]:
    """Imports that do not go to the left."""
    own = part(path)
    found = {name.split(".")[1] for name in imports(source, path) if name.startswith("privnet.")}
    return sorted(other for other in found if other != own and RANK[other] >= RANK[own])


def others(source: str, path: Path) -> set[str]:
    """Packages that are neither ours nor the standard library's."""
    tops = {name.split(".")[0] for name in imports(source, path)}
    return tops - sys.stdlib_module_names - {"privnet"}


def test_each_part_has_a_layer() -> None:
    assert {part(path) for path in modules()} == set(RANK)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_left(path: Path) -> None:
    assert steps_back(path.read_text(), path) == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_each_library_is_used_in_one_place(path: Path) -> None:
    used = others(path.read_text(), path)
    for library in used & set(ONLY_IN):
        allowed = (ONLY_IN[library], "lab", "audit", "importer") if library == "typer" else (ONLY_IN[library],)
        assert part(path) in allowed, f"{library} belongs to {ONLY_IN[library]}"
    if part(path) in LEFT:
        assert used <= {"pydantic", "pydantic_core"}


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("plan/host.py", "from privnet.render import render_host"),
        ("plan/host.py", "def f():\n    import privnet.compiler"),
        ("audit/actual.py", "from privnet.deploy.state import parse"),
        ("audit/actual.py", "from ..deploy import state"),
        ("deploy/run.py", "from privnet import cli"),
        ("model/lock.py", "from privnet.load import Declaration"),
    ],
)
def test_a_step_back_is_seen(place: str, source: str) -> None:
    assert steps_back(source, SOURCE / place)


def test_what_is_left_of_the_deploy_runs_without_pyinfra() -> None:
    """Also through what is imported by what is imported."""
    heavy = {"pyinfra", "testinfra", "typer", "rich", "pytest", "gevent"}
    program = f"import sys, privnet.report.fleet, privnet.report.names; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
    program = f"import sys, privnet.cli; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "typer\n"


# --- what docs/architecture.md says of them -------------------------------------------------------

PAGE = (ROOT / "docs" / "architecture.md").read_text()


def printing() -> set[str]:
    """Modules that write to a stream of the process, or by pyinfra's log."""
    calls = (
        "typer.echo",
        "typer.secho",
        "print",
        "sys.stderr.write",
        "sys.stdout.write",
        "logger.error",
        "logger.warning",
    )
    found = set()
    for path in modules():
        tree = ast.parse(path.read_text())
        names = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        if names & set(calls):
            found.add(str(path.relative_to(SOURCE)))
    return found


def test_the_page_names_the_modules_that_print() -> None:
    commands = {"cli.py", "audit/cli.py", "lab/cli.py", "importer/cli.py"}
    others = {"deploy/inventory.py", "deploy/outcome.py", "deploy/operations.py", "audit/report.py"}
    assert printing() == commands | others
    assert "| `cli.py`, and `cli.py` of `audit/`, `lab/`, `importer/` | the command line | typer |" in PAGE
    assert all(f"`{name}`" in PAGE for name in others)


def test_each_feature_is_where_the_page_says() -> None:
    head, _, *rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.count(" | ") == 4][:7]
    folders = [cell.strip("`/") for cell in head[1:]]
    assert (head[0], folders) == ("feature", ["plan", "host", "deploy/changes", "audit"])
    assert [row[0] for row in rows] == ["mesh", "overlay", "guard", "containers", "names"]
    for row in rows:
        for folder, cell in zip(folders, row[1:], strict=True):
            for name in cell.split(", "):
                assert (SOURCE / folder / name.strip("`")).is_file(), (row[0], folder, name)
