"""Slots of series: the lowest free one next, the same after a restore, refused beyond the maximum."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.key_index import KeyIndex
from streams.series import SeriesMap, sku_seed

KEYS = st.tuples(st.sampled_from(["a", "b", "c|d", "é"]), st.sampled_from(["default", "north", "south"]))
STEPS = st.lists(st.tuples(st.sampled_from(["add", "free", "restore"]), KEYS), max_size=60)


def restored(topic: dict[str, bytes | None], most: int) -> SeriesMap:
    other = SeriesMap(most)
    for key in sorted(topic, key=lambda key: int(key.partition("/")[2])):
        other.restore(key, topic[key])
    other.settle()
    return other


@settings(max_examples=100, deadline=None)
@given(steps=STEPS, most=st.sampled_from([3, 12]))
def test_slots_are_those_of_a_dictionary_with_a_heap_of_free_ones(
    steps: list[tuple[str, tuple[str, str]]], most: int
) -> None:
    series, oracle, free, refused = SeriesMap(most), dict[tuple[str, str], int](), list(range(most)), 0
    topic: dict[str, bytes | None] = {}
    for step, key in steps:
        if step == "add":
            if key not in oracle and free:
                oracle[key] = heapq.heappop(free)
            refused += key not in oracle
            assert series.add(*key) == oracle.get(key, -1)
        elif step == "free" and key in oracle:
            series.free(oracle[key])
            heapq.heappush(free, oracle.pop(key))
        elif step == "restore":
            topic.update(series.changes())
            series, refused = restored(topic, most), 0
        assert (len(series), series.refused) == (len(oracle), refused)
        assert {key: series.slot(*key) for key in oracle} == oracle
        assert series.live().tolist() == sorted(oracle.values())


def test_a_batch_of_keys_is_found_at_once() -> None:
    series = SeriesMap(9)
    series.add("a", "default"), series.add("a", "north"), series.add("b", "default")
    assert series.find(["b", "a", "x"], ["default"] * 3).tolist() == [2, 0, -1]
    assert series.find(["a", "b"], ["north", "north"]).tolist() == [1, -1]
    assert series.find([], []).tolist() == []


def test_an_item_knows_its_locations_in_a_fixed_order() -> None:
    series = SeriesMap(9)
    for place in ("south", "default", "north"):
        series.add("a", place)
    assert [series.key(slot)[1] for slot in series.of_sku("a")] == ["default", "north", "south"]
    series.free(series.slot("a", "default"))
    assert [series.key(slot)[1] for slot in series.of_sku("a")] == ["north", "south"]
    assert series.of_sku("b") == []


def test_a_free_slot_has_no_key() -> None:
    series = SeriesMap(2)
    series.free(series.add("a", "default"))
    with pytest.raises(KeyError, match="slot 0 holds no series"):
        series.key(0)


def test_thousands_come_and_go_without_losing_one() -> None:
    series = SeriesMap(2000)
    for n in range(6000):
        assert series.add(f"s{n}", "default") >= 0
        if n >= 1500:
            series.free(series.slot(f"s{n - 1500}", "default"))
    assert [n for n in range(6000) if series.slot(f"s{n}", "default") >= 0] == list(range(4500, 6000))


def test_the_seed_of_a_sku_is_stable() -> None:
    assert int(sku_seed("TEA")) == int(sku_seed("TEA")) != int(sku_seed("MUG"))


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 3000), max_size=6), seed=st.integers(0, 99))
def test_keys_put_all_at_once_are_found_like_those_put_one_by_one(sizes: list[int], seed: int) -> None:
    index, oracle, rng = KeyIndex(), dict[str, int](), np.random.default_rng(seed)
    for size in sizes:
        keys = [f"k{len(oracle) + n}" for n in range(size)]
        slots = len(oracle) + rng.permutation(size)
        index.put_all(keys, slots)
        oracle |= dict(zip(keys, slots.tolist(), strict=True))
        for key in list(oracle)[:: 1 + seed % 5]:
            index.drop(key)
            index.put(key, oracle[key])
    assert len(index) == len(oracle)
    assert index.find([*oracle, "other"]).tolist() == [*oracle.values(), -1]
