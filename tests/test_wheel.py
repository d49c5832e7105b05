"""The wheel holds everything that a fleet needs: it renders one without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from privnet.compiler import compile_fleet, render_fleet

ROOT = Path(__file__).parents[1]
FLEET = ROOT / "tests" / "golden" / "wide" / "in"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the checkout, without asking any package index."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-q"]
    done = subprocess.run([*command, "-w", folder, ROOT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_it_holds_what_is_read_at_run_time(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [path for path in (ROOT / "src" / "privnet").rglob("*") if path.is_file()]
    data = [path for path in files if path.suffix not in (".py", ".pyc")]
    assert {path.suffix for path in data} >= {".sh", ".typed"}
    for path in data:
        assert f"privnet/{path.relative_to(ROOT / 'src' / 'privnet')}" in names
    for path in (ROOT / "templates").rglob("*.j2"):
        assert f"privnet/templates/{path.relative_to(ROOT / 'templates')}" in names


def test_it_holds_nothing_else(wheel: Path) -> None:
    for name in zipfile.ZipFile(wheel).namelist():
        assert name.startswith(("privnet/", "privnet-"))
        assert "__pycache__" not in name


def test_it_renders_a_fleet_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    program = "import privnet, sys; from privnet.cli import main; print(privnet.__file__, file=sys.stderr); main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "render", FLEET, "--output", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
    )
    assert done.stderr.splitlines()[0] == str(tmp_path / "installed" / "privnet" / "__init__.py")
    for host, files in render_fleet(compile_fleet(FLEET).plan).items():
        for file in files:
            path = tmp_path / "out" / f"{host}{file.path}"
            assert (str(path.readlink()) if file.is_link else path.read_text()) == file.text
