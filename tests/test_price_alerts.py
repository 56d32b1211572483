"""Price alerts, the shard's side: kinds, surroundings, and the laws of chunks and state."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.price_alerts import Candidate, LineContext, PriceAlerts
from streams.price_lines import PriceRows, rounds
from streams.price_rules import Known, PriceAlertConfig, convert, judge, judge_announced
from streams.state import Record, restore_order

DAY_MS = 86_400_000
RATES = {"GBP": 1.0, "USD": 0.64, "EUR": 0.85}
Price = tuple[str, str, str, float, str, bool, int, int, str, int, int]


def price(
    amount: float,
    day: int,
    *,
    sku: str = "TEA",
    channel: str = "web",
    currency: str = "GBP",
    promo: bool = False,
    window: tuple[int, int] = (-1, -1),
) -> Price:
    time_ms = day * DAY_MS
    start, end = (at * DAY_MS if at >= 0 else -1 for at in window)
    return (sku, "default", channel, amount, currency, promo, time_ms, time_ms, f"{sku}-{day}", start, end)


def daily(amounts: Sequence[float], first: int = 1, **about: Any) -> list[Price]:
    return [price(amount, day, **about) for day, amount in enumerate(amounts, first)]


def unknown(sku: str, location: str) -> LineContext:
    return LineContext()


def play(
    rows: list[Price], config: PriceAlertConfig | None = None, about: LineContext | None = None
) -> list[Candidate]:
    alerts = PriceAlerts(config or PriceAlertConfig(), 100)
    return alerts.process(PriceRows.of(rows), lambda sku, location: about or LineContext())


def told(candidates: list[Candidate]) -> list[tuple[str, str]]:
    return [(c.action, c.resolution or c.kind) for c in candidates]


USUAL = [9.99, 10.49, 9.99, 9.99, 10.49, 9.99, 9.99, 10.49]


@pytest.mark.parametrize(
    ("amount", "kind", "form"),
    [
        (0.0, "zero_or_negative", "zero"),
        (-9.99, "zero_or_negative", "zero"),
        (1e-300, "zero_or_negative", "zero"),
        (0.01, "placeholder", "low"),
        (9999.99, "placeholder", "high"),
        (104.9, "decimal_shift", "high"),
        (1.05, "decimal_shift", "low"),
        (1049.0, "decimal_shift", "high"),
        (0.10, "decimal_shift", "low"),
        (14.09, "transposed", "high"),
        (25.0, "sudden_jump", "high"),
        (4.0, "sudden_jump", "low"),
    ],
)
def test_a_faulty_price_is_named_and_the_first_normal_one_resolves_it(amount: float, kind: str, form: str) -> None:
    fired, resolved = play(daily([*USUAL, amount, 10.49]))
    assert (fired.action, fired.kind, fired.form, fired.price) == ("fire", kind, form, amount)
    assert (resolved.action, resolved.resolution, resolved.ordinal) == ("resolve", "corrected", fired.ordinal)


@pytest.mark.parametrize("amount", [9.5, 12.0, 7.5, 13.9])
def test_a_price_in_reach_of_the_range_is_plain(amount: float) -> None:
    assert play(daily([*USUAL, amount])) == []


def test_evidence_expectation_and_money_of_a_candidate() -> None:
    about = LineContext(units_per_day=40.0)
    (fired,) = play(daily([*USUAL, 1.0]), about=about)
    assert fired.expected is not None
    assert fired.expected.p50 == pytest.approx(9.99)
    assert fired.expected.observations == 8
    assert fired.money_at_risk == pytest.approx((9.99 - 1.0) * 40.0, rel=1e-6)
    assert fired.units_at_risk == 40.0
    assert fired.evidence == pytest.approx(tuple(USUAL))
    assert fired.p_value == pytest.approx(1 / 9)


def test_too_high_a_price_risks_the_sale_not_the_gap() -> None:
    (fired,) = play(daily([*USUAL, 9999.99]), about=LineContext(units_per_day=2.0))
    assert fired.money_at_risk == pytest.approx(2 * 9.99, rel=1e-6)


def test_a_flagged_price_teaches_nothing() -> None:
    found = play(daily([*USUAL, 30.0, 9.99, 30.0, 9.99]))
    assert told(found) == [("fire", "sudden_jump"), ("resolve", "corrected")] * 2
    assert [c.ordinal for c in found] == [1, 1, 2, 2]


def test_a_level_that_persists_is_accepted_at_its_ninth_price() -> None:
    found = play(daily([*USUAL, *[20.0] * 8]))
    assert told(found) == [("fire", "sudden_jump")]
    found = play(daily([*USUAL, *[20.0] * 12, 9.99]))
    assert told(found) == [("fire", "sudden_jump"), ("resolve", "accepted"), ("fire", "sudden_jump")]
    assert [c.event_time // DAY_MS for c in found] == [9, 17, 21]


def test_zeros_are_never_accepted() -> None:
    assert told(play(daily([*USUAL, *[0.0] * 20]))) == [("fire", "zero_or_negative")]


def test_a_level_that_wanders_is_told_but_is_one_alert() -> None:
    found = play(daily([*USUAL, 20.0, 21.0, 20.0, 22.0, 20.0, 19.0, 20.0, 21.0, 20.0]))
    assert told(found)[0] == ("fire", "sudden_jump")
    assert {action for action, _ in told(found)[1:-1]} == {"update"}
    assert told(found)[-1] == ("resolve", "accepted")


def test_a_fault_on_top_of_a_waiting_level_is_one_more_alert_and_none_on_its_correction() -> None:
    found = play(daily([*USUAL, *[5.0] * 4, 0.05, 0.05, *[5.0] * 6]))
    assert told(found) == [
        ("fire", "sudden_jump"),
        ("resolve", "corrected"),
        ("fire", "decimal_shift"),
        ("resolve", "corrected"),
    ]


def test_a_zero_on_top_of_a_waiting_level_likewise() -> None:
    found = play(daily([*USUAL, *[20.0] * 3, 0.0, *[20.0] * 8]))
    assert [c.kind for c in found if c.action == "fire"] == ["sudden_jump", "zero_or_negative"]


def test_a_line_that_flaps_between_two_levels_alerts_once() -> None:
    found = play(daily([*USUAL, *[20.0] * 4, 9.99, *[20.0] * 3, 9.99, *[20.0] * 3, 9.99, 20.0]))
    assert told(found) == [("fire", "sudden_jump"), ("resolve", "corrected")]


@pytest.mark.parametrize("amount", [8.0, 5.0, 2.6])
def test_an_announced_promotion_is_no_anomaly_and_teaches_nothing(amount: float) -> None:
    rows = daily(USUAL) + [price(amount, day, promo=True) for day in range(9, 30)]
    assert play(rows) == []
    again = play([*rows, price(5.0, 31)])
    assert told(again) == [("fire", "sudden_jump")]


def test_a_promotion_beyond_reason_is_flagged() -> None:
    assert told(play([*daily(USUAL), price(0.99, 9, promo=True)])) == [("fire", "decimal_shift")]
    assert told(play([*daily(USUAL), price(99.9, 9, promo=True)])) == [("fire", "decimal_shift")]


def test_a_promotion_ends_an_open_alert_as_announced() -> None:
    found = play([*daily([*USUAL, 5.0]), price(5.0, 10, promo=True)])
    assert told(found) == [("fire", "sudden_jump"), ("resolve", "announced")]


def test_a_price_with_a_window_is_announced_for_that_window() -> None:
    rows = [*daily(USUAL), price(5.0, 9, window=(12, 14)), price(9.99, 10), price(5.0, 12), price(5.0, 13)]
    assert play(rows) == []
    assert told(play([*rows, price(5.0, 15)])) == [("fire", "sudden_jump")]


def test_a_change_announced_for_good_becomes_the_level_when_it_comes() -> None:
    rows = [*daily(USUAL), price(20.0, 9, window=(12, -1)), price(9.99, 10), price(20.0, 12), price(20.0, 13)]
    assert play(rows) == []
    assert told(play([*rows, price(9.99, 14)])) == [("fire", "sudden_jump")]


def test_another_currency_is_a_fault_until_it_persists() -> None:
    rows = daily(USUAL)
    assert told(play([*rows, price(9.99, 9, currency="EUR"), price(9.99, 10)])) == [
        ("fire", "currency_mismatch"),
        ("resolve", "corrected"),
    ]
    moved = [price(11.5, day, currency="EUR") for day in range(9, 25)]
    assert told(play([*rows, *moved])) == [("fire", "currency_mismatch"), ("resolve", "accepted")]


def test_a_converted_number_with_the_old_code_is_a_currency_fault_where_rates_are_known() -> None:
    rows = daily([*USUAL * 4, 16.39, 10.49, 15.61])
    assert [c.kind for c in play(rows, PriceAlertConfig(rates=RATES)) if c.action == "fire"] == [
        "currency_mismatch"
    ] * 2
    assert play(daily([*USUAL, 13.5]), PriceAlertConfig(rates=RATES)) == []


def test_amounts_without_a_rate_are_counted_not_compared() -> None:
    alerts = PriceAlerts(PriceAlertConfig(), 10)
    rows = PriceRows.of([*daily(USUAL), price(9.99, 9, currency="SEK")])
    (fired,) = alerts.process(rows, lambda sku, location: LineContext(units_per_day=3.0))
    assert (fired.money_at_risk, fired.units_at_risk, alerts.counters["uncompared"]) == (None, 3.0, 1)


def test_below_cost_is_flagged_in_comparable_money_only() -> None:
    rows = daily([*USUAL, 8.0])
    assert told(play(rows, about=LineContext(unit_cost=8.5, cost_currency="GBP"))) == [("fire", "below_cost")]
    assert play(rows, about=LineContext(unit_cost=10.0, cost_currency="EUR")) == []
    with_rates = play(rows, PriceAlertConfig(rates=RATES), LineContext(unit_cost=10.0, cost_currency="EUR"))
    assert told(with_rates) == [("fire", "below_cost")]


def test_a_line_that_always_sold_below_cost_is_left_alone() -> None:
    found = play(daily([5.0] * 20), about=LineContext(unit_cost=8.5, cost_currency="GBP"))
    assert told(found) == [("fire", "below_cost"), ("resolve", "accepted")]


def test_few_prices_know_hard_rules_only() -> None:
    assert play(daily([10.0, 25.0, 4.0])) == []
    assert told(play(daily([10.0, 10.0, 100.0]))) == [("fire", "decimal_shift")]
    assert told(play(daily([10.0, 0.01]))) == [("fire", "placeholder")]
    assert told(play(daily([0.0]))) == [("fire", "zero_or_negative")]
    assert play(daily([0.01] * 20)) == []  # some shops sell screws


def test_an_older_price_is_ignored_and_counted() -> None:
    alerts = PriceAlerts(PriceAlertConfig(), 10)
    assert alerts.process(PriceRows.of([*daily(USUAL), price(0.0, 3)]), unknown) == []
    assert alerts.counters["older"] == 1


def test_channels_are_lines_of_their_own() -> None:
    rows = [row for day in range(1, 20) for row in (price(10.0, day), price(4.0, day, channel="bulk"))]
    assert play(rows) == []


def test_lines_beyond_the_maximum_are_counted_and_disturb_nobody() -> None:
    alerts = PriceAlerts(PriceAlertConfig(), 1)
    rows = [
        row for day, amount in enumerate([*USUAL, 0.0], 1) for row in (price(amount, day), price(0.0, day, sku="X"))
    ]
    assert told(alerts.process(PriceRows.of(rows), unknown)) == [("fire", "zero_or_negative")]
    assert alerts.counters["refused"] == 9


def test_a_retired_item_frees_its_slots_and_ends_its_alerts() -> None:
    alerts = PriceAlerts(PriceAlertConfig(), 2)
    alerts.process(PriceRows.of(daily([*USUAL, 0.0]) + daily(USUAL, channel="bulk")), unknown)
    assert told(alerts.retire("TEA", 10 * DAY_MS, 10 * DAY_MS)) == [("resolve", "expired")]
    assert (len(alerts.lines), alerts.retire("TEA", 11 * DAY_MS, 11 * DAY_MS)) == (0, [])
    alerts.process(PriceRows.of(daily([5.0], sku="A") + daily([5.0], sku="B")), unknown)
    assert alerts.counters["refused"] == 0


def test_a_line_takes_at_most_300_bytes() -> None:
    assert PriceAlerts(PriceAlertConfig(), 1000).lines.row_bytes <= 300


@pytest.mark.parametrize(
    ("settings_", "word"),
    [({"reach": 1.0}, "reach"), ({"accept_after": 99}, "accept_after"), ({"min_accepted": 0}, "min_accepted"),
     ({"rates": {"USD": 0.0}}, "USD"), ({"far": float("nan")}, "far")],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused_by_name(settings_: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        PriceAlertConfig(**settings_)


def test_judging_needs_no_rates_and_money_converts_both_ways() -> None:
    assert convert(3.0, "USD", "SEK", RATES) is None
    assert convert(convert(3.0, "USD", "EUR", RATES) or 0.0, "EUR", "USD", RATES) == pytest.approx(3.0)
    known = Known([10.0] * 6, "GBP", 1.5)
    assert judge_announced(3.0, known, PriceAlertConfig(), 1.5) is None
    assert judge(3.0, known, PriceAlertConfig()) is not None


def test_rounds_hold_every_row_once_in_order_of_its_line() -> None:
    slots = np.random.default_rng(7).integers(-1, 5, 200)
    parts = list(rounds(slots))
    assert sorted(np.concatenate(parts).tolist()) == np.flatnonzero(slots >= 0).tolist()
    assert all(len(set(slots[part].tolist())) == len(part) for part in parts)
    assert list(rounds(np.full(3, -1))) == []


# ---------------------------------------------------------------------------------------------------------------- laws
LINES = 30  # enough that parts of a call are learned in bulk


def shop(seed: int, days: int) -> list[Price]:
    """A small shop with every kind of trouble, one batch a day in shuffled order."""
    rng = np.random.default_rng(seed)
    base = np.round(rng.lognormal(2.0, 1.0, LINES), 2) + 0.05
    rows: list[Price] = []
    for day in range(1, days + 1):
        for line in rng.permutation(LINES).tolist():
            base[line] *= rng.choice([1.0, 1.0, 1.0, 1.02, 0.97, 1.7, 0.5], p=[0.4, 0.2, 0.2, 0.08, 0.08, 0.02, 0.02])
            factor = rng.choice([1.0, 10.0, 0.01, 0.0, -1.0, 2.2], p=[0.94, 0.02, 0.01, 0.01, 0.01, 0.01])
            window = (day + 1, day + 3) if rng.random() < 0.02 else (-1, -1)
            if rng.random() < 0.02:
                window = (day + 1, -1)
            rows.append(
                price(
                    round(float(base[line] * factor), 2), day - int(rng.random() < 0.03) * 2 + 2,
                    sku=f"S{line % 20}", channel="web" if line < 20 else "bulk",
                    currency="EUR" if rng.random() < 0.02 else "GBP", promo=bool(rng.random() < 0.05), window=window,
                )
            )  # fmt: skip
    return rows


def about(sku: str, location: str) -> LineContext:
    return LineContext(unit_cost=float(len(sku)) * 2, cost_currency="GBP", units_per_day=3.5)


def encoded(candidates: list[Candidate]) -> list[bytes]:
    return [msgspec.json.encode(candidate) for candidate in candidates]


def newest(records: list[Record]) -> dict[str, bytes | None]:
    return dict(records)


def restored(alerts: PriceAlerts, records: dict[str, bytes | None]) -> PriceAlerts:
    for key in sorted(records, key=restore_order):
        alerts.restore(key, records[key])
    return alerts


def contents(alerts: PriceAlerts) -> list[Any]:
    lines = alerts.lines
    keys = [key for slot in range(len(lines._texts)) if (key := lines.key(slot))]
    return [*keys, *(array.tobytes() for array in lines._table.arrays.values())]


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), days=st.integers(8, 30), cuts=st.lists(st.floats(0, 1), max_size=6))
def test_results_and_state_do_not_depend_on_how_rows_are_split(seed: int, days: int, cuts: list[float]) -> None:
    rows = shop(seed, days)
    whole, split = PriceAlerts(PriceAlertConfig(), 50), PriceAlerts(PriceAlertConfig(), 50)
    expected = encoded(whole.process(PriceRows.of(rows), about))
    edges = [0, *sorted(int(cut * len(rows)) for cut in cuts), len(rows)]
    found = [split.process(PriceRows.of(rows[a:b]), about) for a, b in pairwise(edges)]
    assert [line for part in found for line in encoded(part)] == expected
    assert newest(list(split.changes())) == newest(list(whole.changes()))


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_one_by_one_is_in_bulk(seed: int) -> None:
    rows = shop(seed, 15)
    bulk, single = PriceAlerts(PriceAlertConfig(rates=RATES), 50), PriceAlerts(PriceAlertConfig(rates=RATES), 50)
    expected = encoded(bulk.process(PriceRows.of(rows), about))
    found = [line for row in rows for line in encoded(single.process(PriceRows.of([row]), about))]
    assert found == expected
    assert newest(list(single.changes())) == newest(list(bulk.changes()))
    assert contents(single) == contents(bulk)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), days=st.integers(8, 30), cut=st.floats(0, 1), commits=st.integers(1, 4))
def test_prefix_records_restore_and_rest_are_all(seed: int, days: int, cut: float, commits: int) -> None:
    rows = shop(seed, days)
    at = int(cut * len(rows))
    config = PriceAlertConfig()
    whole, before, after = (PriceAlerts(config, 25) for _ in range(3))  # too few slots: refused lines are state as well
    expected = encoded(whole.process(PriceRows.of(rows), about)) + encoded(whole.retire("S3", 0, 0))
    records: dict[str, bytes | None] = {}
    found: list[bytes] = []
    for part in np.array_split(np.arange(at), commits):
        found += encoded(before.process(PriceRows.of([rows[i] for i in part.tolist()]), about))
        records.update(before.changes())
    restored(after, records)
    assert list(after.changes()) == []
    found += encoded(after.process(PriceRows.of(rows[at:]), about)) + encoded(after.retire("S3", 0, 0))
    assert found == expected
    records.update(after.changes())
    assert after.counters == whole.counters
    assert contents(after) == contents(restored(PriceAlerts(config, 25), records)) == contents(whole)


def test_what_did_not_change_is_not_written() -> None:
    alerts = PriceAlerts(PriceAlertConfig(), 2000)
    lines = [price(10.0, day, sku=f"S{n}") for day in range(1, 7) for n in range(1500)]
    alerts.process(PriceRows.of(lines), unknown)
    assert len(list(alerts.changes())) == 6
    alerts.process(PriceRows.of([price(10.0, 7, sku="S1200")]), unknown)
    assert [key for key, _ in alerts.changes()] == ["lines/rows/+2"]
    assert list(alerts.changes()) == []
