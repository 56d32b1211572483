"""Decisions of a small shop, and how an engine would write them: in transactions that commit, abort or stay open."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Producer

from shelftide.cli import run
from streams.alert_revisions import GroupStanding, group_revision, line_revision
from streams.engine import EngineConfig
from streams.files import read_records
from streams.kafka.settings import KafkaSettings
from streams.outputs import ALERT_TOPIC, Output
from streams.partition import murmur2_partition
from streams.price_alerts import Candidate, Expected
from streams.replay import Replay, ReplayConfig

PARTITIONS = 3
NONE: Mapping[str, Any] = {}


def decided(folder: Path) -> list[Output]:
    """Forecasts and triggers of ten days; the folder takes the events."""
    events = folder / "events.jsonl"
    size = ["--days", "10", "--items", "12", "--start", "2024-01-01"]
    assert run(["simulate", *size, "--out", str(events), "--json"]) == 0
    out: list[Output] = []
    config = ReplayConfig(EngineConfig(max_series=100), clock_ms=time.time_ns() // 1_000_000, forecasts="daily")
    player = Replay(config, out.extend)
    for chunk in read_records(events):
        player.feed(chunk)
    player.finish()
    return out


def alerts() -> list[Output]:
    """Revisions of an alert on one line, and of one on a feed."""
    expected = Expected(9.5, 9.99, 10.5, "empirical", 120)
    one = Candidate(
        "fire", "decimal_shift", "low", "TEA", "default", "web", 1, 0.999, "GBP", 5, "e1", expected=expected,
        p_value=0.0001, units_at_risk=40.0, money_at_risk=360.0, evidence=(9.99, 10, 9.99),
    )  # fmt: skip
    hit = [Candidate("fire", "zero_or_negative", "zero", s, "default", "", 1, 0.0, "GBP", 5, s) for s in "abc"]
    values = [
        ("f1", 1, line_revision("f1", 1, "firing", one, one, 5, 1000.0)),
        ("f1", 2, line_revision("f1", 2, "resolved", one, one, 5, 1000.0, superseded_by="g1")),
        ("g1", 1, group_revision(GroupStanding("g1", 1, "firing", 7, 5), hit, 1000.0)),
    ]
    return [Output(ALERT_TOPIC, name.encode(), value, f"{name}-{n}", 5) for name, n, value in values]


class Writer:
    """Writes outputs to their topics."""

    def __init__(self, kafka: KafkaSettings, *, transactional: bool = True, settings: Mapping[str, Any] = NONE) -> None:
        self._kafka = kafka
        self._transactional = transactional
        name = {"transactional.id": f"{kafka.topic_prefix}writer"} if transactional else {}
        self._producer = Producer({**kafka.librdkafka(), **name, "linger.ms": 0, "log_level": 0, **settings})
        if transactional:
            self._producer.init_transactions(20)

    def write(self, outputs: Iterable[Output]) -> None:
        """Write and commit."""
        self.begin(outputs)
        self.commit()

    def begin(self, outputs: Iterable[Output]) -> None:
        """Write, and leave the transaction open."""
        if self._transactional:
            self._producer.begin_transaction()
        for one in outputs:
            partition = murmur2_partition(one.key or b"", PARTITIONS)
            topic = self._kafka.topic(one.topic)
            self._producer.produce(topic, one.value, one.key, partition, headers=list(one.headers))
        self._producer.flush(20)

    def commit(self) -> None:
        """End what `begin` began."""
        if self._transactional:
            self._producer.commit_transaction(20)

    def abort(self) -> None:
        """Undo what `begin` began."""
        self._producer.abort_transaction(20)


def value_of(output: Output) -> Any:
    """The value as JSON has it."""
    return orjson.loads(output.value or b"null")
