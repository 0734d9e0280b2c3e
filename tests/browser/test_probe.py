"""How the browser client probes for a better transport, with scripted transports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.acceptance.server_process import ServerProcess
from tests.browser.client_page import CONFIG

_SCRIPT = """
async (scripts) => {
  const { TransportProbe } = await import("/client/transport_probe.js");
  window.calls = [];
  const kinds = Object.entries(scripts).map(([label, script]) => class {
    static label = label;
    constructor(address, handlers) { this.handlers = handlers; }
    open(connect) {
      calls.push(`open ${label}`);
      const { id } = JSON.parse(connect);
      for (const message of script.messages ?? []) {
        if (message.id) message.id = id;
        this.handlers.message(JSON.stringify(message));
      }
      if ("ends" in script) this.handlers.end(script.ends, "scripted");
    }
    close() { calls.push(`close ${label}`); }
    welcome() {}
    send() {}
  });
  const options = { openTimeoutMs: 5000, pingGraceMs: 10000, withCredentials: false };
  const onFound = (kind) => calls.push(`found ${kind.label}`);
  window.probe = new TransportProbe({ address: (path) => path, options, connectRequest: () => ({}), onFound });
  probe.start(kinds);
}
"""
ACCEPTED: Any = {"messages": [{"id": 1, "connect": {"client": "c"}}]}
FIRST_PROBE_DUE_MS = 90_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Serves the client's modules."""
    folder: Path = tmp_path_factory.mktemp("server")
    with ServerProcess(folder, CONFIG) as process:
        yield process


@pytest.fixture
def page(browser: Browser, server: ServerProcess) -> Iterator[Page]:
    """A page whose clock the test controls."""
    page = browser.new_context().new_page()
    page.clock.install()
    page.goto(f"{server.http}/health")
    yield page
    page.context.close()


def probe(page: Page, **scripts: Any) -> list[str]:
    """Returns the calls of the first round, without repeated ones."""
    page.evaluate(_SCRIPT, scripts)
    page.clock.fast_forward(FIRST_PROBE_DUE_MS)
    return list(dict.fromkeys(page.evaluate("calls")))


@pytest.mark.parametrize(
    "refusal",
    [
        {"ends": 0},
        {"ends": 3504},
        {"messages": [{"id": 1, "error": {"code": 109, "message": "token expired"}}]},
        {"messages": [{"push": {"disconnect": {"code": 3504, "reason": "connection limit"}}}], "ends": 0},
    ],
)
def test_a_refused_probe_does_not_replace_the_connection(page: Page, refusal: Any) -> None:
    """A refusal shows that the transport works, but a client that switched to it now would have no connection."""
    calls = probe(page, first=refusal, second=refusal)
    assert calls == ["open first", "close first", "open second", "close second"]


def test_each_probe_is_opened_once_and_closed(page: Page) -> None:
    """A probe that stays open would count for the user's connection limit and appear in presence."""
    page.evaluate(_SCRIPT, {"first": {"ends": 0}, "second": ACCEPTED})
    page.clock.fast_forward(FIRST_PROBE_DUE_MS)
    calls = page.evaluate("calls")
    assert [call for call in calls if call.startswith("open")] == ["open first", "open second"]
    assert calls[-2:] == ["close second", "found second"]


def test_stop_ends_probing(page: Page) -> None:
    """The running attempt is closed, and no other one follows."""
    assert probe(page, silent={}) == ["open silent"]
    page.evaluate("probe.stop()")
    page.clock.fast_forward(10 * FIRST_PROBE_DUE_MS)
    assert page.evaluate("calls") == ["open silent", "close silent"]
