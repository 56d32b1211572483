"""The shell over files: events of a file through the same engines as in production, outputs into a folder.

In: files of events, in order of arrival. Out: a file per output topic, and a summary.
Must not know: Kafka. Rule: two replays of the same files give the same bytes, whatever the chunk size.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from models.forecast import Forecaster
from online.scores import Scores
from streams.alert_book import AlertOutput
from streams.calendar import week_of
from streams.coordinator import Coordinator
from streams.decode import decode
from streams.engine import Engine, EngineConfig
from streams.events import Acknowledge, EventBatch, Snooze, epoch_ms
from streams.files import CHUNK_ROWS, EventWriter, read_records
from streams.outputs import (
    ALERT_TOPIC,
    DEADLETTER_TOPIC,
    DEMAND_TOPIC,
    TRIGGER_TOPIC,
    ForecastSet,
    Output,
    Outputs,
    as_line,
    dead_letter,
)
from streams.partition import Partitioner
from streams.price_alerts import Candidate
from streams.price_forecast import PRICE_TOPIC
from streams.replay_clock import ReplayClock, ticks_between
from streams.replay_prices import ReplayedPrices
from streams.replay_prices import Written as Written

I64 = npt.NDArray[np.int64]
TOPICS = (DEMAND_TOPIC, PRICE_TOPIC, ALERT_TOPIC, TRIGGER_TOPIC, DEADLETTER_TOPIC)

_FOREVER_MS = 1 << 62
_FLUSH_MS = 60_000  # beyond the longest wait of a candidate: a replay's end lets those that wait go
_TO_ALL_SHARDS = {"day_described", "ack", "promote", "rollback", "snooze", "acknowledge"}  # counted once
_REASON_DIGITS = str.maketrans("0123456789", "##########")


@dataclass(frozen=True, slots=True)
class ReplayConfig:
    """How a replay runs.

    Attributes
    ----------
    engine
        Settings of every shard's engine.
    shards
        Engines that share the items, as a worker group would.
    forecasts
        Which forecasts are written: ``all``; ``daily``: all closes of a day; ``weekly``: those on Mondays and the last;
        ``last``: the last close alone. Those of demand are all made and scored, those of prices made where written.
    partitioner
        ``murmur2`` or ``crc32``.
    until_ms
        Let time pass up to here at the end, or None: open buckets stay open.
    clock_ms
        The machine's clock: events more than an hour ahead of it are dead letters.
    """

    engine: EngineConfig
    clock_ms: int
    shards: int = 1
    forecasts: Written = "weekly"
    partitioner: Literal["murmur2", "crc32"] = "murmur2"
    until_ms: int | None = None


class _Time(msgspec.Struct, gc=False):
    event_time: int | str = 0


_TIME = msgspec.json.Decoder(_Time)


def merged(sources: Sequence[Path | str], *, sort: bool = False, rows: int = CHUNK_ROWS) -> Iterator[list[bytes]]:
    """Chunks of records of one file as they lie, or of several merged by their next event time.

    Parameters
    ----------
    sources
        Files, or ``-`` for standard input.
    sort
        Sort all records by event time first (in memory).
    rows
        Records of a chunk.
    """
    if len(sources) == 1 and not sort:
        yield from read_records(sources[0], rows=rows)
        return
    timed = [_timed(source, index) for index, source in enumerate(sources)]
    ordered = (
        iter(sorted(chain(*timed), key=lambda row: row[0])) if sort else heapq.merge(*timed, key=lambda row: row[:2])
    )
    chunk: list[bytes] = []
    for _, _, record in ordered:
        chunk.append(record)
        if len(chunk) == rows:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _timed(source: Path | str, index: int) -> Iterator[tuple[int, int, bytes]]:
    """Records with their event time; one that cannot be read keeps the place after the one before it."""
    last = 0
    for chunk in read_records(source):
        for record in chunk:
            with suppress(msgspec.MsgspecError, ValueError, RecursionError, OverflowError):
                last = epoch_ms(_TIME.decode(record).event_time)
            yield last, index, record


class Replay:
    """Plays records through the engines of all shards and their coordinator.

    Parameters
    ----------
    config
        How it runs.
    write
        Called with outputs in their final order.
    forecaster
        Shared by all shards; the seasonal window where none is given.
    """

    def __init__(
        self, config: ReplayConfig, write: Callable[[list[Output]], None], forecaster: Forecaster | None = None
    ) -> None:
        self.config = config
        self.engines = [Engine(config.engine, forecaster, shard) for shard in range(config.shards)]
        self.coordinator = Coordinator()
        self.counts: Counter[str] = Counter()
        self.tallies: dict[str, Counter[str]] = {
            name: Counter() for name in ("dead_letters", "reasons", "alerts", "alert_status", "triggers", "basis")
        }
        self._write = write
        self._prices = ReplayedPrices(config.engine.price_model, config.forecasts, write)
        self._clock = ReplayClock()
        self._partitioner = Partitioner(config.partitioner, config.shards)
        self._ticked_ms = 0
        self._last: dict[tuple[int, str], list[ForecastSet]] = {}
        self._first_ms, self._newest_ms, self._tick_ms = 0, 0, 0
        self._rows, self._ticks = np.zeros(0, np.int32), np.zeros(0, np.int64)
        self._found: list[tuple[int, int, int, Any]] = []  # tick, shard, number, candidate or command
        self._number = 0

    def feed(self, values: Sequence[bytes | None]) -> list[Outputs]:
        """Play one chunk of records; what the shards gave comes back for those who watch."""
        batch, letters = decode(values, clock_ms=self.config.clock_ms)
        self.counts["records"] += len(values)
        self.counts["events"] += len(batch)
        if len(batch):
            batch.tick_ms[:] = self._clock.ticks(batch.time_ms)
            self._rows, self._ticks = batch.row, batch.tick_ms
            self._tick_ms = int(batch.tick_ms[-1])
            self._first_ms = self._first_ms or int(batch.time_ms[0])
            self._newest_ms = max(self._newest_ms, int(batch.time_ms.max()))
        early = Outputs(
            dead_letters=[(d.row, dead_letter(d.value, d.key, d.stage, d.reason, d.field)) for d in letters]
        )
        return self._emit([early, *self._shards(batch)])

    def publish_due(self) -> None:
        """Write alerts that are due by now, for those who watch; else the next candidate lets them go, alike."""
        self._judge(self._tick_ms + 1)
        self._alerts(self.coordinator.tick(self._tick_ms))

    def finish(self) -> list[Outputs]:
        """End the replay: waiting candidates go, time passes to ``until_ms``, the last forecasts are written."""
        last_ms, until_ms = max(self._clock.finish(), 0), self.config.until_ms or 0
        outputs = self._emit([engine.tick(last_ms) for engine in self.engines] if last_ms else [])
        time = self.config.engine.time
        # The watermark shall reach the instant asked for: past the bound, and past sources that were active just now.
        for extra_ms in (time.bound_ms, time.bound_ms + time.idle_ms):
            late = [engine for engine in self.engines if last_ms < until_ms and engine.intake.watermark_ms < until_ms]
            outputs += self._emit([engine.tick(until_ms + extra_ms) for engine in late])
        self._judge(_FOREVER_MS)
        self._alerts(self.coordinator.tick(max(last_ms, until_ms) + _FLUSH_MS))
        if self.config.forecasts in ("weekly", "last"):
            for sets in self._last.values():
                for forecasts in sets:
                    if self.config.forecasts == "last" or not _on_monday(forecasts):
                        self._publish(forecasts)
        self._prices.finish()
        return outputs

    # -- shards

    def _shards(self, batch: EventBatch) -> list[Outputs]:
        if len(self.engines) == 1:
            return [self._hold(0, self.engines[0].process(batch))]
        return [out for part, ticks in self._cut(batch) for out in self._spread(part, ticks)]

    def _cut(self, batch: EventBatch) -> Iterator[tuple[EventBatch, list[int]]]:
        """Cut at each refresh interval of the clock: shards then see ticks at the same events whatever the chunks."""
        every_ms = self.config.engine.refresh_ms
        changes = np.flatnonzero(np.diff(batch.tick_ms // every_ms, prepend=self._ticked_ms // every_ms)).tolist()
        for start, stop in pairwise(sorted({0, *changes, len(batch)})):
            ticks = ticks_between(self._ticked_ms, int(batch.tick_ms[start]), every_ms)
            self._ticked_ms = int(batch.tick_ms[stop - 1])
            yield batch.take(np.arange(start, stop)), ticks

    def _spread(self, part: EventBatch, ticks: list[int]) -> Iterator[Outputs]:
        """One part to all shards: the ticks that begin it first."""
        shard = self._partitioner.of(part.sku)
        for index, engine in enumerate(self.engines):
            for tick_ms in ticks:
                ticked = engine.tick(tick_ms)
                _move(ticked, int(part.row[0]))
                yield self._hold(index, ticked)
            own = np.array([at == index or not sku for at, sku in zip(shard.tolist(), part.sku, strict=True)], np.bool_)
            if own.any():
                out = engine.process(part.take(np.flatnonzero(own)))
                if index:  # commands reach every shard; one hands them on
                    out.candidates = [entry for entry in out.candidates if isinstance(entry[1], Candidate)]
                yield self._hold(index, out)

    # -- outputs

    def _emit(self, outputs: list[Outputs]) -> list[Outputs]:
        self.coordinator.discard_changes()
        for engine in self.engines:
            engine.discard_changes()
        for _, letter in sorted(chain(*(o.dead_letters for o in outputs)), key=_row):
            stage, message = _stage_and_message(letter)
            self.tallies["dead_letters"][stage] += 1
            self.tallies["reasons"][f"{stage}: {message.translate(_REASON_DIGITS)[:120]}"] += 1
            self._write([letter])
        self._judge(self._tick_ms)
        for _, trigger in sorted(chain(*(o.triggers for o in outputs)), key=_row):
            self.tallies["triggers"][orjson.loads(trigger.value or b"{}")["status"]] += 1
            self._write([trigger])
        for _, forecasts in sorted(chain(*(o.forecasts for o in outputs)), key=_row):
            self._note(forecasts)
            if self._wanted(forecasts):
                self._publish(forecasts)
        for _, request in sorted(chain(*(o.prices for o in outputs)), key=_row):
            self._prices.note(request)
        return outputs

    def _hold(self, shard: int, out: Outputs) -> Outputs:
        """Keep what a shard found until the clock has passed it: nothing earlier can follow then."""
        for row, item in out.candidates:
            by_row = not isinstance(item, Candidate)
            tick_ms = int(self._ticks[np.searchsorted(self._rows, row)]) if by_row else item.tick_ms
            heapq.heappush(self._found, (tick_ms, shard, self._number, item))
            self._number += 1
        return out

    def _judge(self, until_ms: int) -> None:
        """Let the coordinator decide on findings before a time; of one second in the order of shards, as on Kafka."""
        while self._found and self._found[0][0] < until_ms:
            tick_ms, _, _, item = heapq.heappop(self._found)
            if not isinstance(item, Candidate):  # a command finds what was due by then published
                self._alerts(self.coordinator.tick(tick_ms))
            self._alerts(self._decide(item))

    def _decide(self, candidate: Any) -> list[AlertOutput]:
        if isinstance(candidate, Candidate):
            self.counts["candidates"] += 1
            return self.coordinator.offer(candidate)
        if isinstance(candidate, Acknowledge) and candidate.fingerprint:
            return self.coordinator.acknowledge(candidate.fingerprint)
        if isinstance(candidate, Snooze) and candidate.fingerprint and candidate.until is not None:
            return self.coordinator.snooze(candidate.fingerprint, epoch_ms(candidate.until))
        return []

    def _alerts(self, alerts: Iterable[AlertOutput]) -> None:
        for alert in alerts:
            value = orjson.loads(alert.value)
            self.tallies["alert_status"][value["status"]] += 1
            if value["status"] == "firing":
                self.tallies["alerts"][value["kind"]] += 1
            event_id = f"{alert.fingerprint}-{alert.revision}"
            key = alert.fingerprint.encode()
            self._write([Output(ALERT_TOPIC, key, alert.value, event_id, alert.event_time_ms)])

    def _note(self, forecasts: ForecastSet) -> None:
        self.counts["forecasts_made"] += len(forecasts)
        self.counts["forecasts_at_close"] += len(forecasts) if forecasts.at_close else 0
        if forecasts.at_close:
            kept = self._last.setdefault((forecasts.shard, forecasts.time_zone), [])
            if kept and kept[0].as_of_ms != forecasts.as_of_ms:
                kept.clear()
            kept.append(forecasts)

    def _wanted(self, forecasts: ForecastSet) -> bool:
        if self.config.forecasts == "all":
            return True
        if not forecasts.at_close or forecasts.hour:
            return False
        return self.config.forecasts == "daily" or (self.config.forecasts == "weekly" and _on_monday(forecasts))

    def _publish(self, forecasts: ForecastSet) -> None:
        self.counts["forecasts_written"] += len(forecasts)
        for name, count in forecasts.basis_counts().items():
            self.tallies["basis"][name] += count
        self._write(forecasts.encode())

    # -- summary

    def summary(self) -> dict[str, Any]:
        """Counts and scores of the replay so far; the same for every run over the same files."""
        events: Counter[str] = Counter()
        intake: Counter[str] = Counter()
        scores = Scores(self.engines[0].scores.horizons)
        learned = self.engines[0].learning.fresh()
        for index, engine in enumerate(self.engines):
            copies = {name: count for name, count in engine.counts.items() if index and name in _TO_ALL_SHARDS}
            events.update(engine.counts - Counter(copies))
            intake.update(engine.intake.counts)
            intake["accepted"] -= sum(copies.values())
            intake["parked_now"] += engine.intake.parked
            intake["dedupe_wraps"] += engine.intake.dedupe_wraps
            intake["refused_series_events"] += engine.series.refused
            intake["revenue_without_rate"] += engine.buckets.unconverted
            scores.merge(engine.scores)
            learned.merge(engine.learning.learner)
        made = {name: events.pop(name, 0) for name in ("forecasts", "closes")}
        return {
            "records": self.counts["records"],
            "events": dict(sorted(events.items())),
            "intake": dict(sorted(intake.items())),
            "first_event_ms": self._first_ms,
            "last_event_ms": self._newest_ms,
            "series": sum(len(engine.series) for engine in self.engines),
            "closes": made["closes"],
            "forecasts": {
                "made": self.counts["forecasts_made"],
                "at_close": self.counts["forecasts_at_close"],
                "written": self.counts["forecasts_written"],
                "written_by_basis": dict(sorted(self.tallies["basis"].items())),
                "model": self.engines[0].refresh.forecaster.name,
            },
            "price_forecasts": self._prices.summary(),
            "alerts": {
                "fired_by_kind": dict(sorted(self.tallies["alerts"].items())),
                "revisions_by_status": dict(sorted(self.tallies["alert_status"].items())),
                "candidates": self.counts["candidates"],
            },
            "triggers": dict(sorted(self.tallies["triggers"].items())),
            "dead_letters": {
                "by_stage": dict(sorted(self.tallies["dead_letters"].items())),
                "by_reason": dict(self.tallies["reasons"].most_common(50)),
            },
            "scores": scores.summary(),
            "learning": {**learned.summary(), "acting": [engine.learning.learner.acting() for engine in self.engines]},
            "shards": self.config.shards,
        }


def replay(
    sources: Sequence[Path | str],
    out: Path,
    config: ReplayConfig,
    *,
    sort: bool = False,
    forecaster: Forecaster | None = None,
    progress: Callable[[int], None] | None = None,
    rows: int = CHUNK_ROWS,
) -> dict[str, Any]:
    """Replay files of events into a folder; the summary comes back and lies in ``summary.json``.

    Parameters
    ----------
    sources
        Files of events, or ``-``.
    out
        Folder for ``<topic>.jsonl`` and ``summary.json``; made where it is missing.
    config
        How it runs.
    sort
        Sort all records by event time first.
    forecaster
        Answers batches; the seasonal window where none is given.
    progress
        Called with the number of records of each chunk.
    rows
        Records of a chunk.

    Raises
    ------
    streams.files.FileError
        If a file cannot be read or written.
    """
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        writers = {topic: stack.enter_context(EventWriter(out / f"{topic}.jsonl")) for topic in TOPICS}

        def write(outputs: list[Output]) -> None:
            if outputs:
                writers[outputs[0].topic].write([as_line(output) for output in outputs])

        player = Replay(config, write, forecaster)
        for chunk in merged(sources, sort=sort, rows=rows):
            player.feed(chunk)
            if progress is not None:
                progress(len(chunk))
        player.finish()
        summary = player.summary()
    # Last, once every topic lies whole: a summary stands for a finished replay.
    with EventWriter(out / "summary.json") as file:
        file.write_block(orjson.dumps(summary, option=orjson.OPT_INDENT_2) + b"\n")
    return summary


def _row(entry: tuple[int, Any]) -> int:
    return entry[0]


def _move(outputs: Outputs, row: int) -> None:
    """Give everything of a tick the row before which it happened."""
    for name in ("forecasts", "prices", "candidates", "triggers", "dead_letters"):
        setattr(outputs, name, [(row, item) for _, item in getattr(outputs, name)])


def _on_monday(forecasts: ForecastSet) -> bool:
    return week_of(forecasts.day) != week_of(forecasts.day - 1) and forecasts.hour == 0


def _stage_and_message(letter: Output) -> tuple[str, str]:
    headers = dict(letter.headers)
    return headers["x-stage"].decode(), headers["__streams.errors.message"].decode()
