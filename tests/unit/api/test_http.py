"""The server API over HTTP, tested through ASGI: keys, errors, statuses and paths."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from beaconfire.api.examples import EXAMPLES
from beaconfire.api.http import ApiHttp
from beaconfire.api.methods import METHODS
from beaconfire.api.options import ApiOptions
from beaconfire.auth.keys import ApiKeys
from tests.unit.api.harness import ApiHarness
from tests.unit.api.http_calls import TRANSPORT, body, raw, serve


def test_publish() -> None:
    """The response has status 200 and is JSON, whatever the content type of the request."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        client = harness.connect("ann", "chat")
        response = await http.post("/api/publish", content=b'{"channel":"chat","data":{"n": 1.50}}')
        assert (response.status_code, response.json()) == (
            200,
            {"result": {"offset": 1, "epoch": "epoch", "durability": "memory"}},
        )
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
