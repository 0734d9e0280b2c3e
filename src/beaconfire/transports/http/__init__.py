"""HTTP connections: guarded against whoever dawdles or overdoes it, and a short way for calls that are known."""

from beaconfire.transports.http.direct import DirectPosts
from beaconfire.transports.http.guard import GuardedHttpProtocol, HttpGuard

__all__ = ["DirectPosts", "GuardedHttpProtocol", "HttpGuard"]
