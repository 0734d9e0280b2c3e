"""The chat demo in real browsers, also when the connection or the server fails."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import Browser, WebSocketRoute, expect

from tests.acceptance.server_process import ServerProcess
from tests.browser.conftest import OpenPage
from tests.browser.pages import ChatPage
from tests.browser.scripted import Scripted

WIDE = {"width": 1280, "height": 800}
NARROW = {"width": 390, "height": 844}


def publish(server: ServerProcess, room: str, data: object) -> None:
    """Publishes with the server API."""
    body = json.dumps({"channel": room, "data": data}).encode()
    headers = {"X-API-Key": "demo-key", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.http}/api/publish", body, headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        answer = json.load(response)
    assert "result" in answer, answer


def numbered(start: int, end: int) -> list[str]:
    return [f"message {number}" for number in range(start, end)]


def test_two_people_chat_and_see_each_other(open_page: OpenPage) -> None:
    """Both see all messages in one order, who is in the room, and when the other one leaves."""
    ann, bob = open_page("Ann"), open_page("Bob")
    expect(ann.people).to_have_text(["Ann", "Bob"])
    expect(bob.people).to_have_text(["Ann", "Bob"])
    expect(bob.page.locator(".person", has_text="Bob")).to_contain_text("you")
    ann.say("Smoke on the western ridge")
    ann.expect_messages("Smoke on the western ridge")
    bob.say("看到了 👍")
    ann.expect_messages("Smoke on the western ridge", "看到了 👍")
    ann.say("<img src=x onerror=alert(1)>")
    for page in (ann, bob):
        page.expect_messages("Smoke on the western ridge", "看到了 👍", "<img src=x onerror=alert(1)>")
    expect(ann.page.locator(".message:not(.mine) .author")).to_have_text("Bob")
    bob.page.close()
    expect(ann.people).to_have_text(["Ann"])


def test_two_tabs_are_one_person(open_page: OpenPage) -> None:
    """The list shows the number of connections beside the name."""
    ann = open_page("Ann")
    bob = open_page("Bob")
    second = bob.context.new_page()
    second.goto(bob.url)
    expect(ann.people).to_have_text(["Ann", "Bob"])
    expect(ann.page.locator(".person", has_text="Bob").locator(".person-count")).to_have_text("×2")


def test_a_new_name_is_visible_to_all(open_page: OpenPage) -> None:
    """In the list of people and beside later messages; no message is lost during the change."""
    ann, bob = open_page("Ann"), open_page("Bob")
    bob.say("hello")
    ann.expect_messages("hello")
    bob.page.get_by_role("button", name="Change name").click()
    bob.page.get_by_label("Your name").fill("Bobby")
    bob.page.keyboard.press("Enter")
    ann.say("who is it?")
    expect(ann.people).to_have_text(["Ann", "Bobby"])
    bob.say("me")
    for page in (ann, bob):
        page.expect_messages("hello", "who is it?", "me")
        expect(page.gaps).to_have_count(0)
    expect(ann.page.locator(".message:not(.mine) .author")).to_have_text(["Bob", "Bobby"])


def test_clients_of_all_transports_share_a_room(open_page: OpenPage) -> None:
    """WebSocket, HTTP streaming where WebSocket is blocked, and transports selected in the address.

    A polling client does not appear in presence, and its own list is not live.
    """
    ann, bob, cyrus = open_page("Ann"), open_page("Bob"), open_page("Cyrus", transports="sse")
    dora = open_page("Dora", transports="poll")
    bob.block("websocket")
    bob.page.reload()
    pages = {"WebSocket": ann, "HTTP stream": bob, "Server-Sent Events": cyrus, "Polling": dora}
    said: list[str] = []
    for _ in range(2):
        for name, page in pages.items():
            page.expect_transport(name)
            if page is not dora:
                expect(page.people).to_have_text(["Ann", "Bob", "Cyrus"])
        for name, page in pages.items():
            page.say(f"{len(said)} over {name}")
            said.append(f"{len(said)} over {name}")
            for reader in pages.values():
                reader.expect_messages(*said)
        for page in pages.values():
            page.cut()
        ann.expect_connected()


def test_an_unknown_transport_in_the_address_is_an_error(browser: Browser, server: ServerProcess) -> None:
    """The page shows the error and the available transports."""
    page = browser.new_page()
    page.goto(f"{server.http}/?transports=pigeon")
    expect(page.locator("body")).to_have_text(re.compile("unknown transport pigeon; available: websocket,"))
    page.close()


def test_a_new_client_reads_the_history(open_page: OpenPage, server: ServerProcess) -> None:
    """Messages of users and backends; after a reload, own messages are still marked as own."""
    ann = open_page("Ann")
    ann.say("first")
    ann.expect_messages("first")
    publish(server, "campfire", {"text": "from the backend"})
    publish(server, "campfire", {"anything": 1})
    bob = open_page("Bob")
    bob.expect_messages("first", "from the backend", '{"anything":1}')
    expect(bob.page.locator(".author")).to_have_text(["Ann", "Server", "Server"])
    ann.page.reload()
    ann.expect_messages("first", "from the backend", '{"anything":1}')
    expect(ann.page.locator(".message.mine .bubble")).to_have_text("first")


def test_several_rooms(open_page: OpenPage) -> None:
    """Messages of other rooms count as unread; after leaving a room none arrive; the address selects a room."""
    ann, bob = open_page("Ann"), open_page("Bob", room="kitchen")
    ann.join("kitchen")
    ann.show("campfire")
    bob.say("soup is ready")
    bob.say("come")
    expect(ann.unread("kitchen")).to_have_text("2")
    expect(ann.page).to_have_title("(2) campfire · Beaconfire")
    ann.show("kitchen")
    expect(ann.unread("kitchen")).to_be_hidden()
    ann.expect_messages("soup is ready", "come")
    expect(bob.people).to_have_text(["Ann", "Bob"])
    ann.page.get_by_role("button", name="Leave this room").click()
    expect(bob.people).to_have_text(["Bob"])
    expect(ann.room("kitchen")).to_have_count(0)
    ann.page.goto(f"{ann.url}/#kitchen")
    ann.expect_messages("soup is ready", "come")


def test_a_refused_room_shows_the_reason(open_page: OpenPage) -> None:
    """The other rooms continue to work."""
    ann = open_page("Ann")
    ann.join("烽火")
    expect(ann.page.get_by_role("alert")).to_contain_text("You are not in #烽火: bad request")
    ann.show("campfire")
    expect(ann.page.get_by_role("alert")).to_be_hidden()
    ann.say("still here")
    ann.expect_messages("still here")


def test_interrupted_connections_lose_and_duplicate_nothing(open_page: OpenPage) -> None:
    """Both clients are interrupted repeatedly while both send; in the end both show all messages once, in one order."""
    ann, bob = open_page("Ann"), open_page("Bob")
    for page in (ann, bob):
        page.expect_connected()
    for number in range(40):
        speaker, other = (ann, bob) if number % 3 else (bob, ann)
        speaker.say(f"message {number}")
        if number % 5 == 1:
            other.cut()
        if number % 7 == 2:
            speaker.cut()  # often before the acknowledgement arrives
    for page in (ann, bob):
        page.expect_connected()
        expect(page.messages).to_have_count(40)
        expect(page.pending).to_have_count(0)
        expect(page.gaps).to_have_count(0)
    assert sorted(ann.messages.all_text_contents()) == sorted(numbered(0, 40))
    assert ann.messages.all_text_contents() == bob.messages.all_text_contents()


def test_publications_during_an_interruption_are_recovered(open_page: OpenPage, server: ServerProcess) -> None:
    """Also in a room that is not displayed, where they count as unread."""
    ann = open_page("Ann")
    ann.join("kitchen")
    ann.show("campfire")
    ann.expect_connected()
    ann.context.set_offline(True)
    ann.cut()
    expect(ann.phase).to_contain_text("Offline")
    for text in numbered(0, 30):
        publish(server, "campfire", text)
        publish(server, "kitchen", text)
    ann.context.set_offline(False)
    ann.expect_messages(*numbered(0, 30))
    expect(ann.gaps).to_have_count(0)
    expect(ann.unread("kitchen")).to_have_text("30")


def test_a_failed_recovery_shows_a_gap(open_page: OpenPage, server: ServerProcess) -> None:
    """The page says that messages may be missing, and shows the available history."""
    ann = open_page("Ann")
    ann.say("before")
    ann.expect_messages("before")
    ann.context.set_offline(True)
    ann.cut()
    for text in numbered(0, 130):
        publish(server, "campfire", text)
    ann.context.set_offline(False)
    expect(ann.gaps).to_have_count(1)
    ann.expect_messages("before", *numbered(30, 130))


@pytest.mark.parametrize("is_history_lost", [False, True], ids=["history-kept", "history-lost"])
def test_clients_survive_a_killed_server(
    open_page: OpenPage, server: ServerProcess, screenshots: Path, tmp_path: Path, is_history_lost: bool
) -> None:
    """Unsent messages are sent once. If the history is lost, the page shows a gap, otherwise nothing is missing."""
    ann, bob = open_page("Ann"), open_page("Bob")
    ann.say("before")
    bob.expect_messages("before")
    server.stop(signal.SIGKILL)
    expect(ann.phase).to_have_attribute("data-phase", "waiting")
    expect(ann.phase).to_contain_text("Reconnecting in")
    ann.say("during")
    expect(ann.pending).to_have_text(["during"])
    expect(ann.page.locator(".message-state")).to_contain_text(["Waiting for the connection"])
    if is_history_lost:
        for file in tmp_path.glob("demo.db*"):
            file.unlink()
    server.start()
    lines = ["before", "may be missing", "during"] if is_history_lost else ["before", "during"]
    for page in (ann, bob):
        page.expect_messages("before", "during")
        expect(page.gaps).to_have_count(int(is_history_lost))
        expect(page.page.locator(".messages > li")).to_have_text([re.compile(line) for line in lines])
        expect(page.people).to_have_text(["Ann", "Bob"])
    if is_history_lost:
        ann.page.screenshot(path=screenshots / "wide-gap.png")


def test_unsent_messages_survive_a_reload(open_page: OpenPage) -> None:
    """The browser's storage keeps them."""
    ann, bob = open_page("Ann"), open_page("Bob")
    ann.expect_connected()
    ann.block()
    ann.cut()
    ann.say("written offline")
    ann.page.reload()
    expect(ann.pending).to_have_text(["written offline"])
    ann.unblock()
    ann.expect_messages("written offline")
    bob.expect_messages("written offline")


