"""A worker under steady load for ten minutes: whether its memory stays flat, and what it commits.

    python -m load_tests.soak [--minutes 10] [--rate N] [--items N] [--speed N] [--json]

Records come at `--rate` a second, open loop, over `--items` series with four weeks of sales. Ids and sessions are
remembered for two hours of event time and more, so that memory grows for four hours before it is steady, whatever the
worker does. Therefore event times run `--speed` times as fast as the clock (60: ten minutes are ten hours, the warm-up
four of them), which also makes refreshes 60 times as frequent. At the true speed a shop holds the ids of two to four
hours of its own rate: the last line of memory says what that takes.

memory     resident bytes every five seconds; after the warm-up a line through them, with its 95 % interval
commits    bytes of state a second, against the bytes of state that live; seconds of a commit by the worker's histogram
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from load_tests.kafka.assortment import DAY_MS, HOUR_MS, Assortment, send_past
from load_tests.kafka.feed import Feed, Plan
from load_tests.kafka.figures import Goal, goals_json, histogram, percentiles, quantile, since, trend
from load_tests.kafka.processes import cpu_s, rss_bytes
from load_tests.kafka.stage import Share, Stage, arguments, machine, stage
from load_tests.kafka.waiting import EVENTS, wait_idle
from load_tests.kafka.worker import Worker, WorkerError, total

PAST_DAYS, NOTE_S, WARM_SHARE = 28, 5.0, 0.4
GROWTH_PERCENT = 1.0
"""Growth over ten minutes from which on memory is not called flat."""

STATE_BYTES, COMMIT_S = "shelftide_state_bytes_total", "shelftide_commit_seconds"
MIB = 2**20


@dataclass(frozen=True)
class Note:
    """What was seen at one moment."""

    at_s: float
    rss_bytes: int
    threads: int
    files: int
    lag_records: int
    sent: int
    processed: int
    state_bytes: int
    disk_bytes: int | None
    cpu_s: float


def note_of(stage: Stage, feed: Feed, worker: Worker, past: int) -> tuple[Note, str]:
    """Look at a worker."""
    pid, sent, told = worker.process.pid, feed.records, worker.metrics()
    worker.check()
    processed = int(total(told, EVENTS)) - past
    proc = Path("/proc") / str(pid)
    return Note(
        at_s=round(feed.at_s, 2),
        rss_bytes=rss_bytes(pid),
        threads=len(os.listdir(proc / "task")),
        files=len(os.listdir(proc / "fd")),
        lag_records=max(0, sent - processed),
        sent=sent,
        processed=processed,
        state_bytes=int(total(told, STATE_BYTES)),
        disk_bytes=stage.state_bytes_on_disk(),
        cpu_s=cpu_s(pid),
    ), told


def run(args: argparse.Namespace, stage: Stage) -> dict[str, Any]:
    """One run."""
    shop = Assortment(args.items, args.partitions)
    base_ms = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS - DAY_MS + HOUR_MS
    past = send_past(stage.kafka, shop, base_ms - 60_000, args.past_days)
    worker = stage.start()
    wait_idle(worker, past, quiet=10)
    feed = Feed(Plan(stage.kafka, args.items, args.rate, base_ms, speed=args.speed))
    notes: list[Note] = []
    texts: list[str] = []

    def look() -> None:
        note, told = note_of(stage, feed, worker, past)
        notes.append(note)
        if note.at_s <= args.minutes * 60 * WARM_SHARE or not texts:
            texts[:] = [told]  # the histogram at the end of the warm-up

    share = Share(stage.broker_pid)
    feed.start()
    feed.wait_until(args.minutes * 60, look, every_s=args.note_s)
    look()
    last, foreign = worker.metrics(), share.foreign()
    sent = feed.stop()
    code, stop_s = worker.stop()
    state = stage.state()
    state.read()
    live, kinds = state.live_bytes, state.live_by_kind()
    state.close()
    steady = [note for note in notes if note.at_s >= args.minutes * 60 * WARM_SHARE]
    return {
        "settings": {name: getattr(args, name) for name in ("items", "rate", "minutes", "speed")},
        "memory": memory(steady),
        "commits": commits(steady, since(histogram(texts[0], COMMIT_S), histogram(last, COMMIT_S)), live),
        "state_live_by_kind": kinds,
        "flow": flow(steady, args.rate),
        "sent": asdict(sent),
        "foreign_share": foreign,
        "exit": code,
        "stop_s": round(stop_s, 2),
        "notes": [asdict(note) for note in notes],
    }


def memory(steady: list[Note]) -> dict[str, Any]:
    """Whether it grows."""
    rss = [note.rss_bytes / MIB for note in steady]
    found = trend([note.at_s for note in steady], rss)
    usual = statistics.median(rss)
    return {
        "rss_mib": percentiles(rss),
        "mib_per_10_min": round(found["per_s"] * 600, 2) if found else None,
        "within_mib_per_10_min": round(found["within"] * 600, 2) if found else None,
        "percent_per_10_min": round(found["per_s"] * 60_000 / usual, 3) if found else None,
        "threads": [min(note.threads for note in steady), max(note.threads for note in steady)],
        "files": [min(note.files for note in steady), max(note.files for note in steady)],
    }


def commits(steady: list[Note], counts: dict[float, float], live: int) -> dict[str, Any]:
    """What is written."""
    first, last = steady[0], steady[-1]
    seconds = max(1e-9, last.at_s - first.at_s)
    per_s = (last.state_bytes - first.state_bytes) / seconds
    quantiles = {name: quantile(counts, level) for name, level in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))}
    return {
        "state_bytes_per_s": round(per_s),
        "bytes_per_record": round(per_s * seconds / max(1, last.processed - first.processed), 1),
        "state_live_bytes": live,
        "state_disk_bytes": last.disk_bytes,
        "share_of_state_per_s": round(per_s / live, 5) if live else None,
        "commits_per_s": round(max(counts.values(), default=0) / seconds, 2),
        "commit_s": {name: round(value, 4) if value is not None else None for name, value in quantiles.items()},
    }


def flow(steady: list[Note], rate: float) -> dict[str, Any]:
    """Whether it keeps up, and at which cost."""
    first, last = steady[0], steady[-1]
    seconds, records = max(1e-9, last.at_s - first.at_s), max(1, last.processed - first.processed)
    return {
        "sent_per_s": round((last.sent - first.sent) / seconds),
        "processed_per_s": round(records / seconds),
        "lag_records": percentiles([note.lag_records for note in steady], digits=0),
        "lag_s_p99": round(percentiles([note.lag_records / rate for note in steady], digits=3)["p99"], 3),
        "cpu_us_per_record": round((last.cpu_s - first.cpu_s) / records * 1e6, 2),
        "cpu_share_of_a_core": round((last.cpu_s - first.cpu_s) / seconds, 3),
    }


def goals(found: dict[str, Any]) -> list[Goal]:
    """What was promised."""
    return [Goal("memory grows in ten minutes by", found["memory"]["percent_per_10_min"], GROWTH_PERCENT, "%")]


def text(found: dict[str, Any], reached: list[Goal]) -> str:
    """For people."""
    rate, items = found["settings"]["rate"], found["settings"]["items"]
    cells = 2 * 8 * rate * 3600 * 2 / 0.6 / MIB
    return "\n".join([
        f"{rate:,.0f} records/s on {items:,} series; {found['foreign_share']:.0%} of the machine was others'",
        f"memory: {json.dumps(found['memory'])}",
        f"  ids of this rate at the true speed: about {cells:,.0f} MiB, 64 MiB a shard and generation at most",
        f"commits: {json.dumps(found['commits'])}",
        f"flow: {json.dumps(found['flow'])}",
        *(goal.line for goal in reached),
    ])  # fmt: skip


SMALL = {"items": 400, "rate": 300, "past_days": 1, "minutes": 0.08, "note_s": 0.3}


def main() -> None:
    """Run it and print what was measured."""
    parser = arguments(__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=10_000)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--speed", type=float, default=60)
    args = parser.parse_args()
    args.past_days, args.note_s = PAST_DAYS, NOTE_S
    for name, value in SMALL.items() if args.small else ():
        setattr(args, name, value)
    if args.speed * args.minutes > 22 * 60:
        parser.error("a day would close; let fewer than 22 hours of event time pass")
    with stage(args, "soak") as made:
        try:
            found = {"machine": machine(), **run(args, made)}
        except WorkerError as error:
            raise SystemExit(str(error)) from error
    reached = goals(found)
    print(json.dumps({**found, "goals": goals_json(reached)}, indent=1) if args.json else text(found, reached))


if __name__ == "__main__":
    main()
