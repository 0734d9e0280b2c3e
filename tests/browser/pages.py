"""The chat page for tests: the actions of a user, and what the page shows."""

from __future__ import annotations

from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, WebSocketRoute, expect

from tests.browser.network import Network

DEADLINE_MS = 20_000

expect.set_options(timeout=DEADLINE_MS)


class ChatPage:
    """A user's browser and network. `problems` are errors of the page; lost connections are not errors."""

    def __init__(self, context: BrowserContext, network: Network) -> None:
        self.context = context
        self.network = network
        self.url = network.url
        self.problems: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(DEADLINE_MS)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self._note)

    def _note(self, message: ConsoleMessage) -> None:
        is_loss = "WebSocket connection" in message.text or "Failed to load resource: net::" in message.text
        if message.type in ("error", "warning") and not is_loss:
            self.problems.append(message.text)

    # --- actions -------------------------------------------------------------------------------------------------

    def start_chatting(self, name: str, room: str = "", transports: str = "") -> None:
        self.page.goto(f"{self.url}/{transports and f'?transports={transports}'}#{room}")
        self.page.get_by_label("Your name").fill(name)
        self.page.get_by_role("button", name="Start chatting").click()

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
        """Resets all connections."""
        self.network.cut()

    def block(self, *transports: str) -> None:
        """Blocks these transports from the next attempt on; without arguments, all of them. The page still loads."""
        for transport in transports or ("*",):
            self.page.route_web_socket(f"**/connection/{transport}", lambda route: route.close(code=1001))
            self.page.route(f"**/connection/{transport}*", lambda route: route.abort())

    def unblock(self) -> None:
        self.page.route_web_socket("**/connection/websocket", WebSocketRoute.connect_to_server)
        self.page.unroute_all()

    # --- content ------------------------------------------------------------------------------------------------

    @property
    def phase(self) -> Locator:
        return self.page.locator("#connection")

    def expect_connected(self) -> None:
        expect(self.phase).to_have_attribute("data-phase", "connected")

    def expect_transport(self, name: str) -> None:
        expect(self.phase).to_have_text(f"Connected · {name}")

    @property
    def messages(self) -> Locator:
        return self.page.locator(".message .bubble")

    def expect_messages(self, *texts: str) -> None:
        """The page shows exactly these messages, in this order, all of them stored."""
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
