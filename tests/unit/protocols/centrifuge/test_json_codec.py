"""The JSON codec beyond field names. The conformance vectors test the exact bytes."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.base.errors import PERMISSION_DENIED, CommandError, PayloadError
from beaconfire.model.publication import NO_PAYLOAD, ClientInfo, Publication
from beaconfire.model.pushes import (
    JoinPush,
    MessagePush,
    PublicationPush,
    Push,
    SubscribePush,
    UnsubscribePush,
)
from beaconfire.protocols.centrifuge.connection import CentrifugeCodec
from beaconfire.protocols.centrifuge.json_codec import JsonCodec
from beaconfire.protocols.centrifuge.requests import (
    PONG,
    Command,
    ConnectRequest,
    HistoryRequest,
    PingRequest,
    PublishRequest,
    RPCRequest,
    SendRequest,
    SubscribeRequest,
)
from beaconfire.protocols.centrifuge.results import (
    ConnectResult,
    HistoryResult,
    PresenceResult,
    Result,
    RPCResult,
    SubscribeResult,
)
from beaconfire.protocols.port import ProtocolError

CODEC: CentrifugeCodec = JsonCodec()


def decode(text: str) -> list[Command]:
    return list(CODEC.decode(text.encode(), False))


def request_of(text: str) -> object:
    (command,) = decode(text)
    return command.request


def test_properties_for_transports() -> None:
    """Messages can share a frame, separated by line breaks."""
    assert (CODEC.name, CODEC.separator) == ("centrifuge-json", b"\n")


def test_payloads_are_not_changed() -> None:
    """Spaces, number formats, escapes and the order of keys stay those of the publisher."""
    payload = r'{ "b":1.50, "a":"\u00e9/\/", "n":12345678901234567890123, "e":1E5 , "b":null}'
    request = request_of(f'{{"id":1,"publish":{{"channel":"a","data":{payload}}}}}')
    assert request == PublishRequest("a", Raw(payload.encode()))


@pytest.mark.parametrize("name", ["publish", "send", "rpc", "connect", "subscribe"])
def test_a_payload_does_not_keep_its_frame_in_memory(name: str) -> None:
    """A small payload of a large frame keeps only its own bytes."""
    request = request_of(f'{{"id":1,"{name}":{{"data":[1],"unknown":"{"x" * 50_000}"}}}}')
    assert isinstance(request, PublishRequest | SendRequest | RPCRequest | ConnectRequest | SubscribeRequest)
    assert bytes(request.data) == b"[1]"
    assert request.data.copy() is request.data  # Copying a payload that owns its bytes returns the same object.


@pytest.mark.parametrize("name", ["publish", "send", "rpc", "connect", "subscribe"])
def test_a_missing_payload_is_the_empty_payload(name: str) -> None:
    """Code compares with `is NO_PAYLOAD`."""
    request = request_of(f'{{"id":1,"{name}":{{}}}}')
    assert isinstance(request, PublishRequest | SendRequest | RPCRequest | ConnectRequest | SubscribeRequest)
    assert request.data is NO_PAYLOAD


def test_the_field_user_is_ignored() -> None:
    """Only the plain protocol has this field, so a client cannot choose its user id here."""
    assert request_of('{"id":1,"connect":{"user":"admin","token":"t"}}') == ConnectRequest(token="t")


def test_line_breaks_around_messages_are_ignored() -> None:
    """Trailing and blank lines have no meaning."""
    assert decode('{"id":1,"ping":{}}\n') == [Command(1, PingRequest())]
    assert decode('\r\n{}\n\n \n{"id":1,"ping":{}}\n\t\n') == [Command(None, PONG), Command(1, PingRequest())]


def test_a_message_may_span_several_lines() -> None:
    """Indented JSON is accepted."""
    text = '{\n  "id": 1,\n  "rpc": {\n    "data": {\n      "a": 1\n    }\n  }\n}\n{"send": {}}'
    expected = RPCRequest(Raw(b'{\n      "a": 1\n    }'))
    assert decode(text) == [Command(1, expected), Command(None, SendRequest())]


def test_the_first_request_counts() -> None:
    """In the order of the protocol, not in the order of the text."""
    assert request_of('{"id":1,"ping":{},"history":{"channel":"a"},"connect":null}') == HistoryRequest("a")


def test_without_an_id_only_send_is_a_request() -> None:
    """Any other command without an id is a pong. `send` has no reply."""
    assert decode("{}") == decode('{"id":0}') == decode('{"connect":{}}') == [Command(None, PONG)]
    assert decode('{"send":{"data":1},"ping":{}}') == [Command(None, SendRequest(Raw(b"1")))]


def test_null_counts_as_missing() -> None:
    """Many languages write null for a field that is not set. In a payload null is a value."""
    connect = '{"token":null,"data":{"a":null},"subs":{"a":{"epoch":null,"data":null}},"headers":null,"new":{"x":null}}'
    assert decode(f'{{"id":null}}\n{{"id":1,"connect":{connect},"ping":null}}') == [
        Command(None, PONG),
        Command(1, ConnectRequest(data=Raw(b'{"a":null}'), subs={"a": SubscribeRequest(data=Raw(b"null"))})),
    ]


def test_other_errors_of_a_message_with_null_are_found() -> None:
    """The error names the invalid field."""
    with pytest.raises(ProtocolError, match=r"Expected `str | null`, got `int` - at `\$\[1\].subscribe.channel`"):
        decode('{}\n{"id":1,"subscribe":{"channel":5,"token":null}}')
    with pytest.raises(ProtocolError, match="malformed"):
        decode('{"id":1,"subscribe":{"token":null},}')


def test_a_lone_surrogate_does_not_end_the_session() -> None:
    """In payloads and other strings it becomes the replacement character."""
    request = request_of(r'{"id":1,"publish":{"channel":"\ud83d","data":"cut \ud83d"}}')
    assert request == PublishRequest("\ufffd", Raw(rb'"cut \ufffd"'))


def test_unknown_fields_are_ignored() -> None:
    """A newer client is understood as far as the server knows its fields."""
    assert request_of('{"id":1,"new":{},"subscribe":{"channel":"a","phase":2}}') == SubscribeRequest("a")


@pytest.mark.parametrize("line_break", [b"\n", b"\r\n", b"\r"])
def test_messages_contain_no_raw_line_breaks(line_break: bytes) -> None:
    """A raw line break in a payload is white space and becomes a space. An escaped one stays."""
    payload = Raw(line_break.join([b"{", b'"a":', b'"x\\ny"}']))
    spaced = b" " * len(line_break)
    pushed = CODEC.encode_push(PublicationPush("a", Publication(payload))).data
    assert pushed == b'{"push":{"channel":"a","pub":{"data":{%b"a":%b"x\\ny"}}}}' % (spaced, spaced)
    assert CODEC.encode_reply(1, RPCResult(payload)).data == b'{"id":1,"rpc":{"data":{%b"a":%b"x\\ny"}}}' % (
        spaced,
        spaced,
    )


BAD = Raw(b"\xff\x00binary")
BAD_INFO = ClientInfo("42", "c1", chan_info=BAD)


@pytest.mark.parametrize(
    "push",
    [
        PublicationPush("a", Publication(BAD)),
        PublicationPush("a", Publication(Raw(b"1"), info=BAD_INFO)),
        JoinPush("a", BAD_INFO),
        JoinPush("a", ClientInfo("42", "c1", conn_info=BAD)),
        MessagePush(BAD),
        SubscribePush("a", data=BAD),
    ],
)
def test_a_push_with_a_payload_that_is_not_json_raises(push: Push) -> None:
    """For every payload field of every push."""
    with pytest.raises(PayloadError, match="the payload is not JSON"):
        CODEC.encode_push(push)


@pytest.mark.parametrize(
    "result",
    [
        RPCResult(BAD),
        SubscribeResult(data=BAD),
        SubscribeResult(publications=[Publication(Raw(b"1")), Publication(BAD)]),
        HistoryResult([Publication(Raw(b"1"), info=BAD_INFO)], "e", 1),
        PresenceResult({"c1": BAD_INFO}),
        ConnectResult("c", "v", data=BAD),
        ConnectResult("c", "v", subs={"a": SubscribeResult(publications=[Publication(BAD)])}),
    ],
)
def test_a_result_with_a_payload_that_is_not_json_raises(result: Result) -> None:
    """For every payload field of every result."""
    with pytest.raises(PayloadError, match="the payload is not JSON"):
        CODEC.encode_reply(1, result)


def test_empty_payloads_are_omitted() -> None:
    """Also those that are not the object `NO_PAYLOAD`; otherwise the JSON would be invalid."""
    info = ClientInfo("42", "c1", Raw(b""), Raw(b""))
    push = CODEC.encode_push(PublicationPush("a", Publication(Raw(b""), info=info, offset=1, tags={})))
    assert push.data == b'{"push":{"channel":"a","pub":{"info":{"user":"42","client":"c1"},"offset":1}}}'
    assert CODEC.encode_reply(1, RPCResult(Raw(b""))).data == b'{"id":1,"rpc":{}}'


def test_a_string_that_is_not_unicode_raises_payload_error() -> None:
    """A Python handler can return half of a surrogate pair. It must not break the fan-out."""
    with pytest.raises(PayloadError, match="not Unicode"):
        CODEC.encode_push(UnsubscribePush("a", 2000, "\ud83d"))
    with pytest.raises(PayloadError, match="not Unicode"):
        CODEC.encode_error(1, CommandError(PERMISSION_DENIED), "\ud83d")
