"""``projects/<name>.yaml``: a group of applications with one owner, and its private network."""

from __future__ import annotations

from pydantic import Field

from privnet.model.application import Application
from privnet.model.base import Part
from privnet.model.identifiers import ApplicationId, ProjectName
from privnet.model.network import PrivateNetwork


class Project(Part):
    """A project: a group of applications with one owner; it may have one private network."""

    project: ProjectName = Field(description="The project's name; the file is called after it.", examples=["shop"])
    private_network: PrivateNetwork | None = Field(
        default=None,
        description="The project's private network. Without it the applications are not attached to any.",
        examples=[
            {
                "id": "pn-ad0fd6a1-d05e-40ea-bf63-c4f8a75a9d8c",
                "terms": {
                    "accepted_by": "ops@shop.example",
                    "accepted_on": "2025-09-25",
                    "version": "beta-1",
                },
            }
        ],
    )
    applications: dict[ApplicationId, Application] = Field(
        default={},
        description="The applications by id.",
        examples=[{"ap-a71da13f-7c70-4c00-a644-eee8558d8053": {"formation": {"web": ["par-a-1"]}}}],
    )
