"""Records at a steady rate from a process of its own: each has a moment at which it is meant to be sent.

In: a `Plan`. Out: records on the input topics; how late each was sent.
Must not know: workers. Rule: open loop: nobody's slowness moves the moment at which a record is meant to be sent, and
latencies are taken from that moment, so that none is omitted because the sender had to wait (coordinated omission).

Event times run beside the moments: from `base_ms`, `speed` ms a ms, and by leaps where the plan says so. Kafka's
timestamps are the moments on the machine's clock.
"""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any

import numpy as np
from confluent_kafka import Producer

from load_tests.kafka.assortment import CLICKS, ORDERS, PRICES, STOCK, Assortment, Made, usual
from streams.kafka.settings import KafkaSettings

KINDS = (CLICKS, ORDERS, PRICES, STOCK)
SHARES = (0.70, 0.25, 0.02, 0.03)
"""Of what is sent: a shop's visitors look more often than they buy."""

STEP_S = 0.001
"""Between two looks at the clock."""
LEAD_S = 0.3
"""From the moment that the process is up to the first record."""
BLOCK = 20_000
"""Records that are drawn at once."""
JITTER_MS = 2_000
"""Event times are out of order by as much at most: less than the watermark's bound."""

_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Probe:
    """A record that is to be sent at a moment, in seconds after the start."""

    at_s: float
    made: Made


@dataclass(frozen=True)
class Plan:
    """What is sent when.

    Attributes
    ----------
    kafka
        Where.
    items
        How many; each is drawn as often as any other.
    rate
        Records a second, probes aside.
    base_ms, speed
        Event time at the start, and ms of it per ms.
    leaps
        Moments at which event time leaps to a value, in order: seconds after the start, epoch ms.
    probes
        In the order of their moments.
    name
        Head of event ids: two feeds of one application need two.
    """

    kafka: KafkaSettings
    items: int
    rate: float
    base_ms: int
    speed: float = 1.0
    leaps: tuple[tuple[float, int], ...] = ()
    probes: tuple[Probe, ...] = ()
    name: str = "f"
    seed: int = 1

    def event_ms(self, at_s: float) -> int:
        """Event time at a moment."""
        since_s, base_ms = 0.0, self.base_ms
        for leap_s, to_ms in self.leaps:
            if leap_s > at_s:
                break
            since_s, base_ms = leap_s, to_ms
        return base_ms + int((at_s - since_s) * 1000 * self.speed)


@dataclass
class Sent:
    """What became of a plan.

    Attributes
    ----------
    records
        Sent, probes included.
    late_ms
        How long after its moment a record was given to the client, at most; and for a probe.
    refused
        Records that Kafka did not take.
    """

    records: int = 0
    late_ms: float = 0.0
    probe_late_ms: float = 0.0
    refused: int = 0
    by_topic: dict[str, int] = field(default_factory=dict)


