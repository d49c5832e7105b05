"""What takes a change back that was not confirmed before a boot; the rest of that is ``change.sh``."""

from __future__ import annotations

from privnet.deploy.script import Script
from privnet.deploy.state import HostState

UNIT = "privnet-restore.service"


def add(state: HostState, script: Script) -> None:
    """Let each boot look for such a change."""
    unit = state.units.get(UNIT)
    if unit is not None and unit.active == "failed":
        script.run("systemctl", "reset-failed", UNIT)
    if state.enabled.get(UNIT) != "enabled":
        script.run("systemctl", "enable", "--quiet", UNIT)
