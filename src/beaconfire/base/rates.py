"""The rate at which one connection sends."""

from __future__ import annotations


class RateMeter:
    """Counts messages and bytes in fixed windows of one second.

    A burst across the boundary of two windows can reach twice the limit. In return, a connection needs only three
    numbers.
    """

    __slots__ = ("_bytes", "_messages", "_window_s")

    def __init__(self) -> None:
        self._window_s = 0.0
        self._messages = 0
        self._bytes = 0

    def add(self, now_s: float, messages: int, size: int) -> None:
        """Counts `messages` messages of together `size` bytes. A window starts with the first message in it."""
        if now_s - self._window_s >= 1.0:
            self._window_s = now_s
            self._messages = self._bytes = 0
        self._messages += messages
        self._bytes += size

    def exceeded(self, messages_limit: int, bytes_limit: int) -> str:
        """The setting that the current window exceeds, or "". Limits are per second; a limit of 0 means no limit."""
        if messages_limit and self._messages > messages_limit:
            return "client.message_rate_limit"
        if bytes_limit and self._bytes > bytes_limit:
            return "client.byte_rate_limit"
        return ""
