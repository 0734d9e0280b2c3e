"""The checks that every official SDK must pass, in both codecs. The scenarios of each SDK report them by name."""

from __future__ import annotations

CHECKS = {
    # --- channels
    "connect": "A client with a token connects, and receives its id and the server's version.",
    "subscribe": "A subscription token allows a channel that requires one; the reply has its data and the position.",
    "publish_echo": "A subscribed publisher receives its own publication, with its info and the offset.",
    "second_client": "Another client receives all publications in order, with the sender's info.",
    "across_codecs": "JSON and Protobuf clients in one channel receive the same data.",
    "backend_publication": "A backend's publication has tags and no client info.",
    "presence": "Presence contains every client with its user and both infos.",
    "presence_stats": "Presence stats count clients and distinct users.",
    "join_leave": "Joins and leaves are sent with the client's info, including the client's own.",
    "history_pages": "25 publications arrive in pages of 10, forwards and backwards.",
    "history_position": "History with limit 0 returns only the position.",
    "history_all": "A negative limit returns the whole history.",
    "unsubscribe": "After unsubscribe no message of the channel arrives, and presence does not contain the client.",
    "subscribe_again": "A new subscription recovers the publications since the old one.",
    "many_subscribes_in_a_frame": "50 subscribes in one frame all succeed.",
    "unsubscribe_in_the_same_frame": "A subscribe and its unsubscribe in one frame leave no subscription.",
    "concurrent_publications": "Concurrent publications of three clients reach all three in one order.",
    # --- recovery
    "recovery_after_cut": "After an interruption exactly the missed publications arrive, in order, and then live ones.",
    "recovery_of_nothing": "After an interruption without publications, none arrives, and recovered is true.",
    "recovery_while_publishing": "Interruptions during a series of publications lose and duplicate none.",
    "recovery_in_small_history": "All publications that the history keeps are recovered.",
    "large_recovery": "A recovery that exceeds one reply arrives in pieces, in order, before new publications.",
    "unrecoverable": "More publications than the history keeps: recovered is false, and live ones follow.",
    "history_removed": "If the history was removed, recovered is false.",
    "state_invalidated": "After 3014 the client fetches new tokens, and recovered is false.",
    "get_state": "An unrecoverable position makes the SDK call get_state (error 112).",
    "half_open_connection": "A client that left a silent connection reconnects while its old session still exists.",
    "lost_pongs": "A client whose pongs are lost is disconnected with 3012 and reconnects.",
    "personal_channel_recovery": "The personal channel recovers after an interruption.",
    # --- tokens
    "expired_token": "An expired connection token is error 109, and the SDK connects with a new one.",
    "expired_token_with_a_subscription": "The same with a pending subscription in the same frame.",
    "forged_token": "A token signed with another secret: 3500.",
    "unsigned_token": "A token with alg none: 3500.",
    "token_of_another_algorithm": "A token with an algorithm that has no key: 3500.",
    "malformed_token": "A text that is not a token: 3500.",
    "subscription_token_to_connect": "A subscription token is not a connection token: 3500.",
    "missing_token": "No token: 3501.",
    "missing_subscription_token": "No subscription token where one is required: error 103.",
    "forged_subscription_token": "A subscription token signed with another secret: error 103.",
    "connection_token_to_subscribe": "A connection token is not a subscription token: error 103.",
    "subscription_token_of_another_channel": "A subscription token for another channel: 3500.",
    "subscription_token_of_another_user": "A subscription token of another user: 3500.",
    "expired_subscription_token": "An expired subscription token is error 109, and the SDK fetches a new one.",
    "private_channel": "A private channel requires a token even if the namespace requires none.",
    "refresh": "A connection that is refreshed in time continues after its first expiry.",
    "refresh_with_expired_token": "A refresh with an expired token: 3005, and the SDK reconnects with a new one.",
    "refresh_for_another_user": "A refresh with a token of another user: 3500.",
    "connection_expiry": "A connection that is not refreshed ends with 3005.",
    "sub_refresh": "A subscription that is refreshed in time continues after its first expiry.",
    "sub_refresh_with_expired_token": "A sub_refresh with an expired token: 3006; the SDK reconnects with a new one.",
    "sub_refresh_for_another_user": "A sub_refresh with a token of another user: 3500.",
    "sub_refresh_without_channel": "A sub_refresh without a channel is error 107 and has no other effect.",
    "subscription_expiry": "A subscription that is not refreshed ends with 2501, and the new one recovers.",
    "revoked_token": "A revoked connection token: 3005, then error 109, and the SDK reconnects with a new token.",
    "revoked_subscription_token": "A revoked subscription token: 2501; the SDK subscribes with a new one and recovers.",
    # --- actions of the server
    "personal_channel": "A backend's publication in the personal channel reaches the user.",
    "channels_of_the_token": "The channels of the connection token are subscribed at connect, with join and leave.",
    "api_disconnect": "A disconnect by the API: 3503, without a reconnect.",
    "api_disconnect_with_own_code": "A disconnect by the API with its own terminal code and reason.",
    "api_disconnect_without_reason": "A terminal code without a reason also prevents a reconnect.",
    "api_reconnect": "After 3011 the client reconnects, and its subscription recovers.",
    "api_unsubscribe": "An unsubscribe by the API: 2000, and no message of the channel arrives any more.",
    "api_subscribe": "The API subscribes and unsubscribes a connected client.",
    "api_refresh": "A connection whose expiry the API changed ends with 3005.",
    # --- deltas and filters
    "delta": "The SDK restores publications from patches, and the server did send patches.",
    "delta_after_recovery": "The same after interruptions, with and without missed publications.",
    "delta_not_allowed": "If the namespace allows no deltas, the client receives complete publications.",
    "tags_filter": "Only matching publications arrive, live and recovered, and the others are no gap.",
    "tags_filter_refused": "A filter that is not allowed or not valid: error 107.",
    # --- refused commands
    "rpc_without_handler": "An rpc without a handler: error 108.",
    "send_without_handler": "A send without a handler: 3508.",
    "publish_without_subscription": "Publishing without subscription: error 103; in an unknown namespace: error 102.",
    "reads_without_subscription": "History and presence without subscription: error 103.",
    "presence_disabled": "Presence where it is disabled: error 108.",
    "history_of_another_epoch": "History since a position of another epoch: error 112.",
    "unknown_namespace": "Subscribing in an unknown namespace: error 102.",
    "subscribed_twice": "A second subscribe to the same channel: error 105.",
    "oversized_message": "A message above the limit ends its sender's connection with 1009, and no other one.",
    "binary_payload": "A payload that is not JSON: 3506 for JSON clients; Protobuf clients receive it.",
}
"""Checks by name, with the expected behaviour."""

