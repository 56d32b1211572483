"""Facts about items: of each the newest event time wins, and a restore knows the same."""

from __future__ import annotations

import numpy as np
import pytest

from streams.catalog import FOREVER_MS, Catalog, Item, ListedPrices
from streams.planned_prices import LEAST_TIDIED, Plan, PlannedPrices
from streams.state import Record

ROW = np.array([3])


def item(described_ms: int, category: str = "", title: str = "a mug", cost: float | None = None) -> Item:
    return Item(described_ms, title, category, "", cost, "EUR", "", "")


def replayed(*batches: list[Record]) -> dict[str, bytes | None]:
    return {key: value for batch in batches for key, value in batch}


# -- items


def test_an_older_description_changes_nothing_and_one_of_the_same_time_wins() -> None:
    catalog = Catalog()
    assert catalog.describe("mug", item(5, title="new"))
    assert not catalog.describe("mug", item(4, title="old"))
    assert catalog.items["mug"].title == "new"
    assert catalog.describe("mug", item(5, title="again"))
    assert catalog.items["mug"].title == "again"


def test_categories_are_numbered_as_they_appear_and_keep_their_number() -> None:
    catalog = Catalog()
    for n, category in enumerate(["hot", "cold", "hot", ""]):
        catalog.describe(f"s{n}", item(1, category))
    assert [catalog.group(f"s{n}") for n in range(4)] == [0, 1, 0, -1]
    catalog.retire("s0")
    assert (catalog.group("s0"), catalog.group("s2"), catalog.groups) == (-1, 0, {"hot": 0, "cold": 1})


def test_a_restored_catalog_knows_the_same_items_and_writes_nothing_again() -> None:
    catalog, other = Catalog(), Catalog()
    catalog.describe("mug", item(5, "hot", cost=2.5))
    catalog.describe("a/b|c", item(6, "cold"))
    first = list(catalog.changes())
    catalog.retire("mug")
    topic = replayed(first, list(catalog.changes()))
    for key, value in topic.items():
        other.restore(key, value)
    assert (other.items, other.groups) == (catalog.items, catalog.groups)
    assert (list(other.changes()), list(catalog.changes())) == ([], [])


# -- listed prices


def test_the_first_channel_lists_and_others_change_nothing() -> None:
    listed = ListedPrices(9)
    listed.set(3, "web", 9.5, time_ms=1000)
    listed.set(3, "trade", 5.0, time_ms=2000)
    listed.set(3, "web", 9.0, time_ms=3000)
    listed.set(3, "web", 7.0, time_ms=2500)  # older
    assert listed.price(ROW, 9999).tolist() == [9]


@pytest.mark.parametrize(("at_ms", "price", "on"), [(1000, 5, True), (1999, 5, True), (2000, 6, False)])
def test_the_price_of_an_instant_is_the_newest_or_the_one_before(at_ms: int, price: float, on: bool) -> None:
    listed = ListedPrices(9)
    listed.set(3, "web", 5.0, time_ms=1000, promo=True)
    listed.set(3, "web", 6.0, time_ms=2000)
    assert (listed.price(ROW, at_ms).tolist(), listed.on_promotion(ROW, at_ms).tolist()) == ([price], [on])


def test_before_its_first_price_a_series_has_none() -> None:
    listed = ListedPrices(9)
    listed.set(3, "web", 5.0, time_ms=1000, promo=True)
    assert (listed.price(ROW, 999).tolist(), listed.on_promotion(ROW, 999).tolist()) == ([0], [False])


def test_two_prices_of_one_instant_leave_the_one_before_them() -> None:
    listed = ListedPrices(9)
    for time_ms, price in ((1000, 5.0), (2000, 6.0), (2000, 7.0)):
        listed.set(3, "web", price, time_ms=time_ms)
    assert (listed.price(ROW, 1999).tolist(), listed.price(ROW, 2000).tolist()) == ([5], [7])


def test_a_promotion_ends_when_it_was_announced_to() -> None:
    listed = ListedPrices(9)
    listed.set(3, "web", 5.0, time_ms=1000, promo=True, until_ms=1500)
    assert [bool(listed.on_promotion(ROW, at)[0]) for at in (1000, 1499, 1500)] == [True, True, False]
    listed.set(3, "web", 5.0, time_ms=2000, promo=True)
    assert listed.on_promotion(ROW, FOREVER_MS - 1).tolist() == [True]


