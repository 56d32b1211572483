"""Stock positions: what counts, orders, cancellations and accepted triggers do to the available quantity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.calendar import DAY_MS
from streams.events import Kind, LeadTime, Placement
from streams.positions import ACCEPTED, CELL_MS, HAS_LEAD, HAS_MAX, MAX_SOURCES, Positions, thousandths
from streams.state import SnapshotError, restore_order

NOON = 1_700_006_400_000 - 1_700_006_400_000 % CELL_MS
SLOT = 3


def counted(on_hand: float = 31.0, on_order: float = 12.0, reserved: float = 4.0, at: int = NOON) -> Positions:
    positions = Positions(1000)
    assert positions.count(SLOT, on_hand=on_hand, on_order=on_order, reserved=reserved, time_ms=at)
    return positions


def flow(positions: Positions, kind: Kind, units: float, at: int, slot: int = SLOT) -> None:
    positions.apply_flows(np.array([slot]), np.array([kind]), np.array([thousandths(units)]), np.array([at]))


def available(positions: Positions, at: int = NOON + DAY_MS, slot: int = SLOT) -> float:
    return float(positions.available(np.array([slot]), at)[0]) / 1000


def test_available_is_on_hand_and_on_order_less_reserved() -> None:
    assert available(counted()) == 39


def test_orders_after_the_count_are_taken_off_and_cancellations_put_back() -> None:
    positions = counted()
    flow(positions, Kind.ORDER_PLACED, 5, NOON + 1)
    flow(positions, Kind.ORDER_CANCELLED, 2.5, NOON + 2)
    assert available(positions) == 36.5


def test_orders_not_younger_than_the_count_are_in_it_already() -> None:
    positions = counted()
    flow(positions, Kind.ORDER_PLACED, 5, NOON)
    flow(positions, Kind.ORDER_PLACED, 5, NOON - 60_000)
    assert available(positions) == 39


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.ORDER_PLACED, Kind.ORDER_CANCELLED)])
def test_returns_and_everything_else_never_matter(kind: Kind) -> None:
    positions = counted()
    flow(positions, kind, 5, NOON + 1)
    assert available(positions) == 39


def test_a_series_without_a_count_keeps_nothing() -> None:
    positions = Positions(1000)
    flow(positions, Kind.ORDER_PLACED, 5, NOON)
    assert list(positions.changes()) == []


def test_the_newest_count_wins_whatever_the_order_of_arrival() -> None:
    positions = counted(on_hand=50, at=NOON)
    assert not positions.count(SLOT, on_hand=99, time_ms=NOON - 1)
    assert available(positions) == 50 + 12 - 4


def test_a_count_starts_the_orders_anew() -> None:
    positions = counted()
    flow(positions, Kind.ORDER_PLACED, 5, NOON + 1)
    positions.count(SLOT, on_hand=20, time_ms=NOON + 2)
    assert available(positions) == 20


def test_orders_that_came_before_an_older_count_stay_taken_off() -> None:
    """Stock and orders are different topics: the order of a quarter past may be read before the count of noon."""
    positions = counted(on_hand=100, on_order=0, reserved=0, at=NOON - DAY_MS)
    flow(positions, Kind.ORDER_PLACED, 30, NOON - 3_600_000)
    flow(positions, Kind.ORDER_PLACED, 5, NOON + 60_000)
    flow(positions, Kind.ORDER_PLACED, 2, NOON + CELL_MS)
    positions.count(SLOT, on_hand=70, time_ms=NOON)
    assert available(positions) == 63


def test_quarter_hours_older_than_an_hour_are_let_go() -> None:
    positions = counted(on_hand=100, on_order=0, reserved=0, at=NOON - DAY_MS)
    flow(positions, Kind.ORDER_PLACED, 5, NOON + 1)
    flow(positions, Kind.ORDER_PLACED, 2, NOON + 4 * CELL_MS)
    positions.count(SLOT, on_hand=80, time_ms=NOON)
    assert available(positions) == 78


def test_an_accepted_quantity_counts_as_on_order_until_the_slow_lead_time_has_passed() -> None:
    positions = counted()
    positions.accept(SLOT, 84_000, NOON + 1000, NOON + 13 * DAY_MS)
    assert available(positions, NOON + 13 * DAY_MS - 1) == 39 + 84
    assert available(positions, NOON + 13 * DAY_MS) == 39


@pytest.mark.parametrize(
    ("on_hand", "on_order", "left"),
    [(31, 12, 84), (31, 96, 0), (115, 12, 0), (61, 12, 54), (30, 12, 84)],
    ids=["not shown yet", "listed as on order", "arrived", "part arrived", "shrinkage"],
)
def test_a_later_count_pays_off_what_it_shows(on_hand: float, on_order: float, left: float) -> None:
    positions = counted()
    positions.accept(SLOT, 84_000, NOON + 1000, NOON + 13 * DAY_MS)
    positions.count(SLOT, on_hand=on_hand, on_order=on_order, reserved=4, time_ms=NOON + 10_000)
    assert available(positions) == on_hand + on_order - 4 + left


def test_units_sold_between_two_counts_do_not_hide_an_arrival() -> None:
    positions = counted()
    positions.accept(SLOT, 84_000, NOON + 1000, NOON + 13 * DAY_MS)
    flow(positions, Kind.ORDER_PLACED, 20, NOON + 2000)
    positions.count(SLOT, on_hand=31 - 20 + 84, on_order=12, reserved=4, time_ms=NOON + 10_000)
    assert available(positions) == 31 - 20 + 84 + 12 - 4


def test_a_count_older_than_the_acceptance_cannot_show_it() -> None:
    positions = counted(at=NOON - 5000)
    positions.accept(SLOT, 84_000, NOON + 5000, NOON + 13 * DAY_MS)
    positions.count(SLOT, on_hand=131, on_order=12, reserved=4, time_ms=NOON)
    assert available(positions) == 139 + 84


def test_more_acceptances_than_places_are_added_to_the_youngest() -> None:
    positions = counted()
    for number in range(ACCEPTED + 2):
        positions.accept(SLOT, 10_000, NOON + number * 1000, NOON + DAY_MS * (5 + number))
    assert available(positions, NOON + DAY_MS) == 39 + 10 * (ACCEPTED + 2)


def test_a_placement_is_taken_over_and_an_older_one_is_not() -> None:
    positions = Positions(10)
    placement = Placement(lead_time_days=LeadTime(9, 13), moq=24, pack_size=12, max_stock=0, source_location="depot")
    assert positions.place(SLOT, placement, unit_cost=2.5, cost_currency="EUR", time_ms=NOON)
    assert not positions.place(SLOT, None, time_ms=NOON - 1)
    row = {name: array[SLOT].tolist() for name, array in positions.table.arrays.items()}
    assert (row["lead_mean"], row["lead_p90"], row["moq"], row["pack"], row["unit_cost"]) == (
        9,
        13,
        24000,
        12000,
        25000,
    )
    assert row["flags"] == HAS_LEAD | HAS_MAX
    assert positions.source(SLOT) == "depot"


def test_an_absent_placement_forgets_the_one_before() -> None:
    positions = Positions(10)
    positions.place(SLOT, Placement(moq=24, source_location="depot"), time_ms=NOON)
    positions.place(SLOT, None, time_ms=NOON + 1)
    assert positions.table["moq"][SLOT] == 0
    assert positions.source(SLOT) == ""


def test_source_locations_past_the_maximum_are_counted_and_disturb_nobody() -> None:
    positions = Positions(10)
    for number in range(MAX_SOURCES + 1):
        positions._source(f"L{number}")
    assert positions.sources_refused == 1
    assert positions._source("L0") == 1


def test_a_retired_slot_is_as_new() -> None:
    positions = counted()
    flow(positions, Kind.ORDER_PLACED, 5, NOON + 1)
    positions.retire(SLOT)
    assert not any(table[name][SLOT].any() for table in (positions.table, positions.flows) for name in table.arrays)


def test_a_series_takes_no_more_than_its_budget() -> None:
    assert Positions(1).row_bytes <= 176


def test_a_foreign_record_is_refused() -> None:
    with pytest.raises(SnapshotError, match="no record of stock positions"):
        Positions(10).restore("lines/0", None)


STEP = st.one_of(
    st.tuples(st.just("flow"), st.integers(0, 2), st.integers(1, 3), st.integers(1, 9), st.integers(0, 60)),
    st.tuples(st.just("count"), st.integers(0, 2), st.integers(0, 99), st.integers(0, 40), st.integers(0, 60)),
    st.tuples(st.just("accept"), st.integers(0, 2), st.integers(1, 50), st.integers(1, 30), st.integers(0, 60)),
    st.tuples(st.just("place"), st.integers(0, 2), st.integers(0, 5), st.integers(1, 9), st.integers(0, 60)),
    st.tuples(st.just("retire"), st.integers(0, 2), st.just(0), st.just(0), st.just(0)),
)
Steps = list[tuple[str, int, int, int, int]]


def play(positions: Positions, steps: Steps) -> None:
    for what, slot, first, second, minutes in steps:
        at = NOON + minutes * 240_000
        if what == "flow":
            flow(positions, Kind(first), second, at, slot)
        elif what == "count":
            positions.count(slot, on_hand=first, on_order=second, time_ms=at)
        elif what == "accept":
            positions.accept(slot, first * 1000, at, at + second * 600_000)
        elif what == "place":
            positions.place(slot, Placement(pack_size=second, source_location=f"L{first}"), time_ms=at)
        else:
            positions.retire(slot)


def contents(positions: Positions) -> list[Any]:
    tables = [table[name].tobytes() for table in (positions.table, positions.flows) for name in table.arrays]
    return [*tables, [positions.source(slot) for slot in range(3)]]


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=30), st.integers(0, 30))
def test_records_of_a_prefix_and_the_rest_give_the_same_as_everything(steps: Steps, cut: int) -> None:
    whole, first, second = Positions(3), Positions(3), Positions(3)
    play(whole, steps)
    play(first, steps[: cut // 2])
    records = dict(first.changes())
    play(first, steps[cut // 2 : cut])
    records.update(first.changes())
    for key in sorted(records, key=restore_order):
        second.restore(key, records[key])
    play(second, steps[cut:])
    assert contents(second) == contents(whole)
    assert list(first.changes()) == []


FLOWS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(1, 9), st.integers(-10, 120)), min_size=1, max_size=40
)


@settings(max_examples=60, deadline=None)
@given(FLOWS, st.integers(0, 40), st.randoms(use_true_random=False))
def test_neither_cutting_nor_shuffling_flows_changes_anything(
    flows: list[tuple[int, int, int, int]], cut: int, random: Any
) -> None:
    shuffled = random.sample(flows, len(flows))
    results = []
    for order in ([flows], [flows[:cut], flows[cut:]], [shuffled]):
        positions = Positions(3)
        for slot in range(2):  # the third series is never counted
            positions.count(slot, on_hand=100, time_ms=NOON)
        for part in order:
            columns = np.array(part, np.int64).reshape(-1, 4)
            times = NOON + columns[:, 3] * 60_000
            positions.apply_flows(columns[:, 0].astype(np.int32), columns[:, 1], columns[:, 2] * 1000, times)
        results.append(contents(positions))
    assert results[0] == results[1] == results[2]


@settings(max_examples=60, deadline=None)
@given(FLOWS)
def test_available_equals_a_sum_over_all_events(flows: list[tuple[int, int, int, int]]) -> None:
    positions = counted(on_hand=100, on_order=0, reserved=0)
    expected = 100
    for _, kind, quantity, minutes in flows:
        flow(positions, Kind(kind), quantity, NOON + minutes * 60_000)
        if minutes > 0:
            expected -= {1: quantity, 2: -quantity, 3: 0}[kind]
    assert available(positions) == expected
