"""The start of a mirror whose old engine is empty after each start: it gets the streams that the new one has kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from beaconfire.base.errors import StorageFull
from beaconfire.engines.port import Engine
from beaconfire.engines.transfer import SLICE_CHANNELS, StreamImage, Transfer

RESTORE_S_MAX: Final = 600.0
"""How long the streams may take, in seconds: enough for millions of channels."""


class Restored(NamedTuple):
    """How much was loaded."""

    channels: int
    publications: int


async def restore(
    engine: Engine,
    old: Transfer,
    new: Transfer,
    unix_s: Callable[[], float],
    on_loaded: Callable[[Sequence[StreamImage]], None],
) -> Restored:
    """Loads all streams of `new` into the started, empty `engine`, whose transfer is `old`. `on_loaded` gets them.

    If `new` has followed this engine, and did not get its end, streams get new epochs, which continue the positions of
    the epochs before as far as `new` has followed. Raises StorageFull if the engine has no room for all publications,
    because afterwards `new` follows the engine, and would lose them as well.
    """
    await new.adopt()
    channels = publications = 0
    cursor, is_first = "", True
    while cursor or is_first:
        part = await new.channels(cursor, SLICE_CHANNELS)
        cursor, is_first = part.cursor, False
        images = await new.export(dict.fromkeys(part.channels, 0), unix_s())
        await old.load(images)
        on_loaded(images)
        channels += len(images)
        publications += sum(len(image.publications) for image in images)
    if engine.statistics().history_publications < publications:
        raise StorageFull(
            f"the {publications} publications of the other engine do not fit into memory: raise "
            "engine.history_max_bytes, or start the server with the other engine"
        )
    return Restored(channels, publications)
