"""The one input of every engine: order events of 10,000 items, the same on every machine.

In: how many records over how many days. Out: records in a topic, and the sums an engine must arrive at.
Must not know: engines. Rule: the records are those of the contract, and a longer input begins like a shorter one only
where both are cut from the same orders.

Popularity falls like 1/rank^0.9, event times are up to five minutes out of order, one record of 100,000 is broken. A
record's timestamp is a clock that runs with the event times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streams.partition import Partitioner

SKUS = 10_000
DISORDER_MS = 300_000
START_MS = 1_767_225_600_000  # 2026-01-01T00:00Z
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
BROKEN_EVERY, BROKEN_BYTES = 100_000, 90

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Orders:
    """Columns of order events, in order of arrival."""

    sku: Ints
    time_ms: Ints
    quantity: Ints
    cents: Ints

    def first(self, records: int) -> Orders:
        """The first records of these."""
        return Orders(*(column[:records] for column in (self.sku, self.time_ms, self.quantity, self.cents)))

    def __len__(self) -> int:
        return len(self.sku)

    @property
    def broken(self) -> npt.NDArray[np.bool_]:
        """Which of them cannot be read."""
        every = min(BROKEN_EVERY, max(2, len(self)))  # one at least, however few there are
        bad: npt.NDArray[np.bool_] = np.arange(len(self)) % every == every // 2
        return bad

    @property
    def stamp_ms(self) -> Ints:
        """The clock when each arrived: the newest event time so far."""
        return np.maximum.accumulate(self.time_ms)

    def expected(self) -> dict[str, float]:
        """Sums over the readable ones; ``windows`` are those of an item and an hour."""
        fine = ~self.broken
        quantity, cents = self.quantity[fine], self.cents[fine]
        windows = self.sku[fine] * 10_000_000 + self.time_ms[fine] // HOUR_MS
        return {
            "valid": int(fine.sum()),
            "quantity": int(quantity.sum()),
            "revenue": float((quantity * cents).sum()) / 100,
            "windows": len(np.unique(windows)),
        }


def orders(records: int, days: float = 30) -> Orders:
    """Orders spread evenly over some days."""
    rng = np.random.default_rng(7)
    weight = 1.0 / np.arange(1, SKUS + 1) ** 0.9
    sku = rng.choice(SKUS, records, p=weight / weight.sum())
    span_ms = int(days * DAY_MS) - DISORDER_MS
    time_ms = START_MS + DISORDER_MS + np.arange(records) * span_ms // records
    time_ms -= rng.integers(0, DISORDER_MS, records)
    return Orders(sku, time_ms, rng.integers(1, 9, records), rng.integers(100, 9900, records))


def sku_name(number: int) -> str:
    """The SKU of a number."""
    return f"SKU-{number:06d}"


def values(made: Orders) -> Iterator[bytes]:
    """The records as bytes."""
    columns = zip(
        *(column.tolist() for column in (made.sku, made.time_ms, made.quantity, made.cents, made.broken)), strict=True
    )
    for n, (sku, time_ms, quantity, cents, broken) in enumerate(columns):
        value = (
            f'{{"type":"order_placed","event_id":"{(n * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF:016x}",'
            f'"event_time":{time_ms},"sku":"{sku_name(sku)}","location":"default","order_id":"A{n // 3:07d}",'
            f'"quantity":{quantity},"unit_price":{cents / 100},"currency":"GBP"}}'
        ).encode()
        yield value[:BROKEN_BYTES] if broken else value


def produce(bootstrap: str, topic: str, made: Orders, partitions: int = 4) -> float:
    """Send records to a topic, keyed by SKU and spread by murmur2; their mean size in bytes comes back."""
    names = [sku_name(n) for n in range(SKUS)]
    keys = [name.encode() for name in names]
    lies_in = Partitioner("murmur2", partitions).of(names).tolist()
    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 50, "compression.type": "none", "enable.idempotence": True,
         "queue.buffering.max.messages": 500_000}
    )  # fmt: skip
    total = 0
    for value, sku, stamp_ms in zip(values(made), made.sku.tolist(), made.stamp_ms.tolist(), strict=True):
        total += len(value)
        while True:
            try:
                producer.produce(topic, value, keys[sku], lies_in[sku], timestamp=stamp_ms)
                break
            except BufferError:
                producer.poll(0.05)
    if left := producer.flush(60):
        raise SystemExit(f"{left} of {len(made)} records did not reach {topic!r} within 60 s; look at the broker's log")
    return total / len(made)


def create_topic(bootstrap: str, topic: str, partitions: int = 4) -> None:
    """Create a topic that keeps its records, however old they are, where it does not exist."""
    admin = _admin(bootstrap)
    if topic not in admin.list_topics(timeout=30).topics:
        made = admin.create_topics([NewTopic(topic, partitions, 1, config={"retention.ms": "-1"})])
        made[topic].result(30)


def delete_topics(bootstrap: str, topics: list[str]) -> None:
    """Delete topics; those that do not exist are passed over."""
    admin = _admin(bootstrap)
    there = [topic for topic in topics if topic in admin.list_topics(timeout=30).topics]
    for future in admin.delete_topics(there, operation_timeout=30).values() if there else ():
        future.result(30)


def _admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 3})  # it warns of what it had left to say
