"""Actions that wait in lanes: in order within a lane, in random order between lanes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

LaneT = TypeVar("LaneT")


class Lanes(Generic[LaneT]):
    """What is on its way in a network. `random` returns numbers in [0, 1)."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._waiting: dict[LaneT, deque[Callable[[], None]]] = {}
        self._occupied: list[LaneT] = []
        """The lanes with an action, in an arbitrary order."""
        self._length = 0

    def __len__(self) -> int:
        """The number of actions that wait."""
        return self._length

    def add(self, lane: LaneT, action: Callable[[], None]) -> None:
        """Adds an action at the end of the lane."""
        actions = self._waiting.get(lane)
        if actions is None:
            actions = self._waiting[lane] = deque()
            self._occupied.append(lane)
        actions.append(action)
        self._length += 1

    def take(self) -> Callable[[], None]:
        """Removes the first action of a random lane and returns it. At least one action must wait."""
        number = int(self._random() * len(self._occupied))
        lane = self._occupied[number]
        actions = self._waiting[lane]
        action = actions.popleft()
        self._length -= 1
        if not actions:
            del self._waiting[lane]
            last = self._occupied.pop()
            if number < len(self._occupied):
                self._occupied[number] = last
        return action

    def drop(self, is_dropped: Callable[[LaneT], bool]) -> None:
        """Removes all actions of these lanes."""
        for lane in [lane for lane in self._occupied if is_dropped(lane)]:
            self._length -= len(self._waiting.pop(lane))
            self._occupied.remove(lane)
