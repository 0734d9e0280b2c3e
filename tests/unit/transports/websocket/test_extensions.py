"""Negotiation of compression (RFC 7692 section 7.1), offer by offer."""

from __future__ import annotations

import time

import pytest

from beaconfire.transports.websocket.extensions import NegotiatedDeflate, negotiate

ACCEPTED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
ACCEPTED_WINDOW = f"{ACCEPTED}; server_max_window_bits=12"


def smaller(bits: int) -> str:
    return f"{ACCEPTED}; server_max_window_bits={bits}"


ACCEPTED_OFFERS = {
    "permessage-deflate": ACCEPTED,
    "permessage-deflate; client_max_window_bits": ACCEPTED,
    "permessage-deflate;client_max_window_bits=8": ACCEPTED,
    "permessage-deflate; client_max_window_bits=15; server_no_context_takeover": ACCEPTED,
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover": ACCEPTED,
    "permessage-deflate; server_max_window_bits=15": ACCEPTED_WINDOW,
    "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12": ACCEPTED_WINDOW,
    'permessage-deflate; server_max_window_bits="13"': ACCEPTED_WINDOW,
    'permessage-deflate; server_max_window_bits="1\\3"': ACCEPTED_WINDOW,
    " \tpermessage-deflate\t;\tserver_max_window_bits = 15 ": ACCEPTED_WINDOW,
    "x-webkit-deflate-frame, permessage-deflate": ACCEPTED,
    'other; text="a, permessage-wrong; \\" b", permessage-deflate': ACCEPTED,
    "permessage-deflate; server_max_window_bits=9": smaller(9),
    "permessage-deflate; server_max_window_bits=10, permessage-deflate": smaller(10),
    'permessage-deflate; client_max_window_bits; server_max_window_bits="11"': smaller(11),
    "permessage-deflate; server_max_window_bits=8, permessage-deflate": ACCEPTED,
    "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=9": smaller(9),
    "permessage-deflate; unknown, permessage-deflate; server_max_window_bits=14": ACCEPTED_WINDOW,
    "permessage-deflate, permessage-deflate; server_max_window_bits=12": ACCEPTED,
}

DECLINED = [
    "",
    "permessage-bzip2",
    "x-permessage-deflate",
    "permessage-deflate-frame",
    "permessage-deflate; unknown",
    "permessage-deflate; unknown=1",
    "permessage-deflate; server_max_window_bits",
    "permessage-deflate; server_max_window_bits=",
    "permessage-deflate; server_max_window_bits=7",
    "permessage-deflate; server_max_window_bits=8",
    "permessage-deflate; server_max_window_bits=16",
    "permessage-deflate; server_max_window_bits=012",
    "permessage-deflate; server_max_window_bits=+12",
    "permessage-deflate; server_max_window_bits=x",
    'permessage-deflate; server_max_window_bits=""',
    'permessage-deflate; server_max_window_bits=" 12"',
    "permessage-deflate; client_max_window_bits=7",
    "permessage-deflate; client_max_window_bits=16",
    'permessage-deflate; client_max_window_bits=""',
    "permessage-deflate; server_no_context_takeover=true",
    'permessage-deflate; client_no_context_takeover=""',
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
    "permessage-deflate=1",
    "permessage-deflate;",
    "permessage-deflate; ; client_max_window_bits",
    'permessage-deflate; server_max_window_bits="12',
    "permessage-deflate client_max_window_bits",
    'permessage-deflate "',
    "@, permessage-deflate",
]


@pytest.mark.parametrize(("offers", "response_header"), ACCEPTED_OFFERS.items())
def test_first_acceptable_offer_is_accepted(offers: str, response_header: str) -> None:
    """Neither side keeps a context. The response contains a window only if the offer does."""
    bits = int(response_header.partition("server_max_window_bits=")[2] or 12)
    assert negotiate(offers) == NegotiatedDeflate(response_header, bits)


@pytest.mark.parametrize("offers", DECLINED)
def test_invalid_offers_are_declined(offers: str) -> None:
    """Unknown, malformed, repeated or impossible parameters: the connection has no compression."""
    assert negotiate(offers) is None


@pytest.mark.parametrize(
    "offers",
    [
        "permessage-deflate; unknown, " * 4000,
        "permessage-deflate" + "; a" * 40_000,
        'permessage-deflate; a="' + "\\" * 120_000,
        "permessage-deflate" + " \t" * 60_000 + "=",
    ],
)
def test_long_headers_are_read_in_linear_time(offers: str) -> None:
    """Parsing four times the size of the largest request head takes some milliseconds.

    The time limit is generous for a busy machine; quadratic time would exceed it by far.
    """
    started_s = time.process_time()
    assert negotiate(offers) is None
    assert time.process_time() - started_s < 3
