"""Request bodies of the server API over HTTP: their form, their limits, batches and lines of commands."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beaconfire.api.http import ApiHttp
from beaconfire.api.methods import METHODS
from beaconfire.api.options import ApiOptions
from beaconfire.auth.keys import ApiKeys
from beaconfire.base.units import Size
from tests.unit.api.harness import ApiHarness
from tests.unit.api.http_calls import TRANSPORT, body, raw, serve

# --- form --------------------------------------------------------------------------------------------------------


def test_a_body_that_is_not_json_has_status_400() -> None:
    """In both error modes, with a text that names the position."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        for headers in ({}, TRANSPORT):
            response = await http.post("/api/publish", content=b'{"channel":"a",}', headers=headers)
            assert response.status_code == 400
            assert response.headers["content-type"] == "text/plain; charset=utf-8"
            assert response.text.startswith("The request body is not JSON: ")
            assert "byte 15" in response.text

    serve(requests)


def test_an_empty_body_is_an_empty_request() -> None:
    """`info` and similar methods need no body. For other methods the error names the missing field."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        assert (await http.post("/api/info")).json()["result"]["nodes"][0]["uid"] == "uid"
        assert (await http.post("/api/publish")).json()["error"]["detail"] == "channel is required"

    serve(requests)


# --- size and pauses ---------------------------------------------------------------------------------------------


def small(harness: ApiHarness, pause_max_s: float = 10.0) -> ApiHttp:
    options = ApiOptions(keys=["right"], request_max_size=Size(40))
    return ApiHttp(harness.api, ApiKeys(options.keys), options, pause_max_s)


def test_a_declared_size_above_the_limit_is_rejected_before_reading() -> None:
    """Status 413 without reading any byte. The connection is closed."""

    async def main() -> None:
        harness = await ApiHarness().start()
        headers = [(b"x-api-key", b"right"), (b"content-length", b"41")]
        sent = await raw(small(harness), [], headers=headers)
        assert sent[0]["status"] == 413
        assert (b"connection", b"close") in sent[0]["headers"]
        assert b"40 bytes (api.request_max_size)" in sent[1]["body"]
        assert harness.limits_hit() == ["api.request_max_size"]

    asyncio.run(main())


def test_an_actual_size_above_the_limit_is_rejected_while_reading() -> None:
    """A body without a declared size, or with a wrong one, is rejected at the limit. A body of exactly the limit is
    accepted.
    """

    async def main() -> None:
        harness = await ApiHarness().start()
        app = small(harness)
        text = b'{"channel":"chat","data":12345678901234}'
        assert len(text) == 40
        assert (await raw(app, body(text)))[0]["status"] == 200
        assert (await raw(app, body(text[:10], b"", text[10:])))[0]["status"] == 200
        assert (await raw(app, body(text + b" ")))[0]["status"] == 413
        headers = [(b"x-api-key", b"right"), (b"content-length", b"1")]
        assert (await raw(app, [*body(text, b" ", b"never read")][:2], headers=headers))[0]["status"] == 413

    asyncio.run(main())


def test_a_body_that_pauses_has_status_408() -> None:
    """The connection is closed. Empty parts do not restart the time limit."""

    async def main() -> None:
        harness = await ApiHarness().start()
        app = small(harness, pause_max_s=0.01)
        for messages in ([None], [*body(b"{", b"")[:1], None], [*body(b"", b"")[:1], None]):
            sent = await raw(app, messages)
            assert sent[0]["status"] == 408
            assert (b"connection", b"close") in sent[0]["headers"]
        assert harness.limits_hit() == ["body_pause_max"] * 3

    asyncio.run(main())


def test_a_client_that_disconnects_gets_no_response() -> None:
    """The method is not called."""

    async def main() -> None:
        harness = await ApiHarness().start()
        start = body(b'{"channel":"chat","data":1}', b"")[0]
        assert await raw(small(harness), [start, {"type": "http.disconnect"}]) == []
        assert harness.calls() == []
        assert harness.internal_errors() == []

    asyncio.run(main())


# --- batch and lines ---------------------------------------------------------------------------------------------


def test_the_response_of_a_batch_has_no_result_field() -> None:
    """`replies` is at the top level. An error of the whole batch has the usual form."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        commands = [{"publish": {"channel": "chat", "data": 1}}, {"presence": {"channel": "nowhere:x"}}]
        response = (await http.post("/api/batch", json={"commands": commands, "parallel": False})).json()
        assert response["replies"][0] == {"publish": {"offset": 1, "epoch": "epoch", "durability": "memory"}}
        assert response["replies"][1]["error"]["code"] == 102
        assert set(response) == {"replies"}
        assert (await http.post("/api/batch", json={"commands": 1})).json()["error"]["code"] == 107

    serve(requests)


