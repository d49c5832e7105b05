"""What pyinfra looks up again for each operation on each host, without reading source files for it.

pyinfra 3.10 orders operations by the lines that called them, and finds those lines with `inspect.stack`, which looks
for the source of every frame (`api/util.py`, `get_operation_order_from_stack`); and it evaluates the type hints of its
arguments anew (`api/arguments.py`, `all_global_arguments`). docs/decisions/0019-lookups.md has what that costs.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from types import FrameType
from typing import Any

import pyinfra
from pyinfra.api import util
from pyinfra.api.state import State


def install() -> None:
    """For this process. A pyinfra that has no such functions keeps what it has."""
    # By their names: `pyinfra.api.operation` is a function, too.
    for name, function, ours in (
        ("pyinfra.api.operation", "get_operation_order_from_stack", order_of_lines),
        ("pyinfra.api.arguments", "all_global_arguments", _arguments),
    ):
        module = import_module(name)
        if hasattr(module, function):
            setattr(module, function, ours)


def order_of_lines(state: State) -> list[int]:
    """Line numbers from the deploy file on to where an operation is called, without those of pyinfra itself."""
    frames: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    frames.reverse()
    files = [frame.f_code.co_filename for frame in frames]
    deploy = state.current_deploy_filename
    # As pyinfra has it: when nothing of that file is under way, none at all.
    begin = 0 if not deploy else files.index(deploy) if deploy in files else len(files)
    lines = [state.current_op_file_number] if pyinfra.is_cli else []
    return lines + [
        frame.f_lineno
        for frame, file in zip(frames[begin:], files[begin:], strict=True)
        if not file.startswith(util.PYINFRA_INSTALL_DIR)
    ]


@cache
def _known() -> tuple[tuple[str, Any], ...]:
    from pyinfra.api.arguments import AllArguments, get_type_hints

    return tuple(get_type_hints(AllArguments).items())


def _arguments() -> list[tuple[str, Any]]:
    return list(_known())
