"""A day closes over 100,000 series while records keep coming: how long until every forecast is published.

    python -m load_tests.close [--items N] [--rate N] [--json]

The shop has `--items` series over the shards of one worker, with four weeks of sales, descriptions and stock. That past
is made by the worker itself, from topics that hold an order per item and day. Then records come at `--rate` a second,
open loop, just before midnight by their event times; at a set moment an order and a click per shard move the watermark
past midnight, and the clock starts. It ends when a consumer with `read_committed` has had a forecast of the new day for
every series. Records keep coming all the while; how far the worker is behind them is asked twice a second.

order   Of 100 items four have an open trigger and four little cover without one. Of the first tenth of all forecasts
        published, which share is theirs, and which share of them is in it (.8 and 1 would be perfect).
"""

from __future__ import annotations

import argparse
import json
import re
import time
from dataclasses import asdict
from typing import Any

import orjson

from load_tests.kafka.assortment import CLICKS, DAY_MS, ORDERS, Assortment, send_past
from load_tests.kafka.feed import Feed, Plan, Probe
from load_tests.kafka.figures import Goal, goals_json
from load_tests.kafka.processes import cpu_s
from load_tests.kafka.reader import Reader
from load_tests.kafka.stage import Share, Stage, arguments, machine, stage
from load_tests.kafka.waiting import EVENTS, wait_idle
from load_tests.kafka.worker import Worker, WorkerError, total
from streams.outputs import DEMAND_TOPIC, TRIGGER_TOPIC

PAST_DAYS, BOUND_MS = 28, 300_000
BEFORE_MS = 6 * 60_000
"""The past ends so long before midnight: behind the last refresh before it, by the watermark."""

CLOSE_S = 300.0
LOOK_S = 0.5
OPEN = ("open", "updated")
_AS_OF = re.compile(rb'"as_of":(\d+)')


class Day:
    """Forecasts of the new day as they are published.

    Parameters
    ----------
    midnight_ms
        When it begins.
    """

    def __init__(self, midnight_ms: int, items: int) -> None:
        self.midnight_ms, self.items = midnight_ms, items
        self.at_s: dict[bytes, float] = {}  # key -> when it was had, in order
        self.again = 0

    def take(self, key: bytes, value: bytes, at_s: float) -> None:
        """Note an output."""
        found = _AS_OF.search(value)
        if found is None or int(found[1]) < self.midnight_ms:
            return
        if key in self.at_s:
            self.again += 1
        else:
            self.at_s[key] = at_s

    @property
    def done(self) -> bool:
        """Whether there is one of every series."""
        return len(self.at_s) >= self.items

    def after(self, share: float, since_s: float) -> float | None:
        """Seconds until this share of all series had theirs."""
        moments, wanted = list(self.at_s.values()), max(1, round(share * self.items))
        return round(moments[wanted - 1] - since_s, 2) if len(moments) >= wanted else None


def open_triggers(reader: Reader, quiet_s: float = 2.0) -> set[bytes]:
    """Series for which a trigger is open, by all that was published so far."""
    standing: dict[bytes, str] = {}
    until_s = time.monotonic() + quiet_s
    while time.monotonic() < until_s:
        for one in reader.poll(0.1):
            standing[one.key] = orjson.loads(one.value)["status"]
            until_s = time.monotonic() + quiet_s
    return {key for key, status in standing.items() if status in OPEN}


