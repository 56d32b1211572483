"""A worker of 100,000 series is killed after an hour of load and started again: how long until it has caught up.

    python -m load_tests.restart [--minutes 60] [--items N] [--rate N] [--json]

The shop has `--items` series in four shards of one worker, with four weeks of sales, descriptions and stock. Then
records come at `--rate` a second, open loop, for `--minutes`; the worker is killed (SIGKILL) and started again at once,
while records keep coming.

ready      from the start of the process until it says that all shards are recovered
caught up  until its committed state holds everything sent up to a second and a half before (it commits once a second)
state      bytes of the state topic that a restart must read: on the broker's disk, and of those live; every ten seconds
           of the load too, so that a cleaner that cannot keep up shows
parts      of the restart, by the worker's log: process and group, recovery of each shard; and afterwards, one shard
           after another on a machine at rest: reading the topic, restoring the engine
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from datetime import datetime
from typing import Any

from load_tests.kafka.assortment import CLICKS, DAY_MS, HOUR_MS, ORDERS, PRICES, STOCK, Assortment, send_past
from load_tests.kafka.feed import Feed, Plan
from load_tests.kafka.figures import Goal, goals_json, percentiles
from load_tests.kafka.processes import rss_bytes
from load_tests.kafka.reader import Positions
from load_tests.kafka.stage import Share, Stage, arguments, machine, stage
from load_tests.kafka.waiting import wait_idle
from load_tests.kafka.worker import Worker, WorkerError
from streams.engine import Engine, EngineConfig
from streams.kafka.ledger import Ledger, of_engine

PAST_DAYS, CAUGHT_UP_S, SLACK_S, TIMEOUT_S = 28, 10.0, 1.5, 180.0
LOOK_S, NOTE_S = 0.05, 10.0
FLOWING = (ORDERS, CLICKS, PRICES, STOCK)


class Behind:
    """How long ago what is committed by now had been sent.

    Parameters
    ----------
    positions
        What is committed.
    past
        Records that lay on the topics before the feed began.
    """

    def __init__(self, positions: Positions, feed: Feed, past: int) -> None:
        self._positions, self._feed, self._past = positions, feed, past
        self._sent: list[tuple[float, int]] = []
        self._first = 0

    def look(self) -> float:
        """Seconds, now."""
        now_s = self._feed.at_s
        self._sent.append((now_s, self._past + self._feed.records))
        committed = self._positions.poll()
        while self._first < len(self._sent) - 1 and self._sent[self._first + 1][1] <= committed:
            self._first += 1
        return now_s - self._sent[self._first][0]


def under_load(
    args: argparse.Namespace, stage: Stage, feed: Feed, worker: Worker, behind: Behind
) -> list[dict[str, Any]]:
    """Let the load run, and note every ten seconds what there is."""
    notes: list[dict[str, Any]] = []

    def look() -> None:
        late_s = behind.look()
        if feed.at_s - (notes[-1]["at_s"] if notes else 0) >= NOTE_S:
            worker.check()
            notes.append({
                "at_s": round(feed.at_s, 1),
                "behind_s": round(late_s, 2),
                "state_disk_bytes": stage.state_bytes_on_disk(),
                "rss_bytes": rss_bytes(worker.process.pid),
            })  # fmt: skip

    feed.wait_until(args.minutes * 60, look, every_s=LOOK_S)
    return notes


def again(stage: Stage, killed_s: float, behind: Behind, slack_s: float) -> tuple[Worker, dict[str, float | None]]:
    """Start a worker in the place of one that was killed, and follow it until it has caught up."""
    wall_ms = time.time() * 1000
    worker, began_s = stage.start(), time.monotonic()
    ready_s: float | None = None
    caught_s: float | None = None
    while caught_s is None and time.monotonic() - began_s < TIMEOUT_S:
        late_s = behind.look()
        if ready_s is None:
            ready_s = time.monotonic() - began_s if worker.ready() else None
        elif late_s <= slack_s:
            caught_s = time.monotonic() - began_s
        worker.check()
        time.sleep(LOOK_S)
    told = said(worker, wall_ms)
    return worker, {"killed_to_start_s": began_s - killed_s, "ready_s": ready_s, "caught_up_s": caught_s, **told}


def said(worker: Worker, wall_ms: float) -> dict[str, Any]:
    """What its log says of its start: when it served, when shards were recovered, what recovering each took."""
    lines = [json.loads(line) for line in (worker.folder / "log").read_text("utf-8").splitlines() if line[:1] == "{"]
    at_s = {line["event"]: round((_ms(line["timestamp"]) - wall_ms) / 1000, 2) for line in lines}
    recovered = {line["task"]: (line["seconds"], line["bytes"]) for line in lines if line["event"] == "recovered"}
    return {
        "serving_s": at_s.get("serving metrics"),
        "assigned_s": at_s.get("assigned"),
        "recovery_s": {task: seconds for task, (seconds, _) in recovered.items()},
        "recovered_bytes": sum(size for _, size in recovered.values()),
    }


def _ms(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp() * 1000


def parts(stage: Stage, items: int) -> dict[str, Any]:
    """Reading and restoring, one shard after another, with nothing else at work."""
    read_s, restore_s, size, records = [], [], 0, 0
    for number in range(stage.kafka.partitions):
        began_s = time.perf_counter()
        found, _ = Ledger(stage.kafka, f"shard-{number}", number).read(120)
        read_s.append(time.perf_counter() - began_s)
        size += sum(len(key) + len(value) for key, value in found.items())
        records += len(found)
        engine, began_s = Engine(EngineConfig(max_series=max(100_000, items), base_currency="GBP")), time.perf_counter()
        engine.restore(of_engine(found))
        restore_s.append(time.perf_counter() - began_s)
    return {
        "reading_s": [round(one, 2) for one in read_s],
        "restoring_s": [round(one, 2) for one in restore_s],
        "live_records": records,
        "live_bytes": size,
    }


def run(args: argparse.Namespace, stage: Stage) -> dict[str, Any]:
    """One run."""
    shop = Assortment(args.items, args.partitions)
    base_ms = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS - DAY_MS + 10 * HOUR_MS
    past = send_past(stage.kafka, shop, base_ms - 60_000, args.past_days)
    worker = stage.start()
    past_s = wait_idle(worker, past, timeout_s=600, quiet=10)
    positions = Positions(stage.kafka, (*FLOWING, "shop.catalog.v1"))
    feed = Feed(Plan(stage.kafka, args.items, args.rate, base_ms))
    share = Share(stage.broker_pid)
    feed.start()
    behind = Behind(positions, feed, past)
    notes = under_load(args, stage, feed, worker, behind)
    disk = stage.state_bytes_on_disk()
    worker.kill()
    worker, took = again(stage, time.monotonic(), behind, args.slack_s)
    foreign, sent, rss_mib = share.foreign(), feed.stop(), rss_bytes(worker.process.pid) / 2**20
    code, stop_s = worker.stop()
    positions.close()
    return {
        "settings": {"items": args.items, "rate": args.rate, "minutes": args.minutes, "past_days": args.past_days},
        "past": {"records": past, "processed_s": round(past_s, 1)},
        "restart": {name: round(v, 2) if isinstance(v, float) else v for name, v in took.items()},
        "rss_mib": round(rss_mib),
        "state_disk_bytes": disk,
        "parts": parts(stage, args.items),
        "behind_s": percentiles([note["behind_s"] for note in notes], digits=2),
        "notes": notes,
        "sent": asdict(sent),
        "foreign_share": foreign,
        "exit": code,
        "stop_s": round(stop_s, 2),
    }


def goals(found: dict[str, Any]) -> list[Goal]:
    """What was promised."""
    items, minutes = found["settings"]["items"], found["settings"]["minutes"]
    what = f"caught up after a kill, {items:,} series, {minutes:g} minutes of load"
    return [Goal(what, found["restart"]["caught_up_s"], CAUGHT_UP_S, "s")]


def text(found: dict[str, Any], reached: list[Goal]) -> str:
    """For people."""
    disk, live = found["state_disk_bytes"], found["parts"]["live_bytes"]
    notes = [note for n, note in enumerate(found["notes"]) if n % max(1, len(found["notes"]) // 12) == 0]
    return "\n".join([
        f"restart: {json.dumps(found['restart'])}",
        f"parts, at rest: {json.dumps(found['parts'])}",
        f"state: {(disk or 0) / 1e6:,.0f} MB on disk, {live / 1e6:,.0f} MB live before compression",
        f"behind under load: {json.dumps(found['behind_s'])}; {found['foreign_share']:.0%} of the machine was others'",
        *(f"  after {n['at_s']:,.0f} s: {(n['state_disk_bytes'] or 0) / 1e6:,.0f} MB of state on disk, "
          f"{n['rss_bytes'] / 2**20:,.0f} MiB" for n in notes),
        *(goal.line for goal in reached),
    ])  # fmt: skip


# A small run shows that it works, beside others and on any machine: one that is busy commits many seconds late.
SMALL = {"items": 400, "rate": 300, "past_days": 1, "minutes": 0.04, "slack_s": 30.0}


def main() -> None:
    """Run it and print what was measured."""
    parser = arguments(__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=2_000)
    parser.add_argument("--minutes", type=float, default=60)
    args = parser.parse_args()
    args.past_days, args.slack_s = PAST_DAYS, SLACK_S
    for name, value in SMALL.items() if args.small else ():
        setattr(args, name, value)
    with stage(args, "restart") as made:
        try:
            found = {"machine": machine(), **run(args, made)}
        except WorkerError as error:
            raise SystemExit(str(error)) from error
    reached = goals(found)
    print(json.dumps({**found, "goals": goals_json(reached)}, indent=1) if args.json else text(found, reached))


if __name__ == "__main__":
    main()
