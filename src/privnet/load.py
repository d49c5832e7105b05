"""The only reader of YAML: bytes → nodes with positions → the declaration.

Text is judged first (limits, encoding, characters), then libyaml's events are turned into nodes of our own, then
pydantic validates the nodes as they are, all projects in one call. What YAML would resolve by itself (numbers,
booleans, dates, aliases, tags) never happens: a scalar stays the text that stands in the file.

Every problem of a file's text and every problem of its shape is reported, for all files together.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError
from yaml._yaml import CParser
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from privnet import fields, indentation, shape
from privnet.diagnostics import COUNTED_AT_MOST, DeclarationError, Place, Problem, Related, quoted
from privnet.model import nodes
from privnet.model.fleet import Fleet
from privnet.model.nodes import Node, Scalar
from privnet.model.project import Project

BYTES_AT_MOST = 2**20
NODES_AT_MOST = 200_000
DEPTH_AT_MOST = 20
PROBLEMS_PER_FILE = COUNTED_AT_MOST
LARGE = 2**18
"""Characters of a file whose beginning is tried first."""
ENTRIES_TRIED = 500

FLEET_FILE = "fleet.yaml"
LOCK_FILE = "privnet.lock.yaml"
LOCK_OF_RUNS = ".privnet"
"""A directory in a fleet's, with the lock that keeps runs of this machine apart; git leaves it alone."""
PROJECTS_DIRECTORY = "projects"

T = TypeVar("T")

# C0 and C1 controls, line breaks other than LF and CRLF, byte order marks inside, and characters that reorder or
# hide text.
_FORBIDDEN = re.compile(
    "[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060\u2066-\u2069"
    "\ufeff\ufffe\uffff\ud800-\udfff]|\r(?!\n)"
)
_CONFLICT = re.compile("^(?:<{7}|={7}|>{7}|[|]{7})(?: .*)?\r?$", re.MULTILINE)
_PRIVATE_KEY = re.compile("BEGIN [A-Z ]*PRIVATE KEY")
_NO_VALUE = frozenset(("", "~", "null", "Null", "NULL"))


@dataclass(frozen=True, slots=True)
class Declaration:
    """Everything one fleet directory declares, and where each part of it stands."""

    directory: Path
    fleet: Fleet
    projects: tuple[Project, ...]
    sources: Mapping[str, str]
    fleet_node: nodes.Mapping = field(repr=False)
    project_nodes: Mapping[str, tuple[str, nodes.Mapping]] = field(repr=False)

    def place(self, *keys: str | int) -> Place:
        """Where a part of ``fleet.yaml`` stands: the value; for a mapping or list, the key that names it.

        A part that was left out is found at the nearest part around it.
        """
        return place_of(shown_path(self.directory / FLEET_FILE), self.fleet_node, keys)

    def declares(self, *keys: str | int) -> bool:
        """Whether a part of ``fleet.yaml`` stands in the file, or has its default."""
        return fields.find(self.fleet_node, keys) is not None

    def keeps_vni(self, vni: int) -> bool:
        """Whether a network that has ``vni`` keeps it: only a range that is declared takes a number away."""
        return vni in self.fleet.vxlan.vni or not self.declares("vxlan", "vni")

    def project_place(self, project: str, *keys: str | int) -> Place:
        """The same for a part of the project called ``project``. Raises KeyError for an unknown project."""
        path, node = self.project_nodes[project]
        return place_of(path, node, keys)


@dataclass(slots=True)
class Document:
    """One file as read: its text for snippets, its nodes unless the text is refused, and what is wrong with it."""

    path: str
    text: str = ""
    node: nodes.Mapping | None = None
    problems: list[Problem] = field(default_factory=list)


