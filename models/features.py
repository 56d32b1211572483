"""Window features: named columns that say what a series did lately and what is known of each step.

In: a `ForecastBatch`. Out: a `FeatureTable`: columns per series, and per series and step.
Must not know: where the batch comes from; a panel and live panes give the same table. Rule: a column reads one row's
last twelve seasons and its known future alone, and sums in a fixed order, so that neighbours never change a bit.

What each column means stands in one place, the tables beside the functions that compute them; `feature_docs` prints it.
Undefined is NaN: no such channel, nothing observed, or a division by nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.baseline import WINDOW, phase_samples
from models.forecast import F32, ForecastBatch
from models.history import History, mean_of, ratio
from models.quantiles import quantiles_of

TILE_ROWS = 1024
"""Rows worked on together: a channel's 84 sums in float64 take 0.7 MB, inside the second-level cache."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One column: its name, the unit of its values, and how it is computed."""

    name: str
    unit: str
    formula: str


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """Features of the rows of a batch.

    Attributes
    ----------
    series_names, series
        Columns per series, float32 (B, F).
    step_names, steps
        Columns per series and step, float32 (B, H, K).
    """

    series_names: tuple[str, ...]
    series: F32
    step_names: tuple[str, ...]
    steps: F32

    def column(self, name: str) -> F32:
        """The column of a name: (B,) of a series feature, (B, H) of a step feature.

        Raises
        ------
        KeyError
            If no feature has this name.
        """
        if name in self.series_names:
            return self.series[:, self.series_names.index(name)]
        if name in self.step_names:
            return self.steps[:, :, self.step_names.index(name)]
        raise KeyError(name)


def features(batch: ForecastBatch) -> FeatureTable:
    """Compute every feature of every row.

    Examples
    --------
    >>> from models.forecast import ForecastBatch
    >>> batch = ForecastBatch(
    ...     demand=np.tile(np.array([0, 1, 2, 3, 4, 5, 6], np.float32), (1, 12)), is_open=np.ones((1, 84), bool),
    ...     future_open=np.ones((1, 2), bool), observed=np.ones(1, np.float32), elapsed=np.zeros(1, np.float32),
    ...     day=np.array([19723]), hour=np.array([0]), season=7, group=np.array([-1], np.int32))
    >>> table = features(batch)
    >>> [float(table.column(name)[0]) for name in ("mean_1", "since_sale", "views_lead")]
    [3.0, 0.0, nan]
    >>> table.column("phase_median_12").tolist(), table.column("weekday").tolist()
    ([[0.0, 1.0]], [[0.0, 1.0]])
    """
    rows, horizon = len(batch), batch.horizon
    series = np.empty((rows, len(SERIES_NAMES)), np.float32)
    steps = np.empty((rows, horizon, len(STEP_NAMES)), np.float32)
    for start in range(0, rows, TILE_ROWS):
        tile = slice(start, start + TILE_ROWS)
        view = _View(batch, tile)
        _fill(series[tile], (column for _, compute in SERIES for column in compute(view)))
        _fill(steps[tile], (column for _, compute in STEPS for column in compute(view)))
    return FeatureTable(SERIES_NAMES, series, STEP_NAMES, steps)


def feature_docs() -> str:
    """Describe every feature as Markdown tables, in the order of the columns."""
    lines = ["# Features", "", _INTRODUCTION]
    for title, groups in (("Per series", SERIES), ("Per series and step", STEPS)):
        lines += ["", f"## {title}", "", "| name | unit | formula |", "|---|---|---|"]
        lines += [f"| `{one.name}` | {one.unit} | {one.formula} |" for table, _ in groups for one in table]
    return "\n".join(lines) + "\n"


_INTRODUCTION = """\
What `models/features.py` computes of every series, alike from a panel and from live panes. A season is 7 daily or 24
hourly buckets; demand counts where the bucket was open and observed. A column is NaN where it is undefined: the channel
is missing, nothing was observed, or the divisor is not above zero. This page is written from the code."""


def _fill(target: F32, columns: Iterable[npt.NDArray[np.floating] | npt.NDArray[np.integer]]) -> None:
    """Write columns side by side along the last axis."""
    for index, column in enumerate(columns):
        target[..., index] = column


