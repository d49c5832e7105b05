"""What the pages say exists, and what a newcomer types works as written."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from privnet.cli import app
from privnet.compiler import compile_fleet, render_fleet
from privnet.progress import Progress, save_progress
from privnet.store import load_lock, lock_checksum, save_lock

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "schemas" / "README.md"])
MAKEFILE = (ROOT / "Makefile").read_text()
TOP_FOLDERS = ("docs", "inventory", "deploys", "src", "tests", "templates", "schemas", "setup")

page_by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def tracked() -> list[Path]:
    """Every file of the repository, and what is about to become one."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    paths = (ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name)
    return [path for path in paths if path.is_file()]


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a page that say they are in a language (`` for none)."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [body for said, body in found if said == language]


def typed(text: str) -> Iterator[list[str]]:
    """The words of every command line that a page tells one to type, without comments and what comes after a pipe."""
    for line in "".join(blocks(text, "sh")).splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


def commands() -> dict[str, object]:
    group = typer.main.get_command(app)
    context = group.make_context("privnet", ["check"], resilient_parsing=True)
    return {name: group.get_command(context, name) for name in group.list_commands(context)}  # type: ignore[attr-defined]


# --- links and files ------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(text: str, page: Path) -> list[str]:
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            found.append(target)
    return found


@page_by_page
def test_links_resolve(page: Path) -> None:
    assert broken_links(page.read_text(), page) == []


def test_a_broken_link_is_seen() -> None:
    text = "[a](docs/nowhere.md) [b](#no-such-heading) [c](docs/lab.md) [d](#limits)"
    assert broken_links(text, ROOT / "README.md") == ["docs/nowhere.md", "#no-such-heading"]


def missing_files(text: str) -> list[str]:
    """Paths of this repository that a text names and that are not there, but for a reader's own and a run's files."""
    found = []
    for path in re.findall(rf"(?<![\w/.-])(?:{'|'.join(TOP_FOLDERS)})/[\w./-]*[\w/]", text):
        if not (ROOT / path).exists() and not re.match(r"inventory/(?:(?:mine|X)\b|\w+/[.]?privnet[.])", path):
            found.append(path)
    return found


@page_by_page
def test_files_exist(page: Path) -> None:
    assert missing_files(page.read_text()) == []


def test_a_missing_file_is_seen() -> None:
    assert missing_files("look at `src/privnet/nothing.py` and src/privnet/cli.py") == ["src/privnet/nothing.py"]


def test_every_page_is_reached_from_the_readme() -> None:
    seen, open_pages = set(), [ROOT / "README.md"]
    while open_pages:
        page = open_pages.pop()
        if page in seen:
            continue
        seen.add(page)
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            file = (page.parent / target).resolve()
            file = file / "README.md" if file.is_dir() else file
            if file.suffix == ".md" and file.is_file():
                open_pages.append(file)
    assert sorted(set(PAGES) - seen) == [ROOT / "schemas" / "README.md"]


# --- commands -------------------------------------------------------------------------------------


def test_the_readme_lists_the_commands_of_privnet() -> None:
    section = README.partition("\n## Commands\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `privnet (\w+)`", section, re.MULTILINE)) == set(commands())


@page_by_page
def test_commands_exist(page: Path) -> None:
    known = commands()
    lab = known["lab"].commands  # type: ignore[attr-defined]
    targets = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))
    text = page.read_text()
    written = [*typed(text), *(shlex.split(code) for code in re.findall(r"`((?:privnet|make) [a-z][^`'\"…]*)`", text))]
    for words in written:
        match words:
            case ["privnet", "lab", verb, *_]:
                assert verb in lab, words
            case ["privnet", verb, *_]:
                assert verb.startswith("-") or verb in known, words
            case ["make", target, *_]:
                assert target in targets, words


def test_pyinfra_is_called_in_one_way() -> None:
    """Everywhere the same command: an inventory and the one deploy; or one of pyinfra's own that is no deploy."""
    calls = [words for page in PAGES for words in typed(page.read_text()) if words[0] == "pyinfra"]
    assert len(calls) >= 5
    for words in calls:
        inventory, deploy, *more = (word for word in words[1:] if not word.startswith("-"))
        assert re.fullmatch(r"inventory/\w+\.py", inventory)
        assert (deploy, more) == ("deploys/private_network.py", []) or deploy in ("exec", "fact", "debug-inventory")


def test_the_readme_changes_the_yaml_that_is_there(tmp_path: Path) -> None:
    """The tour's edits, one after the other, each as typed: it changes a file, and what was to be wrong is wrong."""
    subprocess.run(["cp", "-r", ROOT / "inventory", tmp_path], check=True)
    (tmp_path / "inventory/lab/privnet.lock.yaml").unlink(missing_ok=True)
    tour = README.partition("\n## Ten minutes")[2].partition("\n## ")[0]
    edits = [line for line in "".join(blocks(tour, "sh")).splitlines() if line.startswith("sed ")]
    assert len(edits) == 4
    said = []
    for edit in edits:
        before = [path.read_bytes() for path in sorted(tmp_path.rglob("*.yaml"))]
        subprocess.run(["sh", "-c", edit], cwd=tmp_path, check=True)
        assert [path.read_bytes() for path in sorted(tmp_path.rglob("*.yaml"))] != before, edit
        check = [sys.executable, "-m", "privnet.cli", "check", "inventory/lab"]
        said.append(subprocess.run(check, cwd=tmp_path, capture_output=True, text=True, check=False))
    # Between the two halves of a migration, the application is declared twice.
    assert [answer.returncode for answer in said] == [0, 2, 0, 2]
    assert "PN303" in said[1].stderr
    (shown,) = (block for block in blocks(tour, "") if block.startswith("error["))
    assert said[3].stderr.strip() == shown.strip()


