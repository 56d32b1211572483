"""The events of a whole shop in the order in which its shards apply them, for who belongs to no group.

In: every partition of the item topics and the calendar, from the first record on. Out: batches with their ticks.
Must not know: what is done with them. Rule: nothing is written and no offset committed; whoever starts again reads
again, from the first record that Kafka still has.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from streams.events import EventBatch
from streams.kafka.arrivals import ITEM_TOPICS, Arrivals
from streams.kafka.inbox import Inbox, hungry, take_next
from streams.kafka.settings import KafkaSettings, WorkerSettings
from streams.kafka.source import Place, Source
from streams.partition import Partitioner, PartitionerName

CALENDAR = "shop.calendar.v1"
WAIT_S = 0.2


class Follow:
    """Reads a shop.

    Parameters
    ----------
    kafka, worker
        Settings.
    partitioner
        How producers spread SKUs.
    """

    def __init__(self, kafka: KafkaSettings, worker: WorkerSettings, partitioner: PartitionerName) -> None:
        self.records = 0
        self.clock_ms = 0
        self._worker = worker
        self._source = Source(kafka, "follow")
        places: list[tuple[Place, bool]] = [((kafka.topic(CALENDAR), 0), True)]
        places += [((kafka.topic(topic), n), False) for topic in ITEM_TOPICS for n in range(kafka.partitions)]
        self._inboxes = {place: Inbox(*place, 0, first=first) for place, first in places}
        self._arrivals = Arrivals(Partitioner(partitioner, 1), 0)
        self._point()

    def _point(self) -> None:
        self._source.point({place: inbox.point() for place, inbox in self._inboxes.items()})

    def batches(self, now_ms: int) -> Iterator[EventBatch]:
        """Wait a little for records; those that can be applied now, in order.

        Raises
        ------
        streams.kafka.source.SourceError
            If Kafka refuses for good.
        """
        fetch = self._source.fetch(self._worker.chunk_rows, WAIT_S)
        for place, (_, first) in fetch.lost.items():
            self._inboxes[place].skip_to(first)
        if fetch.lost:
            self._point()
            return
        for chunk in fetch.chunks:
            self._inboxes[chunk.place].offer(chunk, now_ms)
        for place, offset in fetch.ends.items():
            self._inboxes[place].end(offset)
        boxes = list(self._inboxes.values())
        while slices := take_next(boxes, self._worker.chunk_rows):
            arrived = self._arrivals.decoded(slices, now_ms)
            for part in slices:
                self._inboxes[part.topic, part.partition].note(part)
                self.records += len(part)
            if len(arrived.batch):
                ticks = np.maximum(np.minimum(arrived.clock_ms, now_ms), self.clock_ms)
                arrived.batch.tick_ms = ticks // 1000 * 1000
                self.clock_ms = int(ticks[-1])
                yield arrived.batch
        self._rest()

    def _rest(self) -> None:
        """Fetch nothing of topics that are far ahead of those that others wait for."""
        boxes = list(self._inboxes.values())
        full = sum(box.size_bytes for box in boxes) > self._worker.max_buffered_bytes
        wanted = {(box.topic, box.partition) for box in hungry(boxes)}
        rest = [place for place in self._inboxes if full and place not in wanted]
        self._source.release([place for place in self._inboxes if place not in rest])
        self._source.hold(rest)

    @property
    def caught_up(self) -> bool:
        """Whether everything that had arrived was applied."""
        return all(inbox.at_end and not inbox.rows for inbox in self._inboxes.values())

    def close(self) -> None:
        """Let go of Kafka."""
        self._source.close()
