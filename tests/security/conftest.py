"""One booted fleet for each module of this suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.runs import deploy

from .scene import Scene

INVENTORY = Path(__file__).parent / "inventory"


@pytest.fixture(scope="module")
def scene(fleet, inventory_copy, watch) -> Scene:
    """Three hosts, three private networks, deployed to, with an attacker's routes everywhere."""
    lab = fleet(inventory_copy(INVENTORY))
    deploy(lab)
    scene = Scene(lab, lambda: watch(lab))
    scene.look()
    scene.hostile()
    return scene
