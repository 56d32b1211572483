"""Rings and sums of panes against plain dictionaries, and their records."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.panes import RING, SHUT, UNIT, PaneConfig, Panes, flags_of, stock_of
from streams.state import BLOCK_ROWS, SnapshotError, restore_order

SMALL = PaneConfig(buckets=5, weeks=3, open_buckets=3)
ROWS = np.arange(3)
ADDS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(1, 5000)), max_size=8)


@settings(max_examples=80, deadline=None)
@given(days=st.lists(ADDS, min_size=1, max_size=15))
def test_the_ring_holds_the_sums_of_the_newest_buckets_in_order(days: list[list[tuple[int, int, int]]]) -> None:
    panes, sums = Panes(3, SMALL), defaultdict[tuple[int, int], int](int)
    for bucket, adds in enumerate(days):
        for slot, ahead, amount in adds:
            panes.add("units", np.array([slot]), np.array([bucket + ahead]), np.array([amount]))
            sums[slot, bucket + ahead] += amount
        panes.close(ROWS, bucket)
        if bucket:
            panes.finish(ROWS, bucket - 1, (bucket - 1) // 7)
        shown = panes.demand(ROWS, bucket + 1)
        wanted = [[sums[slot, n] / UNIT if n >= 0 else 0 for n in range(bucket - 4, bucket + 1)] for slot in range(3)]
        np.testing.assert_allclose(shown, wanted, rtol=1e-6)


def test_sums_do_not_depend_on_the_order_of_amounts() -> None:
    rng = np.random.default_rng(3)
    slots, amounts = rng.integers(0, 3, 500), rng.integers(1, 10**9, 500)
    found = []
    for order in (np.arange(500), rng.permutation(500)):
        panes = Panes(3, SMALL)
        for part in np.array_split(order, 7):
            panes.add("units", slots[part], np.full(len(part), 4), amounts[part])
        panes.close(ROWS, 4)
        found.append(panes.ring["units"].copy())
    np.testing.assert_array_equal(found[0], found[1])


def test_counts_are_held_at_the_most_that_a_cell_can_say() -> None:
    panes, one = Panes(1, SMALL), np.array([0])
    for channel in ("orders", "views", "carts", "sessions"):
        panes.add(channel, one, np.array([2]), np.array([70_000]))
    panes.close(one, 2)
    assert [int(panes.ring[channel][0, 2]) for channel in ("orders", "views", "carts", "sessions")] == [65_535] * 4


@pytest.mark.parametrize(
    ("counts", "outs", "share"), [(0, 0, None), (1, 0, 1.0), (1, 1, 0.0), (2, 1, 0.5), (65_000, 1, 1.0)]
)
def test_the_stock_share_tells_unknown_from_out_of_stock(counts: int, outs: int, share: float | None) -> None:
    panes, one, bucket = Panes(1, SMALL), np.array([0]), np.array([2])
    panes.add("counts", one, bucket, np.array([counts]))
    panes.add("outs", one, bucket, np.array([outs]))
    panes.close(one, 2)
    found = stock_of(panes.ring["shelf"][0])[2]
    assert np.isnan(found) if share is None else found == share


def test_a_shut_bucket_stays_shut_when_its_sums_change() -> None:
    panes, one = Panes(1, SMALL), np.array([0])
    panes.close(one, 2, shut=True)
    panes.add("units", one, np.array([2]), np.array([UNIT]))
    panes.derive(one, 2)
    assert (int(flags_of(panes.ring["shelf"][0])[2]), float(panes.ring["units"][0, 2])) == (SHUT, 1)


def test_a_bucket_overwrites_the_one_that_leaves_the_ring() -> None:
    panes, one = Panes(1, SMALL), np.array([0])
    panes.add("units", one, np.array([0]), np.array([9 * UNIT]))
    for bucket in range(6):
        panes.close(one, bucket)
        panes.finish(one, bucket, 0)
    assert panes.demand(one, 6).tolist() == [[0] * 5]


def test_the_observed_part_of_an_open_bucket_is_never_negative() -> None:
    panes, one = Panes(1, SMALL), np.array([0])
    panes.add("units", one, np.array([7]), np.array([UNIT]))
    assert panes.observed(one, 7).tolist() == [1]
    panes.add("cancelled", one, np.array([7]), np.array([3 * UNIT]))
    assert panes.observed(one, 7).tolist() == [0]


@settings(max_examples=40, deadline=None)
@given(days=st.lists(ADDS, min_size=1, max_size=10), commits=st.sets(st.integers(0, 9)), cleared=st.integers(0, 9))
def test_records_give_the_same_bytes_back(
    days: list[list[tuple[int, int, int]]], commits: set[int], cleared: int
) -> None:
    panes, topic = Panes(3, SMALL), dict[str, bytes | None]()
    for bucket, adds in enumerate(days):
        for slot, ahead, amount in adds:
            panes.add("units", np.array([slot]), np.array([bucket + ahead]), np.array([amount]))
        panes.close(ROWS, bucket, np.full(3, bucket, np.float32))
        if bucket:
            panes.finish(ROWS, bucket - 1, bucket // 2)
            panes.correct(1, bucket - 1, bucket // 2, 250)
        if bucket == cleared:
            panes.clear(2)
        if bucket in commits:
            topic.update(panes.changes(3))
    topic.update(panes.changes(3))
    other = Panes(3, SMALL)
    for key in sorted(topic, key=restore_order):
        other.restore(key, topic[key])
    for name in RING:
        np.testing.assert_array_equal(other.ring[name], panes.ring[name], err_msg=name)
    for table, mine in ((other.open, panes.open), (other.weeks, panes.weeks)):
        for name in mine.arrays:
            np.testing.assert_array_equal(table[name], mine[name], err_msg=name)
    assert list(panes.changes(3)) == []


def test_what_a_commit_writes_grows_with_what_changed() -> None:
    panes = Panes(4 * BLOCK_ROWS, SMALL)
    rows = np.array([0, 3 * BLOCK_ROWS])
    panes.add("units", rows, np.array([0, 0]), np.array([1, 1]))
    assert [key for key, _ in panes.changes(4 * BLOCK_ROWS)] == ["open/+1"]
    panes.close(rows, 0)
    assert [key for key, _ in panes.changes(4 * BLOCK_ROWS)] == [
        "closed/0/0",
        "closed/3/0",
        "cancelled/0/0",
        "cancelled/3/0",
    ]
    panes.add("units", rows, np.array([0, 0]), np.array([1, 1]))
    panes.derive(rows, 0)
    assert [key for key, _ in panes.changes(4 * BLOCK_ROWS)] == ["open/+2"]
    panes.finish(rows[:1], 0, 0)
    panes.correct(3 * BLOCK_ROWS, 0, 0, 5)
    keys = [key for key, _ in panes.changes(4 * BLOCK_ROWS)]
    assert keys == ["open/+3", "weeks/+1", "closed/0/0", "cancelled/0/0", "cancelled/3/0"]


def test_records_of_more_series_than_there_may_be_are_refused_in_a_sentence() -> None:
    panes = Panes(600, SMALL)
    panes.close(np.arange(600), 0)
    other = Panes(520, SMALL)
    for key, value in panes.changes(600):
        if key == "closed/1/0":
            with pytest.raises(SnapshotError, match="beyond the maximum of 520 series"):
                other.restore(key, value)


def test_a_day_series_takes_25_bytes_a_bucket() -> None:
    assert sum(np.dtype(dtype).itemsize for dtype in RING.values()) == 25
    assert Panes(1, PaneConfig()).row_bytes == 84 * 25 + 104 * 4 + 3 * 45
