"""What panes must hold, counted anew from raw records: slowly, with dictionaries, and with nothing of the engine's.

In: raw orders of one shard in order of offset, its dead letters, items that were retired. Out: thousandths of units
ordered and cancelled, per series and bucket.
Must not know: engines, panes, Kafka. Rule: what records alone cannot tell is said to be unsure, and never guessed.

Three things cannot be told. Whether an id that one item uses again for a later time is a repeat depends on how long
the engine has remembered it. Where a cancellation belongs that names an order older than anything known of its series
depends on what else began the series. And which of an item's orders came before it was retired depends on how topics
were merged: of such a series any end of its history may be what is left.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

HOUR_MS = 3_600_000
UNIX_DAY = dt.date(1970, 1, 1).toordinal()

REMEMBERED_MS = 24 * HOUR_MS
"""Event time for which ids are kept here: longer than any event may be late or ahead, and still counted."""

Series = tuple[str, str]
Amounts = Counter[tuple[int, int]]
"""(bucket, 0 ordered or 1 cancelled) -> thousandths of a unit."""


class Order(msgspec.Struct, gc=False):
    """An order, cancellation or return, as far as it is counted."""

    type: Literal["order_placed", "order_cancelled", "order_returned"]
    event_id: str
    event_time: int | dt.datetime
    sku: str
    location: str = "default"
    quantity: float = 0.0
    original_time: int | dt.datetime | None = None


_ORDER: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)


@dataclass(frozen=True)
class Rules:
    """What the engine promises of time, as far as counting needs it.

    Attributes
    ----------
    hourly
        Whether buckets are hours; otherwise local days.
    time_zone, location_time_zones
        Where a day ends.
    ring
        Closed buckets that are kept.
    lateness_ms, ahead_ms
        How far behind the watermark, and how far before it, an event still counts.
    """

    hourly: bool
    time_zone: str
    location_time_zones: Mapping[str, str]
    ring: int
    lateness_ms: int
    ahead_ms: int


class Calendar:
    """Buckets of one time zone.

    Examples
    --------
    >>> london = Calendar("Europe/London", hourly=False)
    >>> london.bucket(1_720_047_600_000), london.name(19_908)  # 3 July 2024, 23:00 UTC: the fourth begins
    (19908, '2024-07-04')
    """

    def __init__(self, zone: str, *, hourly: bool) -> None:
        self._zone, self._hourly = ZoneInfo(zone), hourly
        offset = dt.datetime(2020, 1, 1, tzinfo=self._zone).utcoffset() or dt.timedelta(0)
        self._part_ms = int(offset.total_seconds() * 1000) % HOUR_MS

    def bucket(self, time_ms: int) -> int:
        """Number of the bucket of an instant: the local date, or the hour, counted from 1970."""
        if self._hourly:
            return (time_ms + self._part_ms) // HOUR_MS
        return dt.datetime.fromtimestamp(time_ms / 1000, self._zone).date().toordinal() - UNIX_DAY

    def name(self, bucket: int) -> str:
        """A bucket for people: the date, or the instant at which the hour begins."""
        if self._hourly:
            moment = dt.datetime.fromtimestamp((bucket * HOUR_MS - self._part_ms) / 1000, dt.UTC)
            return f"{moment:%Y-%m-%dT%H:%MZ}"
        return dt.date.fromordinal(bucket + UNIX_DAY).isoformat()


@dataclass(slots=True)
class Row:
    """What is known of one series.

    Attributes
    ----------
    amounts
        Sums of its buckets.
    first
        Earliest bucket of its orders so far.
    unsure
        Cells that cannot be told.
    either
        Buckets of cancellations of which only the sum over all of them can be told.
    history
        Its orders and their times; kept for series of which any end may be left, else None.
    """

    amounts: Amounts = field(default_factory=Counter)
    first: int = 1 << 40
    unsure: set[tuple[int, int]] = field(default_factory=set)
    either: set[int] = field(default_factory=set)
    history: list[tuple[Order, int]] | None = None


class Recount:
    """Counts the orders of one shard.

    Parameters
    ----------
    rules
        Of the engine.
    letters
        How often each value is a dead letter of this shard.
    parked
        Values that are neither counted nor given up yet.
    retired
        SKUs that were retired at some time.
    all_cut
        Whether any series may have lost its beginning: some were refused, and slots were freed.

    Attributes
    ----------
    rows
        What each series must hold.
    lost
        Offsets of records that are no events, and no dead letters either.
    counted, repeats, left_out
        Records: added, seen before, dead letters and parked ones.
    first_ms
        Event time of the first that counted.

    Examples
    --------
    >>> order = b'{"type":"order_placed","event_id":"e1","event_time":1720047600000,"sku":"TEA","quantity":2}'
    >>> counting = Recount(Rules(False, "Europe/London", {}, 84, 7_200_000, 21_900_000), Counter(), Counter(), set())
    >>> for offset in range(2):
    ...     counting.take(offset, order)
    >>> dict(counting.rows["TEA", "default"].amounts), counting.repeats
    ({(19908, 0): 2000}, 1)
    """

    def __init__(
        self,
        rules: Rules,
        letters: Counter[bytes | None],
        parked: Counter[bytes | None],
        retired: Collection[str],
        *,
        all_cut: bool = False,
    ) -> None:
        self.rows: dict[Series, Row] = {}
        self.lost: list[int] = []
        self.counted = self.repeats = self.left_out = 0
        self.first_ms: int | None = None
        self._rules, self._retired, self._all_cut = rules, retired, all_cut
        self._left_out = letters + parked
        self._calendars: dict[str, Calendar] = {}
        self._young: dict[tuple[str, str], int] = {}
        self._old: dict[tuple[str, str], int] = {}
        self._turn_ms = 0

    def zone(self, location: str) -> str:
        """The time zone of a location."""
        return self._rules.location_time_zones.get(location, self._rules.time_zone)

    def calendar(self, location: str) -> Calendar:
        """The buckets of a location."""
        zone = self.zone(location)
        if zone not in self._calendars:
            self._calendars[zone] = Calendar(zone, hourly=self._rules.hourly)
        return self._calendars[zone]

    def take(self, offset: int, value: bytes | None) -> None:
        """Count one record."""
        if self._left_out[value] > 0:
            self._left_out[value] -= 1
            self.left_out += 1
            return
        try:
            order = _ORDER.decode(value or b"")
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.lost.append(offset)
            return
        time_ms = _ms(order.event_time)
        if self.first_ms is None:
            self.first_ms = time_ms
        row = self._row(order)
        before_ms = self._before(order, time_ms)
        if before_ms is not None:
            self.repeats += 1
            if time_ms > before_ms and order.type != "order_returned":
                row.unsure.add((self.calendar(order.location).bucket(time_ms), _WHAT[order.type]))
            return
        self.counted += 1
        if row.history is not None:
            row.history.append((order, time_ms))
        self._count(order, time_ms, row)

    def ends(self, row: Row) -> Iterator[Row]:
        """What a series would hold of each end of its history, from nothing to all of it."""
        history = row.history or []
        for start in range(len(history), -1, -1):
            end = Row()
            for order, time_ms in history[start:]:
                self._count(order, time_ms, end)
            yield end

    def _before(self, order: Order, time_ms: int) -> int | None:
        """Event time that came with this id before, None where it is new."""
        if time_ms > self._turn_ms + REMEMBERED_MS:
            self._old, self._young, self._turn_ms = self._young, {}, time_ms
        name = (order.sku, order.event_id)
        before_ms = self._young.get(name, self._old.get(name))
        if before_ms is None:
            self._young[name] = time_ms
        return before_ms

    def _row(self, order: Order) -> Row:
        series = (order.sku, order.location)
        if (row := self.rows.get(series)) is None:
            cut = self._all_cut or order.sku in self._retired
            row = self.rows[series] = Row(history=[] if cut else None)
        return row

    def _count(self, order: Order, time_ms: int, row: Row) -> None:
        if order.type == "order_returned":
            return
        bucket, milli = self.calendar(order.location).bucket(time_ms), round(order.quantity * 1000)
        if order.type == "order_placed":
            row.amounts[bucket, 0] += milli
        else:
            target = bucket
            if order.original_time is not None:
                target = self._target(order, time_ms, _ms(order.original_time), bucket, row)
            row.amounts[target, 1] += milli
        row.first = min(row.first, bucket)

    def _target(self, order: Order, time_ms: int, original_ms: int, own: int, row: Row) -> int:
        """Bucket that a cancellation counts in: that of its order, unless it has left the ring or never was in it."""
        rules, calendar = self._rules, self.calendar(order.location)
        target = calendar.bucket(original_ms)
        if target >= own:
            return own
        opens = calendar.bucket(time_ms - rules.ahead_ms), calendar.bucket(time_ms + rules.lateness_ms)
        if target >= max(opens[1] - rules.ring, row.first):
            return target
        if target < opens[0] - rules.ring:
            return own
        row.either |= {target, own}
        return own


_WHAT = {"order_placed": 0, "order_cancelled": 1}


def _ms(moment: int | dt.datetime) -> int:
    if isinstance(moment, int):
        return moment
    return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(milliseconds=1)
