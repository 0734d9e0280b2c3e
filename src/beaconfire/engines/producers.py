"""The numbers of producers in one channel: which number comes next, and the receipts of those taken before.

Every engine that stores streams in Python uses this. For the rules see `Broker.publish`.
"""

from __future__ import annotations

from array import array

from beaconfire.base.errors import OutOfSequence
from beaconfire.engines.port import PRODUCERS_MAX, RECEIPTS_MAX
from beaconfire.model.position import StreamPosition

PRODUCER_BYTES = 1300
"""Memory for a producer with all its receipts, without its name. Measured."""

_UNKNOWN_POSITION = StreamPosition(0, "")


class Producer:
    """The last number of one producer, and the offsets of its last publications.

    Receipts belong to one epoch of the stream. After a change of the epoch, only later numbers have receipts.
    """

    __slots__ = ("_offsets", "epoch", "last")

    def __init__(self, last: int = 0, epoch: str = "", offsets: bytes = b"") -> None:
        """`offsets` are those of `dump`."""
        self.last = last
        self.epoch = epoch
        self._offsets = array("Q", offsets)
        """The offsets of the last numbers, up to `last`; at most twice `RECEIPTS_MAX`."""

    def receipt(self, name: str, seq: int) -> StreamPosition | None:
        """The position of a number that was taken before, or None if `seq` is the next number.

        Raises OutOfSequence for any later number. `name` is for its message.
        """
        if seq == self.last + 1:
            return None
        if seq > self.last:
            raise OutOfSequence(name, seq, self.last + 1)
        age = self.last - seq
        if age >= min(RECEIPTS_MAX, len(self._offsets)):
            return _UNKNOWN_POSITION
        return StreamPosition(self._offsets[-1 - age], self.epoch)

    def take(self, position: StreamPosition) -> None:
        """Takes the next number, whose receipt is `position`."""
        self.last += 1
        offsets = self._offsets
        if position.epoch != self.epoch:
            self.epoch = position.epoch
            del offsets[:]
        elif len(offsets) >= 2 * RECEIPTS_MAX:
            del offsets[:-RECEIPTS_MAX]
        offsets.append(position.offset)

    def dump(self) -> bytes:
        """The receipts, in the byte order of this machine."""
        return self._offsets[-RECEIPTS_MAX:].tobytes()


UNKNOWN_PRODUCER = Producer()
"""A producer without any number so far. Never takes one."""


class Producers:
    """The producers of one channel by name, the one that published last at the end. For engines that keep them in
    memory."""

    __slots__ = ("_table",)

    def __init__(self) -> None:
        self._table: dict[str, Producer] = {}

    def items(self) -> list[tuple[str, Producer]]:
        """All producers by name, the one that published last at the end."""
        return list(self._table.items())

    def put(self, name: str, producer: Producer) -> int:
        """Adds or replaces a producer, as the one that published last. Returns the bytes of memory that this has
        added."""
        added = 0 if self._table.pop(name, None) is not None else _bytes(name)
        self._table[name] = producer
        return added

    def receipt(self, name: str, seq: int) -> StreamPosition | None:
        """See `Producer.receipt`. The first number of an unknown producer is 1."""
        return self._table.get(name, UNKNOWN_PRODUCER).receipt(name, seq)

    def take(self, name: str, position: StreamPosition) -> int:
        """Takes the next number of the producer. Above `PRODUCERS_MAX` this forgets the producer that has not published
        for the longest time. Returns the bytes of memory that this has added."""
        producer = self._table.pop(name, None)
        added = 0
        if producer is None:
            producer = Producer()
            added = _bytes(name)
            if len(self._table) >= PRODUCERS_MAX:
                forgotten = next(iter(self._table))
                del self._table[forgotten]
                added -= _bytes(forgotten)
        producer.take(position)
        self._table[name] = producer
        return added


def _bytes(name: str) -> int:
    return PRODUCER_BYTES + 4 * len(name)
