"""A simulated week in which everything happens, and what a replay makes of it: what workers have to come to as well.

In: nothing. Out: `Week`: records in order of arrival; outputs of an in-process replay by topic.
Must not know: workers, brokers. Rule: what comes back to the shop (acknowledged triggers, silenced alerts) names what a
first replay of the same week gave.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from models.forecast import Forecaster
from shelftide.settings import Settings
from streams.files import EventWriter
from streams.outputs import ALERT_TOPIC, DEADLETTER_TOPIC, DEMAND_TOPIC, TRIGGER_TOPIC, Output
from streams.partition import Partitioner
from streams.price_forecast import PRICE_TOPIC
from streams.replay import Replay, ReplayConfig, Written
from streams.shop import Shop
from tests.kafka.workers import SHOP

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
OUTPUTS = (DEMAND_TOPIC, PRICE_TOPIC, TRIGGER_TOPIC, ALERT_TOPIC, DEADLETTER_TOPIC)
POISON = (b"not json", b'{"type":"order_placed"', b'{"type":"nothing of ours","event_id":"n1","event_time":1}')

Event = dict[str, Any]
Content = tuple[bytes | None, bytes | None]
"""Key and value of an output; of a dead letter its stage and value, for a replay has no keys."""


@dataclass(frozen=True)
class Week:
    """A week and its outcome.

    Attributes
    ----------
    records
        Events in order of arrival.
    outputs
        Topic -> content -> how often, as a replay with as many shards gave them.
    """

    records: list[bytes]
    outputs: dict[str, Counter[Content]]

    def write(self, file: Path, start: float = 0.0, stop: float = 1.0) -> Path:
        """Write a part of the week as a file."""
        count = len(self.records)
        with EventWriter(file) as out:
            out.write(self.records[int(start * count) : int(stop * count)])
        return file


def make_week(shards: int, *, days: int = 7, items: int = 32, seed: int = 5) -> Week:
    """A week of a shop with price faults, one of them of the whole feed, answers to its alerts and triggers, poison."""
    shop = Shop(items, seed, days=days)
    records = [record for day in range(days) for record in shop.day(day)]
    records = _with(records, [*_faults(records), *_poison(records)])
    records += _last_of_each_shard(records, shards)
    first = replayed(records, shards, "last")
    records = _with(records, _answers(first))
    return Week(records, contents(replayed(records, shards)))


def make_days(shards: int, days: int, items: int, seed: int = 5) -> list[bytes]:
    """Days of a shop in which nothing in particular happens, in order of arrival."""
    shop = Shop(items, seed, days=days)
    records = [record for day in range(days) for record in shop.day(day)]
    return records + _last_of_each_shard(records, shards)


def replayed(
    records: Sequence[bytes], shards: int, forecasts: Written = "all", forecaster: Forecaster | None = None
) -> list[Output]:
    """Outputs of a replay in this process."""
    out: list[Output] = []
    played(records, shards, out.extend, forecasts, forecaster)
    return out


def played(
    records: Sequence[bytes],
    shards: int,
    write: Callable[[list[Output]], None],
    forecasts: Written = "last",
    forecaster: Forecaster | None = None,
    **model: str,
) -> Replay:
    """A replay in this process that has come to its end; `model` are settings of the shop's model."""
    engine = Settings.model_validate({**SHOP, "max_series": int(SHOP["max_series"]), "model": model}).engine()
    config = ReplayConfig(engine, clock_ms=time.time_ns() // 1_000_000, shards=shards, forecasts=forecasts)
    player = Replay(config, write, forecaster)
    for start in range(0, len(records), 10_000):
        player.feed(records[start : start + 10_000])
    player.finish()
    return player


def contents(outputs: Iterable[Output]) -> dict[str, Counter[Content]]:
    """Outputs by topic and content."""
    found: dict[str, Counter[Content]] = defaultdict(Counter)
    for output in outputs:
        key = dict(output.headers)["x-stage"] if output.topic == DEADLETTER_TOPIC else output.key
        found[output.topic][key, output.value] += 1
    return found


def _with(records: Sequence[bytes], more: Iterable[tuple[int, bytes]]) -> list[bytes]:
    """Records with others in between, each behind the last event that is older."""
    newest, placed = 0, []
    for record in records:
        newest = max(newest, _time_ms(record))
        placed.append((newest, record))
    return [record for _, record in sorted([*placed, *more], key=lambda entry: entry[0])]


def _time_ms(record: bytes) -> int:
    try:
        return int(orjson.loads(record)["event_time"])
    except (orjson.JSONDecodeError, KeyError):
        return 0


def _faults(records: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """On the fifth day the whole feed is a hundredth for ten minutes; prices are wrong on the fourth and sixth."""
    start_ms = _time_ms(records[0])
    at_ms = start_ms + 4 * DAY_MS + 10 * HOUR_MS
    listed: dict[tuple[str, str, str], Event] = {}
    for event in map(orjson.loads, records):
        if event["type"] == "price_set" and event["event_time"] < at_ms and "effective_from" not in event:
            listed[event["sku"], event.get("location", ""), event.get("channel", "")] = event
    made = []
    for n, event in enumerate(listed.values()):
        made.append(_priced(event, f"feed-{n}", at_ms + 150 * n, round(event["price"] / 100, 2)))
        made.append(_priced(event, f"mended-{n}", at_ms + 600_000 + 150 * n, event["price"]))
    single = list(listed.values())[:6]
    for n, event in enumerate(single):
        day = 3 if n % 2 else 5
        made.append(_priced(event, f"single-{n}", start_ms + day * DAY_MS + 12 * HOUR_MS + n * 60_000, 0.01))
        if n < 4:
            after_ms = start_ms + day * DAY_MS + 15 * HOUR_MS + n * 60_000
            made.append(_priced(event, f"single-mended-{n}", after_ms, event["price"]))
    return made


def _priced(event: Event, event_id: str, at_ms: int, price: float) -> tuple[int, bytes]:
    return at_ms, orjson.dumps(event | {"event_id": event_id, "event_time": at_ms, "price": price})


def _poison(records: Sequence[bytes]) -> list[tuple[int, bytes]]:
    start_ms = _time_ms(records[0])
    return [(start_ms + (n + 1) * DAY_MS, record) for n, record in enumerate(POISON)]


def _last_of_each_shard(records: Sequence[bytes], shards: int) -> list[bytes]:
    """One more event for each shard in the week's last second: every shard's clock then ends where a replay's does."""
    last_ms = max(map(_time_ms, records)) + 60_000
    skus = sorted({event["sku"] for event in map(orjson.loads, filter(_time_ms, records)) if "sku" in event})
    of = Partitioner("murmur2", shards).of(skus).tolist()
    return [
        orjson.dumps({
            "type": "item_viewed", "event_id": f"last-{shard}", "event_time": last_ms, "sku": skus[of.index(shard)],
            "session_id": "last",
        })
        for shard in range(shards)
    ]  # fmt: skip


def _answers(outputs: Iterable[Output]) -> list[tuple[int, bytes]]:
    """What people and systems said to triggers and alerts, half an hour after each."""
    made = []
    for n, output in enumerate(outputs):
        at_ms = output.time_ms + HOUR_MS // 2
        value = orjson.loads(output.value or b"{}") if output.topic in (TRIGGER_TOPIC, ALERT_TOPIC) else {}
        told: Event = {"event_id": f"answer-{n}", "event_time": at_ms}
        if output.topic == TRIGGER_TOPIC and value["status"] == "open":
            status = ("accepted", "rejected", "received")[n % 3]
            told |= {"type": "ack", "idempotency_key": value["idempotency_key"], "status": status}
        elif output.topic == ALERT_TOPIC and value["status"] == "firing" and n % 2:
            told |= {"type": "acknowledge", "fingerprint": value["fingerprint"]}
        elif output.topic == ALERT_TOPIC and value["status"] == "firing":
            told |= {"type": "snooze", "fingerprint": value["fingerprint"], "until": at_ms + HOUR_MS}
        else:
            continue
        made.append((at_ms, orjson.dumps(told)))
    return made
