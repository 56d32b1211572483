"""The coordinator on Kafka: findings of all shards in one order through it, alerts for the next commit.

In: `Slice`s of the topic of candidates, ticks. Out: alerts; state records.
Must not know: consumers, producers, groups. Rule: findings are judged in the order of their shards' clocks; a shard
that works off a backlog is waited for as long as it shows progress, a silent one is not.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from streams.alert_book import AlertOutput
from streams.coordinator import Coordinator
from streams.events import Acknowledge, epoch_ms
from streams.kafka.inbox import Slice
from streams.kafka.ledger import Placed
from streams.kafka.shard import Found, Mark
from streams.outputs import ALERT_TOPIC, Output
from streams.state import Record, pack, unpack

SILENT_MS = 10_000
"""A shard with a backlog that has written nothing for so long is not waited for: as long as a group's session."""

TICK_MS = 100
"""Time between looks at what waits: a finding should not wait longer than its group does."""

SETTLE_MS = 150
"""Findings of live shards are judged so long after their time: a commit of the others takes less, mostly."""

REMEMBERED = 10_000
"""Arrivals of prices remembered, so that metrics can say how long alerts took."""

HELD_KEY = "shell/held"

_RECORD: msgspec.json.Decoder[Found | Mark] = msgspec.json.Decoder(Found | Mark)


@dataclass(order=True, slots=True)
class _Held:
    clock_ms: int
    shard: int
    number: int
    found: Found = field(compare=False)


@dataclass(slots=True)
class _Heard:
    clock_ms: int
    live: bool
    at_ms: int


class Coordination:
    """The logic of the coordinator; its life is `streams.kafka.task.Task`, as that of a shard.

    Parameters
    ----------
    now_ms
        The machine's clock.
    shards
        Number of shards.
    by_record
        Whether records alone move time (`WorkerSettings.clock`).
    """

    def __init__(self, now_ms: Callable[[], int], shards: int, *, by_record: bool) -> None:
        self.coordinator = Coordinator()
        self.outputs: list[Placed] = []
        self.tick_ms = TICK_MS
        self.clock_ms = 0
        self.live = False
        self.urgent = self.hurry = False
        self.changed = asyncio.Event()
        self.failure: BaseException | None = None
        self.refused = 0
        self._now_ms, self._shards, self._by_record = now_ms, shards, by_record
        self._heard: dict[int, _Heard] = {}
        self._held: list[_Held] = []
        self._number = 0
        self._came_ms: dict[int, int] = {}  # event time of a price -> clock at its arrival

    async def apply(self, slices: Sequence[Slice]) -> None:
        """Take in what shards found, and judge what nothing earlier can precede."""
        now_ms = self._now_ms()
        for part in slices:
            for value in part.values:
                self._read(value, now_ms)
        self._judge(now_ms)

    def went_live(self) -> None:
        """Nothing is left over by a backlog."""

    async def tick(self, now_ms: int) -> None:
        """Let the machine's clock pass."""
        self._judge(now_ms)

    def _read(self, value: bytes | None, now_ms: int) -> None:
        try:
            record = _RECORD.decode(value or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.refused += 1  # nobody but shards writes there; whatever it is, it is no finding
            return
        if isinstance(record, Mark):
            self._heard[record.shard] = _Heard(record.clock_ms, record.live, now_ms)
            return
        time_ms = record.candidate.tick_ms if record.candidate is not None else record.clock_ms
        heapq.heappush(self._held, _Held(time_ms, record.shard, self._number, record))
        self._number += 1

    def _judge(self, now_ms: int) -> None:
        """Judge findings before the time that all shards have reached: of that time itself more may follow."""
        until_ms = self._passed(now_ms)
        while self._held and self._held[0].clock_ms < until_ms:
            self._decide(heapq.heappop(self._held).found)
        if until_ms > self.clock_ms:
            self.clock_ms = until_ms
            self._publish(self.coordinator.tick(until_ms))

    def _passed(self, now_ms: int) -> int:
        """The time up to which every shard's findings are here, as far as anyone can know."""
        heard = self._heard.values()
        if self._by_record:  # a replay: every shard's word counts, however long it takes
            return min((h.clock_ms for h in heard), default=0) if len(heard) == self._shards else 0
        behind = [h.clock_ms for h in heard if not h.live and now_ms - h.at_ms <= SILENT_MS]
        return min([now_ms - SETTLE_MS, *behind])

    def _decide(self, found: Found) -> None:
        if found.candidate is not None:
            if len(self._came_ms) >= REMEMBERED:
                self._came_ms.clear()
            self._came_ms[found.candidate.event_time] = found.candidate.tick_ms
            self._publish(self.coordinator.offer(found.candidate))
        elif found.command is not None:
            command = found.command
            if not command.fingerprint:
                return
            self._publish(self.coordinator.tick(found.clock_ms))  # it finds what was due by then published
            if isinstance(command, Acknowledge):
                self._publish(self.coordinator.acknowledge(command.fingerprint))
            elif command.until is not None:
                self._publish(self.coordinator.snooze(command.fingerprint, epoch_ms(command.until)))

    def _publish(self, alerts: Sequence[AlertOutput]) -> None:
        for alert in alerts:
            event_id = f"{alert.fingerprint}-{alert.revision}"
            output = Output(ALERT_TOPIC, alert.fingerprint.encode(), alert.value, event_id, alert.event_time_ms)
            since_ms = self._came_ms.get(alert.event_time_ms, 0) if alert.revision == 1 else 0
            self.outputs.append(Placed(output, since_ms=since_ms))
            self.urgent = True

    @property
    def due(self) -> tuple[int, int]:
        """No series here."""
        return 0, 0

    def changes(self) -> Iterator[Record]:
        """State records that changed since the last call; findings that wait are among them."""
        yield from self.coordinator.changes()
        held = [(h.clock_ms, h.shard, msgspec.json.encode(h.found)) for h in sorted(self._held)]
        heard = [(shard, h.clock_ms, h.live) for shard, h in self._heard.items()]
        yield HELD_KEY, pack({"held": held, "heard": heard, "clock_ms": self.clock_ms})

    def take_outputs(self) -> list[Placed]:
        """What goes out with the commit that is being made."""
        outputs, self.outputs = self.outputs, []
        self.urgent = False
        return outputs

    def restore(self, records: dict[str, bytes], clock_ms: int) -> None:
        """Take over committed state."""
        held = records.pop(HELD_KEY, None)
        for key in sorted(records):
            self.coordinator.restore(key, records[key])
        if held is not None:
            state = unpack(HELD_KEY, held)
            now_ms = self._now_ms()
            self.clock_ms = state["clock_ms"]
            for time_ms, shard, found in state["held"]:
                record = msgspec.json.decode(found, type=Found)
                heapq.heappush(self._held, _Held(time_ms, shard, self._number, record))
                self._number += 1
            self._heard = {shard: _Heard(at_ms, live, now_ms) for shard, at_ms, live in state["heard"]}
