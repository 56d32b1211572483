"""The shop in a box: same bytes per seed, believable statistics, and a truth that agrees with the events."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from streams.decode import decode
from streams.events import Kind
from streams.files import FileError, read_records
from streams.shop_days import START, Days
from streams.shop_items import draw_items
from streams.shop_stock import Stock
from streams.simulate import Shop, ShopError, SimulateSummary, simulate

DAYS, ITEMS = 120, 200
LONDON = ZoneInfo("Europe/London")
Row = dict[str, Any]


class Run:
    """A simulated run read back: decoded events by type, truth by kind."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.path = folder / "events.jsonl"
        self.summary = simulate(DAYS, ITEMS, 7, self.path, **settings)
        self.raw = [value for chunk in read_records(self.path) for value in chunk]
        self.events: dict[str, list[Row]] = defaultdict(list)
        seen = set()
        for event in map(json.loads, self.raw):
            if event["event_id"] not in seen:
                self.events[event["type"]].append(event)
                seen.add(event["event_id"])
        self.truth: dict[str, list[Row]] = defaultdict(list)
        for line in Path(self.summary.truth_out).read_text().splitlines():
            row = json.loads(line)
            self.truth[row["kind"]].append(row)

    def demand(self, name: str = "wanted") -> np.ndarray[Any, np.dtype[np.int64]]:
        """Units per day and item of the truth, shape (days, items)."""
        skus = {sku: n for n, sku in enumerate(sorted({e["sku"] for e in self.events["item_described"]}))}
        units = np.zeros((DAYS, len(skus)), np.int64)
        for row in self.truth["demand"]:
            units[(date.fromisoformat(row["date"]) - START).days, skus[row["sku"]]] += row[name]
        return units


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("shop"))


def day_of(event: Row) -> str:
    return datetime.fromtimestamp(event["event_time"] / 1000, UTC).astimezone(LONDON).date().isoformat()


def test_every_record_is_an_event(run: Run) -> None:
    batch, letters = decode(run.raw, clock_ms=1_900_000_000_000)
    assert letters == []
    assert len(batch) == run.summary.records == len(run.raw)
    kinds = {Kind(kind).name.lower() for kind in np.unique(batch.kind).tolist()}
    assert kinds == set(run.summary.events) == set(run.events)
    assert len(kinds) == 13  # all that a shop itself reports


def test_the_summary_counts_what_is_in_the_file(run: Run) -> None:
    assert {kind: len(events) for kind, events in run.events.items()} == run.summary.events
    assert run.summary.size_bytes == run.path.stat().st_size
    assert run.summary.truth["duplicates"] == len(run.raw) - sum(run.summary.events.values())
    assert json.loads(json.dumps(run.summary.as_dict()))["records"] == len(run.raw)


def test_the_same_settings_give_the_same_bytes(tmp_path: Path) -> None:
    def digests(name: str, seed: int) -> list[str]:
        summary = simulate(20, 30, seed, tmp_path / f"{name}.jsonl", locations=2)
        files = (tmp_path / f"{name}.jsonl", Path(summary.truth_out))
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]

    assert digests("a", 1) == digests("b", 1)
    assert digests("c", 2) != digests("b", 1)


def test_the_file_is_what_the_days_give(tmp_path: Path) -> None:
    simulate(6, 25, 3, tmp_path / "e.jsonl")
    shop = Shop(25, 3, days=6)
    records = [record for day in range(6) for record in shop.day(day)] + shop.rest()
    assert records == [value for chunk in read_records(tmp_path / "e.jsonl") for value in chunk]


def test_weekdays_differ_as_the_shop_means_them_to(run: Run) -> None:
    daily = run.demand().sum(axis=1)
    by_weekday = [np.median(daily[n::7]) for n in range(7)]
    assert by_weekday[5] > 1.2 * np.mean(by_weekday)
    assert by_weekday[5] == max(by_weekday)
    assert np.mean(by_weekday[:3]) < np.mean(by_weekday)


