"""Speed and memory of the engine in one process, by CPU seconds.

    python -m load_tests.engine [--json] [--events N] [--only throughput,scale,memory,year] [--small]

throughput  bytes -> decoded -> deduplicated -> panes, one core, orders and clicks, 10,000 series
scale       the same at 1,000,000 series against 10,000: cost per event as a ratio of the same run
memory      bytes per series with full rings, measured as resident memory, beside the arithmetic of the arrays
year        the UCI year converted and replayed, every live item forecast and scored at each day's end (needs the data)
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from streams import compiled
from streams.convert import convert_uci
from streams.decode import decode
from streams.engine import Engine, EngineConfig
from streams.replay import ReplayConfig, replay

START = 1_300_000_000_000 // 86_400_000 * 86_400_000 + 10 * 3_600_000
CLOCK = START + 400 * 86_400_000
CHUNK = 10_000
UCI = Path(__file__).resolve().parents[2] / "shared" / "data" / "uci_online_retail" / "online_retail.parquet"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {"cores": os.cpu_count(), "python": platform.python_version(), "machine": platform.machine()}


def chunks(events: int, series: int, seed: int = 1) -> Iterator[list[bytes]]:
    """Orders (2 of 5) and clicks over many series, newest last, within one refresh interval of event time."""
    rng = np.random.default_rng(seed)
    popular = rng.zipf(1.3, events) % series  # a few items sell most, as everywhere
    item = np.where(rng.random(events) < 0.5, popular, rng.integers(0, series, events))
    at = START + np.sort(rng.integers(0, 600_000, events))
    order = rng.random(events) < 0.4
    for start in range(0, events, CHUNK):
        yield [
            b'{"type":"order_placed","event_id":"%d-%d","event_time":%d,"sku":"SKU-%07d","order_id":"o%d",'
            b'"quantity":%d,"unit_price":9.99,"currency":"EUR","channel":"web"}'
            % (seed, n, at[n], item[n], n, 1 + n % 5)
            if order[n]
            else b'{"type":"item_viewed","event_id":"%d-%d","event_time":%d,"sku":"SKU-%07d","session_id":"s%d"}'
            % (seed, n, at[n], item[n], n % 5000)
            for n in range(start, min(start + CHUNK, events))
        ]


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of this process for a piece of work."""
    gc.collect()
    start = time.process_time()
    work()
    return time.process_time() - start


def known(engine: Engine, series: int) -> None:
    """Make all series known to an engine."""
    for n in range(series):
        engine.add_series(f"SKU-{n:07d}", "default", START)


def feed(engine: Engine, records: list[bytes], tick_ms: int) -> None:
    """Decode records and process them, at one instant of the clock; state is not kept."""
    batch, _ = decode(records, clock_ms=CLOCK)
    batch.tick_ms[:] = tick_ms
    engine.process(batch)
    engine.discard_changes()


def warm(engine: Engine, series: int) -> None:
    """An order and a view of every series: a page is committed at its first touch, which is paid once per series."""
    for start in range(0, series, CHUNK):
        records = [
            form % (n, START, n)
            for n in range(start, min(start + CHUNK, series))
            for form in (
                b'{"type":"order_placed","event_id":"wo%d","event_time":%d,"sku":"SKU-%07d","order_id":"o",'
                b'"quantity":2,"unit_price":9.99,"currency":"EUR"}',
                b'{"type":"item_viewed","event_id":"wv%d","event_time":%d,"sku":"SKU-%07d","session_id":"s"}',
            )
        ]
        feed(engine, records, START)


def decode_all(made: list[list[bytes]]) -> None:
    """Decode chunks and drop what comes of it."""
    for chunk in made:
        decode(chunk, clock_ms=CLOCK)


def ingest(events: int, series: int, repeats: int) -> dict[str, float]:
    """Median CPU microseconds per event: decoding alone, and everything up to the panes."""
    compiled.load()
    engine = Engine(EngineConfig(max_series=series))
    known(engine, series)
    warm(engine, series)
    decoding, whole = [], []
    for repeat in range(repeats + 1):
        made = list(chunks(events, series, seed=repeat + 1))

        def run(made: list[list[bytes]] = made) -> None:
            for chunk in made:
                feed(engine, chunk, START)

        both = cpu(run)
        alone = cpu(partial(decode_all, made))
        if repeat:  # the first warms up
            decoding.append(alone / events * 1e6)
            whole.append(both / events * 1e6)
    each = statistics.median(whole)
    return {
        "series": series,
        "events": events,
        "decode_us": round(statistics.median(decoding), 3),
        "total_us": round(each, 3),
        "spread_us": round(max(whole) - min(whole), 3),
        "events_per_s": round(1e6 / each),
    }