def test_a_negative_price_is_listed_as_unknown() -> None:
    listed = ListedPrices(9)
    listed.set(3, "web", -5.0, time_ms=1000)
    assert listed.price(ROW, 1000).tolist() == [0]


def test_restored_prices_keep_their_channel() -> None:
    listed, other = ListedPrices(9), ListedPrices(9)
    listed.set(1, "shop", 4.0, time_ms=1)
    listed.set(3, "web", 5.0, time_ms=1000)
    for key, value in listed.changes():
        other.restore(key, value)
    for one in (listed, other):
        one.set(3, "shop", 1.0, time_ms=2000)
        one.set(3, "web", 6.0, time_ms=2000)
    assert listed.price(ROW, 2000).tolist() == other.price(ROW, 2000).tolist() == [6]


# -- prices announced ahead


def planned(
    listed: ListedPrices, amount: float, time_ms: int, from_ms: int, until_ms: int, channel: str = "web"
) -> bool:
    return listed.plan(3, channel, amount, time_ms=time_ms, from_ms=from_ms, until_ms=until_ms, promo=True)


def ahead(listed: ListedPrices, *at_ms: int) -> tuple[list[float], list[bool]]:
    price, promo = listed.ahead(ROW, np.array(at_ms))
    return np.nan_to_num(price[0]).tolist(), promo[0].tolist()


def test_a_plan_holds_from_its_begin_to_its_end() -> None:
    listed = ListedPrices(9)
    listed.set(3, "web", 9.0, time_ms=1000)
    assert planned(listed, 7.0, 1100, 2000, 3000)
    assert ahead(listed, 1999, 2000, 2999, 3000) == ([9, 7, 7, 9], [False, True, True, False])
    assert [float(listed.price(ROW, at)[0]) for at in (1999, 2000, 3000)] == [9, 7, 9]
    assert [bool(listed.on_promotion(ROW, at)[0]) for at in (1999, 2000, 3000)] == [False, True, False]


def test_a_price_listed_since_a_plan_began_ends_it_and_one_before_does_not() -> None:
    listed = ListedPrices(9)
    planned(listed, 7.0, 1100, 2000, 3000)
    listed.set(3, "web", 9.0, time_ms=1500)
    assert ahead(listed, 2500)[0] == [7]
    listed.set(3, "web", 8.0, time_ms=2200)
    assert ahead(listed, 2500)[0] == [8]


def test_of_two_plans_the_one_announced_last_counts_and_other_channels_plan_nothing() -> None:
    listed = ListedPrices(9)
    listed.set(3, "web", 9.0, time_ms=1000)
    planned(listed, 7.0, 1200, 2000, 3000)
    assert not planned(listed, 6.0, 1100, 2000, 3000)
    assert not planned(listed, 5.0, 1300, 2000, 3000, channel="trade")
    assert ahead(listed, 2500)[0] == [7]


@pytest.mark.parametrize(("promo", "price"), [(False, 9.0), (True, 0.0)])
def test_after_a_price_that_ends_comes_the_one_before_unless_that_had_an_end_too(promo: bool, price: float) -> None:
    listed = ListedPrices(9)
    listed.set(3, "web", 9.0, time_ms=1000, promo=promo, until_ms=1500)
    listed.set(3, "web", 7.0, time_ms=1400, promo=True, until_ms=2000)
    assert ahead(listed, 1999, 2000) == ([7, price], [True, False])


def test_plans_come_back_from_records_and_end_with_the_owner_of_their_slot() -> None:
    listed, other = ListedPrices(9), ListedPrices(9)
    listed.set(3, "web", 9.0, time_ms=1000)
    planned(listed, 7.0, 1100, 2000, 3000)
    for key, value in listed.changes():
        other.restore(key, value)
    assert ahead(other, 2500) == ahead(listed, 2500) == ([7], [True])
    other.table.clear(3)
    other.claim(3, ("next", "default"))
    assert ahead(other, 2500) == ([0], [False])


def test_plans_whose_end_is_long_past_are_let_go() -> None:
    plans, day = PlannedPrices(), 86_400_000
    for n in range(5000):
        plans.add(n, Plan(n * day, (n + 1) * day, (n + 2) * day, 5.0, True))
    assert len(plans) <= 2 * LEAST_TIDIED
    kept = {key for key, value in replayed(list(plans.changes())).items() if value is not None}
    assert len(kept) == len(plans)