def test_a_message_stored_twice_is_shown_once(open_page: OpenPage, server: ServerProcess) -> None:
    """Clients recognise a repeated message by its uid, live and in history."""
    ann = open_page("Ann")
    ann.expect_connected()
    for _ in range(2):
        publish(server, "campfire", {"uid": "0123456789abcdef", "text": "once"})
    publish(server, "campfire", "end")
    ann.expect_messages("once", "end")
    ann.page.reload()
    ann.expect_messages("once", "end")


def test_a_lost_acknowledgement_does_not_repeat_the_message(open_page: OpenPage) -> None:
    """The message was stored, its reply lost: after the reconnect the page recognises it and does not send it again."""
    ann, bob = open_page("Ann"), open_page("Bob")
    drops_frames = False

    def relay(route: WebSocketRoute) -> None:
        upstream = route.connect_to_server()
        upstream.on_message(lambda frame: None if drops_frames else route.send(frame))

    ann.page.route_web_socket("**/connection/websocket", relay)
    ann.page.reload()
    ann.expect_connected()
    expect(ann.people).to_have_text(["Ann", "Bob"])
    drops_frames = True
    ann.say("stored, never acknowledged")
    bob.expect_messages("stored, never acknowledged")
    expect(ann.pending).to_have_count(1)
    drops_frames = False
    ann.cut()
    ann.expect_messages("stored, never acknowledged")
    ann.say("next")
    for page in (ann, bob):
        page.expect_messages("stored, never acknowledged", "next")


