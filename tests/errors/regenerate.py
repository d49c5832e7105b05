"""Writes the answers of all cases anew: ``python -m tests.errors.regenerate``. Read the difference before a commit."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from .corpus import answer, cases


def main() -> None:
    changed = 0
    for case in cases():
        with tempfile.TemporaryDirectory() as directory:
            text = answer(case, Path(directory))
        if not case.answer.exists() or case.answer.read_text() != text:
            case.answer.write_text(text)
            changed += 1
            sys.stdout.write(f"{case.answer}\n")
    sys.stdout.write(f"{changed} answers changed\n")


if __name__ == "__main__":
    main()
