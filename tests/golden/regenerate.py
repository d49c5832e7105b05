"""`python -m tests.golden.regenerate`: write what the cases print now. Review the difference before you commit it."""

from __future__ import annotations

from .trees import CASES, HERE, copy_example, lock, printed, store


def main() -> None:
    copy_example()
    for name in CASES:
        lock(HERE / name / "in")
        store(HERE / name, printed(HERE / name))


if __name__ == "__main__":
    main()