def test_categories_have_their_season() -> None:
    days = Days(START, "Europe/London", 1)
    year = np.array([days.factors(day) for day in range(364)])
    garden, christmas = year[:, 5], year[:, 9]
    assert garden[130:170].mean() > 2 * garden[:40].mean()
    assert christmas[320:350].mean() > 10 * christmas[150:200].mean()
    assert 0.85 < year.mean() < 1.15


def test_popularity_falls_like_zipf(run: Run) -> None:
    items = draw_items(2000, np.random.default_rng(1), days=90)
    steady = np.sort(items.lines_per_day[~items.lumpy])[::-1]
    slope = np.polyfit(np.log(np.arange(1, 501)), np.log(steady[:500]), 1)[0]
    assert -1.05 < slope < -0.8
    lines = Counter(event["sku"] for event in run.events["order_placed"])
    top = np.array([count for _, count in lines.most_common(60)])
    assert -1.2 < np.polyfit(np.log(np.arange(1, 61)), np.log(top), 1)[0] < -0.6


def test_many_items_sell_intermittently(run: Run) -> None:
    zero_share = (run.demand() == 0).mean(axis=0)
    assert (zero_share > 0.5).mean() > 0.2
    assert (zero_share < 0.1).mean() > 0.03


def test_promotions_are_announced_ahead_and_lift_demand(run: Run) -> None:
    promotions = run.truth["promotion"]
    units = run.demand()
    skus = sorted({event["sku"] for event in run.events["item_described"]})
    during, around = 0.0, 0.0
    for promotion in promotions:
        first, last = ((date.fromisoformat(promotion[k]) - START).days for k in ("first_date", "last_date"))
        sold = units[:, skus.index(promotion["sku"])]
        if promotion["discount"] >= 0.2 and first >= 14 and last + 14 < DAYS:
            during += float(sold[first : last + 1].mean())
            around += float(np.concatenate([sold[first - 14 : first], sold[last + 1 : last + 15]]).mean())
    assert during > 1.4 * around
    announced = [e for e in run.events["price_set"] if e.get("effective_from", 0) > e["event_time"]]
    assert {e["sku"] for e in announced} == {p["sku"] for p in promotions}
    assert all(e["promo"] and e["effective_until"] > e["effective_from"] for e in announced)


def test_clicks_lead_orders(run: Run) -> None:
    assert len(run.events["item_viewed"]) > 4 * len(run.events["order_placed"])
    carts, orders = Counter(map(day_of, run.events["cart_added"])), Counter(map(day_of, run.events["order_placed"]))
    days = sorted(carts)[10:-5]
    ratio = np.array([[carts[d], orders[d]] for d in days if orders[d]], np.float64)
    same = np.corrcoef(ratio[:, 0], ratio[:, 1])[0, 1]
    behind = np.corrcoef(ratio[1:, 0], ratio[:-1, 1])[0, 1]
    assert same > 0.7
    assert (
        np.corrcoef(ratio[:-1, 0], ratio[1:, 1])[0, 1] > behind
    )  # carts tell of the next day's orders, not the reverse


def test_an_empty_shelf_cuts_sales_and_the_truth_keeps_the_demand(run: Run) -> None:
    wanted, sold = run.demand(), run.demand("sold")
    assert (sold <= wanted).all()
    lost = {(row["date"], row["sku"]): row["lost"] for row in run.truth["stock_out"]}
    assert (
        sum(lost.values())
        == wanted.sum() - sold.sum()
        == run.summary.truth["wanted_units"] - run.summary.truth["sold_units"]
    )
    assert 0.01 < 1 - sold.sum() / wanted.sum() < 0.15
    placed: Counter[tuple[str, str]] = Counter()
    for event in run.events["order_placed"]:
        placed[day_of(event), event["sku"]] += event["quantity"]
    truth = {(row["date"], row["sku"]): row["sold"] for row in run.truth["demand"] if row["sold"]}
    assert placed == truth


