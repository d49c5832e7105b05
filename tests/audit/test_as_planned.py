"""Every host of the fleet that ``--fleet`` names, every check: see docs/audit.md."""

from __future__ import annotations

from privnet.audit.test_fleet import test_as_planned

__all__ = ["test_as_planned"]
