"""Secrets are redacted in every form; harmless text stays readable."""

from __future__ import annotations

import base64
import json
import time

import jwt
import pytest

from beaconfire.observe.redaction import REDACTED, Redactor

TOKEN = jwt.encode({"sub": "42", "exp": 2_000_000_000}, "a-secret-of-a-good-length-for-hs256", "HS256")
API_KEY = "kR7-x_91.~Zq"

QUERIES = [
    "/connection/websocket?token={}",
    "/connection/websocket?cf_protocol=json&token={}&x=1",
    "/api/publish?api_key={}",
    "GET /api/publish?API_KEY={} HTTP/1.1",
    "https://host/hook?access_token={}#top",
    "https://host/hook?client_secret={}",
    "next=%2Fapi%3Fapi_key%3D{}%26x%3D1",
    "api%5Fkey={}",
]
HEADERS = [
    "Authorization: Bearer {}",
    "authorization: apikey {}",
    "AUTHORIZATION: {}",
    "X-API-Key: {}",
    "Cookie: session={}; other=1",
    "b'authorization', b'apikey {}'",
    "[(b'host', b'x'), (b'authorization', b'Bearer {}')]",
    "[(b'x-api-key', b'{}')]",
    "{{'Authorization': 'Bearer {}'}}",
]
DATA = [
    '{{"connect":{{"token":"{}"}},"id":1}}',
    '{{"connect":{{"ticket":"{}"}},"id":1}}',
    "{{'api_key': '{}', 'x': 1}}",
    '{{\\"token\\":\\"{}\\"}}',
    "ConnectRequest(token='{}', data=b'')",
    "TokenOptions(hmac_secret='{}')",
    'password = "two words {}"',
    "[token]\nhmac_secret = '{}'\n",
    'hmac_secret = "{}"',
    "password={}",
    "redis://user:{}@host:6379/0",
    "redis://:{}@host:6379/0",
]


def traces(secret: str, text: str) -> list[str]:
    """Pieces of the secret, five characters long, that are in the text."""
    return [piece for piece in (secret[i : i + 5] for i in range(len(secret) - 4)) if piece in text]


@pytest.mark.parametrize("secret", [TOKEN, API_KEY, "s3cr3t-value", "Zm9v+YmFy0Jhe%2Fg==", "ab\\u003dcdef\\\\ghijk"])
@pytest.mark.parametrize("text", [*QUERIES, *HEADERS, *DATA])
def test_secret_in_text_is_redacted(text: str, secret: str) -> None:
    """Secrets in queries, headers, JSON, reprs, settings and URLs are found by the name beside the value."""
    clean = Redactor().text(text.format(secret))
    assert not traces(secret, clean)
    assert REDACTED in clean


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "/rooms/{}/join",
        "no such path: /{}",
        "DecodeError({!r})",
        "x{}x",
        "line one\n{}\nline three",
        "got:{},expected something else",
    ],
)
def test_json_web_tokens_are_redacted_anywhere(text: str) -> None:
    """A JWT is recognized without a name beside it: complete, truncated, or without a signature."""
    for token in (TOKEN, TOKEN[:40], TOKEN.rpartition(".")[0] + ".", TOKEN.replace(".", "%2E")):
        clean = Redactor().text(text.format(token))
        assert not traces(token, clean)


def test_jwts_with_any_header_are_recognized() -> None:
    """The order of the fields in the header does not matter."""
    for header in ({"alg": "none"}, {"typ": "JWT", "alg": "RS256"}, {"kid": "x" * 500, "alg": "EdDSA"}):
        start = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
        assert Redactor().text(f"bad {start}.e30.c2ln end") == f"bad {REDACTED} end"


def test_known_secrets_are_redacted_anywhere() -> None:
    """Secrets of the configuration are redacted without a name beside them, the longest first."""
    redactor = Redactor([API_KEY, API_KEY + "-more", "second_key"])
    assert redactor.text(f"GET /api/{API_KEY}/x and {API_KEY}-more.") == f"GET /api/{REDACTED}/x and {REDACTED}."
    assert redactor.text("path /second_key") == f"path /{REDACTED}"
    assert redactor.fields({"user": "ann", "path": API_KEY}) == {"user": "ann", "path": REDACTED}


def test_short_known_secrets_are_not_searched() -> None:
    """A secret like `key` would match inside ordinary words."""
    assert Redactor(["key", ""]).text("keyboard key") == "keyboard key"


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "Token",
        "ticket",
        "api_key",
        "apikey",
        "X-API-Key",
        "Authorization",
        "hmac_secret",
        "password",
        "cookie",
    ],
)
def test_fields_with_the_name_of_a_secret_are_redacted(name: str) -> None:
    """The value is hidden, whatever its type, at any depth."""
    redactor = Redactor()
    assert redactor.fields({name: "x"}) == {name: REDACTED}
    assert redactor.fields({name: b"x"}) == {name: REDACTED}
    assert redactor.fields({name: 12345}) == {name: REDACTED}
    assert redactor.fields({name: ["x"]}) == {name: REDACTED}
    assert redactor.fields({"a": {"b": [{name: "x", "c": 1}]}}) == {"a": {"b": [{name: REDACTED, "c": 1}]}}


def test_secrets_in_containers_bytes_and_objects_are_redacted() -> None:
    """Secrets are found in bytes, in exceptions, in the text of any object, and in deeply nested containers."""
    redactor = Redactor()
    deep: object = f"token={API_KEY}"
    for _ in range(10):
        deep = [deep]
    for value in (
        f"?token={API_KEY}".encode(),
        ValueError(f"?token={API_KEY}"),
        {"k": (f"?token={API_KEY}",)},
        {f"?token={API_KEY}"},
        deep,
    ):
        clean = str(redactor.fields({"value": value}))
        assert API_KEY not in clean
        assert REDACTED in clean


@pytest.mark.parametrize(
    "text",
    [
        "session_connected",
        "invalid token: aud does not match",
        "token expired",
        "a subscription token is needed for channels that start with $",
        "no key for kid rotated-2",
        "token_keys_fetched",
        "the secret of HS256 is not set",
        "centrifuge-json",
        "https://example.com/path?room=1&user=ann",
        "basically everything",
        "private channel",
        "eyJ",
    ],
)
def test_harmless_text_is_not_changed(text: str) -> None:
    """Redaction must not hide the cause of an error."""
    assert Redactor().text(text) == text


def test_fields_without_secrets_are_not_copied() -> None:
    """The usual line is searched once, and not copied."""
    fields = {"user": "ann", "code": 3008, "channel": "chat:1"}
    assert Redactor(["long-enough"]).fields(fields) is fields


def test_plain_values_keep_their_type() -> None:
    """Only values that JSON cannot express become text."""
    fields = {"a": 1, "b": 1.5, "c": True, "d": None, "e": float("inf"), "f": [1, "x"]}
    assert Redactor().fields(fields) == {**fields, "e": "inf"}


def test_redaction_is_idempotent() -> None:
    """A text that is redacted twice, such as the traceback of a library, does not change the second time."""
    redactor = Redactor()
    for text in (*QUERIES, *HEADERS, *DATA):
        once = redactor.text(text.format(API_KEY))
        assert redactor.text(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "eyJ" * 20_000,
        "token" * 12_000,
        "token=" * 10_000,
        "://" * 20_000,
        "authorization: " * 4000,
        "token\\\\\\" * 7000,
    ],
)
def test_long_text_takes_linear_time(text: str) -> None:
    """A text of 60 KB that a client made to slow down the server takes milliseconds."""
    started_s = time.process_time()
    Redactor().text(text)
    assert time.process_time() - started_s < 3
