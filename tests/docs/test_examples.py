"""The files in `examples` are equal to the blocks in the readme, and they work."""

from __future__ import annotations

import functools
import http.server
import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from beaconfire.auth.issue import connection_token
from tests.acceptance.server_process import API_KEY, REFERENCE_CONFIG, SECRET, ServerProcess
from tests.browser.conftest import browser  # noqa: F401  # a fixture
from tests.docs.pages import ROOT, blocks

EXAMPLES = ROOT / "examples"
ROOM = "small:kitchen"
"""A room in which users of the reference configuration may subscribe and publish."""


def test_the_readme_shows_the_files() -> None:
    """The readme contains the files unchanged."""
    shown = {block.text for block in blocks(ROOT / "README.md")}
    for name in ("backend.py", "sdk.py", "browser.js"):
        assert (EXAMPLES / name).read_text(encoding="utf-8") in shown, name


class SilentHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """Serves a copy of the examples, like `python -m http.server`."""
    folder = tmp_path / "examples"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(SilentHandler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def server(tmp_path: Path, site: str) -> Iterator[ServerProcess]:
    overrides = {"client.allowed_origins": site}
    with ServerProcess(tmp_path, REFERENCE_CONFIG, overrides) as process:
        for name in ("browser.html", "browser.js", "client.html"):
            text = (EXAMPLES / name).read_text(encoding="utf-8")
            (tmp_path / "examples" / name).write_text(text.replace("localhost:8000", f"127.0.0.1:{process.port}"))
        yield process


def call(server: ServerProcess, method: str, **request: object) -> Any:
    headers = {"X-API-Key": API_KEY, "Content-Type": "application/json"}
    body = json.dumps(request).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{server.http}/api/{method}", body, headers), timeout=10) as r:
        return json.load(r)["result"]


def token(user: str) -> str:
    return connection_token(SECRET, user, now_unix_s=time.time(), expires_in_s=600)


def join(page: Page, site: str, token: str) -> None:
    page.goto(f"{site}/browser.html")
    page.get_by_label("Room").fill(ROOM)
    page.get_by_label("Token").fill(token)
    with page.expect_console_message(lambda message: message.text == f"joined {ROOM}"):
        page.get_by_role("button", name="Join").click()


def test_two_browsers_chat(server: ServerProcess, site: str, browser: Any) -> None:  # noqa: F811
    """With tokens and user names; a disconnected client receives each missed message once."""
    ann, bob = browser.new_page(), browser.new_page()
    join(ann, site, token("ann"))
    join(bob, site, token("bob"))
    ann.get_by_label("Message").fill("hello")
    ann.keyboard.press("Enter")
    for page in (ann, bob):
        expect(page.locator("li")).to_have_text(["ann: hello"])
    call(server, "disconnect", user="bob", disconnect={"code": 3011})
    call(server, "publish", channel=ROOM, data={"text": "soup is ready"})
    with bob.expect_console_message(lambda message: message.text == f"joined {ROOM}"):
        pass
    call(server, "publish", channel=ROOM, data={"text": "really"})
    for page in (ann, bob):
        expect(page.locator("li")).to_have_text(["ann: hello", "the backend: soup is ready", "the backend: really"])


def test_two_browsers_chat_with_the_client(server: ServerProcess, site: str, browser: Any) -> None:  # noqa: F811
    """A page of another site imports the client from the server; after a reconnect it shows the missed messages."""
    ann, bob = browser.new_page(), browser.new_page()
    for page, user in ((ann, "ann"), (bob, "bob")):
        page.goto(f"{site}/client.html")
        page.get_by_label("Room").fill(ROOM)
        page.get_by_label("Token").fill(token(user))
        page.get_by_role("button", name="Join").click()
        expect(page.get_by_role("status")).to_have_text("connected over websocket")
    ann.get_by_label("Message").fill("hello")
    ann.keyboard.press("Enter")
    for page in (ann, bob):
        expect(page.locator("li")).to_have_text(["ann: hello"])
    call(server, "disconnect", user="bob", disconnect={"code": 3011})
    call(server, "publish", channel=ROOM, data={"text": "soup is ready"})
    for page in (ann, bob):
        expect(page.locator("li")).to_have_text(["ann: hello", "the backend: soup is ready"])
    call(server, "disconnect", user="bob")
    expect(bob.get_by_role("status")).to_have_text("disconnected by the server: force disconnect")
