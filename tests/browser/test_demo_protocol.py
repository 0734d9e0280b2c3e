"""The demo with a scripted server: messages that a real server sends rarely or at unusual times."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.browser.pages import ChatPage
from tests.browser.scripted import Answer, Message, Scripted

ROOM = "campfire"
RETRY_MS = 2_000
"""The delay after which the demo repeats a temporarily refused message."""
JOINED: Message = {"recoverable": True, "positioned": True, "epoch": "e"}


def enter(open_page: OpenPage, **answers: Message) -> tuple[ChatPage, Scripted]:
    """Opens the demo for Ann in a room of a scripted server."""
    ann = open_page("Ann", transports="websocket")
    script = Scripted(ann.page)
    for kind, answer in {"subscribe": {"subscribe": JOINED}, **answers}.items():
        script.answers[kind] = always(answer)
    ann.page.reload()
    expect(ann.page.get_by_text("No messages yet")).to_be_visible()
    return ann, script


def always(answer: Message | None) -> Answer:
    return lambda request: answer


def pushed(offset: int, data: object, name: str) -> Message:
    """A publication of a client with this name."""
    info = {"user": "", "client": name, "conn_info": {"name": name}}
    return {"push": {"channel": ROOM, "pub": {"data": data, "offset": offset, "info": info}}}


def test_messages_are_in_the_order_of_the_room(open_page: OpenPage) -> None:
    """Also if a message is acknowledged before earlier ones arrive, or arrives before its acknowledgement."""
    ann, script = enter(open_page)
    ann.say("one")
    ann.expect_messages("one")
    script.push(pushed(1, {"text": "meanwhile"}, "Bob"), pushed(2, script.requests("publish")[-1]["data"], "Ann"))
    ann.expect_messages("meanwhile", "one")

    def publish_first(request: Message) -> Message:
        script.push(pushed(3, request["data"], "Ann"))
        script.then = [pushed(4, {"text": "afterwards"}, "Bob")]
        return {"publish": {}}

    script.answers["publish"] = publish_first
    ann.say("two")
    ann.expect_messages("meanwhile", "one", "two", "afterwards")


def test_acknowledgements_work_without_history(open_page: OpenPage) -> None:
    """Publications have no offset, and the acknowledgement alone marks a message as sent."""
    ann, script = enter(open_page, subscribe={"subscribe": {}})
    ann.say("one")
    ann.expect_messages("one")
    script.push(pushed(0, {"text": "two"}, "Bob"), pushed(0, {"text": "three"}, "Bob"))
    ann.expect_messages("one", "two", "three")
    script.push(pushed(0, script.requests("publish")[-1]["data"], "Ann"), pushed(0, {"text": "four"}, "Bob"))
    ann.expect_messages("one", "two", "three", "four")


def test_a_refused_message_shows_the_reason(open_page: OpenPage) -> None:
    """The user can send it again or discard it; the page does not send it again by itself."""
    ann, script = enter(open_page, publish={"error": {"code": 103, "message": "permission denied"}})
    ann.say("one")
    state = ann.page.locator(".message-state")
    expect(state).to_contain_text(["Not sent: permission denied."])
    ann.page.get_by_role("button", name="Discard").click()
    expect(ann.messages).to_have_count(0)
    ann.say("two")
    expect(state).to_contain_text(["Not sent: permission denied."])
    script.answers["publish"] = always({"publish": {}})
    ann.page.get_by_role("button", name="Try again").click()
    ann.expect_messages("two")
    assert [request["data"]["text"] for request in script.requests("publish")] == ["one", "two", "two"]


def test_a_temporarily_refused_message_is_sent_again(open_page: OpenPage) -> None:
    """The page sends it again by itself."""
    ann, script = enter(open_page)
    busy: Message = {"error": {"code": 111, "message": "too many requests", "temporary": True}}
    answers = iter([busy, {"publish": {}}])
    script.answers["publish"] = lambda request: next(answers)
    ann.say("one")
    expect(ann.pending).to_have_text(["one"])
    ann.expect_messages("one")
    first, second = script.requests("publish")
    assert first["data"]["uid"] == second["data"]["uid"]


def test_a_message_found_in_recovery_or_history_is_not_sent_again(open_page: OpenPage) -> None:
    """Its reply was lost; then the message is recovered, or found in the history after a failed recovery."""
    ann, script = enter(open_page)
    script.answers["publish"] = always(None)
    for number, text in enumerate(("one", "two")):
        ann.say(text)
        expect(ann.pending).to_have_text([text])
        pub = pushed(number + 1, script.requests("publish")[-1]["data"], "Ann")["push"]["pub"]
        if number == 0:
            recovered = {"recovered": True, "was_recovering": True, "offset": 1, "publications": [pub]}
            script.answers["subscribe"] = always({"subscribe": {**JOINED, **recovered}})
        else:
            script.answers["subscribe"] = always({"subscribe": {**JOINED, "was_recovering": True, "offset": 2}})
            script.answers["history"] = always({"history": {"publications": [pub]}})
        script.sockets[-1].close(code=3001)
        ann.expect_messages(*("one", "two")[: number + 1])
    ann.page.wait_for_timeout(100)
    assert [request["data"]["text"] for request in script.requests("publish")] == ["one", "two"]


def test_a_message_during_a_resubscribe_is_not_refused(open_page: OpenPage) -> None:
    """The server has just ended the subscription and refuses the message. The page sends it again after the new one."""
    ann, script = enter(open_page)

    def end_first(request: Message) -> Message:
        script.push({"push": {"channel": ROOM, "unsubscribe": {"code": 2500, "reason": "insufficient state"}}})
        script.answers["publish"] = always({"publish": {}})
        return {"error": {"code": 103, "message": "permission denied"}}

    script.answers["publish"] = end_first
    ann.say("one")
    ann.expect_messages("one")
    assert len(script.requests("publish")) == 2


def test_a_retry_belongs_to_the_new_subscription(open_page: OpenPage) -> None:
    """After a temporary refusal the server ends the subscription; the new subscription sends the message again."""
    ann, script = enter(open_page)
    busy: Message = {"error": {"code": 111, "message": "too many requests", "temporary": True}}
    answers = iter([busy, None])
    script.answers["publish"] = lambda request: next(answers)
    ann.say("one")
    expect(ann.pending).to_have_text(["one"])
    script.push({"push": {"channel": ROOM, "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}})
    ann.page.get_by_role("button", name="Try again").click()
    ann.page.wait_for_timeout(RETRY_MS + 500)
    expect(ann.pending).to_have_text(["one"])
    assert len(script.requests("publish")) == 2


def test_leaves_after_the_presence_reply_are_applied(open_page: OpenPage) -> None:
    """The presence reply and later joins and leaves may arrive in one frame."""
    here = {name: {"user": "", "client": name, "conn_info": {"name": name}} for name in ("Ann", "Bob", "Cyrus")}

    def answer(request: Message) -> Message:
        script.then = [
            {"push": {"channel": ROOM, "leave": {"info": here["Bob"]}}},
            {
                "push": {
                    "channel": ROOM,
                    "join": {"info": {**here["Bob"], "client": "d", "conn_info": {"name": "Dora"}}},
                }
            },
        ]
        return {"presence": {"presence": here}}

    ann, script = enter(open_page)
    script.answers["presence"] = answer
    script.sockets[-1].close(code=3001)
    expect(ann.people).to_have_text(["Ann", "Cyrus", "Dora"])


def test_a_room_ended_by_the_server_is_joined_again_from_its_position(open_page: OpenPage) -> None:
    """Only when the user asks for it; the page requests the missed messages."""
    ann, script = enter(open_page)
    script.push(pushed(1, {"text": "one"}, "Bob"))
    ann.expect_messages("one")
    script.push({"push": {"channel": ROOM, "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}})
    expect(ann.page.get_by_role("alert")).to_contain_text("You are not in #campfire: server unsubscribe")
    assert len(script.requests("subscribe")) == 1
    ann.page.get_by_role("button", name="Try again").click()
    expect(ann.page.get_by_role("alert")).to_be_hidden()
    request = script.requests("subscribe")[-1]
    assert (request["recover"], request["offset"], request["epoch"]) == (True, 1, "e")
