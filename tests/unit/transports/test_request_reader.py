"""The reader of HTTP requests and its rules."""

from __future__ import annotations

import gc

import pytest

from beaconfire.transports.request_reader import RequestReader, has_one_valid_host, is_valid_host

HEAD = b"POST /api/publish?x=1 HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n"
BODY = b'{"a":1}'
REQUEST = HEAD + b"Content-Length: 7\r\n\r\n" + BODY


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        (b"example.com", True),
        (b"example.com:8000", True),
        (b"example.com:", True),
        (b"example.com ", True),
        (b"my_service", True),
        (b"127.0.0.1:80", True),
        (b"[::1]", True),
        (b"[fe80::1%25eth0]:8000", True),
        (b"b%C3%BCcher.example", True),
        (b"", True),
        (b"a b", False),
        (b"a, b", False),
        (b"a/b", False),
        (b"user@a", False),
        (b"a:b", False),
        (b"a:80:80", False),
        (b"::1", False),
        (b"[::1", False),
        (b"a%2", False),
        (b"b\xc3\xbccher.example", False),
        (b"a\n", False),
        (b"http://a", False),
        (b"x" * 32_000 + b"/", False),
    ],
)
def test_host_is_a_name_or_an_address_with_an_optional_port(value: bytes, valid: bool) -> None:
    """RFC 9110 section 7.2. The value may be empty."""
    assert is_valid_host(value) is valid
    assert has_one_valid_host([(b"host", value)]) is valid


@pytest.mark.parametrize(
    ("fields", "valid"),
    [
        (b"", False),
        (b"Host: a\r\n", True),
        (b"hOST: a\r\n", True),
        (b"Host: a b\r\n", False),
        (b"Host: a\r\nHost: a\r\n", False),
        (b"Host: a\r\nHost: a b\r\n", False),
        (b"Host: a b\r\nHost: a b\r\n", False),
    ],
)
def test_request_has_exactly_one_valid_host(fields: bytes, valid: bool) -> None:
    """RFC 9112 section 3.2."""
    reader = RequestReader(1000)
    assert reader.feed(b"GET / HTTP/1.1\r\n" + fields + b"\r\n")
    assert (reader.has_valid_host, reader.is_plain, has_one_valid_host(reader.headers)) == (valid,) * 3


def test_requests_of_one_connection_are_read_one_after_the_other() -> None:
    """`take` returns the request and resets the reader. The size of the reads makes no difference."""
    reader = RequestReader(len(REQUEST))
    headers = [(b"host", b"h"), (b"x-a", b"1"), (b"content-length", b"7")]
    for step in (len(REQUEST), 1, len(REQUEST)):
        for at in range(0, len(REQUEST), step):
            assert not reader.is_complete
            assert reader.feed(REQUEST[at : at + step])
        assert (reader.target, reader.version, reader.method) == (b"/api/publish?x=1", "1.1", "POST")
        assert (reader.is_complete, reader.is_plain, reader.content_length) == (True, True, 7)
        assert reader.take() == (headers, BODY, True)
    assert (reader.target, reader.is_plain, reader.content_length) == (b"", False, 0)


def test_trailer_fields_are_not_header_fields() -> None:
    """RFC 9110 section 6.5.1: a key or a Host after the body does not count."""
    reader = RequestReader(1000)
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert reader.feed(head + b"1\r\nx\r\n0\r\nHost: h\r\nX-API-Key: right\r\n\r\n")
    assert (reader.is_complete, reader.has_valid_host) == (True, False)
    assert reader.take() == ([(b"transfer-encoding", b"chunked")], b"x", True)


def test_request_is_limited_in_size() -> None:
    """The limit holds for all reads of one request together."""
    assert not RequestReader(len(REQUEST) - 1).feed(REQUEST)
    reader = RequestReader(len(REQUEST) - 1)
    assert reader.feed(REQUEST[:-1])
    assert not reader.feed(REQUEST[-1:])


@pytest.mark.parametrize("data", [REQUEST + REQUEST, REQUEST + b"P", HEAD + b"A B\r\n\r\n", b"\x16\x03\x01"])
def test_second_request_and_malformed_bytes_are_not_read(data: bytes) -> None:
    """The HTTP server reads them instead."""
    assert not RequestReader(1000).feed(data)


@pytest.mark.parametrize(
    "request_bytes",
    [
        REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"),
        REQUEST.replace(b"X-A: 1", b"Expect: 100-continue"),
        REQUEST.replace(b"X-A: 1", b"Upgrade: h2c\r\nConnection: Upgrade"),
        HEAD,
    ],
)
def test_unusual_requests_are_not_plain(request_bytes: bytes) -> None:
    """HTTP/1.0, `Expect` and upgrades are for the HTTP server, and so is an incomplete head."""
    reader = RequestReader(1000)
    assert reader.feed(request_bytes)
    assert not reader.is_plain


def test_upgrade_ends_the_reading_after_the_head() -> None:
    """`upgrade_offset` is the size of the head, without the bytes after it."""
    head = HEAD + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    reader = RequestReader(1000)
    assert reader.feed(head + b"\x81\x80")
    assert (reader.upgrade_offset, reader.has_valid_host, reader.body) == (len(head), True, b"")


def test_closed_reader_is_freed_without_a_garbage_collection() -> None:
    """Otherwise every connect would leave a reference cycle."""
    gc.collect()
    gc.disable()
    try:
        reader = RequestReader(1000)
        reader.feed(REQUEST)
        reader.close()
        reader.close()
        del reader
        assert not [each for each in gc.get_objects() if type(each) is RequestReader]
    finally:
        gc.enable()
