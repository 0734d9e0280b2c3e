"""The server API over HTTP, at the level of ASGI."""

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
from tests.unit.api.world import World

KEY = {"X-API-Key": "right"}
TRANSPORT = {"X-Centrifugo-Error-Mode": "transport"}

Requests = Callable[[World, httpx.AsyncClient], Coroutine[Any, Any, None]]


def serve(requests: Requests, options: ApiOptions | None = None, headers: dict[str, str] = KEY) -> None:
    """Runs `requests` against a world of their own; `headers` are those of every request."""

    async def main() -> None:
        world = await World(options).start()
        app = ApiHttp(world.api, ApiKeys(world.options.keys), world.options)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api.test", headers=headers) as client:
            await requests(world, client)

    asyncio.run(main())


async def raw(app: ApiHttp, messages: Sequence[dict[str, Any] | None], **scope: Any) -> list[dict[str, Any]]:
    """What the app sends for these messages; None among them is one that never comes."""
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
    """The messages of a request body that comes in parts."""
    return [{"type": "http.request", "body": part, "more_body": i < len(parts) - 1} for i, part in enumerate(parts)]


def test_publish() -> None:
    """A result is status 200 and JSON, whatever the content type of the request says."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        client = world.connect("ann", "chat")
        answer = await http.post("/api/publish", content=b'{"channel":"chat","data":{"n": 1.50}}')
        assert (answer.status_code, answer.json()) == (200, {"result": {"offset": 1, "epoch": "epoch"}})
        assert answer.headers["content-type"] == "application/json"
        assert client.data() == [{"n": 1.5}]

    serve(requests)


@pytest.mark.parametrize("method", METHODS)
def test_examples_are_true(method: str) -> None:
    """Each example is accepted by its method, and its answer has the shape that the method gives."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        for number in range(6):
            await world.call("publish", channel="chat", data=number)
        example = json.loads(json.dumps(EXAMPLES[method].request).replace("kQzVbRtL", "epoch"))
        answer = (await http.post(f"/api/{method}", json=example)).json()
        expected = EXAMPLES[method].answer
        assert set(answer) == set(expected)
        if "result" in expected:
            assert set(answer["result"]) == set(expected["result"])
        if "error" in expected:
            assert answer == expected

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
def test_ways_to_send_a_key(query: str, headers: dict[str, str]) -> None:
    """Any of the three, and any of the keys; the scheme's case does not matter."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
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
def test_without_a_right_key(path: str, query: str, headers: dict[str, Any]) -> None:
    """401 with the ways to send one, nothing done, and nothing said about which methods there are."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        client = world.connect("ann", "chat")
        answer = await http.post(path + query, json={"channel": "chat", "data": 1}, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, 101)
        assert answer.headers["www-authenticate"] == "apikey"
        assert "X-API-Key" in answer.json()["error"]["detail"]
        assert client.data() == []
        assert world.calls() == []

    serve(requests, headers={})


def test_no_keys_let_nobody_in() -> None:
    """An API without keys is closed, not open."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        assert (await http.post("/api/info", headers={"X-API-Key": ""})).status_code == 401

    serve(requests, ApiOptions())


def test_insecure_asks_for_no_key() -> None:
    """The option for development."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
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
    """Errors are status 200, unless the request asks for statuses; the body is the same."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        usual = await http.post(f"/api/{method}", json=request_)
        assert (usual.status_code, usual.json()["error"]["code"]) == (200, code)
        assert (await http.post(f"/api/{method}", json=request_, headers={header: "other"})).status_code == 200
        transport = await http.post(f"/api/{method}", json=request_, headers={header: "Transport"})
        assert (transport.status_code, transport.json()) == (status, usual.json())

    serve(requests)


def test_internal_errors_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Error 100, or status 500; what went wrong is for the log."""

    async def fail(channel: str) -> Any:
        raise OSError("secret")

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        monkeypatch.setattr(world.engine.presence, "members", fail)
        for headers, status in (({}, 200), (TRANSPORT, 500)):
            answer = await http.post("/api/presence", json={"channel": "chat"}, headers=headers)
            assert answer.status_code == status
            assert answer.json() == {"error": {"code": 100, "message": "internal server error"}}

    serve(requests)


def test_failures_outside_of_a_call_are_answered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 500 in the API's own words, and reported."""

    async def fail(*_: object) -> Any:
        raise OSError("secret")

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        monkeypatch.setattr(world.api, "call", fail)
        answer = await http.post("/api/info")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, 100)
        assert "secret" not in answer.text
        assert world.internal_errors() == ["api http"]

    serve(requests)


