"""Series per second of the baseline, alone and through the executor, of its pool and the features, on one core.

In: sizes. Out: a table, or JSON with ``--json``.
Must not know: anything but `models`. Rule: the figure is the median of CPU seconds of this process.

Run: ``python -m load_tests.baseline``.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from models.baseline import SeasonalWindow, pool_of
from models.executor import Executor
from models.features import features
from models.forecast import ForecastBatch

CHANNELS = ("units", "cancelled", "orders", "views", "carts", "price", "promo", "in_stock")


def main() -> None:
    """Measure each case and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=4096, help="rows per batch")
    parser.add_argument("--context", type=int, default=84, help="buckets of history")
    parser.add_argument("--horizon", type=int, default=28, help="steps to forecast")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    if min(options.series, options.context, options.horizon, options.repeats) < 1:
        parser.error("series, context, horizon and repeats must be at least 1")
    figures = run(options.series, options.context, options.horizon, options.repeats)
    machine = f"{platform.processor() or platform.machine()}, numpy {np.__version__}"
    shape = {name: getattr(options, name) for name in ("series", "context", "horizon")}
    if options.json:
        print(json.dumps({"machine": machine, **shape, "series_per_cpu_s": figures}))
        return
    print(machine, *(f"{name}={value}" for name, value in shape.items()))
    for name, speed in figures.items():
        print(f"{name:34s} {speed:>9,} series/s  {1e6 / speed:6.2f} µs a series")


def run(series: int, context: int, horizon: int, repeats: int) -> dict[str, int]:
    """Give series per CPU second of each case."""
    full, gappy = shop(series, context, horizon), _with_gaps(shop(series, context, horizon))
    pooled = replace(gappy, pool=pool_of(gappy, 50))
    series_only = replace(gappy, future_open=gappy.future_open[:, :0])
    baseline = SeasonalWindow()
    executor = Executor(baseline, fallback=baseline, timeout_s=60, rows=series)
    cases: dict[str, Callable[[], object]] = {
        "forecast, full histories": lambda: baseline.forecast(full),
        "the same through the executor": lambda: executor.submit(full).result(),
        "forecast, young and closed mixed in": lambda: baseline.forecast(pooled),
        "pool of 50 groups": lambda: pool_of(full, 50),
        "features, per series": lambda: features(series_only),
        "features, with steps": lambda: features(gappy),
    }
    figures = {name: round(series / _seconds(work, repeats)) for name, work in cases.items()}
    executor.close()
    return figures


def _seconds(work: Callable[[], object], repeats: int) -> float:
    work()  # warm-up: tables and pages
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return statistics.median(spent)


def shop(rows: int, buckets: int, horizon: int) -> ForecastBatch:
    """Series of all sizes with full histories, as a batch for a forecaster."""
    random = np.random.default_rng(20100412)
    level = random.gamma(0.7, 5, (rows, 1))
    return ForecastBatch(
        demand=random.poisson(level, (rows, buckets)).astype(np.float32),
        is_open=np.ones((rows, buckets), bool),
        future_open=np.ones((rows, horizon), bool),
        observed=np.zeros(rows, np.float32),
        elapsed=np.zeros(rows, np.float32),
        day=np.full(rows, 15_000),
        hour=np.zeros(rows, np.int64),
        season=7,
        group=random.integers(-1, 50, rows).astype(np.int32),
        channels={name: random.poisson(3, (rows, buckets)).astype(np.float32) for name in CHANNELS},
    )


def _with_gaps(batch: ForecastBatch) -> ForecastBatch:
    """A third of the rows younger than the context, a tenth of them cold, and closed days for another third."""
    random = np.random.default_rng(1)
    demand, is_open = batch.demand.copy(), batch.is_open.copy()
    rows, buckets = demand.shape
    age = np.where(random.random(rows) < 1 / 3, random.integers(0, buckets, rows), buckets)
    demand[np.arange(buckets) < (buckets - age)[:, None]] = np.nan
    shut = random.random(rows) < 1 / 3
    is_open[shut] = random.random((np.count_nonzero(shut), buckets)) > 0.03
    return replace(batch, demand=demand, is_open=is_open)


if __name__ == "__main__":
    main()
