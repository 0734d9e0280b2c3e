"""The OpenAPI 3.1 document of the server API, generated from the table of methods."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import msgspec

from beaconfire import __version__
from beaconfire.api.examples import EXAMPLES
from beaconfire.api.messages.calls import BatchResult
from beaconfire.api.messages.common import U63_MAX, ApiError
from beaconfire.api.methods import METHODS, Method

STATUSES = {100: 500, 102: 404, 104: 404, 106: 500, 107: 400, 108: 400, 111: 500, 112: 416, 150: 409}
"""The HTTP status for each error code of API calls, in error mode `transport`."""

SCHEMAS = "#/components/schemas/"
DESCRIPTION = (
    "For application backends: publish data, manage connections, read presence and history. Every call is a POST "
    "request with a JSON object to `/api/<method>`. The response contains `result` or `error`. Its HTTP status is 200 "
    "in both cases, unless the header `X-Beaconfire-Error-Mode: transport` selects a status for each error."
)
_SECURITY = {
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "authorization": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "The word `apikey`, a space, and the key.",
    },
    "query": {
        "type": "apiKey",
        "in": "query",
        "name": "api_key",
        "description": "Use this only if you cannot send headers, because URLs are often logged.",
    },
}
_ERROR_MODE = {
    "name": "X-Beaconfire-Error-Mode",
    "in": "header",
    "schema": {"type": "string", "enum": ["transport"]},
    "description": "With `transport`, an error has its own HTTP status. `X-Centrifugo-Error-Mode` does the same.",
}


def document() -> dict[str, Any]:
    """The OpenAPI document as JSON values."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Beaconfire server API", "version": __version__, "description": DESCRIPTION},
        "security": [{name: []} for name in _SECURITY],
        "paths": {f"/api/{name}": {"post": _operation(name, method)} for name, method in METHODS.items()},
        "components": {
            "securitySchemes": _SECURITY,
            "parameters": {"ErrorMode": _ERROR_MODE},
            "schemas": schemas(),
            "responses": _responses(),
        },
    }


def schemas() -> dict[str, Any]:
    """The JSON Schemas of all requests, results and their parts, by name."""
    types = [ApiError, *(struct for method in METHODS.values() for struct in (method.request, method.result))]
    _, found = msgspec.json.schema_components(dict.fromkeys(types), ref_template=SCHEMAS + "{name}")
    for schema in found.values():
        schema.pop("title", None)
        for field in schema["properties"].values():
            _simplify(field)
    found["BatchRequest"]["properties"]["commands"]["items"] = _one_of_each({n: m.request for n, m in _in_batch()})
    replies: dict[str, type] = {name: method.result for name, method in _in_batch()}
    replies["error"] = ApiError
    found["BatchResult"]["properties"]["replies"]["items"] = _one_of_each(replies)
    return dict(sorted(found.items()))


def _simplify(field: dict[str, Any]) -> None:
    """Simplifies the schema of a field for readers."""
    if field.get("maximum") == U63_MAX:  # JavaScript cannot represent this number exactly.
        del field["maximum"]
        field["format"] = "int64"
    if field.get("default", ...) is None:
        del field["default"]
    if "anyOf" in field:
        kept = [option for option in field.pop("anyOf") if option.get("type") != "null"]
        field.update(kept[0])


def _in_batch() -> list[tuple[str, Method]]:
    return [(name, method) for name, method in METHODS.items() if name != "batch"]


def _one_of_each(structs: Mapping[str, type]) -> dict[str, Any]:
    properties = {name: {"$ref": SCHEMAS + struct.__name__} for name, struct in structs.items()}
    return {"type": "object", "properties": properties, "minProperties": 1, "maxProperties": 1}


def _operation(name: str, method: Method) -> dict[str, Any]:
    example = EXAMPLES[name]
    response = {"schema": _response_schema(method), "example": example.response}
    body = {"schema": {"$ref": SCHEMAS + method.request.__name__}, "example": example.request}
    return {
        "operationId": name,
        "summary": method.summary,
        "description": inspect.getdoc(method.request),
        "parameters": [{"$ref": "#/components/parameters/ErrorMode"}],
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {
            "200": {"description": "The result or an error.", "content": {"application/json": response}},
            **{status: {"$ref": f"#/components/responses/{name}"} for status, name in _STATUS_RESPONSES.items()},
        },
    }


def _response_schema(method: Method) -> dict[str, Any]:
    result: dict[str, Any] = {"$ref": SCHEMAS + method.result.__name__}
    if method.result is not BatchResult:
        result = {"type": "object", "properties": {"result": result}, "required": ["result"]}
    return {"oneOf": [result, _ERROR_BODY]}


_ERROR_BODY = {
    "type": "object",
    "properties": {"error": {"$ref": SCHEMAS + ApiError.__name__}},
    "required": ["error"],
}
_STATUS_RESPONSES = {
    "400": "NotJson",
    "401": "Unauthorized",
    "408": "TooSlow",
    "413": "TooLarge",
    "default": "Failed",
}


def _responses() -> dict[str, Any]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    error = {"application/json": {"schema": _ERROR_BODY}}
    statuses = ", ".join(f"{status} for error {code}" for code, status in STATUSES.items())
    return {
        "NotJson": {
            "description": "The request body is not JSON; the text names the position. In error mode `transport`, also "
            "error 107.",
            "content": {**text, **error},
        },
        "Unauthorized": {"description": "The API key is missing or invalid.", "content": error},
        "TooSlow": {"description": "The next part of the request body did not arrive in time.", "content": text},
        "TooLarge": {"description": "The request body is larger than `api.request_max_size`.", "content": text},
        "Failed": {"description": f"In error mode `transport`: {statuses}.", "content": error},
    }
