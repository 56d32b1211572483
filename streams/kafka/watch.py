"""Metrics, readiness and health of a running worker, brought up to date once a second and whenever somebody asks.

In: what the worker's parts tell (`Listener`), and their totals. Out: `Metrics`; sentences for `/ready` and `/live`.
Must not know: HTTP, commands. Rule: nothing here waits on the event loop, and nothing is done for a single record.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from models.executor import Executor
from streams.decode import topic_of
from streams.kafka.arrivals import ITEM_TOPICS
from streams.kafka.ledger import Placed
from streams.kafka.listener import Listener
from streams.kafka.metrics import Metrics
from streams.kafka.offsets import Offsets
from streams.kafka.settings import KafkaSettings, WorkerSettings
from streams.kafka.shard import Shard
from streams.kafka.shards import Shards
from streams.kafka.source import Place, SourceError
from streams.kafka.task import Task
from streams.outputs import ALERT_TOPIC, DEMAND_TOPIC
from streams.state import Record

FOLLOW_S = 1.0
ENDS_EVERY_S = 3.0
"""Time between questions for the ends of partitions: one request to each broker."""

ENDS_TIMEOUT_S = 3.0
STOPPED_S = 30.0
"""An event loop that has not come round for so long is dead: three of the group's default sessions."""


