"""A clock that goes faster, for what waits: pauses, limits, timers and the seconds that are counted, all alike."""

from __future__ import annotations

import threading
import time
from typing import Any

import gevent


def install(times: float) -> None:
    """A second of a run's takes ``1 / times`` of one."""
    begun, clock, sleep, timer = time.monotonic(), time.monotonic, gevent.sleep, threading.Timer

    class Timeout(gevent.Timeout):  # type: ignore[misc]
        def __init__(self, seconds: float | None = None, *positional: Any, **named: Any) -> None:
            super().__init__(None if seconds is None else seconds / times, *positional, **named)

    time.monotonic = lambda: begun + times * (clock() - begun)
    gevent.sleep = lambda seconds=0, *more: sleep(seconds / times, *more)
    gevent.Timeout = Timeout
    threading.Timer = lambda seconds, *more: timer(seconds / times, *more)  # type: ignore[misc, assignment]
