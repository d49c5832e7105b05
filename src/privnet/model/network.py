"""The private network of a project."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from privnet.model.base import Part
from privnet.model.decision import Override
from privnet.model.fleet import NetworkPrefix
from privnet.model.identifiers import VNI_LAST, Date, Integer, Line, NetworkId


class Terms(Part):
    """Who accepted the terms of private networks, and when: a network is enabled only after that."""

    accepted_by: Annotated[str, Line("accepted_by")] = Field(
        description="Who accepted the terms.", examples=["ops@shop.example"]
    )
    accepted_on: Date = Field(description="The day, as YYYY-MM-DD.", examples=["2025-09-25"])
    version: Annotated[str, Line("version")] = Field(description="Which version of the terms.", examples=["beta-1"])


class PrivateNetwork(Part):
    """The private network of a project. Without this block the project has none."""

    id: NetworkId = Field(
        description="`pn-` and a lower-case UUID; it is part of every DNS name in the network.",
        examples=["pn-ad0fd6a1-d05e-40ea-bf63-c4f8a75a9d8c"],
    )
    cidr: NetworkPrefix | None = Field(
        default=None,
        description="Addresses of the network, /16 to /29; the fleet's `network.cidr` unless given.",
        examples=["10.240.0.0/22"],
    )
    vni: Annotated[int, Integer(1, VNI_LAST, "VNI")] | None = Field(
        default=None,
        description="VXLAN network identifier within the fleet's `vxlan.vni`; privnet chooses unless given.",
        examples=[4242],
    )
    terms: Terms = Field(
        description="The accepted terms; no network is enabled without them.",
        examples=[{"accepted_by": "ops@shop.example", "accepted_on": "2025-09-25", "version": "beta-1"}],
    )
    enabled_on_existing_project: Override | None = Field(
        default=None,
        description="Needed only to enable a network on a project that already had applications: "
        "who decided that they come under its protection at once, and when.",
        examples=[{"by": "ops@shop.example", "on": "2025-10-01"}],
    )
