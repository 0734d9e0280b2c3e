"""The path of an ASGI request below the place where the application is mounted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def route_path(scope: Mapping[str, Any]) -> str:
    """The path without `root_path`. Empty for the place itself.

    In ASGI, `path` includes `root_path`. Some servers and middlewares leave it out, so it is removed only if it is
    there.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :]
    return path
