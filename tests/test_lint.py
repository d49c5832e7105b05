"""The source is what ruff and mypy (strict) and our own few rules want."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "src").rglob("*.py"))


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff() -> None:
    run("ruff", "check", "--no-cache", ".")


def test_mypy() -> None:
    run("mypy")


def forbidden(source: str) -> list[str]:
    """What no module has: `assert` (gone with -O), `print`, an `except` that catches everything and keeps it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert):
            found.append(f"line {node.lineno}: assert")
        if isinstance(node, ast.ExceptHandler) and _catches_everything(node) and not _raises_again(node):
            found.append(f"line {node.lineno}: catches everything")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            found.append(f"line {node.lineno}: print")
    return found


def _catches_everything(node: ast.ExceptHandler) -> bool:
    return node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))


def _raises_again(node: ast.ExceptHandler) -> bool:
    last = node.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_our_own_rules(path: Path) -> None:
    assert forbidden(path.read_text()) == []


def test_our_own_rules_see_what_they_forbid() -> None:
    assert len(forbidden("assert x\ntry:\n    print(1)\nexcept Exception:\n    pass\n")) == 3


def test_no_module_is_called_utils() -> None:
    assert not [path for path in MODULES if path.stem in ("utils", "helpers", "common", "misc")]


def same_names(paths: list[Path]) -> list[str]:
    """Test modules that pytest cannot collect together: outside packages each needs a name of its own."""
    names = [path.name for path in paths if not (path.parent / "__init__.py").exists()]
    return sorted({name for name in names if names.count(name) > 1})


def test_test_modules_have_names_of_their_own() -> None:
    assert same_names([*(ROOT / "tests").rglob("test_*.py")]) == []


def test_two_test_modules_of_one_name_are_seen() -> None:
    assert same_names([Path("a/test_x.py"), Path("b/test_x.py"), Path("b/test_y.py")]) == ["test_x.py"]
