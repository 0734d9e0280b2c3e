"""What must hold with every official SDK, in both codecs. The scenarios of each SDK report on these by name."""

from __future__ import annotations

CHECKS = {
    # --- rooms
    "connect": "A client with a token is connected, and learns its id and the server's version.",
    "subscribe": "A subscription token opens a channel that needs one; its data and the position come with the answer.",
    "publish_echo": "A subscribed publisher hears itself, with who it is and the offset.",
    "second_client": "Another client hears everything in order, with who sent it.",
    "across_codecs": "JSON and Protobuf clients in one room hear the same.",
    "backend_publication": "What a backend publishes has tags and no sender.",
    "presence": "Presence names every client with its user and both infos.",
    "presence_stats": "Presence stats count clients and distinct users.",
    "join_leave": "Who comes and goes is announced with who it is, oneself included.",
    "history_pages": "25 publications come in pages of 10, forwards and backwards.",
    "history_position": "History with limit 0 tells only the position.",
    "history_all": "A negative limit asks for everything.",
    "unsubscribe": "After unsubscribe nothing of the channel arrives, and presence is gone.",
    "subscribe_again": "A subscription made again recovers what came in between.",
    "many_subscribes_in_a_frame": "50 subscribes in one frame all succeed.",
    "unsubscribe_in_the_same_frame": "A subscribe undone in the same frame leaves nothing behind.",
    "all_at_once": "Publications of three clients at once reach all three in one order.",
    # --- recovery
    "recovery_after_cut": "After a cut exactly what was missed comes, in order, and then life goes on.",
    "recovery_of_nothing": "After a cut in which nothing was published, nothing comes, and it counts as recovered.",
    "recovery_while_publishing": "Cuts in the middle of a stream neither lose nor double anything.",
    "recovery_in_small_history": "As much as the history holds is recovered.",
    "large_recovery": "What is more than one reply holds is recovered in pieces, in order, before what is new.",
    "unrecoverable": "More than the history holds: recovered is false, and life goes on from the new position.",
    "history_removed": "Recovery is refused truthfully when the history was removed.",
    "state_invalidated": "After 3014 the client gets new tokens and no old state is taken for recovered.",
    "get_state": "An unrecoverable position asks the application for its state anew (error 112).",
    "half_open_link": "A client that gave up on a silent link comes back while its old session still lives.",
    "lost_pongs": "A client whose pongs get lost is told 3012 and comes back.",
    "personal_channel_recovery": "The personal channel recovers after a cut.",
    # --- tokens
    "expired_token": "An expired connection token is error 109, and the SDK connects with a new one.",
    "expired_token_with_a_subscription": "The same with a subscription waiting, which some SDKs send along.",
    "forged_token": "A token signed with another secret: 3500.",
    "unsigned_token": "A token with alg none: 3500.",
    "token_of_another_algorithm": "A token with an algorithm that has no key here: 3500.",
    "garbage_token": "A token that is none: 3500.",
    "subscription_token_to_connect": "A subscription token is no connection token: 3500.",
    "missing_token": "No token: 3501.",
    "missing_subscription_token": "No subscription token where one is needed: error 103.",
    "forged_subscription_token": "A subscription token signed with another secret: error 103.",
    "connection_token_to_subscribe": "A connection token is no subscription token: error 103.",
    "subscription_token_of_another_channel": "A subscription token for another channel: 3500.",
    "subscription_token_of_another_user": "Someone else's subscription token: 3500.",
    "expired_subscription_token": "An expired subscription token is error 109, and the SDK asks for a new one.",
    "private_channel": "A private channel needs a token even where the namespace needs none.",
    "refresh": "A connection renewed in time lives on beyond its first expiry.",
    "refresh_with_expired_token": "A refresh with an expired token: 3005, and the SDK returns with a new one.",
    "refresh_for_another_user": "A refresh with someone else's token: 3500.",
    "connection_expiry": "A connection that is not renewed ends with 3005.",
    "sub_refresh": "A subscription renewed in time lives on beyond its first expiry.",
    "sub_refresh_with_expired_token": "A sub_refresh with an expired token: 3006, and the SDK returns with a new one.",
    "sub_refresh_for_another_user": "A sub_refresh with someone else's token: 3500.",
    "sub_refresh_without_channel": "A sub_refresh without a channel is error 107 and harms nothing.",
    "subscription_expiry": "A subscription that is not renewed ends with 2501 and is made again without loss.",
    # --- what the server does
    "personal_channel": "A backend reaches a user in the personal channel.",
    "channels_of_the_token": "Channels of the connection token are subscribed at connect, with join and leave.",
    "api_disconnect": "Disconnected by the API: 3503, for good.",
    "api_disconnect_with_own_code": "An own terminal code and its reason arrive.",
    "api_disconnect_without_reason": "An own terminal code ends the connection for good even without a reason.",
    "api_reconnect": "3011 brings the client back, its subscription recovered.",
    "api_unsubscribe": "Unsubscribed by the API: 2000, and nothing of the channel arrives any more.",
    "api_subscribe": "Subscribed and unsubscribed by the API while connected.",
    "api_refresh": "A connection the API lets expire ends with 3005.",
    # --- what a subscription may ask for
    "delta": "Publications that come as patches are put together to what was published, and patches really came.",
    "delta_after_recovery": "So they are after cuts, whether or not something was missed.",
    "delta_not_allowed": "Where there are no patches, whole publications come to who asks for them.",
    "tags_filter": "Only what passes comes, live and recovered, and what does not pass is no gap.",
    "tags_filter_refused": "A filter where none is allowed, or that is none: error 107.",
    # --- what is refused
    "rpc_without_handler": "An rpc that nobody handles: error 108.",
    "send_without_handler": "A message that nobody handles: 3508.",
    "publish_from_outside": "Publishing without subscription: error 103; to an unknown namespace: error 102.",
    "questions_from_outside": "History and presence without subscription: error 103.",
    "presence_that_is_off": "Presence where it is off: error 108.",
    "history_of_a_foreign_epoch": "History since a position of another epoch: error 112.",
    "unknown_namespace": "Subscribing in an unknown namespace: error 102.",
    "subscribed_twice": "A second subscribe to the same channel: error 105.",
    "oversized_message": "A message beyond the limit ends its sender's connection with 1009, and only that.",
    "binary_payload": "A payload that is not JSON: 3506 for JSON clients, Protobuf clients unharmed.",
}
"""Names of checks, with what must hold."""

ABSENT = {
    "python-0.5.0": {
        "sub_refresh": "sends sub_refresh without the channel, see sub_refresh_without_channel",
        "sub_refresh_with_expired_token": "sends sub_refresh without the channel",
        "sub_refresh_for_another_user": "sends sub_refresh without the channel",
        "api_subscribe": "ignores subscribe pushes",
        "half_open_link": "waits longer than the test for a dead link to close",
    },
}
"""Checks that an SDK cannot pass with any server, by the SDK's label, with the reason."""


ABSENT_OVER_HTTP = {
    "oversized_message": "a request that is too large is answered with 413, and harms nothing else",
}
"""Checks that have no meaning where a client's commands go by requests of their own, with the reason."""


def absent(sdk: str, way: str) -> dict[str, str]:
    """The checks to leave out, with the reason. `way` is a codec, or a transport and a codec: `http_stream-json`."""
    return {**ABSENT.get(sdk, {}), **(ABSENT_OVER_HTTP if "-" in way else {})}


def checks_of(sdk: str, way: str) -> list[str]:
    """The names of all checks that this SDK must pass."""
    return [name for name in CHECKS if name not in absent(sdk, way)]
