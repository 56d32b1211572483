"""Public data sets as events: each trap of the real data on a handmade table, and the real year beside a group-by."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from streams.convert import ConvertError, ConvertSummary, convert_rees46, convert_uci
from streams.convert_stock import simulate_stock
from streams.convert_uci import quantity_break
from streams.decode import decode
from streams.files import read_records

SHARED = Path(__file__).parents[1].parent / "shared"
UCI = SHARED / "data" / "uci_online_retail" / "online_retail.parquet"
REES46 = SHARED / "data" / "rees46_multicategory_head" / "events.parquet"
CLOCK_MS = 1_900_000_000_000


Row = dict[str, Any]
SCHEMA: dict[str, pl.DataType] = {
    "InvoiceNo": pl.String(),
    "StockCode": pl.String(),
    "Description": pl.String(),
    "Quantity": pl.Int32(),
    "InvoiceDate": pl.Datetime("ms"),
    "UnitPrice": pl.Float64(),
    "CustomerID": pl.Int32(),
}


def line(invoice: str, code: str, quantity: int, price: float, at: str = "2011-01-10 10:00", **more: Any) -> Row:
    row = {"InvoiceNo": invoice, "StockCode": code, "Description": "TEA POT", "Quantity": quantity, "UnitPrice": price}
    return {**row, "InvoiceDate": dt.datetime.fromisoformat(at), "CustomerID": 7, "Country": "United Kingdom", **more}


def uci(tmp_path: Path, *rows: Row, **settings: Any) -> tuple[ConvertSummary, list[Row]]:
    """Convert handmade rows; every event written must be one that the engine accepts."""
    pl.DataFrame(list(rows), schema_overrides=SCHEMA).write_parquet(tmp_path / "uci.parquet")
    return converted(tmp_path, convert_uci(tmp_path / "uci.parquet", tmp_path / "e.jsonl", **settings))


def converted(tmp_path: Path, summary: ConvertSummary) -> tuple[ConvertSummary, list[Row]]:
    raw = [value for chunk in read_records(tmp_path / "e.jsonl") for value in chunk]
    batch, letters = decode(raw, clock_ms=CLOCK_MS)
    assert letters == []
    assert len(batch) == sum(summary.events.values())
    events = [json.loads(value) for value in raw]
    assert Counter(e["type"] for e in events) == summary.events
    assert [e["event_time"] for e in events] == sorted(e["event_time"] for e in events)
    assert len({e["event_id"] for e in events}) == len(events)
    flows = sum(n for kind, n in summary.events.items() if kind.split("_")[0] in ("order", "item", "cart"))
    described = summary.events.get("item_described", 0)
    assert flows - described + sum(summary.skipped.values()) == summary.rows
    assert json.loads(json.dumps(summary.as_dict()))["rows"] == summary.rows
    return summary, events


def of(events: list[Row], kind: str) -> list[Row]:
    return [event for event in events if event["type"] == kind]


def test_an_order_line_becomes_an_order_in_utc(tmp_path: Path) -> None:
    _, events = uci(tmp_path, line("536365", "85123a ", 6, 2.55, "2011-07-01 08:26"))
    [order] = of(events, "order_placed")
    assert order == {
        "type": "order_placed",
        "event_id": "536365-1",
        "event_time": 1309505160000,  # 07:26 UTC, in summer time
        "sku": "85123A",
        "order_id": "536365",
        "quantity": 6,
        "unit_price": 2.55,
        "currency": "GBP",
        "channel": "trade",
    }


def test_the_hour_that_comes_twice_or_never_gives_a_time(tmp_path: Path) -> None:
    _, events = uci(
        tmp_path,
        line("1", "10000", 1, 1.0, "2011-03-27 01:30"),  # never on the clock: as standard time
        line("2", "10000", 1, 1.0, "2011-10-30 01:30"),  # twice: the first, still summer time
    )
    utc = [dt.datetime.fromtimestamp(e["event_time"] / 1000, dt.UTC).isoformat() for e in of(events, "order_placed")]
    assert utc == ["2011-03-27T01:30:00+00:00", "2011-10-30T00:30:00+00:00"]


def test_equal_rows_are_two_lines_with_two_ids(tmp_path: Path) -> None:
    _, events = uci(tmp_path, line("1", "10000", 2, 1.0), line("1", "10000", 2, 1.0), line("2", "10000", 2, 1.0))
    assert [e["event_id"] for e in of(events, "order_placed")] == ["1-1", "1-2", "2-1"]


def test_a_c_invoice_is_a_cancellation_of_positive_quantity(tmp_path: Path) -> None:
    _, events = uci(tmp_path, line("581483", "23843", 80995, 2.08), line("C581484", "23843", -80995, 2.08))
    [cancelled] = of(events, "order_cancelled")
    assert (cancelled["quantity"], cancelled["order_id"], "original_time" in cancelled) == (80995, "C581484", False)


def test_what_is_no_demand_is_counted_by_reason(tmp_path: Path) -> None:
    summary, events = uci(
        tmp_path,
        line("1", "10000", -5, 0.0),
        line("1", "POST", 1, 18.0),
        line("1", "bank charges", 1, 15.0),
        line("1", "POST", -1, 18.0),
        line("1", "10000", 7, 0.0),
        line("1", "10000", 7, -1.5),
        line("1", "10000", 0, 1.5),
        line("C1", "10000", 7, 1.5),
        line("C1", "M", -1, 1.5),
        line("1", "10000", 7, float("nan")),
        line("1", "10000", 2_000_000, 1.0),
        line("1", "10000", 1, 1.0, CustomerID=None),
    )
    assert summary.skipped == {
        "not_a_product": 3, "unusable": 2, "write_off": 2, "negative_price": 1, "positive_cancellation": 1,
        "zero_price": 1, "zero_quantity": 1,
    }  # fmt: skip
    assert summary.codes == {"BANK CHARGES": 1, "M": 1, "POST": 1}
    assert [e["event_id"] for e in of(events, "order_placed")] == ["1-10"]


def test_the_channel_follows_the_dot_line_and_the_quantity_break(tmp_path: Path) -> None:
    trade = [line(f"t{n}", "10000", 1, 2.0) for n in range(20)]
    bulk = [line(f"b{n}", "10000", 12, 1.0) for n in range(10)]
    web = [line("w", "10000", 24, 4.0, CustomerID=None), line("w", "DOT", 1, 9.0, CustomerID=None)]
    unknown = [line("u", "10000", 12, 4.0, CustomerID=None)]
    _, events = uci(tmp_path, *trade, *bulk, *web, *unknown)
    channels = {e["order_id"][0]: e["channel"] for e in of(events, "order_placed")}
    assert channels == {"t": "trade", "b": "bulk", "w": "web", "u": ""}


def test_a_break_must_explain_the_prices() -> None:
    assert quantity_break(np.repeat([1, 12], 20), np.repeat([0.1, 0.5], 20)) == 6  # the first of equal thresholds
    assert quantity_break(np.tile([1, 12], 20), np.repeat([0.1, 0.5], 20)) == np.inf
    assert quantity_break(np.array([1, 12]), np.array([0.1, 0.5])) == np.inf


def test_a_price_needs_two_invoices_or_the_price_of_before(tmp_path: Path) -> None:
    days = {
        "2011-01-10": [3.0, 3.0, 2.0],  # two invoices agree
        "2011-01-11": [9.0],  # one invoice, a new price: no event
        "2011-01-12": [3.0],  # one invoice, the price of before
        "2011-01-13": [4.0, 4.0, 3.0, 3.0],  # a tie: the lower one
        "2011-01-14": [5.0, 5.0],
    }
    rows = [
        line(f"{day}-{n}", "10000", 1, price, f"{day} 12:00")
        for day, prices in days.items()
        for n, price in enumerate(prices)
    ]
    _, events = uci(tmp_path, *rows)
    prices = of(events, "price_set")
    at = [dt.datetime.fromtimestamp(e["event_time"] / 1000, dt.UTC) for e in prices]
    assert [(f"{t:%d %H:%M}", e["price"]) for t, e in zip(at, prices, strict=True)] == [
        ("10 05:00", 3.0), ("12 05:00", 3.0), ("13 05:00", 3.0), ("14 05:00", 5.0),
    ]  # fmt: skip


def test_an_item_is_described_before_anything_else_and_anew_when_another_title_leads(tmp_path: Path) -> None:
    titles = [None, "  DAMAGED? ", "RED POT", "RED POT", "DAMAGED?", "DAMAGED?", "RED POT", "RED\tPOT "]
    rows = [line(str(n), "10000", 1, 1.0, f"2011-01-1{n} 12:00", Description=t) for n, t in enumerate(titles)]
    _, events = uci(tmp_path, *rows)
    assert events[0]["type"] == "item_described"
    assert [(e["event_id"], e["title"]) for e in of(events, "item_described")] == [
        ("d-0-1", ""), ("d-1-1", "DAMAGED?"), ("d-3-1", "RED POT"), ("d-5-1", "DAMAGED?"), ("d-7-1", "RED POT"),
    ]  # fmt: skip


def test_stock_is_written_on_request_only_and_marked_as_simulated(tmp_path: Path) -> None:
    rows = [line(str(n), "10000", 3, 1.0, f"2011-01-{n:02d} 12:00") for n in range(3, 29)]
    summary, events = uci(tmp_path, *rows)
    assert (of(events, "stock_counted"), dict(summary.simulated)) == ([], {})
    assert "locations" not in of(events, "item_described")[0]
    summary, events = uci(tmp_path, *rows, with_stock=True, seed=3)
    counted = of(events, "stock_counted")
    assert len(counted) == 25
    assert "simulated" in summary.simulated["stock_counted"]
    assert {"moq", "pack_size", "lead_time_days"} == set(of(events, "item_described")[0]["locations"]["default"])
    first = (tmp_path / "e.jsonl").read_bytes()
    uci(tmp_path, *rows, with_stock=True, seed=3)
    assert (tmp_path / "e.jsonl").read_bytes() == first
    uci(tmp_path, *rows, with_stock=True, seed=4)
    assert (tmp_path / "e.jsonl").read_bytes() != first


def test_simulated_stock_adds_up() -> None:
    units = np.random.default_rng(1).poisson(5, (120, 40))
    supply, counted = simulate_stock([f"{n:02d}" for n in range(40)], units, np.zeros(40, int), day0_ms=0, seed=2)
    for (sku,), rows in counted.group_by("sku"):
        sold = units[:, int(str(sku))]
        on_hand, on_order = rows["on_hand"].to_numpy(), rows["on_order"].to_numpy()
        position = on_hand + on_order
        placed = np.diff(position) + sold[1:119]  # what the position gained beyond the sales is a new order
        assert (placed >= 0).all()
        assert (placed % supply.pack[int(str(sku))] == 0).all()
        assert 0 < np.count_nonzero(placed) <= 18  # one review a week
        assert [sum(a["quantity"] for a in arrivals) for arrivals in rows["arrivals"]] == on_order.tolist()
    assert (counted["on_hand"].to_numpy() < 0).mean() < 0.1


def test_an_empty_table_gives_an_empty_file(tmp_path: Path) -> None:
    pl.DataFrame(schema=SCHEMA).write_parquet(tmp_path / "uci.parquet")
    for with_stock in (False, True):
        summary = convert_uci(tmp_path / "uci.parquet", tmp_path / "e.jsonl", with_stock=with_stock)
        assert (summary.rows, dict(summary.events), summary.first_ms) == (0, {}, -1)
    assert (tmp_path / "e.jsonl").read_bytes() == b""


@pytest.mark.parametrize("convert", [convert_uci, convert_rees46])
def test_a_wrong_source_is_one_sentence_and_writes_nothing(tmp_path: Path, convert: Any) -> None:
    (tmp_path / "text.parquet").write_text("InvoiceNo,StockCode\n")
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "other.parquet")
    cut = tmp_path / "cut.parquet"
    cut.write_bytes((tmp_path / "other.parquet").read_bytes()[:-20])
    for name, words in {
        "nowhere.parquet": "does not exist",
        "text.parquet": "Parquet",
        "cut.parquet": "Parquet",
        "other.parquet": "no column",
        ".": "is a directory",
        "a\0": "cannot be read",
    }.items():
        with pytest.raises(ConvertError, match=words) as caught:
            convert(tmp_path / name if "\0" not in name else name, tmp_path / "e.jsonl")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "e.jsonl").exists()


def test_a_column_of_another_kind_is_named(tmp_path: Path) -> None:
    row = line("1", "10000", 1, 1.0) | {"InvoiceDate": "1/10/2011 10:00"}
    pl.DataFrame([row]).write_parquet(tmp_path / "uci.parquet")
    with pytest.raises(ConvertError, match="column InvoiceDate is String"):
        convert_uci(tmp_path / "uci.parquet", tmp_path / "e.jsonl")


def test_numbers_and_times_of_another_type_keep_their_meaning(tmp_path: Path) -> None:
    at = [dt.datetime(2011, 7, 1, 9, tzinfo=dt.UTC)] * 2
    rows = pl.DataFrame([line("1", "10000", 2, 1.0), line("2", "10000", 2, 1.0)]).with_columns(
        Quantity=pl.Series([2.0, 2.5]), InvoiceDate=pl.Series(at), StockCode=pl.Series([10000, 10000])
    )
    rows.write_parquet(tmp_path / "uci.parquet")
    summary, events = converted(tmp_path, convert_uci(tmp_path / "uci.parquet", tmp_path / "e.jsonl"))
    assert summary.skipped == {"unusable": 1}
    [order] = of(events, "order_placed")
    assert (order["quantity"], order["event_time"]) == (2, 1309510800000)


def shown(kind: str, product: int, price: float, second: int, **more: Any) -> Row:
    row = {"event_time": dt.datetime(2019, 10, 1, 0, 0, second), "event_type": kind, "product_id": product}
    row |= {"category_id": 12, "category_code": "home.tea_pots", "brand": "acme", "price": price, "user_id": 1}
    return {**row, "user_session": "s1", **more}


def test_rees46_rows_become_views_carts_and_orders(tmp_path: Path) -> None:
    rows = [
        shown("purchase", 5, 9.5, 9),
        shown("view", 5, 10.0, 1),
        shown("cart", 5, 10.0, 2),
        shown("remove_from_cart", 5, 10.0, 3),
        shown("purchase", 5, 10.0, 4),
        shown("view", 6, 0.0, 4, brand=None, category_code=None),
        shown("view", 6, 1.0, 5, user_session=None),
        shown("wink", 6, 1.0, 5),
        shown("purchase", 6, -1.0, 6),
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "r.parquet")
    summary, events = converted(tmp_path, convert_rees46(tmp_path / "r.parquet", tmp_path / "e.jsonl", currency="EUR"))
    assert summary.skipped == {"negative_price": 1, "no_session": 1, "unknown_type": 1}
    orders = of(events, "order_placed")
    assert [(e["event_id"], e["order_id"], e["unit_price"], e["quantity"]) for e in orders] == [
        ("r-5", "s1-1", 10.0, 1), ("r-1", "s1-2", 9.5, 1),
    ]  # fmt: skip
    assert [(e["sku"], e["price"], e["currency"]) for e in of(events, "price_set")] == [
        ("5", 10.0, "EUR"), ("6", 0.0, "EUR"), ("5", 9.5, "EUR"),
    ]  # fmt: skip
    described = [(e["title"], e["category"], e["brand"]) for e in of(events, "item_described")]
    assert described == [("acme tea pots", "home.tea_pots", "acme"), ("", "12", None)]


Year = tuple[ConvertSummary, Path, pl.DataFrame]
FIELDS: dict[str, pl.DataType] = {
    "type": pl.String(),
    "event_id": pl.String(),
    "event_time": pl.Int64(),
    "sku": pl.String(),
    "quantity": pl.Int64(),
    "channel": pl.String(),
    "price": pl.Float64(),
}


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Year:
    """The whole real year, converted once for the tests that read it, and its events as a table."""
    if not UCI.exists():
        pytest.skip(f"{UCI.name} is not beside the checkout")
    path = tmp_path_factory.mktemp("uci") / "e.jsonl"
    summary = convert_uci(UCI, path)
    return summary, path, pl.read_ndjson(path, schema=FIELDS)


@pytest.mark.data
def test_the_real_year_equals_a_group_by_of_its_rows(year: Year) -> None:
    summary, _, events = year
    assert events["event_id"].n_unique() == len(events) == sum(summary.events.values())
    assert events["event_time"].is_sorted()
    local = (
        pl.from_epoch("event_time", time_unit="ms").dt.replace_time_zone("UTC").dt.convert_time_zone("Europe/London")
    )
    placed = events.filter(pl.col("type") == "order_placed").group_by("sku", day=local.dt.date())
    rows = pl.read_parquet(UCI).with_columns(sku=pl.col("StockCode").str.to_uppercase().str.strip_chars())
    sold = rows.filter(
        pl.col("sku").str.contains(r"^\d{5}[A-Z]*$"), pl.col("Quantity") > 0, pl.col("UnitPrice") > 0,
        ~pl.col("InvoiceNo").str.starts_with("C"),
    )  # fmt: skip
    expected = sold.group_by("sku", day=pl.col("InvoiceDate").dt.date()).agg(quantity=pl.col("Quantity").sum())
    got = placed.agg(pl.col("quantity").sum()).sort("sku", "day")
    assert got.equals(expected.with_columns(pl.col("quantity").cast(pl.Int64)).sort("sku", "day"))
    assert summary.skipped == {"not_a_product": 2983, "write_off": 1336, "zero_price": 1161}
    assert summary.events["order_cancelled"] == 8704


@pytest.mark.data
def test_the_real_year_holds_no_dead_letter(year: Year) -> None:
    accepted = 0
    for n, chunk in enumerate(read_records(year[1])):
        if n % 8 == 0:  # an eighth, spread over the year
            batch, letters = decode(chunk, clock_ms=CLOCK_MS)
            assert letters == []
            accepted += len(batch)
    assert accepted > 90_000


@pytest.mark.data
def test_the_real_prices_equal_those_of_the_evaluation(year: Year, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("eval_alerts", SHARED / "eval" / "alerts.py")
    assert spec is not None
    assert spec.loader is not None
    alerts = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "eval_alerts", alerts)  # its dataclasses look their module up
    spec.loader.exec_module(alerts)
    skus = sorted(alerts.public_items()["alerts"]["uci"])[::8]
    expected = {
        (x.key[0].removeprefix("UCI-"), x.key[2]): list(zip(x.day.astype(str), x.true, strict=True))
        for x in alerts._uci(UCI.parent, set(skus))
    }
    prices = year[2].filter(pl.col("type") == "price_set", pl.col("sku").is_in(skus))
    day = pl.from_epoch("event_time", time_unit="ms").dt.date().cast(pl.String)
    got: dict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
    for sku, channel, date, price in prices.select("sku", "channel", day, "price").iter_rows():
        got[sku, channel].append((date, price))
    assert len(expected) > 20
    assert expected == {key: found for key, found in got.items() if len(found) >= 8}


@pytest.mark.data
@pytest.mark.skipif(not REES46.exists(), reason=f"{REES46.name} is not beside the checkout")
def test_the_real_clickstream_converts_without_a_dead_letter(tmp_path: Path) -> None:
    summary, _ = converted(tmp_path, convert_rees46(REES46, tmp_path / "e.jsonl"))
    assert (summary.events["item_viewed"], summary.events["order_placed"]) == (17055, 214)
