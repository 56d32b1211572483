"""A bucket's life: open, closed, final; corrections in each; sessions, weeks, and slots that are cleared."""

from __future__ import annotations

import numpy as np
import pytest

from streams.calendar import Width
from streams.engine import EngineConfig
from streams.panes import PROMO, stock_of
from tests.small_shop import DAY, HOUR, MINUTE, MONDAY, NOON, Till, cancel, event, order, price, retired, stock, view

TODAY = MONDAY // DAY
BOUND = 5 * MINUTE


def open_sum(till: Till, channel: str, bucket: int, sku: str = "TEA") -> int:
    return int(till.engine.panes.open[channel][till.slot(sku), bucket % 3])


def stage(till: Till, bucket: int = TODAY) -> str:
    zone = till.engine.buckets.zones[0]
    return "final" if bucket < zone.final else "closed" if bucket < zone.open else "open"


def at(till: Till, time_ms: int) -> Till:
    """Move the watermark to a time by an order of another item."""
    return till.take(order(time_ms + BOUND, sku="OTHER"))


def week(till: Till, bucket: int, sku: str = "TEA") -> float:
    panes = till.engine.panes
    return float(panes.weeks["demand"][till.slot(sku), (bucket + 3) // 7 % panes.config.weeks])


# -- open, closed, final


def test_a_bucket_closes_at_its_end_and_is_final_two_hours_later() -> None:
    till = Till().take(order(NOON, 3))
    for time_ms, expected in (
        (MONDAY + DAY - 1, "open"),
        (MONDAY + DAY, "closed"),
        (MONDAY + DAY + 2 * HOUR - 1, "closed"),
        (MONDAY + DAY + 2 * HOUR, "final"),
    ):
        assert stage(at(till, time_ms)) == expected


def test_an_open_bucket_is_a_sum_of_integers_and_not_in_the_ring() -> None:
    till = Till().take(order(NOON, 0.1), order(NOON, 0.2), cancel(NOON, 0.3), view(NOON))
    assert (open_sum(till, "units", TODAY), open_sum(till, "cancelled", TODAY)) == (300, 300)
    assert (open_sum(till, "orders", TODAY), open_sum(till, "views", TODAY)) == (2, 1)
    assert till.ring("units", TODAY) == 0


def test_a_closed_bucket_still_takes_events_into_sum_and_ring_and_its_forecast_follows() -> None:
    till = at(Till().take(order(NOON, 3)), MONDAY + DAY + HOUR)
    assert (stage(till), till.ring("units", TODAY)) == ("closed", 3)
    till.take(order(MONDAY + DAY - MINUTE, 4, price=2.5))
    assert (till.ring("units", TODAY), open_sum(till, "units", TODAY)) == (7, 7000)
    assert (till.ring("orders", TODAY), till.ring("revenue", TODAY)) == (2, 16)


def test_a_final_bucket_has_given_its_sums_away_and_takes_nothing_more() -> None:
    till = at(Till().take(order(NOON, 3)), MONDAY + DAY + 2 * HOUR)
    assert (stage(till), open_sum(till, "units", TODAY), till.ring("units", TODAY)) == ("final", 0, 3)
    till.take(order(NOON, 9))
    assert [letter[0] for letter in till.letters] == ["late"]
    assert till.ring("units", TODAY) == 3


def test_demand_is_ordered_less_cancelled_and_never_below_zero() -> None:
    till = Till().take(order(NOON, 3), cancel(NOON, 5)).tick(NOON + 2 * DAY)
    slots, zone = np.array([till.slot()]), till.engine.buckets.zones[0]
    assert till.engine.panes.demand(slots, zone.open)[0].sum() == 0
    assert (till.ring("units", TODAY), till.ring("cancelled", TODAY)) == (3, 5)


def test_returned_goods_never_reduce_demand() -> None:
    till = Till().take(order(NOON, 3), event("order_returned", NOON, order_id="o", quantity=2)).tick(NOON + 2 * DAY)
    assert (till.ring("units", TODAY), till.ring("cancelled", TODAY)) == (3, 0)


def test_a_bucket_without_events_is_zero_and_closes_too() -> None:
    till = Till().take(order(NOON, 3)).tick(NOON + 5 * DAY)
    assert [till.ring("units", TODAY + n) for n in range(5)] == [3, 0, 0, 0, 0]


def test_an_event_of_tomorrow_waits_in_its_own_bucket() -> None:
    till = Till().take(order(MONDAY + 20 * HOUR, 1), order(MONDAY + DAY + HOUR, 5))
    assert (open_sum(till, "units", TODAY), open_sum(till, "units", TODAY + 1)) == (1000, 5000)


# -- corrections


def sold(days_ago: float, quantity: float = 10) -> Till:
    """An order at noon some days before NOON, and the watermark at NOON now."""
    return at(Till().take(order(NOON - round(days_ago * DAY), quantity)), NOON)


def test_a_cancellation_without_original_time_counts_in_its_own_bucket() -> None:
    till = sold(2).take(cancel(NOON, 4))
    assert (till.ring("cancelled", TODAY - 2), open_sum(till, "cancelled", TODAY)) == (0, 4000)


def test_a_cancellation_corrects_the_open_bucket() -> None:
    till = sold(0).take(cancel(NOON + MINUTE, 4, original=NOON))
    assert open_sum(till, "cancelled", TODAY) == 4000


def test_a_cancellation_corrects_a_bucket_that_is_closed_but_not_final() -> None:
    till = at(Till().take(order(NOON, 10)), MONDAY + DAY + HOUR)
    till.take(cancel(MONDAY + DAY + HOUR, 4, original=NOON))
    assert (stage(till), open_sum(till, "cancelled", TODAY), open_sum(till, "cancelled", TODAY + 1)) == (
        "closed",
        4000,
        0,
    )
    assert till.ring("cancelled", TODAY) == 4
    at(till, MONDAY + DAY + 3 * HOUR)
    assert (till.ring("cancelled", TODAY), week(till, TODAY)) == (4, 6)


@pytest.mark.parametrize("days_ago", [1, 2, 30, 83])
def test_a_cancellation_corrects_a_final_bucket_of_the_ring_and_its_week(days_ago: int) -> None:
    till = sold(days_ago)
    before = week(till, TODAY - days_ago)
    till.take(cancel(NOON, 4, original=NOON - days_ago * DAY))
    assert (till.ring("cancelled", TODAY - days_ago), open_sum(till, "cancelled", TODAY)) == (4, 0)
    assert week(till, TODAY - days_ago) == before - 4 == 6


def test_a_correction_beyond_the_ring_counts_in_its_own_bucket() -> None:
    till = sold(85).take(cancel(NOON, 4, original=NOON - 85 * DAY))
    assert open_sum(till, "cancelled", TODAY) == 4000
    assert float(till.engine.panes.ring["cancelled"].sum()) == 0


def test_the_oldest_bucket_of_the_ring_is_corrected_and_the_one_before_is_not() -> None:
    for days_ago, in_ring in ((84, True), (85, False)):
        till = sold(days_ago).take(cancel(NOON, 4, original=NOON - days_ago * DAY))
        assert (float(till.engine.panes.ring["cancelled"].sum()) == 4) is in_ring


def test_a_correction_of_more_than_was_ordered_leaves_no_negative_demand() -> None:
    till = sold(2).take(cancel(NOON, 80_995, original=NOON - 2 * DAY), cancel(NOON, 1, original=NOON - 2 * DAY))
    slots, zone = np.array([till.slot()]), till.engine.buckets.zones[0]
    assert till.engine.panes.demand(slots, zone.open)[0].min() == 0
    assert week(till, TODAY - 2) == 0


def test_an_original_time_before_the_series_began_counts_in_its_own_bucket() -> None:
    till = sold(2).take(cancel(NOON, 4, original=NOON - 5 * DAY))
    assert open_sum(till, "cancelled", TODAY) == 4000


def test_an_original_time_after_the_cancellation_counts_in_its_own_bucket() -> None:
    till = sold(0).take(cancel(NOON, 4, original=NOON + 2 * DAY))
    assert open_sum(till, "cancelled", TODAY) == 4000


# -- weeks


def test_a_week_is_the_sum_of_its_final_days_from_monday_on() -> None:
    till = Till()
    for n in range(21):
        till.take(order(NOON + n * DAY, n + 1))
    till.tick(NOON + 30 * DAY)
    assert [week(till, TODAY + 7 * n) for n in range(3)] == [28, 77, 126]


def test_a_week_two_years_later_starts_from_zero() -> None:
    till = Till().take(order(NOON, 5)).tick(NOON + 10 * DAY)
    till.take(order(NOON + 104 * 7 * DAY, 2, "TEA")).tick(NOON + 105 * 7 * DAY)
    assert week(till, TODAY + 104 * 7) == 2


# -- clicks


def test_sessions_are_counted_once_per_item_and_bucket() -> None:
    till = Till().take(view(NOON, "anna"), view(NOON, "anna"), event("cart_added", NOON, session_id="anna"))
    till.take(view(NOON, "bert"), view(NOON, "anna", "MUG"), view(NOON, "anna", location="north"))
    till.take(view(NOON + DAY, "anna"))
    till.tick(NOON + 2 * DAY)
    assert [till.ring("sessions", TODAY + n) for n in range(2)] == [2, 1]
    assert [till.ring("views", TODAY + n) for n in range(2)] == [3, 1]
    assert (till.ring("sessions", TODAY, "MUG"), till.ring("sessions", TODAY, location="north")) == (1, 1)


def test_carts_are_added_less_removed_and_at_least_zero() -> None:
    till = Till()
    for kind in ("cart_added", "cart_added", "cart_removed"):
        till.take(event(kind, NOON, session_id="s"))
    till.take(event("cart_removed", NOON, "MUG", session_id="s"), order(NOON, sku="MUG")).tick(NOON + DAY)
    assert (till.ring("carts", TODAY), till.ring("carts", TODAY, "MUG")) == (1, 0)


# -- facts of a bucket


def test_the_listed_price_is_that_of_the_close() -> None:
    till = Till().take(order(NOON), price(NOON, 5.0), price(NOON + HOUR, 6.0)).tick(NOON + DAY)
    till.take(price(NOON + DAY + HOUR, 7.0)).tick(NOON + 3 * DAY)
    assert [till.ring("price", TODAY + n) for n in range(3)] == [6, 7, 7]


def test_a_promotion_marks_the_buckets_that_close_during_it() -> None:
    till = Till().take(order(NOON - DAY), price(NOON, 5.0, promo=True, effective_until=NOON + 2 * DAY))
    till.tick(NOON + 5 * DAY)
    assert [int(till.ring("shelf", TODAY + n)) & PROMO for n in range(-1, 4)] == [0, 1, 1, 0, 0]


def test_stock_outs_are_a_share_of_the_counts_and_carried_until_the_next() -> None:
    till = Till().take(order(NOON - DAY), stock(NOON, 5), stock(NOON + HOUR, 0)).tick(NOON + DAY)
    till.take(stock(NOON + 2 * DAY, 0)).tick(NOON + 5 * DAY)
    shelf = np.array([till.ring("shelf", TODAY + n) for n in range(-1, 4)], np.uint8)
    assert [round(float(share), 3) for share in stock_of(shelf)[1:]] == [0.5, 0.5, 0, 0]
    assert np.isnan(stock_of(shelf)[0])


def test_a_count_of_a_bucket_that_is_final_changes_nothing() -> None:
    till = sold(2).take(stock(NOON - 2 * DAY, 0))
    assert till.ring("shelf", TODAY - 2) == 0
    assert int(till.engine.panes.open["counts"].sum()) == 0


def test_a_promotion_does_not_leak_into_a_bucket_of_another_time() -> None:
    till = Till().take(order(MONDAY + 22 * HOUR, sku="OTHER"))
    till.take(
        order(MONDAY + DAY + HOUR, 1),
        price(MONDAY + 22 * HOUR, 5.0, promo=True, effective_until=MONDAY + DAY + 12 * HOUR),
    )
    till.tick(NOON + 6 * DAY)
    assert [int(till.ring("shelf", TODAY + n)) & PROMO for n in range(1, 6)] == [0, 0, 0, 0, 0]


def test_revenue_is_in_the_base_currency_and_unknown_rates_are_counted() -> None:
    till = Till(EngineConfig(max_series=4, rates={"GBP": 1.25}))
    till.take(order(NOON, 2, price=3.0, currency="GBP"), order(NOON, 2, price=3.0, currency="SEK")).tick(NOON + DAY)
    assert (till.ring("revenue", TODAY), till.ring("units", TODAY)) == (7.5, 4)
    assert till.engine.buckets.unconverted == 1


def test_the_dearest_order_there_can_be_does_not_overflow() -> None:
    till = Till().take(*(order(NOON, 1e6, price=1e9) for _ in range(20))).tick(NOON + DAY)
    assert till.ring("units", TODAY) == 2e7
    assert 0 < till.ring("revenue", TODAY) < float("inf")


# -- slots


def test_a_cleared_slot_holds_nothing_of_its_last_series() -> None:
    till = sold(1).take(view(NOON), stock(NOON, 0), cancel(NOON, 1), retired(NOON))
    panes = till.engine.panes
    assert not any(array[0].any() for array in panes.ring.values())
    assert not any(array[0].any() for array in panes.open.arrays.values())
    assert not panes.weeks["demand"][0].any()


def test_hours_have_the_same_life() -> None:
    till = Till(EngineConfig(max_series=4, width=Width.HOUR))
    till.take(order(NOON, 3), order(NOON + 30 * MINUTE, 2), order(NOON + HOUR, 7), order(NOON + 4 * HOUR, 1))
    hour = NOON // HOUR
    assert [till.ring("units", hour + n) for n in range(3)] == [5, 7, 0]
    till.take(cancel(NOON + 4 * HOUR, 4, original=NOON), cancel(NOON + 4 * HOUR, 2, original=NOON + 2 * HOUR))
    assert [till.ring("cancelled", hour + n) for n in range(3)] == [4, 0, 2]
    assert week(till, TODAY) == 5 - 4  # of the hours alone that are final


def test_a_price_that_starts_at_midnight_belongs_to_the_day_that_begins() -> None:
    till = Till().take(order(NOON), price(NOON, 5.0))
    till.take(price(MONDAY + DAY, 4.0, promo=True, effective_until=MONDAY + 2 * DAY), order(MONDAY + DAY + MINUTE))
    till.take(price(MONDAY + 2 * DAY, 5.0)).tick(NOON + 4 * DAY)
    assert [till.ring("price", TODAY + n) for n in range(3)] == [5, 4, 5]
    assert [int(till.ring("shelf", TODAY + n)) & PROMO for n in range(3)] == [0, 1, 0]
