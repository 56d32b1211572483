"""CPU time of decoding: bytes to columns, per event, for chunks of several kinds.

In: the number of events per chunk and repeats. Out: a table, or JSON with ``--json``.
Must not know: anything but `streams.decode`. Rule: the figure is the median of CPU seconds of this process.

Run: ``python -m load_tests.decode``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from streams.decode import decode

CLOCK_MS = 1_700_100_000_000
_START_MS = 1_700_000_000_000


def main() -> None:
    """Measure each mix of records and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000, help="records per chunk")
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    figures = {name: _measure(make(options.events), options.repeats) for name, make in MIXES.items()}
    if options.json:
        print(json.dumps({"machine": _machine(), "events": options.events, "us_per_event": figures}))
        return
    print(_machine())
    for name, (median, best) in figures.items():
        print(f"{name:28s} {median:6.2f} µs an event (best {best:.2f}), {1 / median:5.2f} M events/s")


def _measure(records: list[bytes], repeats: int) -> tuple[float, float]:
    decode(records, clock_ms=CLOCK_MS)
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        decode(records, clock_ms=CLOCK_MS)
        seconds.append(time.process_time() - start)
    per_event = [1e6 * spent / len(records) for spent in seconds]
    return round(statistics.median(per_event), 3), round(min(per_event), 3)


def _flows(n: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    skus = rng.zipf(1.3, n) % 5_000
    records = []
    for i, sku in enumerate(skus.tolist()):
        event: dict[str, object] = {"event_id": f"e-{i:09d}", "event_time": _START_MS + i, "sku": f"SKU-{sku:05d}"}
        if i % 2:
            event |= {"type": "order_placed", "order_id": f"o-{i // 3:08d}", "quantity": 1 + i % 7}
            event |= {"unit_price": 9.99, "currency": "GBP", "channel": "web", "location": "london"}
        else:
            event |= {"type": "item_viewed", "session_id": f"s-{i // 5:08d}"}
        records.append(json.dumps(event).encode())
    return records


def _one_bad(n: int) -> list[bytes]:
    records = _flows(n)
    records[n // 2] = b'{"type":"order_placed"'
    return records


def _all_bad(n: int) -> list[bytes]:
    return [record.replace(b'"sku"', b'"item"') for record in _flows(n)]


def _written_times(n: int) -> list[bytes]:
    return [record.replace(b"17000000", b'"2023-11-14T22:13:20+00:00","was":17000000') for record in _flows(n)]


def _prices(n: int) -> list[bytes]:
    return [
        record.replace(b'"order_placed"', b'"price_set"').replace(b'"unit_price"', b'"price"')
        for record in _flows(2 * n)
    ][1::2]


def _umlauts(n: int) -> list[bytes]:
    return [record.replace(b"SKU-", "ÄÖ°-".encode()) for record in _flows(n)]


MIXES: dict[str, Callable[[int], list[bytes]]] = {
    "orders and clicks": _flows,
    "one bad record": _one_bad,
    "every record bad": _all_bad,
    "times as RFC 3339": _written_times,
    "SKUs beyond ASCII": _umlauts,
    "prices": _prices,
}


def _machine() -> str:
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}"


if __name__ == "__main__":
    main()
