"""Which price lines are due for a forecast, and what the model needs of them: once a day, when a local day begins.

In: judged prices, closes of days. Out: `PriceRequest`s; state records.
Must not know: models' insides, topics, Kafka. Rule: a line is due until its request was answered, also across a
restart; a line without any price is silent.

Nothing is decided from these forecasts, so a request is all that an engine gives: who publishes has it answered, at
once, by another thread, or never.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.price import HORIZON, LastPrice, PriceBatch, PriceForecast, PriceForecaster
from streams.buckets import Buckets
from streams.calendar import HOUR_MS, Width, Zone
from streams.catalog import FOREVER_MS
from streams.price_alerts import Judged
from streams.price_forecast import PriceForecastSet
from streams.price_lines import LineKey, PriceLines, PriceRows, rounds
from streams.price_runs import PriceRuns, code_of, currency_of
from streams.price_windows import PriceWindows, Window
from streams.state import Record, pack, unpack

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
Slots = npt.NDArray[np.integer[Any]]

REQUEST_ROWS = 1024
"""Lines of a request: as many as the plain hurdle weighs at once."""


@dataclass(frozen=True, slots=True)
class PriceRequest:
    """Forecasts of prices to be made: what the model reads, and what is published beside them.

    Attributes
    ----------
    batch
        For the forecaster.
    slots
        Rows of the lines, (B,).
    keys, currencies
        Of each row.
    zone, day
        Index of their zone, and the local day that has begun.
    as_of_ms
        Its first instant.
    steps
        Starts of the local days after it, epoch ms.
    time_zone, shard
        As in `PriceForecastSet`.
    """

    batch: PriceBatch
    slots: Slots
    keys: list[LineKey]
    currencies: list[str]
    zone: int
    day: int
    as_of_ms: int
    steps: list[int]
    time_zone: str
    shard: int = 0

    def __len__(self) -> int:
        return len(self.slots)

    def answer(self, forecast: PriceForecast, model: str, reason: str | None = None) -> PriceForecastSet:
        """Forecasts as readers see them; may be called by any thread, for it touches no state."""
        return PriceForecastSet(
            keys=self.keys,
            currencies=self.currencies,
            today=self.batch.price[:, 0],
            forecast=forecast,
            as_of_ms=self.as_of_ms,
            steps=self.steps,
            time_zone=self.time_zone,
            model=model,
            reason=reason,
        )


def answered(request: PriceRequest, forecaster: PriceForecaster) -> PriceForecastSet:
    """Have a request answered: by the last price where the model fails, for it must not stop a shard."""
    try:
        return request.answer(forecaster.forecast(request.batch), forecaster.name)
    except Exception as error:
        last = LastPrice()
        reason = f"model failed: {' '.join(f'{type(error).__name__}: {error}'.split())}"[:200]
        return request.answer(last.forecast(request.batch), last.name, reason)


class PriceForecasting:
    """Keeps runs of prices, and makes requests of them.

    Parameters
    ----------
    lines
        Price lines, whose slots the runs share.
    buckets
        Whose zones say where days begin.
    shard
        Number of the engine.
    on
        False: nothing is kept and nothing is due; what an engine before has kept is deleted.
    """

    def __init__(self, lines: PriceLines, buckets: Buckets, shard: int = 0, *, on: bool = True) -> None:
        self.runs = PriceRuns(lines.max_lines)
        self.windows = PriceWindows()
        self.answered = 0  # lines, for those who count
        self._lines, self._buckets, self._shard, self._on = lines, buckets, shard, on
        self._zones = [Zone(state.zone.name, Width.DAY) for state in buckets.zones]
        self._days = [0] * len(self._zones)  # local day that has begun in each zone, 0: none was seen to begin
        self._days_written = list(self._days)
        self._unasked = False  # some line may be due
        # Not part of the state: after a restart nothing is under way, and what was is still due.
        self._under_way = np.zeros(lines.max_lines, np.bool_)
        self._outdated: list[str] = []

    @property
    def row_bytes(self) -> int:
        """Bytes of one line in the arrays, 0 where none are kept."""
        return self.runs.row_bytes if self._on else 0

    # -- prices in

    def learn(self, rows: PriceRows, judged: Judged) -> None:
        """Take over the prices of a call that are sound, in order."""
        if not self._on:
            return
        for part in rounds(np.where(judged.sound, judged.slots, -1)):
            slots = judged.slots[part]
            self._meet(rows, slots, part)
            promo, now = rows.promo[part], self._now(rows, slots, part)
            day = self._day_of(slots[now], rows.time_ms[part[now]])
            self.runs.observe(slots[now], rows.price[part[now]].astype(np.float32), day, promo[now])

    def _meet(self, rows: PriceRows, slots: Slots, part: I64) -> None:
        """Begin lines that are new, or that have changed their currency: old prices say nothing in another."""
        code = np.array([code_of(rows.currency[row]) for row in part.tolist()], np.int64)
        table = self.runs.table
        fresh = (table["count"][slots] == 0) | (table["currency"][slots] != code)
        if not fresh.any():
            return
        at = slots[fresh]
        for slot in at.tolist():
            self.windows.drop(slot)
        zone = np.array([self._buckets.zone_of(rows.location[row]) for row in part[fresh].tolist()], np.int64)
        self.runs.begin(at, zone, code[fresh], np.array(self._days, np.int64)[zone])

    def _now(self, rows: PriceRows, slots: Slots, part: I64) -> npt.NDArray[np.bool_]:
        """Tell which prices are in force from their event time on; note what holds for a time, or later."""
        time_ms, from_ms, until_ms = rows.time_ms[part], rows.from_ms[part], rows.until_ms[part]
        now = np.ones(len(part), np.bool_)
        announced = (from_ms > time_ms) | (until_ms >= 0)
        if not (announced.any() or len(self.windows)):
            return now
        for i in np.flatnonzero(announced).tolist():
            said, begin = int(time_ms[i]), int(from_ms[i]) if from_ms[i] >= 0 else int(time_ms[i])
            until = int(until_ms[i]) if until_ms[i] >= 0 else FOREVER_MS
            now[i] = begin <= said < until
            if until > max(begin, said) and rows.price[part[i]] > 0:
                window = Window(said, begin, until, float(rows.price[part[i]]), bool(rows.promo[part[i]]))
                self.windows.announce(int(slots[i]), window, (float(self.runs.today(slots[i : i + 1])[0]), False))
        for i in np.flatnonzero(~announced).tolist() if len(self.windows) else ():
            if int(slots[i]) in self.windows:
                price, promo = float(rows.price[part[i]]), bool(rows.promo[part[i]])
                now[i] = self.windows.listed(int(slots[i]), int(time_ms[i]), price, promo)
        return now

    def _day_of(self, slots: Slots, time_ms: I64) -> I64:
        zones = self.runs.table["zone"][slots]
        day = np.zeros(len(slots), np.int64)
        for index, zone in enumerate(self._zones):
            own = zones == index
            day[own] = zone.bucket(time_ms[own])
        return day

    def forget(self, slots: Sequence[int]) -> None:
        """Let go of lines that are about to be freed."""
        for slot in slots:
            self.windows.drop(slot)
        if len(slots) and self._on:
            at = np.array(slots, np.int64)
            self.runs.clear(at)
            self._under_way[at] = False

    # -- a day begins

    def begin_day(self, zone: int, at_ms: int) -> None:
        """Note that a bucket of a zone has closed: where a local day begins at that instant, its lines are due."""
        day = self._zones[zone].bucket_of(at_ms)
        if not self._on or day <= self._days[zone] or at_ms - self._zones[zone].start_ms(day) >= HOUR_MS:
            return
        self._days[zone] = day
        zones = self.runs.table["zone"]
        own = [slot for slot in self.windows.slots() if zones[slot] == zone]
        self._see(own, at_ms - 1, day - 1)  # what held last evening
        self._see([slot for slot in own if slot in self.windows], at_ms, day)  # and what holds now
        used = self._lines.used
        self._under_way[:used] &= zones[:used] != zone  # what is being forecast now no longer counts
        self._unasked = True

    def _see(self, slots: list[int], at_ms: int, day: int) -> None:
        """Note what is in force for lines with announcements, whether or not anybody said so at that instant."""
        if not slots:
            return
        force = [self.windows.told(slot).at(at_ms) for slot in slots]
        price, promo = np.array([one for one, _ in force], np.float32), np.array([one for _, one in force], np.bool_)
        self.runs.observe(np.array(slots, np.int64), price, np.full(len(slots), day), promo)
        for slot in slots:
            self.windows.settle(slot, at_ms)

    # -- forecasts

    @property
    def due(self) -> bool:
        """Whether some line waits for its forecast and nobody is at it."""
        return self._unasked and self._next() is not None

    def _next(self) -> tuple[int, Slots] | None:
        used = self._lines.used
        for zone, day in enumerate(self._days):
            if day:
                slots = self.runs.untold(used, zone, day)
                slots = slots[~self._under_way[slots]]
                if len(slots):
                    return zone, slots
        self._unasked = False
        return None

    def gather(self, rows: int = REQUEST_ROWS) -> PriceRequest | None:
        """The next request: of one zone, at most so many lines; each must come back through `absorb`, in any order."""
        found = self._next() if self._unasked else None
        if found is None:
            return None
        zone, slots = found[0], found[1][:rows]
        self._under_way[slots] = True
        return self._request(zone, slots)

    def absorb(self, request: PriceRequest) -> None:
        """Note that a request was answered: its lines are due again when the next day begins."""
        self.answered += len(request)
        if request.day != self._days[request.zone]:
            return  # another day has begun meanwhile, and its requests may be under way
        mine = request.slots[self._under_way[request.slots]]
        self._under_way[mine] = False
        self.runs.tell(mine, request.day)

    def all(self) -> Iterator[PriceRequest]:
        """All requests that are due, taken for answered."""
        while (request := self.gather()) is not None:
            self.absorb(request)
            yield request

    def _request(self, zone: int, slots: Slots) -> PriceRequest:
        day, days = self._days[zone], self._zones[zone]
        price, began, promo = self.runs.of(slots, day)
        starts = days.starts_ms(day, HORIZON + 2)
        keys = [self._lines.key(slot) for slot in slots.tolist()]
        return PriceRequest(
            batch=PriceBatch(
                price=price,
                began=began,
                day=np.full(len(slots), day, np.int64),
                promo=promo,
                planned=self._planned(slots, starts),
            ),
            slots=slots,
            keys=[key for key in keys if key is not None],
            currencies=[currency_of(code) for code in self.runs.table["currency"][slots].tolist()],
            zone=zone,
            day=day,
            as_of_ms=starts[0],
            steps=starts[1:-1],
            time_zone=days.name,
            shard=self._shard,
        )

    def _planned(self, slots: Slots, starts: list[int]) -> F32 | None:
        """Prices announced for the days ahead, (B, H), None where there are none."""
        rows = [(row, slot) for row, slot in enumerate(slots.tolist()) if slot in self.windows]
        if not rows:
            return None
        planned = np.full((len(slots), HORIZON), np.nan, np.float32)
        ends = [start - 1 for start in starts[2:]]
        for row, slot in rows:
            planned[row] = self.windows.ahead(slot, starts[1] - 1, ends)
        return planned

    # -- state

    def changes(self) -> Iterator[Record]:
        """Yield what changed since the last call."""
        yield from ((key, None) for key in self._outdated)
        self._outdated.clear()
        yield from self.runs.changes()
        yield from self.windows.changes()
        if self._days != self._days_written:
            self._days_written = list(self._days)
            yield "runs/days", pack({zone.name: day for zone, day in zip(self._zones, self._days, strict=True)})

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record."""
        if not self._on:
            self._outdated.append(key)
        elif key == "runs/days":
            days = unpack(key, value) if value is not None else {}
            self._days = [days.get(zone.name, 0) for zone in self._zones]
            self._days_written, self._unasked = list(self._days), True
        elif key.startswith("runs/windows/"):
            self.windows.restore(key, value)
        else:
            self.runs.restore(key, value)
