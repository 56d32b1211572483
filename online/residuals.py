"""By how much forecasts miss, learned while it lasts: factors on quantiles, for groups of series and for single ones.

In: quantiles as the model gave them, met by their actuals. Out: factors, as logarithms, for what is forecast next.
Must not know: the shop, the model, clocks. Rule: what was learned depends on the outcomes and their order alone; who
uses a factor first asks whether it would have paid (`online.guard`).

Two parts. *Groups*: all series of a shard, and its categories. How far the demand of a group and its forecasts lie
apart is a number per bucket and horizon; river's Bayesian linear regression, which forgets, foretells it from those of
the last days, weeks and month, and they are few enough for Python. *Series*: what single series sell beyond
that, as sums that fade, shrunk by what is known of each; these are arrays, for river would need a model per series, and
tens of microseconds for each bucket and horizon.

river keeps its state where only pickle reaches it. So the pairs that a regression learned from are kept instead, and it
is made of these again after a restart, or when they have become too many.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models.forecast import buckets_per_day

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Slots = npt.NDArray[np.integer[Any]]

GROUPS = 16
"""All series, and categories by their number: more than fifteen share."""

KEEP, REMAIN = 112, 56
"""Pairs kept of a regression, and how many of them remain when they are too many: two to four months of days."""

LEAST_UNITS = 30.0
"""Units that a group must have sold in a bucket for its residual to count by half; with fewer it is mostly chance."""

HALF_LIVES = (2.0, 7.0, 28.0)
"""Of averages of past residuals, in days: what happens these days, this week, this month. A horizon is foretold from
those that are no shorter than itself, or the longest: what these days were like says nothing of a day in a week, and
what lies a fortnight apart may be alike for a promotion's sake, which the days between are not."""

NEAREST, RECENT = 0, 2
"""Of `Residuals._near`: index of the nearest horizon, and how many of the averages look at the last days."""

SERIES_HALF_LIFE = 21.0
"""Days after which what a single series sold beyond its forecasts counts half."""

SERIES_EVIDENCE = 14.0
"""Days of demand as expected that a series' own sums are mixed with."""

AFTER_CHANGE = 0.1
"""Share of what averages were made of that is left when the shop is seen to have changed."""

MOST = 1.0
"""Factors lie between 1/e and e."""

_OF_GROUPS, _OF_SERIES = ("means", "weights"), ("sold", "said", "seen")


def of_groups(state: dict[str, Any]) -> dict[str, Any]:
    """What `Residuals.snapshot` gave, without what was learned of single series."""
    return {**state, **dict.fromkeys(_OF_SERIES, b"")}


