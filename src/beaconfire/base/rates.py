"""How much one connection sends per second."""

from __future__ import annotations


class RateMeter:
    """Counts messages and bytes in windows of one second; a limit of 0 is none.

    Fixed windows let a burst of up to twice the limit pass across a boundary, and cost two numbers per connection.
    """

    __slots__ = ("_bytes", "_messages", "_window_s")

    def __init__(self) -> None:
        self._window_s = 0.0
        self._messages = 0
        self._bytes = 0

    def add(self, now_s: float, messages: int, size: int) -> None:
        if now_s - self._window_s >= 1.0:
            self._window_s = now_s
            self._messages = self._bytes = 0
        self._messages += messages
        self._bytes += size

    def exceeded(self, messages_limit: int, bytes_limit: int) -> str:
        """The name of the limit that is exceeded, or ""."""
        if messages_limit and self._messages > messages_limit:
            return "client.message_rate_limit"
        if bytes_limit and self._bytes > bytes_limit:
            return "client.byte_rate_limit"
        return ""