@contextlib.contextmanager
def collector_off() -> Iterator[None]:
    """Without the garbage collector: it walks every new node again and again and finds nothing to free."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_declaration(directory: Path) -> Declaration:
    """Reads a fleet directory. Raises DeclarationError with all problems of text and shape in all files."""
    with collector_off():
        return _read_declaration(directory)


def _read_declaration(directory: Path) -> Declaration:
    problems: list[Problem] = []
    fleet_document = open_document(directory / FLEET_FILE)
    project_documents = [open_document(path) for path in _project_files(directory, problems)]
    documents = [fleet_document, *project_documents]
    for document in documents:
        problems.extend(document.problems)
    fleets = validate(Fleet, [fleet_document], problems)
    projects = validate(Project, project_documents, problems)
    sources = {document.path: document.text for document in documents}
    if problems or fleet_document.node is None:
        raise DeclarationError(problems, sources)
    problems.extend(_misnamed(projects, project_documents))
    if problems:
        raise DeclarationError(problems, sources)
    found = {
        project.project: (document.path, document.node)
        for project, document in zip(projects, project_documents, strict=True)
        if document.node is not None
    }
    projects.sort(key=lambda project: project.project)
    return Declaration(directory, fleets[0], tuple(projects), sources, fleet_document.node, found)


def _project_files(directory: Path, problems: list[Problem]) -> list[Path]:
    folder = directory / PROJECTS_DIRECTORY
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(_unusable(shown_path(folder), f"cannot be read: {error.strerror}"))
        return []
    names = [entry.name for entry in entries if not _left_by_an_editor(entry.name)]
    for name in names:
        if not name.endswith(".yaml"):
            problems.append(_not_a_project(shown_path(folder / name), name))
    return [folder / name for name in names if name.endswith(".yaml")]


def _left_by_an_editor(name: str) -> bool:
    return name.startswith((".", "#")) or name.endswith(("~", ".swp", ".bak", ".orig"))


def _not_a_project(path: str, name: str) -> Problem:
    if name.endswith((".yml", ".YAML", ".YML")):
        help = f"rename it to {name.rsplit('.', 1)[0]}.yaml"
    else:
        help = "move it out of projects/; a project's file is projects/<project>.yaml, without folders"
    return Problem(
        "PN101",
        f"{path} is not a project's file",
        note="nothing in projects/ is silently left out",
        help=help,
    )


def _misnamed(projects: list[Project], documents: list[Document]) -> Iterator[Problem]:
    for project, document in zip(projects, documents, strict=True):
        stem = Path(document.path).stem
        if stem != project.project and document.node is not None:
            yield Problem(
                "PN306",
                f"project {quoted(project.project)} is declared in a file called {quoted(stem + '.yaml')}",
                place_of(document.path, document.node, ("project",)),
                note="the file's name is the project's, so that there is one place to look and no project twice",
                help=f"rename the file to {project.project}.yaml, or write `project: {stem}`",
            )


def validate(model: type[T], documents: list[Document], problems: list[Problem]) -> list[T]:
    """The documents as instances of ``model``, in one call; what is wrong is added to ``problems``.

    Documents whose text was refused are left out. When anything is wrong the answer is empty.
    """
    good = [(document, document.node) for document in documents if document.node is not None]
    adapter: TypeAdapter[list[T]] = _adapter(model)  # type: ignore[arg-type]
    names = frozenset(fields.field_names(model))
    hopeless = {}
    for document, node in good:
        if len(document.text) > LARGE:
            first = _mistakes(adapter, [_beginning(node, names)]).get(0, [])
            if len(first) >= PROBLEMS_PER_FILE:
                hopeless[document.path] = first
    rest = [(document, node) for document, node in good if document.path not in hopeless]
    try:
        valid = adapter.validate_python([node for _, node in rest])
        mistakes: dict[int, list[Any]] = {}
    except ValidationError as error:
        valid, mistakes = [], _by_document(error)
    found = hopeless | {rest[number][0].path: details for number, details in mistakes.items()}
    for document, node in good:
        if document.path in found:
            details = found[document.path][:PROBLEMS_PER_FILE]
            problems.extend(shape.explain_all(model, document.path, node, details))
    return [] if found else valid


@cache
def _adapter(model: type[Any]) -> TypeAdapter[Any]:
    """To make one takes as long as to read a small fleet."""
    return TypeAdapter(list[model])  # type: ignore[valid-type]


def _mistakes(adapter: TypeAdapter[Any], some: list[nodes.Mapping]) -> dict[int, list[Any]]:
    try:
        adapter.validate_python(some)
    except ValidationError as error:
        return _by_document(error)
    return {}


def _by_document(error: ValidationError) -> dict[int, list[Any]]:
    """What pydantic found, by the document's number, with locations that begin in the document."""
    by_document: dict[int, list[Any]] = {}
    for details in error.errors(include_url=False, include_input=False):
        number, *loc = details["loc"]
        by_document.setdefault(int(number), []).append({**details, "loc": tuple(loc)})
    return by_document


