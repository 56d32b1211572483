"""Records of one output topic for one reader: committed ones only, and no offset before its record is finished with.

In: a topic, a group or none. Out: records, one at a time, in the order of each partition.
Must not know: what a record says. Rules: whatever Kafka does (a broker that goes and comes back, partitions that move
to other readers) records are repeated rather than lost; no wait is longer than the caller asked for.

kafka-python's consumer is used from one thread alone. Its own IO thread sends heartbeats and calls the listener.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.errors import IllegalStateError, KafkaError, RetriableError
from kafka.structs import MemberState, OffsetAndMetadata

from streams.kafka.connection import reach
from streams.kafka.settings import KafkaSettings

log = logging.getLogger("shelftide.subscribe")

Start = Literal["earliest", "latest"]
Record = Any
"""kafka-python's ConsumerRecord."""

POLL_S = 0.2
"""Longest single wait for records: between two a stop is noticed."""

RECORDS = 500
"""Records held at most."""

KEEP_ALIVE_S = 60.0
"""A slow reader shows Kafka this often that it lives; after 300 s of silence its partitions would go to others."""

SESSION_MS, HEARTBEAT_MS = 20_000, 1_000
"""Partitions of a reader that died go to others after the one; a reader learns of changes after the other."""

COMMIT_S = 1.0
"""Time between commits while records are waiting; before every wait for new ones there is one anyway."""

TIMEOUT_S = 5.0
"""How long a commit, a question for offsets or leaving may take; a commit that fails is tried again."""

JOIN_S = 10.0
"""Joining a group takes as long as its slowest member, and does no harm when it is begun again."""

STALL_S = 5.0
"""A scan that gets nothing for this long is over: the last records of a partition may be compacted away."""


_TAKEN_AWAY = (IllegalStateError, LookupError, ValueError)
"""What the client says of a partition that its own thread has just given up."""


class SubscribeError(Exception):
    """The topic is missing, or Kafka refuses; one sentence that says what to do."""

    wrong_input = False


@dataclass(slots=True)
class _Partition:
    """How far one partition is.

    Attributes
    ----------
    placed
        Whether the consumer reads where it shall.
    begin, scan_end
        First offset, and where the scan ends; None: not scanning.
    heard_s
        When the scan last got something.
    finished, committed
        Offsets after the last record that was finished with, and that was committed.
    """

    placed: bool = False
    begin: int = 0
    scan_end: int | None = None
    heard_s: float = 0.0
    finished: int | None = None
    committed: int | None = None


class _Changes(ConsumerRebalanceListener):  # type: ignore[misc]  # the client has no types
    """Counts changes of the assignment; called on the client's own thread."""

    def __init__(self) -> None:
        self.count = 0

    def on_partitions_revoked(self, revoked: object) -> None:
        self.count += 1

    def on_partitions_assigned(self, assigned: object) -> None:
        self.count += 1


