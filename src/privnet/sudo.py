"""What sudo says on a host, and what to do about it: the same in a run, an audit and an import."""

from __future__ import annotations


def with_remedy(line: str) -> str:
    """A line of a host's; one that asks for a password says what helps, since no host is given one.

    pyinfra asks for a password when a host says exactly that it wants one: any host could have one typed so.
    """
    asks = line.strip().startswith("sudo") and line.strip().endswith(" required")
    return f"{line}: let this user use sudo without a password" if asks else line
