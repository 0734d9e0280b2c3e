"""What the demo makes of messages that a real server sends rarely, or in unlucky moments."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.browser.pages import ChatPage
from tests.browser.scripted import Answer, Message, Scripted

ROOM = "campfire"
RETRY_MS = 2_000
"""When the demo tries again what was refused for now."""
JOINED: Message = {"recoverable": True, "positioned": True, "epoch": "e"}


def enter(open_page: OpenPage, **answers: Message) -> tuple[ChatPage, Scripted]:
    """Ann in a room of a scripted server, up to date."""
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
    """A publication of somebody with this name."""
    info = {"user": "", "client": name, "conn_info": {"name": name}}
    return {"push": {"channel": ROOM, "pub": {"data": data, "offset": offset, "info": info}}}


def test_messages_stand_in_the_order_of_the_room(open_page: OpenPage) -> None:
    """Also one that is acknowledged before what was stored earlier is here, and one that is here before its answer."""
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


def test_a_room_without_history_acknowledges_too(open_page: OpenPage) -> None:
    """Nothing has an offset there, and the acknowledgement alone makes a message a sent one."""
    ann, script = enter(open_page, subscribe={"subscribe": {}})
    ann.say("one")
    ann.expect_messages("one")
    script.push(pushed(0, {"text": "two"}, "Bob"), pushed(0, {"text": "three"}, "Bob"))
    ann.expect_messages("one", "two", "three")
    script.push(pushed(0, script.requests("publish")[-1]["data"], "Ann"), pushed(0, {"text": "four"}, "Bob"))
    ann.expect_messages("one", "two", "three", "four")


def test_a_message_that_is_refused_says_why(open_page: OpenPage) -> None:
    """It can be sent again or given up, and is not sent again by itself."""
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


def test_a_message_that_is_refused_for_now_is_sent_again(open_page: OpenPage) -> None:
    """Without being asked."""
    ann, script = enter(open_page)
    busy: Message = {"error": {"code": 111, "message": "too many requests", "temporary": True}}
    answers = iter([busy, {"publish": {}}])
    script.answers["publish"] = lambda request: next(answers)
    ann.say("one")
    expect(ann.pending).to_have_text(["one"])
    ann.expect_messages("one")
    first, second = script.requests("publish")
    assert first["data"]["uid"] == second["data"]["uid"]


def test_what_has_come_back_as_stored_is_not_sent_again(open_page: OpenPage) -> None:
    """Its answer was lost with the connection, and it is recovered, or found in the history of a room that is not."""
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


def test_a_message_between_two_memberships_is_not_refused(open_page: OpenPage) -> None:
    """The room has just been ended to be entered again, so the server knows us no longer, and will in a moment."""
    ann, script = enter(open_page)

    def end_first(request: Message) -> Message:
        script.push({"push": {"channel": ROOM, "unsubscribe": {"code": 2500, "reason": "insufficient state"}}})
        script.answers["publish"] = always({"publish": {}})
        return {"error": {"code": 103, "message": "permission denied"}}

    script.answers["publish"] = end_first
    ann.say("one")
    ann.expect_messages("one")
    assert len(script.requests("publish")) == 2


def test_a_message_waits_for_the_membership_that_is(open_page: OpenPage) -> None:
    """Refused for now, put out and back in: what was to be tried again by the old membership is the new one's."""
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


def test_who_leaves_in_the_moment_of_the_answer_is_gone(open_page: OpenPage) -> None:
    """The list of who is here and what has happened to it since may come in one frame."""
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


def test_a_room_that_puts_one_out_is_entered_again_from_where_one_was(open_page: OpenPage) -> None:
    """Not by itself, but when the person asks for it; what was missed is asked for."""
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
