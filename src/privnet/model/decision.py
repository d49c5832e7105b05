"""Who decided to depart from a rule, and when: an override is never anonymous."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from privnet.model.base import Part
from privnet.model.identifiers import Date, Line


class Override(Part):
    """Who decided to depart from a rule, and when."""

    by: Annotated[str, Line("by")] = Field(description="Who decided it.", examples=["ops@shop.example"])
    on: Date = Field(description="The day, as YYYY-MM-DD.", examples=["2025-10-01"])