class Residuals:
    """Learned factors of the series of one shard under one model.

    Parameters
    ----------
    max_series
        Slots that are learned from, from 0 on.
    horizons
        The sampled horizons, in buckets.
    season
        Buckets per season: 7 for days, 24 for hours.

    Examples
    --------
    Everything sells twice what is forecast, and the factor of the next bucket goes to 2:

    >>> residuals = Residuals(8, (1,), 7)
    >>> slots, said, sold = np.arange(8), np.full(8, 50, np.float32), np.full(8, 100, np.float32)
    >>> for bucket in range(60):
    ...     residuals.expect(bucket)
    ...     groups, series = residuals.foretell(slots, np.zeros(8, np.int64))
    ...     residuals.learn(0, bucket, slots, np.zeros(8, np.int64), said, sold)
    >>> round(float(np.exp(groups[0, 0])), 1), round(float(np.exp(series[0, 0])), 1)
    (1.9, 1.0)
    """

    def __init__(self, max_series: int, horizons: tuple[int, ...], season: int) -> None:
        per_day = buckets_per_day(season)
        self._horizons = horizons
        self._slow = [
            min(int(np.searchsorted(np.array(HALF_LIVES) * per_day, h)), len(HALF_LIVES) - 1) for h in horizons
        ]
        self._fade = 0.5 ** (1 / (np.array(HALF_LIVES) * per_day))
        self._series_fade = 0.5 ** (1 / (SERIES_HALF_LIFE * per_day))
        self._evidence = SERIES_EVIDENCE * per_day
        shape = (GROUPS, len(horizons))
        self._means = np.zeros((*shape, len(HALF_LIVES)))  # faded sums of residuals, and of their weights
        self._weights = np.zeros((*shape, len(HALF_LIVES)))
        self._pairs: dict[tuple[int, int], list[list[float]]] = {}
        self._waiting: dict[tuple[int, int], dict[int, list[float]]] = {}  # what was known when a bucket was foretold
        self._models: dict[tuple[int, int], Any] = {}
        self._foretold: F32 | None = None
        self._sold, self._said, self._seen = (np.zeros(max_series, np.float32) for _ in range(3))

    # -- what comes next

    def foretell(self, slots: Slots, groups: I64) -> tuple[F32, F32]:
        """Logarithms of factors for the sampled horizons of some series, (B, horizons) twice: of groups, of series.

        Parameters
        ----------
        slots
            Rows; those at or beyond the number that is learned from have no factor of their own, (B,).
        groups
            Category of each, -1 for none, (B,).
        """
        if self._foretold is None:
            self._foretold = self._foretell_groups()
        series = np.zeros(len(slots), np.float32)
        mine = np.flatnonzero(slots < len(self._sold))
        series[mine] = self._of_series(slots[mine])
        return self._foretold[group_of(groups)], np.repeat(series[:, None], len(self._horizons), axis=1)

    def _foretell_groups(self) -> F32:
        """What is foretold of every group, (GROUPS, horizons): the same until something is learned.

        A category's own residual counts by its share of evidence; the rest is that of all.
        """
        table = np.zeros((GROUPS, len(self._horizons)))
        for group, index in self._pairs:
            table[group, index] = self._of_group(group, index)
        own = self._share()
        mixed = own * table + (1 - own) * table[0]
        least, most = self._near()
        held: F32 = np.clip(mixed, least[:, None], most[:, None]).astype(np.float32)
        return held

    def _near(self) -> tuple[F64, F64]:
        """Between what the factors of each group may lie: nothing, and what the last days showed one bucket ahead.

        What is learned of 20 buckets ahead comes from forecasts that old: it would go on for weeks after the model has
        caught up with a change, which shows one bucket ahead within days.
        """
        near = self._means[:, NEAREST, :RECENT] / np.maximum(self._weights[:, NEAREST, :RECENT], 1.0)
        own = self._share()[:, NEAREST, None]
        near = own * near + (1 - own) * near[0]
        return np.minimum(near.min(axis=1), 0), np.maximum(near.max(axis=1), 0)

    def _share(self) -> F64:
        weight = self._weights[:, :, -1]
        share: F64 = weight / (weight + 7.0)
        share[0] = 1
        return share

    def expect(self, first_bucket: int) -> None:
        """Note what is known as a bucket closes and the next is forecast: from it follows what comes."""
        for group, index in np.argwhere(self._weights[:, :, -1] > 0).tolist():
            bucket = first_bucket + self._horizons[index] - 1
            self._waiting.setdefault((group, index), {}).setdefault(bucket, self._known(group, index))

    def _of_group(self, group: int, index: int) -> float:
        """Residual that is foretold of a group."""
        if (model := self._model((group, index))) is None:
            return 0.0
        known = self._known(group, index)
        answer = float(model.predict_one(dict(enumerate(known))))
        # After a shift averages lag behind what comes, and a regression learns to double them; once they have caught
        # up that would be too much. What comes lies between nothing and what has been seen.
        return min(max(0.0, *known), max(min(0.0, *known), answer))

    def _known(self, group: int, index: int) -> list[float]:
        means = self._means[group, index] / (self._weights[group, index] + 1.0)  # a first residual counts by half
        known: list[float] = means[self._slow[index] :].tolist()
        return known

    def _model(self, key: tuple[int, int]) -> Any:
        if (model := self._models.get(key)) is None and (pairs := self._pairs.get(key)):
            model = self._models[key] = _regression()
            for *known, residual in pairs:
                model.learn_one(dict(enumerate(known)), residual)
        return model

    def _of_series(self, slots: Slots) -> F32:
        sold, said, seen = self._sold[slots], self._said[slots], self._seen[slots]
        prior = np.maximum(said / np.maximum(seen, 1) * self._evidence, np.float32(1e-6))
        found: F32 = np.clip(np.log((sold + prior) / (said + prior)), -MOST, MOST).astype(np.float32)
        return np.where(said > 0, found, np.float32(0))

    # -- what came

    def learn(self, index: int, bucket: int, slots: Slots, groups: I64, said: F32, sold: F32) -> None:
        """Take in a final bucket at one horizon.

        Parameters
        ----------
        index
            Index into the horizons.
        bucket
            The final bucket.
        slots, groups
            Rows and their categories, (N,).
        said
            Demand that the model expected, (N,).
        sold
            Demand, (N,).
        """
        place, self._foretold = group_of(groups), None
        expected, came = (np.bincount(place, values, GROUPS).astype(np.float64) for values in (said, sold))
        expected[0], came[0] = said.sum(), sold.sum()
        told = expected + came > 0
        weight = np.where(told, came + expected, 0) / (came + expected + 2 * LEAST_UNITS)
        residual = np.clip(np.log((came + LEAST_UNITS / 4) / (expected + LEAST_UNITS / 4)), -MOST, MOST)
        for group in np.flatnonzero(told).tolist():
            self._learn_group(group, index, bucket, float(residual[group]), float(weight[group]))
        if self._horizons[index] == 1:
            self._sold[slots] = self._sold[slots] * self._series_fade + sold
            # Beyond its group on this very day: what the group's factor had not followed yet is not the series' own.
            self._said[slots] = self._said[slots] * self._series_fade + said * np.exp(residual[place])
            self._seen[slots] = self._seen[slots] * self._series_fade + 1

    def _learn_group(self, group: int, index: int, bucket: int, residual: float, weight: float) -> None:
        key = group, index
        self._means[group, index] = self._means[group, index] * self._fade + weight * residual
        self._weights[group, index] = self._weights[group, index] * self._fade + weight
        waiting = self._waiting.get(key, {})
        known = waiting.get(bucket)
        for old in [one for one in waiting if one <= bucket]:
            del waiting[old]
        if known is None:
            return
        pairs = self._pairs.setdefault(key, [])
        if len(pairs) >= KEEP:
            del pairs[: len(pairs) - REMAIN]
            self._models.pop(key, None)
        model = self._model(key) or self._models.setdefault(key, _regression())
        pairs.append([*known, residual])
        model.learn_one(dict(enumerate(known)), residual)

    def change(self) -> None:
        """Let what comes next count more: the shop is no longer what it was."""
        self._means *= AFTER_CHANGE
        self._weights *= AFTER_CHANGE
        self._foretold = None

    # -- slots and state

    def clear(self, slot: int) -> None:
        """Forget a slot that is freed."""
        if slot < len(self._sold):
            self._sold[slot] = self._said[slot] = self._seen[slot] = 0

    def snapshot(self, used: int) -> dict[str, Any]:
        """What was learned, as plain values."""
        return {
            **{name: getattr(self, f"_{name}").tobytes() for name in _OF_GROUPS},
            "pairs": [[*key, pairs] for key, pairs in self._pairs.items()],
            "waiting": [[*key, list(map(list, waiting.items()))] for key, waiting in self._waiting.items()],
            **{name: getattr(self, f"_{name}")[:used].tobytes() for name in _OF_SERIES},
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `snapshot` gave."""
        for name in _OF_GROUPS:
            own = getattr(self, f"_{name}")
            own[:] = np.frombuffer(state[name], np.float64).reshape(own.shape)
        self._pairs = {(group, index): pairs for group, index, pairs in state["pairs"]}
        self._waiting = {(group, index): dict(waiting) for group, index, waiting in state["waiting"]}
        for name in _OF_SERIES:
            values = np.frombuffer(state[name], np.float32)
            getattr(self, f"_{name}")[: len(values)] = values
        self._models.clear()
        self._foretold = None


def group_of(groups: I64) -> I64:
    """Place of a category among the groups, (B,); 0 is that of all series.

    Examples
    --------
    >>> group_of(np.array([-1, 0, 14, 15])).tolist()
    [0, 1, 15, 1]
    """
    place: I64 = np.where(groups < 0, 0, 1 + groups % (GROUPS - 1)).astype(np.int64)
    return place


def _regression() -> Any:
    """River's Bayesian linear regression without an intercept: from nothing learned it foretells nothing.

    Weights begin at zero with variance 1/alpha; noise of deviation .2 (beta 25) is what residuals of a day show.
    """
    from river.linear_model import BayesianLinearRegression

    return BayesianLinearRegression(alpha=4.0, beta=25.0, smoothing=0.99)
