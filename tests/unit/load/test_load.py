"""A declaration is read as it stands, or refused with places; nothing in it is guessed, followed or executed."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from privnet import load
from privnet.check import check
from privnet.diagnostics import DeclarationError, Place, Problem, render_json, render_text
from privnet.load import Document, open_document, parse_document, read_declaration, read_document, validate
from privnet.model import Project
from privnet.model.nodes import Mapping, Scalar, Sequence

INVENTORY = Path(__file__).parents[3] / "inventory"
FLEETS = [INVENTORY / "prod", INVENTORY / "lab"]

FLEET = """\
fleet: small
hosts:
  a: {address: 192.0.2.1}
  b:
    address: 192.0.2.2
    ssh: {port: 2222}
"""
SHOP = """\
project: shop
applications:
  ap-a71da13f-7c70-4c00-a644-eee8558d8053:
    formation:
      web: [a, b]
"""


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "small"
    (directory / "projects").mkdir(parents=True)
    (directory / "fleet.yaml").write_text(FLEET)
    (directory / "projects" / "shop.yaml").write_text(SHOP)
    return directory


def problems(directory: Path) -> tuple[Problem, ...]:
    with pytest.raises(DeclarationError) as refused:
        read_declaration(directory)
    return refused.value.problems


def parse(text: str | bytes) -> Document:
    document = Document("x.yaml")
    parse_document(text.encode() if isinstance(text, str) else text, document)
    return document


def node(text: str) -> Mapping:
    document = parse(text)
    assert document.node is not None, document.problems
    return document.node


# --- the examples and the order of things ---------------------------------------------------------


@pytest.mark.parametrize("directory", FLEETS, ids=lambda path: path.name)
def test_the_examples_are_right(directory: Path) -> None:
    declaration = read_declaration(directory)
    assert list(check(declaration, None)) == []
    assert declaration.fleet.fleet == directory.name


def test_the_order_of_files_and_keys_does_not_matter(fleet: Path) -> None:
    (fleet / "projects" / "blog.yaml").write_text("applications: {}\nproject: blog\n")
    (fleet / "projects" / "zoo.yaml").write_text("project: zoo\n")
    before = read_declaration(fleet)
    lines = FLEET.splitlines(keepends=True)
    (fleet / "fleet.yaml").write_text("".join(lines[1:] + lines[:1]))
    after = read_declaration(fleet)
    assert (before.fleet, before.projects) == (after.fleet, after.projects)
    assert [project.project for project in after.projects] == ["blog", "shop", "zoo"]


def test_a_fleet_without_projects_is_a_fleet(fleet: Path) -> None:
    shutil.rmtree(fleet / "projects")
    assert read_declaration(fleet).projects == ()


def test_hidden_files_and_those_of_editors_are_no_projects(fleet: Path) -> None:
    for name in (".shop.yaml.swp", "shop.yaml~", "#shop.yaml#", ".hidden.yaml", "shop.yaml.bak", "shop.yaml.orig"):
        (fleet / "projects" / name).write_text("\0")
    assert len(read_declaration(fleet).projects) == 1


def test_the_collector_is_left_as_it_was(fleet: Path) -> None:
    assert gc.isenabled()
    read_declaration(fleet)
    assert gc.isenabled()
    (fleet / "fleet.yaml").write_text("")
    problems(fleet)
    assert gc.isenabled()


# --- places ---------------------------------------------------------------------------------------


def test_places_are_those_of_values_and_of_the_keys_that_name_mappings(fleet: Path) -> None:
    declaration = read_declaration(fleet)
    application = "ap-a71da13f-7c70-4c00-a644-eee8558d8053"
    web = ("applications", application, "formation", "web")
    assert declaration.place("hosts", "a", "address") == Place("small/fleet.yaml", 3, 16, 3, 25)
    assert declaration.place("hosts", "b") == Place("small/fleet.yaml", 4, 3, 4, 4)
    assert declaration.place("hosts", "b", "ssh", "port") == Place("small/fleet.yaml", 6, 17, 6, 21)
    assert declaration.project_place("shop", *web, 1) == Place("small/projects/shop.yaml", 5, 16, 5, 17)
    assert declaration.project_place("shop", *web) == Place("small/projects/shop.yaml", 5, 7, 5, 10)


def test_what_was_left_out_is_found_at_what_is_around_it(fleet: Path) -> None:
    declaration = read_declaration(fleet)
    assert declaration.place("hosts", "b", "zone") == declaration.place("hosts", "b")
    assert declaration.place("dns", "ttl") == Place("small/fleet.yaml", 1, 1, 1, 6)
    assert declaration.declares("hosts", "b") and not declaration.declares("dns", "ttl")


def test_paths_are_those_a_person_would_type(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_declaration(Path("small")).place("fleet").path == "small/fleet.yaml"
    assert read_declaration(fleet).place("fleet").path == "small/fleet.yaml"
    monkeypatch.chdir(fleet / "projects")
    assert read_declaration(fleet).place("fleet").path == str(fleet / "fleet.yaml")


@pytest.mark.parametrize("prefix", ["", "\ufeff", "# é漢🚀\r\n"])
def test_columns_count_characters_after_a_byte_order_mark_and_with_crlf(prefix: str) -> None:
    value = node(f"{prefix}a: ['é漢🚀', b]\r\nc: d\r\n")
    lines = prefix.count("\n")
    items = value["a"]  # type: ignore[index]
    assert isinstance(items, Sequence)
    assert (items[1].line, items[1].column, items[1].end_column) == (1 + lines, 12, 13)
    assert (value["c"].line, value["c"].column) == (2 + lines, 4)  # type: ignore[index]


def test_every_scalar_is_the_text_that_stands_there() -> None:
    raw = ["no", "010", "0x10", "22:22", "2025-09-25", "1e3", ".inf", "1_000", "Null?", "=", "true"]
    (values,) = node(f"a: [{', '.join(raw)}]").values()
    assert list(values) == raw
    assert all(type(value) is Scalar and not value.quoted for value in values)


def test_quotes_are_remembered_and_not_part_of_the_text() -> None:
    (values,) = node("a: ['no', \"no\", no, '', 'it''s']").values()
    assert list(values) == ["no", "no", "no", "", "it's"]
    assert [value.quoted for value in values if isinstance(value, Scalar)] == [True, True, False, True, True]


# --- files that cannot be read --------------------------------------------------------------------


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _large(path: Path) -> None:
    path.write_text("# " + "x" * 2**21)


def _unreadable(path: Path) -> None:
    path.symlink_to("/nonexistent/file")


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (Path.mkdir, "PN101", "is a directory"),
        (_fifo, "PN101", "not an ordinary file"),
        (_link, "PN101", "symbolic link"),
        (_loop, "PN101", "symbolic link"),
        (_unreadable, "PN101", "symbolic link"),
        (_large, "PN102", "2,097,154 bytes; at most 1,048,576 are read"),
        (lambda path: None, "PN101", "does not exist"),
    ],
)
def test_what_is_not_an_ordinary_file_is_refused(
    fleet: Path, spoil: Callable[[Path], None], code: str, words: str
) -> None:
    (fleet / "fleet.yaml").unlink()
    spoil(fleet / "fleet.yaml")
    (problem,) = problems(fleet)
    assert problem.code == code and words in problem.message and problem.help
    assert "small/fleet.yaml" in problem.message


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path / "prod")
    assert "no such directory" in problem.message


def test_a_projects_file_that_is_no_directory_is_named(fleet: Path) -> None:
    shutil.rmtree(fleet / "projects")
    (fleet / "projects").write_text("")
    assert "projects cannot be read" in problems(fleet)[0].message


def test_a_link_or_folder_among_the_projects_is_refused(fleet: Path) -> None:
    (fleet / "projects" / "other.yaml").symlink_to("shop.yaml")
    (fleet / "projects" / "team").mkdir()
    assert [problem.message for problem in problems(fleet)] == [
        "small/projects/other.yaml is a symbolic link",
        "small/projects/team is not a project's file",
    ]


def test_the_caller_may_raise_the_limits(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text(f"a: [{', '.join(['x'] * 300_000)}]\n")
    with pytest.raises(DeclarationError, match="more than 200,000 values"):
        read_document(path, bytes_at_most=2**22)
    (values,) = read_document(path, bytes_at_most=2**22, nodes_at_most=400_000).values()
    assert len(values) == 300_000
    with pytest.raises(DeclarationError, match="at most 1,000 are read"):
        read_document(path, bytes_at_most=1000)


def test_depth_is_limited_before_anything_walks_it() -> None:
    assert parse("a: " + "[" * 19 + "]" * 19).node is not None
    for depth in (20, 2000, 200_000):
        (problem,) = parse("a: " + "[" * depth + "]" * depth).problems
        assert problem.code == "PN102" and "20 levels" in problem.message


def test_an_alias_bomb_is_refused_without_being_unfolded() -> None:
    bomb = "a0: &a0 x\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(1000))
    document = parse(bomb)
    assert document.node is None and {problem.code for problem in document.problems} == {"PN106"}


def test_a_tag_is_not_executed(tmp_path: Path) -> None:
    marker = tmp_path / "pwned"
    document = parse(f'a: !!python/object/apply:os.system ["touch {marker}"]\n')
    assert document.problems[0].code == "PN106" and not marker.exists()


def test_problems_of_all_files_come_together(fleet: Path) -> None:
    (fleet / "fleet.yaml").write_text("fleet: small\nhosts: {a: {address: 1}}\n")
    (fleet / "projects" / "shop.yaml").write_text("project: [\n")
    (fleet / "projects" / "zoo.yaml").write_text("project: zoo\nx: y\nz: y\n")
    assert [problem.code for problem in problems(fleet)] == ["PN212", "PN105", "PN202", "PN202"]


# --- anything at all ------------------------------------------------------------------------------


def well_formed(found: list[Problem], text: str) -> None:
    lines = text.split("\n")
    for problem in found:
        assert problem.message
        if problem.place is not None:
            assert 1 <= problem.place.line <= len(lines)
            assert 1 <= problem.place.column <= len(lines[problem.place.line - 1]) + 1
    shown = render_text(found, color=False, sources={"x.yaml": text})
    assert all(character == "\n" or character.isprintable() for character in shown)
    render_json(found)


YAMLISH = st.lists(
    st.sampled_from(
        [
            *("a", "project", "applications", ":", ": ", "- ", "\n", "\n  ", " ", "[", "]", "{", "}", ",", "'", '"'),
            *("&a ", "*a", "!t ", "!!str ", "|", ">", "#", "%", "@", "---", "...", "?", "<<", "~", "\t", "\r", "\0"),
            *("\\", "\\x41", "é", "\u2028", "\ud800", "\ufeff", "ap-a71da13f-7c70-4c00-a644-eee8558d8053", "1", "no"),
        ]
    ),
    max_size=40,
).map(lambda parts: "".join(parts).encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=200) | YAMLISH)
@example(b"a: \xff")
@example(b"[\n\n")
@example(b"\xef\xbb\xbf\xef\xbb\xbfa: b")
@example(b'"\\ud800": a')
@example(b"? [a]\n: b")
@example(b"%YAML 1.1\n---\na: b\n...\n")
@settings(max_examples=600, deadline=2000)
def test_any_bytes_are_read_or_refused_with_places(data: bytes) -> None:
    document = parse(data)
    assert (document.node is None) == bool(document.problems)
    found = list(document.problems)
    if document.node is not None:
        validate(Project, [document], found)
    well_formed(found, document.text)


def leaves(value: object, keys: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Scalar]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, (*keys, str(key)))
    elif isinstance(value, Sequence):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*keys, index))
    elif isinstance(value, Scalar):
        yield keys, value


SPOILED = [
    "",
    "~",
    "''",
    '""',
    "x" * 300,
    "[x]",
    "{x: y}",
    "-1",
    "0",
    "1e9",
    "no",
    '"a\\nb"',
    "é",
    "'a b'",
    "*x",
    "10.0.0.0/8",
]


@pytest.mark.parametrize("directory", FLEETS, ids=lambda path: path.name)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_spoiled_example_is_refused_with_places_or_still_right(directory: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(directory.rglob("*.yaml"))))
    if path.name == "privnet.lock.yaml":
        return
    document = open_document(path)
    _, leaf = data.draw(st.sampled_from(list(leaves(document.node))))
    lines = document.text.split("\n")
    line = lines[leaf.line - 1]
    spoiled = data.draw(st.sampled_from(SPOILED))
    lines[leaf.line - 1] = line[: leaf.column - 1] + spoiled + line[leaf.end_column - 1 :]
    again = parse("\n".join(lines))
    found = list(again.problems)
    if again.node is not None:
        model = Project if path.parent.name == "projects" else type(read_declaration(directory).fleet)
        validate(model, [again], found)
    well_formed(found, again.text)
    assert all(problem.place is not None for problem in found)


def test_the_beginning_of_a_large_file_says_the_same_as_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the same file, once with its beginning tried first."""
    rows = "".join(f"  ap-{n}: {{formation: {{web: [a]}}, nmae: x}}\n" for n in range(9000))
    text = f"applications:\n{rows}projct: shop\nprivate_network: {{}}\n"
    found = {}
    for large in (0, 10**9):
        monkeypatch.setattr(load, "LARGE", large)
        document = parse(text)
        told: list[Problem] = []
        assert validate(Project, [document], told) == []
        found[large] = told
    assert found[0] == found[10**9]
    assert len(found[0]) >= 100


def test_a_mistake_far_behind_the_beginning_of_a_large_file_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "LARGE", 0)
    ids = [f"ap-a71da13f-7c70-4c00-a644-{n:012x}" for n in range(1, 2001)]
    good = "project: shop\napplications:\n" + "".join(f"  {name}: {{}}\n" for name in ids)
    told: list[Problem] = []
    assert validate(Project, [parse(good)], told)
    assert told == []
    assert validate(Project, [parse(good + "  ap-1: {}\n")], told) == []
    assert [(problem.code, problem.place and problem.place.line) for problem in told] == [("PN211", 2003)]
