"""Price lines: which slot a line has, what it remembers, and the plain prices learned by the column.

In: columns of published prices.
Out: the rows that are out of the ordinary, left to `price_alerts` to judge one by one.
Must not know: kinds of faults, alerts, forecasts. Rule: learning a row in bulk or through `load` and `store` leaves the
same bytes, so results do not depend on how rows are split over calls.

A line takes 216 bytes in arrays: its last 30 accepted prices, up to nine prices of a level that may be accepted, and
what is open. A price that is above zero, in the line's currency, in its range and without anything open is plain.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.key_index import KeyIndex
from streams.price_rules import MATERIAL, RING, SLIP, SMALLEST, PriceAlertConfig
from streams.state import BLOCK_ROWS, Fields, Record, Table, pack, unpack

LineKey = tuple[str, str, str]
_SEPARATOR = "\x1f"  # no SKU or location holds a control character
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_BULK_ROWS = 12  # a column pass costs about as much as twelve prices one by one


def _fields(pending: int) -> Fields:
    return {
        "ring": (
            np.float32,
            (RING,),
        ),  # accepted prices, the newest at (count - 1) % RING; unused places repeat the first
        "pending": (np.float32, (pending,)),  # prices of the level that waits, oldest first
        "low": (np.float32, ()),
        "high": (np.float32, ()),
        "count": (np.uint32, ()),  # accepted prices since the level was taken over
        "currency": (np.uint32, ()),
        "time_ms": (np.int64, ()),  # newest event time
        "announced": (np.float32, ()),  # price that was announced with a window, 0 = none
        "from_ms": (np.int64, ()),
        "until_ms": (np.int64, ()),  # -1 = for good
        "flagged": (np.float32, ()),  # newest price of the open alert, 0 = none
        "strays": (np.uint8, ()),  # prices since the level that waits was last seen
        "interrupted": (np.uint8, ()),  # 1 = other prices came between those of the level that waits
        "run": (np.uint8, ()),  # how many of `pending` are used
        "foreign": (np.uint8, ()),  # consecutive prices in another currency
        "open": (np.uint8, ()),  # kind of the open alert plus one, 0 = none
        "form": (np.uint8, ()),  # its form
        "faults": (np.uint16, ()),  # faulty prices since it opened
        "opened": (np.uint32, ()),  # alerts opened so far
    }


@dataclass(frozen=True, slots=True)
class PriceRows:
    """Published prices of one shard in order of arrival, one list or array per field.

    Attributes
    ----------
    sku, location, channel
        The price line.
    price
        As published, may be zero or negative.
    currency
        ISO 4217 code.
    promo
        Announced as a promotion.
    time_ms, tick_ms
        Event time, and the shell's clock on arrival.
    event_id
        As in the event.
    from_ms, until_ms
        Announced window, -1 where absent.

    Examples
    --------
    >>> rows = PriceRows.of([("a", "default", "web", 9.99, "GBP", False, 1000, 1000, "e1", -1, -1)])
    >>> len(rows), rows.price.tolist()
    (1, [9.99])
    """

    sku: Sequence[str]
    location: Sequence[str]
    channel: Sequence[str]
    price: F64
    currency: Sequence[str]
    promo: Bools
    time_ms: I64
    tick_ms: I64
    event_id: Sequence[str]
    from_ms: I64
    until_ms: I64

    def __len__(self) -> int:
        return len(self.price)

    @classmethod
    def of(cls, rows: Sequence[tuple[str, str, str, float, str, bool, int, int, str, int, int]]) -> PriceRows:
        """Build columns from one tuple per price, in the order of the attributes."""
        columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [()] * 11
        sku, location, channel, price, currency, promo, time, tick, event_id, start, end = columns
        whole = [np.array(column, np.int64) for column in (time, tick, start, end)]
        return cls(
            sku, location, channel, np.array(price, np.float64), currency, np.array(promo, np.bool_),
            whole[0], whole[1], event_id, whole[2], whole[3],
        )  # fmt: skip


@dataclass(slots=True)
class Line:
    """What one line remembers, as plain values; `PriceLines.load` reads it and `PriceLines.store` writes it back."""

    ring: list[float]
    pending: list[float]
    count: int
    currency: int
    time_ms: int
    announced: float
    from_ms: int
    until_ms: int
    flagged: float
    strays: int
    interrupted: int
    foreign: int
    open: int
    form: int
    faults: int
    opened: int

    def accepted(self) -> list[float]:
        """Give the accepted prices, oldest first.

        Examples
        --------
        >>> line = Line([0.0] * RING, [], 0, 0, 0, 0.0, 0, 0, 0.0, 0, 0, 0, 0, 0, 0, 0)
        >>> line.learn(2.0); line.learn(3.0); line.accepted()
        [2.0, 3.0]
        """
        if self.count <= RING:
            return self.ring[: self.count]
        head = self.count % RING
        return self.ring[head:] + self.ring[:head]

    def learn(self, price: float) -> None:
        """Accept one price."""
        single = float(np.float32(price))
        if self.count:
            self.ring[self.count % RING] = single
        else:
            self.ring = [single] * RING
        self.count += 1

    def take_level(self, prices: Sequence[float]) -> None:
        """Forget the range and begin a new one with these prices.

        Examples
        --------
        >>> line = Line([1.0] * RING, [2.0, 3.0], 7, 0, 0, 0.0, 0, 0, 0.0, 0, 0, 0, 0, 0, 0, 0)
        >>> line.take_level(line.pending); line.accepted(), line.pending
        ([2.0, 3.0], [])
        """
        self.count = 0
        for price in prices:
            self.learn(price)
        self.pending, self.strays, self.interrupted = [], 0, 0


class PriceLines:
    """Slots and memory of up to `max_lines` price lines.

    Parameters
    ----------
    config
        Thresholds.
    max_lines
        Lines beyond are refused and counted.

    Examples
    --------
    >>> lines = PriceLines(PriceAlertConfig(), 100)
    >>> rows = PriceRows.of([("a", "default", "web", 9.99, "GBP", False, t, t, "e", -1, -1) for t in (1, 2, 3)])
    >>> lines.slots(rows).tolist(), lines.key(0)
    ([0, 0, 0], ('a', 'default', 'web'))
    """

    def __init__(self, config: PriceAlertConfig, max_lines: int) -> None:
        self.max_lines = max_lines
        self._texts: list[str | None] = []  # one string a line, where a tuple and a dict would take 200 bytes more
        self.refused = 0
        self._table = Table("lines/rows", max_lines, _fields(config.accept_after))
        self._reach = config.reaches()
        # where a price can no longer be plain: below this share of the lowest it may be below cost, above this multiple
        # of the highest two digits may be swapped (a line with few prices has no range to speak of)
        hard = np.minimum(self._reach, config.far)
        self._floor = np.maximum(1.0 / hard, MATERIAL)
        self._roof = np.where(np.arange(RING + 1) < config.min_accepted, hard, np.minimum(hard, SLIP))
        self._deep = config.deep
        self._index = KeyIndex()
        self._free: list[int] | None = None  # a heap, worked out when the first line is added or let go
        self._renamed: set[int] = set()
        self._chains: dict[str, list[int]] | None = (
            None  # built when a first item is retired: most shops never pay for it
        )

    def __len__(self) -> int:
        return len(self._index)

    @property
    def used(self) -> int:
        """Slots up to here may hold a line."""
        return len(self._texts)

    def column(self, name: str, slots: I64) -> npt.NDArray[Any]:
        """What one array says of some lines."""
        return self._table[name][slots]

    @property
    def row_bytes(self) -> int:
        """Bytes of one line in the arrays; its key comes on top."""
        return self._table.row_bytes

    def slots(self, rows: PriceRows) -> I64:
        """Find the slot of each row, giving new lines one; -1 for lines beyond the maximum. Shape (N,)."""
        keys = map(_SEPARATOR.join, zip(rows.sku, rows.location, rows.channel, strict=True))
        slots = self._index.find(keys).astype(np.int64)
        for row in np.flatnonzero(slots < 0).tolist():
            slots[row] = self._add((rows.sku[row], rows.location[row], rows.channel[row]))
        return slots

    def key(self, slot: int) -> LineKey | None:
        """SKU, location and channel of a line, None where the slot is free."""
        text = self._texts[slot]
        if text is None:
            return None
        sku, location, channel = text.split(_SEPARATOR, 2)
        return sku, location, channel

    def of_sku(self, sku: str) -> list[int]:
        """List the slots of an item's lines."""
        return list(self._chained().get(sku, ()))

    def release(self, slot: int) -> None:
        """Forget a line, so that its slot can be used again."""
        key = self.key(slot)
        if key is None:
            return
        chains = self._chained()
        chains[key[0]].remove(slot)
        if not chains[key[0]]:
            del chains[key[0]]
        self._index.drop(_SEPARATOR.join(key))
        heapq.heappush(self._free_slots(), slot)
        self._texts[slot] = None
        self._table.clear(slot)
        self._renamed.add(slot // BLOCK_ROWS)

    def load(self, slot: int) -> Line:
        """Read a line's memory as plain values."""
        arrays = self._table.arrays
        run = int(arrays["run"][slot])
        return Line(
            ring=arrays["ring"][slot].tolist(),
            pending=arrays["pending"][slot, :run].tolist(),
            **{name: arrays[name][slot].item() for name in _SCALARS},
        )

    def store(self, slot: int, line: Line) -> None:
        """Write a line's memory back."""
        arrays = self._table.arrays
        for name in _SCALARS:
            arrays[name][slot] = getattr(line, name)
        run = len(line.pending)
        arrays["ring"][slot] = line.ring
        arrays["pending"][slot] = 0.0
        arrays["pending"][slot, :run] = line.pending
        arrays["run"][slot] = run
        arrays["low"][slot] = min(line.ring)
        arrays["high"][slot] = max(line.ring)
        self._table.touch(slot)

    def learn_plain(self, rows: PriceRows, slots: I64, codes: I64, part: I64) -> I64:
        """Learn the plain rows among `part`, each of another line, and return the others.

        Parameters
        ----------
        rows
            The call's rows.
        slots, codes
            Slot and packed currency of every row.
        part
            Row numbers to look at; no line twice.
        """
        if len(part) < _BULK_ROWS:
            return part
        at, price = slots[part], rows.price[part]
        arrays = self._table.arrays
        count = np.minimum(arrays["count"][at], RING)
        low, high = arrays["low"][at].astype(np.float64), arrays["high"][at].astype(np.float64)
        usual = (
            (price >= SMALLEST) & (count > 0) & (codes[part] == arrays["currency"][at])
            & (rows.time_ms[part] >= arrays["time_ms"][at])
            & (arrays["open"][at] == 0) & (arrays["run"][at] == 0) & (arrays["foreign"][at] == 0)
            & (arrays["announced"][at] == 0) & (rows.from_ms[part] <= rows.time_ms[part]) & (rows.until_ms[part] < 0)
            & (price <= high * self._roof[count])
        )  # fmt: skip
        promo = rows.promo[part]
        learned = usual & ~promo & (price >= low * self._floor[count])
        # the median lies at or below `high`, so a promotion above high / deep is not beyond reason
        seen = learned | (usual & promo & (price * self._deep >= high))
        arrays["time_ms"][at[seen]] = rows.time_ms[part[seen]]
        self._learn(at[learned], price[learned])
        self._table.touch(at[seen])
        rest: I64 = part[~seen]
        return rest

    def changes(self) -> Iterator[Record]:
        """Yield records of the lines that changed since the last call."""
        yield from self._table.changes()
        for block in sorted(self._renamed):
            first = block * BLOCK_ROWS
            names = [(slot, self.key(slot)) for slot in range(first, min(first + BLOCK_ROWS, len(self._texts)))]
            named = [(slot, key) for slot, key in names if key is not None]
            yield f"lines/names/{block}", pack(named) if named else None
        self._renamed.clear()

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record of `changes`."""
        if key.startswith("lines/rows/"):
            self._table.restore(key, value)
            return
        first = int(key.rpartition("/")[2]) * BLOCK_ROWS
        for slot in range(first, min(first + BLOCK_ROWS, len(self._texts))):
            if (old := self._texts[slot]) is not None:
                self._index.drop(old)
                self._texts[slot] = None
        named = unpack(key, value) if value is not None else []
        texts = [_SEPARATOR.join(name) for _, name in named]
        slots = [slot for slot, _ in named]
        self._texts += [None] * (max(slots, default=-1) + 1 - len(self._texts))
        for slot, text in zip(slots, texts, strict=True):
            self._texts[slot] = text
        self._index.put_all(texts, np.array(slots, np.int64))
        while self._texts and self._texts[-1] is None:
            self._texts.pop()
        self._free, self._chains = None, None

    def _chained(self) -> dict[str, list[int]]:
        if self._chains is None:
            self._chains = {}
            for slot in range(len(self._texts)):
                if (key := self.key(slot)) is not None:
                    self._chains.setdefault(key[0], []).append(slot)
        return self._chains

    def _free_slots(self) -> list[int]:
        if self._free is None:
            self._free = [slot for slot, name in enumerate(self._texts) if name is None]  # ascending: a heap
        return self._free

    def _add(self, key: LineKey) -> int:
        known = self._index.get(_SEPARATOR.join(key))
        if known >= 0:  # a line that is new in this call, for the second time
            return known
        free = self._free_slots()
        if not free and len(self._texts) >= self.max_lines:
            self.refused += 1
            return -1
        slot = heapq.heappop(free) if free else len(self._texts)
        self._name(slot, key)
        self._renamed.add(slot // BLOCK_ROWS)
        if self._chains is not None:
            self._chains.setdefault(key[0], []).append(slot)
        return slot

    def _name(self, slot: int, key: LineKey) -> None:
        while len(self._texts) <= slot:
            self._texts.append(None)
        self._texts[slot] = text = _SEPARATOR.join(key)
        self._index.put(text, slot)

    def _learn(self, at: I64, price: F64) -> None:
        """Accept one price for each of these lines, all of which know at least one."""
        arrays = self._table.arrays
        count = arrays["count"][at]
        ring, flat = arrays["ring"], arrays["ring"].reshape(-1)
        place = at * RING + count % RING
        single = price.astype(np.float32)
        # most prices repeat the line's range: only where one leaves it, or replaces its end, is it looked for anew
        old = flat[place]
        flat[place] = single
        arrays["count"][at] = count + 1
        low, high = arrays["low"][at], arrays["high"][at]
        moved = (single < low) | (single > high) | ((old != single) & ((old == low) | (old == high)))
        ends = at[moved]
        arrays["low"][ends] = ring[ends].min(axis=1)
        arrays["high"][ends] = ring[ends].max(axis=1)


_SCALARS = (
    "count",
    "currency",
    "time_ms",
    "announced",
    "from_ms",
    "until_ms",
    "flagged",
    "strays",
    "interrupted",
    "foreign",
    "open",
    "form",
    "faults",
    "opened",
)


def rounds(slots: I64) -> Iterator[I64]:
    """Split rows so that no part holds a line twice: the first row of each line, then the second of each, …

    Parameters
    ----------
    slots
        Slot of every row, below 0 where it has none; such rows are in no part.

    Examples
    --------
    >>> [part.tolist() for part in rounds(np.array([5, 7, 5, -1, 5]))]
    [[0, 1], [2], [4]]
    """
    rows = np.flatnonzero(slots >= 0)
    by_line = rows[np.argsort(slots[rows], kind="stable")]
    line = slots[by_line]
    first = np.flatnonzero(np.append([True], line[1:] != line[:-1])[: len(line)])
    rank = np.arange(len(line)) - np.repeat(first, np.diff(np.append(first, len(line))))
    ordered = by_line[np.lexsort((by_line, rank))]
    start = 0
    for size in np.bincount(rank).tolist():
        yield ordered[start : start + size]
        start += size
