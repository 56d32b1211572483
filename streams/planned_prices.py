"""Prices announced ahead: of each series the one announced last, until its end is past.

In: announcements. Out: what is planned for rows at instants; a state record for each plan.
Must not know: what is listed now, channels. Rule: only series with a plan take memory, for few have one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from streams.state import Record, pack, unpack

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Slots = npt.NDArray[np.integer[Any]]

KEPT_MS = 2 * 86_400_000
"""How long a plan is kept after its end: a close looks back by less."""

LEAST_TIDIED = 64
"""Plans are tidied whenever there are this many, or twice, four times … as many."""


class Plan(NamedTuple):
    """A price announced at `said_ms` to hold from one instant to another."""

    said_ms: int
    from_ms: int
    until_ms: int
    price: float
    promo: bool


class PlannedPrices:
    """Plans by slot.

    Examples
    --------
    >>> planned = PlannedPrices()
    >>> planned.add(3, Plan(100, 1000, 2000, 7.5, True))
    True
    >>> holds, price, promo = planned.at(np.array([2, 3]), np.array([1500, 1500]), np.array([0, 0]))
    >>> holds.tolist(), price.tolist()
    ([False, True], [0.0, 7.5])
    """

    def __init__(self) -> None:
        self._plans: dict[int, Plan] = {}
        self._touched: dict[int, None] = {}
        self._columns: tuple[I64, I64, F32, Bools] | None = None  # slots; from and until; price; promo

    def __len__(self) -> int:
        return len(self._plans)

    def add(self, slot: int, plan: Plan) -> bool:
        """Note a plan; False where a newer one is known."""
        known = self._plans.get(slot)
        if known is not None and known.said_ms > plan.said_ms:
            return False
        self._put(slot, plan)
        count = len(self._plans)
        if known is None and count >= LEAST_TIDIED and not count & (count - 1):
            for over in [one for one, told in self._plans.items() if told.until_ms < plan.said_ms - KEPT_MS]:
                self.drop(over)
        return True

    def drop(self, slot: int) -> None:
        """Forget what is planned for a slot."""
        if slot in self._plans:
            self._put(slot, None)

    def _put(self, slot: int, plan: Plan | None) -> None:
        if plan is None:
            del self._plans[slot]
        else:
            self._plans[slot] = plan
        self._touched[slot] = None
        self._columns = None

    def at(self, slots: Slots, at_ms: I64, since_ms: I64) -> tuple[Bools, F32, Bools]:
        """What is planned for rows at instants; the arrays are stretched to one shape.

        Parameters
        ----------
        since_ms
            A plan that began before this is over, whenever it was to end.

        Returns
        -------
        Where a plan holds; its price, 0 elsewhere; whether it is a promotion.
        """
        if self._columns is None:
            self._columns = self._sorted()
        own, spans, prices, promos = self._columns
        place = np.minimum(np.searchsorted(own, slots), len(own) - 1)
        begin, end = spans[place, 0], spans[place, 1]
        holds: Bools = (own[place] == slots) & (begin <= at_ms) & (begin >= since_ms) & (end > at_ms)
        return holds, np.where(holds, prices[place], np.float32(0)), holds & promos[place]

    def _sorted(self) -> tuple[I64, I64, F32, Bools]:
        plans = sorted(self._plans.items()) or [(-1, Plan(0, 0, 0, 0.0, False))]
        return (
            np.array([slot for slot, _ in plans], np.int64),
            np.array([(plan.from_ms, plan.until_ms) for _, plan in plans], np.int64),
            np.array([plan.price for _, plan in plans], np.float32),
            np.array([plan.promo for _, plan in plans], np.bool_),
        )

    def changes(self) -> Iterator[Record]:
        """Yield ``listed/planned/<slot>`` of what changed since the last call."""
        for slot in self._touched:
            plan = self._plans.get(slot)
            yield f"listed/planned/{slot}", None if plan is None else pack(list(plan))
        self._touched.clear()

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record."""
        if value is not None:
            self._plans[int(key.rpartition("/")[2])] = Plan(*unpack(key, value))
            self._columns = None
