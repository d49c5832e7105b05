"""Output that nobody reads to its end, as in `privnet audit inventory/prod | head -1`."""

from __future__ import annotations

import os
import sys


def say_no_more() -> None:
    """Let what is still printed go nowhere: this process goes on, and ends without a word about the pipe."""
    nowhere, pipe = os.open(os.devnull, os.O_WRONLY), os.fstat(sys.stdout.fileno())
    for stream in (sys.stderr, sys.stdout):
        if os.path.samestat(os.fstat(stream.fileno()), pipe):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
