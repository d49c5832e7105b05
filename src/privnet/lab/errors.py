"""The one exception of the lab."""

from __future__ import annotations


class LabError(Exception):
    """The lab cannot do what was asked.

    `message` says where and what, `help` what to do about it.
    """

    def __init__(self, message: str, *, help: str = "") -> None:
        super().__init__(message if not help else f"{message}\n  = help: {help}")
        self.message = message
        self.help = help