def _beginning(node: Any, fields: frozenset[str]) -> Any:
    """A node with the first of its many entries, and with every field: what is wrong with it is wrong with the node.

    pydantic collects every mistake before it tells of one, and a hundred thousand of them take seconds and hundreds of
    megabytes. Of a file that is wrong from its beginning, the beginning is enough.
    """
    if isinstance(node, nodes.Mapping):
        kept = nodes.Mapping()
        for number, (key, value) in enumerate(node.items()):
            if number < ENTRIES_TRIED or key in fields:
                kept[key] = _beginning(value, fields)
        return kept
    if isinstance(node, nodes.Sequence):
        return nodes.Sequence(_beginning(value, fields) for value in node[:ENTRIES_TRIED])
    return node


# --- places ---------------------------------------------------------------------------------------


def shown_path(path: Path) -> str:
    """``path`` as the user would type it: from the working directory when it is below it."""
    full = os.path.abspath(path)  # noqa: PTH100 - resolve() would follow symlinks
    here = os.getcwd().rstrip("/") + "/"  # noqa: PTH109
    return full[len(here) :] if full.startswith(here) else full


def place_of(path: str, node: Node, keys: tuple[str | int, ...]) -> Place:
    """Where the part ``keys`` of ``node`` stands; see :meth:`Declaration.place`."""
    return shape.place_of(path, node, keys)


# --- one file -------------------------------------------------------------------------------------


def read_document(
    path: Path, *, bytes_at_most: int = BYTES_AT_MOST, nodes_at_most: int = NODES_AT_MOST
) -> nodes.Mapping:
    """The nodes of one YAML file. Raises DeclarationError with everything that is wrong with its text."""
    document = open_document(path, bytes_at_most=bytes_at_most, nodes_at_most=nodes_at_most)
    if document.node is None:
        raise DeclarationError(document.problems, {document.path: document.text})
    return document.node


def open_document(path: Path, *, bytes_at_most: int = BYTES_AT_MOST, nodes_at_most: int = NODES_AT_MOST) -> Document:
    """One YAML file, with its problems instead of an exception."""
    document, data = read_bytes(path, bytes_at_most)
    if data is not None:
        parse_document(data, document, nodes_at_most)
    return document


def read_bytes(path: Path, bytes_at_most: int = BYTES_AT_MOST) -> tuple[Document, bytes | None]:
    """The bytes of one file, not judged yet; or None, and why in the document's problems."""
    document = Document(shown_path(path))
    return document, _read(path, document, bytes_at_most)


def parse_document(data: bytes, document: Document, nodes_at_most: int = NODES_AT_MOST) -> None:
    """Fills ``document`` from the bytes of a file: text, and nodes or problems."""
    if _decode(data, document) and _acceptable(document):
        _compose(document, nodes_at_most)
    del document.problems[PROBLEMS_PER_FILE:]
    if document.problems:
        document.node = None


def _unusable(path: str, why: str, help: str = "") -> Problem:
    return Problem("PN101", f"{path} {why}", help=help)


def _read(path: Path, document: Document, bytes_at_most: int) -> bytes | None:
    # O_NONBLOCK: opening a FIFO would otherwise wait for a writer for ever.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        document.problems.append(_cannot_open(path, document.path, error))
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not an ordinary file"
            help = "a declaration is made of ordinary files"
            document.problems.append(_unusable(document.path, f"is {kind}", help))
            return None
        data = _read_all(descriptor, bytes_at_most + 1)
    except OSError as error:
        document.problems.append(_unusable(document.path, f"cannot be read: {error.strerror}"))
        return None
    finally:
        os.close(descriptor)
    if len(data) > bytes_at_most:
        size = max(status.st_size, len(data))
        message = f"{document.path} has {size:,} bytes; at most {bytes_at_most:,} are read"
        start = Place(document.path, 1, 1, 1, 1)
        document.problems.append(Problem("PN102", message, start, help="divide it into several projects"))
        return None
    return data


