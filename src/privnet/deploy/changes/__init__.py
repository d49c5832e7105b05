"""What it takes to bring a host from its state to its plan, in three waves over the fleet.

* ``add``: everything that is new, beside everything that is old: guard elements, peers, devices, containers, resolvers
* ``switch``: what has two states and no middle: where a moved container's frames go, what names say
* ``retire``: everything that is old and not in the plan

pyinfra ends a stage on all hosts before it begins the next, so a container that is in the old and in the new plan is
reachable by its name at every moment. All three are computed from one snapshot: each looks only at what it changes.
"""

from __future__ import annotations

from privnet.deploy.changes import containers, files, guard, host, mesh, names, neighbour_table, overlay, restore
from privnet.deploy.script import Script
from privnet.deploy.state import HostState
from privnet.plan.host import HostPlan
from privnet.render import ManagedFile, render_host, render_neighbour_table, render_record


def prepare(state: HostState) -> Script:
    """Packages, the host's key, programs and units: what the other waves stand on."""
    script = Script()
    host.prepare(state, script)
    return script


def add(plan: HostPlan, state: HostState) -> Script:
    """Everything new, beside everything old."""
    script = _additions(plan, state)
    if script:
        for file in _beside(plan, state):
            script.place(file)
    return script


def _beside(plan: HostPlan, state: HostState) -> list[ManagedFile]:
    """Files that differ and are written with anything else: a run, or a boot, that comes later reads them."""
    return [file for file in (render_record(plan), render_neighbour_table(plan)) if files.differs(file, state)]


def _additions(plan: HostPlan, state: HostState) -> Script:
    script = Script()
    files.add(render_host(plan), state, script)
    restore.add(state, script)
    guard.add(plan, state, script)
    mesh.add(plan, state, script)
    neighbour_table.add(plan, state, script)
    overlay.add(plan, state, script)
    containers.add(plan, state, script)
    names.add(plan, state, script)
    return script


def switch(plan: HostPlan, state: HostState, held: frozenset[str] = frozenset()) -> Script:
    """Forwarding of moved containers, and names; ``held`` are MACs of containers whose new host is not ready."""
    script = Script()
    overlay.switch(plan, state, script, held)
    names.switch(plan, state, script)
    return script


def everything(plan: HostPlan, state: HostState) -> list[str]:
    """What a run would do to a host, in order, a line each; nothing on a host that is as planned."""
    scripts = (prepare(state), add(plan, state), switch(plan, state), retire(plan, state))
    return [line for script in scripts for line in script.lines()]


def retire(plan: HostPlan, state: HostState) -> Script:
    """Everything that the plan no longer has, in the reverse order of building it."""
    script = Script()
    names.retire(plan, state, script)
    containers.retire(plan, state, script)
    overlay.retire(plan, state, script)
    mesh.retire(plan, state, script)
    guard.retire(plan, state, script)
    files.retire(render_host(plan), state, script)
    if (left := _beside(plan, state)) and not _additions(plan, state):
        # A host to which nothing is added does not execute that wave for these alone.
        for file in left:
            script.place(file)
    return script