def test_stock_counts_follow_from_sales_and_arrivals(run: Run) -> None:
    counted: dict[str, list[Row]] = defaultdict(list)
    for event in run.events["stock_counted"]:
        counted[event["sku"]].append(event)
    moved: Counter[tuple[str, str]] = Counter()
    for event in run.events["order_placed"]:
        moved[event["sku"], day_of(event)] -= event["quantity"]
    for event in run.events["order_cancelled"]:
        moved[event["sku"], day_of(event)] += event["quantity"]
    for sku, events in counted.items():
        assert all(event["on_hand"] >= 0 for event in events)
        for before, after in pairwise(events):
            assert before.get("on_order", 0) == sum(a["quantity"] for a in before.get("arrivals", []))
            come = sum(a["quantity"] for a in before.get("arrivals", []) if a["due"] <= after["event_time"])
            assert after["on_hand"] == before["on_hand"] + moved[sku, day_of(before)] + come


def test_repeats_are_exact_and_about_one_in_two_hundred(run: Run) -> None:
    repeats = len(run.raw) - len(set(run.raw))
    assert repeats == run.summary.truth["duplicates"]
    assert 0.003 < repeats / len(run.raw) < 0.007


def test_disorder_and_late_events_are_as_the_truth_says(run: Run) -> None:
    shop = Shop(ITEMS, 7, days=DAYS)
    late, slow, beyond_bound, total = [], 0, 0, 0
    newest_ms = 0
    for day in range(DAYS + 1):
        records = shop.day(day) if day < DAYS else shop.rest()
        assert (np.diff(shop.arrival_ms) >= 0).all()
        for record, arrival_ms in zip(records, shop.arrival_ms.tolist(), strict=True):
            event = json.loads(record)
            delay_ms = arrival_ms - event["event_time"]
            slow += 300_000 < delay_ms <= 7_200_000
            if event["type"].split("_")[0] in ("order", "cart") or event["type"] == "item_viewed":
                total += 1
                if newest_ms - 300_000 - event["event_time"] > 7_200_000:
                    late.append(event["event_id"])
                beyond_bound += newest_ms - event["event_time"] > 300_000
                newest_ms = max(newest_ms, event["event_time"])
    assert late == [row["event_id"] for row in run.truth["late"]]
    assert len(late) == run.summary.truth["late"]
    assert sum(row["day_was_final"] for row in run.truth["late"]) == run.summary.truth["late_for_their_day"] > 0
    assert slow >= run.summary.truth["slow"] > 0  # a repeat may be slow too
    assert beyond_bound / total < 0.02
    assert len(late) / total < 0.002


def test_price_faults_are_labelled(run: Run) -> None:
    sent = {event["event_id"]: event for event in run.events["price_set"]}
    order = {event_id: place for place, event_id in enumerate(sent)}
    faults = run.truth["fault"]
    assert {fault["scope"] for fault in faults} == {"single", "feed"}
    for fault in faults:
        assert len(fault["lines"]) == 1 if fault["scope"] == "single" else len(fault["lines"]) >= 30
        for line in fault["lines"]:
            wrong, right = sent[line["first_event_id"]], sent.get(line["corrected_event_id"])
            assert (wrong["sku"], wrong["channel"]) == (line["sku"], line["channel"])
            if right is None:
                continue
            assert order[line["first_event_id"]] <= order[line["last_event_id"]] < order[line["corrected_event_id"]]
            if fault["form"] == "currency":
                assert (wrong["currency"] != "GBP") == (right["currency"] == "GBP")
            else:
                assert not 0.75 < wrong["price"] / right["price"] < 1.3


def test_without_faults_every_price_is_near_its_line(tmp_path: Path) -> None:
    clean = simulate(60, 60, 7, tmp_path / "e.jsonl", fault_rate=0)
    assert "single_faults" not in clean.truth
    prices: dict[tuple[str, str], list[float]] = defaultdict(list)
    for chunk in read_records(tmp_path / "e.jsonl"):
        for event in (json.loads(value) for value in chunk if b'"price_set"' in value):
            prices[event["sku"], event["channel"]].append(event["price"])
    assert max(max(line) / min(line) for line in prices.values()) < 2.3