def _read_all(descriptor: int, bytes_at_most: int) -> bytes:
    parts: list[bytes] = []
    while bytes_at_most > 0 and (part := os.read(descriptor, bytes_at_most)):
        parts.append(part)
        bytes_at_most -= len(part)
    return b"".join(parts)


def _cannot_open(path: Path, shown: str, error: OSError) -> Problem:
    if path.is_symlink():
        return _unusable(shown, "is a symbolic link", "put the file itself there: links are not followed")
    if isinstance(error, FileNotFoundError):
        if not path.parent.is_dir():
            return _unusable(shown, "does not exist: there is no such directory", "give the directory of a fleet")
        return _unusable(
            shown, "does not exist", f"a fleet's directory holds {FLEET_FILE} and {PROJECTS_DIRECTORY}/*.yaml"
        )
    return _unusable(shown, f"cannot be read: {error.strerror}")


def _decode(data: bytes, document: Document) -> bool:
    body = data.removeprefix(b"\xef\xbb\xbf")
    document.text = body.decode("utf-8", "surrogateescape")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        document.text = ""
        help, start = "save it as UTF-8", Place(document.path, 1, 1, 1, 1)
        document.problems.append(Problem("PN103", f"{document.path} is UTF-16 text, not UTF-8", start, help=help))
        return False
    try:
        body.decode("utf-8")
        return True
    except UnicodeDecodeError as error:
        offset = len(body[: error.start].decode("utf-8"))
        place = _place_at(document, offset, offset + 1)
        message = f"byte 0x{body[error.start]:02x} is not UTF-8 text"
        document.problems.append(Problem("PN103", message, place, help="save the file as UTF-8"))
        return False


def _acceptable(document: Document) -> bool:
    for number, found in enumerate(_FORBIDDEN.finditer(document.text)):
        if number == PROBLEMS_PER_FILE:
            break
        document.problems.append(_forbidden(found.group(), _place_at(document, found.start(), found.end())))
    for found in _CONFLICT.finditer(document.text):
        line = document.text.count("\n", 0, found.start()) + 1
        place = _place_at(document, found.start(), found.end())
        message = f"unresolved merge conflict at line {line}"
        document.problems.append(Problem("PN109", message, place, help="resolve it: keep one side, delete the markers"))
        break
    return not document.problems


def _forbidden(character: str, place: Place) -> Problem:
    if character == "\t":
        return Problem("PN104", "a tab stands in the file", place, help="use spaces")
    code = ord(character)
    name = f"\\x{code:02x}" if code < 0x100 else f"U+{code:04X}"
    note = "such characters hide, reorder or end text where it does not show"
    return Problem("PN104", f"character {name} is not allowed", place, note=note, help="delete it")


def _place_at(document: Document, start: int, end: int) -> Place:
    line = document.text.count("\n", 0, start) + 1
    column = start - document.text.rfind("\n", 0, start)
    return Place(document.path, line, column, line, column + (end - start))


# --- events to nodes ------------------------------------------------------------------------------


def _compose(document: Document, nodes_at_most: int) -> None:
    composer = _Composer(document, nodes_at_most)
    try:
        # Events only: neither libyaml's nor PyYAML's idea of types is asked for.
        composer.run(iter(CParser(document.text).get_event, None))
    except yaml.MarkedYAMLError as error:
        # What had no value before the text broke off is no second mistake.
        document.problems = [problem for problem in document.problems if problem.code != "PN204"]
        document.problems.append(_syntax(document, error))
        return
    except yaml.YAMLError as error:
        start = Place(document.path, 1, 1, 1, 1)
        help = "save the file as plain text in UTF-8"
        document.problems.append(
            Problem("PN105", f"{document.path} is not YAML: {error}".splitlines()[0], start, help=help)
        )
        return
    if composer.complex_keys:
        # `{{ name }}` is one mistake: what lies inside such a key is not looked at.
        document.problems = [problem for problem in document.problems if problem.code != "PN204"]
        document.problems.extend(composer.complex_keys)
    root = composer.root
    if isinstance(root, nodes.Mapping):
        document.problems = [composer.of_indentation(problem, root) for problem in document.problems]
    if root is None:
        if not document.problems:
            document.problems.append(_declares_nothing(document))
    elif isinstance(root, nodes.Mapping):
        document.node = root
    elif isinstance(root, Scalar) and not root.quoted and root in _NO_VALUE:
        document.problems.append(_declares_nothing(document))
    else:
        kind = "list" if isinstance(root, nodes.Sequence) else "single value"
        place = Place(document.path, root.line, root.column, root.end_line, root.end_column)
        message = f"the file holds a {kind}; a mapping is wanted"
        help = "begin with `fleet: NAME` or `project: NAME`"
        document.problems.append(Problem("PN201", message, place, help=help))


