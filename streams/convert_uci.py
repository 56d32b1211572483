"""UCI "Online Retail" (a year of order lines of a UK gift shop) as events.

In: ``online_retail.parquet`` with the published columns, local UK time.
Out: orders, cancellations, descriptions and list prices as events; on request a simulated stock.
Must not know: the engine. Rule: units per SKU and London day equal a group-by of the source's priced product lines.

References
----------
D. Chen (2015), Online Retail, UCI Machine Learning Repository, data set 352, DOI 10.24432/C5BW33.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from streams.conversion import ConvertSummary, clean, read_table, write_events
from streams.convert_stock import LEAD_LATER, Supply, simulate_stock

TIME_ZONE = "Europe/London"
CURRENCY = "GBP"
COLUMNS: dict[str, pl.DataType] = {
    "InvoiceNo": pl.String(),
    "StockCode": pl.String(),
    "Description": pl.String(),
    "Quantity": pl.Int64(),
    "InvoiceDate": pl.Datetime("ms"),
    "UnitPrice": pl.Float64(),
    "CustomerID": pl.Int64(),
}
PRODUCT = r"^\d{5}[A-Z]*$"
PRICES_AT_MS = 5 * 3_600_000
"""The day's price list is published at 05:00 UTC, before the shop opens (the rule of the price-alert evaluation)."""
PRICE_STEP_MS = 20
"""Between two prices of the nightly list."""
BREAKS = (6, 8, 10, 12, 16, 20, 24, 25, 30, 32, 36, 48, 50, 60, 72, 96, 100, 120, 144)
"""Quantities at which the shop may start its bulk price: packs, dozens, round numbers."""
NOTES = (
    "order_id is the invoice; event ids are invoice and ordinal of the line, so that equal rows stay two lines",
    "cancellations name no original order in the source and carry no original_time",
    "lines at price 0 (gifts and adjustments) and write-offs are no demand and give no event",
    "channel of an order: web when its invoice has a DOT line, bulk at or above the item's quantity break, otherwise "
    "trade; empty where the source has neither a DOT line nor a customer",
    "price_set is the day's most frequent price of a line, published at 05:00 UTC of the same day; the quantity "
    "break is found from the whole file",
    "title: the description most often seen so far; described anew when another takes the lead",
)
SIMULATED = {
    "stock_counted": "an order-up-to inventory reviewed weekly, simulated to serve the real orders; its stock-outs did "
    "not hold back any sale (on_hand turns negative instead)",
    "item_described.locations": "lead times, minimum orders and pack sizes are drawn from the seed",
}
"""What ``with_stock`` adds to the real events; the summary says so."""


def convert_uci(source: Path | str, out: Path | str, *, with_stock: bool = False, seed: int = 0) -> ConvertSummary:
    """Write the data set as events in order of event time.

    Parameters
    ----------
    source
        ``online_retail.parquet``.
    out
        File to write, see `streams.files.EventWriter`.
    with_stock
        Adds a daily ``stock_counted`` per SKU of an invented inventory that serves the real orders.
    seed
        Of the invented inventory.

    Raises
    ------
    ConvertError
        If the source is not this data set.
    FileError
        If the output cannot be written.

    Examples
    --------
    >>> convert_uci("nowhere.parquet", "-")
    Traceback (most recent call last):
    streams.conversion.ConvertError: 'nowhere.parquet' does not exist; check the path
    """
    table = _sorted_out(read_table(source, COLUMNS, time_zone=TIME_ZONE))
    lines = _with_channel(table.filter(pl.col("reason") == ""))
    flows = [("order_placed", _orders(lines)), ("order_cancelled", _cancellations(lines))]
    described = _descriptions(lines)
    facts = [("item_described", described), ("price_set", _prices(lines))]
    if with_stock and len(lines):
        supply, counted = _stock(lines, seed)
        facts = [("item_described", _with_placement(described, supply)), facts[1], ("stock_counted", counted)]
    counts, first, last = write_events([*facts, *flows], out)
    skipped = table.filter(pl.col("reason") != "")
    return ConvertSummary(
        format="uci-online-retail",
        rows=len(table),
        events=counts,
        skipped=_counted(skipped["reason"]),
        codes=_counted(skipped.filter(pl.col("reason") == "not_a_product")["sku"]),
        items=lines["sku"].n_unique(),
        first_ms=first,
        last_ms=last,
        currency=CURRENCY,
        simulated={**SIMULATED, "seed": str(seed)} if with_stock else {},
        notes=NOTES,
    )


def _counted(values: pl.Series) -> dict[str, int]:
    """Number of rows per value, the most frequent first."""
    frame = values.alias("value").value_counts().sort(["count", "value"], descending=[True, False])
    return dict(zip(frame["value"].to_list(), frame["count"].to_list(), strict=True))


