"""What a series costs: rows of all arrays, and the Python objects measured around them, within 4 KiB."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from dataclasses import replace

import numpy as np

from streams.decode import decode
from streams.engine import Engine, EngineConfig
from tests.small_shop import CLOCK, MINUTE, NOON, Event, described, lines, order, price, stock

BUDGET = 4096
SERIES = 1000
RUNS_BYTES = 104
"""What forecasts of prices keep of a line, beyond the budget (adr/0005)."""
WITHOUT = EngineConfig(max_series=SERIES, price_model="off")


def row_bytes(engine: Engine) -> dict[str, int]:
    """Bytes of one row in the arrays of every part."""
    return {
        "panes": engine.panes.row_bytes,
        "outcomes": engine.outcomes.row_bytes,
        "positions": engine.positions.row_bytes,
        "replenishment": engine.replenishment.row_bytes,
        "price lines": engine.prices.lines.row_bytes,
        "runs of prices": engine.price_forecasts.row_bytes,
        "rates": engine.refresh.table.row_bytes,
        "listed": engine.listed.row_bytes,
        "first bucket and zone": engine.buckets.series.row_bytes,
        "dirty and seed": 1 + engine.series.id_seed.itemsize,
    }


def everything_about(n: int) -> list[Event]:
    """A described, priced, counted and sold item, with names as shops have them."""
    sku = f"85123A-{n:06d}"
    title = f"WHITE HANGING HEART T-LIGHT HOLDER {n}"
    placement = {"lead_time_days": {"mean": 9, "p90": 13}, "moq": 24, "pack_size": 12}
    return [
        described(NOON, sku, title=title, category=f"c{n % 40}", unit_cost=2.5, cost_currency="EUR",
                  supplier_id=f"supplier-{n % 99}", locations={"default": placement}),
        price(NOON, 9.99, sku),
        stock(NOON, 500, sku),
        order(NOON + n % 50 * MINUTE, 2, sku),
    ]  # fmt: skip


def filled(items: int, *, catalog: bool) -> tuple[Engine, int]:
    """An engine that has seen that many items, and the bytes by which it grew beyond its arrays of rows."""
    engine = Engine(WITHOUT)
    records = [record for n in range(items) for record in lines(everything_about(n)[not catalog :])]
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    for start in range(0, len(records), 500):
        batch, _ = decode(records[start : start + 500], clock_ms=CLOCK)
        batch.tick_ms[:] = np.maximum.accumulate(batch.time_ms)
        engine.process(batch)
        engine.discard_changes()
        del batch
    gc.collect()
    return engine, tracemalloc.get_traced_memory()[0] - before


def objects_per_series(*, catalog: bool) -> float:
    """Bytes of keys, strings, catalog entries and indexes.

    The table of ids grows with events, that of hot series stops at 2,048: both are left out.
    """
    filled(10, catalog=catalog)  # what is imported and cached at first use is no series'
    tracemalloc.start()
    engine, used = filled(SERIES, catalog=catalog)
    tracemalloc.stop()
    assert len(engine.series) == SERIES
    hot = engine.series._hot
    hot_bytes = sys.getsizeof(hot) + sum(map(sys.getsizeof, hot.values()))
    return (used - engine.intake._dedupe.memory_bytes - hot_bytes) / SERIES


def cost(*, catalog: bool) -> float:
    rows = row_bytes(Engine(replace(WITHOUT, max_series=10)))
    objects = objects_per_series(catalog=catalog)
    print(f"arrays {sum(rows.values())} B {rows}, objects {objects:.0f} B per series")  # noqa: T201  shown with -s
    return sum(rows.values()) + objects


def test_keys_and_indexes_of_a_series_with_a_price_line_stay_below_400_bytes() -> None:
    rows = sum(row_bytes(Engine(replace(WITHOUT, max_series=10))).values())
    assert rows <= 3840
    assert cost(catalog=False) - rows <= 400


def test_a_series_with_its_price_line_position_and_keys_costs_at_most_four_kibibytes() -> None:
    assert cost(catalog=False) <= BUDGET


def test_forecasts_of_prices_keep_104_bytes_of_a_line_more() -> None:
    kept = row_bytes(Engine(EngineConfig(max_series=10)))["runs of prices"]
    assert kept == RUNS_BYTES


def test_a_catalog_entry_with_its_title_adds_at_most_450_bytes() -> None:
    """Beyond the budget of a series: one entry an item, however many locations, and text has its own length."""
    assert cost(catalog=True) - cost(catalog=False) <= 450
