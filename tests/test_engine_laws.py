"""Laws of the engine, over random shops: chunks, order, repeats, balance, restore, refused series."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.price_hurdle import PriceHurdle
from streams.decode import decode
from streams.engine import Engine, EngineConfig
from streams.outputs import DEMAND_TOPIC, Output, Outputs, as_line
from streams.panes import UNIT
from streams.price_forecast import PRICE_TOPIC
from streams.price_forecasting import answered
from streams.replay import Replay, ReplayConfig
from streams.state import SnapshotError
from tests.shop_events import DAY, START, Spec, records

ENGINE = EngineConfig(max_series=64, base_currency="EUR", location_time_zones={"north": "America/New_York"})
REPLAY = ReplayConfig(engine=ENGINE, clock_ms=START + 400 * DAY, forecasts="all")
HURDLE = PriceHurdle()
LAWS = settings(max_examples=8, deadline=None)
SEEDS = st.integers(0, 10_000)


def played(made: list[bytes], config: ReplayConfig = REPLAY, cuts: list[int] | None = None) -> dict[str, list[bytes]]:
    """All outputs by topic of records played in chunks that end at `cuts`, and the summary."""
    out: dict[str, list[bytes]] = defaultdict(list)

    def write(outputs: list[Output]) -> None:
        for output in outputs:
            out[output.topic].append(as_line(output))

    player = Replay(config, write)
    bounds = [0, *(cuts or []), len(made)]
    for start, stop in pairwise(bounds):
        if stop > start:
            player.feed(made[start:stop])
    player.finish()
    out["summary"] = [orjson.dumps(player.summary())]
    return dict(out)


@LAWS
@given(seed=SEEDS, cuts=st.lists(st.integers(0, 330), max_size=8).map(sorted), shards=st.sampled_from([1, 3]))
def test_chunking_does_not_change_a_byte_of_any_output(seed: int, cuts: list[int], shards: int) -> None:
    made = records(Spec(seed, windows=0.3))
    config = replace(REPLAY, shards=shards)
    whole = played(made, config)
    assert DEMAND_TOPIC in whole
    assert PRICE_TOPIC in whole
    assert played(made, config, [min(cut, len(made)) for cut in cuts]) == whole


@LAWS
@given(seed=SEEDS)
def test_one_event_at_a_time_is_the_same_as_all_at_once(seed: int) -> None:
    made = records(Spec(seed, events=120, days=3))
    assert played(made, cuts=list(range(1, len(made)))) == played(made)


def final_demand(made: list[bytes]) -> dict[tuple[str, str, int], tuple[float, float]]:
    """Ordered and cancelled units of every final bucket of every series."""
    engine = Engine(ENGINE)
    batch, _ = decode(made, clock_ms=REPLAY.clock_ms)
    batch.tick_ms[:] = START
    engine.process(batch)
    engine.tick(START + 40 * DAY)
    out = {}
    for slot in engine.series.live().tolist():
        zone = engine.buckets.zones[int(engine.buckets.series["zone"][slot])]
        for bucket in range(zone.final - 60, zone.final):
            column = bucket % engine.panes.config.buckets
            amounts = tuple(float(engine.panes.ring[name][slot, column]) for name in ("units", "cancelled"))
            if any(amounts):
                out[(*engine.series.key(slot), bucket)] = (amounts[0], amounts[1])
    return out


@LAWS
@given(seed=SEEDS, shuffle=SEEDS)
def test_the_order_of_flows_within_lateness_does_not_matter_for_final_buckets(seed: int, shuffle: int) -> None:
    spec = Spec(seed, disorder_ms=0, duplicates=0, late=0, facts=0)
    made = records(spec)
    times = np.array([orjson.loads(record)["event_time"] for record in made])
    jitter = np.random.default_rng(shuffle).integers(0, 100 * 60_000, len(made))  # lateness and bound: 125 min
    order = np.argsort(times + jitter, kind="stable")
    flows = [record for record in made if b"original_time" not in record]
    shuffled = [made[i] for i in order if b"original_time" not in made[i]]
    assert final_demand(shuffled) == final_demand(flows)


@LAWS
@given(seed=SEEDS)
def test_duplicates_do_not_matter(seed: int) -> None:
    once = records(Spec(seed, duplicates=0, late=0))
    again = [record for record in once for _ in range(2)]
    first, second = played(once), played(again)
    assert first.pop("summary") != second.pop("summary")  # it counts them
    assert second == first


@LAWS
@given(seed=SEEDS, late=st.sampled_from([0.0, 0.1]))
def test_every_accepted_unit_is_in_a_bucket_or_counted_late(seed: int, late: float) -> None:
    made = records(Spec(seed, duplicates=0, late=late, facts=0))
    engine = Engine(ENGINE)
    batch, _ = decode(made, clock_ms=REPLAY.clock_ms)
    batch.tick_ms[:] = START
    placed = int(batch.quantity[batch.kind == 1].sum())
    letters = engine.process(batch).dead_letters + engine.tick(START + 40 * DAY).dead_letters
    in_panes = float(engine.panes.ring["units"].astype(np.float64).sum())
    late_units = 0
    for _, letter in letters:
        event = orjson.loads(letter.value or b"")
        late_units += round(event["quantity"] * UNIT) if event["type"] == "order_placed" else 0
    assert round(in_panes * UNIT) + late_units == placed
    assert int(engine.panes.open["units"].sum()) == 0


@LAWS
@given(seed=SEEDS, cut=st.integers(1, 299), commits=st.lists(st.integers(1, 299), max_size=4))
def test_a_restored_engine_has_exactly_the_same_future(seed: int, cut: int, commits: list[int]) -> None:
    restored_at({cut}, {cut, *commits}, records(Spec(seed, facts=0.3, windows=0.3)))


@LAWS
@given(seed=SEEDS, cuts=st.sets(st.integers(1, 299), min_size=1, max_size=4))
def test_a_commit_after_every_event_and_a_restore_at_any_change_nothing(seed: int, cuts: set[int]) -> None:
    restored_at(cuts, set(range(300)), records(Spec(seed, windows=0.3)))


def restored_at(cuts: set[int], commits: set[int], made: list[bytes]) -> None:
    """Compare an engine that is written and restored after some events with one that is not."""
    config = replace(REPLAY.engine, refresh_ms=60 * 60_000)
    whole, snapshot = Engine(config), Engine(config)
    topic: dict[str, bytes | None] = {}
    batches = [decode([record], clock_ms=REPLAY.clock_ms)[0] for record in made]
    for batch in batches:
        batch.tick_ms[:] = np.maximum(batch.time_ms, START)
    for n, batch in enumerate(batches):
        assert _lines(snapshot.process(batch)) == _lines(whole.process(batch))
        if n in commits:
            topic.update(snapshot.changes())
        if n in cuts:
            before = snapshot
            snapshot = Engine(config)
            snapshot.restore({key: value for key, value in topic.items() if value is not None})
            assert _arrays(snapshot) == _arrays(before)
    end = START + 30 * DAY
    assert _lines(snapshot.tick(end)) == _lines(whole.tick(end))
    assert snapshot.scores.summary() == whole.scores.summary()


def _arrays(engine: Engine) -> dict[str, bytes]:
    panes, lines, runs = engine.panes, engine.prices.lines._table, engine.price_forecasts.runs
    tables = (
        runs.table,
        runs.told,
        panes.open,
        panes.weeks,
        *engine.positions.tables,
        engine.buckets.series,
        engine.listed.table,
        lines,
    )
    found = {f"{table.name} {name}": array for table in tables for name, array in table.arrays.items()}
    found |= panes.ring | {f"outcomes {n}": cells for n, cells in enumerate(engine.outcomes.cells)}
    return {name: array.tobytes() for name, array in found.items()}


def _lines(outputs: Outputs) -> list[bytes]:
    found = [as_line(letter) for _, letter in outputs.dead_letters]
    found += [repr(candidate).encode() for _, candidate in outputs.candidates]
    found += [as_line(trigger) for _, trigger in outputs.triggers]
    found += [as_line(output) for _, request in outputs.prices for output in answered(request, HURDLE).encode()]
    return found + [as_line(output) for _, forecasts in outputs.forecasts for output in forecasts.encode()]


@LAWS
@given(seed=SEEDS)
def test_refused_series_disturb_nobody(seed: int) -> None:
    own = [record for record in records(Spec(seed, items=3, late=0)) if b"item_retired" not in record]
    crowd = records(Spec(seed + 1, items=3, facts=0, late=0))
    strangers = [record.replace(b'"sku":"sku-', b'"sku":"stranger-') for record in crowd]
    keys = sorted({(event["sku"], event.get("location", "default")) for event in map(orjson.loads, own)})
    opening = [
        orjson.dumps(
            {"type": "stock_counted", "event_id": f"open-{n}", "event_time": START - DAY, "sku": sku, "location": place,
             "on_hand": 5}
        )
        for n, (sku, place) in enumerate(keys)
    ]  # fmt: skip
    mixed = sorted(own + strangers, key=lambda record: int(orjson.loads(record)["event_time"]))
    config = replace(ENGINE, max_series=len(keys))
    engines = [Engine(config), Engine(config)]
    for engine, made in zip(
        engines, (opening + mixed, opening + [r for r in mixed if b"stranger" not in r]), strict=True
    ):
        batch, _ = decode(made, clock_ms=REPLAY.clock_ms)
        batch.tick_ms[:] = START
        engine.process(batch)
        engine.tick(START + 40 * DAY)
    crowded, alone = engines
    assert crowded.series.refused > 0
    assert alone.series.refused == 0
    assert crowded.series.skus == alone.series.skus
    # Strangers do move the watermark, and with it the moment at which a close reads the price: flows are compared.
    for name in ("units", "cancelled", "revenue", "orders", "views", "carts", "sessions"):
        assert (crowded.panes.ring[name] == alone.panes.ring[name]).all(), name


def test_a_foreign_state_version_is_refused_in_one_sentence() -> None:
    engine = Engine(ENGINE)
    with pytest.raises(SnapshotError, match="version 99"):
        engine.restore({"clock/engine": b"\x92\x63\x80"})
