"""REES46 multi-category store (a clickstream with purchases) as events.

In: ``events.parquet`` with the published columns, times in UTC.
Out: views, carts and single-unit orders, with descriptions and prices as they were first shown.
Must not know: the engine. Rule: every row is one flow event or counted; nothing is known before it was shown.

References
----------
M. Kechinov, eCommerce behavior data from multi category store, REES46 Marketing Platform (https://rees46.com).
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from streams.conversion import ConvertError, ConvertSummary, clean, read_table, write_events

COLUMNS: dict[str, pl.DataType] = {
    "event_time": pl.Datetime("ms"),
    "event_type": pl.String(),
    "product_id": pl.String(),
    "category_id": pl.String(),
    "category_code": pl.String(),
    "brand": pl.String(),
    "price": pl.Float64(),
    "user_session": pl.String(),
}
TYPES = {
    "view": "item_viewed",
    "cart": "cart_added",
    "remove_from_cart": "cart_removed",
    "purchase": "order_placed",
}
NOTES = (
    "the source has no order ids: order_id is the session and the ordinal of the purchase in it; quantity is 1",
    "event ids are the ordinal of the row in the source",
    "price_set when a product is first shown and whenever it is shown at another price, zero included",
    "there are no titles: brand and the last part of the category stand in",
)


def convert_rees46(source: Path | str, out: Path | str, *, currency: str = "USD") -> ConvertSummary:
    """Write the data set as events in order of event time.

    Parameters
    ----------
    source
        ``events.parquet``.
    out
        File to write, see `streams.files.EventWriter`.
    currency
        ISO 4217 code of the prices, which the source does not state.

    Raises
    ------
    ConvertError
        If the source is not this data set.
    FileError
        If the output cannot be written.

    Examples
    --------
    >>> convert_rees46("nowhere.parquet", "-", currency="dollars")
    Traceback (most recent call last):
    streams.conversion.ConvertError: 'dollars' is no currency code; give three capital letters such as USD
    """
    if not (len(currency) == 3 and currency.isascii() and currency.isalpha() and currency.isupper()):
        raise ConvertError(source, f"{currency!r} is no currency code; give three capital letters such as USD")
    table = _sorted_out(read_table(source, COLUMNS))
    rows = table.filter(pl.col("reason") == "").sort("event_time", "_order")
    clicks = [(kind, _clicks(rows, name)) for name, kind in TYPES.items() if kind != "order_placed"]
    facts = [("item_described", _descriptions(rows)), ("price_set", _prices(rows, currency))]
    counts, first, last = write_events([*facts, *clicks, ("order_placed", _orders(rows, currency))], out)
    skipped = table.filter(pl.col("reason") != "")["reason"].value_counts().sort("reason")
    return ConvertSummary(
        format="rees46",
        rows=len(table),
        events=counts,
        skipped=dict(zip(skipped["reason"].to_list(), skipped["count"].to_list(), strict=True)),
        codes={},
        items=rows["sku"].n_unique(),
        first_ms=first,
        last_ms=last,
        currency=currency,
        notes=(*NOTES, f"the source states no currency; {currency} is assumed"),
    )


def _sorted_out(table: pl.DataFrame) -> pl.DataFrame:
    """Add ids and the reason why a row is no event (empty where it is one)."""
    table = table.with_row_index("_order", offset=1).with_columns(
        pl.col("_order").cast(pl.Int64),
        event_time=pl.col("event_time").dt.epoch("ms"),
        sku=pl.col("product_id"),
        session=pl.col("user_session").fill_null(""),
    )
    price = pl.col("price")
    absent = pl.any_horizontal(pl.col(c).is_null() for c in ("event_time", "event_type", "sku", "price"))
    no_id = pl.any_horizontal(
        (pl.col(c).str.len_chars() > 100) | pl.col(c).str.contains(r"\p{Cc}") for c in ("sku", "session")
    )
    reasons = (
        ("unusable", absent | ~price.is_finite() | (price.abs() > 1e9) | no_id | (pl.col("sku") == "")),
        ("unknown_type", ~pl.col("event_type").is_in(list(TYPES))),
        ("no_session", (pl.col("session") == "")),
        ("negative_price", (pl.col("event_type") == "purchase") & (price < 0)),
    )
    names = [pl.when(condition.fill_null(False)).then(pl.lit(name)) for name, condition in reasons]
    return table.with_columns(reason=pl.coalesce(*names, pl.lit("")))


def _id(letter: str) -> pl.Expr:
    return pl.lit(letter + "-") + pl.col("_order").cast(pl.String)


def _clicks(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    return rows.filter(pl.col("event_type") == name).select(
        event_id=_id("r"), event_time="event_time", sku="sku", session_id="session", _order="_order"
    )


def _orders(rows: pl.DataFrame, currency: str) -> pl.DataFrame:
    ordinal = pl.int_range(1, pl.len() + 1).over("session").cast(pl.String)
    return rows.filter(pl.col("event_type") == "purchase").select(
        event_id=_id("r"),
        event_time="event_time",
        sku="sku",
        order_id=pl.col("session") + "-" + ordinal,
        quantity=pl.lit(1),
        unit_price="price",
        currency=pl.lit(currency),
        _order="_order",
    )


def _prices(rows: pl.DataFrame, currency: str) -> pl.DataFrame:
    changed = pl.col("price").ne_missing(pl.col("price").shift(1).over("sku"))
    return rows.filter(changed).select(
        event_id=_id("p"),
        event_time="event_time",
        sku="sku",
        price="price",
        currency=pl.lit(currency),
        _order="_order",
    )


def _descriptions(rows: pl.DataFrame) -> pl.DataFrame:
    """Describe a product at first sight and when its brand or category changes."""
    category = pl.coalesce("category_code", "category_id", pl.lit(""))
    shown = rows.select("_order", "event_time", "sku", "brand", "category_code", category=category)
    what = pl.struct("brand", "category")
    shown = shown.filter(what.ne_missing(what.shift(1).over("sku")))
    last_part = pl.col("category_code").str.split(".").list.last().str.replace_all("_", " ")
    return shown.select(
        event_id=_id("d"),
        event_time="event_time",
        sku="sku",
        title=clean(pl.concat_str("brand", last_part, separator=" ", ignore_nulls=True)),
        category=clean("category"),
        brand=clean("brand"),
        _order="_order",
    )
