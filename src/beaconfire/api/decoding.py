"""Decodes the JSON of a request to its struct. Errors name the field and say what is expected."""

from __future__ import annotations

import re
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct, inspect

from beaconfire.base.errors import BAD_REQUEST, CommandError
from beaconfire.protocols.json_payload import NotJSONError, decode_json

T = TypeVar("T", bound=Struct)

_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]*)`")
_JSON_WORDS = {"str": "string", "int": "integer", "bool": "boolean", "float": "number"}
_TYPE = re.compile(r"\b(?:str|int|bool|float)\b")
_PLACE = re.compile(r" - at `(?P<key>key in )?\$\.?(?P<path>[^`]*)`$")


class InvalidJsonError(CommandError):
    """The text is not JSON. The detail says why and where."""

    def __init__(self, detail: str) -> None:
        super().__init__(BAD_REQUEST, detail)


class RequestDecoder(Generic[T]):
    """Decodes one type of request. Payloads are views of the text, so code that keeps a payload must copy it."""

    def __init__(self, request: type[T]) -> None:
        self._decode = msgspec.json.Decoder(request).decode
        self._nullable = _fields_where_null_is_missing(request)

    def __call__(self, text: bytes) -> T:
        """Raises InvalidJsonError for text that is not JSON, and CommandError 107 for JSON of another shape."""
        try:
            return decode_json(self._decode_shaped, text)
        except NotJSONError as error:
            raise InvalidJsonError(describe_json_error(str(error), text)) from None

    def _decode_shaped(self, text: bytes) -> T:
        try:
            return self._decode(text)
        except msgspec.ValidationError as error:
            # Many languages write null for a missing field. Checked only after an error, to keep the usual case fast.
            fields = _without_nulls(text, self._nullable) if b"null" in text else None
            if fields is None:
                raise CommandError(BAD_REQUEST, explain(str(error))) from None
        try:
            return self._decode(fields)
        except msgspec.ValidationError as error:
            raise CommandError(BAD_REQUEST, explain(str(error))) from None


def describe_json_error(error: str, text: bytes) -> str:
    """The error text of `msgspec` for text that is not JSON, with the position if `msgspec` does not give it."""
    return f"unexpected end at byte {len(text)}" if "truncated" in error else error


def explain(text: str) -> str:
    """Rephrases a validation error of `msgspec` in the terms of JSON: first the field, then what is expected."""
    place = _PLACE.search(text)
    what = text[: place.start()] if place else text
    path = place["path"] if place else ""
    if missing := _MISSING.fullmatch(what):
        return f"{path}.{missing['field']} is required" if path else f"{missing['field']} is required"
    what = _TYPE.sub(lambda name: _JSON_WORDS[name[0]], what.replace("`", ""))
    if not path:
        return f"the request: {what[:1].lower()}{what[1:]}"
    if place and place["key"]:
        path = f"a key of {path.removesuffix('[...]')}"
    if what.endswith("of length >= 1"):
        return f"{path} must not be empty"
    return f"{path}: {what[:1].lower()}{what[1:]}"


def _fields_where_null_is_missing(request: type[Struct]) -> frozenset[str]:
    shape = inspect.type_info(request)
    assert isinstance(shape, inspect.StructType)
    return frozenset(field.encode_name for field in shape.fields if not _takes_raw(field.type))


def _takes_raw(shape: inspect.Type) -> bool:
    if isinstance(shape, inspect.Metadata):
        return _takes_raw(shape.type)
    if isinstance(shape, inspect.UnionType):
        return any(map(_takes_raw, shape.types))
    return isinstance(shape, inspect.RawType)


def _without_nulls(text: bytes, nullable: frozenset[str]) -> bytes | None:
    """The same object without null fields that may be missing. None if there are none, or the text is not an object."""
    try:
        fields: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Raw])
    except msgspec.ValidationError:
        return None
    kept = {name: value for name, value in fields.items() if name not in nullable or bytes(value) != b"null"}
    return msgspec.json.encode(kept) if len(kept) < len(fields) else None
