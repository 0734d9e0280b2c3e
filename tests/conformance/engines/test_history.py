"""Which publications of a channel are retained, for how long, and how they are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from beaconfire.engines.port import HistoryOptions, PublishOptions
from beaconfire.model.position import StreamPosition

from .harness import HISTORY, Harness, Run


def test_reading_an_unknown_channel_creates_its_stream(run: Run) -> None:
    """The first publication belongs to this stream."""

    async def scenario(h: Harness) -> None:
        page = await h.engine.broker.history("a", HISTORY, 0)
        assert list(page.publications) == []
        assert page.position.offset == 0
        assert page.position.epoch not in ("", "_")
        assert (await h.engine.broker.history("a", HISTORY, -1)).position == page.position
        assert (await h.publish("a")).position == StreamPosition(1, page.position.epoch)

    run(scenario)


def test_limit_of_a_page(run: Run) -> None:
    """Limit 0 returns only the position, a negative limit everything, any other limit the oldest publications. The
    position is always the top.
    """

    async def scenario(h: Harness) -> None:
        for _ in range(5):
            top = (await h.publish("a")).position
        for limit, expected in ((0, []), (1, [1]), (3, [1, 2, 3]), (5, [1, 2, 3, 4, 5]), (99, [1, 2, 3, 4, 5])):
            page = await h.engine.broker.history("a", HISTORY, limit)
            assert [publication.offset for publication in page.publications] == expected
            assert page.position == top
        assert await h.offsets("a") == [1, 2, 3, 4, 5]

    run(scenario)


def test_since_is_exclusive(run: Run) -> None:
    """Forward: publications after `since`. Reverse: publications before `since`, newest first. Positions beyond either
    end return nothing or everything.
    """

    async def scenario(h: Harness) -> None:
        for _ in range(5):
            await h.publish("a")
        cases = [
            (0, -1, False, [1, 2, 3, 4, 5]),
            (3, -1, False, [4, 5]),
            (2, 2, False, [3, 4]),
            (5, -1, False, []),
            (99, -1, False, []),
            (3, -1, True, [2, 1]),
            (5, 2, True, [4, 3]),
            (1, -1, True, []),
            (0, -1, True, []),
            (6, -1, True, [5, 4, 3, 2, 1]),
            (99, 1, True, [5]),
            (3, 0, True, []),
        ]
        for since, limit, reverse, expected in cases:
            page = await h.engine.broker.history("a", HISTORY, limit, StreamPosition(since, ""), reverse)
            assert [publication.offset for publication in page.publications] == expected, (since, limit, reverse)
            assert page.position.offset == 5
        page = await h.engine.broker.history("a", HISTORY, 2, None, True)
        assert [publication.offset for publication in page.publications] == [5, 4]

    run(scenario)


def test_the_epoch_of_since_does_not_change_the_selection(run: Run) -> None:
    """The offset selects publications. The page of another epoch does not continue."""

    async def scenario(h: Harness) -> None:
        await h.publish("a")
        await h.publish("a")
        for epoch in ("foreign", "_"):
            page = await h.engine.broker.history("a", HISTORY, -1, StreamPosition(1, epoch))
            assert [publication.offset for publication in page.publications] == [2]
            assert not page.continues
            assert not (await h.engine.broker.history("a", HISTORY, -1, StreamPosition(2, epoch), True)).continues

    run(scenario)


def test_a_page_continues_if_no_publication_after_since_is_missing(run: Run) -> None:
    """Whatever `limit` cuts off. A position above the top is not of this history. An empty epoch is the current one."""

    async def scenario(h: Harness) -> None:
        small = PublishOptions(history=HistoryOptions(size=3, ttl_s=60.0))
        for _ in range(5):
            epoch = (await h.publish("a", options=small)).position.epoch
        for since, continues in ((0, False), (1, False), (2, True), (3, True), (5, True), (6, False)):
            for limit in (-1, 0, 1):
                for name in (epoch, ""):
                    page = await h.engine.broker.history("a", HISTORY, limit, StreamPosition(since, name))
                    assert page.continues is continues, (since, limit, name)
        assert (await h.engine.broker.history("a", HISTORY, -1)).continues

    run(scenario)


def test_the_top_continues_without_any_publication(run: Run) -> None:
    """After removal or expiry of all publications only the top continues. The position of a new stream does so, too."""

    async def scenario(h: Harness) -> None:
        fresh = (await h.engine.broker.history("new", HISTORY, 0)).position
        assert (await h.engine.broker.history("new", HISTORY, -1, fresh)).continues
        for expired in (False, True):
            await h.publish("a")
            top = (await h.publish("a")).position
            if expired:
                await h.advance(61.0)
            else:
                await h.engine.broker.remove_history("a")
            for offset, continues in ((top.offset, True), (top.offset - 1, False), (top.offset + 1, False)):
                page = await h.engine.broker.history("a", HISTORY, -1, StreamPosition(offset, top.epoch))
                assert page.continues is continues, offset

    run(scenario)


def test_a_reverse_page_continues_in_the_same_epoch(run: Run) -> None:
    """Whether publications are missing does not matter then."""

    async def scenario(h: Harness) -> None:
        for _ in range(3):
            epoch = (await h.publish("a")).position.epoch
        await h.engine.broker.remove_history("a")
        for offset in (1, 3, 99):
            for name in (epoch, ""):
                page = await h.engine.broker.history("a", HISTORY, -1, StreamPosition(offset, name), True)
                assert page.continues

    run(scenario)


def test_positions_are_those_of_history(run: Run) -> None:
    """Reading positions creates streams and counts as their use, as reading history does."""

    async def scenario(h: Harness) -> None:
        top = (await h.publish("a")).position
        positions = await h.engine.broker.positions({"a": HISTORY, "b": HISTORY})
        assert positions["a"] == top
        assert positions["b"] == (await h.engine.broker.history("b", HISTORY, 0)).position
        assert set(positions) == {"a", "b"}
        assert await h.engine.broker.positions({}) == {}
        for _ in range(3):
            await h.advance(400.0)
            assert (await h.engine.broker.positions({"a": HISTORY}))["a"] == top

    run(scenario)


def test_size_limits_history(run: Run) -> None:
    """The newest `size` publications of each channel are retained. The size of the latest publish counts."""

    async def scenario(h: Harness) -> None:
        for _ in range(10):
            await h.publish("a", options=PublishOptions(history=HistoryOptions(size=3, ttl_s=60.0)))
            await h.publish("b")
        assert await h.offsets("a") == [8, 9, 10]
        assert await h.offsets("b") == list(range(1, 11))
        await h.publish("b", options=PublishOptions(history=HistoryOptions(size=2, ttl_s=60.0)))
        assert await h.offsets("b") == [10, 11]
        await h.publish("b", options=PublishOptions(history=HistoryOptions(size=1, ttl_s=60.0)))
        assert await h.offsets("b") == [12]

    run(scenario)


def test_age_limits_history(run: Run) -> None:
    """A publication older than `ttl_s` is not returned, even if newer ones are. The position is kept."""

    async def scenario(h: Harness) -> None:
        await h.publish("a")
        await h.advance(40.0)
        top = (await h.publish("a")).position
        assert await h.offsets("a") == [1, 2]
        await h.advance(21.0)
        assert await h.offsets("a") == [2]
        page = await h.engine.broker.history("a", HISTORY, -1, None, True)
        assert [publication.offset for publication in page.publications] == [2]
        await h.advance(40.0)
        page = await h.engine.broker.history("a", HISTORY, -1)
        assert (list(page.publications), page.position) == ([], top)
        assert (await h.publish("a")).position == StreamPosition(3, top.epoch)
        assert await h.offsets("a") == [3]

    run(scenario)


def test_a_longer_time_to_live_does_not_restore_expired_publications(run: Run) -> None:
    """Publications that expired under the options of an earlier publish stay expired."""

    async def scenario(h: Harness) -> None:
        await h.publish("a", options=PublishOptions(history=HistoryOptions(size=10, ttl_s=5.0)))
        await h.advance(6.0)
        await h.publish("a", options=PublishOptions(history=HistoryOptions(size=10, ttl_s=500.0)))
        assert await h.offsets("a") == [2]

    run(scenario)


def test_a_shorter_time_to_live_leaves_no_gap(run: Run) -> None:
    """If newer publications have a shorter time to live than older ones, history still has no gap."""

    async def scenario(h: Harness) -> None:
        for ttl_s in (500.0, 500.0, 500.0, 5.0):
            await h.publish("a", options=PublishOptions(history=HistoryOptions(size=10, ttl_s=ttl_s)))
        await h.advance(6.0)
        assert await h.offsets("a") == []
        await h.publish("a", options=PublishOptions(history=HistoryOptions(size=10, ttl_s=5.0)))
        assert await h.offsets("a") == [5]

    run(scenario)


def test_removing_history_keeps_the_position(run: Run) -> None:
    """Publications are removed, offset and epoch continue. A channel without a stream is no error."""

    async def scenario(h: Harness) -> None:
        await h.publish("a")
        await h.publish("b")
        top = (await h.publish("a")).position
        await h.engine.broker.remove_history("a")
        await h.engine.broker.remove_history("never seen")
        page = await h.engine.broker.history("a", HISTORY, -1)
        assert (list(page.publications), page.position) == ([], top)
        assert (await h.publish("a")).position == StreamPosition(3, top.epoch)
        assert await h.offsets("a") == [3]
        assert await h.offsets("b") == [1]
        page = await h.engine.broker.history("a", HISTORY, -1, StreamPosition(3, ""), True)
        assert list(page.publications) == []

    run(scenario)


def test_a_position_expires_after_its_last_use(run: Run) -> None:
    """`meta_ttl_s` after its last use the stream is removed. The next one has another epoch and starts at offset 1."""

    async def scenario(h: Harness) -> None:
        await h.engine.broker.attach(["a"])
        await h.publish("a")
        first = (await h.publish("a")).position
        await h.advance(601.0)
        second = await h.publish("a")
        assert second.position.offset == 1
        assert second.position.epoch != first.epoch
        assert await h.offsets("a") == [1]
        await h.settle()
        assert h.node.publications[-1].publication.epoch == second.position.epoch

    run(scenario)


def test_a_position_that_was_only_read_expires(run: Run) -> None:
    """A stream without publications expires like any other."""

    async def scenario(h: Harness) -> None:
        first = (await h.engine.broker.history("a", HISTORY, 0)).position
        await h.advance(601.0)
        second = (await h.engine.broker.history("a", HISTORY, 0)).position
        assert (first.offset, second.offset) == (0, 0)
        assert first.epoch != second.epoch

    run(scenario)


def test_use_prolongs_a_position(run: Run) -> None:
    """Publishing and reading count as use, also reading only the position."""

    async def scenario(h: Harness) -> None:
        epoch = (await h.publish("a")).position.epoch
        for _ in range(3):
            await h.advance(400.0)
            assert (await h.engine.broker.history("a", HISTORY, 0)).position == StreamPosition(1, epoch)
        await h.advance(400.0)
        assert (await h.publish("a")).position == StreamPosition(2, epoch)
        await h.advance(400.0)
        assert (await h.publish("a")).position == StreamPosition(3, epoch)

    run(scenario)


def test_a_position_lives_at_least_as_long_as_its_publications(run: Run) -> None:
    """If `meta_ttl_s` is below `ttl_s`, retained publications can still be read under their epoch."""

    async def scenario(h: Harness) -> None:
        history = HistoryOptions(size=10, ttl_s=100.0, meta_ttl_s=10.0)
        epoch = (await h.publish("a", options=PublishOptions(history=history))).position.epoch
        await h.advance(50.0)
        page = await h.engine.broker.history("a", history, -1)
        assert [publication.offset for publication in page.publications] == [1]
        assert page.position == StreamPosition(1, epoch)
        await h.advance(51.0)
        assert (await h.engine.broker.history("a", history, 0)).position.epoch != epoch

    run(scenario)


# --- against a model ---------------------------------------------------------------------------------------------

META_TTL_S = 40.5


class Publish(NamedTuple):
    times: int


class Advance(NamedTuple):
    seconds: int


class Remove(NamedTuple):
    pass


class Read(NamedTuple):
    limit: int
    since: int | None
    reverse: bool


Step: TypeAlias = Publish | Advance | Remove | Read

STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.builds(Publish, st.integers(1, 7)),
        st.builds(Advance, st.sampled_from([1, 3, 10, 45])),
        st.builds(Remove),
        st.builds(Read, st.integers(-1, 8), st.none() | st.integers(0, 20), st.booleans()),
    ),
    max_size=40,
)


@dataclass
class Model:
    """A simple model of the history of one channel. `kept` holds offsets and expiry times."""

    size: int
    ttl_s: float
    now_s: float = 0.0
    used_s: float = 0.0
    top: int = 0
    generation: int = 0
    kept: list[tuple[int, float]] = field(default_factory=list)

    def use(self) -> None:
        self.kept = [entry for entry in self.kept if entry[1] > self.now_s]
        if not self.kept and self.now_s >= self.used_s + META_TTL_S:
            self.top = 0
            self.generation += 1
        self.used_s = self.now_s

    def publish(self) -> None:
        self.use()
        self.top += 1
        self.kept = [*self.kept, (self.top, self.now_s + self.ttl_s)][-self.size :]

    def continues(self, since: int | None, reverse: bool) -> bool:
        oldest = self.kept[0][0] if self.kept else self.top + 1
        return since is None or reverse or oldest - 1 <= since <= self.top

    def read(self, limit: int, since: int | None, reverse: bool) -> list[int]:
        self.use()
        offsets = [offset for offset, _ in self.kept]
        if reverse:
            offsets = [offset for offset in reversed(offsets) if since is None or offset < since]
        elif since is not None:
            offsets = [offset for offset in offsets if offset > since]
        return offsets if limit < 0 else offsets[:limit]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(size=st.integers(1, 10), ttl_s=st.sampled_from([2.5, 20.5, 60.5]), steps=STEPS)
def test_history_agrees_with_a_simple_model(run: Run, size: int, ttl_s: float, steps: list[Step]) -> None:
    """After any sequence of publishing, reading, removing and waiting, pages, positions and epochs match the model."""
    history = HistoryOptions(size=size, ttl_s=ttl_s, meta_ttl_s=META_TTL_S)

    async def scenario(h: Harness) -> None:
        model = Model(size, ttl_s)
        epochs: dict[int, str] = {}
        for step in steps:
            match step:
                case Publish(times):
                    for _ in range(times):
                        model.publish()
                        position = (await h.publish("a", options=PublishOptions(history=history))).position
                        epoch = epochs.setdefault(model.generation, position.epoch)
                        assert position == StreamPosition(model.top, epoch)
                case Advance(seconds):
                    model.now_s += seconds
                    await h.advance(seconds)
                case Remove():
                    model.kept = []
                    await h.engine.broker.remove_history("a")
                case Read(limit, since, reverse):
                    start = None if since is None else StreamPosition(since, "")
                    page = await h.engine.broker.history("a", history, limit, start, reverse)
                    offsets = [publication.offset for publication in page.publications]
                    assert offsets == model.read(limit, since, reverse)
                    assert page.continues is model.continues(since, reverse)
                    epoch = epochs.setdefault(model.generation, page.position.epoch)
                    assert page.position == StreamPosition(model.top, epoch)
        assert len(set(epochs.values())) == len(epochs)

    run(scenario)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(count=st.integers(0, 60), size=st.integers(1, 40), page_size=st.integers(1, 9), reverse=st.booleans())
def test_paging_returns_every_publication_once(run: Run, count: int, size: int, page_size: int, reverse: bool) -> None:
    """Continuing from the last offset of each page, in either direction, returns all publications in order."""
    history = HistoryOptions(size=size, ttl_s=60.0)

    async def scenario(h: Harness) -> None:
        for _ in range(count):
            await h.publish("a", options=PublishOptions(history=history))
        visited: list[int] = []
        since: StreamPosition | None = None
        while True:
            page = await h.engine.broker.history("a", history, page_size, since, reverse)
            if not page.publications:
                break
            assert len(page.publications) <= page_size
            visited += [publication.offset for publication in page.publications]
            since = StreamPosition(visited[-1], page.position.epoch)
        kept = list(range(max(1, count - size + 1), count + 1))
        assert visited == (kept[::-1] if reverse else kept)

    run(scenario)