class Feed:
    """A process that carries out a plan.

    Parameters
    ----------
    plan
        What is sent when.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.began_s = 0.0  # of time.monotonic, which all processes of a machine share
        self._over = _SPAWN.Event()
        self._count: Any = _SPAWN.Value(ctypes.c_int64, 0, lock=False)
        self._mine, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_carry_out, args=(plan, theirs, self._over, self._count), daemon=True)

    def start(self, timeout_s: float = 60) -> float:
        """Begin; the moment 0 on the monotonic clock comes back."""
        self._process.start()
        if not self._mine.poll(timeout_s):
            raise SystemExit("the process that sends records has not come up")
        self.began_s = self._mine.recv()
        return self.began_s

    @property
    def records(self) -> int:
        """Sent so far."""
        return int(self._count.value)

    @property
    def at_s(self) -> float:
        """The moment that it is now."""
        return time.monotonic() - self.began_s

    def wait_until(self, at_s: float, meanwhile: Callable[[], None] = lambda: None, every_s: float = 0.1) -> None:
        """Let time pass up to a moment."""
        while (left_s := at_s - self.at_s) > 0:
            if not self._process.is_alive():
                raise SystemExit("the process that sends records has ended too early")
            meanwhile()
            time.sleep(max(0.0, min(left_s, every_s)))

    def stop(self, timeout_s: float = 60) -> Sent:
        """Send nothing more, and wait until all lies on its topics."""
        self._over.set()
        if not self._mine.poll(timeout_s):
            raise SystemExit("the process that sends records does not end")
        sent: Sent = self._mine.recv()
        self._process.join(timeout_s)
        return sent


def _carry_out(plan: Plan, tell: Connection, over: Event, count: Any) -> None:
    sender = _Sender(plan)
    sender.draw()
    began_s = time.monotonic() + LEAD_S
    sender.wall_ms = time.time() * 1000 + LEAD_S * 1000
    tell.send(began_s)
    while not over.is_set():
        at_s = time.monotonic() - began_s
        if at_s > 0:
            sender.send_until(at_s, lambda: time.monotonic() - began_s)
            count.value = sender.sent.records
        sender.producer.poll(0)
        time.sleep(STEP_S)
    sender.sent.refused += sender.producer.flush(30)
    tell.send(sender.sent)


class _Sender:
    """Sends what is due."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.sent = plan, Sent()
        self.shop = Assortment(plan.items, plan.kafka.partitions)
        self.producer = Producer({
            **plan.kafka.librdkafka(), "linger.ms": 5, "compression.type": "lz4", "enable.idempotence": True,
            "log_level": 0, "queue.buffering.max.messages": 1_000_000, "delivery.report.only.error": True,
            "on_delivery": self._refused,
        })  # fmt: skip
        self.wall_ms = 0.0
        self._names = [plan.kafka.topic(topic) for topic in KINDS]
        self._rng = np.random.default_rng(plan.seed)
        self._next = self._first = 0
        self._kinds: list[int] = []
        self._items: list[int] = []
        self._probe = 0
        self._id = plan.name.encode()

    def _refused(self, *_: object) -> None:
        self.sent.refused += 1

    def draw(self) -> None:
        """Draw what the next records are."""
        self._first = self._next
        self._kinds = self._rng.choice(len(KINDS), BLOCK, p=SHARES).tolist()
        self._items = self._rng.integers(0, self.plan.items, BLOCK).tolist()

    def send_until(self, at_s: float, now_s: Callable[[], float]) -> None:
        """Send everything that is meant to be sent by then: probes and leaps where they belong."""
        cuts = [leap_s for leap_s, _ in self.plan.leaps if self._next / self.plan.rate < leap_s <= at_s]
        while self._probe < len(self.plan.probes) and (probe := self.plan.probes[self._probe]).at_s <= at_s:
            for cut in [cut for cut in cuts if cut < probe.at_s]:
                self._send_rows(cut, now_s)
            self._send_rows(probe.at_s, now_s)
            self._give(self.plan.kafka.topic(probe.made.topic), probe.made, probe.at_s)
            self.sent.probe_late_ms = max(self.sent.probe_late_ms, (now_s() - probe.at_s) * 1000)
            self._probe += 1
        for cut in cuts:
            self._send_rows(cut, now_s)
        self._send_rows(at_s, now_s)

    def _give(self, topic: str, made: Made, at_s: float) -> None:
        self._produce(topic, made.value, made.key, made.partition, int(self.wall_ms + at_s * 1000))
        self.sent.records += 1

    def _produce(self, topic: str, value: bytes, key: bytes, partition: int, stamp_ms: int) -> None:
        while True:
            try:
                self.producer.produce(topic, value, key, partition, timestamp=stamp_ms)
                return
            except BufferError:
                self.producer.poll(0.05)

    def _send_rows(self, at_s: float, now_s: Callable[[], float]) -> None:
        """Send the rows that are meant to be sent before a moment."""
        rate, stop = self.plan.rate, math.ceil(at_s * self.plan.rate - 1e-6)
        if stop > self._next:
            self.sent.late_ms = max(self.sent.late_ms, (now_s() - self._next / rate) * 1000)
        while self._next < stop:
            if self._next >= self._first + BLOCK:
                self.draw()
            end = min(stop, self._first + BLOCK)
            self._send_block(self._next, end)
            self.sent.records += end - self._next
            self._next = end

    def _send_block(self, start: int, stop: int) -> None:
        shop, names, produce = self.shop, self._names, self._produce
        at_s = start / self.plan.rate
        event_ms, stamp_ms = self.plan.event_ms(at_s), int(self.wall_ms + at_s * 1000)
        for row in range(start, stop):
            kind, item = self._kinds[row - self._first], self._items[row - self._first]
            number, at_ms = b"%b%d" % (self._id, row), event_ms - row * 7_919 % JITTER_MS
            if kind == 0:
                value = shop.view(number, at_ms, item, row % 50_000)
            elif kind == 1:
                value = shop.order(number, at_ms, item)
            elif kind == 2:
                item &= ~1  # prices of items of odd numbers are left to probes
                value = shop.priced(number, event_ms, item, usual(shop.price(item), row))
            else:
                value = shop.counted(number, event_ms, item)
            produce(names[kind], value, shop.skus[item], shop.homes[item], stamp_ms)
