"""The server API over HTTP, tested through ASGI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beaconfire.api.examples import EXAMPLES
from beaconfire.api.http import ApiHttp
from beaconfire.api.methods import METHODS
from beaconfire.api.options import ApiOptions
from beaconfire.auth.keys import ApiKeys
from beaconfire.base.units import Size
from tests.unit.api.harness import ApiHarness

KEY = {"X-API-Key": "right"}
TRANSPORT = {"X-Centrifugo-Error-Mode": "transport"}

Requests = Callable[[ApiHarness, httpx.AsyncClient], Coroutine[Any, Any, None]]


def serve(requests: Requests, options: ApiOptions | None = None, headers: dict[str, str] = KEY) -> None:
    """Runs `requests` against a new harness. `headers` are sent with every request."""

    async def main() -> None:
        harness = await ApiHarness(options).start()
        app = ApiHttp(harness.api, ApiKeys(harness.options.keys), harness.options)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api.test", headers=headers) as client:
            await requests(harness, client)

    asyncio.run(main())


async def raw(app: ApiHttp, messages: Sequence[dict[str, Any] | None], **scope: Any) -> list[dict[str, Any]]:
    """The messages that the application sends for these ASGI messages. None stands for a message that never arrives."""
    waiting = list(messages)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        assert waiting, "asked for more than there is"
        message = waiting.pop(0)
        return message if message is not None else await asyncio.Future[dict[str, Any]]()

    async def send(message: Any) -> None:
        sent.append(message)

    head = {"type": "http", "method": "POST", "path": "/api/publish", "query_string": b"", "headers": []}
    await app({**head, "headers": [(b"x-api-key", b"right")], **scope}, receive, send)
    return sent


def body(*parts: bytes) -> list[dict[str, Any] | None]:
    """The ASGI messages of a request body in several parts."""
    return [{"type": "http.request", "body": part, "more_body": i < len(parts) - 1} for i, part in enumerate(parts)]


def test_publish() -> None:
    """The response has status 200 and is JSON, whatever the content type of the request."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        client = harness.connect("ann", "chat")
        response = await http.post("/api/publish", content=b'{"channel":"chat","data":{"n": 1.50}}')
        assert (response.status_code, response.json()) == (200, {"result": {"offset": 1, "epoch": "epoch"}})
        assert response.headers["content-type"] == "application/json"
        assert client.data() == [{"n": 1.5}]

    serve(requests)


@pytest.mark.parametrize("method", METHODS)
def test_examples_match_the_methods(method: str) -> None:
    """Each example is accepted by its method, and its response has the fields of the real one."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        for number in range(6):
            await harness.call("publish", channel="chat", data=number)
        example = json.loads(json.dumps(EXAMPLES[method].request).replace("kQzVbRtL", "epoch"))
        response = (await http.post(f"/api/{method}", json=example)).json()
        expected = EXAMPLES[method].response
        assert set(response) == set(expected)
        if "result" in expected:
            assert set(response["result"]) == set(expected["result"])
        if "error" in expected:
            assert response == expected

    serve(requests)


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {"X-API-Key": "right"}),
        ("", {"x-api-key": "old"}),
        ("", {"Authorization": "apikey right"}),
        ("", {"Authorization": "ApiKey  right"}),
        ("?api_key=right", {}),
        ("?x=1&api_key=right", {"Authorization": "Basic eDp5"}),
        ("?api_key=right", {"X-API-Key": "wrong"}),
    ],
)
def test_a_key_can_be_sent_in_three_ways(query: str, headers: dict[str, str]) -> None:
    """Any valid key is accepted. The case of the scheme does not matter."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        assert (await http.post(f"/api/info{query}", headers=headers)).status_code == 200

    serve(requests, headers={})


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {}),
        ("", {"X-API-Key": ""}),
        ("", {"X-API-Key": "wrong"}),
        ("", {"X-API-Key": "rightt"}),
        ("", {"X-API-Key": b"righ\xff"}),
        ("", {"Authorization": "right"}),
        ("", {"Authorization": "Bearer right"}),
        ("", {"Authorization": "apikey"}),
        ("?api_key=", {}),
        ("?api_key=wrong&api_key=right", {}),
        ("?xapi_key=right", {}),
        ("?api_key=%FF", {}),
    ],
)
@pytest.mark.parametrize("path", ["/api/publish", "/api/nix", "/api"])
def test_without_a_valid_key_the_status_is_401(path: str, query: str, headers: dict[str, Any]) -> None:
    """The response lists the ways to send a key. Nothing is executed, and unknown methods look like known ones."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        client = harness.connect("ann", "chat")
        response = await http.post(path + query, json={"channel": "chat", "data": 1}, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (401, 101)
        assert response.headers["www-authenticate"] == "apikey"
        assert "X-API-Key" in response.json()["error"]["detail"]
        assert client.data() == []
        assert harness.calls() == []

    serve(requests, headers={})


def test_without_configured_keys_every_call_is_rejected() -> None:
    """An API without keys is closed, not open."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        assert (await http.post("/api/info", headers={"X-API-Key": ""})).status_code == 401

    serve(requests, ApiOptions())


