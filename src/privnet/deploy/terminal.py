"""What a host says is printed by pyinfra; a terminal must not obey it."""

from __future__ import annotations

import logging
import re

_CONTROL = re.compile("\x1b(?!\\[[0-9;]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")
"""Every control character but line ends, tabs, and the colours that pyinfra itself uses."""


def guard(logger: logging.Logger) -> None:
    """Let a logger print control characters as text."""
    logger.addFilter(_show)


def _show(record: logging.LogRecord) -> bool:
    record.msg, record.args = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", record.getMessage()), ()
    return True
