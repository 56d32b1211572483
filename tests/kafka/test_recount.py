"""The recount against the engine over random shops, and what it says where records do not tell; without a broker."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.calendar import Width
from streams.decode import decode
from streams.engine import Engine, EngineConfig
from streams.kafka.pane_check import Compared, PaneCheck
from streams.kafka.recount import Recount, Row
from streams.kafka.verify import rules_of
from streams.parked import parked_values
from tests.shop_events import DAY, HOUR, START, Spec, records

ENGINE = EngineConfig(max_series=64, location_time_zones={"north": "America/New_York"})
FLOWS = (b'"order_placed"', b'"order_cancelled"', b'"order_returned"')
LAWS, FEW_LAWS = (settings(max_examples=count, deadline=None) for count in (12, 5))


def check(made: list[bytes], config: EngineConfig = ENGINE, more: bytes | None = None) -> Compared:
    """Play records through an engine, and compare it with a recount of them, and of one that the engine never had."""
    engine = Engine(config, deferred=True)
    batch, _ = decode(made, clock_ms=START + 400 * DAY)
    batch.tick_ms[:] = START
    letters = Counter[bytes | None](letter.value for _, letter in engine.process(batch).dead_letters)
    while engine.paused:  # forecasts are not asked for
        engine.resume()
    state = {key: value for key, value in engine.changes() if value is not None}
    parked = Counter[bytes | None](parked_values(state))
    retired = {orjson.loads(record)["sku"] for record in made if b'"item_retired"' in record}
    cut = bool(engine.series.refused and retired)
    recount = Recount(rules_of(config), letters, parked, retired, all_cut=cut)
    for offset, record in enumerate([*made, *([more] if more else [])]):
        if any(kind in record for kind in FLOWS):
            recount.take(offset, record)
    assert recount.lost == []
    return PaneCheck(0, engine, recount).run()


@LAWS
@given(
    seed=st.integers(0, 10_000),
    late=st.sampled_from([0.0, 0.1]),
    disorder_ms=st.sampled_from([60_000, 3 * HOUR]),
    days=st.sampled_from([3.0, 20.0, 120.0]),
)
def test_the_panes_of_random_shops_hold_what_a_recount_says(
    seed: int, late: float, disorder_ms: int, days: float
) -> None:
    found = check(records(Spec(seed, events=400, days=days, late=late, disorder_ms=disorder_ms)))
    assert found.named == []
    assert found.differences == 0
    assert found.buckets > 0


@FEW_LAWS
@given(seed=st.integers(0, 10_000), most=st.sampled_from([3, 64]))
def test_neither_do_hours_nor_refused_series_matter(seed: int, most: int) -> None:
    config = replace(ENGINE, width=Width.HOUR, max_series=most)
    assert check(records(Spec(seed, days=18.0)), config).named == []


def test_hardly_anything_is_left_undecided() -> None:
    found = check(records(Spec(3, events=2_000, days=60)))
    assert found.unsure < found.buckets / 10


@pytest.mark.parametrize(("kind", "what"), [("placed", "ordered"), ("cancelled", "cancelled")])
def test_a_record_that_the_engine_never_had_is_named(kind: str, what: str) -> None:
    made = records(Spec(5, facts=0.0))
    last_ms = max(orjson.loads(record)["event_time"] for record in made)
    found = check(made, more=order("new", last_ms, kind, sku="sku-1", quantity=0.001))
    assert found.differences == 1
    [one] = found.named
    assert (one.sku, one.location, one.what) == ("sku-1", "default", what)
    assert round(one.in_topics - one.in_state, 6) == 0.001


def test_a_series_that_the_engine_never_had_is_named() -> None:
    other = order("new", START, sku="other", quantity=2)
    assert [str(one) for one in check(records(Spec(5, facts=0.0)), more=other).named] == [
        "shard 0: other at default, 2011-01-26: 0 ordered in state, 2 in the topics"
    ]


def order(event_id: str, time_ms: int, kind: str = "placed", **more: object) -> bytes:
    """A flow of TEA."""
    event = {"type": f"order_{kind}", "event_id": event_id, "event_time": time_ms, "sku": "TEA", "order_id": "o"}
    return orjson.dumps(event | {"quantity": 1} | more)


def counted(*made: bytes | None, letters: tuple[bytes | None, ...] = (), retired: bool = False) -> tuple[Recount, Row]:
    """A recount of records of TEA, and its one row."""
    recount = Recount(rules_of(ENGINE), Counter(letters), Counter(), {"TEA"} if retired else ())
    for offset, record in enumerate(made):
        recount.take(offset, record)
    return recount, recount.rows.get(("TEA", "default"), Row())


def test_repeats_and_dead_letters_do_not_count_and_what_is_neither_is_lost() -> None:
    late = order("late", START - DAY)
    recount, row = counted(order("a", START), late, order("a", START), b"{", None, b"[]", letters=(late, b"{", None))
    assert (recount.counted, recount.repeats, recount.left_out, recount.lost) == (1, 1, 3, [5])
    assert row.amounts == {(15_000, 0): 1000}


def test_an_id_used_again_for_a_later_time_leaves_its_bucket_undecided() -> None:
    _, row = counted(order("a", START), order("a", START + 14 * HOUR))
    assert (row.amounts, row.unsure) == ({(15_000, 0): 1000}, {(15_000, 0)})
    later = [order("b", START + 3 * DAY), order("c", START + 5 * DAY), order("a", START + 5 * DAY)]
    _, row = counted(order("a", START), *later)
    assert (row.amounts[15_005, 0], row.unsure) == (2000, set()), "by then it is forgotten"


def test_a_cancellation_lies_where_its_order_was_if_that_can_be_told() -> None:
    def cancelled(original_ms: int, own_ms: int) -> Row:
        return counted(
            order("a", START), order("b", own_ms), order("c", own_ms, "cancelled", original_time=original_ms)
        )[1]

    week = START + 7 * DAY
    assert cancelled(START, week).amounts[15_000, 1] == 1000
    assert cancelled(week + DAY, week).amounts[15_007, 1] == 1000, "an order after its cancellation"
    assert cancelled(START, START + 90 * DAY).amounts[15_090, 1] == 1000, "its order has left the ring"
    assert cancelled(START - DAY, week).either == {14_999, 15_007}, "older than anything known of the series"


def test_of_a_retired_item_any_end_of_its_history_may_be_left() -> None:
    recount, row = counted(order("a", START), order("b", START + DAY), order("c", START + 2 * DAY), retired=True)
    days = [{(day, 0): 1000 for day in range(15_000 + first, 15_003)} for first in range(3, -1, -1)]
    assert [dict(end.amounts) for end in recount.ends(row)] == days