def test_bodies_that_are_not_json() -> None:
    """Status 400 and a text that says where, in either error mode."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        for headers in ({}, TRANSPORT):
            answer = await http.post("/api/publish", content=b'{"channel":"a",}', headers=headers)
            assert answer.status_code == 400
            assert answer.headers["content-type"] == "text/plain; charset=utf-8"
            assert answer.text.startswith("The request body is not JSON: ")
            assert "byte 15" in answer.text

    serve(requests)


def test_an_empty_body_is_an_empty_request() -> None:
    """`info` and its like need none, others get told which field is missing."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        assert (await http.post("/api/info")).json()["result"]["nodes"][0]["uid"] == "uid"
        assert (await http.post("/api/publish")).json()["error"]["detail"] == "channel is required"

    serve(requests)


@pytest.mark.parametrize("path", ["/api/nix", "/api/publish/", "/api/publish/x", "/api/PUBLISH", "/api/é"])
def test_unknown_methods(path: str) -> None:
    """Status 404 with error 104, in either error mode."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        for headers in ({}, TRANSPORT):
            answer = await http.post(path, json={}, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, 104)

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
def test_other_verbs(path: str, verb: str, allowed: str) -> None:
    """405 with what is allowed, which OPTIONS tells as well."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        answer = await http.request(verb, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        answer = await http.options(path)
        assert (answer.status_code, answer.headers["allow"], answer.content) == (204, allowed, b"")

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
    """The page and its document are for everyone, under a policy that lets in nothing from elsewhere."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        answer = await http.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        head = await http.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(answer.content))

    serve(requests, headers={})


def test_the_page_is_where_it_says_it_is() -> None:
    """Without the slash at the end, relative addresses in the page would be wrong."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        answer = await http.get("/api")
        assert (answer.status_code, answer.headers["location"]) == (308, "api/")

    serve(requests, headers={})


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """No address in it leads to another host."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        for path in ("/api/", "/api/page.js", "/api/page.css"):
            assert "//" not in (await http.get(path)).text.replace("// ", "")

    serve(requests, headers={})


def test_mounted_under_a_prefix() -> None:
    """What a framework has stripped, or only marked, makes no difference."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        app = ApiHttp(world.api, ApiKeys(["right"]), world.options)
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


def test_websockets_are_refused() -> None:
    """There is nothing to talk about."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        app = ApiHttp(world.api, ApiKeys(["right"]), world.options)
        sent = await raw(app, [{"type": "websocket.connect"}], type="websocket")
        assert [message["type"] for message in sent] == ["websocket.close"]

    serve(requests)


# --- bodies --------------------------------------------------------------------------------------------------------


def small(world: World, pause_max_s: float = 10.0) -> ApiHttp:
    options = ApiOptions(keys=["right"], request_max_size=Size(40))
    return ApiHttp(world.api, ApiKeys(options.keys), options, pause_max_s)


def test_declared_size_is_judged_before_reading() -> None:
    """413 without asking for a single byte, and the connection ends."""

    async def main() -> None:
        world = await World().start()
        headers = [(b"x-api-key", b"right"), (b"content-length", b"41")]
        sent = await raw(small(world), [], headers=headers)
        assert sent[0]["status"] == 413
        assert (b"connection", b"close") in sent[0]["headers"]
        assert b"40 bytes (api.request_max_size)" in sent[1]["body"]
        assert world.limits_hit() == ["api.request_max_size"]

    asyncio.run(main())


def test_real_size_is_judged_while_reading() -> None:
    """A body that says nothing of its size, or lies, ends at the limit; up to it everything is well."""

    async def main() -> None:
        world = await World().start()
        app = small(world)
        text = b'{"channel":"chat","data":12345678901234}'
        assert len(text) == 40
        assert (await raw(app, body(text)))[0]["status"] == 200
        assert (await raw(app, body(text[:10], b"", text[10:])))[0]["status"] == 200
        assert (await raw(app, body(text + b" ")))[0]["status"] == 413
        headers = [(b"x-api-key", b"right"), (b"content-length", b"1")]
        assert (await raw(app, [*body(text, b" ", b"never read")][:2], headers=headers))[0]["status"] == 413

    asyncio.run(main())


def test_a_body_that_pauses() -> None:
    """408 and the end of the connection; parts that hold nothing do not count as going on."""

    async def main() -> None:
        world = await World().start()
        app = small(world, pause_max_s=0.01)
        for messages in ([None], [*body(b"{", b"")[:1], None], [*body(b"", b"")[:1], None]):
            sent = await raw(app, messages)
            assert sent[0]["status"] == 408
            assert (b"connection", b"close") in sent[0]["headers"]
        assert world.limits_hit() == ["body_pause_max"] * 3

    asyncio.run(main())


def test_a_client_that_goes_away() -> None:
    """Nothing is done and nothing is sent."""

    async def main() -> None:
        world = await World().start()
        start = body(b'{"channel":"chat","data":1}', b"")[0]
        assert await raw(small(world), [start, {"type": "http.disconnect"}]) == []
        assert world.calls() == []
        assert world.internal_errors() == []

    asyncio.run(main())


# --- batch and lines -------------------------------------------------------------------------------------------


def test_batch_has_no_result_around_it() -> None:
    """`replies` stands at the top; an error of the whole batch looks like any other."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        commands = [{"publish": {"channel": "chat", "data": 1}}, {"presence": {"channel": "nowhere:x"}}]
        answer = (await http.post("/api/batch", json={"commands": commands, "parallel": False})).json()
        assert answer["replies"][0] == {"publish": {"offset": 1, "epoch": "epoch"}}
        assert answer["replies"][1]["error"]["code"] == 102
        assert set(answer) == {"replies"}
        assert (await http.post("/api/batch", json={"commands": 1})).json()["error"]["code"] == 107

    serve(requests)


