"""Workers killed, frozen and replaced under load, a broker that goes away: nothing is lost, nothing counted twice.

Each test ends with `Arena.finish`: committed state against the raw records, what was learned from commit to commit,
outputs against what readers rely on, and the broker's own files. `python -m load_tests.chaos` does the same for longer.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from load_tests.kafka.arena import Arena, Setting
from load_tests.kafka.hardships import (
    Crew,
    broker_away,
    disk_full,
    in_learning,
    in_rebalance,
    in_recovery,
    kills,
    scale,
    zombie,
)
from load_tests.kafka.shop_load import PAST_RECORDS, SLOW_STEP_MS
from streams.kafka.broker import LocalBroker
from streams.kafka.settings import KafkaSettings

RATE = 1_000
DISK_BYTES = 16 << 20


def test_workers_come_go_and_are_killed(broker: LocalBroker, kafka: KafkaSettings, tmp_path: Path) -> None:
    with Arena(kafka, tmp_path, Setting(seed=1, rate=RATE)) as arena:
        crew = Crew(arena, "w0")
        scale(crew)  # 1, 3, 2
        in_recovery(crew)
        in_rebalance(crew)
        kills(crew, 1, check_every=1)
        figures = arena.finish(broker.folder / "data")
    assert arena.broken == []
    assert arena.deaths.total() == 4
    assert figures["replenishment.trigger.v1"] > 0
    assert figures["alerts.price.v1"] > 0
    assert figures["forecast.demand.v1"] > 0


def test_workers_that_are_killed_learn_each_outcome_once(
    broker: LocalBroker, kafka: KafkaSettings, tmp_path: Path
) -> None:
    """What must be equal, and why it is no other run's: `load_tests.kafka.learned`."""
    with Arena(kafka, tmp_path, Setting(seed=4, rate=RATE, past=PAST_RECORDS)) as arena:
        in_learning(Crew(arena, "w0", "w1"), 4)
        figures = arena.finish(broker.folder / "data")
    assert arena.broken == []
    assert arena.deaths.total() == 4
    assert figures["learning outcomes"] > 300, "every shard learned a hundred after the kills"
    assert figures["learning steps"] > 3 * figures["learning doubtful"], "most balances are exact"


def test_a_worker_that_was_frozen_is_shut_out_and_ends(
    broker: LocalBroker, kafka: KafkaSettings, tmp_path: Path
) -> None:
    with Arena(kafka, tmp_path, Setting(seed=2, clock="wall", rate=RATE, step_ms=SLOW_STEP_MS)) as arena:
        found = zombie(Crew(arena, "w0", "w1"))
        arena.finish(broker.folder / "data")
    assert arena.broken == []
    assert found["others ended"] == 0


def test_a_broker_that_is_killed_goes_away_and_runs_out_of_disk(
    own_broker: Callable[..., LocalBroker], tmp_path: Path
) -> None:
    broker = own_broker(launcher=("prlimit", f"--fsize={DISK_BYTES}"))
    broker.up()
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap, application_id="a", topic_prefix="a.", partitions=2)
    with Arena(kafka, tmp_path / "workers", Setting(seed=3, rate=RATE, step_ms=SLOW_STEP_MS)) as arena:
        crew = Crew(arena, "w0", "w1")
        broker_away(crew, broker, 2.0)
        disk_full(crew, broker)
        arena.finish(broker.folder / "data")
    assert arena.broken == []


@pytest.mark.usefixtures("java")
def test_the_command_of_the_chaos_runs_tells_what_it_found() -> None:
    command = [sys.executable, "-m", "load_tests.chaos", "--kills", "1", "--clock", "record", "--seed", "1", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=300)
    assert done.returncode == 0, done.stderr
    [found] = json.loads(done.stdout)
    assert found["checks"] > 0
