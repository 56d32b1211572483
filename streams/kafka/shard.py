"""One shard on Kafka: records through its engine, forecasts through the executor, outputs for the next commit.

In: `Slice`s of item topics and of topics that all shards read; ticks. Out: outputs, placed; state records.
Must not know: consumers, producers, groups. Rule: what becomes of a record depends on its bytes and Kafka's timestamp,
and on the order of records; the machine's clock moves time only when everything that had arrived was applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from models.executor import Answer, Executor
from models.price import PriceForecaster
from models.price_net import price_forecaster
from streams.due import Request
from streams.engine import Engine, EngineConfig
from streams.events import Acknowledge, EventBatch, Promote, Rollback, Snooze, concat
from streams.kafka.arrivals import Arrivals, Origins
from streams.kafka.champion import CHAMPION_KEY, Champion, Models
from streams.kafka.inbox import Slice
from streams.kafka.ledger import Placed
from streams.kafka.listener import NOBODY, Listener
from streams.kafka.pace import Pace
from streams.kafka.settings import KafkaSettings, WorkerSettings
from streams.outputs import Output, Outputs, dead_letter, with_origin
from streams.partition import Partitioner, PartitionerName
from streams.price_alerts import Candidate
from streams.price_forecasting import PriceRequest, answered
from streams.replay_clock import ticks_between
from streams.state import Record

CANDIDATES_TOPIC = "engine.candidates.v1"
REQUESTS_AT_ONCE = 2
"""Requests of a shard under way: one that the model works on, one that waits; what else is due stays a set."""


PRICE_ROWS = 128
"""Lines of a request for forecasts of prices: 70 ms of the net, which forecasts of series may have to wait for."""

TICK_MS = 1_000
"""Time between ticks of the machine's clock."""


class Found(msgspec.Struct, frozen=True, tag="found"):
    """Record of `engine.candidates.v1`: what a shard found, or a command that concerns alerts."""

    shard: int
    clock_ms: int
    candidate: Candidate | None = None
    command: Acknowledge | Snooze | None = None


class Mark(msgspec.Struct, frozen=True, tag="mark"):
    """Record of `engine.candidates.v1`: all that a shard found up to a time has been written.

    `live` is false while the shard works off a backlog: its findings of later times are still to come.
    """

    shard: int
    clock_ms: int
    live: bool


