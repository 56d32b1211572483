"""Panes: per series a ring of buckets by channels, summed in integers while open, kept in floats when closed.

In: slots, bucket numbers and amounts of accepted flow events; facts that hold for a bucket.
Out: history per series as arrays; what changed as records.
Must not know: Kafka, clocks, forecasts. Rule: every accepted unit lies in exactly one bucket, and sums do not depend on
the order or chunking of events, because they are made in integers until the bucket is final.

A bucket's life: open -> closed (the watermark passed its end) -> final (lateness over). Open and closed buckets have a
column in the integer sums; a closed one has its floats in the ring too, which follow every correction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.state import BLOCK_ROWS, Record, SnapshotError, Table, pack, unpack

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
Slots = npt.NDArray[np.integer[Any]]

UNIT = 1000
"""Quantities are summed in thousandths of a selling unit."""
MONEY = 10_000
"""Money is summed in 1/10,000 of the base currency."""
REVENUE_LIMIT = 1 << 53
"""Revenue of one event is held to this many 1/10,000 so that a bucket's sum cannot overflow (2**10 such events fit)."""

RING: dict[str, npt.DTypeLike] = {
    "units": np.float32,  # ordered, in selling units
    "cancelled": np.float32,  # cancelled orders, in selling units
    "revenue": np.float32,  # quantity x price of the orders, in the base currency
    "price": np.float32,  # listed price when the bucket closed, 0 = unknown
    "views": np.uint16,  # this and the next three are held at 65,535
    "orders": np.uint16,
    "carts": np.uint16,
    "sessions": np.uint16,  # distinct sessions that viewed or carted the item
    "shelf": np.uint8,  # PROMO and SHUT, then the stock share: read through `flags_of` and `stock_of`
}
"""Channels of the ring and their types: 25 bytes a bucket."""
PROMO = 1
SHUT = 2
_STOCK_SHIFT, IN_STOCK = 2, 63
"""Stock share of a bucket in six bits: 0 = unknown, 1 = out of stock throughout … 63 = in stock throughout."""


