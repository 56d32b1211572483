"""A shop's records sent to Kafka while workers come and go: orders, clicks, prices, stock, and what goes wrong in them.

In: a seed, a rate. Out: records on the input topics, from a thread of its own.
Must not know: workers, engines. Rule: what a record is, its id says, so that an oracle can judge it without the engine:
`n-…` counts once however often it comes, `late-…` is hopelessly late, all else is no event of its partition.

The records' timestamps are event time (`record`), or the machine's clock (`wall`), which event time then stays near.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Literal

from confluent_kafka import KafkaError, Producer

from streams.kafka.settings import KafkaSettings
from streams.partition import murmur2_partition

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START_MS = 20_000 * DAY_MS + 9 * HOUR_MS  # 2024-10-04 09:00 UTC
STEP_MS = 600
"""Event time between records where it runs with them: a thousand records are ten minutes, an hour's bucket 6,000."""

SLOW_STEP_MS = 60
"""The same where the broker is away: its producer makes up for that topic by topic, and what comes behind others by
more than two hours of event time is rightly late."""


PAST_STEP_MS = 4_000
"""The same in a past that lies there before anybody reads: a day is 21,600 records, and what comes again does so within
half an hour. While workers come and go it would be too fast: a topic fetched two seconds after others is late then."""

PAST_RECORDS = 30_000
"""Of a past after which forecasts of most series rest on a history of their own, and are learned from: 33 hours."""

JITTER_MS = 4 * 60_000
"""Events are so far out of order at most: less than the watermark's bound, so that none is late by it."""

BACK_MS, AHEAD_MS = 15 * 60_000, 50 * 60_000
"""With the machine's clock, event time begins so far behind it and ends so far ahead, where an hour is believed: on its
way buckets close and series are refreshed."""

WARM = 3_000
"""Records before the first late one: by then every shard knows the time."""

RECENT, REMEMBERED = 400, 20_000
"""Records that may come again, within minutes of event time, and orders that may be cancelled, within half a day."""

Clock = Literal["record", "wall"]

_TERMS = '"locations":{"default":{"lead_time_days":{"mean":2,"p90":4},"moq":6,"pack_size":3}}'
_NORTH = ',"location":"north"'


@dataclass(frozen=True, slots=True)
class Made:
    """One record to be sent; `topic` is without the prefix."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    stamp_ms: int


class Shop:
    """Makes records without end.

    Parameters
    ----------
    seed
        Of everything that is random.
    clock
        What event time runs with.
    partitions
        Of the item topics.
    step_ms
        Event time between records, where it runs with them.
    skus
        Number of items.
    past
        Records of a past, with `PAST_STEP_MS` between them, where event time runs with them.
    """

    def __init__(
        self, seed: int, clock: Clock, partitions: int, step_ms: int = STEP_MS, skus: int = 120, past: int = 0
    ) -> None:
        self.past = past
        self._step_ms = step_ms
        self._random = Random(seed)
        self._clock, self._partitions, self._skus = clock, partitions, skus
        self._homes = [murmur2_partition(f"sku-{n}".encode(), partitions) for n in range(skus)]
        self._began_ms = START_MS if clock == "record" else time.time_ns() // 1_000_000 - BACK_MS
        self._prices = [round(self._random.uniform(3, 90), 2) for _ in range(skus)]
        self._orders: deque[tuple[int, str, int]] = deque(maxlen=REMEMBERED)
        self._recent: deque[Made] = deque(maxlen=RECENT)
        self._made = 0

    @property
    def now_ms(self) -> int:
        """Event time of the newest record, before it is put out of order."""
        past = min(self._made, self.past)
        at_ms = self._began_ms + past * PAST_STEP_MS + (self._made - past) * self._step_ms
        return at_ms if self._clock == "record" else min(at_ms, time.time_ns() // 1_000_000 + AHEAD_MS)

    def records(self) -> Iterator[Made]:
        """Descriptions of all items, then everything mixed."""
        for sku in range(self._skus):
            title = f'"title":"thing {sku}","category":"c{sku % 5}","unit_cost":1.5,"cost_currency":"EUR"'
            yield self._event("shop.catalog.v1", "item_described", sku, f"{title},{_TERMS}")
        while True:
            made = self._next()
            self._recent.append(made)
            yield made

    def _next(self) -> Made:
        dice, sku = self._random.random(), self._random.randrange(self._skus)
        if dice < 0.012 and self._recent:
            return self._again()
        if dice < 0.0135 and self._made > WARM:
            return self._late(sku)
        if dice < 0.0145:
            return self._broken(sku)
        if dice < 0.5:
            return self._order(sku)
        if dice < 0.86:
            return self._click(sku)
        return self._price(sku) if dice < 0.94 else self._stock(sku)

    def _event(self, topic: str, kind: str, sku: int, rest: str, *, back_ms: int = 0, name: str = "n") -> Made:
        """An event of a series of its item."""
        return self._of_series(topic, kind, sku, _NORTH if self._random.random() < 0.2 else "", rest, back_ms, name)

    def _of_series(self, topic: str, kind: str, sku: int, place: str, rest: str, back_ms: int, name: str) -> Made:
        self._made += 1
        time_ms = self.now_ms - self._random.randrange(JITTER_MS) - back_ms
        head = f'"type":"{kind}","event_id":"{name}-{self._made}","event_time":{time_ms},"sku":"sku-{sku}"'
        if kind == "order_placed" and name == "n":
            self._orders.append((sku, place, time_ms))
        value = f"{{{head}{place},{rest}}}".encode()
        return Made(topic, self._homes[sku], f"sku-{sku}".encode(), value, self._stamp_ms)

    @property
    def _stamp_ms(self) -> int:
        return self.now_ms if self._clock == "record" else time.time_ns() // 1_000_000

    def _order(self, sku: int, *, back_ms: int = 0, name: str = "n") -> Made:
        dice = self._random.random()
        quantity = self._random.randrange(1, 9) / (1 if self._random.random() < 0.8 else 4)
        rest = f'"order_id":"o{self._made}","quantity":{quantity}'
        if dice < 0.8 or name != "n" or not self._orders:
            rest += f',"unit_price":{self._prices[sku]},"currency":"EUR"'
            return self._event("shop.orders.v1", "order_placed", sku, rest, back_ms=back_ms, name=name)
        if dice < 0.95:
            return self._cancelled(rest)
        return self._event("shop.orders.v1", "order_returned", sku, rest)

    def _cancelled(self, rest: str) -> Made:
        """A cancellation in the series of its order, which names the order's time, or does not."""
        sku, place, time_ms = self._random.choice(self._orders)
        if self._random.random() < 0.7:
            rest += f',"original_time":{time_ms}'
        return self._of_series("shop.orders.v1", "order_cancelled", sku, place, rest, 0, "n")

    def _click(self, sku: int) -> Made:
        kind = "item_viewed" if self._random.random() < 0.75 else "cart_added"
        return self._event("shop.clicks.v1", kind, sku, f'"session_id":"s{self._random.randrange(500)}"')

    def _price(self, sku: int) -> Made:
        """The usual price, now and then a wrong one, which is corrected when it is published next."""
        price = self._prices[sku]
        if self._random.random() < 0.01:
            price = self._random.choice([0.0, round(price / 100, 4), price * 100])
        rest = f'"price":{price},"currency":"EUR","channel":"web"'
        return self._event("shop.prices.v1", "price_set", sku, rest)

    def _stock(self, sku: int) -> Made:
        return self._event("shop.stock.v1", "stock_counted", sku, f'"on_hand":{self._random.randrange(200)}')

    def _again(self) -> Made:
        """What a producer that retries sends twice."""
        one = self._random.choice(self._recent)
        self._made += 1
        return Made(one.topic, one.partition, one.key, one.value, self._stamp_ms)

    def _late(self, sku: int) -> Made:
        return self._order(sku, back_ms=self._random.randrange(12, 40) * HOUR_MS, name="late")

    def _broken(self, sku: int) -> Made:
        """A record that is cut short, or lies in the partition of another shard."""
        made = self._order(sku, name="lost")
        if self._random.random() < 0.5 or self._partitions == 1:
            return Made(made.topic, made.partition, made.key, made.value[:-9], made.stamp_ms)
        other = (made.partition + self._random.randrange(1, self._partitions)) % self._partitions
        return Made(made.topic, other, made.key, made.value, made.stamp_ms)


