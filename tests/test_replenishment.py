"""Triggers from forecast and stock: when they open, what they say, how they end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streams.events import Kind, LeadTime, Placement
from streams.outputs import figure
from streams.policy import Costs, ReplenishmentConfig, ReplenishmentError
from streams.state import SnapshotError
from streams.triggers import units
from tests.stocked_shop import DAY0, Shop, at


# ------------------------------------------------------------------------------------------------ the message
def test_a_trigger_says_everything_that_the_contract_lists() -> None:
    """Two a day: s = (38 + 53.2) / 2 = 45.6; S = s + 24; 45.6 + 24 - 39 = 30.6, in packs of 12: 36 pieces."""
    shop = Shop().placed(unit_cost=14.7, cost_currency="EUR").stocked(31, on_order=12, reserved=4)
    [message] = shop.decide()
    key = message["idempotency_key"]
    assert message == {
        "idempotency_key": key,
        "trigger_id": f"{key}-1",
        "revision": 1,
        "supersedes": None,
        "status": "open",
        "kind": "reorder",
        "mode": "recommend",
        "sku": "A0",
        "location": "default",
        "source_location": None,
        "quantity": {"order_qty": 36, "unrounded_qty": 30.6, "pack_size": 12, "moq": 24, "rounding": "up"},
        "policy": {
            "type": "s,S",
            "reorder_point": 45.6,
            "order_up_to": 69.6,
            "service_level": 0.95,
            "review_period_days": 1.0,
            "lead_time_days": {"mean": 9.0, "p90": 13.0},
        },
        "position": {
            "on_hand": 31,
            "on_order": 12,
            "reserved": 4,
            "ordered_since": 0,
            "available": 39,
            "counted_at": DAY0,
            "as_of": DAY0,
        },
        "forecast": {
            "forecast_id": "f0",
            "lead_time_demand": {"p10": 4.0, "p50": 20.0, "p90": 36.0},
            "projected_stockout_at": at(19),  # the 20th day's end reaches 40
        },
        "need_by": "2025-12-14",
        "order_by": "2025-12-05",
        "urgency": "normal",
        "reasons": ["available 39 <= reorder point 45.6"],
        "estimated_cost": {"amount": 529.2, "currency": "EUR"},
        "issued_at": DAY0,
        "expires_at": at(7),
    }


def test_the_output_carries_what_its_headers_need() -> None:
    shop = Shop().placed().stocked(10)
    message = shop.opened()
    [trigger] = shop.issued
    assert (trigger.slot, trigger.sku, trigger.location) == (0, "A0", "default")
    assert (trigger.trigger_id, trigger.status, trigger.time_ms) == (message["trigger_id"], "open", DAY0)


@pytest.mark.parametrize(("on_hand", "urgency"), [(39, "normal"), (25, "high"), (17, "critical"), (0, "critical")])
def test_urgency_compares_the_stockout_with_the_lead_time(on_hand: float, urgency: str) -> None:
    """Two a day last 12 days from 25, 8 from 17; an order takes 9 days, a slow one 13."""
    assert Shop().placed().stocked(on_hand).opened()["urgency"] == urgency


def test_dates_lie_ahead_and_an_order_is_due_today_at_the_latest() -> None:
    message = Shop().placed().stocked(10).opened()
    assert (message["need_by"], message["order_by"]) == ("2025-11-29", "2025-11-25")


def test_a_source_location_makes_it_a_transfer() -> None:
    placement = Placement(lead_time_days=LeadTime(1, 2), source_location="depot")
    message = Shop().placed(placement).stocked(1).opened()
    assert (message["kind"], message["source_location"]) == ("transfer", "depot")


def test_an_unknown_placement_assumes_a_lead_time_and_says_so() -> None:
    message = Shop().stocked(5).opened()
    assert message["reasons"][1] == "no lead time known, 7.0 days assumed"
    assert message["quantity"]["pack_size"] == message["quantity"]["moq"] == 1
    assert message["estimated_cost"] is None


def test_a_lead_time_beyond_the_forecast_is_said() -> None:
    message = Shop().placed(Placement(lead_time_days=LeadTime(30, 40))).stocked(5).opened()
    assert message["reasons"][1] == "the forecast covers 28.0 of 41.0 days, continued in proportion"


def test_the_maximum_stock_caps_the_order() -> None:
    placement = Placement(lead_time_days=LeadTime(9, 13), moq=12, pack_size=12, max_stock=50)
    message = Shop().placed(placement).stocked(20).opened()
    assert message["quantity"]["order_qty"] == 24  # 50 - 20 = 30 leaves two packs
    assert message["quantity"]["rounding"] == "down"
    assert "rounded down to stay within the maximum stock" in message["reasons"]


def test_no_order_where_the_maximum_stock_leaves_no_room() -> None:
    placement = Placement(lead_time_days=LeadTime(9, 13), moq=24, pack_size=12, max_stock=40)
    assert Shop().placed(placement).stocked(20).decide() == []


def test_costs_set_lot_and_service_level_where_they_are_known() -> None:
    """K = 10, unit 5, holding 0.004 a day, short 2.5: lot sqrt(2 x 10 x 2 / 0.02); level 1 / (1 + 0.02 Q / (2.5 d))."""
    costs = Costs(10.0, "EUR", holding_per_day=0.004, shortage=0.5)
    placement = Placement(lead_time_days=LeadTime(9, 13))
    shop = Shop(ReplenishmentConfig(costs=costs)).placed(placement, unit_cost=5.0, cost_currency="EUR").stocked(10)
    policy = shop.opened()["policy"]
    assert policy["order_up_to"] - policy["reorder_point"] == pytest.approx(44.7, abs=0.3)
    assert policy["service_level"] == pytest.approx(1 / (1 + 0.02 * 44.7 / 5), abs=0.01)


def test_costs_in_another_currency_are_left_out() -> None:
    costs = Costs(10.0, "EUR", shortage=0.5)
    shop = Shop(ReplenishmentConfig(costs=costs)).placed(None, unit_cost=5.0, cost_currency="USD").stocked(10)
    message = shop.opened()
    assert message["policy"]["service_level"] == 0.95
    assert message["estimated_cost"]["currency"] == "USD"


@pytest.mark.parametrize(
    ("thousandths", "shown"), [(84_000, 84), (300, 0.3), (-1_500, -1.5), (1_234_567_891, 1234567.891)]
)
def test_quantities_are_exact(thousandths: int, shown: float) -> None:
    assert units(thousandths) == shown


def test_numbers_have_four_significant_digits() -> None:
    assert [figure(value) for value in (45.59999, 123456.7, 0.000123456)] == [45.6, 123500.0, 0.0001235]


# ------------------------------------------------------------------------------------------------ when one opens
@pytest.mark.parametrize(("on_hand", "count"), [(45, 1), (45.6, 1), (45.7, 0), (100, 0)])
def test_it_opens_at_or_below_the_reorder_point(on_hand: float, count: int) -> None:
    assert len(Shop().placed().stocked(on_hand).decide()) == count


def test_units_ordered_since_the_count_count() -> None:
    shop = Shop().placed().stocked(50)
    assert shop.decide() == []
    shop.sold(10, 0.5)
    [message] = shop.decide(day=1)
    assert message["position"]["available"] == 40
    assert message["position"]["ordered_since"] == 10


def test_nothing_opens_without_a_count() -> None:
    assert Shop().placed().decide() == []


def test_nothing_opens_where_nobody_is_expected() -> None:
    assert Shop().placed().stocked(0).decide(per_day=0.0) == []


def test_what_is_owed_is_ordered_even_then() -> None:
    [message] = Shop().placed().stocked(-5).decide(per_day=0.0)
    assert message["quantity"]["order_qty"] == 36  # 5 owed + the minimum order, in packs


@pytest.mark.parametrize(("day", "count"), [(3.0, 1), (3.01, 0)])
def test_nothing_opens_on_stale_stock(day: float, count: int) -> None:
    assert len(Shop().placed().stocked(10).decide(day=day)) == count


def test_triggers_come_in_the_order_of_the_slots() -> None:
    shop = Shop()
    for slot in (2, 5, 7):
        shop.stocked(0, slot=slot)
    assert [message["sku"] for message in shop.decide(slots=(7, 2, 5))] == ["A7", "A2", "A5"]


# ------------------------------------------------------------------------------------------------ what becomes of it
def test_nothing_new_says_nothing() -> None:
    shop = Shop().placed().stocked(10)
    shop.opened()
    assert shop.decide(day=0.5) == shop.decide(day=1) == []


def test_a_larger_need_is_a_revision_under_the_same_key() -> None:
    shop = Shop().placed().stocked(31, on_order=12, reserved=4)
    first = shop.opened()
    [second] = shop.decide(per_day=4.0, day=1)
    assert (second["status"], second["revision"]) == ("updated", 2)
    assert second["idempotency_key"] == first["idempotency_key"]
    assert second["supersedes"] == first["trigger_id"]
    assert second["reasons"][0] == "quantity 36 -> 84"  # 91.2 + 24 - 39 = 76.2


@pytest.mark.parametrize(("per_day", "count"), [(2.2, 0), (2.6, 1)])
def test_a_change_of_less_than_a_fifth_or_a_pack_is_none(per_day: float, count: int) -> None:
    shop = Shop().placed().stocked(39)
    shop.opened()
    assert len(shop.decide(per_day=per_day, day=1)) == count


def test_it_is_cancelled_when_the_stock_is_counted_up() -> None:
    shop = Shop().placed().stocked(39)
    first = shop.opened()
    [second] = shop.stocked(100, day=1).decide(day=1)
    assert (second["status"], second["revision"]) == ("cancelled", 2)
    assert second["reasons"] == ["available 100 > reorder point 45.6"]
    assert second["quantity"] == first["quantity"]
    assert shop.decide(day=1.5) == []


def test_it_is_cancelled_when_an_order_of_80995_units_is_cancelled() -> None:
    shop = Shop().placed().stocked(100)
    shop.sold(80_995, 0.5)
    [first] = shop.decide(day=0.6)
    assert first["quantity"]["order_qty"] == 80_976  # 45.6 + 24 + 80,895 = 80,964.6
    shop.sold(80_995, 0.7, Kind.ORDER_CANCELLED)
    [second] = shop.decide(day=1)
    assert (second["status"], second["position"]["available"]) == ("cancelled", 100)


def test_it_is_cancelled_when_the_demand_goes() -> None:
    shop = Shop().placed().stocked(0)
    shop.opened()
    [message] = shop.decide(per_day=0.0, day=1)
    assert message["status"] == "cancelled"
    assert message["reasons"] == ["no demand expected: reorder point 0.0"]


def test_it_is_cancelled_when_a_maximum_stock_forbids_it() -> None:
    shop = Shop().placed().stocked(30)
    shop.opened()
    [message] = shop.placed(Placement(lead_time_days=LeadTime(9, 13), moq=24, max_stock=40)).decide(day=1)
    assert message["reasons"] == ["the maximum stock leaves no room for the minimum order"]


def test_stock_a_little_above_the_reorder_point_changes_nothing() -> None:
    shop = Shop().placed().stocked(45)
    shop.opened()
    assert shop.stocked(49, day=1).decide(day=1) == []
    assert len(shop.stocked(51, day=1).decide(day=1)) == 1


def test_after_a_cancellation_the_next_one_has_a_new_key() -> None:
    shop = Shop().placed().stocked(39)
    first = shop.opened()
    shop.stocked(100, day=1).decide(day=1)
    [third] = shop.stocked(10, day=2).decide(day=2)
    assert third["status"] == "open"
    assert third["idempotency_key"] != first["idempotency_key"]


def test_an_unanswered_one_is_renewed_under_its_key() -> None:
    shop = Shop().placed().stocked(39)
    first = shop.opened()
    [second] = shop.stocked(39, day=7).decide(day=7)
    assert (second["status"], second["idempotency_key"]) == ("updated", first["idempotency_key"])
    assert second["reasons"][0] == "not answered, renewed"
    assert (second["quantity"], second["expires_at"]) == (first["quantity"], at(14))


def test_on_stale_stock_it_is_left_alone_and_expires_in_time() -> None:
    shop = Shop().placed().stocked(39)
    shop.opened()
    assert shop.decide(per_day=9.0, day=4) == []
    [message] = shop.decide(day=7)
    assert message["status"] == "expired"
    assert message["reasons"] == ["stock was counted 7.0 days ago, too long for a decision"]
    assert shop.decide(day=8) == []


# ------------------------------------------------------------------------------------------------ acknowledgements
def test_an_accepted_quantity_counts_as_on_order() -> None:
    shop = Shop().placed().stocked(31, on_order=12, reserved=4)
    key = shop.opened()["idempotency_key"]
    [message] = shop.ack(key, "accepted", 0.5)
    assert (message["status"], message["revision"]) == ("acknowledged", 2)
    assert message["reasons"] == ["accepted: 36 count as on order until a count shows them, or 2025-12-08"]
    assert shop.decide(day=1) == []
    [later] = shop.decide(per_day=4.0, day=1)
    assert later["position"]["on_order"] == 48
    assert later["idempotency_key"] != key


def test_what_was_accepted_and_never_seen_is_ordered_again_after_the_slow_lead_time() -> None:
    shop = Shop().placed().stocked(39)
    shop.ack(shop.opened()["idempotency_key"], "accepted", 0.5)
    assert shop.stocked(39, day=13).decide(day=13) == []
    assert [message["status"] for message in shop.stocked(39, day=14).decide(day=14)] == ["open"]


def test_a_rejected_one_is_cancelled_and_quiet_for_a_review_period() -> None:
    shop = Shop().placed().stocked(39)
    [message] = shop.ack(shop.opened()["idempotency_key"], "rejected", 0.5)
    assert message["status"] == "cancelled"
    assert shop.decide(day=1) == []
    assert len(shop.decide(day=1.5)) == 1


def test_received_is_noted_only() -> None:
    shop = Shop().placed().stocked(39)
    key = shop.opened()["idempotency_key"]
    assert shop.ack(key, "received", 0.5) == []
    assert len(shop.ack(key, "accepted", 0.6)) == 1


def test_an_answer_to_nothing_open_is_counted() -> None:
    shop = Shop().placed().stocked(39)
    key = shop.opened()["idempotency_key"]
    shop.ack(key, "accepted", 0.5)
    assert shop.ack(key, "accepted", 0.6) == shop.ack("rt_other", "rejected", 0.6) == []
    assert shop.engine.acks_unknown == 2


# ------------------------------------------------------------------------------------------------ retirement
def test_a_retired_series_cancels_its_trigger_and_forgets_its_stock() -> None:
    shop = Shop().placed().stocked(39)
    shop.opened()
    [message] = shop.keep(shop.engine.retire(0, at(1)))
    assert (message["status"], message["reasons"]) == ("cancelled", ["item retired"])
    assert shop.decide(day=1) == []
    assert shop.engine.retire(0, at(2)) == []


def test_a_series_that_comes_back_in_another_slot_goes_on_with_its_keys() -> None:
    shop = Shop(names={0: ("A", "x"), 1: ("A", "x")}).placed().stocked(39)
    first = shop.opened()
    shop.engine.retire(0, at(1))
    [second] = shop.stocked(1, slot=1).decide(slots=(1,))
    assert second["status"] == "open"
    assert second["idempotency_key"] != first["idempotency_key"]


# ------------------------------------------------------------------------------------------------ settings, records
@pytest.mark.parametrize(
    "make",
    [
        lambda: ReplenishmentConfig(mode="always"),
        lambda: ReplenishmentConfig(service_level=1.0),
        lambda: ReplenishmentConfig(lead_mean_days=5, lead_p90_days=4),
        lambda: ReplenishmentConfig(review_days=0),
        lambda: ReplenishmentConfig(change_share=-1),
        lambda: Costs(-1, "EUR"),
        lambda: Costs(1, "euro"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ReplenishmentError):
        make()


@pytest.mark.parametrize(("key", "value"), [("lines/0", None), ("triggers/0", b"\x92\x01\x90"), ("triggers/0", b"x")])
def test_foreign_and_damaged_records_are_refused(key: str, value: bytes | None) -> None:
    with pytest.raises(SnapshotError):
        Shop().engine.restore(key, value)


def test_a_series_takes_no_more_than_its_budget() -> None:
    shop = Shop()
    assert shop.engine.row_bytes + shop.positions.row_bytes <= 204
