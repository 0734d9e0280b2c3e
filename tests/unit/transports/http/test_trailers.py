"""Trailer fields after a chunked body: they are not header fields, and their size is limited."""

from __future__ import annotations

import pytest

from beaconfire.model.events import LimitHit
from tests.unit.transports.http.support import OPTIONS, HttpHarness, scenario
from tests.unit.transports.http.test_upgrades import H2C, both_paths, chunked

HEAD = b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
MOST = int(OPTIONS.header_max_size)


@pytest.mark.parametrize("offer", [b"", H2C], ids=["plain", "upgrade"])
def test_trailer_field_is_not_a_header_field(offer: bytes) -> None:
    """On both paths, in one read or several: a proxy may pass a field in a trailer that it removes from a head."""
    keyless = chunked(1, offer).replace(b"X-API-Key: right\r\n", b"")
    trailing = keyless[:-2] + b"X-API-Key: right\r\n\r\n"
    end = trailing.index(b"\r\n\r\n") + 4
    for data in ([trailing], [trailing[:end], trailing[end:]], [trailing[:-5], trailing[-5:]]):
        assert both_paths(data) == ([401], [], False)


@scenario
async def test_application_gets_no_trailer_fields(harness: HttpHarness) -> None:
    """A trailer must not replace the client's address from a trusted proxy."""
    await harness.receive(HEAD % b"/" + b"1\r\nx\r\n0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n")
    assert harness.scope["headers"] == [(b"host", b"x"), (b"transfer-encoding", b"chunked")]
    await harness.receive(HEAD % b"/" + b"1\r\nx\r\n0\r\n\r\n")
    assert (harness.requests, harness.stream.closed) == (2, False)


ENDLESS = {
    "fields": (b"0\r\n", b"a: b\r\n"),
    "name": (b"0\r\n", b"a"),
    "value": (b"0\r\na: ", b"b"),
    "extension": (b"1;a=", b"b"),
}


@pytest.mark.parametrize("path", [b"/", b"/at-once"])
@pytest.mark.parametrize("case", ENDLESS)
def test_endless_trailers_are_refused(case: str, path: bytes) -> None:
    """With 431 and a close as soon as the limit is exceeded, before or after the response."""
    beginning, part = ENDLESS[case]

    @scenario
    async def run(harness: HttpHarness) -> None:
        await harness.receive(HEAD % path + b"1\r\nx\r\n" + beginning)
        sent = 0
        while not harness.stream.closed:
            assert sent <= MOST
            await harness.receive(part)
            sent += len(part)
        assert sent > MOST - 50
        assert b"HTTP/1.1 431 " in harness.stream.written
        assert harness.events == [LimitHit("server.header_max_size", "")]
        harness.advance(1000)
        assert len(harness.events) == 1

    run()


@scenario
async def test_small_chunks_do_not_count_as_trailers(harness: HttpHarness) -> None:
    """The framing of all chunks may exceed the limit of the head, in one read or several."""
    body = b"1\r\nx\r\n" * MOST + b"0\r\nSum: 1\r\n\r\n"
    for step in (len(body), 5):
        await harness.receive(HEAD % b"/")
        for at in range(0, len(body), step):
            await harness.receive(body[at : at + step])
    assert (harness.requests, harness.stream.closed, harness.events) == (2, False, [])
