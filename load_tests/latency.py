"""From an event to the forecast and to the alert that follow from it, on a real Kafka under load.

    python -m load_tests.latency [--rate N] [--items N] [--rounds N] [--faults N] [--json]

Load is open loop: a process of its own sends `--rate` records a second (70 % clicks, 25 % orders, 2 % prices, 3 % stock
counts), each at its moment, whatever the worker does. Every latency runs from the moment at which the event was *meant*
to be sent to the moment at which a consumer with `read_committed` had the output in its hands: waiting in the sender,
in Kafka, in the worker, its transaction and the way back are all in it.

forecast  The shop has `--items` series (1,000), with four weeks of sales. All of them sell in every round, so that all
          are due when the watermark passes the next refresh, which is every 15 minutes of event time. A round does not
          wait for that: event times leap. At the round's moment an order and a click per shard are sent that are 15
          minutes later than everything before, and from then on all others are too. These eight make the series due,
          and the clock of every forecast starts at their moment. It is fair because an engine reads time from events
          alone: it does the same work as after 15 minutes without a leap, the series that changed meanwhile being all
          there are. The worker's clock is the wall clock; events are of yesterday, so that leaps stay in the past.
alert     Hard faults (zero, a decimal shifted by one or by three places) on single lines that have seen ten prices.
          Faults of one kind come 6 s apart: closer together they wait for each other on purpose (adr/0008).
feed      A decimal shifted by two places on 50 lines at one moment: the one alert that names them all.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import orjson

from load_tests.kafka.assortment import CLICKS, DAY_MS, HOUR_MS, ORDERS, PRICES, Assortment, send_past
from load_tests.kafka.feed import Feed, Plan, Probe
from load_tests.kafka.figures import Goal, goals_json, percentiles
from load_tests.kafka.reader import Got, Reader
from load_tests.kafka.stage import Share, Stage, arguments, machine, stage
from load_tests.kafka.waiting import wait_idle
from streams.outputs import ALERT_TOPIC, DEMAND_TOPIC

REFRESH_MS, BOUND_MS = 900_000, 300_000
"""Of the engine, by default: between refreshes, and of the watermark behind the newest event."""

PAST_DAYS, PAST_PRICES = 28, 10
ROUND_S = 2.0
KINDS = (0.0, 10.0, 0.1, 1000.0, 0.001)
"""What a single fault makes of a price; each of another form or factor, so that none waits for another's company."""

KIND_S, FAULT_S = 6.0, 6.0 / len(KINDS)
FEED_LINES, FEED_S = 50, 12.0
FEEDS = (0.01, 100.0)
CORRECTED_S = 4.0
"""A fault is corrected so long after it: later than an alert is to be there."""

AFTER_S = 12.0
"""How long after the last probe outputs are waited for, at most."""

FORECAST_MS, ALERT_MS = 250.0, 3_000.0
_AS_OF = re.compile(rb'"as_of":(\d+)')


@dataclass(frozen=True)
class Timing:
    """When what happens, in seconds after the start.

    Attributes
    ----------
    rounds, faults, feeds
        Moments of rounds, of single faults, of faults of a feed.
    """

    rounds: list[float]
    faults: list[float]
    feeds: list[float]

    @classmethod
    def of(cls, warm_s: float, rounds: int, faults: int, feeds: int) -> Timing:
        """Forecasts first, then single faults, then those of feeds.

        Moments lie at odd parts of a second, for the worker ticks once a second.
        """
        moments = [warm_s + n * (ROUND_S + 0.137) for n in range(rounds)]
        begin_s = (moments[-1] if moments else warm_s) + ROUND_S
        singles = [begin_s + n * (FAULT_S + 0.0311) for n in range(faults)]
        begin_s = (singles[-1] if singles else begin_s) + KIND_S
        return cls(moments, singles, [begin_s + n * (FEED_S + 0.237) for n in range(feeds)])

    @property
    def end_s(self) -> float:
        """The moment of the last probe."""
        return max(chain([0.0], self.rounds, self.faults, self.feeds))


@dataclass
class Found:
    """What came out.

    Attributes
    ----------
    forecasts
        Round -> ms until each of its forecasts was had.
    faults, feeds
        Ms until the alert on a line was had, by what was done to its price.
    missing
        Outputs that never came.
    """

    forecasts: dict[int, list[float]] = field(default_factory=dict)
    faults: dict[str, list[float]] = field(default_factory=dict)
    feeds: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)


