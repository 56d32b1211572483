"""The tasks of one worker: which it has, what each is fed, when they stop.

In: partitions that the group gave this worker, fetched chunks. Out: tasks that run; what the transport should fetch.
Must not know: Faust. Rule: a task is fed only from the offsets of its own state on, and a chunk that was lost on the
way makes the source begin there again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import cast

import structlog

from models.executor import Executor
from streams.engine import EngineConfig
from streams.kafka.arrivals import ITEM_TOPICS, SHARED_TOPICS
from streams.kafka.champion import Models
from streams.kafka.coordination import Coordination
from streams.kafka.inbox import Inbox, Patience
from streams.kafka.ledger import FencedError, Ledger
from streams.kafka.listener import NOBODY, Listener
from streams.kafka.pace import Pace
from streams.kafka.settings import KafkaSettings, WorkerSettings
from streams.kafka.shard import CANDIDATES_TOPIC, Shard
from streams.kafka.source import Fetch, Place, Source
from streams.kafka.task import Logic, Task
from streams.partition import PartitionerName

log = structlog.get_logger("shelftide.worker")

COORDINATOR = -1
"""Number of the coordinator among tasks; its state is the last partition of the state topic."""

SUSPEND_TIMEOUT_S = 4.0
"""Time for the last commit when shards are taken away or the worker stops: within the five seconds of a stop."""

RECOVERIES_AT_ONCE = 2
LOST_S, LOST_LOOK_S = 2.0, 0.1
"""A chunk that has been handed on is with its task within milliseconds; after so long it is taken for lost."""

SHARED_ROWS = 1_000
SHARED_TIMEOUT_S = 0.2


class Shards:
    """Tasks of this worker by number: shards from 0, and the coordinator.

    Parameters
    ----------
    config
        Of every engine.
    kafka, worker, partitioner
        Settings.
    executor
        Answers requests for forecasts, of all shards.
    models
        Who may answer.
    now_ms
        The machine's clock.
    """

    def __init__(
        self,
        config: EngineConfig,
        kafka: KafkaSettings,
        worker: WorkerSettings,
        partitioner: PartitionerName,
        executor: Executor,
        models: Models,
        now_ms: Callable[[], int],
    ) -> None:
        self.tasks: dict[int, Task] = {}
        self.epoch = 0
        self.ready = False
        self.dividing = False
        self.rebalances = self.recoveries = 0
        self.lost_records = 0
        self.failure: BaseException | None = None
        self.listener: Listener = NOBODY
        self._config, self._kafka, self._worker = config, kafka, worker
        self._partitioner, self._executor, self._models, self._now_ms = partitioner, executor, models, now_ms
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self.pace = Pace()
        self._changing, self._standing = asyncio.Lock(), asyncio.Lock()
        self._closing = False
        self._assignments = 0
        self._shared: asyncio.Task[None] | None = None
        self._shared_epoch = 0
        self._missing: list[tuple[Place, int]] = []
        self._patience = Patience(LOST_S, LOST_LOOK_S)

    # -- assignment

    async def suspend(self) -> None:
        """The group is dividing partitions anew: finish and commit what is being applied, and stand still."""
        self._assignments += 1
        self.ready = False
        self.epoch += 1
        async with self._changing:
            await self._stand_still()

    async def _stand_still(self) -> None:
        async with self._standing:
            numbers = list(self.tasks)
            results = await asyncio.gather(
                *(self.tasks[number].suspend(SUSPEND_TIMEOUT_S) for number in numbers), return_exceptions=True
            )
            for number, result in zip(numbers, results, strict=True):
                if isinstance(result, BaseException):
                    log.warning("task dropped", task=self.tasks[number].name, reason=str(result) or repr(result))
                    self._drop(number)
                if isinstance(result, FencedError) or (self._closing and isinstance(result, BaseException)):
                    self.failure = result  # others took over while we were away, or the last commit failed

    async def assign(self, places: Iterable[Place]) -> None:
        """Run the tasks of these partitions: go on with those that are still ours, recover the others.

        Returns early if the group divides its partitions anew meanwhile.
        """
        self._assignments += 1
        mine = self._assignments
        wanted = self._numbers(places)
        async with self._changing:
            await self._stand_still()  # they do already, unless an assignment came without word before it
            if mine != self._assignments or self.failure is not None or self._closing:
                return
            self.rebalances += 1
            for number in set(self.tasks) - wanted:
                self._drop(number)
            gate = asyncio.Semaphore(RECOVERIES_AT_ONCE)
            await asyncio.gather(*(self._hold(number, gate, mine) for number in sorted(wanted)))
            if mine != self._assignments:
                return
            for task in self.tasks.values():
                task.start()
            self.epoch += 1
            self._shared_epoch += 1
            if self._shared is None:
                self._shared = asyncio.create_task(self._read_shared(), name="shared-topics")
            self.ready = True
        log.info("assigned", shards=sorted(n for n in wanted if n >= 0), coordinator=COORDINATOR in wanted)

    def _numbers(self, places: Iterable[Place]) -> set[int]:
        candidates = self._kafka.topic(CANDIDATES_TOPIC)
        return {COORDINATOR if topic == candidates else partition for topic, partition in places}

    async def _hold(self, number: int, gate: asyncio.Semaphore, mine: int) -> None:
        """Make sure that a task is here with its newest state."""
        async with gate:
            if mine != self._assignments:
                return
            task = self.tasks.get(number)
            if task is not None and await task.still_ours(SUSPEND_TIMEOUT_S):
                return
            if task is not None:
                self._drop(number)
            task = self._made(number)
            await task.recover(self._worker.connect_timeout_s)
            self.recoveries += 1
            self.listener.recovered(number, task)
            self.tasks[number] = task
            log.info("recovered", task=task.name, seconds=round(task.stats.recovery_s, 2), bytes=task.stats.state_bytes)

    def _drop(self, number: int) -> None:
        task = self.tasks.pop(number)
        self.listener.left(number, task)
        task.close()

    def _made(self, number: int) -> Task:
        topic = self._kafka.topic
        topics: dict[Place, bool]
        logic: Logic
        if number == COORDINATOR:
            name, state = "coordinator", self._kafka.partitions
            topics = {(topic(CANDIDATES_TOPIC), 0): False}
            by_record = self._worker.clock == "record"
            logic = cast("Logic", Coordination(self._now_ms, self._kafka.partitions, by_record=by_record))
        else:
            name, state = f"shard-{number}", number
            topics = {(topic(name), 0): name == "shop.calendar.v1" for name in SHARED_TOPICS}
            topics |= {(topic(name), number): False for name in ITEM_TOPICS}
            logic = shard = Shard(
                self._config, self._kafka, self._worker, self._partitioner, number, self._executor, self._models,
                self._encoder, self._now_ms, self.pace,
            )  # fmt: skip
            shard.tell(self.listener)
        ledger = Ledger(self._kafka, name, state)
        task = Task(name, logic, ledger, topics, self._worker, self._kafka.partitions, self._now_ms)
        task.listener = self.listener
        return task

    # -- feeding

    @property
    def fed(self) -> dict[Place, Inbox]:
        """The inbox of each partition that is fetched through the group; none while no task may be fed."""
        shared = {self._kafka.topic(name) for name in SHARED_TOPICS}
        tasks = self.tasks.values() if self.ready else ()
        return {place: inbox for task in tasks for place, inbox in task.inboxes.items() if place[0] not in shared}

    def point(self) -> dict[Place, int]:
        """Begin to fetch anew: what was on its way is forgotten, and known ends are; offsets to fetch from."""
        return {place: inbox.point() for place, inbox in self.fed.items()}

    def expect(self, place: Place, offset: int) -> None:
        """Note that records up to an offset are on their way to a task."""
        for task in self.tasks.values():
            if (inbox := task.inboxes.get(place)) is not None:
                inbox.expected = offset

    def look_for_lost(self, now_s: float) -> None:
        """Have fetched again what was handed on and has not come: Faust empties its queues when a flow begins."""
        missing = [
            (place, inbox.next)
            for task in self.tasks.values()
            for place, inbox in task.inboxes.items()
            if inbox.missing
        ]
        if not missing or missing != self._missing:
            self._missing = missing
            self._patience.renew()
        elif not self._patience.lasts(now_s):
            log.warning("chunks were lost on their way, and are fetched again", partitions=missing)
            self._patience.renew()
            self.epoch += 1

    def deliver(self, fetch: Fetch) -> None:
        """Hand a fetch to its tasks."""
        for chunk in fetch.chunks:
            self.listener.fetched(len(chunk))
            for task in self.tasks.values():
                if chunk.place in task.inboxes and not task.offer(chunk):
                    self.epoch += 1  # a chunk before this one was lost on the way: fetch from there again
        for place, offset in fetch.ends.items():
            for task in self.tasks.values():
                task.end(place, offset)
        for place, (wanted, first) in fetch.lost.items():
            self._skip(place, wanted, first)

    def _skip(self, place: Place, wanted: int, first: int) -> None:
        """Records were deleted before they were read: say so, count them, go on with what there is."""
        for task in self.tasks.values():
            inbox = task.inboxes.get(place)
            if inbox is not None and inbox.next <= wanted:
                self.lost_records += max(0, first - inbox.next)
                log.error("records deleted before they were read", topic=place[0], partition=place[1],
                          from_offset=inbox.next, to_offset=first, hint="raise the topic's retention")  # fmt: skip
                inbox.skip_to(first)
                self.epoch += 1
                self._shared_epoch += 1

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait to be applied, in all tasks."""
        return sum(task.buffered_bytes for task in self.tasks.values())

    @property
    def behind(self) -> bool:
        """Whether some task works off a backlog; may be asked by any thread."""
        return not all(task.logic.live for task in list(self.tasks.values()))

    @property
    def hungry(self) -> list[Place]:
        """Partitions that tasks wait for although others of theirs have records."""
        return [place for task in self.tasks.values() for place in task.hungry]

    @property
    def full(self) -> bool:
        """Whether fetching should wait."""
        return self.buffered_bytes > self._worker.max_buffered_bytes

    async def _read_shared(self) -> None:
        """Read the topics that every shard reads, from the least offset that one of ours wants."""
        loop = asyncio.get_running_loop()
        source = Source(self._kafka, "shared")
        pool = ThreadPoolExecutor(1, thread_name_prefix="shared")
        followed = -1
        try:
            while True:
                if followed != self._shared_epoch:
                    followed = self._shared_epoch
                    await loop.run_in_executor(pool, source.point, self._shared_positions())
                fetch = await loop.run_in_executor(pool, source.fetch, SHARED_ROWS, SHARED_TIMEOUT_S)
                if followed == self._shared_epoch:
                    self.deliver(fetch)
        except Exception as error:
            self.failure = error
        finally:
            pool.submit(source.close)
            pool.shutdown(wait=False)

    def _shared_positions(self) -> dict[Place, int]:
        least: dict[Place, int] = {}
        shared = {(self._kafka.topic(name), 0) for name in SHARED_TOPICS}
        for task in self.tasks.values():
            for place, inbox in task.inboxes.items():
                if place in shared:
                    least[place] = min(inbox.next, least.get(place, inbox.next))
        return least

    # -- watching and ends

    @property
    def patience_s(self) -> float:
        """How long a recovery may take."""
        return self._worker.connect_timeout_s

    @property
    def error(self) -> BaseException | None:
        """Why the worker cannot go on, None where it can."""
        found = [task.error for task in self.tasks.values()]
        return next((error for error in [self.failure, *found] if error is not None), None)

    def durable(self) -> dict[Place, int]:
        """Offsets that committed state contains, per partition of the group."""
        shared = {self._kafka.topic(name) for name in SHARED_TOPICS}
        return {
            place: at for task in self.tasks.values() for place, at in task.durable.items() if place[0] not in shared
        }

    async def close(self) -> None:
        """Finish and commit what is being applied, and let go of everything."""
        self._closing = True  # an assignment that is being recovered now has nothing to commit: it is not waited for
        self._assignments += 1
        self.ready = False
        self.epoch += 1
        await self._stand_still()
        if self._shared is not None:
            self._shared.cancel()
            with suppress(asyncio.CancelledError):
                await self._shared
        for task in self.tasks.values():
            task.close()
        self.tasks.clear()
        self._encoder.shutdown(wait=False)


def steady_ms() -> int:
    """The machine's clock, epoch ms."""
    return time.time_ns() // 1_000_000