def _declares_nothing(document: Document) -> Problem:
    example = "fleet: NAME" if document.path.endswith(FLEET_FILE) else f"project: {Path(document.path).stem}"
    return Problem(
        "PN110",
        f"{document.path} declares nothing",
        Place(document.path, 1, 1, 1, 1),
        help=f"begin with `{example}`, or delete the file",
    )


class _Composer:
    """Turns the events of one document into nodes, and notes what a declaration does not use."""

    def __init__(self, document: Document, nodes_at_most: int) -> None:
        self.path = document.path
        self.problems = document.problems
        self.nodes_at_most = nodes_at_most
        self.root: Node | None = None
        self.stack: list[tuple[nodes.Mapping | nodes.Sequence, Scalar | None]] = []
        self.parent: nodes.Mapping | nodes.Sequence | None = None
        self.key: Scalar | None = None
        self.trail: list[Scalar | None] = []
        self.valueless: dict[Place, tuple[Scalar, ...]] = {}
        self.documents = 0
        self.count = 0
        self.complex_keys: list[Problem] = []

    def run(self, events: Iterator[Any]) -> None:
        for event in events:
            kind = type(event)
            if kind is ScalarEvent:
                self._scalar(event)
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                self._leave(event)
            elif kind is MappingStartEvent:
                self._enter(event, nodes.Mapping())
            elif kind is SequenceStartEvent:
                self._enter(event, nodes.Sequence())
            elif kind is AliasEvent:
                help = "write the value again where it is used"
                self._refuse("PN106", f"alias `*{event.anchor}`: aliases are not allowed", event, help)
                self._add(_at(Scalar("-"), event))
            elif kind is DocumentStartEvent:
                self.documents += 1
                if self.documents > 1:
                    self._refuse("PN108", "a second document begins here", event, "one file holds one document")
                    return
            if len(self.problems) >= PROBLEMS_PER_FILE or self.count < 0:
                return

    def _scalar(self, event: Any) -> None:
        text = event.value
        scalar = Scalar(text)
        start, end = event.start_mark, event.end_mark
        scalar.line = start.line + 1
        scalar.column = start.column + 1
        scalar.end_line = end.line + 1
        scalar.end_column = end.column + 1
        scalar.quoted = event.style != ""
        if event.anchor is not None or event.tag is not None:
            self._decorated(event)
        if start.line != end.line or (scalar.quoted and not text.isprintable()):
            self._one_line(event, text)
        self._add(scalar)

    def _one_line(self, event: Any, text: str) -> None:
        found = _FORBIDDEN.search(text)
        if _PRIVATE_KEY.search(text):
            place = _event_place(self.path, event)
            self.problems.append(shape.secret("a private key stands in the declaration", place))
        elif "\n" not in text and found:
            self.problems.append(_forbidden(found.group(), _event_place(self.path, event)))
        elif "\n" in text or event.start_mark.line != event.end_mark.line:
            place = _event_place(self.path, event)
            help = "write it on one line; is a `:` or a quote missing before?"
            self.problems.append(Problem("PN112", f"value {quoted(text)} goes over several lines", place, help=help))

    def _decorated(self, event: Any) -> None:
        if event.anchor is not None:
            help = "delete it: values are written where they are used"
            self._refuse("PN106", f"anchor `&{event.anchor}`: anchors are not allowed", event, help)
        if event.tag is not None:
            help = "delete it: a value's type is that of its field"
            self._refuse("PN106", f"tag {quoted(event.tag)}: tags are not allowed", event, help)

    def _enter(self, event: Any, node: nodes.Mapping | nodes.Sequence) -> None:
        if event.anchor is not None or event.tag is not None:
            self._decorated(event)
        self.trail.append(self.key)
        self._add(_at(node, event), container=True)
        self.stack.append((self.parent, self.key))  # type: ignore[arg-type]
        self.parent, self.key = node, None
        if len(self.stack) > DEPTH_AT_MOST:
            message = f"values lie deeper than {DEPTH_AT_MOST} levels"
            self._refuse("PN102", message, event, "no part of a declaration is nested so deeply")
            self.count = -1

    def _leave(self, event: Any) -> None:
        node = self.parent
        if node is not None:
            node.end_line = event.end_mark.line + 1
            node.end_column = event.end_mark.column + 1
        self.parent, self.key = self.stack.pop()
        self.trail.pop()

    def _add(self, node: Node, container: bool = False) -> None:
        self.count += 1
        if self.count > self.nodes_at_most:
            message = f"{self.path} has more than {self.nodes_at_most:,} values"
            self.problems.append(Problem("PN102", message, self._place(node), help="divide it into several projects"))
            self.count = -1
            return
        parent = self.parent
        if parent is None:
            self.root = node
        elif isinstance(parent, nodes.Sequence):
            if not container and not node.quoted and node in _NO_VALUE:  # type: ignore[union-attr]
                self._no_value(node, "an item of this list has no value")
            parent.append(node)
        elif self.key is None:
            self._new_key(parent, node)
        else:
            key, self.key = self.key, None
            if not container and not node.quoted and node in _NO_VALUE:  # type: ignore[union-attr]
                self._no_value(key, f"`{key[:60]}` has no value")
            if key not in parent:
                parent[key] = node

    def _no_value(self, node: Node, message: str) -> None:
        keys = tuple(key for key in self.trail[1:] if key is not None)
        none = fields.nothing_in((*keys, str(node))) if isinstance(self.parent, nodes.Mapping) else ""
        if isinstance(node, Scalar) and isinstance(self.parent, nodes.Mapping):
            self.valueless[self._place(node)] = (*keys, node)
        empty = f", `{node}: {none}` for nothing" if none else ""
        help = f"write a value{empty}, or delete the line"
        self.problems.append(Problem("PN204", message, self._place(node), help=help))

    def of_indentation(self, problem: Problem, root: nodes.Mapping) -> Problem:
        """A field without a value may be one whose lines are indented too little."""
        keys = self.valueless.get(problem.place) if problem.code == "PN204" and problem.place else None
        model = next((model for model in (Fleet, Project) if keys and keys[0] in model.model_fields), None)
        found = indentation.below(model, self.path, root, keys) if keys and model else None
        return found[1] if found else problem

    def _new_key(self, parent: nodes.Mapping, node: Node) -> None:
        if not isinstance(node, Scalar):
            self._not_a_name(node)
            return
        self.key = node
        if node == "<<" and not node.quoted:
            help = "write the fields of both where they are used"
            self.problems.append(Problem("PN106", "merge keys (`<<`) are not allowed", self._place(node), help=help))
        elif node in parent:
            first = parent.key(node)
            self.problems.append(
                Problem(
                    "PN107",
                    f"`{node[:60]}` is given twice",
                    self._place(node),
                    note="the one that counts would be a matter of chance",
                    help="delete one of them, or give it another name",
                    related=(Related(self._place(first), "it was first given here"),),
                )
            )

    def _not_a_name(self, node: nodes.Mapping | nodes.Sequence) -> None:
        kind = "list" if isinstance(node, nodes.Sequence) else "mapping"
        help = "is this a template that was not filled in? A text with `{` or `[` stands in quotes"
        message = f"a {kind} is used as a key; keys are names"
        self.complex_keys.append(Problem("PN111", message, self._place(node), help=help))
        # A stand-in that no name can be, so that the value has a key and names nothing.
        self.key = _like(Scalar(f"\0{self.count}"), node)

    def _refuse(self, code: str, message: str, event: Any, help: str) -> None:
        self.problems.append(Problem(code, message, _event_place(self.path, event), help=help))

    def _place(self, node: Node) -> Place:
        return Place(self.path, node.line, node.column, node.end_line, node.end_column)


