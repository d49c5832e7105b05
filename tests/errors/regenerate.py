"""Writes the answers of all cases anew and shows what differs: ``python -m tests.errors.regenerate``."""

from __future__ import annotations

import difflib
import sys
import tempfile
from pathlib import Path

from .corpus import answer, cases


def main() -> None:
    changed = 0
    for case in cases():
        with tempfile.TemporaryDirectory() as directory:
            text = answer(case, Path(directory))
        before = case.answer.read_text() if case.answer.exists() else ""
        if before != text:
            case.answer.write_text(text)
            changed += 1
            sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), text.splitlines(True), "", case.name))
    sys.stdout.write(f"{changed} answers changed\n")


if __name__ == "__main__":
    main()
