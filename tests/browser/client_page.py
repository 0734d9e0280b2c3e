"""A page with the browser client for tests. The page records all events of the client."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from contextlib import suppress
from typing import Any

from playwright.sync_api import BrowserContext, Page, WebSocketRoute

from beaconfire.auth.issue import connection_token
from tests.acceptance.server_process import ServerProcess

DEADLINE_S = 20.0
API_KEY = "api_key"
SECRET = "secret"
TRANSPORTS = ("websocket", "http_stream", "sse", "poll")
WEBSOCKET_AND_POLL = ("websocket", "poll")
"""A transport with a real connection, and the polling transport."""

CONFIG = """
[server]
host = "127.0.0.1"
port = 8000
[client]
allowed_origins = ["http://127.0.0.1:*"]
allow_anonymous = true
expired_close_delay = "1s"
expired_sub_close_delay = "1s"
[token]
hmac_secret = "secret"
[api]
keys = ["api_key"]
[channel]
presence = true
join_leave = true
force_push_join_leave = true
history_size = 2000
history_ttl = "300s"
force_recovery = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_subscriber = true
allow_publish_for_anonymous = true
allow_presence_for_subscriber = true
allow_presence_for_anonymous = true
allow_history_for_subscriber = true
allow_history_for_anonymous = true
[namespaces.closed]
[namespaces.short]
history_size = 2
history_ttl = "300s"
force_recovery = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
"""

_SCRIPT = """
async ([url, options, channel, own]) => {
  const { Client } = await import("/client/beaconfire.js");
  if (options.mint) options.getToken = () => window.mint("");
  if (own.mint) own.getToken = ({ channel }) => window.mint(channel);
  const client = new Client(url, options);
  const seen = { states: [], room: [], entered: [], heard: [], leftOut: [], joined: [], granted: [], server: [] };
  client.on("state", (change) => seen.states.push(change));
  client.on("subscribed", (event) => seen.granted.push(event));
  client.on("publication", ({ data }) => seen.server.push(data));
  const room = client.subscription(channel, own);
  room.on("state", (change) => seen.room.push(change));
  room.on("subscribed", (event) => seen.entered.push(event));
  room.on("publication", ({ data, conflated }) => {
    seen.heard.push(data);
    seen.leftOut.push(conflated);
  });
  room.on("join", ({ info }) => seen.joined.push(info.client));
  Object.assign(window, { client, room, seen });
  room.subscribe();
  client.connect();
}
"""


class ClientPage:
    """A page with one client and one subscription. The page is on the server's origin, so it can import the client."""

    def __init__(self, context: BrowserContext, server: ServerProcess) -> None:
        self.server = server
        self.user = ""
        self.problems: list[str] = []
        self.page: Page = context.new_page()
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))

    def start(
        self, url: str = "", channel: str = "campfire", own: object = None, user: str = "", **options: Any
    ) -> None:
        """Creates a client with these options, and connects. With `mint=True`, `getToken` calls `window.mint`. With
        `user`, the client has a token.
        """
        self.user = user
        if user:
            options.setdefault("token", connection_token(SECRET, user, now_unix_s=time.time()))
        self.page.goto(f"{self.server.http}/health")
        self.page.evaluate(_SCRIPT, [url or self.server.http, options, channel, own or {}])

    def seen(self, what: str) -> Any:
        return self.page.evaluate(f"seen.{what}")

    def until(self, expression: str, deadline_s: float = DEADLINE_S) -> None:
        """Waits for the expression. `wait_for_function` would depend on the page's own clock."""
        end_s = time.monotonic() + deadline_s
        while not self.page.evaluate(expression):
            if time.monotonic() > end_s:
                raise AssertionError(f"still not: {expression}; {self.page.evaluate('seen')}")
            self.page.wait_for_timeout(20)

    def until_entered(self, times: int = 1) -> None:
        self.until(f"room.state === 'subscribed' && seen.entered.length >= {times}")

    @property
    def client_id(self) -> str:
        return str(self.page.evaluate("seen.states.findLast(({ state }) => state === 'connected').client"))

    def disconnect(self, code: int, reason: str = "") -> None:
        """Disconnects the client with the server API."""
        losses = len(self.seen("states"))
        self.act("disconnect", f"seen.states.length > {losses}", disconnect={"code": code, "reason": reason})

    def act(self, method: str, expected: str, **request: object) -> None:
        """Calls the server API for this client repeatedly, until `expected` is true.

        A polling client has another id in each request, and the API reaches it only while a request waits. Therefore
        it needs a user.
        """
        polls = self.page.evaluate("client.transport") == "poll"
        who = {"user": self.user} if polls else {"user": "", "client": self.client_id}
        end_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < end_s:
            call(self.server, method, **who, **request)
            with suppress(AssertionError):
                return self.until(expected, 0.3)
        raise AssertionError(f"still not: {expected}; {self.page.evaluate('seen')}")


def call(server: ServerProcess, method: str, **request: object) -> Any:
    """Calls the server API."""
    headers = {"X-API-Key": API_KEY, "Content-Type": "application/json"}
    body = json.dumps(request).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{server.http}/api/{method}", body, headers), timeout=10) as r:
        answer = json.load(r)
    assert "result" in answer, answer
    return answer["result"]


class Backend:
    """Publishes increasing numbers in a channel until `stop`."""

    def __init__(self, server: ServerProcess, channel: str = "campfire", pause_s: float = 0.01) -> None:
        self._server = server
        self._channel = channel
        self._pause_s = pause_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.published = 0

    def __enter__(self) -> Backend:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> list[int]:
        """Stops publishing. Returns all published numbers."""
        self._stopped.set()
        self._thread.join()
        return list(range(self.published))

    def _run(self) -> None:
        while not self._stopped.wait(self._pause_s):
            call(self._server, "publish", channel=self._channel, data=self.published)
            self.published += 1


def allow_only(page: Page, transport: str, sockets: list[WebSocketRoute]) -> None:
    """Blocks all other transports as networks do: WebSockets open and stay silent, requests fail."""
    if transport != "websocket":
        page.route_web_socket("**/connection/websocket", lambda route: sockets.append(route))
    for other in ("http_stream", "sse", "poll"):
        if transport != other:
            page.route(f"**/connection/{other}*", lambda route: route.abort())
