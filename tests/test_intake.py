"""Late, far-ahead and repeated events stop at the gate, with their bytes, their keys and a reason."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from streams.decode import decode
from streams.dedupe import DedupeConfig
from streams.intake import Accepted, Intake
from streams.outputs import Output
from streams.series import SeriesMap
from streams.state import restore_order
from streams.watermark import TimeConfig
from tests.small_shop import CLOCK, DAY, HOUR, MINUTE, NOON, Event, cancel, lines, order, price, stock, view

MESSAGE = "__streams.errors.message"


def gate(**rules: Any) -> Intake:
    return Intake(TimeConfig(**rules), DedupeConfig(), SeriesMap(100))


def pass_all(intake: Intake, *events: Event, clock_ms: int = NOON) -> Accepted:
    """One batch of events, their SKU as key, the shell's clock at noon."""
    keys = [str(one["sku"]).encode() for one in events]
    batch, letters = decode(lines(events), clock_ms=CLOCK, keys=keys)
    assert not letters
    batch.tick_ms[:] = clock_ms
    return intake.accept(batch)


def headers(letter: Output) -> dict[str, str]:
    return {name: value.decode() for name, value in letter.headers}


def test_late_flows_are_dead_letters_with_their_bytes_key_and_how_late_they_are() -> None:
    late = order(NOON - 2 * HOUR - 5 * MINUTE - 1, 3)
    found = pass_all(intake := gate(), order(NOON, sku="MUG"), late)
    [(row, letter)] = found.letters
    assert (row, letter.value, letter.key) == (1, lines([late])[0], b"TEA")
    assert headers(letter)["x-stage"] == "late"
    assert headers(letter)[MESSAGE] == (
        "event time is 7200 s behind the watermark, more than 7200 s - at `$.event_time`"
    )
    assert (intake.counts["late"], intake.counts["late_milliunits"], intake.counts["accepted"]) == (1, 3000, 1)


def test_lateness_is_two_hours_behind_the_watermark_to_the_millisecond() -> None:
    found = pass_all(gate(), order(NOON), order(NOON - 2 * HOUR - 5 * MINUTE), order(NOON - 2 * HOUR - 5 * MINUTE - 1))
    assert len(found.batch) == 2
    assert [row for row, _ in found.letters] == [2]


def test_facts_are_never_late() -> None:
    found = pass_all(gate(), order(NOON), price(NOON - 300 * DAY, 5.0), stock(NOON - 300 * DAY, 3))
    assert (len(found.batch), found.letters) == (3, [])


def test_a_repeat_is_dropped_and_counted_whatever_its_content_says() -> None:
    first = order(NOON, 1)
    other = first | {"quantity": 5, "event_time": NOON + 1}
    found = pass_all(intake := gate(), first, first, other)
    assert found.batch.quantity.tolist() == [1000]
    assert (intake.counts["duplicate"], found.letters) == (2, [])


def test_one_event_id_of_two_skus_is_two_events() -> None:
    first = order(NOON, 1)
    assert len(pass_all(gate(), first, first | {"sku": "MUG"}).batch) == 2


def test_a_repeat_is_found_in_a_later_batch_and_after_a_restore() -> None:
    first = order(NOON, 1)
    pass_all(intake := gate(), first)
    again = gate()
    for key, value in intake.changes():
        again.restore(key, value)
    assert len(pass_all(intake, first).batch) == len(pass_all(again, first).batch) == 0


def test_an_event_is_found_again_as_long_as_it_is_not_late() -> None:
    early = order(NOON + 6 * HOUR, 1)  # believed six hours ahead
    intake = gate()
    pass_all(intake, order(NOON, sku="MUG"), early)
    for n in range(0, 8 * 60, 5):  # until the watermark is two hours past it
        pass_all(intake, order(NOON + n * MINUTE, sku="MUG"), clock_ms=NOON + n * MINUTE)
    assert pass_all(intake, early, clock_ms=NOON + 8 * HOUR).letters == []
    assert intake.counts["duplicate"] == 1
    pass_all(intake, order(NOON + 8 * HOUR + 6 * MINUTE, sku="MUG"), clock_ms=NOON + 8 * HOUR + 6 * MINUTE)
    assert [headers(letter)["x-stage"] for _, letter in pass_all(intake, early, clock_ms=NOON + 9 * HOUR).letters] == [
        "late"
    ]


def test_an_event_nobody_confirms_is_a_dead_letter_of_stage_ahead_as_it_came() -> None:
    far = order(NOON + 99 * HOUR, 4)
    intake = gate(ahead_events=3)
    assert pass_all(intake, order(NOON, sku="MUG"), far).letters == []
    assert (intake.parked, intake.counts["parked"]) == (1, 1)
    crowd = [view(NOON + n, sku="MUG") for n in range(4)]
    [(row, letter)] = pass_all(intake, *crowd).letters
    assert (row, letter.value, letter.key, intake.parked) == (2, lines([far])[0], b"TEA", 0)
    assert headers(letter)["x-stage"] == "ahead"
    assert re.search("none of 3 later events confirmed it", headers(letter)[MESSAGE])
    assert (intake.counts["ahead"], intake.counts["ahead_milliunits"]) == (1, 4000)