def test_insecure_needs_no_key() -> None:
    """An option for development."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        assert (await http.post("/api/info")).status_code == 200

    serve(requests, ApiOptions(insecure=True), headers={})


ERRORS = [
    ("publish", {"channel": "nowhere:x", "data": 1}, 102, 404),
    ("rpc", {"method": "x"}, 104, 404),
    ("publish", {"channel": ""}, 107, 400),
    ("publish", {"channel": 5}, 107, 400),
    ("presence", {"channel": "fleeting:x"}, 108, 400),
    ("history", {"channel": "chat", "since": {"offset": 1, "epoch": "x"}}, 112, 416),
]


@pytest.mark.parametrize(("method", "request_", "code", "status"), ERRORS)
@pytest.mark.parametrize("header", ["X-Centrifugo-Error-Mode", "x-beaconfire-error-mode"])
def test_error_modes(method: str, request_: dict[str, Any], code: int, status: int, header: str) -> None:
    """Errors have status 200, unless the request selects error mode `transport`. The body is the same."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        usual = await http.post(f"/api/{method}", json=request_)
        assert (usual.status_code, usual.json()["error"]["code"]) == (200, code)
        assert (await http.post(f"/api/{method}", json=request_, headers={header: "other"})).status_code == 200
        transport = await http.post(f"/api/{method}", json=request_, headers={header: "Transport"})
        assert (transport.status_code, transport.json()) == (status, usual.json())

    serve(requests)


def test_internal_errors_have_no_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Error 100, or status 500. Only the log has the details."""

    async def fail(channel: str) -> Any:
        raise OSError("secret")

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        monkeypatch.setattr(harness.engine.presence, "members", fail)
        for headers, status in (({}, 200), (TRANSPORT, 500)):
            response = await http.post("/api/presence", json={"channel": "chat"}, headers=headers)
            assert response.status_code == status
            assert response.json() == {"error": {"code": 100, "message": "internal server error"}}

    serve(requests)


def test_an_exception_outside_of_a_method_becomes_status_500(monkeypatch: pytest.MonkeyPatch) -> None:
    """The body is a regular error, and the exception is reported."""

    async def fail(*_: object) -> Any:
        raise OSError("secret")

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        monkeypatch.setattr(harness.api, "call", fail)
        response = await http.post("/api/info")
        assert (response.status_code, response.json()["error"]["code"]) == (500, 100)
        assert "secret" not in response.text
        assert harness.internal_errors() == ["api http"]

    serve(requests)


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


@pytest.mark.parametrize("path", ["/api/nix", "/api/publish/", "/api/publish/x", "/api/PUBLISH", "/api/é"])
def test_an_unknown_method_has_status_404(path: str) -> None:
    """With error 104, in both error modes."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        for headers in ({}, TRANSPORT):
            response = await http.post(path, json={}, headers=headers)
            assert (response.status_code, response.json()["error"]["code"]) == (404, 104)

    serve(requests)