class Watch(Listener):
    """Follows a worker.

    Parameters
    ----------
    kafka, worker
        Settings.
    """

    def __init__(self, kafka: KafkaSettings, worker: WorkerSettings) -> None:
        self.metrics = Metrics()
        self.metrics.before = self.follow
        self._kafka, self._worker = kafka, worker
        self._shards: Shards | None = None
        self._executor: Executor | None = None
        self._ends: dict[Place, int] = {}
        self._told: set[Place] = set()
        self._beat_s = time.monotonic()
        self._beating: asyncio.Task[None] | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    # -- life

    def start(self, shards: Shards, executor: Executor) -> None:
        """Begin to follow; called on the event loop before anything runs."""
        shards.listener = self
        self._shards, self._executor = shards, executor
        self._beating = asyncio.get_running_loop().create_task(self._beat(), name="watch")
        self._thread.start()

    async def _beat(self) -> None:
        while True:
            self._beat_s = time.monotonic()
            await asyncio.sleep(FOLLOW_S)

    def _run(self) -> None:
        offsets, asked_s = Offsets(self._kafka), 0.0
        while not self._stop.wait(FOLLOW_S):
            if time.monotonic() - asked_s >= ENDS_EVERY_S and self._shards is not None:
                asked_s = time.monotonic()
                places = {place for task in list(self._shards.tasks.values()) for place in list(task.inboxes)}
                with suppress(SourceError):  # Kafka is away: the ends are those of its last answer, and waits grow
                    self._ends = offsets.ends(places, ENDS_TIMEOUT_S)
            self.follow()

    def close(self) -> None:
        """Follow no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(0.2)

    # -- readiness and health

    def ready(self) -> bool | str:
        """True, or why the worker is not ready."""
        shards = self._shards
        if shards is None:
            return "Kafka has not answered yet"
        if shards.error is not None:
            return f"not ready: {shards.error}"
        return True if shards.ready else "shards are being taken over"

    def healthy(self) -> bool | str:
        """True, or why the worker should be ended."""
        shards = self._shards
        if shards is None:
            return True
        if shards.error is not None:
            return f"the worker cannot go on: {shards.error}"
        silent_s = time.monotonic() - self._beat_s
        return True if silent_s < STOPPED_S else f"the event loop has stood still for {silent_s:.0f} s"

    # -- what is told

    def recovered(self, number: int, task: Task) -> None:
        """Count from here on what a task does."""
        self.metrics.recovery_seconds.observe(task.stats.recovery_s)
        if isinstance(task.logic, Shard):
            with self._lock:
                self.metrics.begin_shard(number, task.logic.engine)

    def left(self, number: int, task: Task) -> None:
        """Count what a task did last, and tell no more of it."""
        with self._lock:
            self._follow_task(number, task)
            if isinstance(task.logic, Shard):
                self.metrics.forget_shard(number)

    def fetched(self, rows: int) -> None:
        """Count a chunk."""
        self.metrics.chunk_records.observe(rows)

    def arrived(self, topic: str, ages_ms: npt.NDArray[np.int64]) -> None:
        """Count ages of events."""
        if (name := topic_of(topic)) in ITEM_TOPICS:
            self.metrics.event_age.observe(ages_ms / 1000, topic=name)

    def answered(self, rows: int, seconds: float) -> None:
        """Count a batch of forecasts."""
        self.metrics.batch_rows.observe(rows)
        self.metrics.forecast_seconds.observe(seconds)

    def committed(self, seconds: float, written: int, records: Sequence[Record], outputs: Sequence[Placed]) -> None:
        """Count a transaction, and how long what is in it took."""
        size = written + sum(len(placed.output.key or b"") + len(placed.output.value or b"") for placed in outputs)
        self.metrics.committed(seconds, size, records, (placed.output for placed in outputs))
        if self._worker.clock == "record":
            return  # the records' clock and this machine's have nothing to do with each other
        now_ms = time.time_ns() // 1_000_000
        for topic, spread in (
            (DEMAND_TOPIC, self.metrics.event_to_forecast),
            (ALERT_TOPIC, self.metrics.event_to_alert),
        ):
            since = [placed.since_ms for placed in outputs if placed.since_ms and placed.output.topic == topic]
            if since:
                spread.observe((now_ms - np.array(since, np.int64)) / 1000)

    def aborted(self) -> None:
        """Count a transaction that came to nothing."""
        self.metrics.transactions_aborted.inc()

    # -- what is asked

    def follow(self) -> None:
        """Bring everything up to date that parts keep as totals; any thread may, at any time."""
        shards, executor = self._shards, self._executor
        if shards is None or executor is None:
            return
        with self._lock:
            tasks = list(shards.tasks.items())
            for number, task in tasks:
                self._follow_task(number, task)
            self.metrics.follow_executor(executor.stats, executor.forecaster.name)
            self.metrics.ready.set(self.ready() is True)
            self.metrics.rebalances.follow(shards.rebalances)
            self.metrics.records_lost.follow(shards.lost_records)
            inboxes = [inbox for _, task in tasks for inbox in list(task.inboxes.values())]
            self.metrics.buffered_records.set(sum(inbox.rows for inbox in inboxes))
            self.metrics.buffered_bytes.set(sum(inbox.size_bytes for inbox in inboxes))
            self._follow_lag(inboxes)

    def _follow_task(self, number: int, task: Task) -> None:
        if isinstance(task.logic, Shard):
            self.metrics.follow_shard(number, task.logic.engine)

    def _follow_lag(self, inboxes: list[Any]) -> None:
        """Lag of each partition; of one that several shards read, that of the last of them."""
        now_ms = time.time_ns() // 1_000_000
        lags: dict[Place, tuple[int, float]] = {}
        for inbox in inboxes:
            place = (inbox.topic, inbox.partition)
            records = max(0, max(self._ends.get(place, 0), inbox.next) - inbox.done)
            since_ms = inbox.oldest_ms or inbox.applied_ms
            seconds = max(0.0, (now_ms - since_ms) / 1000) if records and since_ms > 0 else 0.0
            lags[place] = max((records, seconds), lags.get(place, (0, 0.0)))
        for (topic, partition), (records, seconds) in lags.items():
            name = topic.removeprefix(self._kafka.topic_prefix)
            self.metrics.lag_records.set(records, topic=name, partition=partition)
            self.metrics.lag_seconds.set(seconds, topic=name, partition=partition)
        for topic, partition in self._told - lags.keys():
            self.metrics.forget_partition(topic.removeprefix(self._kafka.topic_prefix), partition)
        self._told = set(lags)
