"""Publications, clients and errors survive their way through a message."""

from __future__ import annotations

import pytest
from msgspec import Raw

from beaconfire.base.errors import (
    ERRORS,
    CommandError,
    EngineUnavailable,
    ErrorCode,
    NotReplicated,
    OutOfSequence,
    StorageFull,
)
from beaconfire.engines.port import HistoryOptions, PublishOptions
from beaconfire.engines.wire.messages import (
    Failed,
    Message,
    Page,
    Publish,
    Unexpected,
    decode_from_hub,
    decode_from_worker,
    encode,
)
from beaconfire.engines.wire.values import (
    data_of,
    from_failure,
    from_info,
    from_published,
    to_failure,
    to_info,
    to_published,
)
from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import NO_PAYLOAD, ClientInfo, Publication

ANN = ClientInfo("ann", "c1", Raw(b'{"name":"Ann"}'), Raw(b"\x00\xff"))
BOB = ClientInfo("", "c2")


def sent(publication: Publication) -> Publication:
    """The publication as a worker finds it in a page of history."""
    (message,) = decode_from_hub(encode([Page(1, [to_published(publication)], StreamPosition(9, "e"), True)]))
    assert isinstance(message, Page)
    return from_published(message.publications[0])


@pytest.mark.parametrize(
    "publication",
    [
        Publication(),
        Publication(Raw(b"1"), ANN, 1, {"k": "v"}, "epoch"),
        Publication(Raw(bytes(range(256))), BOB, 2**63 - 1),
        Publication(NO_PAYLOAD, BOB, 0, {}),
    ],
)
def test_a_publication_arrives_unchanged(publication: Publication) -> None:
    """With its payload, publisher, offset, tags and epoch. An empty payload is `NO_PAYLOAD`."""
    received = sent(publication)
    assert received == publication
    assert (received.data is NO_PAYLOAD) == (publication.data is NO_PAYLOAD)
    if received.info is not None and publication.info is not None:
        assert (received.info.conn_info is NO_PAYLOAD) == (publication.info.conn_info is NO_PAYLOAD)


def test_an_empty_payload_becomes_no_payload() -> None:
    """Also one that is another object."""
    assert sent(Publication(Raw(b""))).data is NO_PAYLOAD
    assert from_info(to_info(ClientInfo("u", "c", Raw(b""), Raw(b"")))).chan_info is NO_PAYLOAD


def test_a_payload_does_not_keep_the_frame_in_memory() -> None:
    """It is a copy of its own, so a small payload in a long read is small. A copy of it costs nothing more."""
    options = PublishOptions(history=HistoryOptions(10, 60.0))
    (request,) = decode_from_worker(encode([Publish(1, "a", data_of(Raw(b"payload")), options, None, None)]))
    assert isinstance(request, Publish)
    assert type(request.data) is bytes
    payload = Raw(request.data)
    assert payload.copy() is payload
    assert request.options == options


def failed(error: CommandError) -> CommandError:
    """The error as the worker raises it."""
    (failure,) = decode_from_hub(encode([to_failure(1, error)]))
    assert isinstance(failure, Failed | Unexpected)
    return from_failure(failure)


@pytest.mark.parametrize("code", ERRORS)
def test_a_command_error_keeps_its_code(code: ErrorCode) -> None:
    """The same object, because code compares by identity, and the detail."""
    error = failed(CommandError(code, "why"))
    assert type(error) is CommandError
    assert (error.code is code, error.detail) == (True, "why")


def test_a_code_of_another_engine_is_kept() -> None:
    """With its number, its message and whether it is temporary."""
    error = failed(CommandError(ErrorCode(4321, "own", "", temporary=True), "why"))
    assert (error.code.code, error.code.message, error.code.temporary) == (4321, "own", True)


@pytest.mark.parametrize("kind", [EngineUnavailable, NotReplicated, StorageFull])
def test_an_engine_error_keeps_its_type(kind: type[EngineUnavailable | NotReplicated | StorageFull]) -> None:
    """And the detail."""
    error = failed(kind("why"))
    assert (type(error), error.detail) == (kind, "why")


def test_out_of_sequence_keeps_what_is_expected() -> None:
    """And its message."""
    original = OutOfSequence("p", 9, 4)
    error = failed(original)
    assert isinstance(error, OutOfSequence)
    assert (error.expected, error.detail) == (4, original.detail)


def test_no_two_messages_have_the_same_number() -> None:
    """In neither direction."""
    kinds = [Message]
    tags = []
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind.__struct_config__.tag is not None:
            tags.append(kind.__struct_config__.tag)
    assert len(tags) == len(set(tags)) > 30
