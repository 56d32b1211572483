"""How good each rival was, week by week: what a picture of learning is drawn from.

In: losses of rivals on the outcomes of one bucket. Out: WQL and coverage per week.
Must not know: who the rivals are. Rule: all are held against the same outcomes; the newest `KEPT` weeks are kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models.forecast import buckets_per_day

F64 = npt.NDArray[np.float64]

KEPT = 156
"""Weeks kept: three years."""

_OUTCOMES, _DEMAND, _LOSS, _INSIDE = range(4)


class Weeks:
    """Sums per week and rival.

    Parameters
    ----------
    rivals
        Their names, in the order of the rows that `add` takes.
    season
        Buckets per season: 7 for days, 24 for hours.

    Examples
    --------
    >>> weeks = Weeks(("published", "model"), 7)
    >>> weeks.add(15005, outcomes=2, demand=10.0, losses=np.array([3.0, 4.0]), inside=np.array([2, 1]))
    >>> [one] = weeks.summary()
    >>> one["begins"], one["wql"], one["coverage80"]
    ('2011-01-31', {'published': 0.3, 'model': 0.4}, {'published': 1.0, 'model': 0.5})
    """

    def __init__(self, rivals: tuple[str, ...], season: int) -> None:
        self._rivals, self._per_day = rivals, buckets_per_day(season)
        self._sums: dict[int, F64] = {}

    def add(self, bucket: int, outcomes: int, demand: float, losses: F64, inside: npt.NDArray[Any]) -> None:
        """Take in the outcomes of a bucket at one horizon: sums of losses, and how many lay inside, per rival."""
        week = (bucket // self._per_day + 3) // 7  # 1970-01-01 was a Thursday
        sums = self._sums.setdefault(week, np.zeros((4, len(self._rivals))))
        sums[_OUTCOMES] += outcomes
        sums[_DEMAND] += demand
        sums[_LOSS] += losses
        sums[_INSIDE] += inside
        self._forget()

    def merge(self, other: Weeks) -> None:
        """Add the sums of another shard."""
        for week, sums in other._sums.items():
            self._sums[week] = self._sums.get(week, 0) + sums
        self._forget()

    def _forget(self) -> None:
        for week in sorted(self._sums)[:-KEPT]:
            del self._sums[week]

    def summary(self) -> list[dict[str, Any]]:
        """Figures per week, oldest first; ``begins`` is its Monday, and WQL is None where nothing was sold."""
        out = []
        for week, sums in sorted(self._sums.items()):
            wql = [round(loss / demand, 6) if demand else None for loss, demand in sums[[_LOSS, _DEMAND]].T.tolist()]
            covered = [round(inside / count, 6) for inside, count in sums[[_INSIDE, _OUTCOMES]].T.tolist()]
            out.append({
                "begins": str(np.datetime64(week * 7 - 3, "D")), "outcomes": int(sums[_OUTCOMES, 0]),
                "wql": dict(zip(self._rivals, wql, strict=True)),
                "coverage80": dict(zip(self._rivals, covered, strict=True)),
            })  # fmt: skip
        return out

    def snapshot(self) -> list[list[Any]]:
        """The sums as plain values."""
        return [[week, sums.tobytes()] for week, sums in self._sums.items()]

    def restore(self, state: list[list[Any]]) -> None:
        """Take over what `snapshot` gave."""
        shape = 4, len(self._rivals)
        self._sums = {week: np.frombuffer(sums, np.float64).reshape(shape).copy() for week, sums in state}
