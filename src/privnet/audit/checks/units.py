"""Units: active now, and started by a boot."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from privnet.audit.actual import Actual, Unit
from privnet.audit.finding import NOTHING, Deviation, Finding, about
from privnet.diagnostics import plural
from privnet.plan.host import HostPlan
from privnet.plan.overlay import Network
from privnet.render import TARGET, UNITS, render_host, render_names

MISSING = Unit("not-found", "inactive", "dead", False)
ENABLED = (
    "privnet-guard.service",
    "privnet-restore.service",
    "wg-quick@privnet.service",
    "systemd-networkd.service",
    TARGET,
)


def check(plan: HostPlan, actual: Actual) -> Finding:
    """Every planned unit is active, what a boot begins with is enabled, nothing of ours runs beside it."""
    wanted = planned_units(plan)
    grounds = _grounds(plan)
    deviations: list[Deviation] = []
    for name in sorted(wanted):
        unit = actual.units.get(name, MISSING)
        if unit.active != "active":
            deviation = Deviation(name, "active", _state(unit))
            deviations += about(f"unit {name}", [deviation], *_files(name), *grounds.get(name, ()))
        elif unit.stale:
            deviation = Deviation(name, "what its file says", "an older version (daemon-reload is missing)")
            deviations += about("", [deviation], *_files(name))
    for name in ENABLED:
        if (found := actual.enabled.get(name)) != "enabled":
            deviations.append(Deviation(f"{name} at boot", "enabled", found or "not-found"))
    for overlay in plan.overlays:
        deviations += _reading(plan, overlay.network, actual)
    known = wanted | _rendered_units(plan)
    passing = started_units(plan)
    for name, unit in sorted(actual.units.items()):
        if name in passing:
            continue
        if name.startswith("privnet-") and name not in known and unit.active != "inactive":
            deviations.append(Deviation(name, "no such unit", _state(unit)))
        elif name in known - wanted and unit.active == "failed":
            deviations.append(Deviation(name, "not failed", _state(unit)))
    return Finding(f"{plural(len(wanted), 'unit')} active", tuple(deviations))


def _reading(plan: HostPlan, network: Network, actual: Actual) -> Iterator[Deviation]:
    """What a resolver has noted of what it has read: by that a run judges it."""
    unit = f"privnet-dns@{network.id}.service"
    config, hosts = render_names(network, plan.ttl, plan.domain, plan.outside)
    digests = " ".join(hashlib.sha256(file.text.encode()).hexdigest() for file in (hosts, config))
    found = actual.notes.get(f"names.{network.id}", "")
    if found != digests:
        other = Deviation(
            f"what {unit} has read", "the planned names and configuration", "others" if found else NOTHING
        )
        yield from about("", [other], f"unit {unit}", f"file {hosts.path}", f"file {config.path}")


PORT_UNITS = ("namespace", "container")
"""A container port's units, in the order of their start."""


def planned_units(plan: HostPlan) -> set[str]:
    """Units that are to be active on a host."""
    units = {"privnet-guard.service", "wg-quick@privnet.service"}
    units |= {"systemd-networkd.service", "privnet-networks.target"}
    for overlay in plan.overlays:
        units |= {f"privnet-overlay@{overlay.network.vni}.service", f"privnet-dns@{overlay.network.id}.service"}
        units |= {f"privnet-{kind}@{port.name}.service" for kind in PORT_UNITS for port in overlay.ports}
        if plan.outside.upstream:
            units.add(f"privnet-forwarder@{overlay.network.id}.socket")
    return units


def started_units(plan: HostPlan) -> set[str]:
    """Units that something else starts when they are needed, whatever they are now."""
    every = plan.overlays if plan.outside.upstream else ()
    return {f"privnet-forwarder@{overlay.network.id}.service" for overlay in every}


def _files(unit: str) -> tuple[str, ...]:
    """What systemd reads, or would rather read, for a unit: a link over it masks it."""
    template = re.sub("@.*[.]", "@.", unit)
    return tuple(f"file {folder}/{name}" for folder in (UNITS, "/run/systemd/system") for name in (unit, template))


def _grounds(plan: HostPlan) -> dict[str, tuple[str, ...]]:
    """Units that stop with another one, and things that go with a unit."""
    grounds: dict[str, tuple[str, ...]] = {}
    for overlay in plan.overlays:
        resolver, *_ = overlay.ports
        grounds[f"privnet-overlay@{overlay.network.vni}.service"] = ("unit privnet-guard.service",)
        for unit in (f"privnet-dns@{overlay.network.id}.service", f"privnet-forwarder@{overlay.network.id}.socket"):
            grounds[unit] = f"unit privnet-container@{resolver.name}.service", f"namespace {resolver.netns}"
        for port in overlay.ports:
            grounds[f"privnet-namespace@{port.name}.service"] = (f"unit privnet-container@{port.name}.service",)
    return grounds


def _rendered_units(plan: HostPlan) -> set[str]:
    """Unit files that are no templates: those may be loaded without being active all the time."""
    paths = (file.path for file in render_host(plan))
    return {path.removeprefix(f"{UNITS}/") for path in paths if path.startswith(f"{UNITS}/") and "@" not in path}


def _state(unit: Unit) -> str:
    return unit.load if unit.load in ("not-found", "masked") else f"{unit.active} ({unit.sub})"
