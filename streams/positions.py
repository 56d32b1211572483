"""Stock positions: what is on hand, on order, reserved and sold since the count, and how an item is supplied.

In: counts, order flows, catalog placements, accepted triggers; slots from the engine.
Out: available quantity per slot and the supply parameters, as arrays; state records.
Must not know: forecasts, policies, keys, clocks. Rule: available = on hand + on order - reserved - net ordered since
the count + accepted quantities that no later count has shown yet. Quantities are int64 thousandths of a unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from streams.events import Kind, Placement, pack_currency
from streams.state import Record, SnapshotError, Table, pack, unpack

Ints = npt.NDArray[np.int64]
Slots = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]

THOUSAND = 1000

CELLS, CELL_MS = 4, 900_000
"""Net orders of the newest four quarter hours are kept apart: stock and orders are different topics, and a count may
arrive after orders that are younger than it. An hour is twelve times the watermark's own delay."""

ACCEPTED = 3
"""Accepted triggers per series that can be under way at once; a further one is added to the youngest."""

MOST_THOUSANDTHS = 2**31 - 1
"""Minimum orders, packs and maximum stocks are kept in four bytes: two million units, twice what an event may say."""

HAS_LEAD, HAS_MAX = 1, 2
"""Flags of a placement that states a lead time and a maximum stock, because both may be stated as zero."""

MAX_SOURCES = 65_535
"""Distinct names of source locations (an index of two bytes); a further one is counted and the item is reordered."""


class Position(Struct, frozen=True, array_like=True, gc=False):
    """Parts of one series' position in thousandths; `on_order` contains what was accepted and not shown by a count."""

    on_hand: int
    on_order: int
    reserved: int
    ordered_since: int
    counted_ms: int
    lead_known: bool


def thousandths(quantity: float | None) -> int:
    """Units as a whole number of thousandths; unknown is zero.

    Examples
    --------
    >>> thousandths(0.3), thousandths(None)
    (300, 0)
    """
    return 0 if quantity is None else round(quantity * THOUSAND)