class Reader:
    """Reads one topic.

    Parameters
    ----------
    kafka
        Where.
    topic
        Its name without the shop's prefix.
    group_id
        Readers of one group share the partitions and go on where the group was; None: read alone, and commit nothing.
    start
        Where a group that is new, or a reader without one, begins.
    scan
        If given, every partition that is new to this reader is read twice from its beginning: first every record up to
        its end goes here, then all of them are handed out.
    lost
        Told of partitions that went to other readers.
    connect_timeout_s
        How long Kafka may take to answer at first.
    keep_alive_s
        How often a slow reader shows Kafka that it lives.

    Raises
    ------
    UnreachableError
        If Kafka does not answer in time, or does not let us in.
    SubscribeError
        If there is no such topic.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        *,
        group_id: str | None,
        start: Start = "earliest",
        scan: Callable[[Record], None] | None = None,
        lost: Callable[[int], None] | None = None,
        connect_timeout_s: float = 30.0,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        reach(kafka, connect_timeout_s)
        self.commits_failed = 0
        self._topic = kafka.topic(topic)
        self._start, self._scan, self._lost, self._grouped = start, scan, lost, group_id is not None
        self._changes, self._seen_changes = _Changes(), 0
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._waiting: deque[Record] = deque()
        self._keep_alive_s = keep_alive_s
        self._polled_s = self._asked_s = self._joined_s = time.monotonic()
        self._asking = self._refused = False
        self._consumer = KafkaConsumer(
            **kafka.kafka_python(),
            group_id=group_id,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset=start,
            allow_auto_create_topics=False,
            max_poll_records=RECORDS,
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            reconnect_backoff_max_ms=1_000,
            bootstrap_timeout_ms=max(1, round(connect_timeout_s * 1000)),
        )
        self._begin(kafka.bootstrap_servers)

    def _begin(self, where: str) -> None:
        """Subscribe; then ask for the topics, which also tells the client how many partitions it is going to share."""
        if self._grouped:
            self._consumer.subscribe([self._topic], listener=self._changes)
        if self._topic not in self._consumer.topics():
            self._consumer.close(autocommit=False)
            raise SubscribeError(
                f"topic {self._topic!r} does not exist on {where}; create it with `shelftide topics apply`"
            )
        if not self._grouped:
            numbers = sorted(self._consumer.partitions_for_topic(self._topic))
            self._consumer.assign([TopicPartition(self._topic, number) for number in numbers])
            self._take_over()
            with suppress(RetriableError):  # then it is tried again with the first fetch
                self._place()

    def next(self, wait_s: float) -> Record | None:
        """Give the next record; None where none comes in time.

        Raises
        ------
        SubscribeError
            If Kafka refuses for good.
        """
        until_s = time.monotonic() + wait_s
        while True:
            if self._changes.count != self._seen_changes:
                self._take_over()
            elif self._waiting:
                if time.monotonic() - self._polled_s > self._keep_alive_s:
                    self._show_life()
                if self._changes.count == self._seen_changes:
                    return self._waiting.popleft()
            else:
                left_s = until_s - time.monotonic()
                self._fetch(max(0.0, min(left_s, POLL_S)))
                if left_s <= 0 and not self._waiting:
                    return None

    def finish(self, record: Record) -> None:
        """Take a record as done: its offset may be committed."""
        partition = self._partitions.get(TopicPartition(record.topic, record.partition))
        if partition is not None:
            partition.finished = record.offset + 1
        if time.monotonic() - self._asked_s > COMMIT_S:
            self._ask_to_commit()

    def put_back(self, record: Record) -> None:
        """Hand a record out once more, next."""
        self._waiting.appendleft(record)

    def commit(self) -> None:
        """Commit what is finished, and wait for it; what cannot be committed now is tried again later."""
        if due := self._due():
            try:
                self._consumer.commit(due, timeout_ms=TIMEOUT_S * 1000)
            except KafkaError as error:
                self._answered(due, error)
            else:
                self._answered(due, None)

    def close(self) -> None:
        """Commit what is finished, and leave."""
        self.commit()
        self._consumer.close(autocommit=False, timeout_ms=TIMEOUT_S * 1000)

    # -- offsets

    def _due(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """Offsets that are finished and not committed, of partitions that are still this reader's."""
        if not self._grouped:
            return {}
        here = self._consumer.assignment()
        return {
            place: OffsetAndMetadata(partition.finished, "", -1)
            for place, partition in self._partitions.items()
            if partition.finished not in (None, partition.committed) and place in here
        }

    def _ask_to_commit(self) -> None:
        """Commit without waiting: a broker that is away must hold nobody up. One request at a time."""
        pause_s = TIMEOUT_S if self._asking else COMMIT_S if self._refused else 0.0
        if time.monotonic() - self._asked_s < pause_s or not (due := self._due()):
            return
        self._asking, self._asked_s = True, time.monotonic()
        self._consumer.commit_async(due, callback=self._answered)

    def _answered(self, offsets: Mapping[TopicPartition, OffsetAndMetadata], answer: object) -> None:
        """Take the answer to a commit; the client calls this within a later poll, on the caller's thread."""
        self._asking = False
        told, self._refused = self._refused, isinstance(answer, Exception)
        if self._refused:
            self.commits_failed += 1
            if not told:
                log.warning("offsets of %s not committed, trying on: %r", self._topic, answer)
            return
        for place, offset in offsets.items():
            if place in self._partitions:
                self._partitions[place].committed = offset.offset

    # -- records

    def _fetch(self, wait_s: float) -> None:
        """Wait for records once; what Kafka cannot give now is waited for, and what it refuses for good is an error."""
        try:
            self._ask_to_commit()
            self._rejoin_if_stuck()
            self._place()
            self._sort_in(self._consumer.poll(timeout_ms=wait_s * 1000))
        except RetriableError as error:
            log.info("%s: %r", self._topic, error)
            time.sleep(min(wait_s, POLL_S))
        except _TAKEN_AWAY:
            self._seen_changes = -1
        except KafkaError as error:
            raise SubscribeError(f"cannot read {self._topic!r} ({type(error).__name__}: {error})") from error

    def _sort_in(self, polled: Mapping[TopicPartition, list[Record]]) -> None:
        """Hold records, or scan them where a scan is going on."""
        self._polled_s = time.monotonic()
        if self._changes.count != self._seen_changes:
            self._take_over()
            if self._scan is not None:
                return  # what was polled is not where a scan begins, and comes again
        for place, records in polled.items():
            partition = self._partitions.get(place)
            if partition is None:
                continue
            if partition.scan_end is None:
                self._waiting.extend(records)
            elif self._scan is not None:
                partition.heard_s = self._polled_s
                for record in records:
                    self._scan(record)
        self._end_scans()

    def _rejoin_if_stuck(self) -> None:
        """Leave the group and join it again if joining takes too long.

        kafka-python 3.0 may finish a join on its own thread and never look at the result: when a change of the topic's
        partitions began it, and the poll that began it gave up waiting. It would then hand out nothing any more.
        """
        if not self._grouped or self._consumer.group_metadata().state == MemberState.STABLE:
            self._joined_s = time.monotonic()
        elif time.monotonic() - self._joined_s > JOIN_S:
            log.warning("%s: joining the group took more than %g s, trying anew", self._topic, JOIN_S)
            self._consumer.unsubscribe()
            self._consumer.subscribe([self._topic], listener=self._changes)
            self._joined_s = time.monotonic()
            self._take_over()

    def _take_over(self) -> None:
        """Look at the assignment anew. What was held is fetched again: it may be another reader's by now."""
        self._seen_changes = self._changes.count
        here = self._consumer.assignment()
        self._waiting.clear()
        for place in [place for place in self._partitions if place not in here]:
            del self._partitions[place]
            if self._lost is not None:
                self._lost(place.partition)
        for place in here:
            known = self._partitions.get(place) if self._scan is not None else None
            self._partitions[place] = _Partition(finished=known.finished if known else None)

    def _place(self) -> None:
        """Set the consumer to where it shall read, in partitions where it is not yet."""
        for place, partition in self._partitions.items():
            if partition.placed:
                continue
            if self._scan is not None:
                self._place_scan(place, partition)
            elif not self._grouped:
                ask = self._consumer.end_offsets if self._start == "latest" else self._consumer.beginning_offsets
                self._consumer.seek(place, ask([place], timeout_ms=TIMEOUT_S * 1000)[place])
            partition.placed = True  # in a group without a scan the consumer goes on where the group was

    def _place_scan(self, place: TopicPartition, partition: _Partition) -> None:
        if partition.finished is not None:
            self._consumer.seek(place, partition.finished)
            return
        timeout_ms = TIMEOUT_S * 1000
        partition.begin = self._consumer.beginning_offsets([place], timeout_ms=timeout_ms)[place]
        end = self._consumer.end_offsets([place], timeout_ms=timeout_ms)[place]
        self._consumer.seek(place, partition.begin)
        partition.scan_end = end if end > partition.begin else None
        partition.heard_s = time.monotonic()

    def _end_scans(self) -> None:
        """Begin anew, now handing out, where a scan has come to its end."""
        for place, partition in self._partitions.items():
            if partition.scan_end is None:
                continue
            position = self._consumer.position(place, timeout_ms=POLL_S * 1000)
            stalled = time.monotonic() - partition.heard_s > STALL_S and self._consumer.highwater(place) is not None
            if stalled or (position is not None and position >= partition.scan_end):
                self._consumer.seek(place, partition.begin)
                partition.scan_end = None

    def _show_life(self) -> None:
        """Poll without taking records, since a reader that does not poll is taken for dead."""
        try:
            self._consumer.pause(*self._consumer.assignment())
            self._consumer.poll(timeout_ms=0)
        except RetriableError as error:
            log.info("%s: %r", self._topic, error)
        except _TAKEN_AWAY:
            self._seen_changes = -1
        finally:
            self._resume()
        self._polled_s = time.monotonic()

    def _resume(self) -> None:
        for place in self._consumer.assignment():
            with suppress(*_TAKEN_AWAY):
                self._consumer.resume(place)
