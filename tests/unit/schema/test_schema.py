"""The generated schemas are fresh, describe every field, accept the examples and refuse what the product refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ruamel.yaml

from privnet.model import Fleet
from privnet.schema import DRAFT, document_schema, schemas, write

ROOT = Path(__file__).parents[3]
ERRORS = ROOT / "tests" / "errors"
SHAPE = re.compile(r"^error\[PN(?:2\d\d|402)\]", re.MULTILINE)
ANY = re.compile(r"^error\[PN\d+\]", re.MULTILINE)

# What the product knows beyond a schema: values that have the right shape and mean nothing.
BEYOND = {
    "A02-cidr-host-bits": "bits behind the length",
    "A05-public": "addresses of others",
    "A05-public-default": "addresses of others",
    "A05-public-mesh": "addresses of others",
    "A06-cidr-class-e": "a reserved prefix",
    "A06-cidr-link-local": "a reserved prefix",
    "A06-cidr-loopback": "a reserved prefix",
    "A06-cidr-multicast": "a reserved prefix",
    "A06-cidr-this": "a reserved prefix",
    "A06-default-loopback": "a reserved prefix",
    "A06-mesh-multicast": "a reserved prefix",
    "D01-type-identifier": "a name that looks like an id",
    "D05-domain-local": "a domain of others",
    "D05-domain-number": "a domain that ends in a number",
    "D05-internal-number": "a domain that ends in a number",
    "D05-internal-reverse": "a domain of addresses",
    "H04-endpoint-broadcast": "an address that is no host's",
    "H04-endpoint-loopback": "an address that is no host's",
    "H04-endpoint-multicast": "an address that is no host's",
    "H04-endpoint-unspecified": "an address that is no host's",
    "H01-upper-case": "a name that no host can have; the product looks for the nearest one",
    "H07-address-link-local": "an address that is no host's",
    "H07-address-loopback": "an address that is no host's",
    "H07-address-zero": "digits that are no address",
    "H18-upstream-unspecified": "an address that is no resolver's",
    "H18-upstream-zero": "digits that are no address",
    "I02-application-nil": "an id that identifies nothing",
    "I05-network-all-f": "an id that identifies nothing",
    "T03-count-binary": "YAML 1.2 reads it as a number",
    "T03-count-decimal": "2.0 is an integer to JSON Schema",
    "T03-count-exponent": "1e3 is an integer to JSON Schema",
    "T03-count-hexadecimal": "YAML 1.2 reads it as a number",
    "T03-count-octal": "YAML 1.2 reads it as a number",
    "T03-count-plus": "YAML 1.2 reads it as a number",
    "T03-count-underscore": "some readers take it for a number",
    "T17-duration-long": "a duration over a year",
    "T17-vni-range-large": "a range beyond the last VNI",
    "T17-vni-range-reversed": "a range from high to low",
    "H15-key-as-a-name": "what looks like a secret",
    "H15-key-within-a-name": "what looks like a secret",
    "H15-key-as-a-host": "the schema knows what no host is called; the product compares with those that there are",
    "T18-date-impossible": "a day that no calendar has",
}


def load(path: Path) -> Any:
    yaml = ruamel.yaml.YAML(typ="safe", pure=True)
    # Dates are text to editors, as they are to the product.
    yaml.constructor.yaml_constructors.pop("tag:yaml.org,2002:timestamp", None)
    yaml.constructor.add_constructor("tag:yaml.org,2002:timestamp", lambda maker, node: node.value)
    return as_json(yaml.load(path.read_text(encoding="utf-8-sig")))


def as_json(value: Any) -> Any:
    """JSON's keys are text, whatever YAML took them for."""
    if isinstance(value, dict):
        return {str(key): as_json(inner) for key, inner in value.items()}
    return [as_json(inner) for inner in value] if isinstance(value, list) else value


def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(document_schema(name))


