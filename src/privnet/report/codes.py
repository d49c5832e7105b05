"""What a problem's code means, for people who met one."""

from __future__ import annotations

from collections.abc import Iterator

from privnet.diagnostics import CODES

_PHASES = {
    "PN1": "Reading: a file cannot be used as it stands.",
    "PN2": "Shape: a document says something that its fields do not allow.",
    "PN3": "Rules across documents: each one is right, together they are not.",
    "PN4": "Policy: what the terms of private networks or the fleet's operator do not allow.",
    "PN5": "Numbers: the lock file cannot be used, or has no number left to give.",
}


def explanation(code: str) -> Iterator[str]:
    """The meaning of ``code`` and the phase that finds it. Raises KeyError for an unknown code."""
    yield f"{code}: {CODES[code]}"
    yield f"  {_PHASES[code[:3]]}"
    yield "  No host is contacted before all phases have passed; the exit code is 2."
    near = [other for other in CODES if other[:3] == code[:3] and other != code]
    yield f"  See also: {', '.join(near)}."
