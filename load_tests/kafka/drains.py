"""Consumers without an engine: they read records and drop them. The yardstick of all engines.

In: a topic with a known number of records. Out: JSON with rate, CPU and memory.
Must not know: engines. Rule: the clock starts at the end of the first batch, which is not counted.

Run: ``python -m load_tests.kafka.drains aiokafka|librdkafka`` with BOOTSTRAP, TOPIC, GROUP, TOTAL and RESULT set.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from load_tests.kafka.processes import rss_bytes


class Meter:
    """Counts records, and knows the rate and the CPU from the end of the first batch to the last record."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.count = self._first = 0
        self._start = self._half = self._end = (0, 0.0, 0.0)

    def tick(self, count: int) -> bool:
        """Count a batch; say whether it was the last."""
        self.count += count
        now = (self.count, time.perf_counter(), time.process_time())
        if not self._start[0]:
            self._start = now
        if not self._half[0] and self.count * 2 >= self.total:
            self._half = now
        self._end = now
        return self.count >= self.total

    def result(self) -> dict[str, float | None]:
        """What was measured."""
        (first, t0, cpu0), (half, t1, _), (last, t2, cpu2) = self._start, self._half, self._end
        counted = last - first
        if counted * 2 < self.total:
            counted, half = 0, last  # most came at once: a rate of the rest would say nothing
        return {
            "rate": counted / (t2 - t0) if counted else None,
            "rate_2nd_half": (last - half) / (t2 - t1) if last > half else None,
            "cpu_us": (cpu2 - cpu0) / counted * 1e6 if counted else None,
            "rss_mib": rss_bytes(os.getpid(), peak=True) / 2**20,
        }


async def _aiokafka(bootstrap: str, topic: str, group: str, tick: Callable[[int], bool]) -> None:
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest")
    await consumer.start()
    done = False
    while not done:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            done = tick(len(records)) or done
    await consumer.stop()


def aiokafka(bootstrap: str, topic: str, group: str, tick: Callable[[int], bool]) -> None:
    """Read by aiokafka's `getmany` with its defaults."""
    asyncio.run(_aiokafka(bootstrap, topic, group, tick))


def librdkafka(bootstrap: str, topic: str, group: str, tick: Callable[[int], bool]) -> None:
    """Read by confluent-kafka's `consume`; by default it rests for a second whenever its queue was full."""
    from confluent_kafka import Consumer

    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
         "fetch.queue.backoff.ms": 5}
    )  # fmt: skip
    consumer.subscribe([topic])
    done = False
    while not done:
        if messages := consumer.consume(10_000, 0.2):
            done = tick(len(messages))
    consumer.close()


def main() -> None:
    """Drain the topic that the environment names, and write what it took."""
    drain = {"aiokafka": aiokafka, "librdkafka": librdkafka}[sys.argv[1]]
    bootstrap, topic, group, total, result = (os.environ[k] for k in ("BOOTSTRAP", "TOPIC", "GROUP", "TOTAL", "RESULT"))
    meter = Meter(int(total))
    drain(bootstrap, topic, group, meter.tick)
    Path(result).write_text(json.dumps(meter.result()), encoding="utf-8")


if __name__ == "__main__":
    main()
