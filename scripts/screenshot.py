"""Takes the screenshot of the demo for the readmes: `.venv/bin/python -m scripts.screenshot [FILE]`.

It starts the demo's server on a free port. Three users in headless Chromium and a backend send messages. The script
saves the page of one user. It needs Chromium on the PATH, or its path in the variable CHROMIUM.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import Browser, ViewportSize, expect, sync_playwright

from tests.acceptance.server_process import ServerProcess
from tests.browser.conftest import CHROMIUM_FLAGS
from tests.browser.network import Network
from tests.browser.pages import ChatPage

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "demo.png"
SIZE: ViewportSize = {"width": 1180, "height": 680}
PIXELS_PER_POINT = 1.5

FIRST_ROOM, KITCHEN, RELEASE = "campfire", "kitchen", "release 2.0"
MESSAGES = (
    ("Bob", "Smoke on the western ridge"),
    ("Ann", "I see it too. Lighting ours now"),
    ("林小月", "北边的烽火台也看到了，马上传下去"),
    ("Bob", "From the coast to the capital in under an hour"),
    ("", "Order 1234 is on its way"),
    ("Ann", "My train was in a tunnel, and still I missed nothing"),
)
"""Authors and messages in the first room; an empty author is a backend."""


def main(arguments: Sequence[str]) -> int:
    target = Path(arguments[0]) if arguments else PICTURE
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        demo = (ROOT / "demo.toml").read_text(encoding="utf-8")
        with ServerProcess(Path(folder), demo) as server, Network(server.port) as network:
            picture = take_screenshot(browser, server, network)
        browser.close()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(picture)
    print(f"{target}: {len(picture) // 1024} KiB")
    return 0


def take_screenshot(browser: Browser, server: ServerProcess, network: Network) -> bytes:
    people = {name: open_chat(browser, network, name) for name in ("Ann", "Bob", "林小月")}
    for name, text in MESSAGES:
        if name:
            people[name].say(text)
        else:
            publish(server, FIRST_ROOM, text)
        for page in people.values():
            expect(page.messages.filter(has_text=text)).to_be_visible()
    ann, bob = people["Ann"], people["Bob"]
    for room in (KITCHEN, RELEASE):
        for page in (ann, bob):
            page.join(room)
    ann.show(FIRST_ROOM)
    bob.say("The tests are green")
    bob.say("Shall we?")
    expect(ann.unread(RELEASE)).to_have_text("2")
    ann.page.mouse.move(0, 0)
    ann.page.evaluate("document.activeElement.blur()")
    return ann.page.screenshot(animations="disabled", caret="hide")


def open_chat(browser: Browser, network: Network, name: str) -> ChatPage:
    context = browser.new_context(viewport=SIZE, device_scale_factor=PIXELS_PER_POINT, color_scheme="light")
    page = ChatPage(context, network)
    page.start_chatting(name, FIRST_ROOM)
    page.expect_connected()
    return page


def publish(server: ServerProcess, room: str, text: str) -> None:
    body = json.dumps({"channel": room, "data": {"text": text}}).encode()
    headers = {"X-API-Key": "demo-key", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{server.http}/api/publish", body, headers), timeout=10):
        pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
