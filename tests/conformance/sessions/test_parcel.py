"""The rules of the test-only protocol itself: how its messages pass through messages of the transport."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.base.errors import SHUTDOWN
from tests.conformance.sessions.client import give_token
from tests.conformance.sessions.drivers import start_parcel
from tests.conformance.sessions.neutral import Connected, History, Publish, Reply, Request, Subscribe
from tests.conformance.sessions.parcel.messages import MESSAGE_BYTES_MAX, Ack, Emit, Hello, encode, framed
from tests.conformance.sessions.parcel_client import ParcelClient
from tests.unit.kit import RECOVERABLE, NodeHarness


def open_client() -> ParcelClient:
    harness = NodeHarness(RECOVERABLE)
    give_token(harness, "ann")
    return ParcelClient(harness, start_parcel(harness), "id")


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_messages_may_be_cut_anywhere(size: int) -> None:
    """Into pieces of any size, from the first message on."""
    client = open_client()
    requests: tuple[Request, ...] = (Subscribe("news"), Publish("news", "x" * 50), History("news"))
    data = framed(encode(Hello("id", "s", "ann")))
    data += b"".join(client.encode(ref, request) for ref, request in enumerate(requests, 1))
    for start in range(0, len(data), size):
        client.send_bytes(data[start : start + size])
    connected, *others = client.receive()
    assert isinstance(connected, Connected)
    assert Reply(3, value=("x" * 50,)) in others


def test_part_of_a_message_is_not_carried_to_another_transport() -> None:
    """The client sends the whole message again."""
    client = open_client()
    client.connect("ann")
    event = client.encode(1, Publish("news", 1))
    client.send_bytes(event[:-3])
    client.move()
    client.receive()
    client.send_bytes(event)
    assert client.receive() == [Reply(1)]


def test_rest_of_the_first_message_belongs_to_the_session() -> None:
    """Also if the session exists already."""
    client = open_client()
    client.connect("ann")
    client.move()
    client.receive()
    old, event = client.transport, client.encode(1, Publish("news", 1))
    client.move()
    assert old.closed is not None
    client.send_bytes(event[:5])
    client.send_bytes(event[5:])
    assert client.receive() == [Reply(1)]


@pytest.mark.parametrize("connected", [False, True])
def test_message_that_is_too_long_ends_the_connection(connected: bool) -> None:
    """With 3501, before its bytes have come."""
    client = open_client()
    if connected:
        client.connect("ann")
    client.send_bytes((MESSAGE_BYTES_MAX + 1).to_bytes(4, "big"))
    assert client.disconnect_code == 3501


@pytest.mark.parametrize(
    ("event", "args", "code"),
    [("dance", b"\x80", 104), ("publish", b"\x81\xa7channel\x01", 107), ("publish", b"\xc0", 107)],
)
def test_event_that_the_server_cannot_read_is_an_error(event: str, args: bytes, code: int) -> None:
    """The session continues."""
    client = open_client()
    client.connect("ann")
    client.send_message(Emit(1, event, Raw(args)))
    assert client.receive() == [Reply(1, code)]


def test_acknowledgement_of_a_message_that_was_never_sent_ends_the_session() -> None:
    """With 3501."""
    client = open_client()
    client.connect("ann")
    client.send_message(Ack(50))
    assert client.disconnect_code == 3501


def test_goodbye_is_the_last_message() -> None:
    """A protocol may still send a message when its session ends. The message follows everything else."""
    client = open_client()
    client.connect("ann")
    client.subscribe("news")
    client.harness.publish("news", 1)
    client.session.end(SHUTDOWN)
    client.harness.publish("news", 2)
    assert client.publications() == [1]
    assert client.bye == client.disconnect_code == 3001


def test_first_message_must_be_hello_and_no_other_may_be() -> None:
    """Both end the connection with 3501."""
    first, second = open_client(), open_client()
    first.send_message(Ack(0))
    second.connect("ann")
    second.send_message(Hello("id", "s"))
    assert (first.disconnect_code, second.disconnect_code) == (3501, 3501)