class Course:
    """The course of a run: what is sent at which moment, and what is to come of it.

    Parameters
    ----------
    base_ms
        Event time at the start: a refresh lies just behind the watermark.
    """

    def __init__(self, timing: Timing, shop: Assortment, base_ms: int) -> None:
        self.timing, self.shop, self.base_ms = timing, shop, base_ms
        self.leaps = tuple((at_s, base_ms + (n + 1) * REFRESH_MS) for n, at_s in enumerate(timing.rounds))
        self.line_of: dict[int, float] = {}  # item -> moment of its fault
        self.kind_of: dict[int, float] = {}
        self._odd = iter(range(1, shop.items, 2))
        singles = [(KINDS[n % len(KINDS)], at_s, 1) for n, at_s in enumerate(timing.faults)]
        feeds = [(FEEDS[n % len(FEEDS)], at_s, FEED_LINES) for n, at_s in enumerate(timing.feeds)]
        for kind, at_s, lines in [*singles, *feeds]:
            for _ in range(lines):
                item = next(self._odd)
                self.line_of[item], self.kind_of[item] = at_s, kind

    def probes(self, plan: Plan) -> Iterator[Probe]:
        """What is sent beside the load, not in order."""
        made, parts = self.shop.made, range(self.shop.partitions)
        for n, at_s in enumerate(self.timing.rounds):
            for item in range(self.shop.items):  # all of them change, also where the load is too light for that
                before_s = at_s - ROUND_S / 2
                value = self.shop.order(b"c%d-%d" % (n, item), plan.event_ms(before_s), item)
                yield Probe(before_s, made(ORDERS, item, value))
            for item in map(self.shop.one_of, parts):
                at_ms, number = plan.event_ms(at_s), b"m%d-%d" % (n, item)
                yield Probe(at_s, made(ORDERS, item, self.shop.order(number, at_ms, item)))
                yield Probe(at_s, made(CLICKS, item, self.shop.view(number + b"v", at_ms, item, n)))
        for item, at_s in self.line_of.items():
            right = self.shop.price(item)
            for number, then_s, price in (
                (b"w", at_s, round(right * self.kind_of[item], 4)),
                (b"r", at_s + CORRECTED_S, right),
            ):
                value = self.shop.priced(number + b"%d" % item, plan.event_ms(then_s), item, price)
                yield Probe(then_s, made(PRICES, item, value))

    def as_of_ms(self, number: int) -> int:
        """The instant that forecasts of a round stand for."""
        return (self.leaps[number][1] - BOUND_MS) // REFRESH_MS * REFRESH_MS


def plan_of(args: argparse.Namespace, stage: Stage, course: Course) -> Plan:
    """The course as a plan."""
    bare = Plan(stage.kafka, args.items, args.rate, course.base_ms, leaps=course.leaps)
    probes = sorted(course.probes(bare), key=lambda probe: probe.at_s)
    return Plan(**{**vars_of(bare), "probes": tuple(probes)})


def vars_of(plan: Plan) -> dict[str, Any]:
    """Fields of a plan, as they are."""
    return {name: getattr(plan, name) for name in plan.__dataclass_fields__}


def measured(course: Course, got: list[Got], began_s: float) -> Found:
    """What outputs say of the course."""
    found = Found()
    rounds = {course.as_of_ms(n): n for n in range(len(course.timing.rounds))}
    first: dict[tuple[int, bytes], float] = {}
    fired: dict[int, float] = {}
    for one in got:
        if one.topic == DEMAND_TOPIC and (match := _AS_OF.search(one.value)) and int(match[1]) in rounds:
            first.setdefault((rounds[int(match[1])], one.key), one.at_s)
        elif one.topic == ALERT_TOPIC:
            for item in lines_of(one.value):
                fired.setdefault(item, one.at_s)
    for (number, _), at_s in first.items():
        since_s = began_s + course.timing.rounds[number]
        found.forecasts.setdefault(number, []).append((at_s - since_s) * 1000)
    singles = set(course.timing.faults)
    for item, at_s in course.line_of.items():
        group = found.faults if at_s in singles else found.feeds
        if item in fired:
            group.setdefault(f"x {course.kind_of[item]:g}", []).append((fired[item] - began_s - at_s) * 1000)
    found.missing = {
        "forecasts": len(rounds) * course.shop.items - len(first),
        "alerts": sum(item not in fired for item in course.line_of),
    }
    return found


def lines_of(value: bytes) -> list[int]:
    """Items that a revision of an alert says are at fault."""
    alert = orjson.loads(value)
    if alert["status"] not in ("firing", "updated"):
        return []
    skus = [alert["sku"]] if alert.get("sku") else [line["sku"] for line in alert.get("items", [])]
    return [int(sku.removeprefix("SKU-")) for sku in skus]