def test_new_items_come_with_a_title_before_anything_else(run: Run) -> None:
    launched = {row["sku"] for row in run.truth["launch"]}
    assert len(launched) == ITEMS // 12
    known: set[str] = set()
    for event in map(json.loads, run.raw):
        if event["type"] == "item_described":
            known.add(event["sku"])
        elif "sku" in event:
            assert event["sku"] in known
    first_day = {e["sku"] for e in run.events["item_described"] if day_of(e) == START.isoformat()}
    assert launched == known - first_day
    assert any("replaces" in event for event in run.events["item_described"])
    assert len({event["title"] for event in run.events["item_described"]}) == ITEMS


def test_closed_days_are_announced_and_empty(run: Run) -> None:
    closed = {e["date"] for e in run.events["day_described"] if not e["open"]}
    assert "2024-01-01" in closed
    assert len(closed) > 1
    assert not closed & set(map(day_of, run.events["order_placed"]))
    for event in run.events["day_described"]:
        ahead = (date.fromisoformat(event["date"]) - date.fromisoformat(day_of(event))).days
        assert ahead == 14 or (day_of(event) == START.isoformat() and 0 <= ahead < 14)
    assert {e["kind"] for e in run.events["day_described"]} == {"closure", "holiday", "campaign"}


def test_cancellations_mostly_name_the_time_of_their_order(run: Run) -> None:
    orders = {(e["order_id"], e["sku"]): e for e in run.events["order_placed"]}
    cancelled = run.events["order_cancelled"]
    named = [e for e in cancelled if "original_time" in e]
    assert 0.75 < len(named) / len(cancelled) < 0.95
    for event in named:
        assert orders[event["order_id"], event["sku"]]["event_time"] == event["original_time"] < event["event_time"]
    assert 0.02 < len(cancelled) / len(orders) < 0.04


def test_two_locations_share_the_demand(tmp_path: Path) -> None:
    simulate(10, 40, 5, tmp_path / "e.jsonl", locations=2)
    places = Counter(
        event["location"]
        for chunk in read_records(tmp_path / "e.jsonl")
        for event in map(json.loads, chunk)
        if event["type"] == "order_placed"
    )
    assert places["london"] > places["leeds"] > 0.3 * places["london"]


def test_a_year_with_clock_changes_keeps_events_on_their_day() -> None:
    shop = Shop(3, 1, days=400)
    for day in range(92):
        records = shop.day(day)
        begin, end = shop.calendar.start_ms(day), shop.calendar.start_ms(day + 1)
        assert all(begin <= ms < end for ms in shop.arrival_ms.tolist())
        counted = [e for e in map(json.loads, records) if e["type"] == "stock_counted"]
        assert {e["event_time"] for e in counted} <= {begin}


def test_stock_serves_in_order_and_the_last_line_takes_what_is_left() -> None:
    rng = np.random.default_rng(1)
    stock = Stock(draw_items(3, rng, days=9), np.ones(1), rng)
    stock.on_hand[:, 0] = [5, 0, 100]
    item = np.array([0, 1, 0, 2, 0, 0])
    served = stock.sell(item, np.zeros(6, np.int64), np.array([3, 2, 4, 7, 1, 1]))
    assert served.tolist() == [3, 0, 2, 7, 0, 0]
    assert stock.on_hand[:, 0].tolist() == [0, 0, 93]
    assert stock.sell(item[:0], item[:0], item[:0]).tolist() == []


@pytest.mark.parametrize("wrong", [{"items": 0}, {"days": 0}, {"seed": -1}, {"locations": 9}, {"fault_rate": 2.0}])
def test_nonsense_numbers_are_one_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(ShopError) as caught:
        Shop(**{"items": 5, "seed": 1} | wrong)
    assert "\n" not in str(caught.value)


def test_days_come_in_order() -> None:
    shop = Shop(5, 1)
    with pytest.raises(ShopError, match="day 0 is next"):
        shop.day(1)


def test_a_smallest_shop_and_a_folder_that_is_missing(tmp_path: Path) -> None:
    assert isinstance(simulate(3, 1, 0, tmp_path / "e.jsonl.zst"), SimulateSummary)
    with pytest.raises(FileError, match="does not exist"):
        simulate(3, 1, 0, tmp_path / "no" / "e.jsonl")
