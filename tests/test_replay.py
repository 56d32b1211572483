"""Replays of files: order of arrival, several files and shards, what is written, the clock, the end."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.engine import EngineConfig
from streams.outputs import ALERT_TOPIC, DEADLETTER_TOPIC, DEMAND_TOPIC, TRIGGER_TOPIC
from streams.replay import TOPICS, Replay, ReplayConfig, merged, replay
from streams.replay_clock import AHEAD_MS, ReplayClock
from tests.shop_events import Spec, records
from tests.small_shop import CLOCK, DAY, HOUR, MINUTE, MONDAY, NOON, Event, ack, day, lines, order, price, stock

CONFIG = ReplayConfig(EngineConfig(max_series=64), clock_ms=CLOCK, forecasts="all")


def written(path: Path, made: list[bytes]) -> Path:
    path.write_bytes(b"".join(record + b"\n" for record in made))
    return path


def outcome(tmp_path: Path, made: list[bytes], name: str = "out", config: ReplayConfig = CONFIG, **how: Any) -> Path:
    replay([written(tmp_path / f"{name}.jsonl", made)], tmp_path / name, config, **how)
    return tmp_path / name


def values(folder: Path, topic: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (folder / f"{topic}.jsonl").read_bytes().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# -- the folder


def test_a_folder_holds_a_file_per_topic_and_the_summary_that_is_returned(tmp_path: Path) -> None:
    source = written(tmp_path / "in.jsonl", records(Spec(1)))
    summary = replay([source], tmp_path / "a" / "b", CONFIG)
    folder = tmp_path / "a" / "b"
    assert {path.name for path in folder.iterdir()} == {f"{topic}.jsonl" for topic in TOPICS} | {"summary.json"}
    assert orjson.loads((folder / "summary.json").read_bytes()) == orjson.loads(orjson.dumps(summary))
    assert summary["forecasts"]["written"] == len(values(folder, DEMAND_TOPIC)) > 0
    assert sum(summary["dead_letters"]["by_stage"].values()) == len(values(folder, DEADLETTER_TOPIC)) > 0
    assert sum(summary["triggers"].values()) == len(values(folder, TRIGGER_TOPIC))


def test_two_replays_and_other_chunks_give_the_same_bytes(tmp_path: Path) -> None:
    made = records(Spec(2))
    first = contents(outcome(tmp_path, made, "first"))
    assert contents(outcome(tmp_path, made, "second")) == first
    assert contents(outcome(tmp_path, made, "small", rows=13)) == first


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000), cuts=st.sets(st.integers(1, 120)), shards=st.sampled_from([1, 3]))
def test_chunks_do_not_matter_where_events_run_ahead(seed: int, cuts: set[int], shards: int) -> None:
    chance, made = random.Random(seed), []
    for n in range(120):
        far = chance.choice([0] * 9 + [7 * HOUR, 30 * HOUR, 100 * HOUR]) if n > 3 else 0
        made.append(order(MONDAY + n * 50 * MINUTE + far, sku=f"S{chance.randrange(5)}"))
    config = replace(CONFIG, shards=shards)
    assert played(lines(made), config, cuts) == played(lines(made), config, set())


def played(made: list[bytes], config: ReplayConfig = CONFIG, cuts: set[int] | None = None) -> list[tuple[str, bytes]]:
    """All outputs of records, by topic in order, played in chunks."""
    out: list[tuple[str, bytes]] = []
    player = Replay(config, lambda outputs: out.extend((o.topic, o.value or b"") for o in outputs))
    bounds = [0, *sorted(cuts or ()), len(made)]
    for start, stop in pairwise(bounds):
        if made[start:stop]:
            player.feed(made[start:stop])
    player.finish()
    out.append(("summary", orjson.dumps(player.summary())))
    return sorted(out, key=lambda entry: entry[0])


def test_bad_lines_are_dead_letters_with_their_text_and_neighbours_count(tmp_path: Path) -> None:
    good = lines([order(NOON), order(NOON + MINUTE)])
    folder = outcome(tmp_path, [good[0], b"nonsense", b'{"type":"order_placed"}', b"\xff\xfe", good[1]])
    letters = values(folder, DEADLETTER_TOPIC)
    assert [letter.get("value") for letter in letters] == ["nonsense", '{"type":"order_placed"}', None]
    assert letters[2]["value_base64"] == "//4="
    assert [letter["headers"]["x-stage"] for letter in letters] == ["decode", "validate", "decode"]
    assert all(letter["headers"]["__streams.errors.message"] for letter in letters)
    summary = orjson.loads((folder / "summary.json").read_bytes())
    assert (summary["records"], summary["events"]) == (5, {"order_placed": 2})


def test_an_empty_file_gives_empty_outputs(tmp_path: Path) -> None:
    folder = outcome(tmp_path, [])
    assert [values(folder, topic) for topic in TOPICS] == [[]] * len(TOPICS)
    assert orjson.loads((folder / "summary.json").read_bytes())["records"] == 0


# -- several files


def test_files_are_merged_by_their_next_event_time(tmp_path: Path) -> None:
    one = written(tmp_path / "one", lines([order(NOON), order(NOON + 2 * MINUTE), order(NOON + MINUTE)]))
    two = written(tmp_path / "two", lines([price(NOON + MINUTE, 1.0), order(NOON + 3 * MINUTE)]))
    found = [orjson.loads(record)["event_time"] - NOON for chunk in merged([one, two]) for record in chunk]
    # The disorder inside a file stays: line order is order of arrival.
    assert [at // MINUTE for at in found] == [0, 1, 2, 1, 3]


def test_times_of_both_forms_merge_and_unreadable_records_keep_their_place(tmp_path: Path) -> None:
    written_time = {"event_time": "2011-01-31T12:02:00Z"}
    one = written(tmp_path / "one", [*lines([order(NOON + MINUTE)]), b"bad", *lines([order(NOON) | written_time])])
    two = written(tmp_path / "two", lines([order(NOON), order(NOON + 90_000), order(NOON + 3 * MINUTE)]))
    found = [record for chunk in merged([one, two], rows=2) for record in chunk]
    first, second = one.read_bytes().splitlines(), two.read_bytes().splitlines()
    assert found == [second[0], first[0], b"bad", second[1], first[2], second[2]]


def test_sort_puts_all_records_in_order_of_event_time(tmp_path: Path) -> None:
    events = [order(NOON + n * MINUTE, sku=f"S{n}") for n in range(30)]
    mixed = events.copy()
    random.Random(3).shuffle(mixed)
    sources = [written(tmp_path / "one", lines(mixed[:11])), written(tmp_path / "two", lines(mixed[11:]))]
    assert [record for chunk in merged(sources, sort=True, rows=7) for record in chunk] == lines(events)


def test_splitting_a_file_in_two_changes_nothing_where_times_differ(tmp_path: Path) -> None:
    events = [order(NOON + n * 20 * MINUTE, sku=f"S{n % 3}") for n in range(200)]
    whole = written(tmp_path / "whole", lines(events))
    parts = [written(tmp_path / f"part{n}", lines(events[n::2])) for n in range(2)]
    replay([whole], tmp_path / "a", CONFIG)
    replay(parts, tmp_path / "b", CONFIG)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


# -- shards


def steady(days: int = 6, items: int = 9) -> list[bytes]:
    """A shop where every item sells each hour."""
    return lines([order(MONDAY + n * HOUR, 1 + n % 3, f"S{n % items}") for n in range(24 * days)])


def test_shards_together_publish_the_same_series_at_the_same_closes(tmp_path: Path) -> None:
    one = outcome(tmp_path, steady(), "one")
    four = outcome(tmp_path, steady(), "four", replace(CONFIG, shards=4))

    def closes(folder: Path) -> dict[tuple[str, int], Any]:
        made = values(folder, DEMAND_TOPIC)
        # The first bucket opened with the shop: a refresh at its start is no close.
        made = [v for v in made if v["as_of"] == v["steps"][0] > MONDAY]
        return {(v["sku"], v["as_of"]): v["observed_in_open"] for v in made}

    assert closes(one) == closes(four)
    summaries = [orjson.loads((folder / "summary.json").read_bytes()) for folder in (one, four)]
    for name in ("records", "events", "series", "dead_letters"):
        assert summaries[0][name] == summaries[1][name], name
    assert [summary["scores"]["overall"]["outcomes"] for summary in summaries] == [
        summaries[0]["scores"]["overall"]["outcomes"]
    ] * 2


def test_facts_without_an_item_count_once_however_many_shards() -> None:
    made = lines([order(NOON, sku="A"), day(NOON, "2011-02-02"), ack(NOON, "rt_x"), order(NOON, sku="B")])
    summary = dict(played(made, replace(CONFIG, shards=3)))["summary"]
    assert orjson.loads(summary)["events"] == {"ack": 1, "day_described": 1, "order_placed": 2}


def test_alerts_of_hard_rules_are_the_same_with_four_shards(tmp_path: Path) -> None:
    events = [price(NOON + n * MINUTE, 5.0, f"S{n % 7}") for n in range(70)]
    events += [price(NOON + 2 * HOUR + n * MINUTE, 0.0, f"S{n}") for n in range(5)]
    folders = [outcome(tmp_path, lines(events), str(n), replace(CONFIG, shards=n)) for n in (1, 4)]
    found = [{(v["sku"], v["kind"], v["status"]) for v in values(folder, ALERT_TOPIC)} for folder in folders]
    assert found[0] == found[1]
    assert {kind for _, kind, _ in found[0]} == {"zero_or_negative"}


# -- what is written


@pytest.mark.parametrize("mode", ["all", "daily", "weekly", "last"])
def test_forecasts_are_written_as_asked_and_all_are_scored(tmp_path: Path, mode: Any) -> None:
    folder = outcome(tmp_path, steady(days=16, items=2), config=replace(CONFIG, forecasts=mode))
    found = values(folder, DEMAND_TOPIC)
    closes = sorted({v["as_of"] for v in found if v["as_of"] == v["steps"][0] and v["as_of"] % DAY == 0})
    days = [MONDAY + n * DAY for n in range(1, 16)]
    expected = {
        "all": days,
        "daily": days,
        "weekly": [MONDAY + 7 * DAY, MONDAY + 14 * DAY, MONDAY + 15 * DAY],
        "last": [MONDAY + 15 * DAY],
    }
    assert closes == expected[mode]
    if mode != "all":
        assert len(found) == 2 * len(closes)
    summary = orjson.loads((folder / "summary.json").read_bytes())
    assert summary["forecasts"]["at_close"] == 15 * 2
    assert summary["scores"]["by_horizon"]["1"]["outcomes"] > 20


def test_a_last_close_on_a_monday_is_written_once(tmp_path: Path) -> None:
    made = [order(MONDAY + n * HOUR, sku="A") for n in range(7 * 24 + 2)]
    for mode in ("weekly", "last"):
        folder = outcome(tmp_path, lines(made), mode, replace(CONFIG, forecasts=mode))
        assert [v["as_of"] for v in values(folder, DEMAND_TOPIC)] == [MONDAY + 7 * DAY]


# -- the end


def test_open_buckets_stay_open_at_the_end_unless_time_passes_until_an_instant(tmp_path: Path) -> None:
    made = lines([order(NOON), order(NOON + HOUR)])
    assert not any(v["as_of"] >= MONDAY + DAY for v in values(outcome(tmp_path, made), DEMAND_TOPIC))
    until = replace(CONFIG, until_ms=MONDAY + 3 * DAY + HOUR)
    closed = [v["as_of"] for v in values(outcome(tmp_path, made, "until", until), DEMAND_TOPIC)]
    assert [at for at in closed if at % DAY == 0] == [MONDAY + n * DAY for n in (1, 2, 3)]


def test_until_midnight_closes_the_day_that_ends_then(tmp_path: Path) -> None:
    made = lines([order(NOON), order(MONDAY + DAY - 2 * MINUTE)])
    until = replace(CONFIG, until_ms=MONDAY + DAY)
    closed = [v["as_of"] for v in values(outcome(tmp_path, made, "out", until), DEMAND_TOPIC)]
    assert [at for at in closed if at % DAY == 0] == [MONDAY + DAY]


def test_until_before_the_last_event_changes_nothing(tmp_path: Path) -> None:
    made = steady(days=2)
    plain, early = outcome(tmp_path, made), outcome(tmp_path, made, "early", replace(CONFIG, until_ms=MONDAY))
    assert contents(plain) == contents(early)


def test_an_event_parked_at_the_end_of_the_file_is_counted(tmp_path: Path) -> None:
    far = order(NOON + 40 * HOUR, 3, "FAR")
    folder = outcome(tmp_path, lines([order(NOON), far]))
    summary = orjson.loads((folder / "summary.json").read_bytes())
    assert (summary["intake"]["accepted"], summary["intake"]["parked_now"], summary["series"]) == (2, 0, 2)
    assert values(folder, DEADLETTER_TOPIC) == []


def test_every_record_of_a_file_ends_somewhere(tmp_path: Path) -> None:
    made = [*records(Spec(9, late=0.1, duplicates=0.1)), b"x", *lines([order(NOON + 99 * DAY)])]
    summary = orjson.loads((outcome(tmp_path, made) / "summary.json").read_bytes())
    intake, letters = summary["intake"], sum(summary["dead_letters"]["by_stage"].values())
    assert intake["accepted"] + intake["duplicate"] + letters + intake["parked_now"] == summary["records"] == len(made)


# -- the clock


def test_a_wrong_clock_in_the_stream_makes_nobody_late(tmp_path: Path) -> None:
    made: list[Event] = []
    for n in range(48):
        made.append(order(MONDAY + n * HOUR, sku=f"S{n % 4}"))
        if n % 5 == 2:
            made.append(order(MONDAY + 300 * DAY, sku="WRONG"))
        if n % 7 == 3:
            made.append(stock(MONDAY + 900 * DAY, 5, "S1"))
    summary = orjson.loads((outcome(tmp_path, lines(made)) / "summary.json").read_bytes())
    assert summary["dead_letters"]["by_stage"] == {}
    assert summary["intake"]["accepted"] + summary["intake"]["duplicate"] == len(made)


def test_a_wrong_clock_that_nobody_confirms_ends_ahead_and_the_rest_is_counted(tmp_path: Path) -> None:
    made = [order(MONDAY + n * MINUTE, sku=f"S{n % 4}") for n in range(1500)]
    made.insert(3, order(MONDAY + 300 * DAY, sku="WRONG"))
    folder = outcome(tmp_path, lines(made))
    letters = values(folder, DEADLETTER_TOPIC)
    assert [(orjson.loads(v["value"])["sku"], v["headers"]["x-stage"]) for v in letters] == [("WRONG", "ahead")]


def test_a_quiet_shop_closes_its_days_by_the_clock_of_facts(tmp_path: Path) -> None:
    made = [order(NOON), order(NOON, sku="MUG"), *(stock(NOON + n * DAY, 40) for n in range(5))]
    folder = outcome(tmp_path, lines(made))
    closes = {v["as_of"] for v in values(folder, DEMAND_TOPIC) if v["sku"] == "MUG" and v["as_of"] % DAY == 0}
    assert closes == {MONDAY + n * DAY for n in range(1, 5)}


def test_a_shard_without_events_closes_its_days_with_the_others(tmp_path: Path) -> None:
    made = [order(NOON, sku=f"QUIET{n}") for n in range(8)]
    made += [order(NOON + n * HOUR, sku="BUSY") for n in range(1, 72)]
    found = values(outcome(tmp_path, lines(made), config=replace(CONFIG, shards=4)), DEMAND_TOPIC)
    closes = Counter(v["sku"] for v in found if v["as_of"] % DAY == 0)
    assert [closes[f"QUIET{n}"] for n in range(8)] == [3] * 8


JUMPS = [0, 1, 1500, MINUTE, 5 * HOUR, AHEAD_MS, AHEAD_MS + 1, -HOUR, 400 * HOUR, -9 * HOUR]


@settings(max_examples=60, deadline=None)
@given(jumps=st.lists(st.sampled_from(JUMPS), max_size=40), cuts=st.sets(st.integers(0, 40)))
def test_ticks_are_whole_seconds_that_never_fall_and_do_not_depend_on_chunks(jumps: list[int], cuts: set[int]) -> None:
    times = NOON + np.cumsum(np.array([0, *jumps], np.int64))
    clock, whole = ReplayClock(), ReplayClock().ticks(times)
    parts = [clock.ticks(part) for part in np.split(times, sorted(cut for cut in cuts if cut < len(times)))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert (np.diff(whole) >= 0).all()
    assert (whole % 1000 == 0).all()
    assert (whole <= np.maximum.accumulate(times)).all()


def test_two_events_far_ahead_do_not_move_the_clock_and_three_do() -> None:
    far = NOON + 9 * HOUR
    ticks = ReplayClock().ticks(np.array([NOON, far, far, NOON + 1000, far, far, far]))
    assert [(int(t) - NOON) // 1000 for t in ticks] == [0, 0, 0, 1, 1, 1, 9 * 3600]


def test_two_facts_from_a_wrong_clock_make_nobody_late_and_three_in_a_row_are_believed(tmp_path: Path) -> None:
    made = [order(NOON + n * MINUTE, sku=f"S{n % 4}") for n in range(30)]
    made[10:10] = [stock(NOON + 300 * DAY, 5, f"S{n}") for n in range(2)]
    summary = orjson.loads((outcome(tmp_path, lines(made), "two") / "summary.json").read_bytes())
    assert summary["dead_letters"]["by_stage"] == {}
    # As with flows, where three SKUs confirm a time: more in a row than that is no longer one wrong clock.
    made[10:10] = [stock(NOON + 300 * DAY, 5, f"T{n}") for n in range(2)]
    summary = orjson.loads((outcome(tmp_path, lines(made), "four") / "summary.json").read_bytes())
    assert summary["dead_letters"]["by_stage"]["late"] == 20