def throughput(events: int, small: bool) -> dict[str, Any]:
    """Events per second of one core."""
    return ingest(events, 10_000, repeats=1 if small else 5)


def scale(events: int, small: bool) -> dict[str, Any]:
    """Cost per event at many series against few."""
    many = 50_000 if small else 1_000_000
    few, lots = (ingest(events, n, repeats=1 if small else 3) for n in (10_000, many))
    return {"few": few, "many": lots, "ratio": round(lots["total_us"] / few["total_us"], 3)}


def memory(events: int, small: bool) -> dict[str, Any]:
    """Resident bytes per series, in a process of its own."""
    del events
    series, days = (2_000, 10) if small else (40_000, 86)
    code = f"from load_tests.engine import fill; fill({series}, {days})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def fill(series: int, days: int) -> None:
    """Run an engine until its rings are full, and print what it takes (called in a process of its own)."""
    compiled.load()
    engine = Engine(EngineConfig(max_series=series))
    known(engine, 100)
    run_days(engine, 100, 0, 2)  # imports and first allocations are not the series' doing
    gc.collect()
    before = resident_bytes()
    known(engine, series)
    run_days(engine, series, 2, days)
    gc.collect()
    arrays = {
        "panes": engine.panes.row_bytes,
        "outcomes": engine.outcomes.row_bytes,
        "positions": engine.positions.row_bytes,
        "replenishment": engine.replenishment.row_bytes,
        "lines": engine.prices.lines.row_bytes,
        "runs": engine.price_forecasts.row_bytes,
        "listed": engine.listed.row_bytes,
        "rates": engine.refresh.table.row_bytes,
        "facts": engine.buckets.series.row_bytes,
    }
    each = (resident_bytes() - before) / (series - 100)
    print(json.dumps({"series": series, "days": days, "resident_bytes_per_series": round(each),
                      "arrays_bytes": sum(arrays.values()), "by_part": arrays}))  # fmt: skip


def run_days(engine: Engine, series: int, first: int, last: int) -> None:
    """One order, one price and one stock count per series and day; the next day's events close the day."""
    for day in range(first, last):
        at = START + day * 86_400_000
        for start in range(0, series, 2_000):
            records = [
                form % (day, n, at + 1000, n)
                for n in range(start, min(start + 2_000, series))
                for form in (
                    b'{"type":"order_placed","event_id":"o%d-%d","event_time":%d,"sku":"SKU-%07d","order_id":"o",'
                    b'"quantity":2,"unit_price":9.99,"currency":"EUR"}',
                    b'{"type":"price_set","event_id":"p%d-%d","event_time":%d,"sku":"SKU-%07d","price":9.99,'
                    b'"currency":"EUR"}',
                    b'{"type":"stock_counted","event_id":"s%d-%d","event_time":%d,"sku":"SKU-%07d","on_hand":50}',
                )
            ]
            feed(engine, records, at)


def resident_bytes() -> int:
    """Resident memory of this process, once what a close has freed is back with the system."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def year(events: int, small: bool) -> dict[str, Any]:
    """The UCI year: convert, then replay in one process."""
    del events
    if small or not UCI.exists():
        return {"skipped": "small run" if small else f"{UCI.name} is not beside the checkout"}
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "uci.jsonl.zst", Path(folder) / "out"
        converting = cpu(lambda: convert_uci(UCI, file))
        config = ReplayConfig(
            engine=EngineConfig(max_series=10_000, time_zone="Europe/London", base_currency="GBP"),
            clock_ms=int(time.time() * 1000),
        )
        found: dict[str, Any] = {}
        wall = time.monotonic()
        replaying = cpu(lambda: found.update(replay([file], out, config)))
        return {
            "convert_cpu_s": round(converting, 1),
            "replay_cpu_s": round(replaying, 1),
            "replay_wall_s": round(time.monotonic() - wall, 1),
            "records": found["records"],
            "series_days": found["forecasts"]["at_close"],
            "forecasts_made": found["forecasts"]["made"],
            "written_gb": round(sum(f.stat().st_size for f in out.iterdir()) / 1e9, 2),
        }


PARTS = {"throughput": throughput, "scale": scale, "memory": memory, "year": year}


def main() -> None:
    """Run the parts asked for and print them."""
    parser = argparse.ArgumentParser(description="speed and memory of the engine")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--small", action="store_true", help="seconds instead of minutes: shows that it works")
    args = parser.parse_args()
    events = min(args.events, 20_000) if args.small else args.events
    found: dict[str, Any] = {"machine": machine()}
    for name in args.only.split(","):
        found[name] = PARTS[name](events, args.small)
        if not args.json:
            print(f"{name}: {json.dumps(found[name])}", flush=True)
    if args.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
