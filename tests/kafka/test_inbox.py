"""The order in which topics of a shard are applied, whatever the order in which they were fetched."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.inbox import Inbox, hungry, take_next
from streams.kafka.source import Chunk

TOPICS = ("prices", "orders", "clicks")


def chunk(topic: str, start: int, times: list[int], follows: int | None = None) -> Chunk:
    """Records of consecutive offsets with these timestamps; a value names topic and offset."""
    offsets = np.arange(start, start + len(times))
    values: list[bytes | None] = [f"{topic}-{offset}".encode() for offset in offsets.tolist()]
    place = (topic, 0)
    return Chunk(
        place, start if follows is None else follows, values, values, offsets, np.array(times), 10 * len(times)
    )


def fed(histories: list[list[int]], ends: bool = True) -> list[Inbox]:
    """An inbox per topic that holds a history, read to its end or not."""
    inboxes = [Inbox(topic, 0, 0) for topic in TOPICS]
    for inbox, times in zip(inboxes, histories, strict=True):
        if times:
            inbox.offer(chunk(inbox.topic, 0, times))
        if ends:
            inbox.end(len(times))
    return inboxes


def taken(inboxes: list[Inbox], rows: int = 1000) -> list[tuple[int, int, int]]:
    """(clock, topic, offset) of all records that can be applied, in the order of application."""
    out = []
    while slices := take_next(inboxes, rows):
        part = [
            (clock, TOPICS.index(s.topic), offset)
            for s in slices
            for clock, offset in zip(s.clock_ms.tolist(), s.offsets.tolist(), strict=True)
        ]
        out += sorted(part)
    return out


HISTORY = st.lists(st.integers(0, 30), max_size=12)


@given(histories=st.lists(HISTORY, min_size=3, max_size=3), rows=st.integers(1, 20))
def test_records_are_applied_by_clock_then_topic_then_offset_however_many_at_a_time(
    histories: list[list[int]], rows: int
) -> None:
    order = taken(fed(histories), rows)
    assert order == sorted(order)
    assert len(order) == sum(map(len, histories))


@given(histories=st.lists(HISTORY, min_size=3, max_size=3), data=st.data())
def test_how_records_are_fetched_does_not_change_the_order(histories: list[list[int]], data: st.DataObject) -> None:
    whole = taken(fed(histories))
    inboxes = [Inbox(topic, 0, 0) for topic in TOPICS]
    left = [list(enumerate(times)) for times in histories]
    order: list[tuple[int, int, int]] = []
    while any(left):
        at = data.draw(st.sampled_from([i for i, rest in enumerate(left) if rest]))
        count = data.draw(st.integers(1, len(left[at])))
        part, left[at] = left[at][:count], left[at][count:]
        inboxes[at].offer(chunk(TOPICS[at], part[0][0], [time for _, time in part]))
        for inbox, rest, times in zip(inboxes, left, histories, strict=True):
            if not rest:
                inbox.end(len(times))
        order += taken(inboxes)
    for inbox, times in zip(inboxes, histories, strict=True):
        inbox.end(len(times))
    order += taken(inboxes)
    assert order == whole


def test_a_topic_that_has_more_to_give_is_waited_for_unless_for_too_long() -> None:
    prices, orders, clicks = inboxes = fed([[], [5], []], ends=False)
    clicks.end(0)
    assert hungry(inboxes) == [prices]
    assert take_next(inboxes, 10) == []
    assert [len(part) for part in take_next(inboxes, 10, wait=False)] == [1]
    assert orders.rows == 0


def test_records_taken_in_before_are_left_out_and_a_missing_chunk_shows() -> None:
    inbox = Inbox("orders", 0, 2)
    assert inbox.offer(chunk("orders", 0, [1, 2, 3, 4], follows=0))
    assert (inbox.rows, inbox.next) == (2, 4)
    assert not inbox.offer(chunk("orders", 9, [9], follows=8))
    assert inbox.offer(chunk("orders", 9, [9], follows=4))  # a gap of compacted records
    assert (inbox.rows, inbox.next) == (3, 10)


def test_the_end_shows_only_when_nothing_is_on_its_way() -> None:
    inbox = Inbox("orders", 0, 0)
    assert not inbox.at_end
    inbox.end(0)
    assert inbox.at_end
    inbox.expected = 3
    assert not inbox.at_end
    inbox.offer(chunk("orders", 0, [1, 2, 3]))
    inbox.end(4)  # a commit marker lies behind the last record
    assert inbox.at_end
    inbox.point()
    assert not inbox.at_end


def test_a_clock_never_goes_back_within_a_topic() -> None:
    inbox = Inbox("orders", 0, 0)
    inbox.offer(chunk("orders", 0, [7, 3]))
    inbox.offer(chunk("orders", 2, [5, 9]))
    inbox.end(4)
    assert [s.clock_ms.tolist() for s in take_next([inbox], 10)] == [[7, 7], [7, 9]]


def test_a_topic_that_comes_first_comes_before_older_records() -> None:
    calendar, orders = Inbox("calendar", 0, 0, first=True), Inbox("orders", 0, 0)
    calendar.offer(chunk("calendar", 0, [100]))
    orders.offer(chunk("orders", 0, [1]))
    for inbox in (calendar, orders):
        inbox.end(1)
    assert next(s.topic for s in take_next([calendar, orders], 1)) == "calendar"


def test_a_timestamp_ahead_of_the_machine_does_not_put_its_topic_behind_the_others() -> None:
    inboxes = [Inbox(topic, 0, 0) for topic in TOPICS]
    prices, orders, _ = inboxes
    prices.offer(chunk("prices", 0, [10, 1_000_000]), 10)
    prices.offer(chunk("prices", 2, [12]), 12)
    orders.offer(chunk("orders", 0, [11, 13]), 13)
    for inbox, count in zip(inboxes, (3, 2, 0), strict=True):
        inbox.end(count)
    assert taken(inboxes) == [(10, 0, 0), (10, 0, 1), (11, 1, 0), (12, 0, 2), (13, 1, 1)]