@pytest.mark.parametrize("path", ["/api", "/api/"])
def test_lines(path: str) -> None:
    """The older way: as many lines come back, in order, even if a payload had line breaks."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        lines = [
            b'{"method":"publish","params":{"channel":"chat","data":[1,\n2]}}',
            b'{"method":"history","params":{"channel":"chat","limit":1}}',
            b'{"method":"nix","params":{}}',
            b'{"method":"publish","params":{"channel":5}}',
            b'{"method":"info"}',
            b'{"method":"channels","params":null}',
        ]
        answer = await http.post(path, content=b"\n".join(lines), headers=TRANSPORT)
        assert answer.status_code == 200
        answers = [json.loads(line) for line in answer.text.split("\n")]
        assert answers[0] == {"result": {"offset": 1, "epoch": "epoch"}}
        assert answers[1]["result"]["publications"] == [{"data": [1, 2], "offset": 1}]
        assert [a["error"]["code"] for a in answers[2:4]] == [104, 107]
        assert answers[4]["result"]["nodes"][0]["uid"] == "uid"
        assert answers[5] == {"result": {"channels": {}}}

    serve(requests)


def test_one_line_can_have_a_status() -> None:
    """With a single command its error decides, in error mode transport."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        line = b'{"method":"presence","params":{"channel":"nowhere:x"}}'
        assert (await http.post("/api", content=line)).status_code == 200
        assert (await http.post("/api", content=line, headers=TRANSPORT)).status_code == 404

    serve(requests)


def test_lines_that_are_none() -> None:
    """400 for what is not such lines, error 107 for none and for more than a batch may have."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        for content in (b'{"method":', b'{"method":5}', b'{"params":{}}', b"[]"):
            answer = await http.post("/api", content=content)
            assert answer.status_code == 400
            assert answer.text.startswith("The request body is not lines of ")
        assert (await http.post("/api", content=b"")).json()["error"]["detail"] == "expected 1 to 2 commands, got 0"
        answer = await http.post("/api", content=b'{"method":"info"}\n' * 3, headers=TRANSPORT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, 107)
        assert world.limits_hit() == ["api.batch_max"]

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
def test_no_body_breaks_anything(method: str, content: bytes, transport: bool) -> None:
    """Whatever comes is answered, never with 500, and nothing unexpected is reported."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        path = f"/api/{method}" if method else "/api"
        answer = await http.post(path, content=content, headers=TRANSPORT if transport else {})
        assert answer.status_code in ((200, 400, 404, 416) if transport else (200, 400))
        if answer.headers["content-type"] == "application/json" and method:
            assert len(set(answer.json()) & {"result", "error", "replies"}) == 1
        assert world.internal_errors() == []

    serve(requests)


def test_lines_whose_answer_is_full_are_not_done_any_further() -> None:
    """Each line that is left has error 111 as its answer."""

    async def requests(world: World, http: httpx.AsyncClient) -> None:
        await world.call("publish", channel="chat", data="x" * 300)
        line = json.dumps({"method": "history", "params": {"channel": "chat", "limit": -1}})
        answer = await http.post("/api", content="\n".join([line] * 5))
        codes = [json.loads(text).get("error", {"code": 0})["code"] for text in answer.text.splitlines()]
        assert codes == [0, 0, 0, 111, 111]

    serve(requests, ApiOptions(keys=["right"], response_max_size=Size(1000)))
