"""The commands rpc, send and ping."""

from __future__ import annotations

from beaconfire.base.errors import BAD_PROTOCOL, COMMAND_NOT_AVAILABLE, Disconnect
from beaconfire.model.requests import PingRequest, RPCRequest, SendRequest
from beaconfire.model.results import PingResult, RPCResult
from beaconfire.policy.port import Policy
from beaconfire.session.session import Session


class MessageHandler:
    """Commands that concern no channel."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    async def rpc(self, session: Session, ref: object, request: RPCRequest) -> None:
        data = await self._policy.rpc(session.identity, request.method, request.data)
        session.reply(ref, RPCResult(data))

    async def send(self, session: Session, ref: object, request: SendRequest) -> None:
        """Messages without a reply need a handler, and the configured rules have none."""
        raise Disconnect(COMMAND_NOT_AVAILABLE, "send: no message handler is configured")

    async def ping(self, session: Session, ref: object, request: PingRequest) -> None:
        """A command of the plain protocol. A native client must not send it (section 5, rule 3 of the reference)."""
        if session.traits.connect_first:
            raise Disconnect(BAD_PROTOCOL, "ping is not a command of this protocol")
        session.reply(ref, PingResult())