def test_a_parked_event_outlives_a_restore_with_its_key() -> None:
    far = order(NOON + 99 * HOUR, 4)
    pass_all(intake := gate(ahead_events=3), order(NOON, sku="MUG"), far)
    again = gate(ahead_events=3)
    for key, value in intake.changes():
        again.restore(key, value)
    assert again.parked == 1
    crowd = [view(NOON + n, sku="MUG") for n in range(3)]
    [(_, letter)] = pass_all(again, *crowd).letters
    assert (letter.value, letter.key) == (lines([far])[0], b"TEA")


def test_a_parked_event_set_free_comes_out_at_the_row_that_freed_it() -> None:
    far = NOON + 99 * HOUR
    events = [
        order(NOON, sku="MUG"),
        order(far, sku="X"),
        order(far, sku="A"),
        order(far, sku="B"),
        order(far, sku="C"),
    ]
    whole = pass_all(one := gate(), *events)
    counts = one.counts
    assert counts["parked"] == 3
    assert whole.batch.sku == ["MUG", "X", "A", "B", "C"]
    assert whole.batch.row.tolist() == [0, 4, 4, 4, 4]
    pass_all(parts := gate(), *events[:3])
    rest = pass_all(parts, *events[3:])
    assert (rest.batch.sku, rest.batch.row.tolist()) == (["X", "A", "B", "C"], [1, 1, 1, 1])
    assert parts.counts == counts


def test_a_tick_sets_a_parked_event_free() -> None:
    pass_all(intake := gate(), order(NOON), order(NOON + 99 * HOUR, sku="X"))
    assert len(intake.tick(NOON + 90 * HOUR).batch) == 0
    freed = intake.tick(NOON + 93 * HOUR)
    assert (freed.batch.sku, freed.batch.row.tolist(), intake.parked) == (["X"], [0], 0)


def test_a_duplicate_of_a_parked_event_counts_once() -> None:
    far = order(NOON + 99 * HOUR, sku="X")
    pass_all(intake := gate(), order(NOON), far, far)
    assert len(intake.tick(NOON + 99 * HOUR).batch) == 1
    assert intake.counts["duplicate"] == 1


def test_every_event_is_accepted_repeated_late_ahead_or_parked() -> None:
    rng = np.random.default_rng(5)
    intake, sent = gate(ahead_events=20), 0
    for _ in range(20):
        events = [
            cancel(NOON + int(rng.choice([0, MINUTE, -3 * HOUR, 7 * HOUR, 50 * HOUR])), sku=f"S{rng.integers(9)}")
            for _ in range(12)
        ]
        pass_all(intake, *events, *events[:2])
        sent += 14
    counts = intake.counts
    assert counts["late"] > 0
    assert counts["duplicate"] > 0
    assert counts["accepted"] + counts["duplicate"] + counts["late"] + counts["ahead"] + intake.parked == sent


def test_a_commit_holds_what_was_parked_or_set_free_since_the_one_before() -> None:
    far = [order(NOON + 99 * HOUR + n, sku="X") | {"note": "x" * 60_000} for n in range(1000)]
    intake = gate()
    pass_all(intake, order(NOON), *far[:999])
    first = dict(intake.changes())
    assert sum(key.startswith("parked/") for key in first) == 999
    assert max(len(value or b"") for value in first.values()) < 1 << 17  # a record of all of them is what Kafka refuses
    pass_all(intake, far[999])
    assert [key for key, _ in intake.changes() if key.startswith("parked/")] == ["parked/999"]
    intake.tick(NOON + 99 * HOUR)
    gone = {key: value for key, value in intake.changes() if key.startswith("parked/")}
    assert gone == {f"parked/{n}": None for n in range(1000)}


def test_what_is_parked_is_the_same_after_a_restore_at_any_commit() -> None:
    rng = np.random.default_rng(7)
    whole, restored = gate(ahead_events=20), gate(ahead_events=20)
    topic: dict[str, bytes] = {}
    for n in range(300):
        far = int(rng.choice([0, 0, 0, 7, 50])) * HOUR
        event = cancel(NOON + n * MINUTE + far, sku=f"S{rng.integers(9)}")
        one, other = (pass_all(intake, event, clock_ms=NOON + n * MINUTE) for intake in (whole, restored))
        assert [letter for _, letter in one.letters] == [letter for _, letter in other.letters]
        assert (one.batch.values, one.batch.keys) == (other.batch.values, other.batch.keys)
        if n % 3 or n % 7 == 1:
            for key, value in restored.changes():
                topic.pop(key, None)
                topic |= {} if value is None else {key: value}
        if n % 7 == 1:
            restored = gate(ahead_events=20)
            for key in sorted(topic, key=restore_order):
                restored.restore(key, topic[key])
        assert restored.parked == whole.parked
    assert whole.counts == restored.counts
