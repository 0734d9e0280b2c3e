"""HTTP requests of browsers: WebSocket endpoints, the files of the browser client, and the demo."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.acceptance.server_process import REFERENCE_CONFIG, ServerProcess


def test_get_of_a_websocket_endpoint_is_refused_with_426(tmp_path: Path) -> None:
    """The response names the required upgrade, as 404 would be misleading."""
    with ServerProcess(tmp_path, REFERENCE_CONFIG) as server:
        for path in ("/ws", "/connection/websocket"):
            response = httpx.get(server.http + path)
            assert response.status_code == 426
            assert response.headers["upgrade"] == "websocket"


def test_files_of_the_browser_client_are_served_with_cors_and_etag(tmp_path: Path) -> None:
    """Pages of any site may load the modules. A request with the current ETag gets 304. No other file is served."""
    with ServerProcess(tmp_path, REFERENCE_CONFIG) as server:
        for name in ("beaconfire.js", "transports.js"):
            response = httpx.get(f"{server.http}/client/{name}")
            assert response.status_code == 200
            assert response.headers["content-type"] == "text/javascript; charset=utf-8"
            assert response.headers["access-control-allow-origin"] == "*"
            unchanged = httpx.get(f"{server.http}/client/{name}", headers={"If-None-Match": response.headers["etag"]})
            assert (unchanged.status_code, unchanged.content) == (304, b"")
        for path in ("/client/package.json", "/client/__init__.py", "/client/", "/client"):
            assert httpx.get(server.http + path).status_code == 404, path
        logged_paths = {line["path"] for line in server.log_lines("http_request")}
        assert logged_paths == {"/client/{file}", "other"}


def test_unknown_path_of_the_demo_gets_404(tmp_path: Path) -> None:
    """No file outside the demo's folder is served, another method gets 405, and no library logs an error."""
    with ServerProcess(tmp_path, REFERENCE_CONFIG, {"server.demo": "true"}) as server:
        assert httpx.get(server.http + "/demo/style.css").status_code == 200
        for path in ("/demo/nothing.js", "/demo/", "/demo/%2e%2e/app.py", "/demo/..%2fapp.py"):
            assert httpx.get(server.http + path).status_code == 404, path
        assert httpx.post(server.http + "/demo/style.css").status_code == 405
        assert server.stop() == 0
        assert server.log_lines("library_log") == []
