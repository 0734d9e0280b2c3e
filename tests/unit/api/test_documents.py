"""The documents of the server API over HTTP: the reference page and the OpenAPI document."""

from __future__ import annotations

import httpx
import pytest

from tests.unit.api.harness import ApiHarness
from tests.unit.api.http_calls import serve


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/api/", "text/html; charset=utf-8"),
        ("/api/page.js", "text/javascript; charset=utf-8"),
        ("/api/page.css", "text/css; charset=utf-8"),
        ("/api/openapi.json", "application/json"),
    ],
)
def test_documents_need_no_key(path: str, media_type: str) -> None:
    """The page and the OpenAPI document are public. Their content security policy allows nothing from other hosts."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        response = await http.get(path)
        assert (response.status_code, response.headers["content-type"]) == (200, media_type)
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        head = await http.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(response.content))

    serve(requests, headers={})


def test_the_page_is_redirected_to_a_path_with_a_slash() -> None:
    """Without the trailing slash, relative URLs in the page would be wrong."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        response = await http.get("/api")
        assert (response.status_code, response.headers["location"]) == (308, "api/")

    serve(requests, headers={})


def test_the_page_loads_nothing_from_other_hosts() -> None:
    """No URL in its files leads to another host."""

    async def requests(harness: ApiHarness, http: httpx.AsyncClient) -> None:
        for path in ("/api/", "/api/page.js", "/api/page.css"):
            assert "//" not in (await http.get(path)).text.replace("// ", "")

    serve(requests, headers={})
