"""The checks of a host's state: each compares one feature of the plan with the kernel. Pure.

In the order of the table that people read: what is wrong further up often explains what is wrong below.
"""

from __future__ import annotations

from collections.abc import Callable

from privnet.audit.actual import Actual
from privnet.audit.checks import containers, files, guard, mesh, overlay, resolvers, units
from privnet.audit.finding import Finding
from privnet.plan.host import HostPlan

Check = Callable[[HostPlan, Actual], Finding]

STATE_CHECKS: dict[str, Check] = {
    "files": files.check,
    "units": units.check,
    "guard": guard.check,
    "mesh": mesh.check,
    "overlay": overlay.check,
    "containers": containers.check,
    "resolvers": resolvers.check,
}
