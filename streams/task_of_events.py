"""A forecasting task of a shop's own events: its days as an engine's panes hold them, and what was known ahead.

In: records in order of arrival. Out: the files of a task whose one cutoff is the last day that is over.
Must not know: models that are fitted, Kafka. Rule: what a net reads here while it learns is what the engine tells it
when it answers, at the close of the same day.

The events go through an engine that nobody asks for forecasts. At each close three things are read off it: the day that
is about to leave the panes, with every cancellation that still reached it; what is listed and planned for the days
ahead; and, of the days ahead that were told earlier, those that came otherwise.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from models.forecast import F32, LEVELS, Forecaster
from models.task import TaskError, TaskFile, bucket_times
from streams.buckets import UNSET, ZoneState
from streams.calendar import Width
from streams.covariates import day_columns
from streams.decode import decode
from streams.engine import Engine, EngineConfig
from streams.events import EventBatch
from streams.fields import series_key
from streams.panes import PROMO, flags_of
from streams.replay_clock import ReplayClock

I64 = npt.NDArray[np.int64]

CHANNELS = ("y", "promo", "price")
"""What is read off the panes, by the names of columns."""

TOLD_AHEAD = ("promo", "price")
"""Columns that may come otherwise than they were told."""

DAYS = ("holiday", "holiday_kind", "holiday_name")


@dataclass(frozen=True, slots=True)
class EventTask:
    """The files of a task, and what there was to make them of.

    Attributes
    ----------
    file, panel, static, ahead
        As `models.task` reads them.
    counts
        Records, events, dead letters, series, days.
    """

    file: TaskFile
    panel: pl.DataFrame
    static: pl.DataFrame
    ahead: pl.DataFrame
    counts: dict[str, int]

    def write(self, folder: Path) -> None:
        """Write the files into a folder that is there."""
        (folder / "task.json").write_bytes(msgspec.json.encode(self.file))
        for name in ("panel", "static", "ahead"):
            getattr(self, name).write_parquet(folder / f"{name}.parquet")


@dataclass(slots=True)
class _Told:
    """What was listed and planned ahead at a close: columns (N, H) of some slots, by name."""

    cutoff: int
    slots: I64
    values: dict[str, F32]


@dataclass(slots=True)
class _ZoneDays:
    """Days of one zone: columns that left the panes, and what came otherwise than it was told."""

    state: ZoneState
    begun: int = UNSET
    seen: int = UNSET  # buckets before this one are closed, and were looked at
    days: dict[int, tuple[I64, dict[str, F32]]] = field(default_factory=dict)
    told: deque[_Told] = field(default_factory=deque)
    otherwise: list[pl.DataFrame] = field(default_factory=list)


KEPT_DAYS = 1_500
"""Days that are kept at most: four years show a net every season often enough, and memory has an end."""


class EventDays:
    """Plays records through an engine, and keeps its days.

    Parameters
    ----------
    config
        Settings of the shop's engine, with buckets of a day.
    clock_ms
        The machine's clock: events more than an hour ahead of it are dead letters.
    forecaster
        Whose inputs `engine.refresh` gathers, for who wants to ask somebody on the way; nobody is asked here.
    closed
        Called after each close with the zone and its slots.

    Attributes
    ----------
    engine
        As it stands.

    Raises
    ------
    TaskError
        If buckets are hours.
    """

    def __init__(
        self,
        config: EngineConfig,
        clock_ms: int,
        forecaster: Forecaster | None = None,
        closed: Callable[[int, I64], None] | None = None,
    ) -> None:
        if config.width is not Width.DAY:
            raise TaskError("nets are fitted to days of events, and the setting bucket says hour; set it to day")
        self.engine = Engine(config, forecaster, deferred=True)
        self.engine.refreshes = False
        self._on_close = closed
        self._horizon, self._clock_ms, self._clock = config.horizon, clock_ms, ReplayClock()
        self._zones = [_ZoneDays(state) for state in self.engine.buckets.zones]
        self._counts: Counter[str] = Counter()

    def feed(self, values: Sequence[bytes | None]) -> None:
        """Play one chunk of records."""
        batch, letters = decode(values, clock_ms=self._clock_ms)
        self._counts.update(records=len(values), events=len(batch), dead_letters=len(letters))
        if len(batch):
            batch.tick_ms[:] = self._clock.ticks(batch.time_ms)
            self.apply(batch)

    def apply(self, batch: EventBatch) -> None:
        """Play events that have their ticks."""
        at = 0
        while at < len(batch) and self._zones[0].begun == UNSET:  # one by one, so that no close is missed
            self.engine.process(batch.take(np.array([at])))
            self._go_on()
            at += 1
        self.engine.process(batch.take(np.arange(at, len(batch))))
        self._go_on()

    def tick(self, now_ms: int) -> None:
        """Let a clock pass: days end without events too."""
        self.engine.tick(now_ms)
        self._go_on()

    @property
    def last(self) -> int | None:
        """The newest day that is over in all zones that have begun, None before the first."""
        seen = [zone.seen for zone in self._zones if zone.begun != UNSET and zone.seen > zone.begun]
        return min(seen) - 1 if seen else None

    def _go_on(self) -> None:
        """Look at every close, one by one; nobody answers what is due."""
        self._look()
        while self.engine.paused:
            self.engine.resume()
            self._look()
        self.engine.discard_changes()

    # -- closes

    def _look(self) -> None:
        for index, zone in enumerate(self._zones):
            opened = zone.state.open
            if opened == UNSET:
                continue
            if zone.begun == UNSET:
                zone.begun = zone.seen = opened
            if opened > zone.seen:
                zone.seen = opened
                slots = self.engine.buckets.in_zone(self.engine.series.live(), index).astype(np.int64)
                self._closed(zone, slots)
                if self._on_close is not None:
                    self._on_close(index, slots)

    def _closed(self, zone: _ZoneDays, slots: I64) -> None:
        opened, panes = zone.state.open, self.engine.panes
        columns = self._columns(slots, opened)
        if (leaving := opened - panes.config.buckets) >= zone.begun:
            zone.days[leaving] = (slots, {name: values[:, 0].copy() for name, values in columns.items()})
        self._compare(zone, opened - 1, slots, {name: columns[name][:, -1] for name in TOLD_AHEAD})
        zone.told.append(_Told(opened - 1, slots, self._ahead(zone, slots)))
        if len(zone.told) > self._horizon:
            zone.told.popleft()
        if (outdated := opened - KEPT_DAYS) > zone.begun:
            zone.begun = outdated
            zone.days.pop(outdated - 1, None)
            zone.otherwise = [frame for frame in zone.otherwise if int(frame["cutoff"][0]) >= outdated]

    def _columns(self, slots: I64, opened: int) -> dict[str, F32]:
        """Closed days of the panes, oldest first, (N, T), as `streams.refresh` gives them to a forecaster."""
        panes = self.engine.panes
        price = panes.channel("price", slots, opened).astype(np.float32)
        promo = (flags_of(panes.channel("shelf", slots, opened)) & PROMO).astype(np.float32)
        price[price == 0] = np.nan
        return {"y": panes.demand(slots, opened), "promo": promo, "price": price}

    def _ahead(self, zone: _ZoneDays, slots: I64) -> dict[str, F32]:
        """What is listed and planned at the end of each day ahead, (N, H), as `streams.covariates` reads it."""
        ends_ms = np.array(zone.state.zone.starts_ms(zone.state.open + 1, self._horizon), np.int64)
        price, promo = self.engine.listed.ahead(slots, ends_ms - 1)
        return {"promo": promo.astype(np.float32), "price": price}

    def _compare(self, zone: _ZoneDays, bucket: int, slots: I64, came: dict[str, F32]) -> None:
        """Note of a day what had been told of it otherwise than it came."""
        of_slot = np.full(self.engine.series.used, -1, np.int64)
        of_slot[slots] = np.arange(len(slots))
        for told in zone.told:
            step = bucket - told.cutoff
            row = of_slot[told.slots]
            for name, values in told.values.items() if step <= self._horizon else ():
                said, true = values[:, step - 1], came[name][row]
                other = (row >= 0) & ~((said == true) | (np.isnan(said) & np.isnan(true)))
                if other.any():
                    zone.otherwise.append(_otherwise(told.slots[other], told.cutoff, step, name, said[other]))

    # -- the task

    def finish(self, name: str) -> EventTask:
        """End the events: what is over by the newest of them closes, and the task is made; raises as `task` does."""
        if (last_ms := self._clock.finish()) > 0:
            self.tick(last_ms)
        return self.task(name)

    def task(self, name: str) -> EventTask:
        """The task of all days that are over by now; more may follow.

        Raises
        ------
        TaskError
            If no day is over.
        """
        last = self.last
        if last is None:
            raise TaskError(f"{name}: no day of these events is over, so there is nothing to fit to")
        begun = [zone for zone in self._zones if zone.begun != UNSET and zone.seen > zone.begun]
        parts = [part for zone in begun if (part := self._of_zone(zone, last)) is not None]
        if not parts:
            raise TaskError(f"{name}: nothing was sold before the last day that is over")
        panel, static, ahead = (pl.concat(frames) for frames in zip(*parts, strict=True))
        file = TaskFile(
            freq="D", horizon=self._horizon, season=7, cutoffs=[_date(last)], levels=list(LEVELS), name=name,
            known_future=["open", *TOLD_AHEAD, *DAYS], past_only=["price"], open="open",
        )  # fmt: skip
        days = last + 1 - min(zone.begun for zone in begun)
        counts = {**self._counts, "series": len(static), "days": days}
        return EventTask(file, panel, static, ahead, counts)

    def _of_zone(self, zone: _ZoneDays, last: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame] | None:
        """Panel, statics and what came otherwise of one zone; None where no series of it had begun."""
        engine, index = self.engine, self._zones.index(zone)
        live = engine.buckets.in_zone(engine.series.live(), index).astype(np.int64)
        first = np.maximum(engine.buckets.series["first"][live].astype(np.int64), zone.begun)
        slots, first = live[first <= last], first[first <= last]
        if not len(slots):
            return None
        ends = self._ahead(zone, slots)
        until = last + 1 + self._horizon
        known = list(zone.otherwise)
        for step in range(1, self._horizon + 1):  # beyond the last day what is told now stands for what will come
            self._compare(zone, zone.seen - 1 + step, slots, {name: ends[name][:, step - 1] for name in TOLD_AHEAD})
        zone.otherwise, known = known, zone.otherwise  # what will come may come otherwise once more
        matrices = self._matrices(zone, slots, until)
        for name in TOLD_AHEAD:
            matrices[name][:, zone.seen - zone.begun :] = ends[name][:, : until - zone.seen]
        matrices["y"][:, last + 1 - zone.begun :] = np.nan
        keys = [engine.series.key(slot) for slot in slots.tolist()]
        ids = pl.Series("unique_id", [series_key(*key) for key in keys])
        panel = self._panel(zone, ids, [location for _, location in keys], first, matrices)
        ahead = pl.concat([_NOTHING_OTHERWISE, *known])
        begins = pl.DataFrame({"slot": slots, "unique_id": ids, "first": first})
        ahead = ahead.join(begins, on="slot").filter(pl.col("cutoff").is_between(pl.col("first"), last))
        told_at = pl.col("cutoff").cast(pl.Int32).cast(pl.Date).alias("ds")
        return panel, self._static(ids, keys), ahead.select("unique_id", told_at, "h", "column", "value")

    def _matrices(self, zone: _ZoneDays, slots: I64, until: int) -> dict[str, F32]:
        """Days of series, (N, D) from the zone's first day on, NaN where nothing is kept."""
        shape = (len(slots), until - zone.begun)
        out = {name: np.full(shape, np.nan, np.float32) for name in CHANNELS}
        of_slot = np.full(self.engine.series.used, -1, np.int64)
        of_slot[slots] = np.arange(len(slots))
        for bucket, (were, columns) in zone.days.items():
            row = of_slot[were]
            for name, values in columns.items():
                out[name][row[row >= 0], bucket - zone.begun] = values[row >= 0]
        held = min(self.engine.panes.config.buckets, zone.seen - zone.begun)
        end = zone.seen - zone.begun
        for name, values in self._columns(slots, zone.seen).items():
            out[name][:, end - held : end] = values[:, -held:]
        return out

    def _panel(
        self, zone: _ZoneDays, ids: pl.Series, locations: Sequence[str], first: I64, matrices: dict[str, F32]
    ) -> pl.DataFrame:
        """A row per series and day from the series' first day on."""
        count = matrices["y"].shape[1]
        buckets = np.arange(zone.begun, zone.begun + count)
        row, column = np.nonzero(buckets[None] >= first[:, None])
        columns = {name: values[row, column] for name, values in matrices.items()}
        named = self._named_days(buckets, sorted(set(locations)))
        place = np.searchsorted(sorted(set(locations)), np.array(locations))[row]
        columns |= {name: values[place, column] for name, values in named.items()}
        frame = pl.DataFrame({"ds": bucket_times(buckets[column], "D"), **columns}, nan_to_null=True)
        return frame.with_columns(ids.gather(row).alias("unique_id")).select("unique_id", "ds", "y", *_KNOWN)

    def _named_days(self, buckets: I64, locations: Sequence[str]) -> dict[str, F32]:
        """Announced days of each location, (L, D), and whether it is open."""
        holidays, days = self.engine.holidays, buckets.tolist()
        out = {name: np.zeros((len(locations), len(days)), np.float32) for name in (*DAYS, "open")}
        for row, location in enumerate(locations):
            for name, values in day_columns(holidays, days, location).items():
                out[name][row] = values
            out["open"][row] = [holidays.is_open(day, location) for day in days]
        return out

    def _static(self, ids: pl.Series, keys: Iterable[tuple[str, str]]) -> pl.DataFrame:
        """What the catalog says of each series' item, nothing where it does not."""
        items = [self.engine.catalog.items.get(sku) for sku, _ in keys]
        told = {
            name: pl.Series(name, [(getattr(item, name) or None) if item else None for item in items], pl.String)
            for name in ("category", "brand", "title")
        }
        return pl.DataFrame({"unique_id": ids, **told})


_KNOWN = ("open", *TOLD_AHEAD, *DAYS)


def _otherwise(slots: I64, cutoff: int, step: int, name: str, said: F32) -> pl.DataFrame:
    count = len(slots)
    return pl.DataFrame(
        {
            "slot": slots,
            "cutoff": np.full(count, cutoff, np.int64),
            "h": np.full(count, step, np.int64),
            "column": pl.repeat(name, count, dtype=pl.String, eager=True),
            "value": said.astype(np.float32),
        }
    )


_NOTHING_OTHERWISE = _otherwise(np.zeros(0, np.int64), 0, 0, "promo", np.zeros(0, np.float32))


def _date(day: int) -> str:
    return str(np.datetime64(day, "D"))
