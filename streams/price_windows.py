"""Prices that hold for a time: of each line those announced with a begin or an end, and the price beneath them.

In: announcements; prices that are listed for good. Out: the price in force at an instant, prices certain on days ahead;
a state record per line that has any.
Must not know: runs, zones, models. Rule: only lines with an announcement take memory, four of them at most; a price
that is listed for good ends what has begun, as `streams.catalog.ListedPrices` has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from streams.catalog import FOREVER_MS
from streams.state import Record, pack, unpack

MOST_WINDOWS = 4
"""Announcements of a line that are kept, those said last: shops plan an offer or two ahead."""


class Window(NamedTuple):
    """A price announced at `said_ms` to hold from one instant to another, or for good from the first on."""

    said_ms: int
    from_ms: int
    until_ms: int
    price: float
    promo: bool

    @property
    def ends(self) -> bool:
        """Whether it has an end."""
        return self.until_ms < FOREVER_MS

    def holds(self, at_ms: int) -> bool:
        """Whether an instant lies in it."""
        return self.from_ms <= at_ms < self.until_ms


class Told(NamedTuple):
    """What is known of one line: the price for good, 0 where it is not known, and the windows over it."""

    price: float
    promo: bool
    windows: tuple[Window, ...]

    def window(self, at_ms: int) -> Window | None:
        """The window in force: one that ends before one for good, then the one said last."""
        held = [window for window in self.windows if window.holds(at_ms)]
        return max(held, key=lambda w: (w.ends, w.said_ms if w.ends else w.from_ms, w.from_ms), default=None)

    def at(self, at_ms: int) -> tuple[float, bool]:
        """Price in force at an instant, and whether it is a promotion."""
        window = self.window(at_ms)
        return (self.price, self.promo) if window is None else (window.price, window.promo)

    def settled(self, at_ms: int) -> Told:
        """The same without what is over by an instant; what has begun for good is the price beneath."""
        begun = [w for w in self.windows if not w.ends and w.from_ms <= at_ms]
        windows = tuple(w for w in self.windows if w.until_ms > at_ms and w not in begun)
        if not begun:
            return self._replace(windows=windows)
        newest = max(begun, key=lambda w: w.from_ms)
        return Told(newest.price, newest.promo, windows)


class PriceWindows:
    """Announcements by slot.

    Examples
    --------
    >>> windows = PriceWindows()
    >>> windows.announce(3, Window(0, 100, 200, 7.5, True), (9.5, False))
    >>> windows.told(3).at(99), windows.told(3).at(150), windows.told(3).at(200)
    ((9.5, False), (7.5, True), (9.5, False))
    >>> windows.ahead(3, 50, [90, 190, 290, 390]).tolist()
    [nan, 7.5, 9.5, nan]
    """

    def __init__(self) -> None:
        self._told: dict[int, Told] = {}
        self._touched: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._told)

    def __contains__(self, slot: int) -> bool:
        return slot in self._told

    def slots(self) -> list[int]:
        """Slots with an announcement, ascending."""
        return sorted(self._told)

    def told(self, slot: int) -> Told:
        """What is known of a slot that has announcements."""
        return self._told[slot]

    def announce(self, slot: int, window: Window, beneath: tuple[float, bool]) -> None:
        """Note an announcement; `beneath` is the price in force where the slot has none yet."""
        known = self._told.get(slot)
        known = Told(*beneath, ()) if known is None else known.settled(window.said_ms)
        others = [w for w in known.windows if w.from_ms < window.from_ms or w.until_ms > window.until_ms]
        kept = sorted([*others, window], key=lambda w: w.said_ms)[-MOST_WINDOWS:]
        self._put(slot, known._replace(windows=tuple(kept)))

    def listed(self, slot: int, time_ms: int, price: float, promo: bool) -> bool:
        """Note a price that a known slot is listed at for good; False where it only repeats what holds for a time."""
        window = self._told[slot].window(time_ms)
        if window is not None and window.price == price:
            return False
        self._put(slot, Told(price, promo, tuple(w for w in self._told[slot].windows if w.from_ms >= time_ms)))
        return True

    def settle(self, slot: int, at_ms: int) -> None:
        """Forget of a known slot what is over by an instant."""
        settled = self._told[slot].settled(at_ms)
        if settled != self._told[slot]:
            self._put(slot, settled)

    def ahead(self, slot: int, today_ms: int, ends_ms: Iterable[int]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """Prices that are certain on days ahead, NaN on others, float32 (H,).

        Certain are the days in a window, the first day after it, and the first of a price that holds for good: later
        that may change, as any price may.

        Parameters
        ----------
        today_ms
            An instant of today.
        ends_ms
            The last instants of the days ahead, H of them.
        """
        known, before, out = self._told[slot], self._told[slot].window(today_ms), []
        for end_ms in ends_ms:
            window = known.window(end_ms)
            if window is None:
                out.append(known.price if before is not None and known.price > 0 else np.nan)
            else:
                out.append(window.price if window.ends or window != before else np.nan)
            before = window
        return np.array(out, np.float32)

    def drop(self, slot: int) -> None:
        """Forget a slot."""
        if slot in self._told:
            del self._told[slot]
            self._touched[slot] = None

    def _put(self, slot: int, told: Told) -> None:
        if told.windows:
            self._told[slot] = told
        else:
            self._told.pop(slot, None)
        self._touched[slot] = None

    def changes(self) -> Iterator[Record]:
        """Yield ``runs/windows/<slot>`` of what changed since the last call; None where nothing is left."""
        for slot in self._touched:
            told = self._told.get(slot)
            yield f"runs/windows/{slot}", None if told is None else pack([told.price, told.promo, *told.windows])
        self._touched.clear()

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record."""
        if value is not None:
            price, promo, *windows = unpack(key, value)
            self._told[int(key.rpartition("/")[2])] = Told(price, promo, tuple(Window(*one) for one in windows))
