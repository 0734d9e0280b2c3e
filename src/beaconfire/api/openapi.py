"""The server API's documents, made from the table of methods: OpenAPI 3.1, and the reference page in Markdown."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from beaconfire import __version__
from beaconfire.api.examples import EXAMPLES
from beaconfire.api.methods import METHODS, Method
from beaconfire.api.requests import U63_MAX, ApiError, BatchResult
from beaconfire.base.errors import ERRORS

STATUSES = {100: 500, 102: 404, 104: 404, 107: 400, 108: 400, 112: 416}
"""HTTP status by error code, in error mode `transport`. An API call fails with no other codes."""

_SCHEMAS = "#/components/schemas/"
_DESCRIPTION = (
    "For backends: publish, manage connections, ask who is where. Every call is a POST of a JSON object to "
    "`/api/<method>`. The answer holds `result` or `error`; its status is 200 in both cases, unless the header "
    "`X-Beaconfire-Error-Mode: transport` asks for one that fits the error."
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
        "description": "The last resort: addresses end up in logs.",
    },
}
_ERROR_MODE = {
    "name": "X-Beaconfire-Error-Mode",
    "in": "header",
    "schema": {"type": "string", "enum": ["transport"]},
    "description": "Answer errors with an HTTP status of their own. `X-Centrifugo-Error-Mode` does the same.",
}


def document() -> dict[str, Any]:
    """The OpenAPI document, ready to be encoded as JSON."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Beaconfire server API", "version": __version__, "description": _DESCRIPTION},
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
    """JSON Schema of every request, result and part of one, by name."""
    types = [ApiError, *(struct for method in METHODS.values() for struct in (method.request, method.result))]
    _, found = msgspec.json.schema_components(dict.fromkeys(types), ref_template=_SCHEMAS + "{name}")
    for schema in found.values():
        schema.pop("title", None)
        for field in schema["properties"].values():
            _tidy(field)
    found["BatchRequest"]["properties"]["commands"]["items"] = _one_of_each({n: m.request for n, m in _in_batch()})
    replies: dict[str, type] = {name: method.result for name, method in _in_batch()}
    replies["error"] = ApiError
    found["BatchResult"]["properties"]["replies"]["items"] = _one_of_each(replies)
    return dict(sorted(found.items()))


def _tidy(field: dict[str, Any]) -> None:
    """What `msgspec` says precisely, and a reader would rather have plainly."""
    if field.get("maximum") == U63_MAX:  # not exact in JavaScript
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
    properties = {name: {"$ref": _SCHEMAS + struct.__name__} for name, struct in structs.items()}
    return {"type": "object", "properties": properties, "minProperties": 1, "maxProperties": 1}


def _operation(name: str, method: Method) -> dict[str, Any]:
    example = EXAMPLES[name]
    answer = {"schema": _answer(method), "example": example.answer}
    body = {"schema": {"$ref": _SCHEMAS + method.request.__name__}, "example": example.request}
    return {
        "operationId": name,
        "summary": method.summary,
        "description": inspect.getdoc(method.request),
        "parameters": [{"$ref": "#/components/parameters/ErrorMode"}],
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {
            "200": {"description": "The result, or an error.", "content": {"application/json": answer}},
            **{status: {"$ref": f"#/components/responses/{name}"} for status, name in _STATUS_RESPONSES.items()},
        },
    }


def _answer(method: Method) -> dict[str, Any]:
    result: dict[str, Any] = {"$ref": _SCHEMAS + method.result.__name__}
    if method.result is not BatchResult:
        result = {"type": "object", "properties": {"result": result}, "required": ["result"]}
    return {"oneOf": [result, _ERROR_BODY]}


_ERROR_BODY = {
    "type": "object",
    "properties": {"error": {"$ref": _SCHEMAS + ApiError.__name__}},
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
            "description": "The body is not JSON; the text says where. Error 107, in error mode `transport`.",
            "content": {**text, **error},
        },
        "Unauthorized": {"description": "No API key, or a wrong one.", "content": error},
        "TooSlow": {"description": "The body paused for too long.", "content": text},
        "TooLarge": {"description": "The body is larger than `api.request_max_size`.", "content": text},
        "Failed": {"description": f"In error mode `transport`: {statuses}.", "content": error},
    }


# --- the reference page ------------------------------------------------------------------------------------------


