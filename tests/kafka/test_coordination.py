"""Findings of several shards, in whatever order they are read, through the coordinator on Kafka."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np
import orjson

from streams.events import Acknowledge, Snooze
from streams.kafka.coordination import SILENT_MS, Coordination
from streams.kafka.inbox import Slice
from streams.kafka.shard import Found, Mark
from streams.price_alerts import Candidate

NOW = 1_700_000_000_000


class Clock:
    """A machine's clock that stands where it is put."""

    def __init__(self) -> None:
        self.now_ms = NOW

    def __call__(self) -> int:
        """Epoch ms."""
        return self.now_ms


def found(shard: int, at_ms: int, sku: str = "TEA") -> Found:
    """A wrong price."""
    fault = Candidate(
        "fire", "decimal_shift", "low", sku, "default", "web", 1, 0.1, "GBP", at_ms, f"{sku}-{at_ms}", tick_ms=at_ms
    )
    return Found(shard, at_ms, candidate=fault)


def read(coordination: Coordination, *records: Found | Mark | bytes) -> None:
    """Give records to the coordinator."""
    values: list[bytes | None] = [r if isinstance(r, bytes) else msgspec.json.encode(r) for r in records]
    n = len(values)
    part = Slice("engine.candidates.v1", 0, values, [b"k"] * n, np.arange(n), np.full(n, NOW))
    asyncio.run(coordination.apply([part]))


def fired(coordination: Coordination) -> list[str]:
    """SKUs of alerts that were published since the last call, in order."""
    alerts = [orjson.loads(placed.output.value or b"") for placed in coordination.take_outputs()]
    return [sku for alert in alerts for sku in [alert.get("sku"), *(i["sku"] for i in alert.get("items", ()))] if sku]


def test_findings_are_judged_in_the_order_of_clocks_once_every_shard_has_passed_them() -> None:
    coordination = Coordination(Clock(), 2, by_record=True)
    read(coordination, found(0, NOW + 9_000, "LATER"), found(0, NOW, "FIRST"), Mark(0, NOW + 60_000, live=False))
    assert fired(coordination) == []  # the other shard may still have something earlier
    read(coordination, found(1, NOW + 4_000, "BETWEEN"), Mark(1, NOW + 60_000, live=False))
    assert fired(coordination) == ["FIRST", "BETWEEN", "LATER"]


def test_a_live_shard_is_not_waited_for_and_a_backlog_only_while_it_moves() -> None:
    clock = Clock()
    coordination = Coordination(clock, 2, by_record=False)
    read(coordination, Mark(0, NOW, live=True), Mark(1, NOW - 3_600_000, live=False), found(0, NOW, "TEA"))
    clock.now_ms = NOW + 5_000
    asyncio.run(coordination.tick(clock.now_ms))
    assert fired(coordination) == []
    read(coordination, Mark(1, NOW + 4_000, live=True))
    assert fired(coordination) == ["TEA"]
    read(coordination, Mark(1, NOW, live=False), found(0, NOW + 5_000, "MUG"))
    clock.now_ms += SILENT_MS + 5_000
    asyncio.run(coordination.tick(clock.now_ms))
    assert fired(coordination) == ["MUG"]


def test_what_waits_is_judged_by_the_next_owner() -> None:
    clock = Clock()
    one = Coordination(clock, 1, by_record=False)
    read(one, Mark(0, NOW - 1, live=False), found(0, NOW, "TEA"))
    records = {key: value for key, value in one.changes() if value is not None}
    other = Coordination(clock, 1, by_record=False)
    other.restore(records, one.clock_ms)
    clock.now_ms += 10_000
    read(other, Mark(0, clock.now_ms, live=True))
    clock.now_ms += 10_000
    asyncio.run(other.tick(clock.now_ms))
    assert fired(other) == ["TEA"]
    assert fired(one) == []


def test_what_is_no_finding_is_counted_and_disturbs_nobody() -> None:
    coordination = Coordination(Clock(), 1, by_record=True)
    read(coordination, b"{", b"", b"\xff", found(0, NOW), Mark(0, NOW + 60_000, live=False))
    assert (coordination.refused, fired(coordination)) == (3, ["TEA"])


def told(command: Acknowledge | Snooze, at_ms: int) -> Found:
    """A command that the first shard hands on."""
    return Found(0, at_ms, command=command)


def statuses(coordination: Coordination) -> list[tuple[str, str]]:
    """Fingerprint and status of revisions that were published since the last call."""
    alerts = [orjson.loads(placed.output.value or b"") for placed in coordination.take_outputs()]
    return [(alert["fingerprint"], alert["status"]) for alert in alerts]


def test_a_command_finds_published_what_was_due_before_it_however_much_is_judged_at_once() -> None:
    coordination = Coordination(Clock(), 1, by_record=True)
    read(coordination, found(0, NOW), Mark(0, NOW + 60_000, live=False))
    [(name, _)] = statuses(coordination)
    again = Coordination(Clock(), 1, by_record=True)
    seen = told(Acknowledge(event_id="a", event_time=NOW, fingerprint=name), NOW + 30_000)
    quiet = told(Snooze(event_id="s", event_time=NOW, fingerprint=name, until=NOW + 90_000), NOW + 40_000)
    read(again, found(0, NOW), seen, quiet, Mark(0, NOW + 120_000, live=False))
    assert statuses(again) == [(name, "firing"), (name, "acknowledged"), (name, "snoozed"), (name, "updated")]
    assert again.refused == 0


def test_of_the_time_that_shards_have_reached_more_may_follow() -> None:
    coordination = Coordination(Clock(), 2, by_record=True)
    read(coordination, found(1, NOW, "SECOND"), *(Mark(shard, NOW, live=False) for shard in range(2)))
    read(coordination, found(0, NOW, "FIRST"), *(Mark(shard, NOW + 60_000, live=False) for shard in range(2)))
    assert fired(coordination) == ["FIRST", "SECOND"]
