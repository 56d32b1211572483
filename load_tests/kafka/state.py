"""What a worker has committed, read from its state topic as a new owner would read it.

In: the state topic. Out: how far it has come, how much was written for it, and the units in all panes.
Must not know: the worker. Rule: aborted transactions do not count, and the newest record of a key wins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from streams.engine import Engine, EngineConfig
from streams.kafka.ledger import OFFSETS_KEY, positions_of
from streams.panes import MONEY, UNIT

SHELL = OFFSETS_KEY.partition("/")[0] + "/"
"""Head of the keys that are the shell's, not the engine's."""

PASSING = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._RESOLVE)
"""The broker is away for a while."""


class StateTopic:
    """The state of all shards as committed so far, followed from the first record on.

    Attributes
    ----------
    shards
        Live records of each shard.
    written, written_bytes, commits
        Records, their bytes and transactions so far.
    on_commit
        Called with a shard after each of its commits; its live records are then those of that commit.
    """

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self.shards: dict[int, dict[str, bytes]] = {number: {} for number in range(partitions)}
        self.written = self.written_bytes = self.commits = 0
        self.on_commit: Callable[[int], None] = lambda shard: None
        self._topic = topic
        self._ended: set[int] = set()
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "nobody", "isolation.level": "read_committed",
             "enable.partition.eof": True, "enable.auto.commit": False, "fetch.wait.max.ms": 20,
             "log_level": 0, "fetch.message.max.bytes": 16 << 20, "receive.message.max.bytes": (64 << 20) + 4096}
        )  # fmt: skip
        self._consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)])

    def poll(self, timeout_s: float) -> None:
        """Take in what was committed since."""
        for message in self._consumer.consume(1000, timeout_s):
            number, error = message.partition() or 0, message.error()
            if error is None:
                self._ended.discard(number)
                self._take(self.shards[number], message.key(), message.value())
                if message.key() == OFFSETS_KEY.encode():  # the last record of a shard's state in a transaction
                    self.on_commit(number)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ended.add(number)
            elif error.code() not in PASSING:
                raise SystemExit(f"{self._topic!r} cannot be read: {error}")

    def settle(self) -> None:
        """Take in more until no transaction is known in part: each shard was read to an end."""
        while len(self._ended) < len(self.shards):
            self.poll(0.02)

    def read(self) -> None:
        """Take in everything up to the end of the topic."""
        self._ended.clear()
        while len(self._ended) < len(self.shards):
            self.poll(0.1)

    def _take(self, shard: dict[str, bytes], key: Any, value: Any) -> None:
        name = (key or b"").decode()
        self.written += 1
        self.written_bytes += len(key or b"") + len(value or b"")
        self.commits += name == OFFSETS_KEY
        if value is None:
            shard.pop(name, None)
        else:
            shard[name] = value

    def committed(self, topic: str) -> int:
        """Records of a topic that committed state contains, by its shell's name without the prefix."""
        positions = (positions_of(shard) for shard in self.shards.values())
        return sum(position.offsets.get(topic, 0) for position in positions if position is not None)

    @property
    def live_bytes(self) -> int:
        """Bytes of the records that a new owner needs."""
        return sum(self.live_by_kind().values())

    def live_by_kind(self) -> dict[str, int]:
        """Live bytes by the first part of the key, the largest first."""
        out: dict[str, int] = {}
        for shard in self.shards.values():
            for key, value in shard.items():
                kind = key.partition("/")[0]
                out[kind] = out.get(kind, 0) + len(key) + len(value)
        return dict(sorted(out.items(), key=lambda item: -item[1]))

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()


def units(config: EngineConfig, shards: list[dict[str, bytes]]) -> tuple[float, float]:
    """Units ordered and their revenue, over all panes of restored engines.

    Closed buckets lie in the ring, the open ones of each zone in the integer sums.
    """
    quantity = revenue = 0.0
    for records in shards:
        engine = Engine(config)
        engine.restore({key: value for key, value in records.items() if not key.startswith(SHELL)})
        live = engine.series.live()
        panes, width = engine.panes, config.panes.open_buckets
        for number, state in enumerate(engine.buckets.zones):
            own = engine.buckets.in_zone(live, number)
            quantity += float(panes.channel("units", own, state.open).sum(dtype=np.float64))
            revenue += float(panes.channel("revenue", own, state.open).sum(dtype=np.float64))
            # A bucket that is closed and not final has its sums in both; it was counted above.
            beyond = [bucket % width for bucket in range(state.open, state.final + width)]
            quantity += float(panes.open["units"][own][:, beyond].sum()) / UNIT
            revenue += float(panes.open["revenue"][own][:, beyond].sum()) / MONEY
    return quantity, revenue
