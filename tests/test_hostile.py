"""Hostile records end as events or as dead letters with a reason, and never touch their neighbours."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.decode import decode
from streams.events import EventBatch, concat
from tests.hostile import CLOCK_MS, EVENT, HOSTILE, TYPES, Hostile, event

GOOD = [event(kind, event_id=f'"good-{i}"') for i, kind in enumerate(TYPES)]
CASES = pytest.mark.parametrize("case", HOSTILE, ids=[case.name for case in HOSTILE])


def assert_same(found: EventBatch, expected: EventBatch) -> None:
    """All columns but ``row`` are alike, to the bit and the type."""
    for field in fields(EventBatch):
        mine, other = getattr(found, field.name), getattr(expected, field.name)
        if field.name == "row":
            continue
        if isinstance(mine, np.ndarray):
            assert mine.dtype == other.dtype, field.name
            np.testing.assert_array_equal(mine, other, err_msg=field.name)
        else:
            assert mine == other, field.name


def shifted(batch: EventBatch, rows: int) -> EventBatch:
    """The same batch, its records ``rows`` further on."""
    moved = batch.take(np.arange(len(batch)))
    moved.row = (batch.row + rows).astype(np.int32)
    return moved


def test_the_corpus_holds_more_than_a_hundred_different_records() -> None:
    assert max(Counter(case.name for case in HOSTILE).values()) == 1
    assert len({case.records for case in HOSTILE}) == len(HOSTILE) > 200


@CASES
def test_a_hostile_record_ends_as_the_contract_says(case: Hostile) -> None:
    batch, letters = decode(case.records, clock_ms=CLOCK_MS)
    if case.stage == EVENT:
        assert not letters
        assert len(batch) == len(case.records)
        return
    assert len(batch) == 0
    assert [letter.row for letter in letters] == list(range(len(case.records)))
    for letter, record in zip(letters, case.records, strict=True):
        assert (letter.stage, letter.field) == (case.stage, case.field)
        assert 0 < len(letter.reason) <= 200
        assert letter.value == record


@CASES
def test_a_hostile_record_leaves_its_neighbours_as_they_are_alone(case: Hostile) -> None:
    before, after = GOOD[:10], GOOD[10:]
    batch, letters = decode([*before, *case.records, *after], clock_ms=CLOCK_MS)
    middle, _ = decode(case.records, clock_ms=CLOCK_MS)
    first, _ = decode(before, clock_ms=CLOCK_MS)
    last, _ = decode(after, clock_ms=CLOCK_MS)
    width = len(case.records)
    assert_same(batch, concat([first, middle, last]))
    assert batch.row.tolist() == [*range(10), *(middle.row + 10).tolist(), *range(10 + width, len(GOOD) + width)]
    assert len(letters) == width - len(middle)


def test_the_whole_corpus_in_one_chunk_is_the_corpus_record_by_record() -> None:
    records = [record for case in HOSTILE for record in case.records]
    batch, letters = decode(records, clock_ms=CLOCK_MS)
    single = [decode([record], clock_ms=CLOCK_MS) for record in records]
    assert_same(batch, concat([part for part, _ in single]))
    expected = [
        (row, letter.stage, letter.reason, letter.field) for row, (_, parts) in enumerate(single) for letter in parts
    ]
    assert [(letter.row, letter.stage, letter.reason, letter.field) for letter in letters] == expected


def test_the_reason_does_not_depend_on_how_deep_the_caller_is() -> None:
    bomb = event(note="[" * 900 + "]" * 900)

    def deeper(levels: int) -> str:
        return deeper(levels - 1) if levels else decode([bomb], clock_ms=CLOCK_MS)[1][0].reason

    assert deeper(0) == deeper(300) == "nested deeper than 64 levels"


def fuzzed(seed: int, n: int) -> list[bytes]:
    """Mutate good records: bits flipped, bytes cut, doubled or spliced with another record."""
    rng = np.random.default_rng(seed)
    records = []
    for _ in range(n):
        record = bytearray(GOOD[rng.integers(len(GOOD))])
        for _ in range(rng.integers(1, 4)):
            at, end = sorted(rng.integers(0, len(record) + 1, 2).tolist())
            match rng.integers(6):
                case 0 if record:
                    record[at % len(record)] ^= 1 << int(rng.integers(8))
                case 1:
                    del record[at : min(end, at + 12)]
                case 2:
                    record[at:at] = record[at:end]
                case 3:
                    record[at:] = GOOD[rng.integers(len(GOOD))][at:]
                case 4:
                    record[at:at] = TOKENS[rng.integers(len(TOKENS))]
                case _:
                    record = record[: max(end, 1)]
        records.append(bytes(record))
    return records


TOKENS = [
    b"null",
    b"1e999",
    b"-",
    b'"',
    b"}\n{",
    b"\\ud800",
    b"\xff",
    b"[[[[",
    b"{}",
    b",",
    b"NaN",
    b"\xc2\x85",
    b"0" * 400,
]


def test_ten_thousand_fuzzed_records_each_end_as_an_event_or_a_dead_letter() -> None:
    records = fuzzed(seed=20_111_209, n=10_000)
    chunk = [record for pair in zip(records, GOOD * 527, strict=False) for record in pair]
    batch, letters = decode(chunk, clock_ms=CLOCK_MS)
    assert sorted([*batch.row.tolist(), *(letter.row for letter in letters)]) == list(range(20_000))
    assert all(letter.reason and letter.stage in ("decode", "validate") for letter in letters)
    assert all(letter.field.startswith("$") for letter in letters if letter.stage == "validate")
    assert len(letters) > 5_000
    neighbours = batch.take(np.flatnonzero(batch.row % 2 == 1))
    alone, _ = decode(chunk[1::2], clock_ms=CLOCK_MS)
    assert_same(neighbours, alone)


RECORDS = st.one_of(
    st.sampled_from([record for case in HOSTILE for record in case.records if record is None or len(record) < 5_000]),
    st.sampled_from(GOOD),
    st.binary(max_size=40),
)


@settings(max_examples=60, deadline=None)
@given(records=st.lists(RECORDS, max_size=30), cuts=st.lists(st.integers(0, 30), max_size=4))
def test_splitting_a_chunk_changes_nothing(records: list[bytes | None], cuts: list[int]) -> None:
    whole, letters = decode(records, clock_ms=CLOCK_MS)
    edges = [0, *sorted(min(cut, len(records)) for cut in cuts), len(records)]
    batches, others = [], []
    for start, stop in pairwise(edges):
        batch, found = decode(records[start:stop], clock_ms=CLOCK_MS)
        batches.append(shifted(batch, start))
        others += [(letter.row + start, letter.stage, letter.reason, letter.field, letter.value) for letter in found]
    joined = concat(batches)
    assert_same(whole, joined)
    assert whole.row.tolist() == joined.row.tolist()
    assert [(letter.row, letter.stage, letter.reason, letter.field, letter.value) for letter in letters] == others
