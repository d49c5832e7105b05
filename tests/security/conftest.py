"""One booted fleet for each module of this suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from privnet.lab import Lab

from .scene import Scene

INVENTORY = Path(__file__).parent / "inventory"


@pytest.fixture(scope="module")
def scene(shared_fleet, watch) -> Scene:
    """Three hosts, three private networks, deployed to, with an attacker's routes everywhere."""

    def seen(lab: Lab) -> Scene:
        scene = Scene(lab, lambda: watch(lab))
        scene.look()
        return scene

    return seen(shared_fleet(INVENTORY, lambda lab: seen(lab).hostile()))
