"""Fleets from Python data, read as any other: written as YAML (JSON is YAML), then loaded."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from privnet.load import Declaration, read_declaration

Data = Mapping[str, Any]
TERMS = {"accepted_by": "ops@test.example", "accepted_on": "2025-09-25", "version": "beta-1"}


def write(directory: Path, fleet: Data, projects: Mapping[str, Data]) -> None:
    """Write a fleet's documents below ``directory``; hosts that are numbers get an address from it."""
    (directory / "projects").mkdir(parents=True, exist_ok=True)
    (directory / "fleet.yaml").write_text(json.dumps({"fleet": "test", **fleet}))
    for name, project in projects.items():
        (directory / "projects" / f"{name}.yaml").write_text(json.dumps({"project": name, **project}))


def hosts(*names: str, **more: Data) -> dict[str, Any]:
    """Hosts with an address each that belongs to the name, whatever the order; ``more`` as given."""
    return {name: {"address": f"192.0.2.{_number(name)}"} for name in names} | more


def _number(name: str) -> int:
    digits = "".join(character for character in name if character.isdigit())
    return 10 + int(digits or 0)


def network(name: str, **fields: Any) -> dict[str, Any]:
    """A private network's block with an id that belongs to ``name``."""
    return {"id": f"pn-{uuid.uuid5(uuid.NAMESPACE_DNS, name)}", "terms": TERMS, **fields}


def ap(name: str) -> str:
    """An application's id that belongs to ``name``."""
    return f"ap-{uuid.uuid5(uuid.NAMESPACE_DNS, name)}"


def project(name: str, applications: Mapping[str, Data], **fields: Any) -> dict[str, Any]:
    """A project with a network of its own: application → process type → placement."""
    apps = {ap(application): {"formation": formation} for application, formation in applications.items()}
    return {"private_network": network(name, **fields), "applications": apps}


class Fleets:
    """What a test needs to speak of fleets."""

    ap = staticmethod(ap)
    hosts = staticmethod(hosts)
    network = staticmethod(network)
    project = staticmethod(project)
    write = staticmethod(write)

    @staticmethod
    def declare(fleet: Data, projects: Mapping[str, Data]) -> Declaration:
        """The declaration of a fleet's data, read from files."""
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), fleet, projects)
            return read_declaration(Path(folder))


@pytest.fixture(scope="session")
def fleets() -> Fleets:
    return Fleets()


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Writes a fleet and gives its directory."""

    def write_it(fleet: Data, projects: Mapping[str, Data]) -> Path:
        directory = tmp_path / "inventory" / "test"
        write(directory, fleet, projects)
        return directory

    return write_it