class _View:
    """One tile of a batch, with what several features share computed once."""

    def __init__(self, batch: ForecastBatch, tile: slice) -> None:
        self.batch, self.tile = batch, tile
        self.season, self.span, self.horizon = batch.season, WINDOW * batch.season, batch.horizon
        self._channels: dict[str, History] = {}
        self._nothing = np.empty((len(batch), 0), np.float32)
        is_open = batch.is_open[tile, -self.span :]
        self.demand = History(np.where(is_open, batch.demand[tile, -self.span :], np.nan), self.span)
        self.samples = phase_samples(batch.demand[tile, -self.span :], is_open, self.season)  # (R, S, WINDOW)

    def channel(self, name: str) -> History:
        """History of a channel; where there is none, the past of the known covariate of that name."""
        if name not in self._channels:
            values = self.batch.channels.get(name)
            if values is None:
                values = self.batch.known.get(name, self._nothing)[:, : self.batch.demand.shape[1]]
            self._channels[name] = History(values[self.tile, -self.span :], self.span)
        return self._channels[name]

    def known(self, name: str) -> F32:
        """A covariate's values at the steps, (R, H)."""
        values = self.batch.known.get(name)
        if values is None:
            return np.full((len(self.demand), self.horizon), np.nan, np.float32)
        return values[self.tile, self.batch.demand.shape[1] :]

    def along_steps(self, phases: F32) -> F32:
        """Repeat values per phase, (R, S), along the steps, (R, H)."""
        return np.take(phases, np.arange(self.horizon) % self.season, axis=1)


Columns = Iterable[npt.NDArray[np.floating] | npt.NDArray[np.integer]]
Group = tuple[tuple[Feature, ...], Callable[[_View], Columns]]

# -- per series

_WINDOWS = (1, 2, 4, 8, 12)  # seasons: for days 7, 14, 28, 56 and 84 of them
_SPREAD_WINDOWS, _SPREAD_LEVELS = (4, 8), (0.1, 0.5, 0.9)

LEVEL = (
    *(Feature(f"mean_{n}", "units per bucket", f"mean demand of the last {n} season{'s' * (n > 1)}") for n in _WINDOWS),
    *(
        Feature(f"q{round(level * 100)}_{n}", "units per bucket", f"{level:g} quantile of the last {n} seasons' demand")
        for n in _SPREAD_WINDOWS
        for level in _SPREAD_LEVELS
    ),
    Feature("deviation_8", "units per bucket", "standard deviation (of a population) of the last 8 seasons' demand"),
    Feature("trend", "ratio", "mean_4 / mean_12"),
    Feature("slope_4", "units per bucket and bucket", "least-squares slope of demand over the last 4 seasons"),
)


def _level(view: _View) -> Columns:
    demand, season = view.demand, view.season
    yield from (demand.mean(n * season) for n in _WINDOWS)
    for n in _SPREAD_WINDOWS:
        yield from demand.quantiles(n * season, _SPREAD_LEVELS).T
    yield demand.deviation(8 * season)
    yield ratio(demand.mean(4 * season), demand.mean(12 * season))
    yield demand.slope(4 * season)


ACTIVITY = (
    Feature("seen_12", "buckets", "buckets of the last 12 seasons that were open and observed"),
    Feature("zero_share_4", "share", "share of zeros in the last 4 seasons' demand"),
    Feature("zero_share_12", "share", "share of zeros in the last 12 seasons' demand"),
    Feature("since_sale", "buckets", "whole buckets since the last one with demand; 0 if that is the newest"),
    Feature("cancelled_share_12", "share", "units cancelled / units ordered, last 12 seasons"),
)


def _activity(view: _View) -> Columns:
    demand, season = view.demand, view.season
    yield demand.count(12 * season)
    yield demand.zero_share(4 * season)
    yield demand.zero_share(12 * season)
    yield demand.since_positive()
    cancelled, units = view.channel("cancelled").with_known(view.channel("units"))
    yield ratio(cancelled.sum(12 * season), units.sum(12 * season))


PRICE = (
    Feature("price_last", "currency", "newest known price of the last 12 seasons"),
    Feature("price_to_median", "ratio", "price_last / median price of the last 12 seasons"),
    Feature("price_to_min", "ratio", "price_last / lowest price of the last 12 seasons"),
    Feature("discount_depth", "share", "1 - price_last / highest price of the last 12 seasons"),
    Feature("promo_share_4", "share", "share of buckets with a promotion, last 4 seasons"),
    Feature("promo_share_12", "share", "share of buckets with a promotion, last 12 seasons"),
)


def _price(view: _View) -> Columns:
    price, promo, season = view.channel("price"), view.channel("promo"), view.season
    last, (low, median, high) = price.newest(), price.quantiles(12 * season, (0.0, 0.5, 1.0)).T
    yield last
    yield ratio(last, median)
    yield ratio(last, low)
    yield 1 - ratio(last, high)
    yield promo.positive_share(4 * season)
    yield promo.positive_share(12 * season)


