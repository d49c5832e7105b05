"""What a YAML file holds, as plain text, mappings and lists that know where they stand.

The three kinds are a ``str``, a ``dict`` and a ``list``, so that pydantic validates them as they are, in one call and
without a copy in between. A scalar is the raw text of the file: nothing is a number, a boolean or a date until its
field says so. Lines and columns count from 1, columns in characters; the end is exclusive.
"""

from __future__ import annotations


class Scalar(str):
    """A single value or a key: its text as written (without quotes), and whether it stood in quotes."""

    __slots__ = ("column", "end_column", "end_line", "line", "quoted")

    line: int
    column: int
    end_line: int
    end_column: int
    quoted: bool


class Mapping(dict[Scalar, "Node"]):
    """A mapping. Its keys are scalars with places of their own."""

    __slots__ = ("column", "end_column", "end_line", "line")

    line: int
    column: int
    end_line: int
    end_column: int

    def key(self, name: str) -> Scalar:
        """The key ``name`` as it stands in the file. Raises KeyError when there is none."""
        for key in self:
            if key == name:
                return key
        raise KeyError(name)


class Sequence(list["Node"]):
    """A list."""

    __slots__ = ("column", "end_column", "end_line", "line")

    line: int
    column: int
    end_line: int
    end_column: int


Node = Scalar | Mapping | Sequence
