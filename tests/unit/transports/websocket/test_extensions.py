"""What is agreed on about compression (RFC 7692 section 7.1), offer by offer."""

from __future__ import annotations

import time

import pytest

from beaconfire.transports.websocket.extensions import NegotiatedDeflate, negotiate

AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
AGREED_WINDOW = f"{AGREED}; server_max_window_bits=12"


def smaller(bits: int) -> str:
    return f"{AGREED}; server_max_window_bits={bits}"


TAKEN_UP = {
    "permessage-deflate": AGREED,
    "permessage-deflate; client_max_window_bits": AGREED,
    "permessage-deflate;client_max_window_bits=8": AGREED,
    "permessage-deflate; client_max_window_bits=15; server_no_context_takeover": AGREED,
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover": AGREED,
    "permessage-deflate; server_max_window_bits=15": AGREED_WINDOW,
    "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12": AGREED_WINDOW,
    'permessage-deflate; server_max_window_bits="13"': AGREED_WINDOW,
    'permessage-deflate; server_max_window_bits="1\\3"': AGREED_WINDOW,
    " \tpermessage-deflate\t;\tserver_max_window_bits = 15 ": AGREED_WINDOW,
    "x-webkit-deflate-frame, permessage-deflate": AGREED,
    'other; text="a, permessage-wrong; \\" b", permessage-deflate': AGREED,
    "permessage-deflate; server_max_window_bits=9": smaller(9),
    "permessage-deflate; server_max_window_bits=10, permessage-deflate": smaller(10),
    'permessage-deflate; client_max_window_bits; server_max_window_bits="11"': smaller(11),
    "permessage-deflate; server_max_window_bits=8, permessage-deflate": AGREED,
    "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=9": smaller(9),
    "permessage-deflate; unknown, permessage-deflate; server_max_window_bits=14": AGREED_WINDOW,
    "permessage-deflate, permessage-deflate; server_max_window_bits=12": AGREED,
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


@pytest.mark.parametrize(("offers", "answer"), TAKEN_UP.items())
def test_taken_up(offers: str, answer: str) -> None:
    """The first offer that can be: nobody keeps a context, and a window is mentioned only to who mentioned it."""
    bits = int(answer.partition("server_max_window_bits=")[2] or 12)
    assert negotiate(offers) == NegotiatedDeflate(answer, bits)


@pytest.mark.parametrize("offers", DECLINED)
def test_declined(offers: str) -> None:
    """Unknown, malformed, repeated or impossible: then the connection goes on without compression."""
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
    """Four times as large as a request head may be: some milliseconds, whatever is in it.

    The bound has room for a busy machine; time that grows with the square of the length would be far beyond it.
    """
    started_s = time.process_time()
    assert negotiate(offers) is None
    assert time.process_time() - started_s < 3