INTEREST = (
    Feature("orders_per_view_4", "ratio", "orders / views, last 4 seasons"),
    Feature("carts_per_view_4", "ratio", "carts / views, last 4 seasons"),
    Feature("orders_per_cart_4", "ratio", "orders / carts, last 4 seasons"),
    Feature("views_lead", "ratio", "mean views of the last season / mean of the 4 seasons before it"),
    Feature("carts_lead", "ratio", "mean carts of the last season / mean of the 4 seasons before it"),
    Feature("stockout_share_4", "share", "1 - mean share in stock, last 4 seasons"),
    Feature("stockout_share_12", "share", "1 - mean share in stock, last 12 seasons"),
)


def _interest(view: _View) -> Columns:
    season = view.season
    orders, carts, views = view.channel("orders"), view.channel("carts"), view.channel("views")
    for top, bottom in ((orders, views), (carts, views), (orders, carts)):
        above, below = top.with_known(bottom)
        yield ratio(above.sum(4 * season), below.sum(4 * season))
    yield from (ratio(one.mean(season), one.mean(5 * season, newer=season)) for one in (views, carts))
    stock = view.channel("in_stock")
    yield from (1 - stock.mean(n * season) for n in (4, 12))


OPEN_BUCKET = (
    Feature("observed", "units", "demand already seen in step 1"),
    Feature("elapsed", "share", "share of step 1 that is over"),
    Feature("observed_to_expected", "ratio", "observed / (elapsed x phase_mean_12 of step 1)"),
)


def _open_bucket(view: _View) -> Columns:
    observed, elapsed = view.batch.observed[view.tile], view.batch.elapsed[view.tile]
    yield observed
    yield elapsed
    yield ratio(observed, elapsed * mean_of(view.samples[:, 0]))


# -- per series and step

_PHASE_WINDOWS = (4, 8, 12)
_PHASE_LEVELS = {"min": 0.0, "median": 0.5, "max": 1.0}

PHASE = tuple(
    Feature(f"phase_{what}_{n}", "units per bucket", f"{what} of the newest {n} demands of the step's phase")
    for n in _PHASE_WINDOWS
    for what in ("mean", *_PHASE_LEVELS)
)


def _phase(view: _View) -> Columns:
    for n in _PHASE_WINDOWS:
        newest = view.samples[:, :, :n]
        yield view.along_steps(mean_of(newest))
        count = (~np.isnan(newest)).sum(axis=2)
        cuts = quantiles_of(np.sort(newest, axis=2), count, tuple(_PHASE_LEVELS.values()))  # (R, S, 3)
        yield from (view.along_steps(cuts[:, :, index]) for index in range(len(_PHASE_LEVELS)))


CALENDAR = (
    Feature("step", "buckets", "1 for the open bucket, 2 for the next, …"),
    Feature("hour", "hours", "local hour of the step, 0 for daily buckets"),
    Feature("weekday", "days", "day of the week, 0 = Monday"),
    Feature("day_of_month", "days", "1 to 31"),
    Feature("month", "months", "1 to 12"),
    Feature("is_open", "0 or 1", "0 where the step is known to be closed"),
)


def _calendar(view: _View) -> Columns:
    step = np.arange(view.horizon)
    start_day, start_hour = view.batch.day[view.tile, None], view.batch.hour[view.tile, None]
    if view.season == 24:
        days, hour = np.divmod(start_hour + step, 24)
        day = start_day + days
    else:
        day, hour = start_day + step, np.zeros((len(view.demand), view.horizon), np.int64)
    date = day.astype("datetime64[D]")
    month = date.astype("datetime64[M]")
    yield np.broadcast_to(step + 1, day.shape)
    yield hour
    yield (day + 3) % 7  # 1970-01-01 was a Thursday
    yield (date - month).astype(np.int64) + 1
    yield month.astype(np.int64) % 12 + 1
    yield view.batch.future_open[view.tile].astype(np.float32)


ANNOUNCED = (
    Feature("promo_known", "as given", "announced promotion of the step: known covariate `promo`"),
    Feature("holiday_known", "as given", "holiday of the step: known covariate `holiday`"),
    Feature(
        "price_known_to_median", "ratio", "known covariate `price` of the step / median price of the last 12 seasons"
    ),
)


def _announced(view: _View) -> Columns:
    yield view.known("promo")
    yield view.known("holiday")
    median = view.channel("price").quantiles(view.span, (0.5,))
    yield ratio(view.known("price"), median)


SERIES: tuple[Group, ...] = (
    (LEVEL, _level), (ACTIVITY, _activity), (PRICE, _price), (INTEREST, _interest), (OPEN_BUCKET, _open_bucket),
)  # fmt: skip
STEPS: tuple[Group, ...] = ((PHASE, _phase), (CALENDAR, _calendar), (ANNOUNCED, _announced))
SERIES_NAMES = tuple(one.name for table, _ in SERIES for one in table)
STEP_NAMES = tuple(one.name for table, _ in STEPS for one in table)
