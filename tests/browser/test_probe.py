"""How the browser client looks for a better transport, with transports that do as they are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.acceptance.server_process import ServerProcess
from tests.browser.client_page import CONFIG

_SCRIPT = """
async (does) => {
  const { Probe } = await import("/client/probe.js");
  window.told = [];
  const kinds = Object.entries(does).map(([label, what]) => class {
    static label = label;
    constructor(address, ears) { this.ears = ears; }
    open(connect) {
      told.push(`open ${label}`);
      const { id } = JSON.parse(connect);
      for (const message of what.says ?? []) {
        if (message.id) message.id = id;
        this.ears.message(JSON.stringify(message));
      }
      if ("ends" in what) this.ears.end(what.ends, "as it was told");
    }
    close() { told.push(`close ${label}`); }
    welcome() {}
    send() {}
  });
  const options = { openTimeoutMs: 5000, pingGraceMs: 10000, withCredentials: false };
  const found = (kind) => told.push(`found ${kind.label}`);
  window.probe = new Probe({ address: (path) => path, options, introduction: () => ({}), found });
  probe.begin(kinds);
}
"""
IN: Any = {"says": [{"id": 1, "connect": {"client": "c"}}]}
FIRST_AT_THE_LATEST_MS = 90_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """It serves the client, and nothing else is asked of it."""
    folder: Path = tmp_path_factory.mktemp("server")
    with ServerProcess(folder, CONFIG) as process:
        yield process


@pytest.fixture
def page(browser: Browser, server: ServerProcess) -> Iterator[Page]:
    """Its time moves when told."""
    page = browser.new_context().new_page()
    page.clock.install()
    page.goto(f"{server.http}/health")
    yield page
    page.context.close()


def look(page: Page, **does: Any) -> list[str]:
    """What happened in the first round, without transports that were closed more than once."""
    page.evaluate(_SCRIPT, does)
    page.clock.fast_forward(FIRST_AT_THE_LATEST_MS)
    return list(dict.fromkeys(page.evaluate("told")))


@pytest.mark.parametrize(
    "refusal",
    [
        {"ends": 0},
        {"ends": 3504},
        {"says": [{"id": 1, "error": {"code": 109, "message": "token expired"}}]},
        {"says": [{"push": {"disconnect": {"code": 3504, "reason": "connection limit"}}}], "ends": 0},
    ],
)
def test_only_who_is_let_in_gives_up_what_there_is(page: Page, refusal: Any) -> None:
    """A refusal says that the way is free, and that whoever took it now would be without a connection."""
    told = look(page, first=refusal, second=refusal)
    assert told == ["open first", "close first", "open second", "close second"]


def test_each_is_opened_once_and_closed_again(page: Page) -> None:
    """A session that nobody knows of would be one too many for the user, and be seen by others."""
    page.evaluate(_SCRIPT, {"first": {"ends": 0}, "second": IN})
    page.clock.fast_forward(FIRST_AT_THE_LATEST_MS)
    told = page.evaluate("told")
    assert [what for what in told if what.startswith("open")] == ["open first", "open second"]
    assert told[-2:] == ["close second", "found second"]


def test_who_stops_it_hears_no_more_of_it(page: Page) -> None:
    """The attempt under way is called off, and none comes after it."""
    assert look(page, silent={}) == ["open silent"]
    page.evaluate("probe.stop()")
    page.clock.fast_forward(10 * FIRST_AT_THE_LATEST_MS)
    assert page.evaluate("told") == ["open silent", "close silent"]
