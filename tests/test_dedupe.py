"""Repeats are found exactly, as a set would find them; generations, growth, the maximum and restores."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.dedupe import Dedupe, DedupeConfig

LATENESS = 100
IDS = st.integers(0, 40)
BATCHES = st.lists(st.tuples(st.lists(IDS, max_size=12), st.integers(0, 60)), max_size=25)


def hashes(ids: list[int]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Hashes that collide in their home cells: ids apart in the low bits alone."""
    return np.array(ids, np.uint64)


def first_of(seen: Dedupe, ids: list[int], watermark_ms: int = 0, ahead_ms: int = 0) -> list[bool]:
    """Answers for events as old as the watermark, or ahead of it."""
    return [bool(new) for new in seen.first(hashes(ids), watermark_ms, watermark_ms + ahead_ms)]


@settings(max_examples=150, deadline=None)
@given(batches=BATCHES)
def test_until_events_are_late_the_answer_is_that_of_a_set(batches: list[tuple[list[int], int]]) -> None:
    seen, oracle, now = Dedupe(DedupeConfig(lateness_ms=10**9)), set[int](), 0
    for ids, step in batches:
        now += step
        expected = []
        for one in (max(i, 1) for i in ids):  # zero is taken for one
            expected.append(one not in oracle)
            oracle.add(one)
        assert first_of(seen, ids, now) == expected
    assert seen.ids == len(oracle)


@settings(max_examples=150, deadline=None)
@given(batches=BATCHES, commits=st.sets(st.integers(0, 25)), crash=st.integers(0, 25))
def test_across_generations_and_restores_an_id_is_known_until_its_event_is_late(
    batches: list[tuple[list[int], int]], commits: set[int], crash: int
) -> None:
    config = DedupeConfig(lateness_ms=LATENESS)
    seen, topic, now = Dedupe(config), dict[str, bytes | None](), 0
    last: dict[int, int] = {}  # id -> watermark at its newest first sighting
    for number, (ids, step) in enumerate(batches):
        now += step
        answers = first_of(seen, ids, now)
        for one, new in zip((max(i, 1) for i in ids), answers, strict=True):
            age = now - last.get(one, -(10**9))
            if age <= LATENESS:
                assert not new
            if new:
                last[one] = now
        if number in commits or number == crash:
            topic.update(seen.changes(now))
        if number == crash:
            seen = Dedupe(config)
            for key in sorted(topic, key=lambda key: int(key.partition("/")[2])):
                seen.restore(key, topic[key])


def test_ids_are_forgotten_a_generation_after_their_events_are_late() -> None:
    seen = Dedupe(DedupeConfig(lateness_ms=LATENESS))
    first_of(seen, [5], 0)
    first_of(seen, [6], LATENESS + 1)  # 5 moves to the older generation, which is late as a whole at the next turn
    assert first_of(seen, [7], LATENESS + 1) == [True]
    assert seen.ids <= 3
    first_of(seen, [8], 3 * LATENESS)
    first_of(seen, [9], 5 * LATENESS)
    assert first_of(seen, [5], 5 * LATENESS) == [True]


def test_an_event_far_ahead_is_known_until_it_is_late_itself() -> None:
    seen = Dedupe(DedupeConfig(lateness_ms=LATENESS))
    first_of(seen, [5], 0, ahead_ms=1000)
    for at in range(50, 1000 + LATENESS, 50):
        first_of(seen, [10_000 + at], at)
        assert first_of(seen, [5], at, ahead_ms=1000 - at) == [False], at


def test_growth_keeps_every_id_and_the_cells_at_most_six_tenths_full() -> None:
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 2**63, 200_000).astype(np.uint64)
    seen = Dedupe(DedupeConfig())
    assert seen.first(ids, 0, 0).all()
    assert not seen.first(ids[::-1], 1, 1).any()
    assert seen.ids == len(ids)
    assert seen.ids * 8 / 0.6 <= seen.memory_bytes <= 2 * seen.ids * 8 / 0.6 + 2**16


def test_neighbouring_hashes_that_fill_each_others_cells_are_told_apart() -> None:
    crowded = np.arange(1, 50_001, dtype=np.uint64) << np.uint64(40)  # low bits alike
    seen = Dedupe(DedupeConfig())
    assert seen.first(crowded[::2], 0, 0).all()
    assert seen.first(crowded, 0, 0).tolist() == [n % 2 == 1 for n in range(50_000)]


def test_a_full_generation_wraps_and_says_so() -> None:
    seen = Dedupe(DedupeConfig(max_ids=10, lateness_ms=10**9))
    first_of(seen, list(range(1, 11)))
    first_of(seen, [11])
    assert (seen.wraps, first_of(seen, [1, 11])) == (0, [False, False])  # two generations hold them
    first_of(seen, list(range(20, 30)))
    assert (seen.wraps, first_of(seen, [1])) == (1, [True])


def test_five_million_ids_in_both_generations_stay_within_128_mib() -> None:
    cells = 1
    while cells * 0.6 < DedupeConfig().max_ids:
        cells *= 2
    assert 2 * cells * 8 <= 128 * 2**20


def test_records_hold_what_is_new_and_are_deleted_when_nobody_can_need_them() -> None:
    seen = Dedupe(DedupeConfig(lateness_ms=LATENESS))
    first_of(seen, [1, 2, 1])
    assert [key for key, _ in seen.changes(0)] == ["dedupe/0"]
    assert list(seen.changes(1)) == []
    first_of(seen, [3], 50)
    assert [key for key, _ in seen.changes(50)] == ["dedupe/1"]
    assert list(seen.changes(LATENESS)) == []
    assert list(seen.changes(LATENESS + 1)) == [("dedupe/0", None)]


def test_many_records_taken_over_hold_what_they_held_and_are_deleted_in_time() -> None:
    seen, topic = Dedupe(DedupeConfig(lateness_ms=LATENESS)), dict[str, bytes | None]()
    for at in range(0, 5 * LATENESS, 3):
        first_of(seen, [at, at + 1], at)
        topic.update(seen.changes(at))
    again, live = Dedupe(DedupeConfig(lateness_ms=LATENESS)), {key: value for key, value in topic.items() if value}
    for key in sorted(live, key=lambda key: int(key.partition("/")[2])):
        again.restore(key, live[key])
    held = [at for at in range(4 * LATENESS, 5 * LATENESS) if at % 3 < 2]
    assert first_of(again, held, 5 * LATENESS - 1) == [False] * len(held)
    assert {key for key, value in again.changes(10 * LATENESS) if value is None} == set(live)


def test_a_batch_of_nothing_changes_nothing() -> None:
    seen = Dedupe(DedupeConfig())
    assert first_of(seen, []) == []
    assert (seen.ids, list(seen.changes(0))) == (0, [])
