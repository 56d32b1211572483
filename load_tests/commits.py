"""What commits of state write and how long they and a restart take, by CPU time.

    python -m load_tests.commits [--json] [--only commits,restore] [--series N] [--events N] [--small]

commits  one shard of 25,000 series with orders, clicks, prices and stock, 500 events and one commit a second: bytes (as
         they are, and by zstd as a producer packs them) and milliseconds of a commit, by day, after midnight while
         late events still correct the day that has closed, and of the one commit in which a day closes
restore  seconds to restore 100,000 series with full rings in four engines, and to read and write their records
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import zstandard

from load_tests.engine import cpu, machine
from streams.decode import decode
from streams.engine import Engine
from streams.engine_config import EngineConfig
from streams.state import CYCLE, Record

DAY_MS = 86_400_000
START_MS = 17_000 * DAY_MS
CLOCK_MS = START_MS + 400 * DAY_MS
ENGINES = 4
RING_DAYS = 86

_ORDER = b"""{"type":"order_placed","event_id":"%d","event_time":%d,"sku":"SKU-%06d","order_id":"o%d","quantity":%d,\
"unit_price":9.99,"currency":"EUR"}"""
_CANCEL = b"""{"type":"order_cancelled","event_id":"%d","event_time":%d,"sku":"SKU-%06d","order_id":"o%d","quantity":1,\
"unit_price":9.99,"currency":"EUR","original_time":%d}"""
_VIEW = b"""{"type":"item_viewed","event_id":"%d","event_time":%d,"sku":"SKU-%06d","session_id":"s%d"}"""
_PRICE = b"""{"type":"price_set","event_id":"%d","event_time":%d,"sku":"SKU-%06d","price":%.2f,"currency":"EUR"}"""
_STOCK = b"""{"type":"stock_counted","event_id":"%d","event_time":%d,"sku":"SKU-%06d","on_hand":%d}"""
_ITEM = b"""{"type":"item_described","event_id":"%d","event_time":%d,"sku":"SKU-%06d","title":"Item %d of many",\
"category":"c%d","unit_cost":4.5,"cost_currency":"EUR"}"""


class Shop:
    """A random shop: items sell unevenly, and one event in fifty is up to an hour and a half late."""

    def __init__(self, series: int, seed: int = 1) -> None:
        self.series = series
        self.engine = Engine(EngineConfig(max_series=series))
        self._rng = np.random.default_rng(seed)
        weight = 1 / np.arange(1, series + 1) ** 0.7
        self._share = np.cumsum(self._rng.permutation(weight / weight.sum()))
        self._next = 0

    def take(self, records: list[bytes], tick_ms: int) -> None:
        """Give records to the engine at one instant of the clock."""
        batch, _ = decode(records, clock_ms=CLOCK_MS)
        batch.tick_ms[:] = tick_ms
        self.engine.process(batch)

    def describe(self, at_ms: int) -> None:
        """Make every item known, with a stock and a price."""
        for start in range(0, self.series, 5000):
            some = range(start, min(start + 5000, self.series))
            made = [_ITEM % (self._id(), at_ms, n, n, n % 40) for n in some]
            made += [_PRICE % (self._id(), at_ms, n, 1 + n % 50) for n in some]
            made += [_STOCK % (self._id(), at_ms, n, 500) for n in some]
            self.take(made, at_ms)

    def events(self, count: int, at_ms: int, span_ms: int) -> list[bytes]:
        """Events of a span of time as they arrive; of 100: 60 views, 30 orders, 5 prices, 4 counts, 1 cancellation."""
        items = np.searchsorted(self._share, self._rng.random(count)).clip(0, self.series - 1)
        times = at_ms + np.arange(count) * span_ms // count
        times -= (self._rng.random(count) < 0.02) * self._rng.integers(0, 90 * 60_000, count)
        kinds = self._rng.integers(0, 100, count)
        return [self._event(*row) for row in zip(kinds.tolist(), times.tolist(), items.tolist(), strict=True)]

    def _event(self, kind: int, at_ms: int, item: int) -> bytes:
        number = self._id()
        if kind < 60:
            return _VIEW % (number, at_ms, item, number % 5000)
        if kind < 90:
            return _ORDER % (number, at_ms, item, number, 1 + number % 4)
        if kind < 95:
            return _PRICE % (number, at_ms, item, (1 + item % 50) * (1 - 0.1 * (number % 7 == 0)))
        if kind < 99:
            return _STOCK % (number, at_ms, item, number % 300)
        return _CANCEL % (number, at_ms, item, number, at_ms - number % 5 * DAY_MS)

    def _id(self) -> int:
        self._next += 1
        return self._next

    def days(self, first: int, last: int, events: int) -> None:
        """Play whole days, without commits."""
        for day in range(first, last):
            for part in range(12):
                at_ms = START_MS + day * DAY_MS + part * DAY_MS // 12
                self.take(self.events(events // 12, at_ms, DAY_MS // 12), at_ms + DAY_MS // 12)


def sizes(records: list[Record]) -> tuple[int, int]:
    """Bytes of records as they are, and packed together."""
    joined = b"".join(key.encode() + (value or b"") for key, value in records)
    return len(joined), len(zstandard.compress(joined, 3))


def by_kind(records: list[Record]) -> dict[str, int]:
    """Bytes by the first part of the key, the largest first."""
    found: Counter[str] = Counter()
    for key, value in records:
        found[key.partition("/")[0]] += len(key) + len(value or b"")
    return dict(found.most_common(6))


def seconds(shop: Shop, begin_ms: int, count: int, events: int) -> dict[str, Any]:
    """Commit once a second for a while."""
    took, written, rows = [], [], list[Record]()
    for second in range(count):
        at_ms = begin_ms + second * 1000
        shop.take(shop.events(events, at_ms, 1000), at_ms + 1000)
        began = time.process_time()
        records = list(shop.engine.changes())
        took.append((time.process_time() - began) * 1000)
        written.append(sizes(records))
        rows += records
    plain, packed = np.array(written).T
    return {
        "commits": count,
        "bytes": round(float(np.mean(plain))),
        "bytes_max": int(plain.max()),
        "zstd_bytes": round(float(np.mean(packed))),
        "ms": round(float(np.median(took)), 2),
        "ms_max": round(max(took), 2),
        "records": round(len(rows) / count, 1),
        "bytes_by_kind": {kind: round(size / count) for kind, size in by_kind(rows).items()},
    }


def commits(series: int, events: int, small: bool) -> dict[str, Any]:
    """Bytes and milliseconds of a commit."""
    shop, days, count = Shop(series), 3 if small else 10, 5 if small else 300
    shop.describe(START_MS)
    shop.days(0, days, 3 * series)
    whole, topic = sizes(list(shop.engine.changes())), dict[str, bytes | None]()
    midnight_ms = START_MS + (days + 1) * DAY_MS
    by_day = seconds(shop, midnight_ms - 10 * 3_600_000, count, events)
    shop.take(shop.events(series, midnight_ms - 5 * 3_600_000, 5 * 3_600_000 - 1000), midnight_ms)
    topic.update(shop.engine.changes())
    return {
        "series": series,
        "events_a_commit": events,
        "first": {"bytes": whole[0], "zstd_bytes": whole[1]},
        "by_day": by_day,
        "close": closing(shop, midnight_ms, events),
        "after_midnight": seconds(shop, midnight_ms + 20 * 60_000, count, events),
    }


def closing(shop: Shop, midnight_ms: int, events: int) -> dict[str, Any]:
    """The commit in which a day closes."""
    before = shop.engine.counts["closes"]
    shop.take(shop.events(events, midnight_ms + 6 * 60_000, 1000), midnight_ms + 7 * 60_000)
    shop.take(shop.events(events, midnight_ms + 7 * 60_000, 1000), midnight_ms + 8 * 60_000)
    assert shop.engine.counts["closes"] > before
    began = time.process_time()
    records = list(shop.engine.changes())
    took = (time.process_time() - began) * 1000
    plain, packed = sizes(records)
    return {"bytes": plain, "zstd_bytes": packed, "ms": round(took, 1), "bytes_by_kind": by_kind(records)}


def restore(series: int, events: int, small: bool) -> dict[str, Any]:
    """Seconds to restore four engines."""
    shop, topic = Shop(series), dict[str, bytes | None]()
    shop.describe(START_MS)
    days = 4 if small else RING_DAYS
    for day in range(days):
        shop.days(day, day + 1, 2 * series)
        topic.update(shop.engine.changes())
    for second in range(5 if small else CYCLE + 20):  # the large changes of whole days are out of the deltas again
        at_ms = START_MS + days * DAY_MS + 12 * 3_600_000 + 1000 * second
        shop.take(shop.events(events, at_ms, 1000), at_ms)
        topic.update(shop.engine.changes())
    live = {key: value for key, value in topic.items() if value is not None}
    plain, packed = sizes(list(live.items()))
    engines = [Engine(EngineConfig(max_series=series)) for _ in range(ENGINES)]
    each = [cpu(partial(engine.restore, live)) for engine in engines]
    return {
        "series": ENGINES * series,
        "engines": ENGINES,
        "days": days,
        "records": ENGINES * len(live),
        "bytes": ENGINES * plain,
        "zstd_bytes": ENGINES * packed,
        "restore_s": round(sum(each), 2),
        "bytes_by_kind": by_kind(list(live.items())),
        "records_by_kind": dict(Counter(key.partition("/")[0] for key in live).most_common(6)),
    }


PARTS: dict[str, Callable[[int, int, bool], dict[str, Any]]] = {"commits": commits, "restore": restore}


def main() -> None:
    """Run the parts asked for and print them."""
    parser = argparse.ArgumentParser(description="bytes and time of commits and of a restart")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--series", type=int, default=25_000)
    parser.add_argument("--events", type=int, default=500)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--small", action="store_true", help="seconds instead of minutes: shows that it works")
    args = parser.parse_args()
    series = min(args.series, 600) if args.small else args.series
    found: dict[str, Any] = {"machine": machine()}
    for name, part in _chosen(args.only):
        found[name] = part(series, args.events, args.small)
        if not args.json:
            print(f"{name}: {json.dumps(found[name])}", flush=True)
    if args.json:
        print(json.dumps(found, indent=1))


def _chosen(names: str) -> Iterator[tuple[str, Callable[[int, int, bool], dict[str, Any]]]]:
    return ((name, PARTS[name]) for name in names.split(","))


if __name__ == "__main__":
    main()