def test_a_silent_connection_is_replaced(open_page: OpenPage) -> None:
    """The client detects by the clock that a server sends no pings and no replies, and the page shows the state."""
    ann = open_page("Ann", transports="websocket")
    ann.page.clock.install()
    script = Scripted(ann.page)
    ann.page.reload()
    ann.expect_connected()
    expect(ann.page.get_by_text("No messages yet")).to_be_visible()
    script.answers |= {"connect": lambda request: None, "presence": lambda request: None}
    ann.page.clock.run_for(25_000)
    ann.expect_connected()
    ann.page.clock.run_for(15_000)
    expect(ann.phase).not_to_have_attribute("data-phase", "connected")
    assert len(script.sockets) > 1


def test_a_final_close_code_shows_the_reason(open_page: OpenPage) -> None:
    """The page does not reconnect until the user asks for it."""
    ann = open_page("Ann")
    attempts: list[str] = []

    def refuse(route: WebSocketRoute) -> None:
        attempts.append(route.url)
        route.close(code=3500, reason="invalid token")

    ann.page.route_web_socket("**/connection/websocket", refuse)
    ann.page.reload()
    expect(ann.phase).to_have_attribute("data-phase", "stopped")
    expect(ann.page.get_by_role("alert")).to_contain_text("The server ended the connection: invalid token.")
    assert len(attempts) == 1
    ann.page.get_by_role("button", name="Try again").click()
    expect(ann.phase).to_have_attribute("data-phase", "stopped")
    assert len(attempts) == 2


