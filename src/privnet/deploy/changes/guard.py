"""The guard: its rules as a whole in one transaction, its elements one by one."""

from __future__ import annotations

from privnet.deploy.changes.files import differs
from privnet.deploy.script import Script
from privnet.deploy.state import HostState
from privnet.plan.guard import Binding, Speaker
from privnet.plan.host import HostPlan
from privnet.render import ETC, binding_element, guard_file, guard_structure, speaker_element

UNIT = "privnet-guard.service"
PROGRAM = f"{ETC}/lib/guard.sh"
BARRIER = 4294967295
"""The highest metric: the route behind all others."""


def add(plan: HostPlan, state: HostState, script: Script) -> None:
    """Load what is missing: new elements live, or all of it when the rules are not the plan's."""
    guard, loaded = plan.guard, state.guard
    union = guard_file(guard, _leaving(plan, state))
    if differs(union, state):
        script.place(union)
    unit = state.units.get(UNIT)
    structure = guard_structure(guard.vxlan_port, guard.mesh, guard.port)
    sound = loaded is not None and loaded.intact and loaded.structure == structure
    if state.enabled.get(UNIT) != "enabled":
        script.run("systemctl", "enable", "--quiet", UNIT)
    script.disturbs |= unit is None or unit.active != "active" or loaded is None or not loaded.heard or not sound
    if unit is None or unit.active in ("inactive", "failed"):
        script.run("systemctl", "start", UNIT)
    elif unit.active != "active" or loaded is None or not loaded.heard:
        # What starts again and again loads what it found when it began. Tables that an older privnet has loaded have no
        # owner, and can have none while they are there.
        script.run("systemctl", "restart", UNIT)
    elif not sound:
        script.run("systemctl", "reload", UNIT)
    elif loaded is not None:
        if f"unreachable {plan.mesh.prefix} metric {BARRIER}" not in state.unreachable:
            script.run("ip", "route", "replace", "unreachable", plan.mesh.prefix, "metric", BARRIER)
        lines = [*_lines("add", set(guard.speakers) - loaded.speakers, set(guard.bindings) - loaded.bindings)]
        if lines:
            script.feed("guard.add", lines, "sh", PROGRAM, "apply")


def retire(plan: HostPlan, state: HostState, script: Script) -> None:
    """Take away elements that no longer hold, and write the file that a boot loads."""
    leaving = _leaving(plan, state)
    if leaving:
        speakers = {element for element in leaving if isinstance(element, Speaker)}
        script.feed("guard.delete", _lines("delete", speakers, set(leaving) - speakers), "sh", PROGRAM, "apply")
        script.place(guard_file(plan.guard))


def _leaving(plan: HostPlan, state: HostState) -> list[Speaker | Binding]:
    """Elements that are loaded but not in the plan."""
    if state.guard is None:
        return []
    speakers = sorted(state.guard.speakers - set(plan.guard.speakers))
    return [*speakers, *sorted(state.guard.bindings - set(plan.guard.bindings))]


def _lines(verb: str, speakers: set[Speaker], bindings: set[Speaker | Binding] | set[Binding]) -> list[str]:
    lines = []
    if speakers:
        elements = ", ".join(sorted(map(speaker_element, speakers)))
        lines.append(f"{verb} element inet privnet speakers {{ {elements} }}")
    if bindings:
        elements = ", ".join(sorted(binding_element(b) for b in bindings if isinstance(b, Binding)))
        lines.append(f"{verb} element bridge privnet ports {{ {elements} }}")
    return lines
