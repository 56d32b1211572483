"""A worker with the shipped encoder: the forecasts of a replay with it, but for the last bits of what a net sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson

from models.named import PRETRAINED, SHIPPED, forecaster_named
from streams.kafka.produce import produce
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import apply
from streams.outputs import DEMAND_TOPIC
from tests.kafka.reading import read_topics
from tests.kafka.test_worker_end_to_end import LOCKSTEP
from tests.kafka.weeks import Week, make_week, replayed
from tests.kafka.workers import Workers

DAYS, ITEMS = 9, 12
"""Two days more than a season: items have forecasts that rest on others first, and then on their own history."""


def forecasts(values: list[bytes]) -> dict[tuple[str, str, int, int], dict[str, Any]]:
    """By SKU, location, instant and revision."""
    told = [orjson.loads(value) for value in values]
    return {(one["sku"], one["location"], one["as_of"], one["revision"]): one for one in told}


def without_calendar(week: Week) -> Week:
    """The same without announced days: a shard knows all of them before it reads its first event."""
    return Week([record for record in week.records if b'"day_described"' not in record], {})


def test_forecasts_are_those_of_a_replay(kafka: KafkaSettings, tmp_path: Path) -> None:
    week = without_calendar(make_week(kafka.partitions, days=DAYS, items=ITEMS))
    encoder = forecaster_named(PRETRAINED, SHIPPED)
    outputs = replayed(week.records, kafka.partitions, forecaster=encoder)
    there = forecasts([one.value or b"" for one in outputs if one.topic == DEMAND_TOPIC])
    apply(kafka)
    workers = Workers(kafka, tmp_path, LOCKSTEP)
    try:
        produce([week.write(tmp_path / "week.jsonl")], kafka, poison=True)
        worker = workers.start(shop={"model__name": "pretrained"})
        workers.wait_committed(120)
        assert worker.stop() == 0
    finally:
        workers.close()
    here = forecasts([one.value or b"" for one in read_topics(kafka, (DEMAND_TOPIC,))[DEMAND_TOPIC]])
    assert here.keys() == there.keys()
    assert {one["model"] for one in here.values()} == {encoder.name}
    assert {one["basis"] for one in here.values()} == {"model", "cold_start"}
    for name in ("steps", "observed_in_open", "basis", "reason", "freq"):
        assert {key: one[name] for key, one in here.items()} == {key: one[name] for key, one in there.items()}, name
    gaps = np.concatenate([np.abs(np.subtract(here[key]["mean"], there[key]["mean"])) for key in here])
    assert gaps.max() < 1e-3
    gaps = np.concatenate(
        [np.abs(np.subtract(here[key]["quantiles"], there[key]["quantiles"])).ravel() for key in here]
    )
    assert gaps.max() <= 1  # whole units: what lay near a half may be rounded the other way
    assert (gaps > 1e-3).mean() < 1e-3
