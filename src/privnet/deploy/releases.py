"""Which releases of an operating system a host may run. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from privnet.deploy.state import HostState

TESTED: Final = ("debian 12", "debian 13")
"""ID and VERSION_ID of os-release(5), of the releases that tests on hosts run on."""


def obstacles(accepted: Collection[str], state: HostState) -> Iterator[str]:
    """Why a host has to be left alone.

    :param accepted: ``policy.releases``, what the fleet's operator accepts beside what is tested
    """
    if state.release not in TESTED and state.release not in accepted:
        yield (
            f"its release is `{state.release}`, on which private networks are not tested: a program of it may fail in "
            f"a way that a run cannot take back. Tested are `{'` and `'.join(TESTED)}`. To accept it, write "
            f"`policy: {{releases: [{state.release}]}}` in fleet.yaml"
        )
