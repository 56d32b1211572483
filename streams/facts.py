"""Facts into state: catalog, prices, stock, calendar, acknowledgements and commands, in order of arrival.

In: fact events of an accepted batch. Out: changed state; candidates and triggers that follow at once.
Must not know: time zones, forecasts' insides, Kafka. Rule: facts are never late; of one fact the newest event time
wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from sys import intern
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from streams.buckets import Buckets
from streams.calendar import Holidays, day_number
from streams.catalog import FOREVER_MS, Catalog, Item, ListedPrices
from streams.due import Due
from streams.events import EventBatch, Kind, concat, epoch_ms
from streams.fields import DEFAULT_LOCATION
from streams.outputs import Outputs
from streams.positions import Positions
from streams.price_alerts import LineContext, PriceAlerts
from streams.price_forecasting import PriceForecasting
from streams.price_lines import PriceRows
from streams.refresh import Refresh
from streams.replenishment import Replenishment
from streams.series import SeriesMap
from streams.triggers import Trigger

Ints = npt.NDArray[np.integer[Any]]
Slots = Ints
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Shard(Protocol):
    """What facts change: the parts of one engine, and what it does with whole series."""

    series: SeriesMap
    buckets: Buckets
    catalog: Catalog
    listed: ListedPrices
    holidays: Holidays
    refresh: Refresh
    positions: Positions
    prices: PriceAlerts
    price_forecasts: PriceForecasting
    replenishment: Replenishment
    due: Due

    def add_series(self, sku: str, location: str, time_ms: int) -> int:
        """Slot of a series, made where it is new; -1 where the maximum is reached."""

    def remove_series(self, slot: int) -> None:
        """Free the slot of a series."""

    def touch(self, slots: Ints) -> None:
        """Note that forecasts or decisions of series are out of date."""

    def publish(self, triggers: list[Trigger], out: Outputs) -> None:
        """Put trigger revisions among the outputs."""


class Facts:
    """Applies the facts of a batch to one engine.

    Parameters
    ----------
    engine
        Whose state is changed.
    """

    def __init__(self, engine: Shard) -> None:
        self._engine = engine
        self._pending: list[tuple[int, Any]] = []
        self._next = 0
        self._batch = concat([])
        self.series_changed = False
        self._counts: dict[int, Any] = {}  # row -> stock count of this batch
        self._handlers: dict[Kind, Callable[[Any, int, Outputs], None]] = {
            Kind.ITEM_DESCRIBED: self._describe,
            Kind.ITEM_RETIRED: self._retire,
            Kind.DAY_DESCRIBED: self._day,
            Kind.ACK: self._ack,
            Kind.PROMOTE: self._command,
            Kind.ROLLBACK: self._command,
            Kind.SNOOZE: self._command,
            Kind.ACKNOWLEDGE: self._command,
        }

    def begin(self, batch: EventBatch) -> None:
        """Take a batch's facts."""
        self._batch, self._pending, self._next = batch, batch.facts, 0
        self.series_changed = False
        self._counts.clear()

    def barriers(self, stop: int) -> Iterator[int]:
        """Rows before ``stop`` of facts that change what everything after them means."""
        for index, event in self._pending[self._next :]:
            if index >= stop:
                return
            if event.event_kind in self._handlers:
                yield index

    def take(self, stop: int) -> tuple[list[int], list[tuple[int, Any]]]:
        """Rows of stock counts, and prices, before ``stop``; what no decision reads yet is passed over."""
        counts: list[int] = []
        prices: list[tuple[int, Any]] = []
        while self._next < len(self._pending) and self._pending[self._next][0] < stop:
            index, event = self._pending[self._next]
            self._next += 1
            if event.event_kind == Kind.PRICE_SET:
                prices.append((index, event))
            elif event.event_kind == Kind.STOCK_COUNTED:
                counts.append(index)
                self._counts[index] = event
        return counts, prices

    def apply_one(self, index: int, out: Outputs) -> None:
        """Apply the fact of a row that `barriers` named."""
        event = self._pending[self._next][1]
        self._next += 1
        out.row = self._row(index)
        self._handlers[event.event_kind](event, index, out)

    # -- prices

    def prices(self, rows: list[tuple[int, Any]], out: Outputs) -> None:
        """Judge prices, and list those of known series."""
        batch, engine = self._batch, self._engine
        if not rows:
            return
        at = np.array([index for index, _ in rows], np.int64)
        events = [event for _, event in rows]
        time_ms = batch.time_ms[at]
        slots = engine.series.find([e.sku for e in events], [e.location for e in events]).tolist()
        table = PriceRows(
            # A line keeps its key: of a known series the same string, not one more.
            sku=[engine.series.skus[s] or e.sku if s >= 0 else e.sku for s, e in zip(slots, events, strict=True)],
            location=[intern(e.location) for e in events],
            channel=[intern(e.channel) for e in events],
            price=np.array([e.price for e in events], np.float64),
            currency=[e.currency for e in events],
            promo=np.array([e.promo for e in events], np.bool_),
            time_ms=time_ms,
            tick_ms=batch.tick_ms[at],
            event_id=[e.event_id for e in events],
            from_ms=np.array([_ms(e.effective_from) for e in events], np.int64),
            until_ms=np.array([_ms(e.effective_until) for e in events], np.int64),
        )
        judged = engine.prices.judge(table, self._about)
        engine.price_forecasts.learn(table, judged)
        if found := judged.candidates:
            row_of = dict(zip(zip(table.sku, table.event_id, strict=True), batch.row[at].tolist(), strict=True))
            out.candidates.extend((row_of[candidate.sku, candidate.event_id], candidate) for candidate in found)
        for slot, event, ms in zip(slots, events, time_ms.tolist(), strict=True):
            until_ms = FOREVER_MS if event.effective_until is None else epoch_ms(event.effective_until)
            listing = {"time_ms": ms, "promo": event.promo, "until_ms": until_ms}
            if (from_ms := _ms(event.effective_from)) > ms:
                if slot >= 0 and engine.listed.plan(slot, event.channel, event.price, from_ms=from_ms, **listing):
                    engine.touch(np.array([slot]))
                continue
            if slot < 0:
                engine.listed.hold((event.sku, event.location), event.channel, event.price, **listing)
            elif engine.listed.set(slot, event.channel, event.price, **listing):
                engine.touch(np.array([slot]))

    def _about(self, sku: str, location: str) -> LineContext:
        engine = self._engine
        item = engine.catalog.items.get(sku)
        slot = engine.series.slot(sku, location)
        return LineContext(
            unit_cost=item.unit_cost if item is not None else None,
            cost_currency=item.cost_currency if item is not None else "",
            units_per_day=engine.refresh.per_day(slot) if slot >= 0 else None,
        )

    # -- stock and acknowledgements

    def stock(self, rows: Ints, slots: Ints) -> None:
        """Take stock counts of rows, each of another slot, into positions and buckets."""
        engine, batch = self._engine, self._batch
        events = [self._counts[row] for row in rows.tolist()]
        time_ms = batch.time_ms[rows]
        on_hand = np.array([e.on_hand for e in events], np.float64)
        on_order = np.array([e.on_order for e in events], np.float64)
        reserved = np.array([e.reserved for e in events], np.float64)
        newest = time_ms >= engine.positions.table["counted_ms"][slots]
        engine.touch(slots[engine.positions.count_all(slots, on_hand, on_order, reserved, time_ms)])
        engine.buckets.count_stock(slots[newest], time_ms[newest], on_hand[newest] <= 0)

    def _ack(self, event: Any, index: int, out: Outputs) -> None:
        time_ms = self._time_ms(index)
        triggers = self._engine.replenishment.ack(event.idempotency_key, event.status, time_ms)
        for trigger in triggers:
            self._engine.due.leave(trigger.slot)  # what was accepted is not in the stock that the forecast was made at
        self._engine.publish(triggers, out)

    # -- catalog and calendar

    def _describe(self, event: Any, index: int, out: Outputs) -> None:
        engine, time_ms = self._engine, self._time_ms(index)
        item = Item(
            described_ms=time_ms,
            title=event.title,
            # Thousands of items share these: one string each.
            category=intern(event.category or ""),
            brand=intern(event.brand or ""),
            unit_cost=event.unit_cost,
            cost_currency=intern(event.cost_currency or ""),
            supplier=intern(event.supplier_id or ""),
            replaces=event.replaces or "",
        )
        if not engine.catalog.describe(event.sku, item):
            return
        group = engine.catalog.group(event.sku)
        for location, placement in event.locations.items():
            slot = self._series(event.sku, location, time_ms)
            if slot >= 0:
                engine.positions.place(
                    slot, placement, unit_cost=event.unit_cost, cost_currency=event.cost_currency, time_ms=time_ms
                )
        for slot in engine.series.of_sku(event.sku):
            if engine.series.key(slot)[1] not in event.locations:
                engine.positions.place(
                    slot, None, unit_cost=event.unit_cost, cost_currency=event.cost_currency, time_ms=time_ms
                )
            engine.refresh.assign(slot, group)
            engine.touch(np.array([slot]))

    def _retire(self, event: Any, index: int, out: Outputs) -> None:
        engine, time_ms = self._engine, self._time_ms(index)
        item = engine.catalog.items.get(event.sku)
        if item is not None and item.described_ms > time_ms:
            return
        engine.price_forecasts.forget(engine.prices.lines.of_sku(event.sku))
        expired = engine.prices.retire(event.sku, time_ms, self._tick_ms(index))
        out.candidates.extend((out.row, candidate) for candidate in expired)
        for slot in engine.series.of_sku(event.sku):
            engine.publish(engine.replenishment.retire(slot, time_ms), out)
            engine.remove_series(slot)
        engine.catalog.retire(event.sku)
        engine.listed.forget(event.sku)
        self.series_changed = True

    def _day(self, event: Any, index: int, out: Outputs) -> None:
        day = day_number(event.date)
        if not event.name and not event.kind:  # what the deletion of a day on the compacted topic decodes to
            self._engine.holidays.forget(day, event.location or "")
            return
        self._engine.holidays.describe(
            day, event.location or "", event.name, event.kind, is_open=event.open, time_ms=self._time_ms(index)
        )

    # -- commands: what concerns alerts goes to the coordinator with the candidates, what concerns models to the shell

    def _command(self, event: Any, index: int, out: Outputs) -> None:
        out.candidates.append((out.row, event))

    def _series(self, sku: str, location: str, time_ms: int) -> int:
        known = len(self._engine.series)
        slot = self._engine.add_series(sku, location or DEFAULT_LOCATION, time_ms)
        self.series_changed |= len(self._engine.series) != known
        return slot

    def _row(self, index: int) -> int:
        return int(self._batch.row[index])

    def _time_ms(self, index: int) -> int:
        return int(self._batch.time_ms[index])

    def _tick_ms(self, index: int) -> int:
        return int(self._batch.tick_ms[index])


def _ms(moment: Any) -> int:
    return -1 if moment is None else epoch_ms(moment)


def phases(slots: Slots, flow: Bools, count: Bools) -> Iterator[tuple[I64, I64]]:
    """Rows of flows, and of the stock counts after them, such that no series is counted twice in one phase."""
    counted = slots[count]
    if not len(counted) or (len(np.unique(counted)) == len(counted) and not np.isin(counted, slots[flow]).any()):
        yield np.flatnonzero(flow), np.flatnonzero(count)
        return
    order = np.argsort(slots, kind="stable")
    before: I64 = np.cumsum(count[order]) - count[order]  # counts before each row, in the order of slots
    fresh = np.flatnonzero(np.diff(slots[order], prepend=-2))
    phase = np.empty(len(slots), np.int64)
    phase[order] = before - np.repeat(before[fresh], np.diff(fresh, append=len(slots)))
    for p in range(int(phase[flow | count].max()) + 1):
        own = phase == p
        yield np.flatnonzero(flow & own), np.flatnonzero(count & own)
