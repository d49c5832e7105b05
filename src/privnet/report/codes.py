"""What a problem's code means, for people who met one: a page for each in ``explain/``."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

from privnet.diagnostics import CODES

_PHASES = {
    "PN1": "Reading: a file cannot be used as it stands.",
    "PN2": "Shape: a document says something that its fields do not allow.",
    "PN3": "Rules across documents: each one is right, together they are not.",
    "PN4": "Policy: what the terms of private networks or the fleet's operator do not allow.",
    "PN5": "Numbers: the lock file cannot be used, or has no number left to give.",
    "PN6": "Runs: what would be done is not what may be done without more being said.",
    "PN7": "Warnings: what is accepted, and seldom meant.",
}


def page(code: str) -> str:
    """The page about ``code``, in Markdown. Raises KeyError for an unknown code."""
    CODES[code]
    return (resources.files("privnet") / "explain" / f"{code}.md").read_text(encoding="utf-8")


def summary(code: str) -> str:
    """The page's first paragraph as one line: what is wrong, and why it matters."""
    return page(code).split("\n\n")[1].replace("\n", " ")


def explanation(code: str) -> Iterator[str]:
    """The page about ``code`` for a terminal, and the phase that finds it. Raises KeyError for an unknown code."""
    inside = False
    for line in page(code).splitlines():
        if line.startswith("```"):
            inside = not inside
        else:
            yield f"    {line}".rstrip() if inside else line.lstrip("# ")
    yield ""
    yield _PHASES[code[:3]]
    near = [other for other in CODES if other[:3] == code[:3] and other != code]
    yield f"See also: {', '.join(near)}."
