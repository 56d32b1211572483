"""Tables as records: every bit comes back, few deltas live, and a commit writes what changed."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from streams.sparse import shrink, spread
from streams.state import BLOCK_ROWS, Fields, SnapshotError, Table, pack, restore_order, unpack

CYCLE = 4
ROWS = 5 * BLOCK_ROWS + 70
FIELDS: Fields = {
    "sum": (np.int64, (3,)),
    "share": (np.float32, ()),
    "half": (np.float16, (2,)),
    "code": (np.uint16, ()),
    "flag": (np.bool_, ()),
}
Step = tuple[str, int, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["rows", "clear", "slot"]), st.integers(1, 40), st.integers(0, 2**32)),
        st.tuples(st.just("crowd"), st.integers(1, 2 * BLOCK_ROWS), st.integers(0, 2**32)),
        st.tuples(st.just("same"), st.integers(1, 20_000), st.integers(0, 2**32)),
        st.tuples(st.sampled_from(["commit", "commit", "restore"]), st.just(0), st.just(0)),
    ),
    min_size=20,
    max_size=80,
)


def table(rows: int = ROWS) -> Table:
    return Table("t/s", rows, FIELDS, CYCLE)


def change(t: Table, what: str, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Give rows random contents, some of them zeros, and touch them; which they were comes back."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, ROWS, count)
    if what == "crowd":
        rows = np.arange(seed % (ROWS - count), seed % (ROWS - count) + count)
    elif what == "same":
        rows = rng.integers(0, 7, count)
    elif what == "slot":
        rows = rows[:1]
    if what == "clear":
        t.clear(rows)
        return rows
    for array in t.arrays.values():
        highest = 2 if array.dtype == np.bool_ else 256
        bits = rng.integers(0, highest, (len(rows), array[0].nbytes), np.uint8)
        bits[rng.random(len(rows)) < 0.3] = 0
        array[rows] = bits.view(array.dtype).reshape(len(rows), *array.shape[1:])
    t.touch(int(rows[0]) if what == "slot" else rows)
    return rows


def restored(topic: dict[str, bytes]) -> Table:
    t = table()
    for key in sorted(topic, key=restore_order):
        t.restore(key, topic[key])
    return t


def contents(t: Table) -> list[bytes]:
    return [array.tobytes() for array in t.arrays.values()]


def commit(t: Table, topic: dict[str, bytes]) -> tuple[int, int]:
    """Play what changed into a topic; bytes and whole blocks of the commit."""
    size, whole = 0, 0
    for key, value in t.changes():
        assert key.startswith("t/s/")
        if value is None:
            del topic[key]
        else:
            topic[key] = value
            size, whole = size + len(value), whole + ("+" not in key)
    return size, whole


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_all_arrays_come_back_whenever_they_are_restored(steps: list[Step]) -> None:
    t, topic = table(), dict[str, bytes]()
    for what, count, seed in [*steps, ("restore", 0, 0)]:
        if what not in ("commit", "restore"):
            change(t, what, count, seed)
            continue
        commit(t, topic)
        assert sum("+" in key for key in topic) <= CYCLE
        if what == "restore":
            again = restored(topic)
            assert contents(again) == contents(t)
            assert list(again.changes()) == list(t.changes()) == []
            t = again


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_a_commit_writes_what_changed_and_a_part_of_the_table(steps: list[Step]) -> None:
    t, topic, changed = table(), dict[str, bytes](), set[int]()
    for what, count, seed in [*steps, ("commit", 0, 0)]:
        if what not in ("commit", "restore"):
            changed |= set(change(t, what, count, seed).tolist())
            continue
        size, whole = commit(t, topic)
        crowded = int((np.bincount(np.array([*changed], np.int64) // BLOCK_ROWS) >= BLOCK_ROWS // 2).sum())
        blocks = crowded + math.ceil(math.ceil(ROWS / BLOCK_ROWS) / CYCLE)
        head = 60 + 30 * len(FIELDS)
        assert whole <= blocks
        assert size <= blocks * (BLOCK_ROWS * 1.2 * t.row_bytes + head) + len(changed) * (1.2 * t.row_bytes + 4) + head
        if not changed:
            assert size == 0
        changed.clear()


def test_rows_of_zeros_and_columns_that_are_alike_cost_next_to_nothing() -> None:
    t = Table("t", 60 * BLOCK_ROWS, {"open": (np.int64, (12,)), "flag": (np.bool_, ())})
    rows = np.arange(0, 60 * BLOCK_ROWS, 50)
    t["flag"][rows] = True
    t.touch(rows)
    [(key, value)] = t.changes()
    assert key == "t/+1"
    assert len(value or b"") <= len(rows) + 100  # where each row lies


def test_a_delta_is_deleted_once_its_blocks_were_written_whole() -> None:
    t, topic = table(), dict[str, bytes]()
    change(t, "rows", 40, 1)
    commit(t, topic)
    assert "t/s/+1" in topic
    for n in range(CYCLE):
        assert "t/s/+1" in topic
        change(t, "slot", 1, n)
        commit(t, topic)
    assert "t/s/+1" not in topic
    assert contents(restored(topic)) == contents(t)


def test_marks_of_a_shell_that_never_commits_take_no_more_than_the_table_has_rows() -> None:
    t = table()
    for seed in range(300):
        change(t, "rows", 40, seed)
        change(t, "same", 5000, seed)
    assert t._marks.nbytes <= 4 * max(2 * 4096, 2 * (ROWS + 5000))


@settings(max_examples=300, deadline=None)
@given(
    values=arrays.arrays(
        st.sampled_from(["?", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8"]),
        arrays.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=9),
        fill=st.just(0),
    )
)
def test_every_bit_of_an_array_comes_back(values: npt.NDArray[np.generic]) -> None:
    out = np.zeros_like(values)
    packed = shrink(values)
    if packed is not None:
        spread(packed, out)
    assert out.tobytes() == values.tobytes()


@pytest.mark.parametrize("size", [0, 1, 2, 4, 8])
def test_an_array_takes_the_smallest_type_for_its_entries(size: int) -> None:
    span = {0: 0, 1: 255, 2: 65_535, 4: 2**32 - 1, 8: 2**64 - 1}[size]
    packed = shrink(np.array([-(2**63), -(2**63) + span], np.int64))
    assert packed is not None
    assert (packed[1], len(packed[3])) == (size, 2 * size)


def broken() -> Iterator[tuple[str, bytes, str]]:
    t, rows = table(), np.array([1, 5, 700])
    t["code"][rows] = [3, 4, 5]
    t.touch(rows)
    [(key, value)] = t.changes()
    good = unpack(key, value or b"")
    yield "t/s/9", pack(good), "beyond the maximum"
    yield "t/s/+1", pack(good | {"layout": 7}), "another layout"
    yield "t/s/+1", pack(good | {"rows": 9}), "damaged"
    yield "t/s/+1", pack(good | {"fields": good["fields"] | {"code": [2**17, 1, b"", b"abc"]}}), "damaged"
    yield "t/s/x", pack(good), "damaged"


@pytest.mark.parametrize(("key", "value", "words"), list(broken()), ids=["place", "layout", "rows", "value", "key"])
def test_foreign_and_damaged_records_are_refused_in_a_sentence(key: str, value: bytes, words: str) -> None:
    with pytest.raises(SnapshotError, match=words):
        table().restore(key, value)


def test_a_delta_beyond_the_maximum_is_refused() -> None:
    t = table()
    t["code"][ROWS - 1] = 1
    t.touch(ROWS - 1)
    [(key, value)] = t.changes()
    with pytest.raises(SnapshotError, match="beyond the maximum of 9 rows"):
        table(9).restore(key, value)


def test_a_block_after_newer_rows_of_its_own_is_refused_instead_of_overwriting_them() -> None:
    t, topic = table(), dict[str, bytes]()
    change(t, "crowd", BLOCK_ROWS, 0)
    commit(t, topic)
    t.touch(3)
    commit(t, topic)
    other = table()
    assert sorted(topic, key=restore_order) == ["t/s/0", "t/s/+2"]
    other.restore("t/s/+2", topic["t/s/+2"])
    with pytest.raises(SnapshotError, match="newer"):
        other.restore("t/s/0", topic["t/s/0"])