def test_the_committed_schemas_are_fresh() -> None:
    stale = [name for name, text in schemas().items() if (ROOT / "schemas" / name).read_text() != text]
    assert stale == [], "run `privnet schema schemas`"
    assert sorted(path.name for path in (ROOT / "schemas").iterdir()) == sorted(schemas())


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    assert {path.name for path in write(tmp_path)} == set(schemas())
    assert write(tmp_path) == []
    (tmp_path / "README.md").write_text("x")
    assert write(tmp_path) == [tmp_path / "README.md"]


def test_the_readme_says_first_that_the_files_are_generated() -> None:
    assert "generated" in (ROOT / "schemas" / "README.md").read_text().splitlines()[0]


@pytest.mark.parametrize("name", ["fleet", "project"])
def test_a_schema_is_itself_right_and_has_no_address(name: str) -> None:
    schema = document_schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert (schema["$schema"], schema["$id"]) == (DRAFT, f"urn:privnet:schema:{name}")
    assert '"null"' not in json.dumps(schema)


def fields(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in (schema, *schema["$defs"].values()):
        yield from part["properties"].items()


@pytest.mark.parametrize("name", ["fleet", "project"])
def test_every_field_has_a_description_and_right_examples_and_defaults(name: str) -> None:
    schema = document_schema(name)
    for field_name, field in fields(schema):
        assert field["description"].endswith("."), field_name
        assert field["examples"], field_name
        one = jsonschema.Draft202012Validator({**field, "$defs": schema["$defs"]})
        for value in [*field["examples"], *([field["default"]] if "default" in field else [])]:
            one.validate(value)


def test_the_defaults_are_those_of_the_product() -> None:
    hosts = {"a": {"address": "192.0.2.1"}}
    schema = document_schema("fleet")
    parts = {"wireguard": "WireGuard", "vxlan": "Vxlan", "network": "NetworkDefaults", "dns": "Dns", "policy": "Policy"}
    written: dict[str, Any] = {"fleet": "x", "hosts": hosts}
    for part, definition in parts.items():
        properties = schema["$defs"][definition]["properties"]
        written[part] = {name: field["default"] for name, field in properties.items() if "default" in field}
    written["domain"] = schema["properties"]["domain"]["default"]
    assert Fleet.model_validate(written) == Fleet.model_validate({"fleet": "x", "hosts": hosts})


@pytest.mark.parametrize("name", ["fleet", "project"])
def test_the_examples_are_valid_for_an_independent_tool(name: str) -> None:
    pattern = "*/fleet.yaml" if name == "fleet" else "*/projects/*.yaml"
    documents = sorted(str(path) for path in (ROOT / "inventory").glob(pattern))
    assert len(documents) >= 2
    schema = str(ROOT / "schemas" / f"{name}.schema.json")
    command = [sys.executable, "-m", "check_jsonschema", "--schemafile", schema, *documents]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_first_line_of_every_example_leads_to_its_schema() -> None:
    for path in (ROOT / "inventory").rglob("*.yaml"):
        if path.name == "privnet.lock.yaml":
            continue
        found = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text())
        assert found is not None, path
        kind = "project" if path.parent.name == "projects" else "fleet"
        assert (path.parent / found[1]).resolve() == ROOT / "schemas" / f"{kind}.schema.json"


def corpus(kind: str) -> Iterator[tuple[str, bool, bool]]:
    """Single documents of the corpus: their names, and whether schema and product refuse their shape."""
    judge = validator(kind)
    for path in sorted((ERRORS / kind).glob("*.yaml")):
        answer = path.with_suffix(".txt").read_text()
        if "PN1" in "".join(ANY.findall(answer)):
            continue  # not the shape but the text is wrong
        try:
            yield path.stem, not judge.is_valid(load(path)), bool(SHAPE.search(answer))
        except (ruamel.yaml.YAMLError, ValueError):  # a number of 5,000 digits is a ValueError
            continue


def test_schema_and_product_agree_on_the_shape_of_every_document_of_the_corpus() -> None:
    judged = [verdict for kind in ("fleet", "project") for verdict in corpus(kind)]
    assert len(judged) > 150
    assert {name for name, schema, product in judged if schema != product} == set(BEYOND)
