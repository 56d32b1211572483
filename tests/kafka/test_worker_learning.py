"""What workers that are killed have learned in the end is, byte for byte, what a replay of the same records learns.

Records alone move time here, and wait for the forecasts that they make due, so that nothing depends on when a worker
died: each forecast rests on what a replay's does and waits for the same bucket. Where workers do not wait, that is not
so; what must hold then is in `load_tests.kafka.learned`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from streams.files import EventWriter
from streams.kafka.ledger import Ledger
from streams.kafka.produce import produce
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import apply
from streams.state import unpack
from tests.kafka.test_worker_end_to_end import LOCKSTEP, SHARDS
from tests.kafka.weeks import make_days, played
from tests.kafka.workers import Workers, committed
from tests.program import wait_for

DAYS, ITEMS, KILLS = 17, 8, 3


def learned(records: Mapping[str, bytes | None]) -> dict[str, Any]:
    """Records of a learner; rows of series that came later than a block was written are zeros, or not there."""
    payloads = {key: unpack(key, value) for key, value in records.items() if value and key.startswith("learner/")}
    return {
        key: {**payload, "cells": payload["cells"].rstrip(b"\0")} if "cells" in payload else payload
        for key, payload in payloads.items()
    }


def has_committed(kafka: KafkaSettings, records: int) -> bool:
    """Whether so many records are contained in committed state."""
    return sum(committed(kafka).values()) >= records


def test_workers_killed_on_the_way_have_learned_what_a_replay_learns(kafka: KafkaSettings, tmp_path: Path) -> None:
    records = make_days(SHARDS, DAYS, ITEMS)
    engines = played(records, SHARDS, lambda _: None, prices="off").engines
    wanted = [learned(dict(engine.changes())) for engine in engines]
    assert all(engine.learning.learner.scores["model"].totals()["outcomes"] > 0 for engine in engines)
    apply(kafka)
    with EventWriter(tmp_path / "days.jsonl") as out:
        out.write(records)
    produce([tmp_path / "days.jsonl"], kafka)
    workers = Workers(kafka, tmp_path, {**LOCKSTEP, "commit_interval_ms": 10, "chunk_rows": 100})
    shop = {"model__prices": "off"}
    try:
        for kill in range(1, KILLS + 1):
            worker, mark = workers.start("worker", shop=shop), len(records) * kill // (KILLS + 1)
            wait_for(partial(has_committed, kafka, mark), f"commits of {mark} records", 120)
            worker.kill()
            assert not has_committed(kafka, len(records)), "it was killed on its way"
        last = workers.start("worker", shop=shop)
        workers.wait_committed(120)
        assert last.stop() == 0
    finally:
        workers.close()
    for shard in range(SHARDS):
        found = learned(Ledger(kafka, f"shard-{shard}", shard).read(20)[0])
        assert [key for key in wanted[shard] if found.get(key) != wanted[shard][key]] == []
        assert found.keys() == wanted[shard].keys()
        assert [key for key in found if key.startswith("learner/model/")]
