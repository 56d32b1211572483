"""What a worker has committed, read from its state topic as a new owner would read it.

In: the state topic. Out: how much was written, how much of it still counts, and the units in all panes.
Must not know: the worker. Rule: aborted transactions do not count, and the newest record of a key wins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from streams.engine import Engine, EngineConfig
from streams.panes import UNIT

OWN = "offsets"
"""Records of the shell, not of the engine."""


@dataclass
class Committed:
    """Live records per shard, and what it took to write them."""

    shards: dict[int, dict[str, bytes]] = field(default_factory=dict)
    written_bytes: int = 0
    written: int = 0

    @property
    def live_bytes(self) -> int:
        """Bytes of the records that a new owner needs."""
        return sum(len(key) + len(value) for shard in self.shards.values() for key, value in shard.items())

    def by_kind(self) -> dict[str, int]:
        """Live bytes by the first part of the key, the largest first."""
        out: dict[str, int] = {}
        for shard in self.shards.values():
            for key, value in shard.items():
                kind = key.partition("/")[0]
                out[kind] = out.get(kind, 0) + len(key) + len(value)
        return dict(sorted(out.items(), key=lambda item: -item[1]))


def committed(bootstrap: str, topic: str, partitions: int) -> Committed:
    """Read the state topic to its end."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "nobody", "isolation.level": "read_committed",
         "enable.partition.eof": True, "enable.auto.commit": False}
    )  # fmt: skip
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)])
    found = Committed(shards={number: {} for number in range(partitions)})
    ended: set[int] = set()
    while len(ended) < partitions:
        for message in consumer.consume(1000, 5):
            number = message.partition() or 0
            error = message.error()
            if error is None:
                _take(found, found.shards[number], message.key(), message.value())
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(number)
            else:
                raise SystemExit(f"{topic!r} cannot be read: {error}")
    consumer.close()
    return found


def _take(found: Committed, shard: dict[str, bytes], key: Any, value: Any) -> None:
    name = (key or b"").decode()
    found.written += 1
    found.written_bytes += len(key or b"") + len(value or b"")
    if value is None:
        shard.pop(name, None)
    else:
        shard[name] = value


def units(config: EngineConfig, shards: list[dict[str, bytes]]) -> tuple[float, float]:
    """Units ordered and their revenue, over all panes of restored engines.

    Closed buckets lie in the ring, the open ones of each zone in the integer sums.
    """
    quantity = revenue = 0.0
    for records in shards:
        engine = Engine(config)
        engine.restore({key: value for key, value in records.items() if key.partition("/")[0] != OWN})
        live = engine.series.live()
        panes, width = engine.panes, config.panes.open_buckets
        for number, state in enumerate(engine.buckets.zones):
            own = engine.buckets.in_zone(live, number)
            quantity += float(panes.channel("units", own, state.open).sum(dtype=np.float64))
            revenue += float(panes.channel("revenue", own, state.open).sum(dtype=np.float64))
            # A bucket that is closed and not final has its sums in both; it was counted above.
            beyond = [bucket % width for bucket in range(state.open, state.final + width)]
            quantity += float(panes.open["units"][own][:, beyond].sum()) / UNIT
            revenue += float(panes.open["revenue"][own][:, beyond].sum()) / 10_000
    return quantity, revenue
