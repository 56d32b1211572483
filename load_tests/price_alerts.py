"""Price alerts alone: published prices of a file through shards and coordinator, timed, with the alerts written out.

    python -m load_tests.price_alerts EVENTS.jsonl --out alerts.jsonl [--shards 4] [--chunk 5000] [--json]

In: JSON lines of `price_set` events in order of arrival, as `eval/alerts.py make` writes them.
Out: alerts as JSON lines, and on standard output CPU time per price, counts, and the wait from event to alert, measured
on event time with a tick a second as a live shell gives them.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from streams.alert_book import AlertOutput
from streams.coordinator import Coordinator
from streams.price_alerts import Candidate, LineContext, PriceAlerts
from streams.price_lines import PriceRows
from streams.price_rules import CERTAIN, PriceAlertConfig

TICK_MS = 1_000
_SETTLED_MS = 60_000  # ticks after which nothing waits any more


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("events", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--chunk", type=int, default=5_000)
    parser.add_argument("--max-lines", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with args.events.open("rb") as lines:
        events = [orjson.loads(line) for line in lines]
    result, alerts = run(events, args.shards, args.chunk, args.max_lines)
    args.out.write_bytes(b"".join(alert + b"\n" for alert in alerts))
    print(json.dumps(result) if args.json else "\n".join(f"{name}: {value}" for name, value in result.items()))


def run(events: list[dict[str, Any]], shards: int, chunk: int, max_lines: int) -> tuple[dict[str, Any], list[bytes]]:
    """Play the events; give figures and the alerts' JSON in order."""
    parts = [PriceAlerts(PriceAlertConfig(), max_lines) for _ in range(shards)]
    clock = _Clock(Coordinator())
    judged_s = decided_s = 0.0
    candidates: Counter[str] = Counter()
    for first in range(0, len(events), chunk):
        by_shard = _rows(events[first : first + chunk], shards)
        began = time.process_time()
        found = [c for part, rows in zip(parts, by_shard, strict=True) for c in part.process(rows, _unknown)]
        judged = time.process_time()
        found.sort(key=lambda candidate: candidate.tick_ms)
        for candidate in found:
            clock.offer(candidate)
        judged_s, decided_s = judged_s + judged - began, decided_s + time.process_time() - judged
        candidates.update(f"{candidate.action} {candidate.kind}" for candidate in found)
    clock.advance(clock.now_ms + _SETTLED_MS)
    lines = sum(len(part.lines) for part in parts)
    result = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}",
        "prices": len(events), "lines": lines, "shards": shards, "chunk": chunk,
        "judge_us_per_price": round(1e6 * judged_s / len(events), 2),
        "decide_us_per_candidate": round(1e6 * decided_s / max(1, sum(candidates.values())), 1),
        "bytes_per_line": parts[0].lines.row_bytes,
        "candidates": dict(sorted(candidates.items())),
        "wait_ms_certain": _spread(clock.certain_ms),
        "wait_ms_other": _spread(clock.alone_ms),
        "wait_ms_grouped": _spread(clock.grouped_ms),
        "counters": dict(sum((Counter(part.counters) for part in parts), Counter())),
        "open_at_end": len(clock.coordinator),
    }  # fmt: skip
    return result, clock.alerts


class _Clock:
    """Ticks of a live shell around a coordinator, and how long each alert was in coming."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self.now_ms = 0
        self.alerts: list[bytes] = []
        self.certain_ms: list[int] = []
        self.alone_ms: list[int] = []
        self.grouped_ms: list[int] = []

    def offer(self, candidate: Candidate) -> None:
        self.advance(candidate.tick_ms)
        self._take(self.coordinator.offer(candidate))

    def advance(self, until_ms: int) -> None:
        first = self.now_ms - self.now_ms % TICK_MS + TICK_MS
        for tick_ms in range(first, min(until_ms, self.now_ms + _SETTLED_MS) + 1, TICK_MS):
            self.now_ms = tick_ms
            self._take(self.coordinator.tick(tick_ms))
        self.now_ms = max(self.now_ms, until_ms)

    def _take(self, outputs: list[AlertOutput]) -> None:
        for output in outputs:
            self.alerts.append(output.value)
            body = orjson.loads(output.value)
            if body["status"] == "firing":
                waits = self.certain_ms if body["kind"] in CERTAIN else self.alone_ms
                (self.grouped_ms if "items" in body else waits).append(self.now_ms - body["event_time"])


def _rows(events: list[dict[str, Any]], shards: int) -> Iterator[PriceRows]:
    parts: list[list[tuple[str, str, str, float, str, bool, int, int, str, int, int]]] = [[] for _ in range(shards)]
    for e in events:
        ms = e["event_time"]
        row = (
            e["sku"],
            e["location"],
            e["channel"],
            e["price"],
            e["currency"],
            e["promo"],
            ms,
            ms,
            e["event_id"],
            -1,
            -1,
        )
        parts[zlib.crc32(e["sku"].encode()) % shards].append(row)
    return map(PriceRows.of, parts)


def _unknown(sku: str, location: str) -> LineContext:
    return LineContext()


def _spread(waits: list[int]) -> dict[str, float]:
    if not waits:
        return {}
    levels = np.quantile(waits, [0.5, 0.9, 0.99, 1.0]).round().tolist()
    return {"n": len(waits), **dict(zip(("p50", "p90", "p99", "max"), levels, strict=True))}


if __name__ == "__main__":
    main()
