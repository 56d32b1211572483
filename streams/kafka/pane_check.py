"""Panes as they were restored from state, against a recount.

In: a restored engine, a `Recount`. Out: what was compared, and each cell that differs.
Must not know: Kafka, how either side came about. Rule: sums of buckets that are not final must agree to the last
thousandth; final ones, which are kept as 32-bit floats, to what such a float can hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.engine import Engine
from streams.kafka.recount import Recount, Row
from streams.panes import UNIT

NAMED = 20
"""Differences that are named one by one."""

TOGETHER = 4_096
"""Series compared at once: 6 MB of figures."""

ROUNDING = 2.0**-21
"""Share of a sum that 32-bit floats may lose: eight times half a unit in the last place, for as many corrections."""

WHAT = ("ordered", "cancelled")
MOST_ENDS = 1_000
"""Orders of a series of which any end may be left, beyond which it is not compared: time grows with their square."""

_NOTHING = Row()
Slots = npt.NDArray[np.integer[Any]]
Cells = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Difference:
    """A bucket that does not hold what it must.

    Examples
    --------
    >>> print(Difference(1, "TEA", "default", "2024-01-05", "ordered", 3.0, 4.5))
    shard 1: TEA at default, 2024-01-05: 3 ordered in state, 4.5 in the topics
    """

    shard: int
    sku: str
    location: str
    bucket: str
    what: str
    in_state: float
    in_topics: float

    def __str__(self) -> str:
        where = f"shard {self.shard}: {self.sku} at {self.location}, {self.bucket}"
        return f"{where}: {self.in_state:.10g} {self.what} in state, {self.in_topics:.10g} in the topics"


@dataclass(slots=True)
class Compared:
    """What a comparison of one shard gave.

    Attributes
    ----------
    series, buckets
        Compared.
    unsure
        Buckets that were not compared: the records do not tell enough.
    differences, named
        How many buckets differ, and the first of them.
    since
        The oldest bucket that was compared, by name; empty where none was.
    """

    series: int = 0
    buckets: int = 0
    unsure: int = 0
    differences: int = 0
    named: list[Difference] = field(default_factory=list)
    since: str = ""


class PaneCheck:
    """Compares one shard.

    Parameters
    ----------
    shard
        Number, for what is said.
    engine
        Restored from state.
    recount
        Of the same offsets.
    since_ms
        Instant before which records are missing; -1 where none are.
    """

    def __init__(self, shard: int, engine: Engine, recount: Recount, since_ms: int = -1) -> None:
        self._shard, self._engine, self._recount, self._since_ms = shard, engine, recount, since_ms
        self._panes = engine.panes
        self._width = self._panes.config.buckets + self._panes.config.open_buckets
        self._found = Compared()

    def run(self) -> Compared:
        """Compare every bucket that is in the ring or not final, of every series on either side."""
        rows = dict(self._recount.rows)
        live = self._engine.series.live()
        for zone, state in enumerate(self._engine.buckets.zones):
            if state.open < 0:  # it has seen no time yet
                continue
            own = self._engine.buckets.in_zone(live, zone)
            for start in range(0, len(own), TOGETHER):
                self._together(own[start : start + TOGETHER], zone, rows)
        if not self._engine.series.refused:
            self._missing(rows)
        return self._found

    # -- series that the state has

    def _together(self, slots: Slots, zone: int, rows: dict[tuple[str, str], Row]) -> None:
        keys = [self._engine.series.key(slot) for slot in slots.tolist()]
        mine = [rows.pop(key, _NOTHING) for key in keys]
        low = self._low(zone)
        wanted = np.zeros((len(slots), self._width, 2))
        for at, row in enumerate(mine):
            for (bucket, what), milli in row.amounts.items():
                if 0 <= bucket - low < self._width:
                    wanted[at, bucket - low, what] = milli
        held = self._held(slots, zone)
        first = self._first(zone, keys[0][1] if keys else "") - low
        off = np.abs(held - wanted) > 0.5 + self._slack(wanted, zone)
        off[:, :first] = False
        self._found.series += len(slots)
        self._found.buckets += len(slots) * max(0, self._width - first)
        suspects = off.any((1, 2)) | np.array([bool(row.unsure or row.either) for row in mine], np.bool_)
        for at in np.flatnonzero(suspects).tolist():
            self._settle(keys[at], mine[at], held[at], wanted[at], off[at], low, first)

    def _low(self, zone: int) -> int:
        """The oldest bucket in the ring."""
        return self._engine.buckets.zones[zone].open - self._panes.config.buckets

    def _first(self, zone: int, location: str) -> int:
        """The oldest bucket that can be compared."""
        low, calendar = self._low(zone), self._recount.calendar(location)
        first = low if self._since_ms < 0 else max(low, calendar.bucket(self._since_ms) + 1)
        first = min(first, low + self._width)
        name = calendar.name(first) if first < low + self._width else ""
        self._found.since = min(self._found.since or name, name)
        return first

    def _held(self, slots: Slots, zone: int) -> Cells:
        """Thousandths in state: closed buckets from the ring, those that are not final from the sums."""
        state, panes = self._engine.buckets.zones[zone], self._panes
        ring, width = panes.config.buckets, panes.config.open_buckets
        held = np.zeros((len(slots), self._width, 2))
        for what, name in enumerate(("units", "cancelled")):
            held[:, :ring, what] = panes.channel(name, slots, state.open).astype(np.float64) * UNIT
            for bucket in range(max(state.final, state.open - ring), state.final + width):
                held[:, bucket - self._low(zone), what] = panes.open[name][slots, bucket % width]
        return held

    def _slack(self, wanted: Cells, zone: int) -> Cells:
        """What rounding explains: nothing in buckets that are not final."""
        slack = np.abs(wanted) * ROUNDING
        slack[:, max(0, self._engine.buckets.zones[zone].final - self._low(zone)) :] = 0
        return slack

    def _settle(
        self, key: tuple[str, str], row: Row, held: Cells, wanted: Cells, off: Bools, low: int, first: int
    ) -> None:
        """Tell real differences of a series from cells that the records do not decide."""
        if row.history is not None:
            self._found.unsure += 2 * (self._width - first) if len(row.history) > MOST_ENDS else 0
            if len(row.history) > MOST_ENDS or self._is_an_end(row, held[first:], low + first):
                return
        for bucket, what in row.unsure:
            self._pass_over(off, bucket - low, what, first)
        self._either(row, held, wanted, off, low, first)
        for at, what in np.argwhere(off).tolist():
            self._differs(key, low + at, what, held[at, what], wanted[at, what])

    def _is_an_end(self, row: Row, held: Cells, low: int) -> bool:
        """Whether some end of the history of a series gives what the state holds from a bucket on."""
        found = {(low + at, what): held[at, what] for at, what in np.argwhere(np.abs(held) > 0.5).tolist()}
        window = range(low, low + len(held))
        for end in self._recount.ends(row):
            open_ones = end.unsure | {(bucket, 1) for bucket in end.either}
            cells = (found.keys() | end.amounts.keys()) - open_ones
            wanted = ((cell, end.amounts[cell]) for cell in cells if cell[0] in window)
            if all(abs(found.get(cell, 0.0) - milli) <= 0.5 + milli * ROUNDING for cell, milli in wanted):
                return True
        return False

    def _pass_over(self, off: Bools, at: int, what: int, first: int) -> None:
        if first <= at < self._width:
            off[at, what] = False
            self._found.unsure += 1

    def _either(self, row: Row, held: Cells, wanted: Cells, off: Bools, low: int, first: int) -> None:
        """Cancellations that lie in one of several buckets: their sum must be right, where all of them are in sight."""
        places = [bucket - low for bucket in sorted(row.either)]
        if not places:
            return
        inside = [at for at in places if first <= at < self._width]
        total = abs(float(held[inside, 1].sum() - wanted[inside, 1].sum()))
        right = len(inside) < len(places) or total <= 0.5 + float(wanted[inside, 1].sum()) * ROUNDING
        if right:
            for at in inside:
                self._pass_over(off, at, 1, first)

    # -- series that it has not

    def _missing(self, rows: dict[tuple[str, str], Row]) -> None:
        zones = {state.zone.name: number for number, state in enumerate(self._engine.buckets.zones)}
        for (sku, location), row in rows.items():
            zone = zones[self._recount.zone(location)]
            if row.history is not None or self._engine.buckets.zones[zone].open < 0:
                continue
            low = self._low(zone)
            span = range(self._first(zone, location), low + self._width)
            self._found.series += 1
            self._found.buckets += len(span)
            for (bucket, what), milli in sorted(row.amounts.items()):
                if milli and bucket in span and (bucket, what) not in row.unsure:
                    self._differs((sku, location), bucket, what, 0.0, milli)

    def _differs(self, key: tuple[str, str], bucket: int, what: int, held: float, wanted: float) -> None:
        self._found.differences += 1
        if len(self._found.named) < NAMED:
            name = self._recount.calendar(key[1]).name(bucket)
            self._found.named.append(
                Difference(
                    self._shard, *key, name, WHAT[what], round(float(held) / UNIT, 6), round(float(wanted) / UNIT, 6)
                )
            )


def _units(milli: float) -> float:
    return round(float(milli) / UNIT, 6)
