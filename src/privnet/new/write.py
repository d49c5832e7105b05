"""Write what is new, once the whole fleet compiles with it. Nothing that is there is overwritten."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from privnet.compiler import compile_fleet
from privnet.diagnostics import DeclarationError, close, nearest, quoted
from privnet.load import FLEET_FILE, PROJECTS_DIRECTORY, Document, parse_document, read_document
from privnet.model.identifiers import Invalid, check_fleet_name, check_host_name, check_project_name
from privnet.new import NotWritten, documents
from privnet.new.insert import Entry, insert
from privnet.store import lock_path, replace_file


def new_fleet(directory: Path, hosts: Mapping[str, str]) -> list[Path]:
    """A fleet's directory, with what git reads, and pyinfra's inventory beside it. Raises NotWritten, OSError."""
    name = directory.resolve().name
    _right(check_fleet_name, name)
    inventory = directory.with_name(f"{name}.py")
    for path in (directory, inventory):
        if os.path.lexists(path) and not (path.is_dir() and not any(path.iterdir())):
            raise NotWritten(f"{path} is there already, and nothing is overwritten; give a new directory")
    text = documents.fleet(name, directory, dict(hosts))
    _must_compile({FLEET_FILE: text}, None)
    (directory / PROJECTS_DIRECTORY).mkdir(parents=True, exist_ok=True)
    written = {
        directory / FLEET_FILE: text,
        inventory: documents.INVENTORY,
        directory / ".gitignore": documents.IGNORE,
        directory / ".gitattributes": documents.ATTRIBUTES,
    }
    for path, content in written.items():
        _create(path, content)
    return [*written]


def new_project(directory: Path, name: str, terms: documents.Terms | None) -> Path:
    """A project's file. Raises NotWritten, OSError; DeclarationError when the fleet is wrong before."""
    _right(check_project_name, name)
    compile_fleet(directory)
    path = directory / PROJECTS_DIRECTORY / f"{name}.yaml"
    if os.path.lexists(path):
        raise NotWritten(f"{path} is there already, and nothing is overwritten; `privnet new application` adds to it")
    text = documents.project(name, path.parent, terms)
    _must_compile({f"{PROJECTS_DIRECTORY}/{name}.yaml": text}, directory)
    path.parent.mkdir(exist_ok=True)
    _create(path, text)
    return path


def new_application(directory: Path, project: str, name: str, hosts: list[str]) -> tuple[Path, str]:
    """An application at the end of a project's file: the file, and the new id. Raises as `new_project`."""
    compiled = compile_fleet(directory)
    projects = [known.project for known in compiled.declaration.projects]
    if project not in projects:
        more = nearest(project, projects) or f"`privnet new project {directory} NAME` makes one"
        raise NotWritten(f"the fleet has no project {quoted(project)}; {more}")
    for host in hosts:
        known = compiled.declaration.fleet.hosts
        if host not in known:
            meant = "".join(f"; did you mean `{found}`?" for found in close(host, known))
            raise NotWritten(f"the fleet has no host {quoted(host)}{meant}")
    entry = documents.application(name, hosts)
    path = directory / PROJECTS_DIRECTORY / f"{project}.yaml"
    _add(directory, path, "applications", entry)
    return path, entry.key


def new_host(directory: Path, name: str, address: str, zone: str) -> Path:
    """A host at the end of the fleet's hosts. Raises as `new_project`."""
    _right(check_host_name, name)
    compiled = compile_fleet(directory)
    if name in compiled.declaration.fleet.hosts:
        raise NotWritten(f"the fleet has a host {quoted(name)} already, and nothing is overwritten; give a new name")
    path = directory / FLEET_FILE
    _add(directory, path, "hosts", documents.host(name, address, zone))
    return path


def _right(check: Callable[[str], str], name: str) -> None:
    try:
        check(name)
    except Invalid as error:
        raise NotWritten("; ".join(filter(None, (error.message, error.note, error.help)))) from None


def _add(directory: Path, path: Path, field: str, entry: Entry) -> None:
    before = path.read_bytes()
    mark = b"\xef\xbb\xbf" if before.startswith(b"\xef\xbb\xbf") else b""
    text = before.removeprefix(mark).decode()
    after = insert(text, read_document(path), field, entry)
    if not _is_yaml(after):
        by_hand = f"`{entry.key}: {entry.flow}`"
        raise NotWritten(f"{path} is written in a way that leaves no place to add to: put {by_hand} into `{field}`")
    _must_compile({str(path.relative_to(directory)): after}, directory)
    if path.read_bytes() != before:
        raise NotWritten(f"{path} was changed by somebody else in the meantime; run the same command again")
    replace_file(path, mark + after.encode())


def _is_yaml(text: str) -> bool:
    document = Document("")
    parse_document(text.encode(), document)
    return all(problem.code != "PN105" for problem in document.problems)


def _must_compile(changed: Mapping[str, str], directory: Path | None) -> None:
    """Compile a copy of the fleet with the changed files: what does not hold is not written."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "fleet"
        (copy / PROJECTS_DIRECTORY).mkdir(parents=True)
        if directory is not None:
            for path in (directory / FLEET_FILE, lock_path(directory), *directory.glob(f"{PROJECTS_DIRECTORY}/*.yaml")):
                if path.exists():
                    shutil.copyfile(path, copy / path.relative_to(directory))
        for name, text in changed.items():
            (copy / name).write_bytes(text.encode())
        try:
            compile_fleet(copy)
        except DeclarationError as error:
            problem = error.problems[0]
            why = "; ".join(filter(None, (f"{problem.code}: {problem.message}", problem.help)))
            raise NotWritten(f"the fleet would not hold with it: {why}") from None


def _create(path: Path, text: str) -> None:
    """Write a file that must not be there. Raises FileExistsError."""
    with path.open("xb") as file:
        file.write(text.encode())
