"""What imports load: applications import `beaconfire`, and embed the server on platforms of their own."""

from __future__ import annotations

import subprocess
import sys


def run_python(program: str) -> str:
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_package_loads_no_server() -> None:
    """`import beaconfire` takes milliseconds, because it loads none of the libraries of a server."""
    loaded = set(run_python("import sys, beaconfire; print(*sys.modules)").split())
    assert loaded & {"uvicorn", "uvloop", "starlette", "pydantic", "picows", "structlog", "google.protobuf"} == set()
    assert loaded >= {"beaconfire"}


def test_the_application_loads_without_uvloop_and_resource() -> None:
    """An application that embeds the server chooses its own event loop, and its system may have no `resource`."""
    run_python(
        "import sys\n"
        "sys.modules.update(uvloop=None, resource=None)\n"  # their import raises ImportError
        "import beaconfire.server.app\n"
        "from beaconfire.node.admission import OPEN_FILES_MAX, open_files_limit, raise_open_files_limit\n"
        "raise_open_files_limit()\n"
        "assert open_files_limit() == OPEN_FILES_MAX\n"
    )