# --- the declaration by example -------------------------------------------------------------------


def test_the_yaml_of_the_readme_is_a_fleet(tmp_path: Path) -> None:
    written = {}
    for block in blocks(README, "yaml"):
        name = re.match(r"# (inventory/mine/\S+\.yaml)\n", block)
        assert name, block
        path = written[name[1]] = tmp_path / name[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block)
    assert sorted(written) == ["inventory/mine/fleet.yaml", "inventory/mine/projects/shop.yaml"]
    compiled = compile_fleet(tmp_path / "inventory" / "mine")
    assert set(render_fleet(compiled.plan)) == {"par-a-1", "par-a-2", "par-b-1"}


# --- what must not be there, and what must --------------------------------------------------------

# Put together here, so that this file does not name them either.
REGISTRIES = (
    *(".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("crates", "io"))),
    *(".".join(parts) for parts in (("proxy.golang", "org"), ("docker", "io"), ("ghcr", "io"), ("quay", "io"))),
    *(".".join(parts) for parts in (("rubygems", "org"), ("deb.debian", "org"), ("anaconda", "org"))),
)


def named_registries(text: str) -> list[str]:
    return [name for name in REGISTRIES if name in text] + re.findall(r"--(?:extra-)?index-url[ =]\S+", text)


def test_no_registry_is_named() -> None:
    files = tracked()
    assert len(files) > 100
    found = {path: named_registries(path.read_text(errors="replace")) for path in files}
    assert {path: names for path, names in found.items() if names} == {}


def test_a_named_registry_is_seen() -> None:
    assert named_registries(f"see https://{REGISTRIES[0]}/simple") == [REGISTRIES[0]]
    assert named_registries("pip install " + "--index-" + "url=somewhere x") != []


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    wanted += project["build-system"]["requires"]
    names = {re.split(r"[^\w.-]", item)[0].lower().replace("_", "-") for item in wanted}
    pinned = set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert names - pinned == set(), "make lock"


def test_every_pin_has_hashes() -> None:
    lock = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    pins = [line for line in lock.splitlines() if line and not line.startswith("#")]
    assert pins
    assert all(re.fullmatch(r"[a-z0-9.-]+==[\w.+-]+(\s+--hash=sha256:[0-9a-f]{64})+", pin) for pin in pins)


def test_the_readme_can_be_read_in_one_go() -> None:
    assert len(README.splitlines()) < 300


def too_wide(text: str) -> list[str]:
    """Lines of prose that a terminal or a diff has to break; tables, code and lines of one word are as they are."""
    prose = re.sub(r"^( *)```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL).splitlines()
    return [line for line in prose if len(line) > 120 and " " in line.strip() and not line.lstrip().startswith("|")]


@page_by_page
def test_prose_is_under_120_columns(page: Path) -> None:
    assert too_wide(page.read_text()) == []


def test_a_wide_line_is_seen() -> None:
    wide = "word " * 30
    assert too_wide(f"{wide}\n\n| {wide}\n\n```sh\n{wide}\n```\n") == [wide]


def test_decisions_are_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    pages = sorted(page.name for page in folder.glob("0*.md"))
    assert re.findall(r"\]\((0[^)]+)\)", (folder / "README.md").read_text()) == pages
    for page in pages:
        text = (folder / page).read_text()
        assert text.startswith(f"# {page[:4]} ")
        for part in ("Context", "Decision", "Why", "Consequences"):
            assert f"**{part}.**" in text, f"{page}: {part}"


# --- samples of output ----------------------------------------------------------------------------


def samples(page: str) -> list[str]:
    """What a page shows as output: blocks of no language."""
    return re.findall(r"^```\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def deployed_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The fleet of the tour after its fourth run."""
    fleet = tmp_path / "inventory" / "lab"
    shutil.copytree(ROOT / "inventory" / "lab", fleet, ignore=shutil.ignore_patterns("privnet.*", ".*"))
    for _ in range(4):
        save_lock(fleet, compile_fleet(fleet).lock)
    monkeypatch.chdir(tmp_path)
    return fleet


def test_the_plan_of_the_page_is_what_is_printed(deployed_lab: Path) -> None:
    sample = next(text for text in samples("cli.md") if text.startswith("$ privnet plan inventory/lab\n"))
    shop = deployed_lab / "projects" / "shop.yaml"
    shop.write_text(shop.read_text().replace("web: [lab-1, lab-2]", "web: [lab-1, lab-3]"))
    said = CliRunner().invoke(app, ["plan", "inventory/lab"], prog_name="privnet", catch_exceptions=False).stdout
    shown = sample.partition("\n")[2]
    assert said.startswith(shown), said
    assert len(said.removeprefix(shown).splitlines()) == 1, "what the sample leaves out: how far each host is"


def test_the_unfinished_run_of_the_page_is_what_is_printed(deployed_lab: Path) -> None:
    sample = next(text for text in samples("cli.md") if "The last run was not finished on" in text)
    before = load_lock(deployed_lab, "lab")
    lock = save_lock(deployed_lab, before)
    done, behind = Progress(lock.serial, lock_checksum(lock)), Progress(before.serial, lock_checksum(before))
    open_ = replace(behind, open="pending: the run ended before it was done there")
    save_progress(deployed_lab, "lab", {"lab-1": done, "lab-2": open_, "lab-3": behind})
    said = CliRunner().invoke(app, ["plan", "inventory/lab"], prog_name="privnet", catch_exceptions=False).stdout
    assert said.endswith(sample), said
