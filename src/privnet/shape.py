"""Says in our own words what pydantic found wrong with the shape of a document, and where.

pydantic's own texts speak of inputs and types; a person who edits YAML is told the place in the file, the value as
written, the nearest field name, and where a misplaced field belongs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from privnet import indentation
from privnet.diagnostics import Place, Problem, close, hidden, nearest, quoted, sentences
from privnet.fields import fields_at, find, homes
from privnet.model import nodes
from privnet.model.application import Spread
from privnet.model.identifiers import Invalid, kind_of
from privnet.model.nodes import Node, Scalar

_STRANGERS = {
    "version": "a declaration has no version",
    "apiVersion": "a declaration has no version",
    "kind": "a file's name says what it declares",
    "mesh": "privnet gives each host its mesh address and writes it to the lock file",
    "ip": "privnet gives each container its address and writes it to the lock file",
    "public_key": "each host makes its own key; the lock file remembers it",
    "strict_host_key_checking": "the key of a known host is always checked",
    "private_network": "an application is in the private network of its project",
    "protected": "every application of a project with a private network is protected (M5)",
    "key": "SSH keys are those of your SSH agent and of ~/.ssh/config",
    "key_file": "SSH keys are those of your SSH agent and of ~/.ssh/config",
    "identity_file": "SSH keys are those of your SSH agent and of ~/.ssh/config",
    "ssh_key": "SSH keys are those of your SSH agent and of ~/.ssh/config",
    "hosts": "a formation either lists its hosts, `web: [HOST, HOST]`, or has a count",
}
"""Fields that other tools have, or that are written where they have no meaning, and why there is none."""
_SECRET = re.compile("private_?key|secret|pre_?shared|psk|pass(word|phrase)|token")
WIREGUARD_KEY_LENGTH = 44
_TYPOGRAPHIC = re.compile("[\u2018\u2019\u201a\u201c\u201d\u201e]")
_COUNTS = frozenset(("amount", "instances", "number", "quantity", "replicas", "scale"))
"""What other tools call a count."""
_EVIDENCE = {
    "accepted_by": "NAME",
    "accepted_on": "YYYY-MM-DD",
    "version": "VERSION",
    "terms": "{accepted_by: NAME, accepted_on: YYYY-MM-DD, version: VERSION}",
    "by": "NAME",
    "on": "YYYY-MM-DD",
}
"""Fields that are evidence: no example of them could be pasted as it is."""
Keys = tuple[str | int, ...]
_BRANCHES = frozenset(("hosts", "spread"))


def explain_all(model: Any, path: str, node: Node, found: Iterable[Mapping[str, Any]]) -> Iterator[Problem]:
    """What pydantic found in one document, each thing once: a misspelt field is not also a missing one."""
    every = list(found)
    shifted = _shifted(model, path, node, every)
    yield from shifted.problems.values()
    every = [error for error in every if not shifted.explains(_walkable(error["loc"])[0], error["type"])]
    unknown = {tuple(error["loc"]) for error in every if error["type"] == "extra_forbidden"}
    misspelt: set[tuple[str | int, ...]] = set()
    for loc in unknown:
        keys, _ = _walkable(loc)
        owner = fields_at(model, node, keys[:-1])
        misspelt.update((*keys[:-1], name) for name in close(str(keys[-1]), owner.model_fields if owner else ()))
    placements = {_walkable(loc)[0][:-1] for loc in unknown if len(_walkable(loc)[0]) == 5}
    mistaken: set[tuple[str | int, ...]] = set()
    for error in every:
        keys = _walkable(error["loc"])[0]
        if error["type"] == "missing" and keys not in misspelt and keys[:-1] in placements:
            mistaken.add(keys[:-1])
            yield _not_a_spread(path, node, keys[:-1])
        elif error["type"] == "extra_forbidden" and keys[:-1] in mistaken:
            continue
        elif error["type"] != "missing" or keys not in misspelt:
            yield explain(model, path, node, error["loc"], error)


@dataclass(slots=True)
class _Shifted:
    """Entries at another depth than what they belong to, and the fields that are missed there."""

    problems: dict[Keys, Problem]
    missed: set[Keys]

    def explains(self, keys: Keys, kind: str) -> bool:
        if kind == "missing" and keys in self.missed:
            return True
        return any(keys[:length] in self.problems for length in range(1, len(keys) + 1))


def _shifted(model: Any, path: str, node: Node, every: Iterable[Mapping[str, Any]]) -> _Shifted:
    found = _Shifted({}, set())
    if not isinstance(node, nodes.Mapping):
        return found
    for keys in dict.fromkeys(_walkable(error["loc"])[0] for error in every if error["type"] != "missing"):
        for length in range(1, len(keys) + 1):
            entry = keys[:length]
            if entry in found.problems:
                break
            if not _is_strange(entry) and (moved := indentation.moved(model, path, node, entry)):
                found.problems[entry] = moved[1]
                found.missed.add((*moved[0], entry[-1]))
                break
    return found


def _is_strange(keys: Keys) -> bool:
    """A secret, or a field of another tool: there is more to say of it than where it stands."""
    return bool(_SECRET.search(str(keys[-1]).lower())) or keys[-1] == "key"


def explain(model: Any, path: str, node: Node, loc: tuple[str | int, ...], details: Mapping[str, Any]) -> Problem:
    """One entry of ``ValidationError.errors()`` as a problem. ``loc`` begins at the document ``node``."""
    keys, is_key = _walkable(loc)
    kind = details["type"]
    if kind == "extra_forbidden":
        return _unknown_field(model, path, node, keys)
    if kind == "missing":
        return _missing_field(model, path, node, keys)
    place = key_place(path, node, keys) if is_key else place_of(path, node, keys)
    if _looks_like_a_key(keys[-1] if is_key else find(node, keys)):
        return _key(keys, place)
    said = (details.get("ctx") or {}).get("error")
    if isinstance(said, Invalid):
        help = said.help if said.help or said.note else _example_of(model, node, keys)
        if _TYPOGRAPHIC.search(said.message):
            help = "write straight quotes, or none: typographic ones are letters to YAML"
        return Problem(said.code, said.message, place, said.label, said.note, help)
    return _wrong_kind(kind, details, place, keys, find(node, keys), _example_of(model, node, keys))


def _example_of(model: Any, node: Node, keys: tuple[str | int, ...]) -> str:
    """The field that ``keys`` lead to with a value that it may have, as a help."""
    while keys and isinstance(keys[-1], int):
        keys = keys[:-1]
    owner = fields_at(model, node, keys[:-1]) if keys else None
    name = str(keys[-1]) if keys else ""
    if owner is not None and name in owner.model_fields:
        examples = owner.model_fields[name].examples
        if name in _EVIDENCE:
            return f"write `{name}: {_EVIDENCE[name]}`"
        return f"for example `{name}: {_flow(examples[0])}`" if examples else ""
    inside = fields_at(model, node, keys)
    if inside is None:
        return ""
    required = {key: f.examples[0] for key, f in inside.model_fields.items() if f.is_required() and f.examples}
    return f"for example `{name}: {_flow(required)}`"


def _walkable(loc: tuple[str | int, ...]) -> tuple[tuple[str | int, ...], bool]:
    """``loc`` without what only pydantic sees in it, and whether it is about a key.

    That is "[key]" at the end, and the branch of a union: ("applications", id, "formation", type, branch, …).
    """
    is_key = bool(loc) and loc[-1] == "[key]"
    keys = loc[:-1] if is_key else loc
    if len(keys) > 4 and keys[0] == "applications" and keys[2] == "formation" and keys[4] in _BRANCHES:
        keys = keys[:4] + keys[5:]
    return keys, is_key


# --- places ---------------------------------------------------------------------------------------


def place_of(path: str, node: Node, keys: tuple[str | int, ...]) -> Place:
    """Where the part ``keys`` of ``node`` stands: a value itself, a mapping or list by the key that names it."""
    for length in range(len(keys), -1, -1):
        found = find(node, keys[:length])
        if found is None:
            continue
        if isinstance(found, Scalar) or length == 0:
            return _place(path, _beginning(found))
        return key_place(path, node, keys[:length])
    return _place(path, node)


def key_place(path: str, node: Node, keys: tuple[str | int, ...]) -> Place:
    """Where the key of the part ``keys`` stands; for an item of a list, the item."""
    if not keys:
        return _place(path, _beginning(node))
    parent = find(node, keys[:-1])
    last = keys[-1]
    if isinstance(parent, nodes.Mapping) and isinstance(last, str) and last in parent:
        return _place(path, parent.key(last))
    item = find(node, keys)
    return _place(path, item) if item is not None else place_of(path, node, keys[:-1])


def _beginning(node: Node) -> Node:
    """A whole document is shown by its first key: its own stretch is the file."""
    return next(iter(node), node) if isinstance(node, nodes.Mapping) else node


def _place(path: str, node: Node) -> Place:
    return Place(path, node.line, node.column, node.end_line, node.end_column)


# --- what is said ---------------------------------------------------------------------------------


def _where(keys: tuple[str | int, ...]) -> str:
    return f"`{'.'.join(str(key) for key in keys)}`" if keys else "the document"


def _unknown_field(model: Any, path: str, node: Node, keys: tuple[str | int, ...]) -> Problem:
    name = str(keys[-1])
    owner = fields_at(model, node, keys[:-1])
    if _SECRET.search(name.lower()):
        return _secret(path, node, keys)
    if name not in _STRANGERS and _looks_like_a_key(find(node, keys)):
        return _key(keys, place_of(path, node, keys))
    known = list(owner.model_fields) if owner else []
    meant = nearest(name, known)
    why_not = "" if meant else _STRANGERS.get(name, "")
    places = [] if meant or why_not else homes(name)
    help = sentences(
        meant,
        f"delete the line: {why_not}" if why_not else "",
        f"it belongs to {' or '.join(places[:2])}" if places else "",
    )
    return Problem(
        "PN202",
        f"{_where(keys[:-1])} has no field {quoted(name)}",
        key_place(path, node, keys),
        "unknown field",
        f"its fields are {', '.join(known)}" if known else "",
        help or "delete the line",
    )


def _looks_like_a_key(value: object) -> bool:
    return isinstance(value, str) and len(value) == WIREGUARD_KEY_LENGTH and hidden(value) != value


def _key(keys: tuple[str | int, ...], place: Place) -> Problem:
    return secret(f"{_where(keys)} looks like a WireGuard key: no part of a declaration takes one", place)


def secret(message: str, place: Place) -> Problem:
    """A problem about a value that should not be there, and is not shown."""
    return Problem(
        "PN217",
        message,
        place,
        note="each host makes its own private key, and it never leaves the host",
        help="delete it, and replace the secret wherever it is used: a file that was committed is known",
    )


def _secret(path: str, node: Node, keys: tuple[str | int, ...]) -> Problem:
    return Problem(
        "PN217",
        f"{_where(keys[:-1])} has a field {quoted(str(keys[-1]))}: a secret does not belong into the declaration",
        key_place(path, node, keys),
        note="each host makes its own private key, and it never leaves the host",
        help="delete the line, and replace the secret wherever it is used: a file that was committed is known",
        secret=True,
    )


def _missing_field(model: Any, path: str, node: Node, keys: tuple[str | int, ...]) -> Problem:
    name = str(keys[-1])
    owner = fields_at(model, node, keys[:-1])
    field = owner.model_fields.get(name) if owner else None
    place = key_place(path, node, keys[:-1])
    example = f"add `{name}: {_flow(field.examples[0])}`" if field and field.examples else f"add `{name}:`"
    if name in _EVIDENCE:
        example = f"add `{name}: {_EVIDENCE[name]}`"
    if keys == ("private_network", "terms"):
        return Problem(
            "PN402",
            "the private network has no accepted terms",
            place,
            note="a network is enabled only after the terms were read and accepted (M6)",
            # No example that could be pasted as it is: this line is evidence.
            help="add `terms: {accepted_by: NAME, accepted_on: YYYY-MM-DD, version: VERSION}`, "
            "or delete the `private_network:` block",
        )
    why = field.description or "" if field else ""
    return Problem("PN203", f"{_where(keys[:-1])} has no `{name}`", place, note=why.rstrip("."), help=example)


def _flow(example: Any) -> str:
    """An example as YAML on one line."""
    if isinstance(example, dict):
        return "{" + ", ".join(f"{key}: {_flow(value)}" for key, value in example.items()) + "}"
    if isinstance(example, list):
        return "[" + ", ".join(_flow(value) for value in example) + "]"
    return str(example)


_WANTED = {
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
    "string_type": "a single value",
}


def _wrong_kind(
    kind: str,
    details: Mapping[str, Any],
    place: Place,
    keys: tuple[str | int, ...],
    node: Node | None,
    example: str,
) -> Problem:
    where = _where(keys)
    if kind == "literal_error":
        return _not_a_choice(str(details["ctx"]["expected"]), where, place, str(node))
    if kind == "placement":
        return _not_a_placement(where, place, str(node))
    if kind == "too_short":
        return Problem("PN203", f"{where} is empty", place, help="declare at least one host")
    wanted = _WANTED.get(kind)
    found = f"{quoted(node)}, a single value" if isinstance(node, Scalar) else f"a {kind_of(node)}"
    if wanted is None:
        return Problem("PN201", f"{where} cannot be read: {details['msg']}", place, help=example)
    if wanted == "a list" and isinstance(node, Scalar):
        example = f"write `{keys[-1]}: [{node}]`"
    message = f"{where} must be {wanted}, not {found}"
    return Problem("PN201", message, place, help=example or f"write {wanted} there")


def _not_a_choice(expected: str, where: str, place: Place, value: str) -> Problem:
    choices = [choice.strip().strip("'") for choice in expected.replace(" or ", ",").split(",")]
    help = nearest(value, choices) or f"write {' or '.join(f'`{choice}`' for choice in choices)}"
    note = f"the possible values are {', '.join(choices)}"
    return Problem("PN208", f"{where} cannot be {quoted(value)}", place, note=note, help=help)


def _not_a_placement(where: str, place: Place, value: str) -> Problem:
    fields = ", ".join(Spread.model_fields)
    name = where.strip("`").rsplit(".", 1)[-1]
    times = re.fullmatch("([1-9][0-9]?) ?[x*×] ?([a-z][a-z0-9-]*)", value)
    if times:
        hosts = ", ".join([times[2]] * min(int(times[1]), 3))
        help = f"write `{name}: [{hosts}{', …' if int(times[1]) > 3 else ''}]`: a list with the host of each container"
    elif value.isdigit():
        count = f"`{name}: {{count: {value}, spread: host}}`"
        help = f"write {count} to let privnet place them, or a list with the host of each container"
    else:
        help = f"write `{name}: [{value}]`: a list with the host of each container"
    return Problem(
        "PN201",
        f"{where} must be a list of hosts, or a mapping of {fields}; not {quoted(value)}, a single value",
        place,
        help=help,
    )


def _not_a_spread(path: str, node: Node, keys: tuple[str | int, ...]) -> Problem:
    """A mapping of hosts where a list of them is wanted: one mistake, whatever pydantic counts."""
    found = find(node, keys)
    named = [name for name in found if isinstance(name, Scalar)] if isinstance(found, nodes.Mapping) else []
    count = next((name for name in named if name in _COUNTS), None)
    if count is not None:
        return Problem(
            "PN202",
            f"{_where(keys)} has no field {quoted(count)}",
            _place(path, count),
            "unknown field",
            f"its fields are {', '.join(Spread.model_fields)}",
            "did you mean `count`?",
        )
    return Problem(
        "PN201",
        f"{_where(keys)} must be a list of hosts, or a mapping of {', '.join(Spread.model_fields)}",
        place_of(path, node, keys),
        note="a host stands in the list once for each of its containers",
        help=f"write `{keys[-1]}: [HOST, HOST]`, or `{keys[-1]}: {{count: {max(1, len(named))}, spread: host}}`",
    )
