"""Channel names: their namespaces, the meaning of their symbols, and which names are valid.

A name is `[$][namespace:]rest[#user,user]`: `$` marks a private channel, the namespace selects the options, `#` limits
it to the users listed. The rules are those of the Centrifuge protocol, section 18 of its reference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from beaconfire.base.errors import BAD_REQUEST, UNKNOWN_CHANNEL, CommandError
from beaconfire.channels.options import ChannelNameOptions, ChannelOptions
from beaconfire.engines.port import Durability, HistoryOptions

_INTERNAL: Final = "\x01"
"""The namespace of internal channels. No configuration has a namespace with this name."""


class Namespace:
    """The options of a group of channels. The namespace "" is for channels without a namespace."""

    __slots__ = ("history", "name", "options", "pattern")

    def __init__(self, name: str, options: ChannelOptions, history_meta_ttl_s: float) -> None:
        self.name = name
        self.options = options
        self.pattern = re.compile(options.channel_regex) if options.channel_regex else None
        self.history = HistoryOptions(
            size=options.history_size,
            ttl_s=float(options.history_ttl),
            # A position must never be removed before the publications that it counts.
            meta_ttl_s=max(float(options.history_meta_ttl) or history_meta_ttl_s, float(options.history_ttl)),
            durability=options.durability,
        )

    @property
    def cache_mode(self) -> bool:
        """Whether recovery returns the latest publication instead of all missed publications."""
        return self.options.force_recovery_mode == "cache"


class Namespaces:
    """All namespaces, and the rules of channel names."""

    def __init__(
        self,
        default: ChannelOptions,
        namespaces: Mapping[str, ChannelOptions],
        names: ChannelNameOptions,
        history_meta_ttl_s: float,
    ) -> None:
        self._names = names
        self._default = Namespace("", default, history_meta_ttl_s)
        self._namespaces = {name: Namespace(name, options, history_meta_ttl_s) for name, options in namespaces.items()}

    def resolve(self, channel: str) -> Namespace:
        """The namespace of a channel. Raises CommandError 107 for an empty name, 102 for an unknown namespace."""
        if not channel:
            raise CommandError(BAD_REQUEST, "channel must not be empty")
        name = self._namespace_name(channel)
        if name is None:
            return self._default
        try:
            return self._namespaces[name]
        except KeyError:
            raise CommandError(UNKNOWN_CHANNEL, f"channel {channel!r}: no namespace {name!r} is configured") from None

    def internal(self, name: str) -> str:
        """The name of a channel that only the nodes use. `resolve` refuses it, so no client, token or API call can
        name the channel."""
        return f"{_INTERNAL}{self._names.namespace_boundary}{name}"

    def durability(self, channel: str) -> Durability:
        """The durability of the channel's history. "memory" for an unknown namespace, whose channels have none."""
        name = self._namespace_name(channel)
        namespace = self._default if name is None else self._namespaces.get(name)
        return "memory" if namespace is None else namespace.history.durability

    def label(self, channel: str) -> str:
        """The name of the channel's namespace for metrics. "" for no namespace or an unknown one, so labels are few."""
        name = self._namespace_name(channel)
        return name if name is not None and name in self._namespaces else ""

    def _namespace_name(self, channel: str) -> str | None:
        """The part before the namespace boundary, None without one. A user id may contain the boundary: `#urn:42`."""
        boundary, users = self._names.namespace_boundary, self._names.user_boundary
        if not boundary:
            return _INTERNAL if channel.startswith(_INTERNAL) else None
        if boundary not in channel:
            return None
        name = channel.removeprefix(self._names.private_prefix).split(boundary, 1)[0]
        return None if users and users in name else name

    def too_long(self, channel: str) -> bool:
        return len(channel.encode()) > self._names.max_length

    def check_name(self, channel: str, namespace: Namespace) -> None:
        """Raises CommandError 107 for a name that is not ASCII, or does not match channel_regex if it is set."""
        pattern = namespace.pattern
        if pattern is None:
            if not channel.isascii():
                raise CommandError(BAD_REQUEST, f"channel {channel!r} must be ASCII")
            return
        rest = channel.removeprefix(self._names.private_prefix)
        if namespace.name:
            rest = rest.split(self._names.namespace_boundary, 1)[1]
        if pattern.search(rest) is None:
            raise CommandError(BAD_REQUEST, f"channel {channel!r} must match {pattern.pattern!r} after its namespace")

    def is_private(self, channel: str) -> bool:
        """Whether a subscription needs a subscription token."""
        prefix = self._names.private_prefix
        return bool(prefix) and channel.startswith(prefix)

    def allowed_users(self, channel: str) -> list[str] | None:
        """The users that the name limits its channel to. None if it limits nothing."""
        boundary = self._names.user_boundary
        if not boundary or boundary not in channel:
            return None
        users = channel.rsplit(boundary, 1)[1]
        return users.split(self._names.user_separator) if self._names.user_separator else [users]

    def personal(self, user: str, namespace: str) -> str:
        """The personal channel of a user."""
        prefix = f"{namespace}{self._names.namespace_boundary}" if namespace else ""
        return f"{prefix}{self._names.user_boundary}{user}"
