"""The lobby: frames that are no message of the plain protocol become publications, and clients get them unchanged."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from beaconfire.model.publication import ClientInfo, Publication
from beaconfire.model.pushes import PublicationPush
from beaconfire.protocols.plain.client_messages import SERVER_TYPES
from beaconfire.protocols.plain.requests import InvalidMessage, LobbyFrame
from beaconfire.protocols.port import Payload
from tests.unit.protocols.plain.frames import LOBBY, NO_MESSAGES, decode, pushed, with_and_without_lobby


@pytest.mark.parametrize(("frame", "binary"), [*NO_MESSAGES, (b'{"type":"what", "a": 1}\n', False)])
def test_a_lobby_frame_is_delivered_unchanged(frame: bytes, binary: bool) -> None:
    """The publication is JSON for clients of other protocols. Clients of the plain protocol get the same bytes
    as sent.
    """
    command = decode(frame, lobby=True, binary=binary)
    assert command.ref is None
    assert isinstance(command.request, LobbyFrame)
    json.loads(bytes(command.request.data))
    publication = Publication(command.request.data, ClientInfo("", "c"), 4, command.request.tags)
    assert LOBBY.encode_push(PublicationPush("lobby", publication)) == Payload(frame, binary)


@pytest.mark.parametrize(
    ("frame", "binary", "data", "tag"),
    [
        (b' {"a": 1}', False, b' {"a": 1}', "json"),
        ("烽火".encode(), False, '"烽火"'.encode(), "text"),
        (b"\xff\x00", True, b'"/wA="', "binary"),
    ],
)
def test_a_lobby_frame_for_other_protocols(frame: bytes, binary: bool, data: bytes, tag: str) -> None:
    """JSON stays the same, other text becomes a JSON string, bytes become base64. A tag names the form."""
    assert decode(frame, lobby=True, binary=binary).request == LobbyFrame(Raw(data), {"frame": tag})


def test_the_lobby_uses_standard_base64() -> None:
    """So that any backend can decode it."""
    request = decode(bytes(range(256)), lobby=True, binary=True).request
    assert isinstance(request, LobbyFrame)
    assert base64.b64decode(json.loads(bytes(request.data))) == bytes(range(256))


@pytest.mark.parametrize(
    ("data", "tags"),
    [
        (b'"hi"', None),
        (b'"hi"', {}),
        (b'"hi"', {"frame": "picture"}),
        (b'"not base64!"', {"frame": "binary"}),
        ('"ä"'.encode(), {"frame": "binary"}),
        (b"{}", {"frame": "binary"}),
        (b"[]", {"frame": "text"}),
    ],
)
def test_other_publications_in_the_lobby_are_messages(data: bytes, tags: dict[str, str] | None) -> None:
    """An SDK or the server API can publish in the lobby channel, too, even with a tag that does not match the data."""
    message = pushed(PublicationPush("lobby", Publication(Raw(data), tags=tags)), LOBBY)
    assert message == {
        "type": "message",
        "room": "lobby",
        "data": json.loads(data),
        **({"tags": tags} if tags is not None else {}),
    }


def test_the_frame_tag_is_ignored_outside_the_lobby() -> None:
    """Otherwise any publisher could send raw frames to the clients of any room."""
    push = PublicationPush("kitchen", Publication(Raw(b'"x"'), tags={"frame": "text"}))
    assert pushed(push, LOBBY)["type"] == "message"
    assert pushed(PublicationPush("lobby", push.pub))["type"] == "message"


SPOOFS: list[bytes] = [
    *(json.dumps({"type": kind, "id": 1}).encode() for kind in sorted(SERVER_TYPES)),
    b' {"id":1,"\\u0074ype":"a\\u0063k"}',
    b'{"type":"chat","type":"ack"}',
    b'{"type":5,"type":"ack"}',
    b'{"type":"ack","x":"\\ud800"}',
    b'{"type":"ack","x":"\\ud800","n":' + b"9" * 5000 + b"}",
    b'{"type":"ack","x":' + b"[" * 2000 + b"]" * 2000 + b"}",
]


@with_and_without_lobby
@pytest.mark.parametrize("frame", SPOOFS)
def test_clients_cannot_send_messages_of_the_server(frame: bytes, lobby: bool) -> None:
    """The lobby rejects any frame that a browser would decode as a message of the server, however it is encoded."""
    assert isinstance(decode(frame, lobby).request, InvalidMessage)


def test_a_lone_surrogate_is_allowed_in_a_lobby_frame() -> None:
    """For other protocols such a frame is published as text."""
    frame = b'{"type":"chat","x":"\\ud800"}'
    command = decode(frame, lobby=True)
    assert command.request == LobbyFrame(Raw(json.dumps(frame.decode()).encode()), {"frame": "text"})


@given(st.text() | st.recursive(st.none() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_text_frame_is_one_command(value: object) -> None:
    """No text raises, and the lobby delivers every accepted text unchanged."""
    frame = value if isinstance(value, str) else json.dumps(value)
    assert isinstance(decode(frame).request, InvalidMessage)
    command = decode(frame, lobby=True)
    assert isinstance(command.request, LobbyFrame)
    push = PublicationPush("lobby", Publication(command.request.data, tags=command.request.tags))
    assert LOBBY.encode_push(push) == Payload(frame.encode())


@given(st.binary())
def test_any_binary_frame_is_one_command(frame: bytes) -> None:
    """No bytes raise, and the lobby delivers all bytes unchanged."""
    assert isinstance(decode(frame, binary=True).request, InvalidMessage)
    command = decode(frame, lobby=True, binary=True)
    assert isinstance(command.request, LobbyFrame)
    push = PublicationPush("lobby", Publication(command.request.data, tags=command.request.tags))
    assert LOBBY.encode_push(push) == Payload(frame, binary=True)
