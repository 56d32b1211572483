"""The state topic as it lies there: how much of it is live, and how far each shard has come.

In: Kafka, read only. Out: `StateSize`, `Position`s.
Must not know: what a state record means. Rule: nobody is fenced; what is too large to be read is not read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from streams.kafka.ledger import OFFSETS_KEY, STATE_TOPIC, Position, positions_of
from streams.kafka.offsets import Offsets
from streams.kafka.reread import Reread
from streams.kafka.settings import MIB, KafkaSettings

MOST_BYTES = 512 * MIB
"""A topic up to this size on disk is read whole; of a larger one the ends alone."""

TAIL = 20_000
"""Records at the end of a partition among which the newest offsets are looked for: more than a large commit has."""


@dataclass(slots=True)
class StateSize:
    """What one partition of the state topic holds.

    Attributes
    ----------
    records, size_bytes
        All that were read, keys and values.
    live_records, live_bytes
        Of these, the newest of each key that is not deleted: what a new owner needs.
    position
        What the state stands for; None where nothing was committed.
    """

    records: int = 0
    size_bytes: int = 0
    live_records: int = 0
    live_bytes: int = 0
    position: Position | None = None
    _live: dict[bytes, int] = field(default_factory=dict, repr=False)

    def take(self, key: bytes, value: bytes | None) -> None:
        """Read a record."""
        self.records += 1
        self.size_bytes += len(key) + len(value or b"")
        before = self._live.pop(key, 0)
        self.live_bytes -= before
        if value is not None:
            self._live[key] = len(key) + len(value)
            self.live_bytes += self._live[key]
        self.live_records = len(self._live)
        if key == OFFSETS_KEY.encode() and value is not None:
            self.position = positions_of({OFFSETS_KEY: value})


def state_sizes(kafka: KafkaSettings, timeout_s: float, *, whole: bool) -> list[StateSize]:
    """Every partition of the state topic: the shards, then the coordinator.

    Parameters
    ----------
    whole
        Read all of it; otherwise the ends, which tell positions but no sizes.

    Raises
    ------
    streams.kafka.source.SourceError
        If it cannot be read.
    """
    topic = kafka.topic(STATE_TOPIC)
    places = [(topic, partition) for partition in range(kafka.partitions + 1)]
    offsets, reread = Offsets(kafka), Reread(kafka, [topic], timeout_s)
    begins, ends = offsets.beginnings(places, timeout_s), offsets.ends(places, timeout_s)
    found = [StateSize() for _ in places]
    try:
        spans = {at: (begins[at] if whole else max(begins[at], ends[at] - TAIL), ends[at]) for at in places}
        for message in reread.read(spans):
            found[message.partition() or 0].take(message.key() or b"", message.value())
    finally:
        reread.close()
    return found
