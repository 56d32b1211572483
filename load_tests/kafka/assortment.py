"""A shop with as many items as wanted: its records, one at a time, and weeks of its past at once.

In: how many items on how many partitions. Out: records as bytes; topics that hold a past.
Must not know: workers, rates. Rule: of an item everything is known by its number: price, daily sales, stock.

Of 100 items four have stock for two days, so that a trigger is open for them, four for two weeks, which is little cover
without a trigger, all others for four months.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import Producer

from streams.kafka.settings import KafkaSettings
from streams.partition import Partitioner

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
LEAST_A_DAY = 2_000
"""Orders a day and partition: so many that a source never seems silent for ten minutes."""

ORDERS, CLICKS, PRICES, STOCK, CATALOG = (
    "shop.orders.v1", "shop.clicks.v1", "shop.prices.v1", "shop.stock.v1", "shop.catalog.v1",
)  # fmt: skip
CURRENCY = "GBP"

LOW, LITTLE = 4, 8
"""Items of which the last two digits lie below: stock for two days, for two weeks."""
LOW_DAYS, LITTLE_DAYS, PLENTY_DAYS = 2, 14, 120

_ORDER = b"""{"type":"order_placed","event_id":"%b","event_time":%d,"sku":"%b","order_id":"o%b","quantity":%b,\
"unit_price":%.2f,"currency":"GBP"}"""
_VIEW = b"""{"type":"item_viewed","event_id":"%b","event_time":%d,"sku":"%b","session_id":"s%d"}"""
_PRICE = b"""{"type":"price_set","event_id":"%b","event_time":%d,"sku":"%b","price":%.2f,"currency":"GBP",\
"channel":"web"}"""
_STOCK = b"""{"type":"stock_counted","event_id":"%b","event_time":%d,"sku":"%b","on_hand":%d}"""
_ITEM = b"""{"type":"item_described","event_id":"%b","event_time":%d,"sku":"%b","title":"Item %d of many",\
"category":"c%d","unit_cost":%.2f,"cost_currency":"GBP"}"""


@dataclass(frozen=True, slots=True)
class Made:
    """One record to be sent; `topic` is without the prefix."""

    topic: str
    partition: int
    key: bytes
    value: bytes


class Assortment:
    """Items by number, from 0.

    Examples
    --------
    >>> shop = Assortment(200, partitions=4)
    >>> shop.skus[7], shop.daily(7), shop.on_hand(7), shop.on_hand(103)
    (b'SKU-0000007', 3, 42, 8)
    """

    def __init__(self, items: int, partitions: int) -> None:
        names = [f"SKU-{number:07d}" for number in range(items)]
        self.items, self.partitions = items, partitions
        self.skus = [name.encode() for name in names]
        self.homes: list[int] = Partitioner("murmur2", partitions).of(names).tolist()

    def daily(self, item: int) -> int:
        """Units that it sells a day."""
        return 1 + item % 5

    def price(self, item: int) -> float:
        """Its usual price: never a placeholder, never tenfold another's fault."""
        return 5.37 + item * 37 % 8_000 / 100

    def on_hand(self, item: int) -> int:
        """Its stock at the end of the past."""
        last = item % 100
        days = LOW_DAYS if last < LOW else LITTLE_DAYS if last < LITTLE else PLENTY_DAYS
        return self.daily(item) * days

    def urgent(self, item: int) -> bool:
        """Whether it has little cover."""
        return item % 100 < LITTLE

    # -- records

    def order(self, number: bytes, at_ms: int, item: int, quantity: bytes = b"1") -> bytes:
        """An order."""
        return _ORDER % (number, at_ms, self.skus[item], number, quantity, self.price(item))

    def view(self, number: bytes, at_ms: int, item: int, session: int) -> bytes:
        """A visitor who looks."""
        return _VIEW % (number, at_ms, self.skus[item], session)

    def priced(self, number: bytes, at_ms: int, item: int, price: float) -> bytes:
        """A price."""
        return _PRICE % (number, at_ms, self.skus[item], price)

    def counted(self, number: bytes, at_ms: int, item: int) -> bytes:
        """Its stock, as it was at the end of the past."""
        return _STOCK % (number, at_ms, self.skus[item], self.on_hand(item))

    def made(self, topic: str, item: int, value: bytes) -> Made:
        """A record where it belongs."""
        return Made(topic, self.homes[item], self.skus[item], value)

    def one_of(self, partition: int) -> int:
        """The first item of a partition."""
        return self.homes.index(partition)

    # -- the past

    def past(self, end_ms: int, days: int, prices: int) -> Iterator[tuple[Made, float]]:
        """Orders of each item and day, then descriptions, prices, and stock at the end.

        Parameters
        ----------
        end_ms
            Event time of the end; the last day is the one in which it lies, up to it.
        prices
            Prices per item, within the last day.

        Yields
        ------
        A record, and the share of the past that is over with it.
        """
        today_ms = end_ms // DAY_MS * DAY_MS
        start_ms = today_ms - days * DAY_MS
        turns = -(-LEAST_A_DAY * self.partitions // self.items)  # orders of an item a day
        rows = self.items * turns
        for row in range(days * rows + (end_ms - today_ms) * rows // DAY_MS):
            day, item = row // rows, row % self.items
            whole = row % rows < self.items  # further orders of a day are there to be heard of
            quantity = b"%d" % (self.daily(item) + (item + day) % 2) if whole else b"0.01"
            at_ms = start_ms + row * DAY_MS // rows
            yield (
                self.made(ORDERS, item, self.order(b"h%d" % row, at_ms, item, quantity)),
                self._over(at_ms, start_ms, end_ms),
            )
        for item in range(self.items):
            cost = self.price(item) / 2
            value = _ITEM % (b"d%d" % item, start_ms, self.skus[item], item, item % 40, cost)
            yield self.made(CATALOG, item, value), 1.0
        for turn in range(prices):
            for item in range(self.items):
                value = self.priced(b"p%d-%d" % (turn, item), today_ms + turn, item, usual(self.price(item), turn))
                yield self.made(PRICES, item, value), 1.0
        for item in range(self.items):
            yield self.made(STOCK, item, self.counted(b"s%d" % item, end_ms, item)), 1.0

    def _over(self, at_ms: int, start_ms: int, end_ms: int) -> float:
        return (at_ms - start_ms) / (end_ms - start_ms)


def usual(price: float, turn: int) -> float:
    """A usual price moves a little; this is its value at its nth change."""
    return round(price * (1, 1.04, 0.97, 1.02)[turn % 4], 2)


def send_past(kafka: KafkaSettings, shop: Assortment, end_ms: int, days: int, prices: int = 0) -> int:
    """Write a shop's past to its topics; the number of records comes back.

    Records are stamped with their event times at first, with the time of writing at last, and evenly in between: a
    worker whose clock is the machine's would take a source for silent that leaves out ten minutes, and go by its clock.
    """
    # Without idempotence a batch that is tried again comes behind those after it, hours late by its time.
    producer = Producer({**kafka.librdkafka(), "linger.ms": 50, "compression.type": "lz4", "enable.idempotence": True,
                         "queue.buffering.max.messages": 500_000, "log_level": 0})  # fmt: skip
    names = {topic: kafka.topic(topic) for topic in (ORDERS, CLICKS, PRICES, STOCK, CATALOG)}
    start_ms, now_ms, count = end_ms // DAY_MS * DAY_MS - days * DAY_MS, time.time_ns() // 1_000_000, 0
    for made, over in shop.past(end_ms, days, prices):
        stamp_ms = start_ms + int((now_ms - start_ms) * over)
        while True:
            try:
                producer.produce(names[made.topic], made.value, made.key, made.partition, timestamp=stamp_ms)
                break
            except BufferError:
                producer.poll(0.05)
        count += 1
    if left := producer.flush(60):
        raise SystemExit(f"{left} of {count} records were not written within 60 s; look at the broker's log")
    return count
