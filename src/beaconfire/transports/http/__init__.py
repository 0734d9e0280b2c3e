"""HTTP connections with limits, and a fast path for POSTs to the server API."""

from beaconfire.transports.http.direct_posts import DirectPosts
from beaconfire.transports.http.limits import HttpLimits, LimitedHttpProtocol

__all__ = ["DirectPosts", "HttpLimits", "LimitedHttpProtocol"]