class Positions:
    """Stock position and supply parameters of every series that has any.

    Parameters
    ----------
    max_series
        Number of slots; a slot takes about 175 bytes, from its first count or placement on.

    Examples
    --------
    >>> positions, row = Positions(100), np.array([7])
    >>> positions.count(7, on_hand=31, on_order=12, reserved=4, time_ms=1_000_000)
    True
    >>> positions.apply_flows(row, np.array([Kind.ORDER_PLACED]), np.array([5000]), np.array([1_000_001]))
    >>> positions.available(row, as_of_ms=2_000_000).tolist()
    [34000]
    """

    def __init__(self, max_series: int) -> None:
        self.max_series = max_series
        self.sources_refused = 0
        # Two tables: a second of orders touches many rows, and what orders change is 48 bytes a row, the rest 127.
        self.flows = Table(
            "flows", max_series, {"net": (np.int64, ()), "cells": (np.int64, (CELLS,)), "last_ms": (np.int64, ())}
        )
        self.table = Table(
            "positions",
            max_series,
            {
                "counted_ms": (np.int64, ()),  # 0: never counted
                "on_hand": (np.int64, ()),
                "on_order": (np.int64, ()),
                "reserved": (np.int64, ()),
                "accepted": (np.int64, (ACCEPTED,)),  # oldest first, thousandths; 0: none
                "accepted_s": (np.uint32, (ACCEPTED,)),  # whole seconds: 4 bytes are enough until 2106
                "expected_s": (np.uint32, (ACCEPTED,)),
                "placed_ms": (np.int64, ()),
                "lead_mean": (np.float32, ()),
                "lead_p90": (np.float32, ()),
                "moq": (np.int32, ()),
                "pack": (np.int32, ()),
                "max_stock": (np.int32, ()),
                "service_level": (np.float32, ()),  # 0: unknown
                "unit_cost": (np.int64, ()),  # 1/10,000 of the currency, 0: unknown
                "cost_currency": (np.int32, ()),
                "source": (np.uint16, ()),  # index into the names of locations, 0: none
                "flags": (np.uint8, ()),
            },
        )
        self.tables = (self.flows, self.table)
        self._sources: list[str] = [""]
        self._source_of: dict[str, int] = {"": 0}
        self._sources_written = 1

    @property
    def row_bytes(self) -> int:
        """Bytes that one series takes."""
        return self.flows.row_bytes + self.table.row_bytes

    def apply_flows(self, slots: Slots, kind: npt.NDArray[np.integer[Any]], quantity: Ints, time_ms: Ints) -> None:
        """Take orders and cancellations off, or back onto, the counted positions; everything else passes by.

        Returned goods show in the next count. Rows of series without a count, and rows not younger than the count,
        change nothing. The result does not depend on how rows are cut into calls, as long as no slot of a call is
        counted in between.

        Examples
        --------
        >>> positions, both = Positions(9), np.array([3, 3])
        >>> _ = positions.count(3, on_hand=10, time_ms=1000)
        >>> positions.apply_flows(both, np.array([1, 2]), np.array([4000, 1000]), np.array([1001, 1002]))
        >>> positions.available(np.array([3]), 2000).tolist()
        [7000]
        """
        counted = self.table["counted_ms"][slots]
        rows = np.flatnonzero(
            ((kind == Kind.ORDER_PLACED) | (kind == Kind.ORDER_CANCELLED)) & (counted > 0) & (time_ms > counted)
        )
        if len(rows) == 0:
            return
        slot, time = slots[rows].astype(np.int64), time_ms[rows]
        signed = np.where(kind[rows] == Kind.ORDER_PLACED, quantity[rows], -quantity[rows])
        np.add.at(self.flows["net"], slot, signed)
        self._age_cells(slot, time)
        cell = time // CELL_MS
        kept = cell > self.flows["last_ms"][slot] // CELL_MS - CELLS
        flat = self.flows["cells"].reshape(-1)
        np.add.at(flat, slot[kept] * CELLS + cell[kept] % CELLS, signed[kept])
        self.flows.touch(slot)

    def count(self, slot: int, *, on_hand: float, on_order: float = 0.0, reserved: float = 0.0, time_ms: int) -> bool:
        """Replace the position by a count, in units; an older count than the known one is ignored.

        Orders younger than the count stay taken off. What the count shows beyond the position that was expected without
        them pays off accepted triggers, oldest first: the goods came, or are listed as on order.

        Returns
        -------
        Whether the count was taken.

        Examples
        --------
        >>> positions = Positions(9)
        >>> positions.count(3, on_hand=10, time_ms=1000), positions.count(3, on_hand=99, time_ms=999)
        (True, False)
        """
        table = self.table
        if time_ms < table["counted_ms"][slot]:
            return False
        later = self._ordered_after(slot, time_ms)
        new = [thousandths(value) for value in (on_hand, on_order, reserved)]
        if table["counted_ms"][slot] > 0 and table["accepted"][slot].any():
            before = int(table["on_hand"][slot] + table["on_order"][slot] - table["reserved"][slot])
            expected = before - (int(self.flows["net"][slot]) - later)
            self._pay_off(slot, new[0] + new[1] - new[2] - expected, time_ms)
        table["on_hand"][slot], table["on_order"][slot], table["reserved"][slot] = new
        table["counted_ms"][slot] = time_ms
        table.touch(slot)
        if self.flows["net"][slot] != later:
            self.flows["net"][slot] = later
            self.flows.touch(slot)
        return True

    def count_all(self, slots: Slots, on_hand: F64, on_order: F64, reserved: F64, time_ms: Ints) -> Bools:
        """Take many counts, in order; what a nightly feed of the whole shop is.

        Parameters
        ----------
        slots
            One per count; a slot may come more than once.
        on_hand, on_order, reserved
            Units.
        time_ms
            Event time of each.

        Returns
        -------
        Where the available quantity is another now than the position said before, or was unknown.

        Examples
        --------
        >>> positions, row, ten = Positions(9), np.array([3]), np.array([10.0])
        >>> [positions.count_all(row, ten, ten, ten, np.array([at])).tolist() for at in (1000, 2000)]
        [[True], [False]]
        """
        counted = self.table["counted_ms"][slots]
        known = self.available(slots, int(time_ms.max(initial=0)))
        plain = (time_ms >= counted) & (self.flows["last_ms"][slots] <= time_ms)
        plain &= ~self.table["accepted"][slots].any(axis=1)
        plain &= len(np.unique(slots)) == len(slots)
        own, changed = slots[plain], np.ones(len(slots), np.bool_)
        for field, units in (("on_hand", on_hand), ("on_order", on_order), ("reserved", reserved)):
            self.table[field][own] = np.rint(units[plain] * THOUSAND).astype(np.int64)
        self.table["counted_ms"][own] = time_ms[plain]
        self.table.touch(own)
        sold = own[self.flows["net"][own] != 0]
        self.flows["net"][sold] = 0
        self.flows.touch(sold)
        for i in np.flatnonzero(~plain).tolist():
            found = {"on_hand": float(on_hand[i]), "on_order": float(on_order[i]), "reserved": float(reserved[i])}
            changed[i] = self.count(int(slots[i]), **found, time_ms=int(time_ms[i]))
        changed[plain] = (self.available(own, int(time_ms.max(initial=0))) != known[plain]) | (counted[plain] == 0)
        return changed

    def place(
        self,
        slot: int,
        placement: Placement | None,
        *,
        unit_cost: float | None = None,
        cost_currency: str | None = None,
        time_ms: int,
    ) -> bool:
        """Take over how an item is supplied at the slot's location; None, or an absent field, means not known.

        Parameters
        ----------
        unit_cost, cost_currency
            Cost of one unit and its ISO code, which the item has for all locations.

        Returns
        -------
        Whether it was taken: an older description than the known one is not.

        Examples
        --------
        >>> positions = Positions(9)
        >>> positions.place(3, None, unit_cost=2.5, cost_currency="EUR", time_ms=1000)
        True
        >>> int(positions.table["unit_cost"][3])
        25000
        """
        table = self.table
        if time_ms < table["placed_ms"][slot]:
            return False
        lead = None if placement is None else placement.lead_time_days
        table["placed_ms"][slot] = time_ms
        table["lead_mean"][slot] = 0.0 if lead is None else max(lead.mean, 0.0)
        table["lead_p90"][slot] = 0.0 if lead is None else max(lead.p90, lead.mean, 0.0)
        for field, stated in (("moq", "moq"), ("pack", "pack_size"), ("max_stock", "max_stock")):
            quantity = thousandths(getattr(placement, stated, None))
            table[field][slot] = min(max(quantity, 0), MOST_THOUSANDTHS)
        table["service_level"][slot] = 0.0 if placement is None else placement.service_level or 0.0
        table["unit_cost"][slot] = 0 if unit_cost is None else round(max(unit_cost, 0.0) * 10_000)
        table["cost_currency"][slot] = pack_currency(cost_currency) if cost_currency else 0
        table["source"][slot] = self._source(None if placement is None else placement.source_location)
        has_max = placement is not None and placement.max_stock is not None
        table["flags"][slot] = (HAS_LEAD if lead is not None else 0) | (HAS_MAX if has_max else 0)
        table.touch(slot)
        return True

    def accept(self, slot: int, quantity: int, time_ms: int, expected_ms: int) -> None:
        """Count an accepted trigger's quantity (thousandths) as on order until a later count shows it or `expected_ms`.

        Examples
        --------
        >>> positions = Positions(9)
        >>> _ = positions.count(3, on_hand=10, time_ms=1000)
        >>> positions.accept(3, 84_000, time_ms=2000, expected_ms=90_000)
        >>> [positions.available(np.array([3]), now).tolist() for now in (3000, 90_000)]
        [[94000], [10000]]
        """
        amounts, since, until = (self.table[name][slot] for name in ("accepted", "accepted_s", "expected_s"))
        live = np.flatnonzero((amounts > 0) & (until.astype(np.int64) * 1000 > time_ms))
        for column in (amounts, since, until):
            column[: len(live)] = column[live]
            column[len(live) :] = 0
        at = min(len(live), ACCEPTED - 1)
        amounts[at] += quantity
        since[at], until[at] = time_ms // 1000, max(int(until[at]), expected_ms // 1000)
        self.table.touch(slot)

    def available(self, slots: Slots, as_of_ms: int) -> Ints:
        """Available quantity per slot at a time, int64 thousandths; may be negative.

        Examples
        --------
        >>> Positions(9).available(np.array([3]), 0).tolist()
        [0]
        """
        table = self.table
        counted = table["on_hand"][slots] + table["on_order"][slots] - table["reserved"][slots]
        return np.asarray(counted - self.flows["net"][slots] + self.accepted(slots, as_of_ms), np.int64)

    def accepted(self, slots: Slots, as_of_ms: int) -> Ints:
        """Accepted quantities still expected at a time, int64 thousandths.

        Examples
        --------
        >>> Positions(9).accepted(np.array([3]), 0).tolist()
        [0]
        """
        live = self.table["expected_s"][slots].astype(np.int64) * 1000 > as_of_ms
        return np.asarray((self.table["accepted"][slots] * live).sum(axis=-1), np.int64)

    def parts(self, slot: int, as_of_ms: int) -> Position:
        """What the available quantity of one slot consists of.

        Examples
        --------
        >>> Positions(9).parts(3, 0).on_hand
        0
        """
        table = self.table
        return Position(
            on_hand=int(table["on_hand"][slot]),
            on_order=int(table["on_order"][slot]) + int(self.accepted(np.array([slot]), as_of_ms)[0]),
            reserved=int(table["reserved"][slot]),
            ordered_since=int(self.flows["net"][slot]),
            counted_ms=int(table["counted_ms"][slot]),
            lead_known=bool(table["flags"][slot] & HAS_LEAD),
        )

    def source(self, slot: int) -> str:
        """Name of the location that the slot is supplied from, or "" for a supplier.

        Examples
        --------
        >>> Positions(9).source(3)
        ''
        """
        return self._sources[int(self.table["source"][slot])]

    def retire(self, slot: int) -> None:
        """Forget everything about a slot, so that it can be used again.

        Examples
        --------
        >>> positions = Positions(9)
        >>> _ = positions.count(3, on_hand=10, time_ms=1000)
        >>> positions.retire(3)
        >>> positions.available(np.array([3]), 2000).tolist()
        [0]
        """
        for table in (self.table, self.flows):
            table.clear(slot)

    def changes(self) -> Iterator[Record]:
        """Yield the records that changed since the last call: ``sources/…``, ``positions/…``, ``flows/…``.

        Examples
        --------
        >>> positions = Positions(9)
        >>> _ = positions.count(3, on_hand=10, time_ms=1000)
        >>> [key for key, value in positions.changes()]
        ['positions/+1']
        """
        for index in range(self._sources_written, len(self._sources)):
            yield f"sources/{index}", pack(self._sources[index])
        self._sources_written = len(self._sources)
        yield from self.table.changes()
        yield from self.flows.changes()

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record; records of a table come in the order of `streams.state.restore_order`.

        Raises
        ------
        SnapshotError
            If the record is not one of this module's.

        Examples
        --------
        >>> first, second = Positions(9), Positions(9)
        >>> _ = first.count(3, on_hand=10, time_ms=1000)
        >>> for key, value in first.changes():
        ...     second.restore(key, value)
        >>> second.available(np.array([3]), 2000).tolist()
        [10000]
        """
        prefix, _, index = key.partition("/")
        if prefix == "positions":
            self.table.restore(key, value)
        elif prefix == "flows":
            self.flows.restore(key, value)
        elif prefix == "sources" and value is not None:
            self._restore_source(int(index), unpack(key, value))
        else:
            raise SnapshotError(f"state record {key!r} is no record of stock positions")

    def _restore_source(self, index: int, name: str) -> None:
        self._sources.extend([""] * (index + 1 - len(self._sources)))
        self._sources[index] = name
        self._source_of[name] = index
        self._sources_written = len(self._sources)

    def _source(self, name: str | None) -> int:
        index = self._source_of.get(name or "")
        if index is not None:
            return index
        if len(self._sources) > MAX_SOURCES:
            self.sources_refused += 1
            return 0
        self._source_of[name or ""] = len(self._sources)
        self._sources.append(name or "")
        return len(self._sources) - 1

    def _age_cells(self, slot: Ints, time: Ints) -> None:
        """Move each slot's ring of quarter hours on to its newest order, clearing the cells that are used anew."""
        unique = np.unique(slot)
        old = self.flows["last_ms"][unique] // CELL_MS
        np.maximum.at(self.flows["last_ms"], slot, time)
        new = self.flows["last_ms"][unique] // CELL_MS
        place = np.arange(CELLS)
        stored = old[:, None] - (old[:, None] - place) % CELLS  # (U, CELLS): the quarter hour each cell holds
        wanted = new[:, None] - (new[:, None] - place) % CELLS
        self.flows["cells"][unique] *= stored == wanted

    def _ordered_after(self, slot: int, time_ms: int) -> int:
        """Net orders younger than a count that arrives now; exact to the quarter hour when they came before it."""
        last = int(self.flows["last_ms"][slot])
        if last <= time_ms:
            return 0
        newest = last // CELL_MS
        first = max((time_ms + CELL_MS // 2) // CELL_MS, newest - CELLS + 1)
        return int(sum(self.flows["cells"][slot][cell % CELLS] for cell in range(first, newest + 1)))

    def _pay_off(self, slot: int, shown: int, time_ms: int) -> None:
        amounts, since = self.table["accepted"][slot], self.table["accepted_s"][slot]
        for index in range(ACCEPTED):
            if amounts[index] > 0 and int(since[index]) * 1000 < time_ms and shown > 0:
                paid = min(shown, int(amounts[index]))
                amounts[index] -= paid
                shown -= paid