def run(args: argparse.Namespace, stage: Stage) -> dict[str, Any]:
    """One run."""
    timing = Timing.of(args.warm_s, args.rounds, args.faults, args.feeds)
    shop = Assortment(args.items, args.partitions)
    base_ms = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS - DAY_MS + HOUR_MS + BOUND_MS + 1_000
    course = Course(timing, shop, base_ms)
    past = send_past(stage.kafka, shop, base_ms - 60_000, args.past_days, PAST_PRICES)
    worker = stage.start()
    wait_idle(worker, past)
    feed, reader = Feed(plan_of(args, stage, course)), Reader(stage.kafka, [DEMAND_TOPIC, ALERT_TOPIC])
    share, got, began_s = Share(stage.broker_pid), list[Got](), feed.start()
    seen: list[tuple[float, int]] = []

    def look() -> None:
        got.extend(reader.poll())
        if feed.at_s - (seen[-1][0] if seen else -9) > 1:
            seen.append((feed.at_s, feed.records))
            worker.check()

    feed.wait_until(timing.end_s, look, every_s=0.0005)
    while feed.at_s < timing.end_s + args.after_s and any(measured(course, got, began_s).missing.values()):
        feed.wait_until(feed.at_s + 0.5, look, every_s=0.0005)
    foreign, cpu = share.foreign(), worker.threads_cpu_s()
    sent = feed.stop()
    code, _ = worker.stop()
    reader.close()
    found = measured(course, got, began_s)
    return {
        "settings": {name: getattr(args, name) for name in ("rate", "items", "rounds", "faults", "feeds")},
        "sent": asdict(sent),
        "sent_per_s": round((seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0])),
        "foreign_share": foreign,
        "exit": code,
        "threads_cpu_s": cpu,
        **figures(found),
    }


def figures(found: Found) -> dict[str, Any]:
    """Percentiles of what was measured: pooled, and per round."""
    by_round = [percentiles(values) for values in found.forecasts.values()]
    faults = [value for values in found.faults.values() for value in values]
    feeds = [value for values in found.feeds.values() for value in values]
    return {
        "forecast_ms": percentiles([value for values in found.forecasts.values() for value in values]),
        "forecast_round_p50_ms": percentiles([one["p50"] for one in by_round]),
        "forecast_round_max_ms": percentiles([one["max"] for one in by_round]),
        "alert_ms": percentiles(faults),
        "alert_ms_by_fault": {kind: percentiles(values) for kind, values in found.faults.items()},
        "feed_ms": percentiles(feeds),
        "missing": found.missing,
    }


def goals(found: dict[str, Any]) -> list[Goal]:
    """What was promised."""

    def p99(name: str, missing: str) -> float | None:
        return found[name].get("p99") if not found["missing"][missing] else None

    series = found["settings"]["items"]
    return [
        Goal(
            f"event to forecast, {series} series due at once, p99", p99("forecast_ms", "forecasts"), FORECAST_MS, "ms"
        ),
        Goal("event to alert, single lines, p99", p99("alert_ms", "alerts"), ALERT_MS, "ms"),
        Goal(f"event to alert, {FEED_LINES} lines of a feed, p99", p99("feed_ms", "alerts"), ALERT_MS, "ms"),
    ]


def text(found: dict[str, Any], reached: list[Goal]) -> str:
    """For people."""
    names = ("forecast_ms", "forecast_round_p50_ms", "forecast_round_max_ms", "alert_ms", "feed_ms")
    lines = [
        f"{found['sent_per_s']:,} records/s sent, at most {found['sent']['late_ms']:.0f} ms late "
        f"(probes {found['sent']['probe_late_ms']:.0f} ms); {found['foreign_share']:.0%} of the machine was others'",
        *(f"{name}: {json.dumps(found[name])}" for name in names),
        *(f"  {kind}: {json.dumps(values)}" for kind, values in found["alert_ms_by_fault"].items()),
        f"missing: {json.dumps(found['missing'])}",
        *(goal.line for goal in reached),
    ]
    return "\n".join(lines)


SMALL = {"rate": 300, "items": 60, "rounds": 2, "faults": 2, "feeds": 0, "warm_s": 1.0, "after_s": 30.0, "past_days": 1}


def main() -> None:
    """Run it and print what was measured."""
    parser = arguments(__doc__)
    parser.add_argument("--rate", type=float, default=50_000)
    parser.add_argument("--items", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=60, help="refreshes, one every 2 s")
    parser.add_argument("--faults", type=int, default=100, help="single faults, one every 1.2 s")
    parser.add_argument("--feeds", type=int, default=5, help="faults of 50 lines, one every 12 s")
    args = parser.parse_args()
    args.warm_s, args.after_s, args.past_days = 10.0, AFTER_S, PAST_DAYS
    for name, value in SMALL.items() if args.small else ():
        setattr(args, name, value)
    if args.faults + FEED_LINES * args.feeds > args.items // 2:
        parser.error(f"faults need a line each: at most {args.items // 2} of {args.items} items have one")
    with stage(args, "latency") as made:
        found = {"machine": machine(), **run(args, made)}
    reached = goals(found)
    print(json.dumps({**found, "goals": goals_json(reached)}, indent=1) if args.json else text(found, reached))


if __name__ == "__main__":
    main()
