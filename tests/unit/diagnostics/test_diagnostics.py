"""Problems look the same wherever they come from, and a terminal shows nothing but text."""

from __future__ import annotations

import json

import pytest

from privnet.diagnostics import (
    CODES,
    DeclarationError,
    Place,
    Problem,
    Related,
    nearest,
    ordered,
    quoted,
    render_json,
    render_text,
    source_line,
    visible,
)

SHOP = "projects/shop.yaml"
SOURCES = {SHOP: "project: shop\nprivate_network:\n  vni: 4242\n"}
VNI = Problem(
    "PN304",
    "VNI 4242 is used by two networks",
    Place(SHOP, 3, 8, 3, 12),
    "private network pn-ad0fd6a1… (shop)",
    help="delete the `vni:` line",
    related=(Related(Place("projects/billing.yaml", 9, 8, 9, 12), "it was given to billing here"),),
)


def text(*problems: Problem, sources: dict[str, str] = SOURCES, color: bool = False) -> str:
    return render_text(problems, color=color, sources=sources)


def test_a_problem_shows_its_line_its_second_place_and_its_remedy() -> None:
    assert text(VNI) == (
        "error[PN304]: VNI 4242 is used by two networks\n"
        " --> projects/shop.yaml:3:8\n"
        "  |\n"
        "3 |   vni: 4242\n"
        "  |        ^^^^ private network pn-ad0fd6a1… (shop)\n"
        "  |\n"
        "note: it was given to billing here\n"
        " --> projects/billing.yaml:9:8\n"
        "  = help: delete the `vni:` line\n"
        "\n"
        "No host was contacted.\n"
    )


def test_json_holds_the_same() -> None:
    (problem,) = json.loads(render_json([VNI]))["problems"]
    assert problem["code"] == "PN304" and problem["severity"] == "error"
    assert (problem["file"], problem["line"], problem["column"]) == (SHOP, 3, 8)
    assert (problem["end_line"], problem["end_column"]) == (3, 12)
    assert problem["message"] == VNI.message and problem["help"] == VNI.help
    assert problem["related"][0]["file"] == "projects/billing.yaml"


def test_a_problem_without_a_place_has_no_arrow() -> None:
    assert text(Problem("PN101", "fleet.yaml does not exist")) == (
        "error[PN101]: fleet.yaml does not exist\n\nNo host was contacted.\n"
    )


def test_problems_are_sorted_by_place_and_shown_once() -> None:
    early, late = (Problem("PN202", "x", Place(SHOP, line, 1, line, 2)) for line in (1, 10))
    other = Problem("PN202", "x", Place("fleet.yaml", 5, 1, 5, 2))
    nowhere = Problem("PN101", "x")
    assert ordered([late, early, other, late, nowhere]) == (nowhere, other, early, late)
    assert DeclarationError([late, early, late]).problems == (early, late)


def test_at_most_twenty_are_shown_and_the_rest_counted() -> None:
    many = [Problem("PN202", f"number {number:02}", Place(SHOP, 1, number + 1, 1, number + 2)) for number in range(57)]
    shown = text(*many)
    assert shown.count("error[") == 20 and "number 19" in shown and "number 20" not in shown
    assert shown.endswith("\n\nand 37 more\n\nNo host was contacted.\n")
    assert "more" not in text(*many[:20])
    assert len(json.loads(render_json(many))["problems"]) == 57


def test_color_changes_only_how_it_looks() -> None:
    import re

    painted = text(VNI, color=True)
    assert "\x1b[" in painted
    assert re.sub("\x1b\\[[0-9;]*m", "", painted) == text(VNI)


@pytest.mark.parametrize(
    ("seen", "shown"),
    [
        ("plain", "plain"),
        ("caf\udce9", "caf\\xe9"),
        ("\x1b]0;evil\x07\r", "\\x1b]0;evil\\x07\\r"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u200bb", "a\\u200bb"),
        ("e\u0301", "e\\u0301"),
        ("\U000e0001", "\\U000e0001"),
        ("é漢🚀", "é漢🚀"),
        ("a\nb\tc\0", "a\\nb\\tc\\x00"),
    ],
)
def test_what_a_terminal_would_not_show_is_escaped(seen: str, shown: str) -> None:
    assert visible(seen) == shown


def test_every_part_of_a_problem_is_escaped() -> None:
    evil = "\x1b[2J"
    place = Place(f"{evil}.yaml", 1, 1, 1, 4)
    problem = Problem("PN202", evil, place, evil, evil, evil, (Related(place, evil),))
    shown = text(problem, sources={place.path: f"{evil}: {evil}"})
    assert "\x1b" not in shown and shown.count("\\x1b[2J") == 9
    assert "\x1b" not in render_json([problem])


def test_the_caret_stands_under_the_value_whatever_comes_before_it() -> None:
    line = 'a: "漢\u202e", b: 1'
    column = line.index("b: 1") + 1
    shown = text(Problem("PN202", "x", Place(SHOP, 1, column, 1, column + 1)), sources={SHOP: line})
    source, carets = shown.splitlines()[3:5]
    # The escape is six columns wide and the character before it two.
    assert source.index("b: 1") + 1 == carets.index("^")
    assert carets.count("^") == 1


def test_a_long_line_is_cut_around_the_value() -> None:
    line = "x" * 5000 + "HERE" + "y" * 5000
    shown = text(Problem("PN202", "x", Place(SHOP, 1, 5001, 1, 5005)), sources={SHOP: line})
    source, carets = shown.splitlines()[3:5]
    assert len(source) < 200 and "…" in source
    assert source[carets.index("^") :].startswith("HERE")
    assert carets.count("^") == 4


def test_a_place_behind_the_end_of_a_line_still_has_a_caret() -> None:
    shown = text(Problem("PN105", "x", Place(SHOP, 1, 14, 1, 15)))
    assert shown.splitlines()[4] == "  | " + " " * 13 + "^"


def test_a_value_over_several_lines_is_marked_on_its_first() -> None:
    shown = text(Problem("PN112", "x", Place(SHOP, 2, 1, 3, 5)))
    assert shown.splitlines()[4] == "  | " + "^" * len("private_network:")


def test_lines_are_found_with_either_end_of_line() -> None:
    assert source_line("a\r\nb\nc", 1) == "a"
    assert source_line("a\r\nb\nc", 2) == "b"
    assert source_line("a\r\nb\nc", 3) == "c"
    assert source_line("a\n", 2) is None
    assert source_line("", 1) is None


def test_values_are_quoted_and_cut() -> None:
    assert quoted("web") == '"web"'
    assert quoted("a\nb") == '"a\\nb"'
    assert quoted("x" * 61) == '"' + "x" * 60 + '…"'


def test_the_nearest_name_is_offered_and_a_distant_one_is_not() -> None:
    assert nearest("cidrr", ["id", "cidr", "vni"]) == "did you mean `cidr`?"
    assert nearest("CIDR", ["id", "cidr", "vni"]) == "did you mean `cidr`?"
    assert nearest("colour", ["id", "cidr", "vni"]) == ""


def test_codes_are_well_formed_and_titled() -> None:
    assert all(len(code) == 5 and code.startswith("PN") and code[2:].isdigit() for code in CODES)
    assert len(set(CODES.values())) == len(CODES)
