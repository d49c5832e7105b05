"""`privnet new` writes what holds, keeps what people wrote, and overwrites nothing."""

from __future__ import annotations

import contextlib
import difflib
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from privnet.cli import app
from privnet.compiler import compile_fleet
from privnet.load import Document, parse_document, read_declaration
from privnet.new import NotWritten
from privnet.new.insert import Entry, insert
from privnet.new.write import new_host
from privnet.store import load_lock, save_lock

ROOT = Path(__file__).parents[3]
SHOP = ROOT / "tests" / "errors" / "base"
ACCEPTED = ("--accepted-by", "ops@x.example", "--terms", "beta-1", "--accepted-on", "2025-09-25")


def typed(*arguments: str | Path, cwd: Path, code: int = 0) -> str:
    with contextlib.chdir(cwd):
        result = CliRunner().invoke(app, [*map(str, arguments)], prog_name="privnet", catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stderr if code else result.stdout


def changes(before: str, after: str) -> list[str]:
    """The lines that differ, and nothing around them."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


# --- from nothing to a fleet ----------------------------------------------------------------------


def test_a_fleet_from_nothing_holds_at_every_step(tmp_path: Path) -> None:
    said = typed("new", "fleet", "inventory/prod", cwd=tmp_path)
    assert said.splitlines() == [
        "inventory/prod/fleet.yaml written",
        "inventory/prod.py written",
        "inventory/prod/.gitignore written",
        "inventory/prod/.gitattributes written",
        "next: privnet new project inventory/prod NAME",
    ]
    fleet = tmp_path / "inventory" / "prod"
    compile_fleet(fleet)
    typed("new", "host", "inventory/prod", "par-a-1", "192.0.2.21", "--zone", "par-a", cwd=tmp_path)
    typed("new", "project", "inventory/prod", "shop", *ACCEPTED, cwd=tmp_path)
    typed("new", "project", "inventory/prod", "clinic", cwd=tmp_path)
    for name in ("storefront", 'a "quoted" \\name: # with everything'):
        command = ("new", "application", "inventory/prod", "shop", "--name", name, "--host", "par-a-1")
        typed(*command, cwd=tmp_path)
    typed("new", "application", "inventory/prod", "clinic", cwd=tmp_path)
    declaration = read_declaration(fleet)
    clinic, shop = declaration.projects
    assert (clinic.private_network, len(clinic.applications)) == (None, 1)
    assert shop.private_network is not None
    assert shop.private_network.terms.accepted_by == "ops@x.example"
    assert [a.name for a in shop.applications.values()] == ["storefront", 'a "quoted" \\name: # with everything']
    assert declaration.fleet.hosts["par-a-1"].zone == "par-a"
    assert "1 private network, 2 containers" in typed("check", "inventory/prod", cwd=tmp_path)


def test_git_gets_what_the_fleet_needs_and_nothing_of_this_machine(tmp_path: Path) -> None:
    """What a run and a power cut leave is not committed; the lock file is, and keeps its line ends and checksum."""

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=ops", "-c", "user.email=ops@example.com", "-c", "commit.gpgsign=false")
        command = ["git", *identity, "-c", "core.autocrlf=true", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    typed("new", "fleet", "prod", "--host", "a=192.0.2.1", cwd=tmp_path)
    fleet = tmp_path / "prod"
    lock = save_lock(fleet, compile_fleet(fleet).lock)
    for left in (".privnet/run", ".privnet.lock.yaml.new", ".privnet.progress.json.new", ".fleet.yaml.new"):
        (fleet / left).parent.mkdir(exist_ok=True)
        (fleet / left).write_text("left\n")
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "as the guide says")
    names = [".gitattributes", ".gitignore", "fleet.yaml", "privnet.lock.yaml"]
    assert git("ls-files").splitlines() == ["prod.py", *(f"prod/{name}" for name in names)]
    (fleet / "privnet.lock.yaml").unlink()
    (fleet / "fleet.yaml").unlink()
    git("checkout", "--", ".")
    assert b"\r\n" in (fleet / "fleet.yaml").read_bytes(), "the twin: what has no attribute is converted"
    assert load_lock(fleet, "prod") == lock
    assert compile_fleet(fleet).known == lock


def test_identifiers_are_fresh(tmp_path: Path) -> None:
    typed("new", "fleet", "prod", "--host", "a=192.0.2.1", "--host", "b=2001:db8::2", cwd=tmp_path)
    for name in ("one", "two"):
        typed("new", "project", "prod", name, *ACCEPTED, cwd=tmp_path)
    found = re.findall(r"id: pn-(\S+)", "".join(path.read_text() for path in tmp_path.glob("prod/projects/*")))
    assert len({uuid.UUID(one) for one in found}) == 2
    assert all(uuid.UUID(one).version == 4 for one in found)
    assert sorted(read_declaration(tmp_path / "prod").fleet.hosts) == ["a", "b"]


def test_new_documents_lead_editors_to_the_schemas_and_satisfy_them(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "schemas", tmp_path / "schemas")
    typed("new", "fleet", "inventory/prod", cwd=tmp_path)
    typed("new", "project", "inventory/prod", "shop", *ACCEPTED, cwd=tmp_path)
    typed("new", "application", "inventory/prod", "shop", cwd=tmp_path)
    for kind, path in (("fleet", "fleet.yaml"), ("project", "projects/shop.yaml")):
        document = tmp_path / "inventory" / "prod" / path
        found = re.match(r"# yaml-language-server: \$schema=(\S+)\n", document.read_text())
        assert found is not None
        schema = (document.parent / found[1]).resolve()
        assert schema == tmp_path / "schemas" / f"{kind}.schema.json"
        command = [sys.executable, "-m", "check_jsonschema", "--schemafile", str(schema), str(document)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


# --- into what people wrote -----------------------------------------------------------------------


@pytest.fixture
def prod(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "inventory" / "prod", tmp_path / "prod")
    (tmp_path / "prod" / "privnet.lock.yaml").unlink(missing_ok=True)
    return tmp_path / "prod"


def test_an_application_is_added_below_the_last_and_nothing_else_changes(prod: Path) -> None:
    path = prod / "projects" / "shop.yaml"
    before = path.read_text()
    typed("new", "application", "prod", "shop", "--host", "par-a-1", "--host", "par-b-1", cwd=prod.parent)
    (key, formation, web) = changes(before, path.read_text())
    assert re.fullmatch(r"\+  ap-[0-9a-f-]{36}:", key)
    assert (formation, web) == ("+    formation:", "+      web: [par-a-1, par-b-1]")


def test_nothing_is_written_through_a_link(prod: Path, tmp_path: Path) -> None:
    """One that was committed under the name that the next version is written under."""
    (tmp_path / "mine").write_text("not privnet's\n")
    (prod / ".fleet.yaml.new").symlink_to(tmp_path / "mine")
    new_host(prod, "par-z-9", "192.0.2.99", "par-a")
    assert "par-z-9" in compile_fleet(prod).declaration.fleet.hosts
    assert (tmp_path / "mine").read_text() == "not privnet's\n"
    assert not (prod / ".fleet.yaml.new").is_symlink()


def test_a_host_is_added_below_the_last(prod: Path) -> None:
    path = prod / "fleet.yaml"
    before = path.read_text()
    typed("new", "host", "prod", "par-c-1", "203.0.113.9", "--zone", "par-c", cwd=prod.parent)
    assert changes(before, path.read_text()) == ['+  par-c-1: {address: "203.0.113.9", zone: "par-c"}']


STYLES = {
    "block": "hosts:\n  a: {address: 192.0.2.1}   # first\n",
    "block without an end": "hosts:\n  a: {address: 192.0.2.1}",
    "deep block": "hosts:\n      a:\n          address: 192.0.2.1\n          ssh:\n              port: 22\n",
    "comments behind": "hosts:\n  a: {address: 192.0.2.1}\n\n  # more to come\n\n# the end\n",
    "more fields behind": "hosts:\n  a:\n    address: 192.0.2.1\n\n# and:\ndns: {ttl: 5}\n",
    "flow": "hosts: {a: {address: 192.0.2.1}}   # one line\n",
    "flow over lines": "hosts: {\n  a: {address: 192.0.2.1},\n  b: {address: 192.0.2.2}   # last\n}\n",
    "flow with a comma at its end": "hosts: {a: {address: 192.0.2.1},}\n",
    "quotes": 'hosts:\n  "a":\n    "address": "192.0.2.1"\n',
    "carriage returns": "hosts:\r\n  a: {address: 192.0.2.1}\r\n# end\r\n",
    "flow value over lines": "hosts:\n  a: {address: 192.0.2.1,\n      zone: x}\n  # end\n",
}


@pytest.mark.parametrize("style", STYLES)
def test_every_style_of_a_mapping_is_kept(style: str, tmp_path: Path) -> None:
    directory = tmp_path / "small"
    directory.mkdir()
    end = "\r\n" if "\r\n" in STYLES[style] else "\n"
    before = f"fleet: small{end}{STYLES[style]}"
    (directory / "fleet.yaml").write_bytes(before.encode())
    hosts = set(read_declaration(directory).fleet.hosts)
    typed("new", "host", "small", "new-1", "192.0.2.99", cwd=tmp_path)
    after = (directory / "fleet.yaml").read_bytes().decode()
    assert set(read_declaration(directory).fleet.hosts) == hosts | {"new-1"}
    assert ("\r\n" in after) == ("\r\n" in before)
    kept = iter(after)
    assert all(character in kept for character in before), "something of the old text is gone"
    assert all(comment in after for comment in re.findall("#.*", before))


@pytest.mark.parametrize(
    "text",
    [
        "project: shop\n",
        "project: shop",
        "project: shop\napplications: {}   # none yet\n# end\n",
        "\ufeffproject: shop\n",
        "project: shop\napplications: { # none\n  # really none\n}\n",
        "{project: shop}\n",
        "{project: shop, applications: {}}   # on one line\n",
        '{\n "project": "shop",\n "applications": {}\n}\n',
        "project: shop\n...\n",
        "project: shop\n...\n# behind the end\n",
        "  project: shop   # indented\n",
        "# first\r\nproject: shop",
        "--- {project: shop}\n",
    ],
)
def test_the_first_application_of_a_project(text: str, tmp_path: Path) -> None:
    directory = tmp_path / "small"
    shutil.copytree(SHOP, directory)
    (directory / "projects" / "shop.yaml").write_bytes(text.encode())
    typed("new", "application", "small", "shop", cwd=tmp_path)
    after = (directory / "projects" / "shop.yaml").read_bytes().decode()
    assert len(next(p for p in read_declaration(directory).projects if p.project == "shop").applications) == 1
    kept = iter(after)
    assert all(character in kept for character in re.sub("applications: ({}|{\n})", "", text))
    assert all(comment in after for comment in re.findall("#.*", text))


NAMES = st.from_regex("[a-z][a-z0-9]{0,5}", fullmatch=True)


@settings(max_examples=80, deadline=2000, derandomize=True)
@given(st.dictionaries(NAMES, st.dictionaries(NAMES, NAMES, max_size=2), min_size=1, max_size=3), st.data())
def test_an_entry_is_the_only_difference_whatever_the_style(
    data: dict[str, dict[str, str]], draw: st.DataObject
) -> None:
    lines = ["a: b", "part:"]
    for name, inner in data.items():
        if not inner or draw.draw(st.booleans()):
            lines.append(f"  {name}: {{{', '.join(f'{k}: {v}' for k, v in inner.items())}}}   # flow")
        else:
            lines += [f"  {name}:", *(f"    {k}: {v}" for k, v in inner.items())]
        lines += draw.draw(st.sampled_from([[], [""], ["  # note"], ["# note"]]))
    lines += draw.draw(st.sampled_from([[], ["z: {y: x}"], ["# end"]]))
    text = "\n".join([*lines, ""])
    before = parsed(text)
    new = Entry("new-1", "{c: d}", draw.draw(st.sampled_from([(), ("c: d",)])))
    after = parsed(insert(text, before, "part", new))
    assert plain(after) == {**plain(before), "part": {**plain(before)["part"], "new-1": {"c": "d"}}}


def parsed(text: str):  # type: ignore[no-untyped-def]
    document = Document("x.yaml")
    parse_document(text.encode(), document)
    assert document.node is not None, document.problems
    return document.node


def plain(node):  # type: ignore[no-untyped-def]
    return {str(k): plain(v) for k, v in node.items()} if isinstance(node, dict) else str(node)


# --- refused --------------------------------------------------------------------------------------


def test_a_style_with_no_place_to_add_to_is_named_with_what_to_put_there(tmp_path: Path) -> None:
    directory = tmp_path / "small"
    directory.mkdir()
    before = "fleet: small\nhosts:\n  ? a\n  : {address: 192.0.2.1}\n"
    (directory / "fleet.yaml").write_text(before)
    with pytest.raises(NotWritten, match=r"put `b: \{address: \"192.0.2.2\"\}` into `hosts`"):
        new_host(directory, "b", "192.0.2.2", "")
    assert (directory / "fleet.yaml").read_text() == before


def everything(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("fleet", "prod"), "prod is there already"),
        (("fleet", "Prod!"), "breaks the rule for names"),
        (("fleet", "other", "--host", "a"), "NAME=ADDRESS"),
        (("fleet", "other", "--host", "a=127.0.0.1"), "loopback"),
        (("project", "prod", "shop"), "prod/projects/shop.yaml is there already"),
        (("project", "prod", "../evil"), "breaks the rule for names"),
        (("project", "prod", "a", "--accepted-by", "me"), "--terms VERSION"),
        (("project", "prod", "a", "--accepted-by", "me", "--terms", "1", "--accepted-on", "yesterday"), "PN209"),
        (("project", "prod", "a", "--accepted-by", "me", "--terms", "1", "--accepted-on", "2999-01-01"), "PN405"),
        (("project", "prodd", "a"), "did you mean `prod`?"),
        (("application", "prod", "shopp"), "did you mean `shop`?"),
        (("application", "prod", "shop", "--host", "par-a1"), "did you mean `par-a-1`?"),
        (("application", "prod", "shop", "--name", "a\nb"), "PN112"),
        (("host", "prod", "par-a-1", "192.0.2.77"), "already"),
        (("host", "prod", "par-z-1", "192.0.2.11"), "PN308"),
        (("host", "prod", "par-z-1", "example.net"), "PN212"),
        (("host", "prod", "par-z-1", "192.0.2.77", "--zone", "x}, y: {"), "PN210"),
        (("host", "prod", "a: {}", "192.0.2.77"), "breaks the rule for names"),
    ],
)
def test_what_would_not_hold_is_not_written(prod: Path, arguments: tuple[str, ...], why: str) -> None:
    before = everything(prod.parent)
    text = typed("new", *arguments, cwd=prod.parent, code=2)
    assert why in text
    assert everything(prod.parent) == before
    assert "Traceback" not in text


def test_a_fleet_that_is_wrong_already_is_shown_first(prod: Path) -> None:
    path = prod / "projects" / "shop.yaml"
    path.write_text(path.read_text().replace("par-b-3", "par-b-9"))
    before = everything(prod)
    text = typed("new", "application", "prod", "shop", cwd=prod.parent, code=2)
    assert 'error[PN301]: the fleet has no host "par-b-9"' in text
    assert everything(prod) == before
