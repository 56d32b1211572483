"""Laws of triggers under any sequence of counts, sales, answers, placements and retirements."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.calendar import DAY_MS
from streams.events import Kind, Placement
from streams.state import restore_order
from tests.stocked_shop import Shop, at, demand

DECIDE = st.tuples(st.just("decide"), st.sampled_from([0.0, 1.0, 2.0, 5.0]), st.just(0))
STEP = st.one_of(
    DECIDE,
    DECIDE,
    st.tuples(st.just("count"), st.integers(0, 2), st.integers(-5, 30)),
    st.tuples(st.just("count"), st.integers(0, 2), st.integers(-5, 90)),
    st.tuples(st.just("sold"), st.integers(1, 2), st.integers(1, 30)),
    st.tuples(st.just("ack"), st.sampled_from(["accepted", "rejected", "received"]), st.integers(0, 2)),
    st.tuples(st.just("place"), st.integers(0, 2), st.integers(1, 9)),
    st.tuples(st.just("retire"), st.integers(0, 2), st.just(0)),
)
Steps = list[tuple[str, Any, Any]]


def play(shop: Shop, steps: Steps, since: int = 0) -> None:
    """One step every half a day."""
    for number, (what, first, second) in enumerate(steps, since):
        day = number / 2
        if what == "decide":
            shop.decide(first, day, slots=(2, 0, 1))
        elif what == "count":
            shop.stocked(second, day, slot=first)
        elif what == "sold":
            shop.sold(second, day, Kind(first))
        elif what == "ack":
            openings = [json for json in map(orjson.loads, (t.value for t in shop.issued)) if json["status"] == "open"]
            for message in openings[-1 - second : len(openings) - second]:
                shop.ack(message["idempotency_key"], first, day)
        elif what == "place":
            shop.positions.place(first, Placement(pack_size=second, moq=2 * second, max_stock=60), time_ms=at(day))
        else:
            shop.keep(shop.engine.retire(first, at(day)))


def records(shop: Shop) -> dict[str, bytes | None]:
    return dict([*shop.positions.changes(), *shop.engine.changes()])


def contents(shop: Shop) -> list[bytes]:
    tables = (*shop.positions.tables, shop.engine._table)
    return [array.tobytes() for table in tables for array in table.arrays.values()]


def _of_a_table(key: str) -> bool:
    return key.startswith(("positions/", "flows/", "reorders/"))


@settings(max_examples=250, deadline=None)
@given(st.lists(STEP, min_size=8, max_size=60), st.integers(0, 60))
def test_records_of_a_prefix_and_the_rest_give_the_same_as_everything(steps: Steps, cut: int) -> None:
    whole, first, second = Shop(), Shop(), Shop()
    play(whole, steps)
    play(first, steps[: cut // 2])
    kept = records(first)
    play(first, steps[cut // 2 : cut], cut // 2)
    kept.update(records(first))
    for key in sorted(kept, key=restore_order):
        stock = key.split("/")[0] in ("positions", "flows", "sources")
        (second.positions if stock else second.engine).restore(key, kept[key])
    second.issued = list(first.issued)
    play(second, steps[cut:], cut)
    assert second.issued == whole.issued
    assert contents(second) == contents(whole)
    everything, again = records(whole), records(second)
    assert all(everything[key] == value for key, value in again.items() if not _of_a_table(key))


@settings(max_examples=250, deadline=None)
@given(st.lists(STEP, min_size=8, max_size=60))
def test_laws_of_every_life(steps: Steps) -> None:
    shop = Shop()
    play(shop, steps)
    seen: dict[str, bytes] = {}
    live: dict[str, str] = {}
    for trigger in shop.issued:
        message = orjson.loads(trigger.value)
        quantity, position = message["quantity"], message["position"]
        assert quantity["order_qty"] % quantity["pack_size"] == 0
        assert quantity["order_qty"] >= quantity["moq"]
        assert seen.setdefault(trigger.trigger_id, trigger.value) == trigger.value
        assert message["supersedes"] is None or message["supersedes"] in seen
        if message["status"] in ("open", "updated"):
            assert position["as_of"] - position["counted_at"] <= 3 * DAY_MS
        if message["status"] == "open":
            assert message["sku"] not in live  # at most one per series
            live[message["sku"]] = message["idempotency_key"]
            assert position["available"] <= message["policy"]["reorder_point"] + 0.01
        assert live[message["sku"]] == message["idempotency_key"]
        if message["status"] not in ("open", "updated"):
            del live[message["sku"]]
    assert len(seen) == len(shop.issued)
    assert len(live) == len(shop.engine)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 99), st.floats(0, 9)), min_size=1, max_size=9))
def test_a_series_is_decided_alike_alone_and_among_others(rows: list[tuple[int, float]]) -> None:
    together, alone = Shop(), Shop()
    cumulative = np.stack([demand(per_day) for _, per_day in rows])
    steps = at(0) + np.arange(28) * DAY_MS
    for slot, (on_hand, _) in enumerate(rows):
        together.stocked(on_hand, slot=slot)
        alone.stocked(on_hand, slot=slot)
        alone.keep(alone.engine.decide(np.array([slot]), cumulative[slot : slot + 1], at(0), [f"f{slot}"], steps))
    together.keep(together.engine.decide(np.arange(len(rows)), cumulative, at(0), lambda row: f"f{row}", steps))
    assert together.issued == alone.issued
