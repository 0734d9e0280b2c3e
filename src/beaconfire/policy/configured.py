"""The policy of the configuration: tokens, permissions of namespaces, anonymous and insecure modes.

It permits and refuses only what the configuration says, and has no opinion about everything else.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct

from beaconfire.base.errors import (
    CONNECTION_DENIED,
    CONNECTION_EXPIRED,
    INTERNAL,
    INVALID_TOKEN,
    PERMISSION_DENIED,
    SUBSCRIPTION_EXPIRED,
    TOKEN_EXPIRED,
    CommandError,
    Disconnect,
)
from beaconfire.channels.access import Access
from beaconfire.channels.namespaces import Namespace, Namespaces
from beaconfire.model.grants import SubscriptionClaims, SubscriptionGrant
from beaconfire.model.identity import NAME_LENGTH_MAX, Identity
from beaconfire.model.publication import NO_PAYLOAD
from beaconfire.model.requests import ConnectionRequest, SubscriptionRequest
from beaconfire.policy.no_opinion import NoOpinion
from beaconfire.policy.port import Caller, ConnectionAttempt, PublicationAttempt, Via
from beaconfire.policy.tokens import (
    TokenExpired,
    TokenInvalid,
    TokenUnverifiable,
    TokenVerifier,
)
from beaconfire.protocols import json_payload
from beaconfire.session.options import ClientOptions

_TOKEN_DECISIONS: Final = frozenset({"connect", "refresh", "subscribe", "sub_refresh"})
_GRANTED: Final = SubscriptionGrant()


class ConfiguredPolicy(NoOpinion):
    """Implements `policy.port.Policy`."""

    def __init__(
        self,
        verifier: TokenVerifier,
        subscription_verifier: TokenVerifier,
        namespaces: Namespaces,
        access: Access,
        options: ClientOptions,
    ) -> None:
        self._verifier = verifier
        self._subscription_verifier = subscription_verifier
        self._namespaces = namespaces
        self._access = access
        self._options = options

    @property
    def suspending(self) -> frozenset[str]:
        """Decisions about tokens, if the keys of tokens may have to be fetched."""
        return _TOKEN_DECISIONS if self._verifier.suspends or self._subscription_verifier.suspends else frozenset()

    @property
    def decides_for_server_api(self) -> bool:
        """The owner of an API key may publish anywhere."""
        return False

    @property
    def ticket_version(self) -> str | None:
        """Empty: the configuration and the tokens decide, and each ticket names them."""
        return ""

    async def connect(self, attempt: ConnectionAttempt) -> Identity | None:
        """No opinion about a request without a token, unless anonymous clients or any users may connect."""
        request, options = attempt.request, self._options
        if request.token:
            identity = await self._verify(request.token)
            if request.user and request.user != identity.user:
                raise CommandError(PERMISSION_DENIED, "user is not the sub of the token: leave one of them out")
            return identity
        if options.insecure:
            return Identity(user=request.user)
        if options.allow_anonymous:
            return Identity(info=_anonymous_info(request))
        return None

    async def _verify(self, token: str) -> Identity:
        try:
            identity = await self._verifier.verify_connection(token)
        except TokenExpired as error:
            raise CommandError(TOKEN_EXPIRED, str(error)) from error
        except TokenInvalid as error:
            raise Disconnect(INVALID_TOKEN, str(error)) from error
        except TokenUnverifiable as error:
            raise CommandError(INTERNAL, str(error)) from error
        if not identity.user and self._options.disallow_anonymous_connection_tokens:
            raise Disconnect(CONNECTION_DENIED, "the token has no sub claim, and anonymous tokens are not allowed")
        return identity

    async def refresh(self, caller: Caller, token: str) -> Identity | None:
        try:
            renewed = await self._verifier.verify_connection(token)
        except TokenExpired as error:
            raise Disconnect(CONNECTION_EXPIRED, str(error)) from error
        except TokenInvalid as error:
            raise Disconnect(INVALID_TOKEN, str(error)) from error
        except TokenUnverifiable as error:
            raise CommandError(INTERNAL, str(error)) from error
        if renewed.user != caller.identity.user:
            raise Disconnect(INVALID_TOKEN, "the token's sub is not the connected user")
        return renewed

    async def subscribe(
        self,
        caller: Caller,
        request: SubscriptionRequest,
        namespace: Namespace,
        via: Via,
        proposed: SubscriptionGrant | None,
    ) -> SubscriptionGrant | None:
        """No opinion about a channel that the connection token or the server API grants, and about a request that has
        neither a token nor a permission."""
        if via in (Via.TOKEN, Via.SERVER_API):
            return None
        channel = request.channel
        if request.token:
            try:
                claims = await self._subscription_verifier.verify_subscription(request.token)
            except TokenExpired as error:
                raise CommandError(TOKEN_EXPIRED, str(error)) from error
            except TokenInvalid as error:
                raise CommandError(PERMISSION_DENIED, str(error)) from error
            except TokenUnverifiable as error:
                raise CommandError(INTERNAL, str(error)) from error
            _check_bearer(claims, caller, channel)
            return claims.grant
        return _GRANTED if self._access.may_subscribe(caller.identity.user, channel, namespace) else None

    async def sub_refresh(self, caller: Caller, channel: str, token: str) -> SubscriptionGrant | None:
        try:
            claims = await self._subscription_verifier.verify_subscription(token)
        except TokenExpired as error:
            raise Disconnect(SUBSCRIPTION_EXPIRED, str(error)) from error
        except TokenInvalid as error:
            raise Disconnect(INVALID_TOKEN, str(error)) from error
        except TokenUnverifiable as error:
            raise CommandError(INTERNAL, str(error)) from error
        _check_bearer(claims, caller, channel)
        return claims.grant

    async def publish(self, attempt: PublicationAttempt) -> Raw | None:
        caller = attempt.caller
        if caller is None:
            return attempt.data
        permitted = self._access.may_publish(caller.identity.user, attempt.subscribed, attempt.namespace)
        return attempt.data if permitted else None

    async def presence(self, caller: Caller, channel: str, namespace: Namespace, subscribed: bool) -> bool | None:
        return self._access.may_see_presence(caller.identity.user, subscribed, namespace) or None

    async def history(self, caller: Caller, channel: str, namespace: Namespace, subscribed: bool) -> bool | None:
        return self._access.may_read_history(caller.identity.user, subscribed, namespace) or None


def _check_bearer(claims: SubscriptionClaims, caller: Caller, channel: str) -> None:
    """A subscription token is valid for one user in one channel, and for one connection if it names a client.

    Raises Disconnect 3500.
    """
    if claims.channel != channel:
        raise Disconnect(INVALID_TOKEN, "the subscription token's channel is not the requested channel")
    if claims.user != caller.identity.user:
        raise Disconnect(INVALID_TOKEN, "the subscription token's sub is not the connected user")
    if claims.grant.client and claims.grant.client != caller.client:
        raise Disconnect(INVALID_TOKEN, "the subscription token's client is not this connection")


class _Data(Struct):
    """The one field that this policy reads in the data of a connect request. All other data is the application's."""

    name: Annotated[str, Meta(max_length=NAME_LENGTH_MAX)] = ""


_data_decoder = msgspec.json.Decoder(_Data)


def _anonymous_info(request: ConnectionRequest) -> Raw:
    """The info of an anonymous client: `{"name": ...}`, or none. The name is shown and not verified.

    Clients of the plain protocol send it as `user`, native clients as `name` in their data.
    """
    name = request.user or _name_in(request.data)
    return Raw(msgspec.json.encode({"name": name})) if name else NO_PAYLOAD


def _name_in(data: Raw) -> str:
    """The name, or "". Other data, or data with a longer name, belongs to the application and is no error."""
    if not data:
        return ""
    try:
        return json_payload.decode_json(_data_decoder.decode, bytes(data)).name
    except json_payload.NotJSONError:
        return ""
