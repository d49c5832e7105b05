"""docs/declaration.md is about the product as it is."""

from __future__ import annotations

import re
from pathlib import Path

from privnet.check import check
from privnet.diagnostics import CODES
from privnet.load import read_declaration
from privnet.schema import document_schema

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "declaration.md").read_text()


def test_its_examples_are_a_right_fleet(tmp_path: Path) -> None:
    (tmp_path / "projects").mkdir()
    blocks = re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)
    assert [name for name, _ in blocks] == ["fleet.yaml", "projects/shop.yaml"]
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    assert list(check(read_declaration(tmp_path), None)) == []


def test_it_names_every_field() -> None:
    for name in ("fleet", "project"):
        schema = document_schema(name)
        for part in (schema, *schema["$defs"].values()):
            for field in part["properties"]:
                assert re.search(rf"\b{field}\b", PAGE), field


def test_it_lists_every_code_of_the_declaration_with_its_title() -> None:
    listed = dict(re.findall(r"^\| (PN\d+) \| (.+) \|$", PAGE, re.MULTILINE))
    assert listed == {code: title for code, title in CODES.items() if code < "PN5"}


def test_the_refusal_it_shows_is_the_real_one() -> None:
    assert (ROOT / "tests" / "errors" / "project" / "N03-vni-twice.txt").read_text() in PAGE