def _sorted_out(table: pl.DataFrame) -> pl.DataFrame:
    """Add SKU, UTC time, ids, and the reason why a row is no event (empty where it is one)."""
    local = pl.col("InvoiceDate").dt
    # An hour that summer time skips is read as standard time; one that comes twice, as the first of the two.
    utc = pl.coalesce(
        local.replace_time_zone(TIME_ZONE, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC"),
        local.replace_time_zone("UTC"),
    )
    ordinal = pl.int_range(1, pl.len() + 1).over("InvoiceNo").cast(pl.String)
    table = table.with_row_index("_order").with_columns(
        pl.col("_order").cast(pl.Int64),
        sku=pl.col("StockCode").str.strip_chars().str.to_uppercase(),
        event_time=utc.dt.epoch("ms"),
        day=local.date(),
        event_id=pl.col("InvoiceNo") + "-" + ordinal,
        cancelled=pl.col("InvoiceNo").str.starts_with("C"),
    )
    table = table.with_columns(web=(pl.col("sku") == "DOT").any().over("InvoiceNo"))
    quantity, price = pl.col("Quantity"), pl.col("UnitPrice")
    absent = pl.any_horizontal(
        pl.col(c).is_null() for c in ("InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice")
    )
    unusable = absent | ~price.is_finite() | (price.abs() > 1e9) | (quantity.abs() > 1_000_000)
    unusable |= (pl.col("event_id").str.len_chars() > 64) | (pl.col("sku").str.len_chars() > 128)
    unusable |= pl.col("event_id").str.contains(r"\p{Cc}")
    reasons = (
        ("unusable", unusable),
        ("write_off", ~pl.col("cancelled") & (quantity < 0)),
        ("not_a_product", ~pl.col("sku").str.contains(PRODUCT)),
        ("zero_quantity", quantity == 0),
        ("positive_cancellation", pl.col("cancelled") & (quantity > 0)),
        ("negative_price", ~pl.col("cancelled") & (price < 0)),
        ("zero_price", ~pl.col("cancelled") & (price == 0)),
    )
    names = [pl.when(condition.fill_null(False)).then(pl.lit(name)) for name, condition in reasons]
    return table.with_columns(reason=pl.coalesce(*names, pl.lit("")))


def _with_channel(lines: pl.DataFrame) -> pl.DataFrame:
    """Add the sales channel of each order line, see `NOTES`."""
    orders = lines.filter(~pl.col("cancelled"), ~pl.col("web"), pl.col("CustomerID").is_not_null())
    breaks = _quantity_breaks(orders)
    at_break = pl.col("Quantity") >= pl.col("break").fill_null(np.inf)
    channel = (
        pl.when("web").then(pl.lit("web")).when(pl.col("CustomerID").is_null()).then(pl.lit(""))
        .when(at_break).then(pl.lit("bulk")).otherwise(pl.lit("trade"))
    )  # fmt: skip
    return lines.join(breaks, on="sku", how="left", maintain_order="left").with_columns(channel=channel)


def _quantity_breaks(orders: pl.DataFrame) -> pl.DataFrame:
    """Quantity from which an item costs less, per SKU that has one."""
    found: list[tuple[str, float]] = []
    grouped = orders.sort("sku", "UnitPrice").group_by("sku", maintain_order=True)
    for sku, quantities, prices in grouped.agg("Quantity", "UnitPrice").iter_rows():
        at = quantity_break(np.array(quantities), np.log(np.array(prices)))
        if np.isfinite(at):
            found.append((sku, at))
    return pl.DataFrame(found, {"sku": pl.String, "break": pl.Float64}, orient="row")


def quantity_break(quantities: npt.NDArray[np.int64], log_prices: npt.NDArray[np.float64]) -> float:
    """Find the quantity that splits an item's prices best in two, infinite when the split explains too little.

    Best: the threshold of `BREAKS` that leaves the least absolute deviation of log prices from the median on either
    side, if that is below 70 % of the deviation without a split.

    Parameters
    ----------
    quantities
        Units per order line.
    log_prices
        Logarithm of the unit price of each line, ascending.

    Examples
    --------
    >>> quantity_break(np.repeat([1, 12], 20), np.repeat([0.1, 0.5], 20))
    6.0
    """
    base, best, at = _deviation(log_prices), np.inf, np.inf
    largest = quantities.max(initial=0)
    for threshold in BREAKS:
        if threshold > largest:
            break
        large = quantities >= threshold
        above = int(large.sum())
        if above < 5 or len(large) - above < 10:
            continue
        left = _deviation(log_prices[~large]) + _deviation(log_prices[large])
        if left < best:
            best, at = left, float(threshold)
    return at if best < 0.7 * base else np.inf


def _deviation(ascending: npt.NDArray[np.float64]) -> float:
    """Sum of absolute deviations from the median."""
    if len(ascending) == 0:
        return 0.0
    median = (ascending[(len(ascending) - 1) // 2] + ascending[len(ascending) // 2]) / 2
    return float(np.abs(ascending - median).sum())


def _orders(lines: pl.DataFrame) -> pl.DataFrame:
    return lines.filter(~pl.col("cancelled")).select(
        "event_id",
        "event_time",
        "sku",
        order_id="InvoiceNo",
        quantity="Quantity",
        unit_price="UnitPrice",
        currency=pl.lit(CURRENCY),
        channel="channel",
        _order="_order",
    )


def _cancellations(lines: pl.DataFrame) -> pl.DataFrame:
    return lines.filter("cancelled").select(
        "event_id", "event_time", "sku", order_id="InvoiceNo", quantity=-pl.col("Quantity"), _order="_order"
    )


def _descriptions(lines: pl.DataFrame) -> pl.DataFrame:
    """Describe an item at first sight, and again whenever another description has been seen more often.

    The first description comes with the day's price list, so that no event of an item goes before it.
    """
    published = pl.col("day").cast(pl.Datetime("ms")).dt.epoch("ms") + PRICES_AT_MS
    on_list = pl.when(pl.int_range(pl.len()).over("sku") == 0).then(published)
    seen = lines.select(
        "sku",
        pl.min_horizontal("event_time", on_list),
        "_order",
        "event_id",
        title=clean("Description"),
    )
    first = seen.group_by("sku", maintain_order=True).first().filter(pl.col("title").fill_null("") == "")
    named = seen.filter(pl.col("title").fill_null("") != "").with_columns(
        times=pl.int_range(1, pl.len() + 1).over("sku", "title")
    )
    best_before = pl.col("times").cum_max().shift(1, fill_value=0).over("sku")
    leads = named.filter(pl.col("times") > best_before)
    changes = leads.filter(pl.col("title").ne_missing(pl.col("title").shift(1).over("sku")))
    both = pl.concat([first.select(seen.columns), changes.select(seen.columns)]).sort("_order", maintain_order=True)
    return both.select(
        event_id=pl.lit("d-") + pl.col("event_id").str.head(62),
        event_time="event_time",
        sku="sku",
        title=pl.col("title").fill_null(""),
        _order="_order",
    )


def _prices(lines: pl.DataFrame) -> pl.DataFrame:
    """List price of each line (SKU and channel) and trading day.

    The day's most frequent price counts when two invoices of the day agree on it or when it repeats the line's last.
    """
    line, agreed = ["sku", "channel"], pl.col("invoices") >= 2
    daily = (
        lines.filter(~pl.col("cancelled"), pl.col("channel") != "")
        .group_by(*line, "day", price="UnitPrice")
        .agg(invoices=pl.col("InvoiceNo").n_unique())
        .sort(*line, "day", "invoices", "price", descending=[False, False, False, True, False])
        .unique([*line, "day"], keep="first", maintain_order=True)
    )
    last = pl.when(agreed).then("price").forward_fill().over(line)
    kept = daily.filter(agreed | (pl.col("price") == last)).sort("day", *line)
    place = pl.int_range(pl.len()).over("day") * PRICE_STEP_MS
    return kept.select(
        event_id=pl.format("p-{}-{}-{}", "sku", "channel", pl.col("day").dt.strftime("%Y%m%d")).str.tail(64),
        event_time=pl.col("day").cast(pl.Datetime("ms")).dt.epoch("ms") + PRICES_AT_MS + place,
        sku="sku",
        price="price",
        currency=pl.lit(CURRENCY),
        channel="channel",
        _order=pl.int_range(pl.len()).cast(pl.Int64),
    )


def _stock(lines: pl.DataFrame, seed: int) -> tuple[Supply, pl.DataFrame]:
    """Simulated inventory that serves the net units of each SKU and day."""
    skus = lines["sku"].unique().sort()
    first_day = lines["day"].min()
    at = (pl.col("day") - pl.lit(first_day)).dt.total_days()
    cells = lines.group_by("sku", at.alias("at")).agg(units=pl.col("Quantity").sum())  # cancellations are negative
    item = cells["sku"].replace_strict(skus, pl.Series(range(len(skus))), return_dtype=pl.Int64).to_numpy()
    days = int(str(cells["at"].max())) + 1
    units = np.zeros((days, len(skus)), np.int64)
    units[cells["at"].to_numpy(), item] = cells["units"].to_numpy()
    born = np.full(len(skus), days, np.int64)
    np.minimum.at(born, item, cells["at"].to_numpy())
    day0_ms = int(np.datetime64(str(first_day), "ms").astype(np.int64))
    return simulate_stock(skus.to_list(), units, born, day0_ms=day0_ms, seed=seed)


def _with_placement(described: pl.DataFrame, supply: Supply) -> pl.DataFrame:
    """Add how each item is supplied to its descriptions."""
    placed = pl.DataFrame({"sku": supply.skus, "lead": supply.lead_days, "pack": supply.pack, "moq": supply.moq})
    lead = pl.struct(
        mean=pl.col("lead") + float(LEAD_LATER.mean()), p90=pl.col("lead") + float(np.quantile(LEAD_LATER, 0.9))
    )
    placement = pl.struct(lead_time_days=lead, moq="moq", pack_size="pack")
    joined = described.join(placed, on="sku", how="left", maintain_order="left")
    return joined.with_columns(locations=pl.struct(default=placement)).select(
        *[column for column in described.columns if column != "_order"], "locations", "_order"
    )
