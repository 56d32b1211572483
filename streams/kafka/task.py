"""The life of a shard, or of the coordinator: recovered, fed, committed, suspended, let go.

In: `Chunk`s as they are fetched, word of ends. Out: commits through the `Ledger`.
Must not know: what a record means, groups, how records are fetched. Rule: what a commit holds is a state, exactly the
offsets that led to it, and exactly the outputs since the commit before.

While a commit is on its way in a thread, records go on being applied; what they give belongs to the next one. A commit
that fails ends the process: what is in memory is then ahead of what is kept, and the next owner starts from the latter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import structlog

from streams.kafka.inbox import Inbox, Patience, Slice, hungry, take_next
from streams.kafka.ledger import FencedError, Ledger, LedgerError, Placed, Position
from streams.kafka.listener import NOBODY, Listener
from streams.kafka.settings import WorkerSettings
from streams.kafka.source import Chunk, Place
from streams.state import Record

log = structlog.get_logger("shelftide.worker")

URGENT_MS = 40
"""Least time between commits that somebody waits for: a commit itself takes about as long."""

IDLE_COMMITS_MS = 5_000
"""Time between commits of a task that only time has changed."""

ALIGN_WAIT_S = 15.0
"""How long records wait for those of another topic that cannot be fetched; time at work does not count.

Without it records are applied that make those of the other topic late: a partition without a leader for longer is a
fault that the shard is not to stand still for, a slow answer is not.
"""

PATIENCE_S = 55.0
"""How long a commit is tried: below the time after which Kafka aborts the transaction by itself."""

POLL_S = 0.02
MOST_OUTPUTS = 20_000
"""Outputs that may wait for a commit before records do."""


class Logic(Protocol):
    """What a task runs: a shard or the coordinator."""

    tick_ms: int
    clock_ms: int
    live: bool
    urgent: bool
    hurry: bool
    changed: asyncio.Event
    failure: BaseException | None
    outputs: list[Placed]

    async def apply(self, slices: Sequence[Slice]) -> None:
        """Apply records in order."""

    async def tick(self, now_ms: int) -> None:
        """Let the machine's clock pass."""

    def went_live(self) -> None:
        """Note that everything that had arrived was applied."""

    def changes(self) -> Iterator[Record]:
        """State records that changed since the last call."""

    def take_outputs(self) -> list[Placed]:
        """Outputs since the last call."""

    def restore(self, records: dict[str, bytes], clock_ms: int) -> None:
        """Take over committed state."""


