"""Runs of prices: of each price line the newest stretches of days on one price, which are all that forecasts read.

In: the price that is in force for a line on a local day. Out: runs as arrays; state records.
Must not know: events, alerts, time zones, models. Rule: a day's price is the last one in force on it, so a fault that
is mended by the evening leaves no trace; an older day changes nothing.

Rows are those of the price lines (`streams.price_lines`). A run takes six bytes, a line with 16 of them 104.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from models.price import RUNS, is_price
from streams.state import Record, Table

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Slots = npt.NDArray[np.integer[Any]]

LAST_DAY = 65_535
"""Days are counted in 16 bits: up to the year 2149."""

_LETTER = ord("A")


class PriceRuns:
    """The newest runs of up to `max_lines` price lines.

    Examples
    --------
    >>> runs = PriceRuns(10)
    >>> for price, day in ((9.5, 100), (7.5, 103), (9.5, 107), (0.01, 109), (9.5, 109)):
    ...     runs.observe(np.array([3]), np.array([price], np.float32), np.array([day]), np.array([False]))
    >>> price, began, promo = runs.of(np.array([3]), 110)
    >>> price[0, :4].tolist(), began[0, :4].tolist()
    ([9.5, 7.5, 9.5, nan], [3.0, 7.0, 10.0, nan])
    """

    def __init__(self, max_lines: int) -> None:
        self.table = Table(
            "runs/rows",
            max_lines,
            {
                "price": (np.float32, (RUNS,)),  # the newest first
                "day": (np.uint16, (RUNS,)),  # local day on which each began
                "promo": (np.uint16, ()),  # a bit per run, the newest is the lowest: it began as a promotion
                "count": (np.uint8, ()),  # runs that are known
                "currency": (np.uint16, ()),  # as `code_of`
                "zone": (np.uint8, ()),  # index of the zone in which its days begin
            },
        )
        # On a table of its own: each line is forecast each day, while its runs hardly change.
        self.told = Table("runs/told", max_lines, {"told": (np.uint16, ())})  # local day it was last forecast on

    @property
    def row_bytes(self) -> int:
        """Bytes of one line."""
        return self.table.row_bytes + self.told.row_bytes

    def observe(self, slots: Slots, price: F32, day: I64, promo: Bools) -> None:
        """Note prices in force on days, of lines none of which comes twice.

        Parameters
        ----------
        slots
            Rows, (N,).
        price, day, promo
            Price, local day and whether it is announced as a promotion, (N,). What is no price is passed over.
        """
        t = self.table
        day = np.minimum(day, LAST_DAY)
        count, newest, begun = t["count"][slots], t["price"][slots, 0], t["day"][slots, 0]
        news = is_price(price) & ((count == 0) | ((price != newest) & (day >= begun)))
        if not news.any():
            return
        at, price, day, promo, count = slots[news], price[news], day[news], promo[news], count[news]
        today = (count > 0) & (begun[news] == day)
        back = today & (count > 1) & (t["price"][at, 1] == price)  # today began and ended on the price of yesterday
        self._take_back(at[back])
        self._begin(at[~today], day[~today])
        fresh = at[~back]
        t["price"][fresh, 0] = price[~back]
        t["promo"][fresh] = t["promo"][fresh] & 0xFFFE | promo[~back]
        t.touch(at)

    def _begin(self, at: Slots, day: I64) -> None:
        """Make room for a run that began on a day."""
        t = self.table
        for name in ("price", "day"):
            t[name][at, 1:] = t[name][at, :-1]
        t["day"][at, 0] = day
        t["promo"][at] <<= np.uint16(1)
        t["count"][at] = np.minimum(t["count"][at] + 1, RUNS)

    def _take_back(self, at: Slots) -> None:
        """Drop the newest run."""
        t = self.table
        for name in ("price", "day"):
            t[name][at, :-1] = t[name][at, 1:]
            t[name][at, -1] = 0
        t["promo"][at] >>= np.uint16(1)
        t["count"][at] -= np.uint8(1)

    def begin(self, slots: Slots, zone: npt.NDArray[np.integer[Any]], currency: I64, told: I64) -> None:
        """Forget what rows held, and give them a zone, a currency and the local day until which nothing is due."""
        self.table.clear(slots)
        self.table["zone"][slots], self.table["currency"][slots] = zone, currency
        self.tell(slots, told)

    def clear(self, slots: Slots) -> None:
        """Zero rows of lines that are let go."""
        self.table.clear(slots)
        self.told.clear(slots)

    def today(self, slots: Slots) -> F32:
        """Newest price of rows, 0 where none is known, float32 (N,)."""
        newest: F32 = self.table["price"][slots, 0]
        return newest

    def of(self, slots: Slots, day: int) -> tuple[F32, F32, F32]:
        """Runs as `models.price.PriceBatch` has them on a local day: price, days since each began, promotion.

        Each float32 (N, K), NaN where no more are known. A run that begins later, in a zone ahead of the others, has
        begun today.
        """
        t = self.table
        there = np.arange(RUNS) < t["count"][slots, None]
        began = np.maximum(day - t["day"][slots].astype(np.int64), 0)
        promo = t["promo"][slots, None] >> np.arange(RUNS, dtype=np.uint16) & 1
        nan = np.float32(np.nan)
        found = (t["price"][slots], began.astype(np.float32), promo.astype(np.float32))
        price, since, offers = (np.where(there, values, nan) for values in found)
        return price, since, offers

    def untold(self, used: int, zone: int, day: int) -> Slots:
        """Rows of a zone with a price that were last forecast before a local day, ascending."""
        t = self.table
        due = (t["count"][:used] > 0) & (t["zone"][:used] == zone) & (self.told["told"][:used] < min(day, LAST_DAY))
        return np.flatnonzero(due)

    def tell(self, slots: Slots, day: I64 | int) -> None:
        """Note that rows were forecast on a local day."""
        self.told["told"][slots] = np.minimum(day, LAST_DAY)
        self.told.touch(slots)

    def changes(self) -> Iterator[Record]:
        """Yield what changed since the last call."""
        yield from self.table.changes()
        yield from self.told.changes()

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record."""
        (self.told if key.startswith("runs/told/") else self.table).restore(key, value)


def code_of(currency: str) -> int:
    """Pack the three letters of a currency into 15 bits, above zero.

    Examples
    --------
    >>> code_of("GBP"), currency_of(code_of("GBP")), currency_of(0)
    (4098, 'GBP', '')
    """
    first, second, third = (ord(letter) - _LETTER for letter in currency)
    return (first * 26 + second) * 26 + third + 1


def currency_of(code: int) -> str:
    """Read a code of `code_of`; 0 is the empty string."""
    if not code:
        return ""
    rest, third = divmod(code - 1, 26)
    return "".join(chr(_LETTER + letter) for letter in (*divmod(rest, 26), third))
