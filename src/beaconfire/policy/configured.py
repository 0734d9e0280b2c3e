"""The policy of the configuration: tokens, permissions of namespaces, anonymous and insecure modes.

Its decisions never suspend, except while keys of tokens are fetched.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from beaconfire.base.errors import (
    CONNECTION_DENIED,
    CONNECTION_EXPIRED,
    INTERNAL,
    INVALID_TOKEN,
    METHOD_NOT_FOUND,
    NOT_AVAILABLE,
    PERMISSION_DENIED,
    SUBSCRIPTION_EXPIRED,
    TOKEN_EXPIRED,
    UNAUTHORIZED,
    CommandError,
    Disconnect,
)
from beaconfire.channels.access import Access
from beaconfire.channels.namespaces import Namespace, Namespaces
from beaconfire.model.grants import SubscriptionGrant
from beaconfire.model.identity import NAME_LENGTH_MAX, Identity
from beaconfire.model.publication import NO_PAYLOAD
from beaconfire.model.requests import ConnectRequest, SubscribeRequest
from beaconfire.policy.tokens import (
    TokenExpired,
    TokenInvalid,
    TokenUnverifiable,
    TokenVerifier,
)
from beaconfire.protocols import json_payload
from beaconfire.session.options import ClientOptions


class ConfiguredPolicy:
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

    async def connect(self, request: ConnectRequest) -> Identity:
        options = self._options
        if request.token:
            identity = await self._verify(request.token)
            if request.user and request.user != identity.user:
                raise CommandError(PERMISSION_DENIED, "user is not the sub of the token: leave one of them out")
            return identity
        if options.insecure:
            return Identity(user=request.user)
        if options.allow_anonymous:
            return Identity(info=_anonymous_info(request))
        raise CommandError(UNAUTHORIZED, "no token: send a connection token")

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

    async def refresh(self, identity: Identity, token: str) -> Identity:
        try:
            renewed = await self._verifier.verify_connection(token)
        except TokenExpired as error:
            raise Disconnect(CONNECTION_EXPIRED, str(error)) from error
        except TokenInvalid as error:
            raise Disconnect(INVALID_TOKEN, str(error)) from error
        except TokenUnverifiable as error:
            raise CommandError(INTERNAL, str(error)) from error
        if renewed.user != identity.user:
            raise Disconnect(INVALID_TOKEN, "the token's sub is not the connected user")
        return renewed

    async def subscribe(
        self, identity: Identity, client: str, request: SubscribeRequest, namespace: Namespace
    ) -> SubscriptionGrant:
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
            _check_bearer(claims.user, claims.client, claims.channel, identity, client, channel)
            return claims.grant
        if not self._access.may_subscribe(identity.user, channel, namespace):
            raise CommandError(PERMISSION_DENIED, f"channel {channel!r} needs a subscription token or a permission")
        return SubscriptionGrant()

    async def sub_refresh(self, identity: Identity, client: str, channel: str, token: str) -> SubscriptionGrant:
        try:
            claims = await self._subscription_verifier.verify_subscription(token)
        except TokenExpired as error:
            raise Disconnect(SUBSCRIPTION_EXPIRED, str(error)) from error
        except TokenInvalid as error:
            raise Disconnect(INVALID_TOKEN, str(error)) from error
        except TokenUnverifiable as error:
            raise CommandError(INTERNAL, str(error)) from error
        _check_bearer(claims.user, claims.client, claims.channel, identity, client, channel)
        return claims.grant

    async def publish(self, identity: Identity, subscribed: bool, channel: str, namespace: Namespace, data: Raw) -> Raw:
        if not self._access.may_publish(identity.user, subscribed, namespace):
            raise CommandError(PERMISSION_DENIED, f"publishing to {channel!r} is not permitted to this client")
        return data

    async def rpc(self, identity: Identity, method: str, data: Raw) -> Raw:
        if ":" in method:
            raise CommandError(METHOD_NOT_FOUND, f"no RPC namespace for method {method!r} is configured")
        raise CommandError(NOT_AVAILABLE, "no RPC handler is configured")


def _check_bearer(user: str, bearer: str, granted: str, identity: Identity, client: str, channel: str) -> None:
    """A subscription token is valid for one user in one channel, and for one connection if it names a client.

    Raises Disconnect 3500.
    """
    if granted != channel:
        raise Disconnect(INVALID_TOKEN, "the subscription token's channel is not the requested channel")
    if user != identity.user:
        raise Disconnect(INVALID_TOKEN, "the subscription token's sub is not the connected user")
    if bearer and bearer != client:
        raise Disconnect(INVALID_TOKEN, "the subscription token's client is not this connection")


class _Data(Struct):
    """The one field that this policy reads in the data of a connect request. All other data is the application's."""

    name: Annotated[str, Meta(max_length=NAME_LENGTH_MAX)] = ""


_data_decoder = msgspec.json.Decoder(_Data)


def _anonymous_info(request: ConnectRequest) -> Raw:
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
