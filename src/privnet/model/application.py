"""An application: its containers by process type, and where they are placed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from privnet.model.base import Part
from privnet.model.identifiers import Boolean, HostReference, Integer, Line, ProcessType

COUNT_LAST = 65533  # the addresses of a /16 without network, resolver and broadcast


class Spread(Part):
    """Containers that privnet places; where they are is kept in the lock file."""

    count: Annotated[int, Integer(0, COUNT_LAST, "count")] = Field(
        description="How many containers of this process type.", examples=[3]
    )
    spread: Literal["zone", "host"] = Field(
        default="host",
        description="What the containers are divided over as evenly as possible.",
        examples=["zone"],
    )


def _placement(value: object) -> str | None:
    if isinstance(value, list | tuple):
        return "hosts"
    return "spread" if isinstance(value, dict | Spread) else None


Placement = Annotated[
    Annotated[tuple[HostReference, ...], Tag("hosts")] | Annotated[Spread, Tag("spread")],
    Discriminator(_placement, custom_error_type="placement", custom_error_message="placement"),
]


class Application(Part):
    """An application of a project."""

    name: Annotated[str, Line("name")] | None = Field(
        default=None, description="A name for people; never part of a DNS name.", examples=["storefront"]
    )
    hds: Annotated[bool, Boolean("`hds`")] = Field(
        default=False,
        description="The application holds health data (HDS); it has no access to private networks.",
        examples=[True],
    )
    formation: dict[ProcessType, Placement] = Field(
        default={},
        description="Per process type, a list with the host of each container in the order of their indices, "
        "or how many containers there are and what to spread them over.",
        examples=[{"web": ["par-a-1", "par-a-2"], "worker": {"count": 3, "spread": "zone"}}],
    )
