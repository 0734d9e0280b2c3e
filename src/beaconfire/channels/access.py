"""Permissions of users in channels, from the configured options (sections 9, 13 and 18 of the reference)."""

from __future__ import annotations

from beaconfire.channels.namespaces import Namespace, Namespaces


class Access:
    """The configured rules. A valid subscription token overrides them; tokens are not checked here."""

    def __init__(self, namespaces: Namespaces, insecure: bool, personal_namespace: str | None = None) -> None:
        """`personal_namespace` is the namespace of personal channels, "" for channels without a namespace.

        None if users have no personal channels.
        """
        self._namespaces = namespaces
        self._insecure = insecure
        self._personal_namespace = personal_namespace or ""
        self._personal_prefix = None if personal_namespace is None else namespaces.personal("", personal_namespace)

    def may_subscribe(self, user: str, channel: str, namespace: Namespace) -> bool:
        """Whether `user` may subscribe without a token."""
        if self._namespaces.is_private(channel):
            return False
        if self._insecure:
            return True
        options = namespace.options
        if options.allow_user_limited_channels and (users := self._namespaces.allowed_users(channel)) is not None:
            return user != "" and user in users  # `x#` lists no user, and `x#42,` only 42
        if self._personal_prefix is not None and channel.startswith(self._personal_prefix):
            return user != "" and channel == self._namespaces.personal(user, self._personal_namespace)
        return options.allow_subscribe_for_client and (user != "" or options.allow_subscribe_for_anonymous)

    def may_publish(self, user: str, subscribed: bool, namespace: Namespace) -> bool:
        options = namespace.options
        return self._insecure or _granted(
            user,
            subscribed,
            options.allow_publish_for_client,
            options.allow_publish_for_subscriber,
            options.allow_publish_for_anonymous,
        )

    def may_see_presence(self, user: str, subscribed: bool, namespace: Namespace) -> bool:
        options = namespace.options
        return self._insecure or _granted(
            user,
            subscribed,
            options.allow_presence_for_client,
            options.allow_presence_for_subscriber,
            options.allow_presence_for_anonymous,
        )

    def may_read_history(self, user: str, subscribed: bool, namespace: Namespace) -> bool:
        options = namespace.options
        return self._insecure or _granted(
            user,
            subscribed,
            options.allow_history_for_client,
            options.allow_history_for_subscriber,
            options.allow_history_for_anonymous,
        )


def _granted(user: str, subscribed: bool, for_client: bool, for_subscriber: bool, for_anonymous: bool) -> bool:
    """The rule of all three permissions: for every user or for subscribers, and for the anonymous user if allowed."""
    return (for_client or (for_subscriber and subscribed)) and (user != "" or for_anonymous)
