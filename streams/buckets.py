"""Buckets of all zones: flow events into panes, and when buckets close and turn final.

In: accepted flow events with their slots; the watermark. Out: sums in the panes; what is due next.
Must not know: forecasts, prices, Kafka. Rule: everything due at or before the watermark happens before the next event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from streams.calendar import Width, Zone, week_of
from streams.dedupe import Dedupe, DedupeConfig
from streams.events import EventBatch, Kind
from streams.panes import REVENUE_LIMIT, UNIT, Panes
from streams.state import Record, Table, pack, unpack

I64 = npt.NDArray[np.int64]
Slots = npt.NDArray[np.integer[Any]]
UNSET = -(1 << 40)  # a bucket before all others: the zone has seen no time yet


@dataclass(slots=True)
class ZoneState:
    """Where the buckets of one zone stand: ``open`` is the first that is not closed, ``final`` the first not final."""

    zone: Zone
    open: int = UNSET
    final: int = UNSET
    week: int = UNSET


@dataclass(frozen=True, slots=True)
class Due:
    """Something that the watermark has made due: a bucket of a zone closes, or turns final."""

    at_ms: int
    what: Literal["close", "final"]
    zone: int


class Buckets:
    """Zones, their frontiers, and the panes they govern.

    Parameters
    ----------
    width, time_zone, location_zones
        Width of a bucket, the shop's zone, and zones of locations that have their own.
    lateness_ms
        How long a closed bucket still takes events.
    rates
        Units of the base currency per unit of a currency, by packed currency code.
    max_series, panes
        Sizes.
    """

    def __init__(
        self,
        width: Width,
        time_zone: str,
        location_zones: Mapping[str, str],
        lateness_ms: int,
        rates: Mapping[int, float],
        panes: Panes,
    ) -> None:
        names = list(dict.fromkeys([time_zone, *location_zones.values()]))
        self.zones = [ZoneState(Zone(name, width)) for name in names]
        self.width = width
        self.panes = panes
        self._zone_of = {location: names.index(name) for location, name in location_zones.items()}
        self._lateness_ms = lateness_ms
        self._rates = dict(rates)
        self.series = Table(
            "facts",
            panes.max_series,
            {"first": (np.int32, ()), "zone": (np.uint8, ()), "life": (np.uint8, ())},  # life: owners before this one
        )
        self._sessions = Dedupe(DedupeConfig(lateness_ms=lateness_ms), "sessions")
        self.unconverted = 0

    # -- series

    def zone_of(self, location: str) -> int:
        """Index of the zone of a location."""
        return self._zone_of.get(location, 0)

    def begin(self, slot: int, location: str, time_ms: int) -> None:
        """Give a new series its zone and its first bucket."""
        zone = self.zone_of(location)
        self.series["zone"][slot] = zone
        self.series["first"][slot] = self.zones[zone].zone.bucket_of(time_ms)
        self.series.touch(slot)

    def _reach_back(self, slots: Slots, buckets: I64) -> None:
        """Let series begin with the earliest bucket that something of theirs fell in, in whatever order it came."""
        early = buckets < self.series["first"][slots]
        if early.any():
            np.minimum.at(self.series["first"], slots[early], buckets[early])
            self.series.touch(slots[early])

    def begun(self, slots: Slots, bucket: int) -> npt.NDArray[np.bool_]:
        """Tell which series had begun by a bucket."""
        begun: npt.NDArray[np.bool_] = self.series["first"][slots] <= bucket
        return begun

    def in_zone(self, slots: Slots, zone: int) -> Slots:
        """Those of the slots that lie in a zone."""
        return slots if len(self.zones) == 1 else slots[self.series["zone"][slots] == zone]

    # -- flows

    def start(self, watermark_ms: int) -> None:
        """Set the frontiers once the first time is known."""
        for state in self.zones:
            if state.open == UNSET:
                state.open = state.zone.bucket_of(watermark_ms)
                state.final = state.zone.bucket_of(watermark_ms - self._lateness_ms)
                state.week = self._week(state, state.final)

    def bucket(self, slots: Slots, time_ms: I64) -> I64:
        """Bucket of each event in its series' zone, int64 (N,)."""
        if len(self.zones) == 1:
            return self.zones[0].zone.bucket(time_ms)
        out = np.zeros(len(time_ms), np.int64)
        zones = self.series["zone"][slots]
        for i, state in enumerate(self.zones):
            own = zones == i
            if own.any():
                out[own] = state.zone.bucket(time_ms[own])
        return out

    def apply(self, batch: EventBatch, rows: I64, slots: Slots, watermark_ms: int) -> None:
        """Add flow events to their buckets.

        Parameters
        ----------
        batch, rows
            The events, and which of them, (N,).
        slots
            Slot of each, (N,).
        watermark_ms
            The watermark before them: it says how long sessions are remembered.
        """
        kind = batch.kind[rows]
        buckets = self.bucket(slots, batch.time_ms[rows])
        placed = kind == Kind.ORDER_PLACED
        if placed.any():
            self._order(batch, rows[placed], slots[placed], buckets[placed])
        cancelled = kind == Kind.ORDER_CANCELLED
        if cancelled.any():
            buckets[cancelled] = self._cancel(batch, rows[cancelled], slots[cancelled], buckets[cancelled])
        clicks = kind >= Kind.ITEM_VIEWED
        if clicks.any():
            self._click(batch, rows[clicks], slots[clicks], buckets[clicks], watermark_ms)
        changed = kind != Kind.ORDER_RETURNED
        self._reach_back(slots[changed], buckets[changed])
        self._rederive(slots[changed], buckets[changed])

    def _order(self, batch: EventBatch, rows: I64, slots: Slots, buckets: I64) -> None:
        quantity = batch.quantity[rows]
        self.panes.add("units", slots, buckets, quantity)
        self.panes.add("orders", slots, buckets, np.ones(len(slots), np.int64))
        # In floats first: a million units at a billion each is beyond int64.
        revenue = quantity * (batch.price[rows] / UNIT) * self._to_base(batch.currency[rows])
        self.panes.add("revenue", slots, buckets, np.rint(np.minimum(revenue, REVENUE_LIMIT)).astype(np.int64))

    def _to_base(self, currency: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """Units of the base currency per unit of each currency; 0 where no rate is known, which is counted."""
        codes, which = np.unique(currency, return_inverse=True)
        rates = np.array([self._rates.get(int(code), 0.0) for code in codes])
        factors: npt.NDArray[np.float64] = rates[which]
        self.unconverted += int((factors == 0).sum())
        return factors

    def _cancel(self, batch: EventBatch, rows: I64, slots: Slots, buckets: I64) -> I64:
        """Cancel in the bucket of the order that is named while it is in the ring, else in the event's own.

        The buckets whose sums changed come back.
        """
        original, quantity = batch.original_ms[rows], batch.quantity[rows]
        target, own = buckets.copy(), np.ones(len(rows), np.bool_)
        named = original >= 0
        target[named] = self.bucket(slots[named], original[named])
        for i in np.flatnonzero(named).tolist():
            state, slot, bucket = self.zones[int(self.series["zone"][slots[i]])], int(slots[i]), int(target[i])
            in_ring = bucket >= max(state.open - self.panes.config.buckets, int(self.series["first"][slot]))
            if bucket >= state.final and bucket <= buckets[i]:
                continue
            target[i] = buckets[i]
            if bucket < state.final and in_ring:
                own[i] = False
                self.panes.correct(slot, bucket, self._week(state, bucket), int(quantity[i]))
        self.panes.add("cancelled", slots[own], target[own], quantity[own])
        return target

    def _click(self, batch: EventBatch, rows: I64, slots: Slots, buckets: I64, watermark_ms: int) -> None:
        kind = batch.kind[rows]
        for code, channel, sign in (
            (Kind.ITEM_VIEWED, "views", 1),
            (Kind.CART_ADDED, "carts", 1),
            (Kind.CART_REMOVED, "carts", -1),
        ):
            own = kind == code
            if own.any():
                self.panes.add(channel, slots[own], buckets[own], np.full(int(own.sum()), sign, np.int64))
        life = self.series["life"][slots].astype(np.uint64)  # sessions of the slot's last owner are not this one's
        places = slots.astype(np.uint64) << np.uint64(40) | life << np.uint64(32) | buckets.astype(np.uint64)
        newest_ms = int(batch.time_ms[rows].max()) + self.width.nominal_ms  # a session counts until its bucket is final
        new = self._sessions.first(batch.session[rows] ^ (places * _ODD), watermark_ms, newest_ms)
        self.panes.add("sessions", slots[new], buckets[new], np.ones(int(new.sum()), np.int64))

    def count_stock(self, slots: Slots, time_ms: I64, out: npt.NDArray[np.bool_]) -> None:
        """Note stock counts in their buckets; of a bucket that is final already they say nothing any more."""
        bucket = self.bucket(slots, time_ms)
        first = np.array([state.final for state in self.zones], np.int64)[self.series["zone"][slots]]
        live = (first != UNSET) & (bucket >= first) & (bucket < first + self.panes.config.open_buckets)
        own, bucket = slots[live], bucket[live]
        self._reach_back(own, bucket)
        self.panes.add("counts", own, bucket, np.ones(len(own), np.int64))
        self.panes.add("outs", own, bucket, out[live].astype(np.int64))
        self._rederive(own, bucket)

    def _rederive(self, slots: Slots, buckets: I64) -> None:
        """Bring the ring up to date where closed buckets changed."""
        for i, state in enumerate(self.zones):
            late = buckets < state.open
            if len(self.zones) > 1:
                late &= self.series["zone"][slots] == i
            if late.any():
                for bucket in np.unique(buckets[late]).tolist():
                    if bucket >= state.final:
                        self.panes.derive(np.unique(slots[late & (buckets == bucket)]), bucket)

    # -- what is due

    def next_due(self) -> Due | None:
        """The earliest closing or finishing of a bucket that has not happened yet."""
        best: Due | None = None
        for i, state in enumerate(self.zones):
            if state.open == UNSET:
                continue
            final = Due(state.zone.start_ms(state.final + 1) + self._lateness_ms, "final", i)
            for due in (final, Due(state.zone.start_ms(state.open + 1), "close", i)):
                if best is None or due.at_ms < best.at_ms:
                    best = due
        return best

    def close(
        self, zone: int, live: Slots, prices: Callable[[Slots], npt.NDArray[np.float32]], *, shut: bool
    ) -> tuple[Slots, int]:
        """Close the open bucket of a zone; the series it held and its number come back."""
        state = self.zones[zone]
        bucket = state.open
        own = self.in_zone(live, zone)
        own = own[self.begun(own, bucket)]
        self.panes.close(own, bucket, prices(own), shut=shut)
        state.open += 1
        return own, bucket

    def finish(self, zone: int, live: Slots) -> tuple[Slots, int, npt.NDArray[np.float32]]:
        """Make the oldest bucket of a zone final; its series, number and demand come back."""
        state = self.zones[zone]
        bucket = state.final
        own = self.in_zone(live, zone)
        week = self._week(state, bucket)
        if week != state.week:
            self.panes.start_week(own, week)
            state.week = week
        own = own[self.begun(own, bucket)]
        demand = self.panes.finish(own, bucket, week)
        state.final += 1
        return own, bucket, demand

    def weeks(self, slots: Slots, state: ZoneState) -> npt.NDArray[np.float32]:
        """Demand of the weeks before that of the open bucket, oldest first, (B, weeks - 1).

        NaN before a series began, and where a week has days that are not final yet.
        """
        week = self._week(state, state.open)
        demand = self.panes.week_demand(slots, week)
        if unfinished := week - self._week(state, state.final):
            demand[:, -unfinished:] = np.nan
        first, which = np.unique(self.series["first"][slots], return_inverse=True)
        begun = np.array([self._week(state, int(bucket)) for bucket in first], np.int64)[which]
        demand[np.arange(-demand.shape[1], 0)[None, :] + week < begun[:, None]] = np.nan
        return demand

    def _week(self, state: ZoneState, bucket: int) -> int:
        return week_of(state.zone.day_of(bucket))

    # -- state

    def clear(self, slot: int) -> None:
        """Zero a slot's rows."""
        self.panes.clear(slot)
        life = (int(self.series["life"][slot]) + 1) % 256
        self.series.clear(slot)
        self.series["life"][slot] = life

    def changes(self, used: int, watermark_ms: int) -> Iterator[Record]:
        """Yield what changed since the last call."""
        zones = [[state.open, state.final, state.week] for state in self.zones]
        yield "clock/zones", pack({"zones": zones, "unconverted": self.unconverted})
        yield from self.series.changes()
        yield from self.panes.changes(used)
        yield from self._sessions.changes(watermark_ms)

    def discard_changes(self) -> None:
        """Forget what `changes` would yield of unbounded size."""
        self._sessions.discard_changes()

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record."""
        name = key.partition("/")[0]
        if name == "facts":
            self.series.restore(key, value)
        elif name == "sessions":
            self._sessions.restore(key, value)
        elif name == "clock" and value is not None:
            state = unpack(key, value)
            for zone, (opened, final, week) in zip(self.zones, state["zones"], strict=True):
                zone.open, zone.final, zone.week = opened, final, week
            self.unconverted = state["unconverted"]
        else:
            self.panes.restore(key, value)

    def settle(self, used: int) -> None:
        """Derive buckets that are closed but not final, once all records are taken over."""
        for i, state in enumerate(self.zones):
            own = self.in_zone(np.arange(used), i)
            for bucket in range(state.final, state.open):
                self.panes.derive(own, bucket)


_ODD = np.uint64(0x9E3779B97F4A7C15)