class Task:
    """One shard, or the coordinator, as this worker runs it.

    Parameters
    ----------
    name
        For logs and metrics.
    logic
        What it does.
    ledger
        Its book.
    topics
        Place -> whether its records come first, in the order of topics.
    worker
        Settings.
    shards
        Number of shards of the application, for the record of positions.
    now_ms
        The machine's clock.
    """

    def __init__(
        self,
        name: str,
        logic: Logic,
        ledger: Ledger,
        topics: Mapping[Place, bool],
        worker: WorkerSettings,
        shards: int,
        now_ms: Callable[[], int],
    ) -> None:
        self.name, self.logic, self.ledger = name, logic, ledger
        self.inboxes: dict[Place, Inbox] = {}
        self.durable: dict[Place, int] = {}
        self.recovered = False
        self.stats = TaskStats()
        self.listener: Listener = NOBODY
        self._topics, self._worker, self._shards, self._now_ms = topics, worker, shards, now_ms
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"commit-{name}")
        self._kept = Position({}, 0, shards)
        self._committing: asyncio.Task[None] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._suspending = False
        self._committed_s = self._ticked_s = 0.0
        self._patience = Patience(ALIGN_WAIT_S, POLL_S)
        self._applied_since = False
        self._left_out: list[Place] = []

    # -- recovery

    async def recover(self, timeout_s: float) -> None:
        """Shut earlier owners out, read the state, and be ready to be fed.

        Raises
        ------
        LedgerError
            If the state cannot be had, or is that of another application.
        streams.state.SnapshotError
            If a record is of another version.
        """
        started_s = time.monotonic()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self.ledger.open, timeout_s)
        records, position = await loop.run_in_executor(self._thread, self.ledger.read, timeout_s)
        if position is not None and position.shards != self._shards:
            raise LedgerError(
                f"the state of {self.name} is that of {position.shards} shards, the settings say {self._shards} "
                "partitions; set partitions back, or start a new application id"
            )
        self.stats.state_bytes = sum(len(key) + len(value) for key, value in records.items())
        if position is not None:
            self.logic.restore(records, position.clock_ms)
        offsets = position.offsets if position is not None else {}
        for (topic, partition), first in self._topics.items():
            start = offsets.get(topic, 0)
            self.inboxes[topic, partition] = Inbox(topic, partition, start, first=first)
            self.durable[topic, partition] = start
        self._kept = self._position()
        self.recovered = True
        self.stats.recovery_s = time.monotonic() - started_s

    async def still_ours(self, timeout_s: float) -> bool:
        """Tell whether nobody has taken over since the last commit: a transaction shows."""
        try:
            await self._write([], [], self._kept, timeout_s)  # offsets of the state that is there, and no others
        except FencedError:
            return False
        return True

    # -- feeding

    def offer(self, chunk: Chunk) -> bool:
        """Take a chunk in; False where one before it was lost on the way."""
        inbox = self.inboxes.get(chunk.place)
        if inbox is None:
            return True  # read for another shard that wanted earlier records
        if chunk.place in self.hungry:
            self._patience.renew()
        taken = inbox.offer(chunk, self._now_ms())
        self.logic.changed.set()
        return taken

    def end(self, place: Place, offset: int) -> None:
        """Note that a partition was read to its end."""
        if (inbox := self.inboxes.get(place)) is not None:
            if place in self.hungry:
                self._patience.renew()
            inbox.end(offset)
            self.logic.changed.set()

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait to be applied."""
        return sum(inbox.size_bytes for inbox in self.inboxes.values())

    @property
    def hungry(self) -> list[Place]:
        """Partitions that all others of this task wait for."""
        boxes = list(self.inboxes.values())
        return [(inbox.topic, inbox.partition) for inbox in hungry(boxes)] if any(b.rows for b in boxes) else []

    @property
    def caught_up(self) -> bool:
        """Whether everything that had arrived was applied."""
        return all(inbox.at_end and not inbox.rows for inbox in self.inboxes.values())

    # -- running

    def start(self) -> None:
        """Begin, or begin again, to apply what is there."""
        self._suspending = self.logic.hurry = False
        self._patience.renew()
        self._runner = asyncio.create_task(self._run(), name=self.name)

    async def _run(self) -> None:
        while not self._suspending:
            if self.logic.failure is not None:
                raise self.logic.failure
            self._check_commit()
            if await self._step():
                await asyncio.sleep(0)
                continue
            self._maybe_commit()
            self.logic.changed.clear()
            try:
                await asyncio.wait_for(self.logic.changed.wait(), POLL_S)
            except TimeoutError:
                continue

    async def _step(self) -> bool:
        """Apply what can be applied, or tick; False where there was nothing to do."""
        if len(self.logic.outputs) > MOST_OUTPUTS and self._committing is not None:
            await asyncio.wait([self._committing])
            return True
        wait = self._worker.clock == "record" or not self.hungry or self._patient()
        if not wait:
            self._tell_impatience()
        slices = take_next(list(self.inboxes.values()), self._worker.chunk_rows, wait=wait)
        if slices:
            self.logic.live = self.logic.live and sum(map(len, slices)) < self._worker.chunk_rows
            started_s = time.thread_time()
            await self.logic.apply(slices)
            self.stats.apply_cpu_s += time.thread_time() - started_s
            for part in slices:
                self.inboxes[part.topic, part.partition].note(part)
                self.stats.records += len(part)
            self._applied_since = True
            self._maybe_commit()
            return True
        if self.caught_up:
            if not self.logic.live:
                self.logic.live = True
                self.logic.went_live()
            return await self._tick()
        return False

    def _patient(self) -> bool:
        """Whether to wait on for topics that gave nothing; always for what was fetched and has yet to come."""
        return self._patience.lasts(time.monotonic()) or any(inbox.missing for inbox in self.inboxes.values())

    def _tell_impatience(self) -> None:
        """Say which topics are left out, once: what they hold may be late when it comes."""
        if (hungry := self.hungry) != self._left_out:
            self._left_out = hungry
            log.warning("records are applied without those of topics that cannot be fetched", task=self.name,
                        partitions=hungry, after_s=ALIGN_WAIT_S)  # fmt: skip

    async def _tick(self) -> bool:
        if self._worker.clock == "record" or time.monotonic() - self._ticked_s < self._tick_every_s:
            return False
        self._ticked_s = time.monotonic()
        await self.logic.tick(self._now_ms())
        return True

    @property
    def _tick_every_s(self) -> float:
        return self.logic.tick_ms / 1000

    # -- commits

    def _maybe_commit(self) -> None:
        """Begin a commit where it is time for one and none is on its way."""
        if self._committing is not None:
            return
        passed_ms = (time.monotonic() - self._committed_s) * 1000
        if self.logic.urgent or len(self.logic.outputs) > MOST_OUTPUTS // 4:
            due_ms: float = URGENT_MS
        else:
            due_ms = self._worker.commit_interval_ms if self._applied_since else IDLE_COMMITS_MS
        if passed_ms >= due_ms:
            self._begin_commit()

    def _begin_commit(self) -> None:
        self._committed_s = time.monotonic()
        self._applied_since = False
        started_s = time.thread_time()
        records, outputs = list(self.logic.changes()), self.logic.take_outputs()
        self.stats.snapshot_s += time.thread_time() - started_s
        self._committing = asyncio.create_task(self._write(records, outputs, self._position(), PATIENCE_S))

    def _position(self) -> Position:
        """Offset of the next record of each topic to be applied, and the clock: taken when the records are."""
        applied = {inbox.topic: inbox.applied for inbox in self.inboxes.values()}
        return Position(applied, self.logic.clock_ms, self._shards)

    async def _write(self, records: list[Record], outputs: list[Placed], position: Position, timeout_s: float) -> None:
        started_s = time.monotonic()
        loop = asyncio.get_running_loop()

        def write() -> int:
            try:
                written = self.ledger.commit(records, position, outputs, timeout_s)
            except LedgerError:
                self.listener.aborted()
                raise
            self.listener.committed(time.monotonic() - started_s, written, records, outputs)
            return written

        written = await loop.run_in_executor(self._thread, write)
        self._kept = position
        self.durable = {place: position.offsets[place[0]] for place in self.inboxes}
        self.stats.committed(time.monotonic() - started_s, written, records, outputs)

    def _check_commit(self) -> None:
        """Raise what the last commit raised."""
        if self._committing is not None and self._committing.done():
            done, self._committing = self._committing, None
            done.result()

    # -- ends

    async def suspend(self, timeout_s: float) -> None:
        """Finish what is being applied, commit it, and stand still; `start` goes on.

        Raises
        ------
        LedgerError
            If the last commit fails.
        """
        self._suspending = self.logic.hurry = True
        self.logic.changed.set()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner
            if self._committing is not None:
                await asyncio.wait_for(self._committing, timeout_s)
                self._committing = None
            self._begin_commit()
            if self._committing is not None:
                await asyncio.wait_for(self._committing, timeout_s)
                self._committing = None

    @property
    def error(self) -> BaseException | None:
        """Why the task has stopped by itself, None while it runs or was told to stop."""
        if self._runner is not None and self._runner.done() and not self._runner.cancelled():
            return self._runner.exception()
        return None

    def close(self) -> None:
        """Let go of the book; nothing more is written."""
        if self._runner is not None:
            self._runner.cancel()
        self.ledger.close()
        self._thread.shutdown(wait=False)


class TaskStats:
    """Totals of a task since it was recovered."""

    def __init__(self) -> None:
        self.records = self.commits = self.outputs = 0
        self.commit_s = self.commit_bytes = self.snapshot_s = self.apply_cpu_s = self.recovery_s = 0.0
        self.state_bytes = 0
        self.last_commit_s = 0.0
        self.bytes_by_kind: dict[str, int] = {}

    def committed(self, seconds: float, written: int, records: Sequence[Record], outputs: Sequence[Placed]) -> None:
        """Count a commit."""
        self.commits += 1
        self.commit_s += seconds
        self.last_commit_s = seconds
        self.commit_bytes += written
        self.outputs += len(outputs)
        for key, value in records:
            kind = key.partition("/")[0]
            self.bytes_by_kind[kind] = self.bytes_by_kind.get(kind, 0) + len(value or b"")