def reference_markdown() -> str:
    """`docs/reference/server-api.md`."""
    known = schemas()
    blocks = [*_introduction(), *_codes()]
    blocks.append("## Methods")
    blocks.append(_table(["method", ""], ([f"[`{n}`](#{n})", m.summary] for n, m in METHODS.items())))
    for name, method in METHODS.items():
        blocks += _method_blocks(name, method, known)
    blocks.append("## Objects")
    blocks.append("Parts of requests and results.")
    for name in sorted({part for schema in known.values() for part in _parts(schema)}):
        blocks += [f"### {name}", str(known[name].get("description", "")), _fields(known[name], "always")]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _parts(schema: Mapping[str, Any]) -> Iterator[str]:
    """The names of the structs that are in fields of this one: themselves, in lists, or in objects."""
    for field in schema["properties"].values():
        for holder in (field, field.get("items", {}), field.get("additionalProperties", {})):
            if "$ref" in holder:
                yield holder["$ref"].removeprefix(_SCHEMAS)


def _introduction() -> Iterator[str]:
    yield "# Server API"
    yield "<!-- Made by `make docs` from `src/beaconfire/api/`. Change it there. -->"
    yield _DESCRIPTION
    yield (
        "The same as an OpenAPI document is at `/api/openapi.json`, and `/api/` is a page to read it.\n"
        "Clients made for Centrifugo's server API, among them `cent` for Python, work with it."
    )
    yield "```sh\n" + curl("publish") + "\n```"
    yield "## Rules"
    yield "\n".join(f"* {rule}" for rule in _RULES)


_RULES = (
    "A key is sent as `X-API-Key: <key>`, as `Authorization: apikey <key>`, or as `?api_key=<key>`; without a right "
    "one the answer is 401. Keys are `api.keys` in the settings; list the old and the new one to rotate.",
    "`data` is any JSON, and its text reaches subscribers as it is, number formats included. Other bytes go in "
    "`b64data`; they reach clients that speak Protobuf, while JSON clients are disconnected with code 3506.",
    "In answers, a payload that is not JSON stands in `b64data` (`b64conn_info`, `b64chan_info`) instead.",
    "Unknown fields are ignored. null counts as a field left out, except for `data` of publish and broadcast, "
    "where it is JSON's null.",
    "Fields with their default value are left out of results, unless they are marked *always*.",
    "Backends are not held to the permissions of clients, but channels must belong to a configured namespace.",
    "A body larger than `api.request_max_size` is answered with 413, one that pauses for ten seconds with 408, "
    "one that is no JSON with 400 and a text that says where.",
    '`POST /api` is the older way: lines of `{"method": …, "params": …}`, answered with as many lines.',
)


def _codes() -> Iterator[str]:
    yield "## Errors"
    yield (
        "`code` and `message` are fixed; `detail` names the field and the remedy, and its wording may change.\n"
        "The status is the one in error mode `transport`."
    )
    rows = ([str(e.code), f"`{e.message}`", str(STATUSES[e.code]), e.meaning] for e in ERRORS if e.code in STATUSES)
    yield _table(["code", "message", "status", "meaning"], rows)


def _method_blocks(name: str, method: Method, known: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {name}"
    yield method.summary + "\n" + (inspect.getdoc(method.request) or "")
    yield _fields(known[method.request.__name__]) or "No fields."
    yield f"Result: {_first_lower(inspect.getdoc(method.result) or '')}"
    yield _fields(known[method.result.__name__], "always")
    yield "```sh\n" + curl(name) + "\n```"
    yield "```json\n" + json.dumps(EXAMPLES[name].answer, indent=2) + "\n```"


def _first_lower(text: str) -> str:
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def curl(name: str) -> str:
    """A call of the method that can be pasted into a shell."""
    body = json.dumps(EXAMPLES[name].request).replace("'", "'\\''")
    return f"curl http://localhost:8000/api/{name} -H 'X-API-Key: api_key' \\\n  -d '{body}'"


def _fields(schema: Mapping[str, Any], required_word: str = "required") -> str:
    required = schema.get("required", ())
    rows = [
        [
            f"`{name}`",
            _type_words(field),
            required_word if name in required else _default(field),
            str(field.get("description", "")),
        ]
        for name, field in sorted(schema["properties"].items(), key=lambda item: item[0] not in required)
    ]
    return _table(["field", "type", "default", "meaning"], rows) if rows else ""


def _type_words(field: Mapping[str, Any]) -> str:
    if "$ref" in field:
        name = str(field["$ref"]).removeprefix(_SCHEMAS)
        return f"[{name}](#{name.lower()})"
    if field.get("type") == "array":
        return f"list of {_type_words(field['items'])}"
    if field.get("type") == "object":
        values = field.get("additionalProperties")
        return f"object of {_type_words(values)}" if values else "object"
    return str(field.get("type", "JSON"))


def _default(field: Mapping[str, Any]) -> str:
    default = field.get("default")
    return "" if default in (None, "", [], {}) else f"`{json.dumps(default)}`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)
