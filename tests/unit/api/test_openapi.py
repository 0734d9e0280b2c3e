"""The OpenAPI document and the reference page match the code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from beaconfire.api.examples import EXAMPLES
from beaconfire.api.methods import METHODS
from beaconfire.api.openapi import STATUSES, document, schemas
from beaconfire.api.reference import curl, reference_markdown
from beaconfire.base.errors import ERRORS

DOCUMENT = json.loads(msgspec.json.encode(document()))


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value matches a schema. Implements the parts of JSON Schema that the document uses."""
    if "$ref" in schema:
        return fits(value, DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
    if "oneOf" in schema:
        return sum(fits(value, option) for option in schema["oneOf"]) == 1
    match schema.get("type"):
        case "object":
            return isinstance(value, dict) and fits_object(value, schema)
        case "array":
            return isinstance(value, list) and all(fits(item, schema["items"]) for item in value)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case None:
            return True
    raise AssertionError(f"no idea what {schema} is")


def fits_object(value: dict[str, Any], schema: dict[str, Any]) -> bool:
    if not set(schema.get("required", ())) <= set(value):
        return False
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties", {})
    if properties and not set(value) <= set(properties):
        return False
    return all(fits(item, properties.get(name, others)) for name, item in value.items())


def test_every_method_has_an_example() -> None:
    """In the same order as the table of methods."""
    assert list(EXAMPLES) == list(METHODS)


def test_the_document_is_openapi() -> None:
    """The parts that OpenAPI 3.1 requires are present, and every reference has a target."""
    assert DOCUMENT["openapi"] == "3.1.0"
    assert set(DOCUMENT["info"]) >= {"title", "version"}
    for reference in references(DOCUMENT):
        node = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    ids = [item["post"]["operationId"] for item in DOCUMENT["paths"].values()]
    assert ids == list(METHODS)
    for name in (name for requirement in DOCUMENT["security"] for name in requirement):
        assert DOCUMENT["components"]["securitySchemes"][name]["type"] == "apiKey"


@pytest.mark.parametrize("method", METHODS)
def test_operations(method: str) -> None:
    """Each operation has a request, responses and texts. The example can be decoded by the method."""
    operation = DOCUMENT["paths"][f"/api/{method}"]["post"]
    assert operation["summary"] == METHODS[method].summary
    assert operation["description"]
    assert set(operation["responses"]) == {"200", "400", "401", "408", "413", "default"}
    assert all("$ref" in response or response["description"] for response in operation["responses"].values()), (
        "OpenAPI wants a description of every response"
    )
    request = operation["requestBody"]["content"]["application/json"]
    METHODS[method].decode(json.dumps(request["example"]).encode())
    assert fits(request["example"], request["schema"])
    answer = operation["responses"]["200"]["content"]["application/json"]
    assert fits(answer["example"], answer["schema"])


@pytest.mark.parametrize("method", METHODS)
def test_schemas_match_the_structs(method: str) -> None:
    """The same fields, with their encoded names."""
    known = schemas()
    for struct in (METHODS[method].request, METHODS[method].result):
        assert set(known[struct.__name__]["properties"]) == set(struct.__struct_encode_fields__)


def test_every_field_of_a_request_has_a_description() -> None:
    """A name and a type are not sufficient as documentation."""
    known = schemas()
    for method in METHODS.values():
        for name, field in known[method.request.__name__]["properties"].items():
            assert field.get("description"), f"{method.request.__name__}.{name}"


def test_numbers_are_exact_in_javascript() -> None:
    """Many tools would read numbers beyond 2**53 as other numbers."""

    def numbers(node: Any) -> Iterator[float]:
        if isinstance(node, dict | list):
            for child in node.values() if isinstance(node, dict) else node:
                yield from numbers(child)
        elif isinstance(node, int | float):
            yield node

    assert max(numbers(DOCUMENT["components"]["schemas"])) < 2**53


def test_the_reference_page_is_complete() -> None:
    """It has every method, field, error and example, and every link within the page has a target."""
    page = reference_markdown()
    headings = {line.lstrip("# ").lower() for line in page.splitlines() if line.startswith("#")}
    for name, method in METHODS.items():
        assert f"\n### {name}\n" in page
        assert curl(name) in page
        assert all(f"| `{field}` |" in page for field in method.request.__struct_encode_fields__)
    for error in ERRORS:
        assert (f"| {error.code} | `{error.message}` | {STATUSES.get(error.code)} |" in page) == (
            error.code in STATUSES
        )
    for link in (part.split(")")[0] for part in page.split("](#")[1:]):
        assert link in headings
    assert not any(line.endswith(" ") for line in page.splitlines())