@pytest.mark.parametrize("path", ["/api", "/api/"])
def test_lines_of_commands(path: str) -> None:
    """The response has one line for each command, in order, even if a payload contains line breaks."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        lines = [
            b'{"method":"publish","params":{"channel":"chat","data":[1,\n2]}}',
            b'{"method":"history","params":{"channel":"chat","limit":1}}',
            b'{"method":"nix","params":{}}',
            b'{"method":"publish","params":{"channel":5}}',
            b'{"method":"info"}',
            b'{"method":"channels","params":null}',
        ]
        response = await http.post(path, content=b"\n".join(lines), headers=TRANSPORT)
        assert response.status_code == 200
        responses = [json.loads(line) for line in response.text.split("\n")]
        assert responses[0] == {"result": {"offset": 1, "epoch": "epoch", "durability": "memory"}}
        assert responses[1]["result"]["publications"] == [{"data": [1, 2], "offset": 1}]
        assert [r["error"]["code"] for r in responses[2:4]] == [104, 107]
        assert responses[4]["result"]["nodes"][0]["uid"] == "uid"
        assert responses[5] == {"result": {"channels": {}}}

    serve(requests)


def test_a_single_line_decides_the_status() -> None:
    """Its error decides the status in error mode transport."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        line = b'{"method":"presence","params":{"channel":"nowhere:x"}}'
        assert (await http.post("/api", content=line)).status_code == 200
        assert (await http.post("/api", content=line, headers=TRANSPORT)).status_code == 404

    serve(requests)


def test_invalid_lines() -> None:
    """Status 400 for text that is not lines of commands, error 107 for no lines and for more lines than a batch may
    have.
    """

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        for content in (b'{"method":', b'{"method":5}', b'{"params":{}}', b"[]"):
            response = await http.post("/api", content=content)
            assert response.status_code == 400
            assert response.text.startswith("The request body must be lines of ")
        assert (await http.post("/api", content=b"")).json()["error"]["detail"] == "expected 1 to 2 commands, got 0"
        response = await http.post("/api", content=b'{"method":"info"}\n' * 3, headers=TRANSPORT)
        assert (response.status_code, response.json()["error"]["code"]) == (400, 107)
        assert harness.limits_hit() == ["api.batch_max"]

    serve(requests, ApiOptions(keys=["right"], batch_max=2))


def test_lines_are_not_executed_if_the_response_is_full() -> None:
    """Each remaining line gets error 111."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        await harness.call("publish", channel="chat", data="x" * 300)
        line = json.dumps({"method": "history", "params": {"channel": "chat", "limit": -1}})
        response = await http.post("/api", content="\n".join([line] * 5))
        codes = [json.loads(text).get("error", {"code": 0})["code"] for text in response.text.splitlines()]
        assert codes == [0, 0, 0, 111, 111]

    serve(requests, ApiOptions(keys=["right"], response_max_size=Size(1000)))


# --- fuzz --------------------------------------------------------------------------------------------------------


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(["chat", "a:b"]),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=8,
)
FIELDS = sorted({name for method in METHODS.values() for name in method.request.__struct_fields__})
BODIES = st.one_of(
    st.binary(max_size=60),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5).map(lambda value: json.dumps(value).encode()),
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(method=st.sampled_from([*METHODS, ""]), content=BODIES, transport=st.booleans())
def test_random_bodies(method: str, content: bytes, transport: bool) -> None:
    """Every body is answered without status 500, and no unexpected exception is reported."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        path = f"/api/{method}" if method else "/api"
        response = await http.post(path, content=content, headers=TRANSPORT if transport else {})
        assert response.status_code in ((200, 400, 404, 416) if transport else (200, 400))
        if response.headers["content-type"] == "application/json" and method:
            assert len(set(response.json()) & {"result", "error", "replies"}) == 1
        assert harness.internal_errors() == []

    serve(requests)
