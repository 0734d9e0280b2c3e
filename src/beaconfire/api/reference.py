"""The reference page of the server API in Markdown, `docs/reference/server-api.md`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from beaconfire.api.examples import EXAMPLES
from beaconfire.api.methods import METHODS, Method
from beaconfire.api.openapi import DESCRIPTION, SCHEMAS, STATUSES, schemas
from beaconfire.base.errors import ERRORS


def reference_markdown() -> str:
    """The whole page."""
    known = schemas()
    blocks = [*_introduction(), *_codes()]
    blocks.append("## Methods")
    blocks.append(_table(["method", ""], ([f"[`{n}`](#{n})", m.summary] for n, m in METHODS.items())))
    for name, method in METHODS.items():
        blocks += _method_blocks(name, method, known)
    blocks.append("## Objects")
    blocks.append("These objects are parts of requests and results.")
    for name in sorted({part for schema in known.values() for part in _parts(schema)}):
        blocks += [f"### {name}", str(known[name].get("description", "")), _fields(known[name], "always")]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _parts(schema: Mapping[str, Any]) -> Iterator[str]:
    """The names of the schemas that fields of this schema refer to: directly, in lists or in objects."""
    for field in schema["properties"].values():
        for holder in (field, field.get("items", {}), field.get("additionalProperties", {})):
            if "$ref" in holder:
                yield holder["$ref"].removeprefix(SCHEMAS)


def _introduction() -> Iterator[str]:
    yield "# Server API"
    yield "<!-- Made by `make docs` from `src/beaconfire/api/`. Change it there. -->"
    yield DESCRIPTION
    yield (
        "The server has the same reference as an OpenAPI document at `/api/openapi.json`, and as a page at `/api/`.\n"
        "Clients for the server API of Centrifugo, such as `cent` for Python, also work with Beaconfire."
    )
    yield "```sh\n" + curl("publish") + "\n```"
    yield "## Rules"
    yield "\n".join(f"* {rule}" for rule in _RULES)


_RULES = (
    "Send an API key as `X-API-Key: <key>`, as `Authorization: apikey <key>` or as `?api_key=<key>`. Without a valid "
    "key the status is 401. The setting `api.keys` lists the valid keys. To replace a key, list the old and the new "
    "key for a while.",
    "`data` can be any JSON value. Subscribers get exactly its text, including number formats. Other bytes go in "
    "`b64data`; they reach clients that use Protobuf, while clients that use JSON are disconnected with code 3506.",
    "In results, a payload that is not JSON is in `b64data` (`b64conn_info`, `b64chan_info`) instead.",
    "Unknown fields are ignored. null counts as a missing field, except for `data` of publish and broadcast, where it "
    "is JSON's null.",
    "Results omit fields that have their default value, except fields marked *always*.",
    "The permissions of clients do not apply to the server API, but channels must belong to a configured namespace.",
    "The status is 413 for a request body larger than `api.request_max_size`, 408 for a body that pauses for ten "
    "seconds, and 400, with a text that names the position, for a body that is not JSON.",
    '`POST /api` is the older form of a call: lines of `{"method": …, "params": …}`. The response has a line for each.',
)


def _codes() -> Iterator[str]:
    yield "## Errors"
    yield (
        "`code` and `message` never change. `detail` names the field and the remedy; its wording may change.\n"
        "The HTTP status is that of error mode `transport`."
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
    yield "```json\n" + json.dumps(EXAMPLES[name].response, indent=2) + "\n```"


def _first_lower(text: str) -> str:
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def curl(name: str) -> str:
    """A shell command that calls the method."""
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
        name = str(field["$ref"]).removeprefix(SCHEMAS)
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
