"""The hostile corpus through the whole replay: every record ends somewhere, and its neighbours never notice."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import replace

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.engine import EngineConfig
from streams.outputs import DEADLETTER_TOPIC, Output, as_line
from streams.replay import Replay, ReplayConfig
from streams.state import SnapshotError
from tests.hostile import CLOCK_MS, EVENT, HOSTILE, event
from tests.small_shop import HOUR, MINUTE, Till

CONFIG = ReplayConfig(EngineConfig(max_series=400), clock_ms=CLOCK_MS, forecasts="all", until_ms=CLOCK_MS + 30 * HOUR)
HERD = [record for case in HOSTILE for record in case.records]
START = CLOCK_MS - HOUR  # the herd's newest order moves the watermark to 55 minutes after the clock: nobody is late


def neighbours(count: int = 120) -> list[bytes]:
    """Orders, clicks and counts of honest items in the hour before the herd."""
    kinds = ("order_placed", "item_viewed", "order_cancelled", "stock_counted")
    return [
        event(
            kinds[n % 4],
            event_id=f'"n{n}"',
            sku=f'"HONEST{n % 5}"',
            event_time=str(START + n * HOUR // count),
            session_id=f'"p{n % 7}"',
        )
        for n in range(count)
    ]


def played(records: list[bytes | None], config: ReplayConfig = CONFIG) -> tuple[Replay, list[Output]]:
    out: list[Output] = []
    player = Replay(config, out.extend)
    for start in range(0, len(records), 50):
        player.feed(records[start : start + 50])
    player.finish()
    return player, out


def rows(player: Replay, prefix: str = "HONEST") -> dict[str, list[float]]:
    """What the panes hold of the honest items, ring and open sums."""
    found = {}
    for engine in player.engines:
        for slot in engine.series.live().tolist():
            sku, location = engine.series.key(slot)
            if sku.startswith(prefix):
                parts = [engine.panes.ring[name][slot] for name in ("units", "cancelled", "revenue", "orders", "views")]
                parts += [array[slot] for array in engine.panes.open.arrays.values()]
                found[f"{sku}|{location}"] = [float(x) for part in parts for x in part]
    return found


@pytest.mark.parametrize("shards", [1, 3])
def test_every_hostile_record_is_accepted_repeated_or_a_dead_letter(shards: int) -> None:
    player, out = played(list(HERD), replace(CONFIG, shards=shards))
    letters = [output for output in out if output.topic == DEADLETTER_TOPIC]
    summary = player.summary()
    intake, written = summary["intake"], Counter(dict(letter.headers)["x-stage"].decode() for letter in letters)
    assert summary["records"] == len(HERD)
    assert written == Counter(summary["dead_letters"]["by_stage"])
    if shards == 1:
        assert intake["accepted"] + intake["duplicate"] + len(letters) + intake["parked_now"] == len(HERD)
    wanted = Counter(case.stage for case in HOSTILE for _ in case.records if case.stage != EVENT)
    assert {stage: written[stage] for stage in wanted} == dict(wanted)
    assert all(dict(letter.headers)["__streams.errors.message"] for letter in letters)


def test_dead_letters_hold_the_bytes_as_they_came() -> None:
    _, out = played(list(HERD))
    bad = Counter(record for case in HOSTILE if case.stage != EVENT for record in case.records)
    found: Counter[bytes | None] = Counter()
    for output in out:
        if output.topic == DEADLETTER_TOPIC and dict(output.headers)["x-stage"] in (b"decode", b"validate"):
            line = orjson.loads(as_line(output))
            text = line.get("value")
            found[
                base64.b64decode(line["value_base64"])
                if "value_base64" in line
                else None
                if text is None
                else text.encode()
            ] += 1
    assert found == bad


def test_neighbours_are_counted_as_if_they_were_alone() -> None:
    honest = neighbours()
    crowd = [record for record in HERD if b"day_described" not in (record or b"")]
    rng = np.random.default_rng(4)
    mixed: list[bytes | None] = list(honest)
    for at, record in zip(sorted(rng.integers(1, len(honest), len(crowd)).tolist(), reverse=True), crowd, strict=True):
        mixed.insert(at, record)
    alone, among = played(list(honest))[0], played(mixed)[0]
    assert rows(alone) == rows(among)
    assert [sum(found) > 0 for found in rows(alone).values()] == [True] * 5


@settings(max_examples=15, deadline=None)
@given(junk=st.lists(st.binary(max_size=60) | st.sampled_from(HERD), max_size=30), seed=st.integers(0, 99))
def test_fuzzed_records_between_neighbours_change_nothing_of_theirs(junk: list[bytes | None], seed: int) -> None:
    honest = neighbours(40)
    junk = [record for record in junk if b"day_described" not in (record or b"")]
    mixed: list[bytes | None] = list(honest)
    for n, record in enumerate(junk):
        mixed.insert(1 + (seed * 7 + n * 13) % (len(mixed) - 1), record)
    player, out = played(mixed)
    assert rows(player) == rows(played(list(honest))[0])
    intake = player.summary()["intake"]
    letters = sum(output.topic == DEADLETTER_TOPIC for output in out)
    assert intake["accepted"] + intake["duplicate"] + letters + intake["parked_now"] == len(mixed)


def test_what_comes_after_the_herd_is_still_forecast() -> None:
    late = [event(event_id=f'"l{n}"', sku='"LATER"', event_time=str(CLOCK_MS + n * MINUTE)) for n in range(50)]
    _, out = played([*HERD, *late])
    assert any((output.key or b"").startswith(b"LATER|") for output in out if output.topic != DEADLETTER_TOPIC)


@pytest.mark.parametrize(
    "records",
    [{"foreign/1": b"\x92\x01\x80"}, {"open/0": b"junk"}, {"clock/zones": b""}, {"clock/engine": b"\x92\x01\xc0"}],
    ids=["unknown key", "no record", "empty", "nothing in it"],
)
def test_damaged_state_is_refused_in_a_sentence(records: dict[str, bytes]) -> None:
    with pytest.raises(SnapshotError):
        Till().engine.restore(records)
