"""The chat page as its users see it: what the tests do and look at, in their words."""

from __future__ import annotations

from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, expect

DEADLINE_MS = 20_000

expect.set_options(timeout=DEADLINE_MS)


class ChatPage:
    """One person's browser. `problems` are errors of the page itself; a lost connection is none."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context = context
        self.url = url
        self.problems: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(DEADLINE_MS)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self._note)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and "WebSocket connection" not in message.text:
            self.problems.append(message.text)

    # --- doing -------------------------------------------------------------------------------------------------

    def come_in(self, name: str, room: str = "") -> None:
        self.page.goto(f"{self.url}/#{room}")
        self.page.get_by_label("Your name").fill(name)
        self.page.get_by_role("button", name="Come in").click()

    def say(self, text: str) -> None:
        self.page.get_by_label("Message", exact=True).fill(text)
        self.page.keyboard.press("Enter")

    def join(self, room: str) -> None:
        self.page.get_by_label("Name of a room to join").fill(room)
        self.page.keyboard.press("Enter")
        expect(self.page.get_by_role("heading", name=room, exact=True)).to_be_visible()

    def show(self, room: str) -> None:
        self.room(room).click()
        expect(self.page.get_by_role("heading", name=room, exact=True)).to_be_visible()

    def cut(self) -> None:
        """Loses the connection as a network would, wherever it is."""
        self.page.evaluate("window.beaconfireDemo.cut()")

    # --- seeing ------------------------------------------------------------------------------------------------

    @property
    def phase(self) -> Locator:
        return self.page.locator("#connection")

    def expect_connected(self) -> None:
        expect(self.phase).to_have_attribute("data-phase", "connected")

    @property
    def messages(self) -> Locator:
        return self.page.locator(".message .bubble")

    def expect_messages(self, *texts: str) -> None:
        """Exactly these, in this order, all of them stored."""
        expect(self.messages).to_have_text(list(texts))
        expect(self.page.locator('.message:not([data-state="sent"])')).to_have_count(0)

    @property
    def pending(self) -> Locator:
        return self.page.locator('.message[data-state="pending"] .bubble')

    @property
    def gaps(self) -> Locator:
        return self.page.locator(".gap")

    @property
    def people(self) -> Locator:
        return self.page.locator(".person-name")

    def room(self, name: str) -> Locator:
        return self.page.locator(".room", has_text=name)

    def unread(self, room: str) -> Locator:
        return self.room(room).locator(".badge")
