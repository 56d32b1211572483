"""Series per second of the batches that an engine hands to its forecaster, on one core.

In: nothing. Out: a table, or ``--json``.
Must not know: forecasters. Rule: gathering a batch, what young rows borrow included, is all that is timed.

``plain`` is what the baseline reads; ``encoder`` has prices, weeks, covariates and attributes; ``calendar`` has named
days besides; ``young`` is a batch of series in their first week alone, which borrow.

Run: ``python -m load_tests.refresh [--series N] [--repeats N] [--json]``.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import date
from typing import Any

import numpy as np

from streams.calendar import day_number
from streams.catalog import Item
from streams.engine import Engine, EngineConfig
from streams.refresh import TILE_ROWS, Refresh

OPENED = day_number(date(2024, 6, 3))
DAY_MS = 86_400_000


def engine_of(series: int, *, days_named: bool, young: bool = False) -> Engine:
    """An engine with full rings: a price for every series, a promotion for some, a category and a brand."""
    rng, engine = np.random.default_rng(1), Engine(EngineConfig(max_series=series))
    for n in range(series):
        item = Item(1, f"item {n}", f"category {n % 30}", f"brand {n % 200}", None, "", "", "")
        engine.catalog.describe(f"S{n}", item)
        slot = engine.add_series(f"S{n}", "default", (OPENED - (n % 6 if young and n % 8 else 200)) * DAY_MS)
        engine.listed.set(slot, "web", 5.0, time_ms=(OPENED - 9) * DAY_MS, promo=n % 9 == 0, until_ms=OPENED * DAY_MS)
    for state in engine.buckets.zones:
        state.open, state.final, state.week = OPENED, OPENED, (OPENED + 3) // 7
    engine.panes.ring["units"][:] = rng.poisson(rng.gamma(0.5, 8, (series, 1)), engine.panes.ring["units"].shape)
    engine.panes.ring["price"][:] = 5.0
    engine.panes.ring["shelf"][:] = rng.random(engine.panes.ring["shelf"].shape) < 0.1
    if days_named:
        for n in range(-20, 20):
            engine.holidays.describe(OPENED + 9 * n, "", f"day {n}", "holiday", is_open=n % 2 == 0, time_ms=1)
    return engine


def rate(engine: Engine, channels: tuple[str, ...], repeats: int) -> float:
    """Series per second over all tiles of an engine, the median of some rounds; the first warms up."""
    refresh = Refresh(
        engine.refresh.forecaster, 28, engine.series, engine.buckets, engine.catalog, engine.listed, engine.holidays,
        channels=channels,
    )  # fmt: skip
    refresh.table["group"][:] = engine.refresh.table["group"]
    refresh.expect_pool()
    live, took = engine.series.live(), list[float]()
    for _ in range(repeats + 1):
        began = time.perf_counter()
        for start in range(0, len(live), TILE_ROWS):
            refresh.request(live[start : start + TILE_ROWS], 0, OPENED * DAY_MS, at_close=True)
        took.append(time.perf_counter() - began)
    return float(len(live) / np.median(took[1:]))


def measured(series: int, repeats: int) -> dict[str, Any]:
    """All figures."""
    plain, named = engine_of(series, days_named=False), engine_of(series, days_named=True)
    young = engine_of(series, days_named=False, young=True)
    return {
        "plain": round(rate(plain, (), repeats)),
        "encoder": round(rate(plain, ("price",), repeats)),
        "calendar": round(rate(named, ("price",), repeats)),
        "young": round(rate(young, (), repeats)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=20_480)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    figures = measured(options.series, options.repeats)
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:10s} {value:10,d} series/s")


if __name__ == "__main__":
    main()
