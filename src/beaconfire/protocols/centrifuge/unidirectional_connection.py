"""The unidirectional Centrifuge protocol (section 16): the client sends one connect request and then only receives."""

from __future__ import annotations

from typing import Final

from beaconfire.base.errors import (
    CONNECTION_DENIED,
    CONNECTION_EXPIRED,
    EXPIRED,
    INTERNAL,
    SERVER_ERROR,
    TOKEN_EXPIRED,
    CommandError,
)
from beaconfire.protocols.centrifuge.connection import CentrifugeCodec, CentrifugeConnection
from beaconfire.session.operations.assembly import Operations
from beaconfire.session.session import Session

_DISCONNECT_FOR_ERROR: Final = {
    EXPIRED: CONNECTION_EXPIRED,
    TOKEN_EXPIRED: CONNECTION_EXPIRED,
    INTERNAL: SERVER_ERROR,
}
"""The disconnect code for an error. Any other error means `CONNECTION_DENIED`."""


class UnidirectionalConnection(CentrifugeConnection):
    """Where other clients get an error reply, the session of this client ends."""

    __slots__ = ("_has_received",)

    def __init__(self, session: Session, operations: Operations, codec: CentrifugeCodec) -> None:
        super().__init__(session, operations, codec)
        self._has_received = False

    def receive(self, data: bytes, binary: bool) -> None:
        """Handles the connect request. Later messages only count against the client's limits."""
        if self._has_received:  # the session may still be new, if the connect has not begun
            self._session.count(1, len(data))
        else:
            self._has_received = True
            super().receive(data, binary)

    def reply_error(self, ref: object, error: CommandError) -> None:
        self._session.end(_DISCONNECT_FOR_ERROR.get(error.code, CONNECTION_DENIED), error.detail)