def _at(node: Any, event: Any) -> Any:
    start, end = event.start_mark, event.end_mark
    node.line = start.line + 1
    node.column = start.column + 1
    node.end_line = end.line + 1
    node.end_column = end.column + 1
    if type(node) is Scalar:
        node.quoted = True
    return node


def _like(scalar: Scalar, node: Node) -> Scalar:
    scalar.line, scalar.column = node.line, node.column
    scalar.end_line, scalar.end_column = node.end_line, node.end_column
    scalar.quoted = True
    return scalar


def _event_place(path: str, event: Any) -> Place:
    start, end = event.start_mark, event.end_mark
    return Place(path, start.line + 1, start.column + 1, end.line + 1, end.column + 1)


# --- what libyaml says ----------------------------------------------------------------------------

_MEANT = (
    ("mapping values are not allowed", "a value with `: ` in it stands in quotes"),
    ("cannot start any token", "a value that begins with this character stands in quotes"),
    ("could not find expected ':'", "a key is followed by `: ` and its value"),
    ("escape c", "write the character itself instead of an escape"),
    ("unexpected end of stream", "close the quote: what follows it became a part of the text"),
    ("expected ',' or ']'", "close the `[` with `]`, and write `,` between its items"),
    ("expected ',' or '}'", "close the `{` with `}`, and write `,` between its fields"),
    ("did not find expected <document start>", "the lines at this depth are not `key: value`"),
    ("expected <block end>", "give the keys of one mapping the same indentation"),
    ("did not find expected '-' indicator", "write `- ` before all of them, or before none: only a list has it"),
    ("did not find expected key", "give the keys of one mapping the same indentation"),
    ("did not find expected alphabetic", "a value that begins with `*` or `&` stands in quotes"),
    ("found undefined tag handle", "tags are not allowed; a value that begins with `!` stands in quotes"),
)


