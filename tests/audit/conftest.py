"""For operators: ``pytest tests/audit --fleet inventory/prod``. Without ``--fleet`` there is no fleet to audit."""

from __future__ import annotations

from privnet.audit.plugin import (
    fleet_audit,
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_generate_tests,
)

__all__ = ["fleet_audit", "pytest_addoption", "pytest_collection_modifyitems", "pytest_generate_tests"]
