"""Payloads, publications and errors as parts of messages, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

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
from beaconfire.engines.wire.messages import Failed, Info, Published, Unexpected
from beaconfire.model.publication import ClientInfo, Publication, to_payload


def data_of(payload: Raw) -> bytes:
    """A payload for a message that is encoded at once: a view, which is encoded like bytes and saves a copy."""
    return memoryview(payload) if payload else b""  # type: ignore[return-value]  # fields have one type, and decoding makes bytes


def to_info(info: ClientInfo) -> Info:
    conn_info, chan_info = info.conn_info, info.chan_info
    if conn_info or chan_info:
        return Info(info.user, info.client, data_of(conn_info), data_of(chan_info))
    return Info(info.user, info.client, b"", b"")


def from_info(info: Info) -> ClientInfo:
    conn_info, chan_info = info.conn_info, info.chan_info
    if conn_info or chan_info:
        return ClientInfo(info.user, info.client, to_payload(conn_info), to_payload(chan_info))
    return ClientInfo(info.user, info.client)


def to_published(publication: Publication) -> Published:
    """What is set only during delivery is not sent."""
    info = publication.info
    return Published(
        data_of(publication.data),
        None if info is None else to_info(info),
        publication.offset,
        publication.tags,
        publication.epoch,
    )


def from_published(published: Published) -> Publication:
    info = published.info
    return Publication(
        to_payload(published.data),
        None if info is None else from_info(info),
        published.offset,
        published.tags,
        published.epoch,
    )


_CODES: Final[Mapping[int, ErrorCode]] = {code.code: code for code in ERRORS}


def to_failure(id: int, error: CommandError) -> Failed | Unexpected:
    """The reply to a call that has raised `error`."""
    if isinstance(error, OutOfSequence):
        return Unexpected(id, error.producer, error.seq, error.expected)
    kind: Literal["command", "unavailable", "not_replicated", "storage_full"] = "command"
    match error:
        case EngineUnavailable():
            kind = "unavailable"
        case NotReplicated():
            kind = "not_replicated"
        case StorageFull():
            kind = "storage_full"
    code = error.code
    return Failed(id, kind, code.code, code.message, code.temporary, error.detail)


def from_failure(failure: Failed | Unexpected) -> CommandError:
    """The error that the call has raised at the hub."""
    if isinstance(failure, Unexpected):
        return OutOfSequence(failure.producer, failure.seq, failure.expected)
    match failure.kind:
        case "unavailable":
            return EngineUnavailable(failure.detail)
        case "not_replicated":
            return NotReplicated(failure.detail)
        case "storage_full":
            return StorageFull(failure.detail)
        case "command":
            code = _CODES.get(failure.code) or ErrorCode(failure.code, failure.message, "", failure.temporary)
            return CommandError(code, failure.detail)
