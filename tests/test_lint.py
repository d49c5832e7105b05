"""The source is what ruff and mypy (strict) and our own few rules want."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from vulture import Vulture

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "src").rglob("*.py"))


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff() -> None:
    run("ruff", "check", "--no-cache", ".")
    run("ruff", "format", "--no-cache", "--check", ".")


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


SETTINGS = ("/proc/sys/", "/sys/")
"""Where a file answers one question only, and dash's `read` asks for a byte at a time: it gets the first one."""
ARGUMENTS = tuple(f" {quote}{place}" for place in SETTINGS for quote in ("", '"'))
READ = re.compile(r"""\b(?:read|done|exec)\b[^|;&<\n]*[ \d]<[ ]?(?P<file>["']?[$/{][^\s;|&)]*)""")
VARIABLE = re.compile(r"""["']?\$\{?(?P<name>\w+)""")


def reads_of_settings(program: str) -> list[str]:
    """Where the shell may `read` a setting of the kernel, and gets a byte of it; `cat`, `awk` or `grep` get all."""
    lines = program.splitlines()
    found = {f"line {n}": READ.search(line) for n, line in enumerate(lines, 1) if not line.lstrip().startswith("#")}
    return [line for line, read in found.items() if read and _may_be_a_setting(read["file"], program)]


def _may_be_a_setting(word: str, program: str) -> bool:
    """A variable is what the program assigns to it. An argument may be any word of the program."""
    variable = VARIABLE.match(word)
    if not variable:
        return word.lstrip("\"'").startswith(SETTINGS)
    if variable["name"].isdigit():
        return any(place in f" {program}" for place in ARGUMENTS)
    assigned = re.findall(rf"\b{variable['name']}(?:=| in )([^;\n]+)", program)
    return any(_may_be_a_setting(value, "") for values in assigned for value in values.split())


def shell_programs() -> dict[str, str]:
    """What we send to hosts or run here, by its place; in Python and in templates it is part of a text."""
    paths = [path for pattern in ("*.sh", "*.j2") for top in ("src", "setup") for path in (ROOT / top).rglob(pattern)]
    programs = {str(path.relative_to(ROOT)): path.read_text() for path in [*paths, ROOT / ".ci/run"]}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                programs[f"{path.relative_to(ROOT)}, text of line {node.lineno}"] = node.value
    return programs


def test_no_shell_program_reads_a_setting_of_the_kernel_byte_by_byte() -> None:
    found = {place: reads_of_settings(program) for place, program in shell_programs().items()}
    assert {place: lines for place, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "program",
    [
        "read -r x < /proc/sys/net/core/somaxconn",
        'read -r x <"/sys/class/net/lo/mtu"',
        "f=/proc/sys/a\n[ ! -r $f ] || IFS= read -r x < $f",
        'for f in /proc/sys/a /proc/sys/b; do\n\tread -r x < "$f"\ndone',
        "limits=/proc/sys/net/gc_thresh\nread -r soft < ${limits}2",
        'at_least() {\n\tread -r x < "$1"\n}\nat_least /proc/sys/a 3',
        "while read -r x; do\n\techo $x\ndone < /sys/class/net/lo/flags",
        "exec 6< /proc/sys/a; read -r x <&6",
    ],
)
def test_reads_of_settings_are_seen(program: str) -> None:
    assert len(reads_of_settings(program)) == 1


@pytest.mark.parametrize(
    "program",
    [
        "x=$(cat /proc/sys/a)",
        "awk 1 < /proc/sys/a",
        "state=/run/privnet\nread -r x < $state/pid; cat /proc/sys/a",
        "while read -r x; do\n\techo $x\ndone < /proc/net/ip_tables_names",
        "cat /proc/sys/a | while read -r x; do echo $x; done",
        "# read -r x < /proc/sys/a",
        'folder=$1\ngroups=/sys/fs/cgroup\nread -r x < "$folder/a"',
    ],
)
def test_other_reads_are_allowed(program: str) -> None:
    assert reads_of_settings(program) == []


CALLED_BY_OTHERS = (
    "pytest_*",
    "run_ssh",  # testinfra, of a backend
    "host_connect_error",  # pyinfra, of callbacks
    "makefile",  # paramiko, of a channel
    "makefile_stderr",
    "host_connect_error",  # pyinfra, of a callback
    "add_host",  # tests, of a lab
    "remove_host",
)
COMMANDS = ("@app.command",)


def without_callers(*paths: Path) -> list[str]:
    """Functions, methods, properties and classes whose name stands nowhere else."""
    found = Vulture(ignore_names=CALLED_BY_OTHERS, ignore_decorators=COMMANDS)
    found.scavenge(paths)
    kinds = ("function", "method", "property", "class")
    unused = [item for item in found.get_unused_code() if item.typ in kinds]
    return [f"{item.filename}:{item.first_lineno}: {item.name}" for item in unused]


def test_whatever_is_defined_is_called() -> None:
    """A run's last word about hosts with nothing to do once lost its only caller, and no other test noticed."""
    assert without_callers(ROOT / "src") == []


def test_a_method_that_nobody_calls_is_seen(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(
        "class Run:\n    def begin(self): self.end()\n    def end(self): pass\n    def unchanged(self): pass\n"
        "Run().begin()\n"
    )
    assert without_callers(tmp_path) == [f"{tmp_path}/run.py:4: unchanged"]


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
