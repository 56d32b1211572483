"""The watermark against a slow oracle that takes one record at a time, and its rules one by one."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.watermark import NEVER, TimeConfig, Watermark

MINUTE = 60_000
HOUR = 60 * MINUTE
NOW = 400_000 * HOUR
RULES = TimeConfig()
ORDERS, CLICKS, FACT = 0, 1, -1


@dataclass(frozen=True)
class Seen:
    """One record as the watermark sees it."""

    source: int
    time_ms: int
    tick_ms: int
    sku: str = "a"


@dataclass
class Outcome:
    """What became of records, by number: applied with the watermark then, parked still, given up."""

    applied: list[tuple[int, int]] = field(default_factory=list)
    parked: list[int] = field(default_factory=list)
    given_up: list[tuple[int, int]] = field(default_factory=list)
    ms: int = NEVER


# -- the oracle: the rules read word by word, one record at a time


@dataclass
class Waiting:
    number: int
    later: int = 0
    passed: set[str] = field(default_factory=set)


class Oracle:
    """Event time without batches: every rule is a loop."""

    def __init__(self, rules: TimeConfig) -> None:
        self.rules = rules
        self.records: list[Seen] = []
        self.clock = NEVER
        self.newest: dict[int, int] = {}
        self.heard: dict[int, int] = {}
        self.waiting: list[Waiting] = []
        self.out = Outcome()

    def take(self, record: Seen) -> None:
        number = len(self.records)
        self.records.append(record)
        self.clock = max(self.clock, record.tick_ms)
        for one in self.waiting:
            one.later += 1
            if record.source >= 0 and record.time_ms >= self.records[one.number].time_ms:
                one.passed.add(record.sku)
        while self.release():
            pass
        for one in [one for one in self.waiting if one.later >= self.rules.ahead_events]:
            self.waiting.remove(one)
            self.out.given_up.append((one.number, number))
        if record.source >= 0 and record.time_ms > self.reach():
            self.waiting.append(Waiting(number))
        else:
            self.believe(number)

    def tick(self, now_ms: int) -> None:
        while near := [self.records[w.number].time_ms - self.rules.ahead_ms for w in self.waiting]:
            if min(near) > now_ms:
                break
            self.clock = max(self.clock, min(near))
            self.release()
        self.clock = max(self.clock, now_ms)
        self.move()

    def reach(self) -> int:
        return max(self.out.ms, self.clock) + self.rules.ahead_ms

    def release(self) -> bool:
        """Believe those in reach, and those that enough SKUs have passed with all that come in reach by that."""
        reach = self.reach()
        for one in self.waiting:
            if len(one.passed) >= self.rules.ahead_skus:
                time_ms = self.records[one.number].time_ms
                reach = max(reach, time_ms - self.rules.bound_ms + self.rules.ahead_ms)
        free = [one for one in self.waiting if self.records[one.number].time_ms <= reach]
        self.waiting = [one for one in self.waiting if one not in free]
        for one in free:
            self.believe(one.number)
        return bool(free)

    def believe(self, number: int) -> None:
        record = self.records[number]
        if record.source >= 0:
            self.newest[record.source] = max(self.newest.get(record.source, NEVER), record.time_ms)
            self.heard[record.source] = max(self.heard.get(record.source, NEVER), self.clock)
        self.move()
        self.out.applied.append((number, self.out.ms))

    def move(self) -> None:
        active = [time_ms for s, time_ms in self.newest.items() if self.heard[s] + self.rules.idle_ms >= self.clock]
        # One source may lag another by as much as an event may run ahead.
        mark = max(min(active), max(active) - self.rules.ahead_ms) if active else self.clock
        self.out.ms = max(self.out.ms, mark - self.rules.bound_ms)

    def outcome(self) -> Outcome:
        self.out.parked = [one.number for one in self.waiting]
        return self.out


class Player:
    """The watermark as the intake drives it: parked records come first in the next call."""

    def __init__(self, rules: TimeConfig) -> None:
        self.clock = Watermark(rules)
        self.records: list[Seen] = []
        self.out = Outcome()

    def take(self, records: list[Seen]) -> None:
        numbers = self.out.parked + list(range(len(self.records), len(self.records) + len(records)))
        self.records += records
        whole = [self.records[number] for number in numbers]
        plan = self.clock.plan(
            np.array([r.source for r in whole], np.int8),
            np.array([r.time_ms for r in whole], np.int64),
            np.array([r.tick_ms for r in whole], np.int64),
            [r.sku for r in whole],
        )
        self.note(numbers, plan.apply.tolist(), plan.watermark_ms.tolist(), plan.parked)
        self.out.given_up += [(numbers[i], numbers[at]) for i, at in plan.given_up]

    def tick(self, now_ms: int) -> None:
        numbers = self.out.parked
        waiting = [self.records[number] for number in numbers]
        plan = self.clock.tick(
            now_ms, np.array([r.source for r in waiting], np.int8), np.array([r.time_ms for r in waiting], np.int64)
        )
        self.note(numbers, plan.apply.tolist(), plan.watermark_ms.tolist(), plan.parked)

    def note(self, numbers: list[int], apply: list[int], marks: list[int], parked: list[int]) -> None:
        self.out.applied += [(numbers[i], mark) for i, mark in zip(apply, marks, strict=True)]
        self.out.parked = [numbers[i] for i in parked]
        self.out.ms = self.clock.ms


Step = Seen | int  # a record, or a tick


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """Records around a clock that moves, some far ahead, and ticks between."""
    now, steps = NOW, list[Step]()
    for _ in range(draw(st.integers(1, 40))):
        now += draw(st.sampled_from([0, 1, 20_000, 4 * MINUTE, 11 * MINUTE, 3 * HOUR]))
        if draw(st.integers(0, 9)) == 0:
            steps.append(now + draw(st.sampled_from([0, HOUR, 9 * HOUR])))
            continue
        offset = draw(
            st.sampled_from([0, 0, 0, -MINUTE, -3 * HOUR, 6 * HOUR, 6 * HOUR + 1, 7 * HOUR, 20 * HOUR, 99 * HOUR])
        )
        source, lag = draw(st.sampled_from([ORDERS, ORDERS, CLICKS, FACT])), draw(st.sampled_from([0, 0, 0, HOUR]))
        steps.append(Seen(source, now + offset, now - lag, draw(st.sampled_from("abcd"))))
    return steps


def played(steps: list[Step], rules: TimeConfig, cuts: set[int]) -> Outcome:
    player, chunk = Player(rules), list[Seen]()
    for number, step in enumerate(steps):
        if isinstance(step, int):
            player.take(chunk)
            player.tick(step)
            chunk = []
            continue
        if number in cuts:
            player.take(chunk)
            chunk = []
        chunk.append(step)
    player.take(chunk)
    return player.out


def expected(steps: list[Step], rules: TimeConfig) -> Outcome:
    oracle = Oracle(rules)
    for step in steps:
        if isinstance(step, int):
            oracle.tick(step)
        else:
            oracle.take(step)
    return oracle.outcome()


@settings(max_examples=300, deadline=None)
@given(
    steps=histories(),
    cuts=st.sets(st.integers(0, 40)),
    ahead_events=st.sampled_from([1, 3, 8, 1000]),
    ahead_skus=st.sampled_from([1, 3]),
)
def test_in_any_chunks_every_record_meets_the_fate_and_watermark_of_the_oracle(
    steps: list[Step], cuts: set[int], ahead_events: int, ahead_skus: int
) -> None:
    rules = TimeConfig(ahead_events=ahead_events, ahead_skus=ahead_skus)
    assert played(steps, rules, cuts) == expected(steps, rules)


@settings(max_examples=60, deadline=None)
@given(steps=histories(), cut=st.integers(0, 40))
def test_a_restored_clock_goes_on_as_the_one_that_was_written(steps: list[Step], cut: int) -> None:
    rules = TimeConfig(ahead_events=8)
    player = Player(rules)
    for number, step in enumerate(steps):
        if number == cut:
            other = Watermark(rules)
            other.restore(player.clock.snapshot())
            player.clock = other
        if isinstance(step, int):
            player.tick(step)
        else:
            player.take([step])
    assert player.out == expected(steps, rules)


# -- rules one by one


def order(time_ms: int, tick_ms: int | None = None, sku: str = "a", source: int = ORDERS) -> Seen:
    return Seen(source, time_ms, time_ms if tick_ms is None else tick_ms, sku)


def taken(*records: Seen, rules: TimeConfig = RULES) -> Player:
    player = Player(rules)
    for record in records:
        player.take([record])
    return player


def test_the_watermark_stays_five_minutes_behind_the_newest_flow_and_never_falls() -> None:
    player = taken(order(NOW), order(NOW + HOUR), order(NOW - HOUR))
    marks = [mark for _, mark in player.out.applied]
    assert marks == [NOW - 5 * MINUTE, NOW + 55 * MINUTE, NOW + 55 * MINUTE]
    assert all(before <= after for before, after in pairwise(marks))


def test_facts_do_not_move_the_watermark_while_a_flow_is_active() -> None:
    player = taken(order(NOW), Seen(FACT, NOW + 99 * HOUR, NOW + MINUTE))
    assert player.out.ms == NOW - 5 * MINUTE


def test_the_slower_of_two_active_sources_holds_the_watermark_until_it_is_idle() -> None:
    player = taken(order(NOW, NOW, source=CLICKS), order(NOW + HOUR, NOW + 9 * MINUTE))
    assert player.out.ms == NOW - 5 * MINUTE
    player.take([order(NOW + HOUR, NOW + 10 * MINUTE + 1)])
    assert player.out.ms == NOW + 55 * MINUTE


def test_a_source_may_lag_another_by_six_hours_at_most() -> None:
    player = taken(order(NOW, NOW, source=CLICKS), order(NOW + 6 * HOUR, NOW), order(NOW + 6 * HOUR, NOW + MINUTE))
    assert player.out.ms == NOW - 5 * MINUTE
    player.take([order(NOW + 6 * HOUR + MINUTE, NOW + MINUTE)])
    assert player.out.ms == NOW - 4 * MINUTE


def test_when_all_sources_are_idle_the_clock_carries_the_watermark() -> None:
    player = taken(order(NOW))
    player.tick(NOW + 10 * MINUTE)
    assert player.out.ms == NOW - 5 * MINUTE
    player.tick(NOW + 10 * MINUTE + 1)
    assert player.out.ms == NOW + 5 * MINUTE + 1


@pytest.mark.parametrize(("ahead_ms", "parked"), [(6 * HOUR, []), (6 * HOUR + 1, [1])])
def test_six_hours_ahead_is_believed_and_a_millisecond_more_is_parked(ahead_ms: int, parked: list[int]) -> None:
    player = taken(order(NOW), order(NOW + ahead_ms, NOW, "b"))
    assert player.out.parked == parked


def test_a_parked_event_does_not_make_others_late() -> None:
    player = taken(order(NOW), order(NOW + 99 * HOUR, NOW, "wrong clock"), order(NOW + MINUTE, NOW + MINUTE))
    assert player.out.ms == NOW - 4 * MINUTE


def test_three_skus_that_pass_a_parked_event_confirm_it_and_themselves() -> None:
    far = NOW + 99 * HOUR
    player = taken(order(NOW), order(far, NOW, "x"), *(order(far + n, NOW, "ab"[n % 2]) for n in range(4)))
    assert player.out.parked == [1, 2, 3, 4, 5]  # two SKUs passed it, however often
    player.take([order(far + 9, NOW, "c")])
    assert player.out.parked == []
    assert [number for number, _ in player.out.applied] == [0, 1, 2, 3, 4, 5, 6]
    assert player.out.ms == far + 9 - 5 * MINUTE


def test_events_before_a_parked_one_do_not_confirm_it() -> None:
    far = NOW + 99 * HOUR
    player = taken(order(NOW), order(far, NOW, "x"), *(order(far - 1, NOW, sku) for sku in "abcd"))
    # The first of the four is passed by three SKUs; released, it lets the watermark come near all others.
    assert player.out.parked == []
    assert [number for number, _ in player.out.applied] == [0, 1, 2, 3, 4, 5]
    alone = taken(order(NOW), order(far, NOW, "x"), *(order(NOW + n, NOW, sku) for n, sku in enumerate("abcd")))
    assert alone.out.parked == [1]


def test_facts_do_not_confirm_a_parked_event() -> None:
    far = NOW + 99 * HOUR
    player = taken(order(NOW), order(far, NOW, "x"), *(Seen(FACT, far, NOW, sku) for sku in "abcd"))
    assert player.out.parked == [1]


def test_a_tick_that_comes_within_six_hours_releases_a_parked_event_and_never_makes_it_late() -> None:
    far = NOW + 99 * HOUR
    player = taken(order(NOW), order(far, NOW, "x"))
    player.tick(far - 6 * HOUR - 1)
    assert player.out.parked == [1]
    player.tick(far + 50 * HOUR)
    number, mark = player.out.applied[-1]
    assert (number, player.out.parked) == (1, [])
    assert mark <= far
    assert player.out.ms == far + 50 * HOUR - 5 * MINUTE


def test_a_parked_event_is_given_up_at_the_thousandth_later_record_and_not_before() -> None:
    crowd = [order(NOW + n, NOW, "crowd") for n in range(1000)]
    player = taken(order(NOW), order(NOW + 99 * HOUR, NOW, "x"))
    player.take(crowd[:999])
    assert (player.out.parked, player.out.given_up) == ([1], [])
    player.take(crowd[999:])
    assert (player.out.parked, player.out.given_up) == ([], [(1, 1001)])


def test_without_any_clock_the_first_flow_sets_the_time() -> None:
    player = Player(RULES)
    player.take([Seen(FACT, NOW, NEVER), Seen(ORDERS, NOW, NEVER), Seen(ORDERS, NOW + 7 * HOUR, NEVER, "b")])
    assert player.out.parked == [2]
    assert player.out.ms == NOW - 5 * MINUTE