class Load(threading.Thread):
    """Sends a shop's past at once, then its records at a rate until told to stop; a broker that is away makes it wait.

    Attributes
    ----------
    sent, refused
        Records given to the client, and those of them that it gave up.
    """

    def __init__(self, kafka: KafkaSettings, shop: Shop, rate: float) -> None:
        super().__init__(name="load", daemon=True)
        self.rate = rate
        self.sent = self.refused = 0
        self.error: BaseException | None = None
        self._kafka, self._records, self._past = kafka, shop.records(), shop.past
        self._over = threading.Event()
        self._paused = threading.Event()
        self._producer = Producer({
            **kafka.librdkafka(), "enable.idempotence": True, "linger.ms": 5, "compression.codec": "lz4",
            "delivery.timeout.ms": 300_000, "reconnect.backoff.max.ms": 500, "log_level": 0,
            "queue.buffering.max.messages": 100_000, "delivery.report.only.error": True, "on_delivery": self._reported,
        })  # fmt: skip

    def _reported(self, error: KafkaError | None, _: object) -> None:
        self.refused += error is not None

    def run(self) -> None:
        """Send."""
        try:
            for made in islice(self._records, self._past):
                self._send(made)
            began_s, owed = time.monotonic(), 0.0
            while not self._over.is_set():
                now_s = time.monotonic()
                owed, began_s = min(owed + (now_s - began_s) * self.rate, self.rate), now_s
                while owed >= 1 and not self._over.is_set() and not self._paused.is_set():
                    self._send(next(self._records))
                    owed -= 1
                self._producer.poll(0)
                self._over.wait(0.01)
        except BaseException as error:
            self.error = error

    def _send(self, made: Made) -> None:
        topic = self._kafka.topic(made.topic)
        while not self._over.is_set():
            try:
                self._producer.produce(topic, made.value, made.key, made.partition, timestamp=made.stamp_ms)
                self.sent += 1
                return
            except BufferError:
                self._producer.poll(0.05)

    def pause(self) -> None:
        """Send nothing for a while."""
        self._paused.set()

    def go_on(self) -> None:
        """Send again."""
        self._paused.clear()

    def stop(self, timeout_s: float = 60) -> None:
        """Send nothing more, and wait until all that was sent lies on its topics."""
        self._over.set()
        if self.is_alive():
            self.join(timeout_s)
        if self.error is not None:
            raise self.error
        if left := self._producer.flush(timeout_s):
            raise TimeoutError(f"{left} records were not written within {timeout_s:g} s")
