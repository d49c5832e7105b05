"""The order of operations is pyinfra's own, found in another way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pyinfra
import pytest
from pyinfra.api import util
from pyinfra.api.arguments import AllArguments
from typing_extensions import get_type_hints

from privnet.deploy import lookups

DEPLOYS = {
    "in a line": "out = call(0)\n",
    "in a loop": "\n\nfor _ in range(2):\n    out = call(0)\n",
    "in a function of it": "def f():\n    return call(0)\n\nout = f()\n",
    "in one that is called deep below": "def f(n):\n    return f(n - 1) if n else call(2)\n\nout = [f(30)][0]\n",
}


def called(how: Callable[[Any], list[int]], source: str, file: str | None, runs_as: str) -> list[int]:
    state = SimpleNamespace(current_deploy_filename=file, current_op_file_number=7)

    def call(depth: int) -> list[int]:
        return call(depth - 1) if depth else how(state)

    names: dict[str, Any] = {"call": call}
    exec(compile(source, runs_as, "exec"), names)
    found: list[int] = names["out"]
    return found


@pytest.mark.parametrize("cli", [True, False])
@pytest.mark.parametrize("file", ["deploys/x.py", None, "deploys/other.py"])
@pytest.mark.parametrize("deploy", DEPLOYS)
def test_it_is_pyinfras_own(monkeypatch: pytest.MonkeyPatch, deploy: str, file: str | None, cli: bool) -> None:
    monkeypatch.setattr(pyinfra, "is_cli", cli)
    own, ours = (
        called(how, DEPLOYS[deploy], file, "deploys/x.py")
        for how in (util.get_operation_order_from_stack, lookups.order_of_lines)
    )
    assert own == ours and (own or file != "deploys/x.py")


def test_what_is_pyinfras_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: one frame of its own in between, and the line of it is not there."""
    file = f"{util.PYINFRA_INSTALL_DIR}/x.py"
    source = "\n" * 98 + "out = call(0)\n"
    for how in (util.get_operation_order_from_stack, lookups.order_of_lines):
        assert 99 in called(how, source, None, "x.py")
        assert 99 not in called(how, source, None, file)


def test_the_arguments_are_pyinfras_own() -> None:
    assert dict(lookups._arguments()) == get_type_hints(AllArguments)


def test_a_deploy_has_both() -> None:
    program = (
        "import sys, privnet.deploy.stages, pyinfra.api.arguments as arguments; from privnet.deploy import lookups; "
        "operation = sys.modules['pyinfra.api.operation']; "
        "print(operation.get_operation_order_from_stack is lookups.order_of_lines, "
        "arguments.all_global_arguments is lookups._arguments)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"
