"""Every host of a fleet, every check. The items come from ``plugin``, the answers from ``fleet``."""

from __future__ import annotations

import pytest

from privnet.audit.fleet import Audit
from privnet.audit.plugin import judge


def test_as_planned(fleet_audit: Audit, fleet_host: str, fleet_check: str, request: pytest.FixtureRequest) -> None:
    """What the plan says and what the host reports are the same."""
    judge(fleet_audit, fleet_host, fleet_check, request.node)
