"""Output that nobody reads: `privnet audit inventory/prod | head -1`, a full disk, or no standard output at all."""

from __future__ import annotations

import os
import sys


def say_no_more() -> None:
    """Let what is still printed go nowhere: this process goes on, and ends without a word about it."""
    nowhere, pipe = os.open(os.devnull, os.O_WRONLY), os.fstat(sys.stdout.fileno())
    for stream in (sys.stderr, sys.stdout):
        if os.path.samestat(os.fstat(stream.fileno()), pipe):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def open_missing() -> None:
    """Give this process the standard streams that it was started without, so that no file takes their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, number)
            os.set_inheritable(number, True)
            if nowhere != number:
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