class Shard:
    """The logic of one shard; its life (fetching, commits, recovery) is `streams.kafka.task.Task`.

    Parameters
    ----------
    config
        Of the engine.
    kafka, worker
        Settings.
    partitioner
        How producers spread SKUs.
    number
        Of the shard.
    executor
        Answers requests for forecasts.
    models
        Who may answer; its own is the executor's.
    encoder
        Turns forecasts into JSON, beside the event loop.
    now_ms
        The machine's clock.
    pace
        Of forecasts while backlogs are worked off, shared by the worker's shards.
    """

    def __init__(
        self,
        config: EngineConfig,
        kafka: KafkaSettings,
        worker: WorkerSettings,
        partitioner: PartitionerName,
        number: int,
        executor: Executor,
        models: Models,
        encoder: ThreadPoolExecutor,
        now_ms: Callable[[], int],
        pace: Pace | None = None,
    ) -> None:
        self.engine = Engine(config, models.own, number, deferred=True)
        self.champion = Champion(models, number)
        self.outputs: list[Placed] = []
        self.tick_ms = TICK_MS
        self.clock_ms = 0
        self.live = False
        self.urgent = self.hurry = False
        self.changed = asyncio.Event()
        self.failure: BaseException | None = None
        self._worker, self._number, self._shards = worker, number, kafka.partitions
        self._arrivals = Arrivals(Partitioner(partitioner, kafka.partitions), number)
        self._part = concat([])  # what the engine was given last
        self._executor, self._encoder, self._now_ms = executor, encoder, now_ms
        self._listener: Listener = NOBODY
        self._loop = asyncio.get_running_loop()
        self._answered = asyncio.Event()
        self._pace = pace or Pace()
        self._under_way = 0
        self._price_forecaster = price_forecaster(config.price_model)
        self._pricing = False
        self._all = worker.backlog_forecasts == "all"

    def tell(self, listener: Listener) -> None:
        """Let somebody listen."""
        self._listener = self._arrivals.listener = listener

    # -- records in

    async def apply(self, slices: Sequence[Slice]) -> None:
        """Apply records in order; may wait a little for forecasts that they make due."""
        now_ms = self._now_ms()
        arrived = self._arrivals.decoded(slices, now_ms)
        self.outputs += map(Placed, arrived.letters)
        batch, origins = arrived.batch, arrived.origins
        batch.tick_ms = self._ticks(arrived.clock_ms, now_ms)
        self.engine.refreshes = self.live or self._all
        for part, ticks in self._cut(batch):
            for tick_ms in ticks:
                await self._run(partial(self.engine.tick, tick_ms), origins)
            if len(part):
                self._part = part
                await self._run(partial(self.engine.process, part), origins)

    async def tick(self, now_ms: int) -> None:
        """Let the machine's clock pass; only when all that had arrived was applied."""
        if now_ms > self.clock_ms:
            self.clock_ms = now_ms
            await self._run(lambda: self.engine.tick(now_ms), None)

    def went_live(self) -> None:
        """Ask for the forecasts that a backlog has left over: with the clock of records no tick comes to do so."""
        self._ask()

    def _ticks(self, clock: npt.NDArray[np.int64], now_ms: int) -> npt.NDArray[np.int64]:
        """The shard's clock at each event: Kafka's timestamps, never behind itself, never ahead of the machine's."""
        ticks = np.maximum(np.minimum(clock, now_ms), self.clock_ms)
        return ticks // 1000 * 1000 if self._worker.clock == "record" else ticks  # a replay's clock has whole seconds

    def _cut(self, batch: EventBatch) -> Iterator[tuple[EventBatch, list[int]]]:
        """Cut where the clock enters another refresh interval, with the ticks that come first; live shards have them.

        A shard that works off a backlog ticks before each chunk only: events move time by themselves.
        """
        if not len(batch):
            return
        every_ms = self.engine.config.refresh_ms
        changes = []
        if self.live or self._all:
            changes = np.flatnonzero(np.diff(batch.tick_ms // every_ms, prepend=self.clock_ms // every_ms)).tolist()
        for start, stop in pairwise(sorted({0, *changes, len(batch)})):
            ticks = ticks_between(self.clock_ms, int(batch.tick_ms[start]), every_ms)
            part = batch if stop - start == len(batch) else batch.take(np.arange(start, stop))
            self.clock_ms = int(batch.tick_ms[stop - 1])
            yield part, ticks

    async def _run(self, step: Callable[[], Outputs], origins: Origins | None) -> None:
        """One call of the engine; a replay waits for the forecasts of series that it makes due."""
        self._take(step(), origins)
        while self.engine.paused:
            self._ask()
            await self._forecasts()
            if self.hurry and self.engine.leave_tick():
                break
            self._take(self.engine.resume(), origins)
        self._ask()

    # -- forecasts

    def _ask(self) -> None:
        """Hand on what is due, as long as few requests are under way."""
        while self._under_way < REQUESTS_AT_ONCE and self._may_ask():
            request = self.engine.gather(self._worker.forecast_rows)
            if request is None:
                self._ask_prices()
                return
            self._under_way += 1
            self._pace.begin(self._loop.time(), live=self.live)
            done = partial(self._encode, request, self._loop.time(), self.clock_ms)
            self._executor.submit(request.batch, forecaster=self.champion.forecaster).add_done_callback(done)

    def _ask_prices(self) -> None:
        """Hand on a few price lines that are due, when no series is; a backlog's days would be outdated at once."""
        if self._price_forecaster is None or self._pricing or self.hurry or not (self.live or self._all):
            return
        request = self.engine.price_forecasts.gather(PRICE_ROWS)
        if request is not None:
            self._pricing = True
            self._encoder.submit(self._price, request, self._price_forecaster)

    def _price(self, request: PriceRequest, forecaster: PriceForecaster) -> None:
        """Called by another thread: the forecasts and their JSON."""
        try:
            outputs = [Placed(output, self._number) for output in answered(request, forecaster).encode()]
        except BaseException as error:
            self._loop.call_soon_threadsafe(self._fail, error)
        else:
            self._loop.call_soon_threadsafe(self._absorb_prices, request, outputs)

    def _absorb_prices(self, request: PriceRequest, outputs: list[Placed]) -> None:
        self._pricing = False
        self.outputs += outputs
        self.engine.price_forecasts.absorb(request)
        self._answered.set()
        self._ask()

    def _may_ask(self) -> bool:
        """A shard that works off a backlog spends a share of its time on forecasts: by then most would be outdated."""
        if self.live or self._all:
            return True
        return not self._under_way and self._pace.free(self._loop.time())

    def _encode(self, request: Request, asked_s: float, asked_ms: int, future: Future[Answer]) -> None:
        """Called by the executor's thread: the JSON is made by another, the rest on the event loop."""

        def encode() -> None:
            try:
                answer = future.result()
                self._listener.answered(len(request), answer.seconds)
                forecasts = request.answer(answer.forecast, answer.model, answer.reason)
                outputs = [Placed(output, self._number, asked_ms) for output in forecasts.encode()]
            except BaseException as error:
                self._loop.call_soon_threadsafe(self._fail, error)
            else:
                self._loop.call_soon_threadsafe(self._absorb, request, forecasts, outputs, asked_s)

        self._encoder.submit(encode)

    def _absorb(self, request: Request, forecasts: Any, outputs: list[Placed], asked_s: float) -> None:
        self._under_way -= 1
        self._pace.ran(asked_s, self._loop.time())
        self.outputs += outputs
        self._take(self.engine.absorb(request, forecasts), None)
        self.urgent = True
        self._answered.set()
        self._ask()

    def _fail(self, error: BaseException) -> None:
        self.failure = error
        self._answered.set()
        self.changed.set()

    async def _forecasts(self) -> None:
        """Let others run; in a replay wait until nothing is due, a set time at most, and for no model that is late."""
        await asyncio.sleep(0)
        wait_s = self._worker.forecast_wait_ms / 1000
        deadline_s = self._loop.time() + wait_s
        while (
            self._all
            and not self.hurry
            and (self._under_way or self._pricing)
            and self.failure is None
            and self._executor.waited_s <= wait_s
        ):
            left_s = deadline_s - self._loop.time()
            if left_s <= 0:
                return
            self._answered.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._answered.wait(), left_s)

    @property
    def due(self) -> tuple[int, int]:
        """How many series have changed, and how many wait for a forecast."""
        return self.engine.due.count(self.engine.series.used)

    # -- outputs

    def _take(self, out: Outputs, origins: Origins | None) -> None:
        """Keep what goes out with the next commit."""
        for row, letter in out.dead_letters:
            self.outputs.append(Placed(with_origin(letter, origins.of(row)) if origins else letter))
        for row, item in out.candidates:
            if isinstance(item, Promote | Rollback):
                self._obey(row, item, origins)
            else:
                self._found(row, item)
        for _, trigger in out.triggers:
            self.outputs.append(Placed(trigger, self._number))
        self.urgent = self.urgent or bool(out.candidates or out.triggers)
        self.changed.set()

    def _found(self, row: int, item: Any) -> None:
        if isinstance(item, Candidate):
            record = Found(self._number, self.clock_ms, candidate=item)
        elif self._number:  # commands reach every shard; the first hands them on
            return
        else:
            clock_ms = int(self._part.tick_ms[np.searchsorted(self._part.row, row)])
            record = Found(self._number, clock_ms, command=item)
        self.outputs.append(Placed(_candidate(record, self._number), 0))

    def _obey(self, row: int, command: Promote | Rollback, origins: Origins | None) -> None:
        """Let another model answer from here on: at this place among the records, and with the commit that holds it."""
        at = int(np.searchsorted(self._part.row, row))
        done = self.champion.obey(command, int(self._part.tick_ms[at]))
        if done is None:
            return
        self.engine.adopt(self.champion.forecaster)
        self.outputs.append(Placed(done.output, 0))
        self.urgent = True
        if done.refused and not self._number and origins is not None:  # every shard reads it; the first one complains
            value, key = self._part.values[at], self._part.keys[at]
            self.outputs.append(Placed(dead_letter(value, key, "apply", done.refused, "$.model", origins.of(row))))

    # -- state

    def changes(self) -> Iterator[Record]:
        """State records that changed since the last call."""
        yield from self.engine.changes()
        yield from self.champion.changes()

    def take_outputs(self) -> list[Placed]:
        """What goes out with the commit that is being made."""
        mark = Mark(self._number, self.clock_ms, self.live)
        outputs, self.outputs = [*self.outputs, Placed(_candidate(mark, self._number), 0)], []
        self.urgent = False
        return outputs

    def restore(self, records: dict[str, bytes], clock_ms: int) -> None:
        """Take over the state that another worker, or this one before it died, has committed."""
        if (decided := records.pop(CHAMPION_KEY, None)) is not None:
            self.champion.restore(decided)
            self.engine.adopt(self.champion.forecaster)
        self.engine.restore(records)
        self.clock_ms = clock_ms
        self._ask()


def _candidate(record: Found | Mark, shard: int) -> Output:
    return Output(CANDIDATES_TOPIC, f"shard-{shard}".encode(), msgspec.json.encode(record), "", record.clock_ms)
