"""HTTP connections: guarded against whoever dawdles or overdoes it, and a short way for calls that are known."""

from beaconfire.transports.http.direct_posts import DirectPosts
from beaconfire.transports.http.limits import HttpLimits, LimitedHttpProtocol

__all__ = ["DirectPosts", "HttpLimits", "LimitedHttpProtocol"]