def test_works_with_the_keyboard_only(open_page: OpenPage) -> None:
    """Alt and arrow keys change the room, Shift and Enter insert a line break, Escape closes drawers."""
    ann = open_page("Ann", viewport=NARROW)
    ann.page.get_by_role("button", name="Rooms").focus()
    ann.page.keyboard.press("Enter")
    ann.join("kitchen")
    ann.page.keyboard.type("one")
    ann.page.keyboard.press("Shift+Enter")
    ann.page.keyboard.type("two")
    ann.page.keyboard.press("Enter")
    ann.expect_messages("one\ntwo")
    ann.page.keyboard.press("Alt+ArrowUp")
    expect(ann.page.get_by_role("heading", name="campfire", exact=True)).to_be_visible()
    ann.page.get_by_role("button", name="Who is here").press("Enter")
    expect(ann.people).to_be_visible()
    ann.page.keyboard.press("Escape")
    expect(ann.people).to_be_hidden()
    expect(ann.page.get_by_role("button", name="Who is here")).to_be_focused()


def test_screenshots_of_a_conversation(open_page: OpenPage, screenshots: Path) -> None:
    """Narrow and wide, light and dark, for a visual check; no element overflows horizontally."""
    ann = open_page("Ann Archer", viewport=WIDE)
    bob = open_page("王小明", viewport=NARROW, is_mobile=True, has_touch=True)
    cyrus = open_page("Cyrus", viewport=WIDE, color_scheme="dark")
    converse(ann, bob, cyrus)
    for room in ("kitchen", "watchtower"):
        ann.join(room)
        cyrus.join(room)
    ann.show("campfire")
    cyrus.show("kitchen")
    cyrus.say("Soup is ready")
    cyrus.show("campfire")
    expect(ann.unread("kitchen")).to_have_text("1")
    ann.page.screenshot(path=screenshots / "wide.png")
    cyrus.page.screenshot(path=screenshots / "wide-dark.png")
    bob.page.screenshot(path=screenshots / "narrow.png")
    bob.page.get_by_role("button", name="Rooms").click()
    screenshot(bob, screenshots / "narrow-rooms.png", ".rooms")
    bob.page.keyboard.press("Escape")
    bob.page.get_by_role("button", name="Who is here").click()
    screenshot(bob, screenshots / "narrow-people.png", ".people")
    bob.page.keyboard.press("Escape")
    bob.context.set_offline(True)
    bob.cut()
    bob.say("还在吗?")
    expect(bob.pending).to_be_visible()
    screenshot(bob, screenshots / "narrow-offline.png", ".people")
    for width in (320, 390, 760, 1024, 1280):
        ann.page.set_viewport_size({"width": width, "height": 700})
        assert ann.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width


def converse(ann: ChatPage, bob: ChatPage, cyrus: ChatPage) -> None:
    said: list[str] = []
    for page, text in (
        (ann, "Smoke on the western ridge. Did anyone else see it?"),
        (bob, "看到了，第三座烽火台刚刚点燃。"),
        (bob, "Passing it on: https://example.com/towers?n=3"),
        (ann, "Good. Three towers in under a minute, and the rain has not even reached us yet. I will keep this "
              "fire going until the morning watch arrives."),
        (cyrus, "Fourth tower has it."),
        (cyrus, "Capital in two minutes, if the fog holds off."),
    ):  # fmt: skip
        page.say(text)
        said.append(text)
        for reader in (ann, bob, cyrus):
            reader.expect_messages(*said)


def screenshot(page: ChatPage, path: Path, panel: str) -> None:
    """Takes a screenshot after the drawer's animation."""
    page.page.wait_for_function(
        "(panel) => document.querySelector(panel).getAnimations().length === 0", arg=panel, polling=50
    )
    page.page.screenshot(path=path)
