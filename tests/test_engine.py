"""What the engine publishes, and when: the semantics of the contract over small shops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.calendar import Width
from streams.decode import decode
from streams.engine import Engine, EngineConfig
from streams.events import Kind
from tests.shop_events import START, Spec, records
from tests.small_shop import (
    CLOCK,
    DAY,
    HOUR,
    MINUTE,
    MONDAY,
    NOON,
    Till,
    ack,
    cancel,
    day,
    described,
    order,
    price,
    retired,
    stock,
    view,
)

TODAY = MONDAY // DAY
BOUND = 5 * MINUTE


def weeks_of_sales(till: Till, *, weeks: int = 5, per_day: float = 10.0, sku: str = "TEA", **more: Any) -> Till:
    """One order a day at nine for weeks that end before MONDAY."""
    return till.take(
        *(order(MONDAY - n * DAY + 9 * HOUR, per_day, sku, **more) for n in range(7 * weeks, 0, -1)), together=True
    )


# -- the open bucket


def test_at_a_close_step_one_is_the_bucket_just_opened() -> None:
    till = weeks_of_sales(Till()).tick(MONDAY + 30 * MINUTE)
    last = till.forecasts()[-1]
    assert till.sets[-1].at_close
    assert (last["as_of"], last["steps"][0], last["observed_in_open"]) == (MONDAY, MONDAY, 0)
    assert last["steps"] == [MONDAY + n * DAY for n in range(28)]
    assert last["quantiles"][0] == last["cumulative"][0] == [10.0] * 13


def test_step_one_is_the_whole_bucket_and_cumulative_what_is_still_to_come() -> None:
    till = weeks_of_sales(Till())
    till.take(order(NOON, 4), order(NOON + 15 * MINUTE + BOUND))
    last = till.forecasts()[-1]
    assert last["as_of"] == NOON + 15 * MINUTE
    assert last["steps"][0] == MONDAY
    assert last["observed_in_open"] == 4
    left = 10 * (1 - (12.25 / 24))
    assert last["cumulative"][0] == pytest.approx([left] * 13, rel=1e-3)
    assert last["quantiles"][0] == pytest.approx([4 + left] * 13, rel=1e-3)
    assert last["mean"][0] == pytest.approx(4 + left, rel=1e-3)


def test_step_one_is_never_below_what_was_observed_and_cumulative_never_falls() -> None:
    till = weeks_of_sales(Till(), per_day=2)
    for n in range(40):
        till.take(order(MONDAY + 6 * HOUR + n * 20 * MINUTE, 7))
    found = till.forecasts()
    assert len(found) > 60
    for one in found:
        assert min(one["quantiles"][0]) >= one["observed_in_open"]
        cumulative = np.array(one["cumulative"])
        assert (np.diff(cumulative, axis=0) >= 0).all()
        assert (np.diff(cumulative, axis=1) >= 0).all()
        assert (np.diff(np.array(one["quantiles"]), axis=1) >= 0).all()


def test_a_forecast_sharpens_as_the_day_goes_by() -> None:
    till = weeks_of_sales(Till())
    for n in range(8, 24, 4):
        till.take(order(MONDAY + n * HOUR, 0.001))
    till.tick(MONDAY + DAY - MINUTE)
    rest = [one["cumulative"][0][6] for one in till.forecasts() if one["steps"][0] == MONDAY]
    assert rest == sorted(rest, reverse=True)
    assert rest[-1] < 3


# -- refreshes


def test_changed_series_are_refreshed_at_each_quarter_hour_and_others_are_not() -> None:
    till = Till()
    till.take(order(MONDAY - DAY), order(MONDAY - DAY, sku="MUG")).tick(MONDAY + HOUR)
    till.sets.clear()
    for n in range(60):  # one order a minute
        till.take(order(NOON + n * MINUTE))
    assert {one["as_of"] for one in till.forecasts()} == {NOON + n * 15 * MINUTE for n in range(4)}
    assert till.forecasts("MUG") == []
    assert not any(one.at_close for one in till.sets)


def test_a_series_that_did_not_change_is_forecast_at_close_alone() -> None:
    till = Till().take(order(MONDAY - 3 * DAY + 9 * HOUR)).tick(MONDAY + HOUR)
    closes = [one.as_of_ms for one in till.sets if one.at_close]
    assert closes == [MONDAY - 2 * DAY, MONDAY - DAY, MONDAY]
    assert len([one for one in till.sets if not one.at_close]) <= 1


# -- hours and zones


def test_hour_buckets_close_each_hour_and_forecast_hours() -> None:
    till = Till(EngineConfig(max_series=4, width=Width.HOUR, horizon=24))
    for n in range(26):
        till.take(order(MONDAY + n * HOUR + 10 * MINUTE, 3))
    closes = [one for one in till.sets if one.at_close]
    assert [one.as_of_ms for one in closes] == [MONDAY + n * HOUR for n in range(1, 26)]
    assert [one.hour for one in closes] == [n % 24 for n in range(1, 26)]
    last = till.forecasts()[-1]
    assert last["freq"] == "h"
    assert np.diff(last["steps"]).tolist() == [HOUR] * 23


def test_locations_close_at_their_own_midnight() -> None:
    zones = {"london": "Europe/London", "tokyo": "Asia/Tokyo"}
    till = Till(EngineConfig(max_series=8, time_zone="America/New_York", location_time_zones=zones))
    till.take(*(order(MONDAY - DAY, location=place) for place in ("default", "london", "tokyo"))).tick(MONDAY + DAY)
    first = {one.time_zone: one.as_of_ms for one in reversed(till.sets) if one.at_close}
    assert first == {
        "Asia/Tokyo": MONDAY - 9 * HOUR,
        "Europe/London": MONDAY,
        "America/New_York": MONDAY - 19 * HOUR,
    }
    assert [row[1] for one in till.sets if one.time_zone == "Asia/Tokyo" for row in one.keys] == ["tokyo"] * 2
    closes = [one.as_of_ms for one in till.sets]
    assert closes == sorted(closes)


@pytest.mark.parametrize(("date_ms", "hours"), [(1_301_184_000_000, 23), (1_319_932_800_000 - HOUR, 25)])
def test_days_of_23_and_25_hours_are_whole_buckets(date_ms: int, hours: int) -> None:
    till = Till(EngineConfig(max_series=4, time_zone="Europe/London"))
    for n in range(-1, 28):
        till.take(order(date_ms + n * HOUR + MINUTE))
    bucket = till.engine.buckets.zones[0].zone.bucket_of(date_ms)
    assert till.ring("units", bucket) == hours
    steps = next(one["steps"] for one in till.forecasts() if one["steps"][0] == date_ms)
    assert steps[1] - steps[0] == hours * HOUR


def test_a_date_that_a_zone_skipped_altogether_closes_like_any_other() -> None:
    skipped = 1_325_239_200_000  # 2011-12-30T10:00Z, when Samoa went from the 29th to the 31st
    till = Till(EngineConfig(max_series=4, time_zone="Pacific/Apia"))
    till.take(order(skipped - HOUR), order(skipped + HOUR, 5)).tick(skipped + 30 * HOUR)
    bucket = till.engine.buckets.zones[0].zone.bucket_of(skipped)
    assert [till.ring("units", bucket + n) for n in (-2, -1, 0)] == [1, 0, 5]


# -- series


def test_a_series_in_two_locations_is_two_series() -> None:
    till = Till().take(order(NOON, 3), order(NOON, 5, location="north")).tick(MONDAY + DAY + HOUR)
    assert till.ring("units", TODAY) == 3
    assert till.ring("units", TODAY, location="north") == 5
    assert {one.keys[row] for one in till.sets for row in range(len(one))} == {("TEA", "default"), ("TEA", "north")}


def test_events_of_refused_series_are_counted_one_by_one() -> None:
    till = Till(EngineConfig(max_series=1)).take(order(NOON), order(NOON, sku="MUG"), view(NOON, sku="MUG"))
    assert (till.engine.series.refused, len(till.engine.series)) == (2, 1)
    assert till.slot("MUG") == -1


def test_a_retired_item_frees_its_slot_and_the_next_one_starts_clean() -> None:
    till = Till(EngineConfig(max_series=1))
    till.take(
        described(NOON - 3 * DAY, category="hot", unit_cost=1.0, cost_currency="EUR"),
        price(NOON - 3 * DAY, 2.0, promo=True),
        order(NOON - 3 * DAY, 7),
        stock(NOON - 2 * DAY, 0),
        cancel(NOON - DAY, 2),
        view(NOON),
        order(NOON, 9),
        retired(NOON + MINUTE),
    )
    assert till.slot() == -1
    till.take(order(NOON + HOUR, 4, "MUG"))
    engine = till.engine
    assert (engine.series.live().tolist(), till.slot("MUG")) == ([0], 0)
    fresh = Till(EngineConfig(max_series=1)).take(order(NOON - 3 * DAY, sku="X"), retired(NOON - DAY, "X"))
    fresh.take(order(NOON + HOUR, 4, "MUG"))
    for till_ in (till, fresh):
        till_.take(view(NOON + 2 * HOUR, sku="MUG"), order(NOON + 3 * DAY, 2, "MUG")).tick(NOON + 5 * DAY)
    for name, array in engine.panes.ring.items():
        np.testing.assert_array_equal(array[0], fresh.engine.panes.ring[name][0], err_msg=name)
    assert till.forecasts("MUG")[-1] == fresh.forecasts("MUG")[-1]
    assert engine.positions.available(np.array([0]), NOON).tolist() == [0]


def test_the_same_session_counts_anew_for_the_item_that_takes_over_a_slot() -> None:
    till = Till(EngineConfig(max_series=1))
    till.take(view(NOON, "anna"), retired(NOON), view(NOON + MINUTE, "anna", "MUG")).tick(NOON + DAY)
    assert till.ring("sessions", TODAY, "MUG") == 1


def test_an_event_before_the_first_one_of_its_series_counts_in_its_own_day_alone() -> None:
    till = Till().take(order(MONDAY + MINUTE, 2), order(MONDAY - MINUTE, 5))
    for n in range(1, 9):
        till.take(order(NOON + n * DAY, 1))
    assert [till.ring("units", TODAY + n) for n in range(-1, 5)] == [5, 2, 1, 1, 1, 1]


def test_a_count_dated_years_ahead_does_not_keep_a_series_from_being_forecast() -> None:
    till = Till().take(order(NOON - DAY, sku="MUG"))
    batch, _ = decode([b'{"type":"stock_counted","event_id":"c","event_time":%d,"sku":"TEA","on_hand":5}' % CLOCK],
                      clock_ms=CLOCK)  # fmt: skip
    batch.tick_ms[:] = till.clock_ms
    till.engine.process(batch)
    till.take(order(NOON, 3)).tick(NOON + 2 * DAY)
    assert till.ring("units", TODAY) == 3
    assert any(one["as_of"] == MONDAY + DAY for one in till.forecasts())


# -- chunks


def arrays(engine: Engine) -> dict[str, Any]:
    """Every per-series array of an engine."""
    tables = (engine.panes.open, engine.panes.weeks, engine.buckets.series, engine.listed.table, engine.refresh.table,
              engine.positions.table, engine.positions.flows)  # fmt: skip
    found = {f"{table.name}.{name}": array for table in tables for name, array in table.arrays.items()}
    found |= {f"ring.{name}": array for name, array in engine.panes.ring.items()}
    return found | {f"outcomes.{n}": cell for n, cell in enumerate(engine.outcomes.cells)}


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.sampled_from([1, 7, 50]))
def test_chunking_does_not_change_the_state(seed: int, size: int) -> None:
    made = records(Spec(seed, events=150, days=4, facts=0.4))
    config = EngineConfig(max_series=16)
    engines = [Engine(config), Engine(config)]
    for engine, rows in zip(engines, (len(made), size), strict=True):
        now = 0
        for start in range(0, len(made), rows):
            batch, _ = decode(made[start : start + rows], clock_ms=CLOCK)
            batch.tick_ms[:] = np.maximum.accumulate(np.maximum(batch.time_ms, now))
            now = int(batch.tick_ms[-1])
            engine.process(batch)
        engine.tick(now + 3 * DAY)
    whole, parts = map(arrays, engines)
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name], err_msg=name)


@pytest.mark.parametrize("seed", range(4))
def test_buckets_close_in_a_first_batch_that_begins_before_any_time_is_known(seed: int) -> None:
    """A shard reads announced days before anything else, at a clock of zero, and the batch may go on for days."""
    day = b'{"type":"day_described","event_id":"d","event_time":%d,"date":"2010-01-01","name":"d","kind":"k"}' % START
    batch, letters = decode([day, *records(Spec(seed, events=150, days=4))], clock_ms=CLOCK)
    assert not letters
    batch.tick_ms[:] = np.maximum.accumulate(np.where(batch.kind == Kind.DAY_DESCRIBED, 0, batch.time_ms))
    whole, parts = Engine(EngineConfig(max_series=16)), Engine(EngineConfig(max_series=16))
    whole.process(batch)
    for row in range(len(batch)):
        parts.process(batch.take(np.array([row])))
    assert whole.buckets.zones[0].open == int(batch.time_ms.max()) // DAY
    for name, array in arrays(whole).items():
        np.testing.assert_array_equal(array, arrays(parts)[name], err_msg=name)


def test_a_price_that_comes_before_the_first_flow_is_treated_alike_in_any_chunk() -> None:
    events = [price(NOON, 3.0), order(NOON + MINUTE), order(NOON + DAY)]
    parts, whole = Till().take(*events), Till().take(*events, together=True)
    assert parts.ring("price", TODAY) == whole.ring("price", TODAY)


# -- decisions


def supplied(till: Till, on_hand: float, at_ms: int = NOON) -> Till:
    """An item with five weeks of sales of ten a day, described and counted."""
    weeks_of_sales(till)
    placement = {"lead_time_days": {"mean": 2, "p90": 3}, "moq": 6, "pack_size": 6}
    till.take(
        described(MONDAY - HOUR, unit_cost=1.5, cost_currency="EUR", locations={"default": placement}),
        stock(at_ms, on_hand),
    )
    return till


def test_an_accepted_trigger_counts_as_available() -> None:
    till = supplied(Till(), 12).take(order(NOON + 30 * MINUTE))
    [trigger] = till.triggers
    assert (trigger["status"], trigger["sku"]) == ("open", "TEA")
    before = int(till.engine.positions.available(np.array([till.slot()]), NOON)[0])
    till.take(ack(NOON + 40 * MINUTE, trigger["idempotency_key"]))
    assert till.triggers[-1]["status"] == "acknowledged"
    after = int(till.engine.positions.available(np.array([till.slot()]), NOON + 40 * MINUTE)[0])
    assert after - before == 1000 * trigger["quantity"]["order_qty"]
    till.take(order(NOON + HOUR), order(NOON + 2 * HOUR))
    assert len(till.triggers) == 2


def test_stale_stock_gives_no_trigger() -> None:
    till = supplied(Till(), 0, at_ms=MONDAY - 4 * DAY).take(order(NOON), order(NOON + 30 * MINUTE))
    assert till.triggers == []
    till.take(stock(NOON + HOUR, 0), order(NOON + 2 * HOUR))
    assert [one["status"] for one in till.triggers] == ["open"]


def test_without_any_count_there_is_no_trigger() -> None:
    till = weeks_of_sales(Till()).take(described(MONDAY), order(NOON), order(NOON + HOUR))
    assert till.triggers == []


def test_cancelling_a_huge_order_cancels_its_trigger() -> None:
    till = supplied(Till(), 200)
    till.take(order(NOON + MINUTE, 5000), order(NOON + 30 * MINUTE, 0.001))
    assert [one["status"] for one in till.triggers] == ["open"]
    till.take(cancel(NOON + 31 * MINUTE, 5000, original=NOON + MINUTE), order(NOON + HOUR, 0.001))
    assert [one["status"] for one in till.triggers] == ["open", "cancelled"]
    assert till.forecasts()[-1]["observed_in_open"] == pytest.approx(0.001)


def test_below_cost_is_judged_by_the_unit_cost_of_the_catalog() -> None:
    till = Till().take(described(NOON, unit_cost=5.0, cost_currency="EUR"), price(NOON + MINUTE, 4.0))
    assert [one.kind for one in till.candidates] == ["below_cost"]
    assert Till().take(described(NOON), price(NOON + MINUTE, 4.0)).candidates == []


def test_an_announced_closure_is_forecast_as_zero() -> None:
    till = weeks_of_sales(Till()).take(day(MONDAY - HOUR, "2011-02-02"), order(NOON)).tick(NOON + HOUR)
    last = till.forecasts()[-1]
    assert last["mean"][2] == 0
    assert set(last["quantiles"][2]) == {0}
    assert last["mean"][1] > 9
    assert last["cumulative"][2] == last["cumulative"][1]


def test_a_closure_of_one_location_leaves_the_others_open() -> None:
    till = Till()
    for place in ("default", "north"):
        weeks_of_sales(till, location=place) if place == "default" else None
    till.take(*(order(MONDAY - n * HOUR, 10, location="north") for n in range(3, 0, -1)))
    till.take(day(MONDAY - MINUTE, "2011-02-02", location="north")).tick(MONDAY + HOUR)
    assert set(till.forecasts(location="north")[-1]["quantiles"][2]) == {0}
    assert till.forecasts()[-1]["mean"][2] > 9


def test_a_closed_day_teaches_the_forecast_nothing() -> None:
    till = Till().take(day(MONDAY - 40 * DAY, "2011-01-24"))  # a Monday
    sold = (order(MONDAY - n * DAY + 9 * HOUR, 10) for n in range(42, 0, -1) if n != 7)
    till.take(*sold).tick(MONDAY + HOUR)
    assert min(till.forecasts()[-1]["quantiles"][0]) == 10


# -- forecasts of one instant


def test_the_same_series_and_instant_never_gets_two_forecast_ids() -> None:
    till = Till()
    for n in range(200):
        till.take(order(MONDAY + n * 7 * MINUTE, sku=f"S{n % 3}"))
    ids = [one["forecast_id"] for n in range(3) for one in till.forecasts(f"S{n}")]
    assert len(ids) == len(set(ids)) > 30


def test_the_shard_asks_the_forecaster_it_was_given() -> None:
    till = Till(replace(EngineConfig(max_series=2), horizon=3)).take(order(NOON)).tick(NOON + DAY)
    assert till.forecasts()[-1]["model"] == "baseline-1"
    assert len(till.forecasts()[-1]["mean"]) == 3


def test_lead_times_are_days_with_hour_buckets_too() -> None:
    """One unit an hour, and nine days to cover: the reorder point is days of demand, not hours."""
    till = Till(EngineConfig(max_series=8, width=Width.HOUR))
    till.take(described(NOON, locations={"default": {"lead_time_days": {"mean": 8, "p90": 8}}}), stock(NOON, 5))
    for hour in range(60):
        till.take(order(NOON + hour * HOUR + MINUTE, 1))
    till.take(stock(NOON + 60 * HOUR, 5)).tick(NOON + 62 * HOUR)
    assert 150 <= till.triggers[-1]["policy"]["reorder_point"] <= 300


@pytest.mark.parametrize("together", [False, True])
def test_a_price_published_before_the_first_sale_is_the_listed_price_of_the_series(together: bool) -> None:
    till = Till().take(price(NOON, 4.0), price(NOON + MINUTE, 5.0), order(NOON + HOUR), together=together)
    till.tick(NOON + 2 * DAY)
    assert till.ring("price", NOON // DAY) == 5.0


def test_a_price_that_waits_for_a_series_survives_a_restore_and_goes_with_its_item() -> None:
    first = Till().take(price(NOON, 5.0), price(NOON, 9.0, "MUG"), retired(NOON + MINUTE, "MUG"))
    again = Till()
    again.engine.restore({key: value for key, value in first.engine.changes() if value is not None})
    again.take(order(NOON + HOUR), order(NOON + HOUR, sku="MUG")).tick(NOON + 2 * DAY)
    assert (again.ring("price", NOON // DAY), again.ring("price", NOON // DAY, "MUG")) == (5.0, 0.0)
