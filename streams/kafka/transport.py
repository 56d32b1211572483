"""Faust's transport, fed by librdkafka: one Faust message for each chunk, and none of Faust's offsets.

In: what Faust decides: partitions, flow, the end. Out: chunks as messages of Faust's topics, for agents.
Must not know: events, engines. Rule: Faust keeps membership, assignment, flow control and the worker's life; where
reading starts and what is committed is the shards' state alone, and Faust's committed offsets only show lag.

Each method here steps around something of Faust 0.15.3, mode 0.7.1 or aiokafka 0.14.0;
`tests/kafka/test_faust_*.py` fail when one of them changes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, cast

from faust.assignor.partition_assignor import PartitionAssignor
from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import TP, ConsumerMessage

from streams.kafka.settings import WorkerSettings
from streams.kafka.shards import Shards
from streams.kafka.source import Chunk, Fetch, Place, Source

FETCH_TIMEOUT_S = 0.02
"""Wait of a fetch for its first record: what a quiet topic adds to latency at most."""

HOLD_S = 0.002
"""Pause between looks while fetching waits for records to be applied."""


class ShardAssignor(PartitionAssignor):
    """Faust's assignor without standby copies: with them a third worker of four partitions would get nothing."""

    def __init__(self, app: Any, replicas: int = 0) -> None:
        super().__init__(app, replicas=0)


class GroupThread(driver.AIOKafkaConsumerThread):
    """The member of the group; it fetches nothing."""

    leaves: ClassVar[bool] = True
    """Whether a graceful stop leaves the group at once; aiokafka lets static members wait for the session to end."""

    async def on_thread_stop(self) -> None:
        """Leave the group, so that others have our partitions within a heartbeat."""
        if self.leaves and self._consumer is not None:
            cast(Any, self._consumer)._coordinator._group_instance_id = None
        await super().on_thread_stop()

    def check(self) -> None:
        """Raise what the group's coordinator parked: nobody else would, and the worker would idle for ever."""
        coordinator = getattr(self._consumer, "_coordinator", None)
        if coordinator is not None:
            coordinator.check_errors()


class ChunkConsumer(driver.Consumer):
    """Delivers chunks; commits what the shards have made durable."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._source: Source | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fetch")
        self._followed = -1
        self._held: set[Place] = set()

    @property
    def _shards(self) -> Shards:
        return cast(Shards, cast(Any, self.app).shards)

    @property
    def _worker(self) -> WorkerSettings:
        return cast(WorkerSettings, cast(Any, self.app).worker_settings)

    def _new_consumer_thread(self) -> GroupThread:
        return GroupThread(self, loop=self.loop, beacon=self.beacon)

    # -- fetching

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """Yield one message for each chunk of a fetch."""
        self.check()
        shards = self._shards
        if not shards.ready or not self.flow_active or self.should_stop:
            await asyncio.sleep(FETCH_TIMEOUT_S)
            return
        shards.look_for_lost(time.monotonic())
        if shards.full and not await self._make_room():
            await asyncio.sleep(HOLD_S)
            return
        await shards.pace.give_way(hungry=bool(shards.hungry))
        await self._follow()
        await self._release()
        epoch = self._followed
        fetch = await self._in_thread(lambda source: source.fetch(self._worker.chunk_rows, FETCH_TIMEOUT_S))
        for chunk in fetch.chunks:
            if self._over(epoch):
                self._followed = -1  # what is not handed on here has to be fetched again
                return
            shards.expect(chunk.place, chunk.next)
            yield TP(*chunk.place), self._message(chunk)
        if epoch == shards.epoch:
            shards.deliver(Fetch([], fetch.ends, fetch.lost))

    def _over(self, epoch: int) -> bool:
        """Whether what was fetched under an assignment may no longer be delivered."""
        return epoch != self._shards.epoch or not self.flow_active or self.should_stop

    async def _follow(self) -> None:
        """Point the source at the shards' offsets, anew for every assignment, and for every chunk that was lost."""
        shards = self._shards
        if self._followed != shards.epoch:
            self._followed = shards.epoch
            positions = shards.point()
            self._read_offset.clear()  # Faust drops in silence what lies before it
            await self._in_thread(lambda source: source.point(positions))
            held, self._held = [place for place in self._held if place in positions], set()
            await self._in_thread(lambda source: source.release(held))  # what was paused stays so across an assign()

    async def _make_room(self) -> bool:
        """Too much is buffered: hold what is there back if some shard waits for a partition that gave nothing yet."""
        hungry = set(self._shards.hungry)
        if not hungry:
            return False
        more = set(self._shards.fed) - hungry - self._held
        if more:
            self._held |= more
            await self._in_thread(lambda source: source.hold(list(more)))
        return True

    async def _release(self) -> None:
        """Fetch everything again once there is room."""
        if self._held and not self._shards.full:
            held, self._held = list(self._held), set()
            await self._in_thread(lambda source: source.release(held))

    async def _in_thread(self, step: Any) -> Any:
        def run() -> Any:
            if self._source is None:
                self._source = Source(cast(Any, self.app).kafka_settings, "fetch")
            return step(self._source)

        return await asyncio.get_running_loop().run_in_executor(self._pool, run)

    def _message(self, chunk: Chunk) -> Any:
        topic, partition = chunk.place
        message: Any = ConsumerMessage
        return message(
            topic, partition, int(chunk.offsets[-1]), int(chunk.times_ms[-1]) / 1000, 0, (), None, chunk, None, 0, 0,
            TP(topic, partition), generation_id=self.app.consumer_generation_id,
        )  # fmt: skip

    # -- the group

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """The group divides its partitions anew."""
        self._shards.dividing = True
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """It has done so. Faust tells of an assignment later, and so perhaps when it is over already."""
        self._shards.dividing = False
        await super().on_partitions_assigned(assigned, generation_id)

    # -- offsets

    async def perform_seek(self) -> None:
        """Reading starts where the shards' state says; Faust's own memory of offsets would drop records as read."""
        self._read_offset.clear()
        self._committed_offset.clear()

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offsets that are missing between chunks were compacted, or belong to transactions."""

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (TP(*place) for place in self._shards.durable())

    def _new_offset(self, tp: TP) -> int | None:
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return self._shards.durable().get((tp.topic, tp.partition))

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust complains of partitions that it fetches nothing from; none of ours are fetched by it."""

    def check(self) -> None:
        """Raise what the group's coordinator parked."""
        cast(GroupThread, self._thread).check()

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """aiokafka is to fetch nothing: its own partitions stay paused."""

    async def on_stop(self) -> None:
        """Let go of librdkafka's connections."""
        await super().on_stop()
        if self._source is not None:
            self._pool.submit(self._source.close)
        self._pool.shutdown(wait=False)


class ChunkTransport(driver.Transport):
    """Faust's transport with `ChunkConsumer`."""

    Consumer: ClassVar[type[ChunkConsumer]] = ChunkConsumer
