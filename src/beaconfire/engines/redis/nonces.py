"""Names that are unique among all nodes, made without a system call for each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_PREFIX_LETTERS: Final = 6
_DIGITS: Final = 6
_END: Final = 16**_DIGITS


class Nonces:
    """Makes names of twelve letters and digits: a random prefix and a counter."""

    def __init__(self, random_name: Callable[[], str]) -> None:
        """`random_name` returns at least six random letters."""
        self._random_name = random_name
        self._prefix = ""
        self._next = _END

    def new(self) -> bytes:
        """A name that no other call returns, on any node."""
        return self.new_text().encode()

    def new_text(self) -> str:
        """The same as text."""
        if self._next == _END:
            self._prefix = self._random_name()[:_PREFIX_LETTERS]
            self._next = 0
        self._next += 1
        return f"{self._prefix}{self._next - 1:06x}"