def _syntax(document: Document, error: yaml.MarkedYAMLError) -> Problem:
    said = str(error.problem or "not YAML")
    help = next((meant for words, meant in _MEANT if words in said), "quote the value, or correct the indentation")
    mark = error.problem_mark or error.context_mark
    place = _mark_place(document, mark) if mark else None
    related: tuple[Related, ...] = ()
    message = f"not YAML: {_IN_OUR_WORDS.get(said, said)}"
    if error.context_mark and mark and error.context_mark.index != mark.index:
        opened = _mark_place(document, error.context_mark)
        context = (error.context or "it").removeprefix("while ").removeprefix("scanning ").removeprefix("parsing ")
        what = _PARTS.get(context, context)
        if place and any(words in said for words in _NOTICED_LATE):
            # The mistake is where it began; the reader only noticed it later.
            place, opened, what = opened, place, "it was noticed here"
            help = _space_missing(document, place.line) or help
        else:
            what = f"{what} begins here"
        related = (Related(opened, what),)
    return Problem("PN105", message, place, help=help, related=related)


_IN_OUR_WORDS = {
    "found unexpected end of stream": "a quote is opened here and never closed",
    "could not find expected ':'": "this line is not `key: value`",
    "did not find expected key": "this line is indented unlike the others of its mapping",
    "did not find expected '-' indicator": "this line is indented like an item of the list, without its `- `",
    "mapping values are not allowed in this context": "a second `: ` in one line, or a line that is indented too deep",
}
_PARTS = {
    "a quoted scalar": "the quoted text",
    "a simple key": "the line",
    "a plain scalar": "the value",
    "a block mapping": "the mapping",
    "a flow mapping": "the `{`",
    "a block collection": "the list",
    "a flow sequence": "the `[`",
}
_NOTICED_LATE = ("unexpected end of stream", "could not find expected ':'")


def _space_missing(document: Document, line: int) -> str:
    text = document.text.split("\n")[line - 1].strip()
    found = re.match(r"([\w-]+):([^\s:].{0,40})", text)
    if found:
        return f"write a space behind the `:`: `{found[1]}: {found[2]}`"
    return f"write a `:` behind it: `{text}:`" if re.fullmatch(r"[\w-]{1,60}", text) else ""


def _mark_place(document: Document, mark: Any) -> Place:
    text = document.text
    line, column = mark.line + 1, mark.column + 1
    if line > text.count("\n") + (not text.endswith("\n")):
        # libyaml points behind the last line; what it misses is missed at the end of the last line with text.
        text = text.rstrip()
        line, column = text.count("\n") + 1, len(text) - text.rfind("\n")
    return Place(document.path, line, column, line, column + 1)