def flags_of(shelf: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Bits `PROMO` and `SHUT` of the ring's ``shelf``, same shape."""
    return shelf & np.uint8(PROMO | SHUT)


def stock_of(shelf: npt.NDArray[np.uint8]) -> F32:
    """Share of the counts of each bucket that found stock, 0 to 1, NaN where unknown, float32, same shape.

    Examples
    --------
    >>> stock_of(np.array([0, 1 << 2, 63 << 2 | PROMO], np.uint8)).tolist()
    [nan, 0.0, 1.0]
    """
    code = (shelf >> _STOCK_SHIFT).astype(np.float32)
    share: F32 = np.where(code == 0, np.float32(np.nan), (code - 1) / np.float32(IN_STOCK - 1)).astype(np.float32)
    return share


OPEN: dict[str, npt.DTypeLike] = {
    "units": np.int64,
    "cancelled": np.int64,
    "revenue": np.int64,
    "orders": np.int32,
    "views": np.int32,
    "carts": np.int32,
    "sessions": np.int32,
    "counts": np.uint16,  # stock counts seen in the bucket
    "outs": np.uint16,  # of these, with nothing on hand
    "promo": np.uint8,  # a promotion was on at some time
}
"""Sums of a bucket that is not final yet."""


@dataclass(frozen=True, slots=True)
class PaneConfig:
    """Sizes of the panes.

    Attributes
    ----------
    buckets
        Buckets in the ring: 84 days are twelve weeks, so that every weekday has twelve values; 336 hours are two weeks.
    weeks
        Weeks of demand kept besides: two years and what a year-ago comparison needs.
    open_buckets
        Buckets that may be open or closed but not final at once: lateness, bound and belief ahead span
        less than 9 hours, which is three days (yesterday, today, tomorrow) or eleven hours.
    """

    buckets: int = 84
    weeks: int = 104
    open_buckets: int = 3


class Panes:
    """Rings and open sums of all series.

    Examples
    --------
    >>> panes = Panes(10, PaneConfig())
    >>> one = np.array([3])
    >>> panes.add("units", one, np.array([15_000]), np.array([2 * UNIT]))
    >>> panes.close(one, 15_000)
    >>> panes.demand(one, 15_001)[0, -2:].tolist()
    [0.0, 2.0]
    """

    def __init__(self, max_series: int, config: PaneConfig) -> None:
        self.config = config
        self.max_series = max_series
        self.ring: dict[str, npt.NDArray[Any]] = {
            name: np.zeros((max_series, config.buckets), dtype) for name, dtype in RING.items()
        }
        self.open = Table("open", max_series, {n: (dtype, (config.open_buckets,)) for n, dtype in OPEN.items()})
        self.weeks = Table("weeks", max_series, {"demand": (np.float32, (config.weeks,))})
        self._closed_touched: dict[tuple[int, int], int] = {}  # (block, column of the ring) -> bucket, -1 = cleared
        self._cancelled_touched: set[tuple[int, int]] = set()  # the same, where cancellations alone changed

    @property
    def row_bytes(self) -> int:
        """Bytes that one series takes here."""
        ring = sum(np.dtype(dtype).itemsize for dtype in RING.values()) * self.config.buckets
        return ring + self.open.row_bytes + self.weeks.row_bytes

    # -- flows

    def add(self, channel: str, slots: Slots, buckets: I64, amounts: npt.NDArray[Any]) -> None:
        """Add amounts to the open sums of a channel, all arrays of shape (N,)."""
        array = self.open[channel]
        width = self.config.open_buckets
        # add.at on the flattened array: on a sliced view it is ten times dearer.
        np.add.at(array.reshape(-1), slots.astype(np.int64) * width + buckets % width, amounts.astype(array.dtype))
        self.open.touch(slots)

    def correct(self, slot: int, bucket: int, week: int, cancelled: int) -> None:
        """Cancel units (thousandths) in a final bucket of the ring."""
        before = self._bucket_demand(slot, bucket)
        self.ring["cancelled"][slot, bucket % self.config.buckets] += np.float32(cancelled / UNIT)
        self._add_week(np.array([slot]), week, self._bucket_demand(slot, bucket) - before)
        self._cancelled_touched.add((slot // BLOCK_ROWS, bucket % self.config.buckets))

    def _bucket_demand(self, slot: int, bucket: int) -> np.float32:
        column = bucket % self.config.buckets
        return np.float32(max(np.float32(0), self.ring["units"][slot, column] - self.ring["cancelled"][slot, column]))

    # -- life of a bucket

    def close(self, slots: Slots, bucket: int, price: F32 | None = None, *, shut: bool = False) -> None:
        """Write a bucket's floats into the ring; call it once at close, `derive` on every later correction."""
        column = bucket % self.config.buckets
        self.ring["price"][slots, column] = 0 if price is None else price
        carried = self.ring["shelf"][slots, (bucket - 1) % self.config.buckets] >> _STOCK_SHIFT
        self.ring["shelf"][slots, column] = carried << _STOCK_SHIFT | np.uint8(SHUT if shut else 0)
        self.derive(slots, bucket)
        self._touch_closed(slots, bucket)

    def derive(self, slots: Slots, bucket: int) -> None:
        """Write the floats of a bucket that is closed but not final anew from its integer sums.

        No record is written: until the bucket is final, whoever restores derives it again.
        """
        column, at = bucket % self.config.buckets, bucket % self.config.open_buckets
        for channel, scale in (("units", UNIT), ("cancelled", UNIT), ("revenue", MONEY)):
            self.ring[channel][slots, column] = self.open[channel][slots, at] / scale
        for channel in ("orders", "views", "carts", "sessions"):
            self.ring[channel][slots, column] = np.clip(self.open[channel][slots, at], 0, 65_535)
        counts, outs = self.open["counts"][slots, at], self.open["outs"][slots, at]
        share = IN_STOCK - np.rint((IN_STOCK - 1) * outs / np.maximum(counts, 1)).astype(np.uint8)
        before = self.ring["shelf"][slots, column]
        stock = np.where(counts > 0, share, before >> _STOCK_SHIFT).astype(np.uint8)
        promo = (self.open["promo"][slots, at] > 0).astype(np.uint8) * np.uint8(PROMO)
        self.ring["shelf"][slots, column] = stock << _STOCK_SHIFT | (before & np.uint8(SHUT)) | promo

    def finish(self, slots: Slots, bucket: int, week: int) -> F32:
        """Make a bucket final: free its integer sums, add it to its week; its demand, float32 (N,), comes back."""
        column, at = bucket % self.config.buckets, bucket % self.config.open_buckets
        demand = np.maximum(self.ring["units"][slots, column] - self.ring["cancelled"][slots, column], np.float32(0))
        used = np.zeros(len(slots), np.bool_)
        for array in self.open.arrays.values():
            used |= array[slots, at] != 0
        for array in self.open.arrays.values():
            array[slots[used], at] = 0
        self.open.touch(slots[used])
        self._touch_closed(slots[used], bucket)
        sold = demand > 0
        self._add_week(slots[sold], week, demand[sold])
        out: F32 = demand.astype(np.float32)
        return out

    def start_week(self, slots: Slots, week: int) -> None:
        """Empty the column of a week that begins."""
        column = week % self.config.weeks
        used = slots[self.weeks["demand"][slots, column] != 0]
        self.weeks["demand"][used, column] = 0
        self.weeks.touch(used)

    def _add_week(self, slots: Slots, week: int, demand: Any) -> None:
        self.weeks["demand"][slots, week % self.config.weeks] += demand
        self.weeks.touch(slots)

    # -- reading

    def channel(self, name: str, slots: Slots, open_bucket: int) -> npt.NDArray[Any]:
        """A channel's closed buckets, oldest first, shape (B, T)."""
        at = open_bucket % self.config.buckets
        rows = self.ring[name][slots]
        return np.concatenate([rows[:, at:], rows[:, :at]], axis=1)

    def demand(self, slots: Slots, open_bucket: int) -> F32:
        """Demand of the closed buckets, max(0, ordered - cancelled), oldest first, float32 (B, T)."""
        gross = self.channel("units", slots, open_bucket) - self.channel("cancelled", slots, open_bucket)
        net: F32 = np.maximum(gross, np.float32(0))
        return net

    def week_demand(self, slots: Slots, week: int) -> F32:
        """Demand of the whole weeks before a week, oldest first, float32 (B, weeks - 1)."""
        size = self.config.weeks
        demand: F32 = self.weeks["demand"][slots][:, (week + np.arange(1, size)) % size]
        return demand

    def observed(self, slots: Slots, bucket: int) -> F32:
        """Demand seen so far in a bucket that is not final, float32 (B,)."""
        at = bucket % self.config.open_buckets
        net = self.open["units"][slots, at] - self.open["cancelled"][slots, at]
        seen: F32 = (np.maximum(net, 0) / UNIT).astype(np.float32)
        return seen

    # -- slots and state

    def clear(self, slot: int) -> None:
        """Zero a slot's rows, so that another series can use it."""
        for array in self.ring.values():
            array[slot] = 0
        self.open.clear(slot)
        self.weeks.clear(slot)
        self._closed_touched |= {(slot // BLOCK_ROWS, column): -1 for column in range(self.config.buckets)}

    def _touch_closed(self, slots: Slots, bucket: int) -> None:
        for block in np.unique(slots // BLOCK_ROWS).tolist():
            self._closed_touched[int(block), bucket % self.config.buckets] = bucket

    def changes(self, used: int) -> Iterator[Record]:
        """Yield records of what changed: ``open/…``, ``weeks/…`` and ``closed/<block>/<column of the ring>``.

        Cancellations have ``cancelled/<block>/<column>``: they go on in final buckets, here and there, and are few.
        """
        yield from self.open.changes()
        yield from self.weeks.changes()
        # Keyed by the ring's column, so that a bucket leaving the ring is replaced by the one that takes its place.
        for (block, column), bucket in self._closed_touched.items():
            rows = slice(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, used))
            payload = {name: array[rows, column].tobytes() for name, array in self.ring.items() if name != "cancelled"}
            yield f"closed/{block}/{column}", pack(payload | {"bucket": bucket})
        for block, column in sorted(self._cancelled_touched.union(self._closed_touched)):
            rows = slice(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, used))
            cancelled = self.ring["cancelled"][rows, column]
            (places,) = np.nonzero(cancelled)
            some = [places.astype(np.uint16).tobytes(), cancelled[places].tobytes()]
            yield f"cancelled/{block}/{column}", pack(some) if len(places) else None
        self._closed_touched.clear()
        self._cancelled_touched.clear()

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record."""
        name, _, rest = key.partition("/")
        if name == "open":
            self.open.restore(key, value)
        elif name == "weeks":
            self.weeks.restore(key, value)
        elif value is not None:
            block, _, column = rest.partition("/")
            self._restore_column(key, int(block) * BLOCK_ROWS, int(column), unpack(key, value))

    def _restore_column(self, key: str, start: int, column: int, payload: Any) -> None:
        """Take over a block of one column of the ring: its cancellations, or everything else."""
        if isinstance(payload, list):
            places = np.frombuffer(payload[0], np.uint16).astype(np.int64) + start
            self._check(key, int(places.max(initial=0)) + 1)
            self.ring["cancelled"][places, column] = np.frombuffer(payload[1], np.float32)
            return
        for channel, array in self.ring.items():
            if channel != "cancelled":
                values = np.frombuffer(payload[channel], array.dtype)
                self._check(key, start + len(values))
                array[start : start + len(values), column] = values

    def _check(self, key: str, rows: int) -> None:
        if rows > self.max_series:
            raise SnapshotError(f"state record {key!r} lies beyond the maximum of {self.max_series} series")
