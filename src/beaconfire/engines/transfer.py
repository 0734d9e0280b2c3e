"""The port for moving streams from one engine to another: images of streams, and where they are read and written.

An image is everything that the engine keeps for one channel. With the image, a client that has a position of the old
engine continues without a gap at the new engine, and repeated publishes are suppressed as before.

All times are Unix times in seconds, because the monotonic clocks of two processes cannot be compared. The tests in
`tests/conformance/transfer` check every implementation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

from msgspec import Struct

from beaconfire.model.position import StreamPosition
from beaconfire.model.publication import Publication

SLICE_CHANNELS: Final = 64
"""How many channels one call reads or writes, so that publications do not wait long behind the call."""

EXPIRY_TOLERANCE_S: Final = 1.0
"""Two expiries of the same publication are equal up to this difference: engines convert between clocks."""


class KeyImage(Struct, frozen=True, array_like=True):
    """An idempotency key, and the position of its first publish: (0, "") if nothing was stored."""

    key: str
    position: StreamPosition
    expires_s: float


class ProducerImage(Struct, frozen=True, array_like=True):
    """A producer: its last number, and the receipts that `engines.producers.Producer.dump` has made."""

    name: str
    last: int
    epoch: str
    receipts: bytes


class StreamImage(Struct, frozen=True):
    """What an engine keeps for one channel.

    `epoch` is empty if the channel has no stream, but idempotency keys. `oldest` is the offset of the oldest retained
    publication, `position.offset + 1` without any. `publications` are those above `since`, which is 0 in a whole image.
    `publication_expiries_s` has one expiry for each. `expires_s` is the expiry of the position. `ancestors` are earlier
    epochs, each with the last offset that the stream shares with it. `keys` of an image that is not whole are those
    that may have been stored since the position `since`.
    """

    channel: str
    position: StreamPosition
    since: int
    oldest: int
    publications: Sequence[Publication]
    publication_expiries_s: Sequence[float]
    expires_s: float
    version: int
    version_epoch: str
    ancestors: Sequence[tuple[str, int]]
    producers: Sequence[ProducerImage]
    keys: Sequence[KeyImage]

    @property
    def has_stream(self) -> bool:
        """Whether the channel has a stream. If not, the image has only idempotency keys."""
        return self.position.epoch != ""


class ChannelSlice(Struct, frozen=True):
    """Some channels. `cursor` continues after them; it is empty at the end."""

    channels: Sequence[str]
    cursor: str


class Transfer(Protocol):
    """Reads and writes whole streams of a started engine.

    All methods raise what `engines.port` describes under "Errors". A call blocks neither the event loop nor the engine
    for more than a few milliseconds, if it is about at most `SLICE_CHANNELS` channels with histories of usual size.
    """

    async def count(self) -> int:
        """About how many channels the engine keeps something for."""

    async def channels(self, cursor: str, limit: int) -> ChannelSlice:
        """At most `limit` channels that the engine keeps something for, in any order. The first cursor is empty.

        Every channel that is there from the first call to the last is in one slice. A channel that comes or goes in
        between may be in a slice or not.
        """

    async def export(self, channels: Mapping[str, int], at_s: float) -> list[StreamImage]:
        """The images of those channels that the engine keeps something for, each from its own moment.

        The number is the offset above which publications are wanted, 0 for a whole image. What has expired at `at_s`,
        a Unix time, is not in the image. Does not prolong any expiry. Creates nothing.
        """

    async def load(self, images: Sequence[StreamImage]) -> Sequence[str]:
        """Makes the engine keep what the images describe, and returns the channels that need a whole image.

        A whole image replaces what the engine keeps for the channel. An image with `since` continues a stream whose
        position is `since` in the same epoch; if the stream has another position, the channel is returned, and nothing
        of it has changed. Idempotent. Nothing is announced. When this returns, the images have the durability that the
        engine offers. After an error, each image has been loaded or not.

        Until `settle`, the engine treats a loaded stream like a restored backup: the original may have gone on.
        """

    async def remove(self, channels: Sequence[str]) -> None:
        """Removes everything that the engine keeps for the channels. Idempotent."""

    async def follow(self) -> None:
        """Declares that the original is used, and that each of its changes is loaded here until this process ends.

        So loaded streams may be read here, and keep their epochs. The opposite of `settle`. Also for streams that were
        settled before.
        """

    async def settle(self) -> None:
        """Declares that the original is not used any more: loaded streams are the originals from now on."""

    async def adopt(self) -> None:
        """Declares that the originals are lost, and may have gone on after the last `load`.

        Each loaded stream that was not settled becomes an original: it gets a new epoch at its next use or `export`,
        and continues the positions of the old epoch up to its own.
        """


@runtime_checkable
class Transferable(Protocol):
    """An engine that offers a `Transfer`. Not every engine does."""

    def transfer(self) -> Transfer:
        """A new object that reads and writes the streams of this engine, which must be started."""


__all__ = [
    "EXPIRY_TOLERANCE_S",
    "SLICE_CHANNELS",
    "ChannelSlice",
    "KeyImage",
    "ProducerImage",
    "StreamImage",
    "Transfer",
    "Transferable",
]