@pytest.mark.parametrize(
    ("path", "verb", "allowed"),
    [
        ("/api/publish", "GET", "POST, OPTIONS"),
        ("/api/publish", "DELETE", "POST, OPTIONS"),
        ("/api/nix", "GET", "POST, OPTIONS"),
        ("/api/openapi.json", "POST", "GET, HEAD, OPTIONS"),
        ("/api/page.js", "PUT", "GET, HEAD, OPTIONS"),
        ("/api/", "PUT", "GET, HEAD, POST, OPTIONS"),
        ("/api", "DELETE", "GET, HEAD, POST, OPTIONS"),
    ],
)
def test_other_http_methods_have_status_405(path: str, verb: str, allowed: str) -> None:
    """The response lists the allowed methods, as the response to OPTIONS does."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        response = await http.request(verb, path)
        assert (response.status_code, response.headers["allow"]) == (405, allowed)
        response = await http.options(path)
        assert (response.status_code, response.headers["allow"], response.content) == (204, allowed, b"")

    serve(requests)


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/api/", "text/html; charset=utf-8"),
        ("/api/page.js", "text/javascript; charset=utf-8"),
        ("/api/page.css", "text/css; charset=utf-8"),
        ("/api/openapi.json", "application/json"),
    ],
)
def test_documents_need_no_key(path: str, media_type: str) -> None:
    """The page and the OpenAPI document are public. Their content security policy allows nothing from other hosts."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        response = await http.get(path)
        assert (response.status_code, response.headers["content-type"]) == (200, media_type)
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        head = await http.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(response.content))

    serve(requests, headers={})


def test_the_page_is_redirected_to_a_path_with_a_slash() -> None:
    """Without the trailing slash, relative URLs in the page would be wrong."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        response = await http.get("/api")
        assert (response.status_code, response.headers["location"]) == (308, "api/")

    serve(requests, headers={})


def test_the_page_loads_nothing_from_other_hosts() -> None:
    """No URL in its files leads to another host."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        for path in ("/api/", "/api/page.js", "/api/page.css"):
            assert "//" not in (await http.get(path)).text.replace("// ", "")

    serve(requests, headers={})


def test_mounted_under_a_prefix() -> None:
    """The API works whether a framework removes the prefix from the path or only sets `root_path`."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        app = ApiHttp(harness.api, ApiKeys(["right"]), harness.options)
        for path, root in (
            ("/api/info", "/api"),
            ("/info", "/api"),
            ("/push/api/info", "/push/api"),
            ("/push/api/info", "/push"),
            ("/info", ""),
        ):
            sent = await raw(app, body(b""), path=path, root_path=root)
            assert sent[0]["status"] == 200, (path, root)

    serve(requests)


def test_websocket_connections_are_rejected() -> None:
    """The API has no WebSocket endpoint."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        app = ApiHttp(harness.api, ApiKeys(["right"]), harness.options)
        sent = await raw(app, [{"type": "websocket.connect"}], type="websocket")
        assert [message["type"] for message in sent] == ["websocket.close"]

    serve(requests)


# --- bodies --------------------------------------------------------------------------------------------------------


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


# --- batch and lines -------------------------------------------------------------------------------------------


def test_the_response_of_a_batch_has_no_result_field() -> None:
    """`replies` is at the top level. An error of the whole batch has the usual form."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        commands = [{"publish": {"channel": "chat", "data": 1}}, {"presence": {"channel": "nowhere:x"}}]
        response = (await http.post("/api/batch", json={"commands": commands, "parallel": False})).json()
        assert response["replies"][0] == {"publish": {"offset": 1, "epoch": "epoch"}}
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
        assert responses[0] == {"result": {"offset": 1, "epoch": "epoch"}}
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


# --- fuzz ----------------------------------------------------------------------------------------------------------

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


def test_lines_are_not_executed_if_the_response_is_full() -> None:
    """Each remaining line gets error 111."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        await harness.call("publish", channel="chat", data="x" * 300)
        line = json.dumps({"method": "history", "params": {"channel": "chat", "limit": -1}})
        response = await http.post("/api", content="\n".join([line] * 5))
        codes = [json.loads(text).get("error", {"code": 0})["code"] for text in response.text.splitlines()]
        assert codes == [0, 0, 0, 111, 111]

    serve(requests, ApiOptions(keys=["right"], response_max_size=Size(1000)))