EXCLUDED = {
    "python-0.5.0": {
        "sub_refresh": "sends sub_refresh without the channel, see sub_refresh_without_channel",
        "sub_refresh_with_expired_token": "sends sub_refresh without the channel",
        "sub_refresh_for_another_user": "sends sub_refresh without the channel",
        "api_subscribe": "ignores subscribe pushes",
        "half_open_connection": "waits longer than the test until a dead connection closes",
    },
}
"""Checks that an SDK cannot pass with any server, by the SDK's label, with the reason."""


EXCLUDED_OVER_HTTP = {
    "oversized_message": "a request that is too large gets 413, without any other effect",
}
"""Checks that do not apply to transports that send commands in separate requests, with the reason."""


EXCLUDED_UNDER_HOSTS = {
    ("uvicorn", "python-0.7.0"): {
        "lost_pongs": "uvicorn waits 10 s for the answer to a close frame, and the SDK reports its code only then",
    },
}
"""Checks that an SDK cannot pass under another ASGI server, by the server's name and the SDK's label, with the
reason."""


def excluded_checks(sdk: str, variant: str) -> dict[str, str]:
    """The excluded checks, with the reason. `variant` is a codec, or a transport and a codec (`http_stream-json`)."""
    return {**EXCLUDED.get(sdk, {}), **(EXCLUDED_OVER_HTTP if "-" in variant else {})}


def checks_of(sdk: str, variant: str) -> list[str]:
    """The names of all checks that this SDK must pass."""
    return [name for name in CHECKS if name not in excluded_checks(sdk, variant)]
