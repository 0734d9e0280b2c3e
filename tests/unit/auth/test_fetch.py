"""What the fetch of a key set refuses before anything goes over the network."""

from __future__ import annotations

import io
from http.client import HTTPMessage
from urllib.error import HTTPError
from urllib.request import Request

import pytest

from beaconfire.auth.fetch import NoDowngrade, check_url


@pytest.mark.parametrize(
    ("old", "new", "followed"),
    [
        ("https://keys.example/a", "https://keys.example/b", True),
        ("https://keys.example/a", "https://other.example/b", True),
        ("http://keys.example/a", "http://keys.example/b", True),
        ("http://keys.example/a", "https://keys.example/b", True),
        ("https://keys.example/a", "http://keys.example/b", False),
        ("https://keys.example/a", "ftp://keys.example/b", False),
    ],
)
def test_redirects_never_leave_https(old: str, new: str, followed: bool) -> None:
    """A redirect is followed unless it takes the encryption away."""

    def redirected() -> Request | None:
        return NoDowngrade().redirect_request(Request(old), io.BytesIO(), 302, "Found", HTTPMessage(), new)

    if followed:
        request = redirected()
        assert request is not None
        assert request.full_url == new
    else:
        with pytest.raises(HTTPError, match="redirect from https to something else refused"):
            redirected()


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://keys.example/jwks", True),
        ("http://127.0.0.1:8080", True),
        ("HTTPS://KEYS.example/", True),
        ("", False),
        ("keys.example/jwks", False),
        ("ftp://keys.example/jwks", False),
        ("file:///etc/passwd", False),
        ("https://", False),
        ("http://[::1/jwks", False),
        ("http://keys.example:port/", False),
    ],
)
def test_only_http_addresses_are_urls(url: str, good: bool) -> None:
    """Anything but http and https with a host is refused at start-up, also what cannot be parsed."""
    if good:
        check_url(url)
    else:
        with pytest.raises(ValueError, match="expected an http or https address"):
            check_url(url)