def order_of(day: Day, shop: Assortment, triggers: set[bytes]) -> dict[str, Any]:
    """Who came first."""
    urgent = {b"%b|default" % shop.skus[item] for item in range(shop.items) if shop.urgent(item)} | triggers
    first = list(day.at_s)[: max(1, shop.items // 10)]
    came = [key for key in first if key in urgent]
    return {
        "open_triggers": len(triggers),
        "urgent": len(urgent),
        "urgent_share_of_first_tenth": round(len(came) / len(first), 3) if first else None,
        "of_urgent_in_first_tenth": round(len(came) / len(urgent), 3) if urgent else None,
    }


class Lag:
    """How far a worker is behind what was sent, by its own count of events."""

    def __init__(self, worker: Worker, past: int) -> None:
        self.samples: list[tuple[float, int, int]] = []  # moment, sent, processed
        self._worker, self._past, self._asked_s = worker, past, 0.0

    def look(self, feed: Feed) -> None:
        """Ask, twice a second."""
        if time.monotonic() - self._asked_s < LOOK_S:
            return
        self._worker.check()
        sent, processed = feed.records, int(total(self._worker.metrics(), EVENTS)) - self._past
        self._asked_s = time.monotonic()
        self.samples.append((feed.at_s, sent, processed))

    def figures(self, from_s: float, until_s: float, rate: float) -> dict[str, Any]:
        """Between two moments."""
        own = [one for one in self.samples if from_s <= one[0] <= until_s]
        if len(own) < 2:
            return {}
        (t0, s0, p0), (t1, s1, p1) = own[0], own[-1]
        behind = [max(0, sent - processed) for _, sent, processed in own]
        return {
            "sent_per_s": round((s1 - s0) / (t1 - t0)),
            "processed_per_s": round((p1 - p0) / (t1 - t0)),
            "lag_max_records": max(behind),
            "lag_max_s": round(max(behind) / rate, 2),
            "lag_end_s": round(behind[-1] / rate, 2),
        }


def plan_of(args: argparse.Namespace, stage: Stage, shop: Assortment, midnight_ms: int) -> Plan:
    """Records before midnight, and those that move the watermark past it."""
    probes = []
    for part in range(args.partitions):
        item, at_ms = shop.one_of(part), midnight_ms + BOUND_MS
        probes.append(Probe(args.warm_s, shop.made(ORDERS, item, shop.order(b"m%d" % part, at_ms, item))))
        probes.append(Probe(args.warm_s, shop.made(CLICKS, item, shop.view(b"mv%d" % part, at_ms, item, 1))))
    base_ms = midnight_ms + BOUND_MS - int(args.warm_s * 1000)
    return Plan(stage.kafka, args.items, args.rate, base_ms, probes=tuple(probes))


def run(args: argparse.Namespace, stage: Stage) -> dict[str, Any]:
    """One run."""
    shop = Assortment(args.items, args.partitions)
    midnight_ms = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS - DAY_MS
    began_s = time.monotonic()
    past = send_past(stage.kafka, shop, midnight_ms - BEFORE_MS, args.past_days)
    sent_s = time.monotonic() - began_s
    worker = stage.start()
    past_s = wait_idle(worker, past, timeout_s=args.timeout_s, quiet=10)
    reader = Reader(stage.kafka, [TRIGGER_TOPIC], from_now=False)
    triggers = open_triggers(reader)
    reader.close()
    feed, reader = Feed(plan_of(args, stage, shop, midnight_ms)), Reader(stage.kafka, [DEMAND_TOPIC])
    day, lag, share = Day(midnight_ms, args.items), Lag(worker, past), Share(stage.broker_pid)
    close_s = feed.start() + args.warm_s

    def look() -> None:
        for one in reader.poll():
            day.take(one.key, one.value, one.at_s)
        lag.look(feed)

    feed.wait_until(args.warm_s, look, every_s=0)
    cpu_before_s = cpu_s(worker.process.pid)
    while not day.done and feed.at_s < args.warm_s + args.timeout_s:
        look()
    over_s, cpu_after_s, foreign = feed.at_s, cpu_s(worker.process.pid), share.foreign()
    feed.wait_until(over_s + args.after_s, look, every_s=0)
    threads, rss_mib, sent = worker.threads_cpu_s(), worker.peak_mib(), feed.stop()
    code, _ = worker.stop()
    reader.close()
    return {
        "settings": {
            "items": args.items,
            "rate": args.rate,
            "partitions": args.partitions,
            "past_days": args.past_days,
        },
        "past": {"records": past, "sent_s": round(sent_s, 1), "processed_s": round(past_s, 1)},
        "published": len(day.at_s),
        "published_again": day.again,
        "seconds": {str(part): day.after(part, close_s) for part in (0.01, 0.1, 0.5, 0.9, 1.0)},
        "order": order_of(day, shop, triggers),
        "before": lag.figures(0, args.warm_s, args.rate),
        "meanwhile": lag.figures(args.warm_s - 2 * LOOK_S, over_s + 2 * LOOK_S, args.rate),
        "after": lag.figures(over_s, over_s + args.after_s, args.rate),
        "cpu_s": round(cpu_after_s - cpu_before_s, 2),
        "rss_mib": round(rss_mib),
        "threads_cpu_s": threads,
        "foreign_share": foreign,
        "sent": asdict(sent),
        "exit": code,
    }


def goals(found: dict[str, Any]) -> list[Goal]:
    """What was promised."""
    items, cores = found["settings"]["items"], found["machine"]["cores"]
    meanwhile = found["meanwhile"]
    kept = meanwhile["lag_end_s"] if meanwhile else None
    return [
        Goal(f"{items:,} forecasts published after a close, {cores} cores", found["seconds"]["1.0"], CLOSE_S, "s"),
        Goal("behind the records that came meanwhile, when the last was published", kept, 10, "s"),
    ]


def text(found: dict[str, Any], reached: list[Goal]) -> str:
    """For people."""
    names = ("past", "seconds", "order", "before", "meanwhile", "after")
    return "\n".join([
        f"{found['published']:,} published, {found['published_again']:,} of them twice; {found['cpu_s']} s of CPU; "
        f"{found['rss_mib']:,} MiB; {found['foreign_share']:.0%} of the machine was others'",
        *(f"{name}: {json.dumps(found[name])}" for name in names),
        *(goal.line for goal in reached),
    ])  # fmt: skip


SMALL = {"items": 400, "rate": 300, "past_days": 1, "warm_s": 1.5, "after_s": 0.5, "timeout_s": 60.0}


def main() -> None:
    """Run it and print what was measured."""
    parser = arguments(__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=20_000)
    args = parser.parse_args()
    args.past_days, args.warm_s, args.after_s, args.timeout_s = PAST_DAYS, 20.0, 10.0, 600.0
    for name, value in SMALL.items() if args.small else ():
        setattr(args, name, value)
    with stage(args, "close") as made:
        try:
            found = {"machine": machine(), **run(args, made)}
        except WorkerError as error:
            raise SystemExit(str(error)) from error
    reached = goals(found)
    print(json.dumps({**found, "goals": goals_json(reached)}, indent=1) if args.json else text(found, reached))


if __name__ == "__main__":
    main()
