"""JSON Schemas of the declaration's documents, generated from the models, for editors and other tools.

They are draft 2020-12 and refuse what the product refuses of one document's shape. What they cannot say (a host that
the fleet does not have, two networks with one VNI, a prefix with bits behind its length) is left to ``privnet check``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from privnet.model.fleet import Fleet
from privnet.model.project import Project

DRAFT = "https://json-schema.org/draft/2020-12/schema"
DOCUMENTS: dict[str, tuple[type[BaseModel], str]] = {
    "fleet": (Fleet, "fleet.yaml of a privnet fleet"),
    "project": (Project, "projects/<name>.yaml of a privnet fleet"),
}

_README = """\
These files are generated from the models in `src/privnet/model/` by `privnet schema schemas`; do not edit them.

They describe the documents of a fleet directory as JSON Schema (draft 2020-12). An editor with yaml-language-server
reads them through the first line of a document:

```yaml
# yaml-language-server: $schema=../../schemas/fleet.schema.json
```

`fleet.schema.json` is for `fleet.yaml`, `project.schema.json` for `projects/*.yaml`. `privnet check` is the judge: it
also knows the rules across documents. `docs/declaration.md` has the declaration by example.
"""


def schemas() -> dict[str, str]:
    """The text of each generated file, by its name."""
    files = {f"{name}.schema.json": _text(name) for name in DOCUMENTS}
    return {"README.md": _README, **files}


def write(directory: Path) -> list[Path]:
    """Writes the files that differ from what they should be into ``directory``; returns those."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in schemas().items():
        path = directory / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            written.append(path)
    return written


def document_schema(name: str) -> dict[str, Any]:
    """The schema of one kind of document (``fleet`` or ``project``) as data."""
    model, title = DOCUMENTS[name]
    schema = model.model_json_schema()
    for part in _parts(schema):
        _strict(part)
        for field in part.get("properties", {}).values():
            # pydantic leaves a description out where that of the part is the same; editors show the field's.
            if "description" not in field and "$ref" in field:
                field["description"] = schema["$defs"][field["$ref"].rsplit("/", 1)[1]]["description"]
    head = {"$schema": DRAFT, "$id": f"urn:privnet:schema:{name}", "title": title}
    return {**head, **{key: value for key, value in schema.items() if key != "title"}}


def _text(name: str) -> str:
    return json.dumps(document_schema(name), indent=2, ensure_ascii=False) + "\n"


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema inside ``schema``, itself included; not the examples and defaults, which are data."""
    if isinstance(schema, dict):
        yield schema
        for key, value in schema.items():
            if key in ("properties", "patternProperties", "$defs"):
                for inner in value.values():
                    yield from _parts(inner)
            elif key not in ("examples", "default"):
                yield from _parts(value)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _parts(inner)


def _strict(part: dict[str, Any]) -> None:
    """Takes out what the product does not allow: null for a field left out, and keys that match no pattern."""
    if "patternProperties" in part:
        part["additionalProperties"] = False
    choices = [choice for choice in part.get("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) == 1:
        del part["anyOf"]
        part.update({**choices[0], **part})
    if part.get("default", "") is None or isinstance(part.get("default"), dict):
        del part["default"]
    if isinstance(part.get("title"), str):
        del part["title"]
