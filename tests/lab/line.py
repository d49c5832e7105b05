"""The line between the operator and one host: it goes dead without a word, and comes back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from privnet.lab import Lab
from privnet.lab.settings import FABRIC, OPERATOR, port_name

_DEAD = """
table bridge dead {{
    chain forward {{
        type filter hook forward priority 0
        iifname "{operator}" oifname "{host}" ether type {{ ip, ip6 }} counter drop
        iifname "{host}" oifname "{operator}" ether type {{ ip, ip6 }} counter drop
    }}
}}
"""


def cut(lab: Lab, host: str) -> None:
    """Drop every packet between the two, with no answer: neither a RST nor a FIN.

    They go on to know each other's MAC, or the kernel would say that there is no such host.
    """
    _nft(lab, _DEAD.format(operator=port_name(OPERATOR), host=port_name(host)))


def mend(lab: Lab) -> None:
    """Let packets pass again."""
    _nft(lab, "table bridge dead\ndelete table bridge dead\n")


@contextmanager
def dead(lab: Lab, host: str) -> Iterator[None]:
    """A dead line for the time of a block."""
    cut(lab, host)
    try:
        yield
    finally:
        mend(lab)


def _nft(lab: Lab, rules: str) -> None:
    enter = ["ip", "netns", "exec", lab.settings.namespace(FABRIC)]
    subprocess.run([*enter, "nft", "-f", "-"], input=rules, text=True, check=True)
