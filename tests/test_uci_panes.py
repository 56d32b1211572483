"""The panes of real events hold what an independent group-by of the source says."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from streams.calendar import Width
from streams.convert import convert_uci
from streams.engine import EngineConfig
from streams.files import read_records
from streams.panes import UNIT
from streams.replay import Replay, ReplayConfig

SOURCE = Path(__file__).parents[1].parent / "shared" / "data" / "uci_online_retail" / "online_retail.parquet"
FIRST, LAST = date(2011, 11, 1), date(2011, 12, 6)  # the busiest weeks; the days after LAST are not final at the end


@pytest.mark.data
@pytest.mark.skipif(not SOURCE.exists(), reason="the evaluation data is not beside the checkout")
def test_units_per_sku_and_london_day_equal_a_group_by_of_the_source(tmp_path: Path) -> None:
    events = tmp_path / "uci.jsonl"
    convert_uci(SOURCE, events)
    config = ReplayConfig(
        engine=EngineConfig(max_series=5_000, time_zone="Europe/London", base_currency="GBP", width=Width.DAY),
        clock_ms=1_700_000_000_000,
        forecasts="last",
    )
    player = Replay(config, lambda outputs: None)
    wanted = (b'{"type":"order_placed"', b'{"type":"order_cancelled"')
    for chunk in read_records(events):
        flows = [
            r for r in chunk if r.startswith(wanted) and int(r.split(b'"event_time":')[1][:13]) >= 1_320_105_600_000
        ]
        if flows:
            player.feed(flows)
    [engine] = player.engines
    zone = engine.buckets.zones[0]
    found = {}
    for slot in engine.series.live().tolist():
        sku, _ = engine.series.key(slot)
        for day in range(zone.zone.number_of(FIRST), zone.zone.number_of(LAST) + 1):
            column = day % engine.panes.config.buckets
            amounts = [round(float(engine.panes.ring[name][slot, column]) * UNIT) for name in ("units", "cancelled")]
            if any(amounts):
                found[sku, day] = amounts
    assert found == expected()


def expected() -> dict[tuple[str, int], list[int]]:
    """Ordered and cancelled thousandths per SKU and local day, straight from the source."""
    lines = pl.read_parquet(SOURCE).with_columns(
        sku=pl.col("StockCode").str.to_uppercase().str.strip_chars(), day=pl.col("InvoiceDate").dt.date()
    )
    lines = lines.filter(
        pl.col("sku").str.contains(r"^\d{5}[A-Z]*$") & (pl.col("UnitPrice") > 0) & pl.col("day").is_between(FIRST, LAST)
    )
    is_cancelled = pl.col("InvoiceNo").str.starts_with("C")
    days = lines.group_by("sku", "day").agg(
        units=pl.col("Quantity").filter((pl.col("Quantity") > 0) & ~is_cancelled).sum(),
        cancelled=-pl.col("Quantity").filter((pl.col("Quantity") < 0) & is_cancelled).sum(),
    )
    return {
        (sku, (day - date(1970, 1, 1)).days): [units * UNIT, cancelled * UNIT]
        for sku, day, units, cancelled in days.iter_rows()
        if units or cancelled
    }
