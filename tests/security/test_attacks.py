"""Every attack fails. Its honest twin is in the same run; test_mutation.py has a control without which it succeeds."""

from __future__ import annotations

import pytest

from .attacks import ATTACKS
from .scene import Scene

# What the outsider sends and what hosts send for the tests; names outside are asked of the outsider.
UNDERLAY = "(src net 192.0.2.0/24 or src net 198.51.100.0/24) and (port 9 or port 53 or icmp) and not (port 4789)"


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_fails(scene: Scene, attack: str) -> None:
    ATTACKS[attack](scene)
