"""Fixtures with a real browser and a real server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.acceptance.server_process import ServerProcess
from tests.browser.client_page import ClientPage
from tests.browser.network import Network
from tests.browser.pages import ChatPage

ROOT = Path(__file__).parent.parent.parent
SCREENSHOTS = ROOT / ".cache" / "screenshots"

CHROMIUM_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

OpenPage = Callable[..., ChatPage]
OpenClient = Callable[[], ClientPage]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser per module, not per session: its event loop occupies the thread, which other tests need."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.fail("Chromium is needed for the browser tests: install it, or say where it is with CHROMIUM=/path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server with the demo's configuration on a free port."""
    overrides = {"client.allowed_origins": '["http://127.0.0.1:*"]'}
    with ServerProcess(tmp_path, (ROOT / "demo.toml").read_text(), overrides) as process:
        yield process


@pytest.fixture
def network(server: ServerProcess) -> Iterator[Network]:
    """A network between the browser and the server. The test can interrupt it."""
    with Network(server.port) as network:
        yield network


@pytest.fixture
def ann(browser: Browser, server: ServerProcess) -> Iterator[ClientPage]:
    """A page for one client. At the end it may have thrown no error."""
    page = ClientPage(browser.new_context(), server)
    yield page
    page.page.context.close()
    assert page.problems == []


@pytest.fixture
def open_client(browser: Browser, server: ServerProcess) -> Iterator[OpenClient]:
    """Opens pages in separate contexts. At the end no page may have thrown an error."""
    pages: list[ClientPage] = []

    def open_one() -> ClientPage:
        page = ClientPage(browser.new_context(), server)
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        page.page.context.close()
    assert [problem for page in pages for problem in page.problems] == []


@pytest.fixture
def open_page(browser: Browser, server: ServerProcess) -> Iterator[OpenPage]:
    """Opens the demo for a user with a separate browser context and network. Further arguments are context options.

    At the end no page may have thrown an error or violated its Content-Security-Policy.
    """
    pages: list[ChatPage] = []
    with ExitStack() as networks:

        def open_one(name: str, room: str = "", transports: str = "", **context: object) -> ChatPage:
            network = networks.enter_context(Network(server.port))
            page = ChatPage(browser.new_context(**context), network)  # type: ignore[arg-type]  # its options, passed on
            pages.append(page)
            page.start_chatting(name, room, transports)
            return page

        yield open_one
        for page in pages:
            page.context.close()
    assert [problem for page in pages for problem in page.problems] == []


@pytest.fixture
def screenshots() -> Path:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return SCREENSHOTS
