"""The balance of what is learned sees what it is there to see: a restart is broken in each way, on purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytest

from load_tests.kafka.arena import Setting
from load_tests.kafka.learned import Balance
from load_tests.kafka.shop_load import Shop
from streams.decode import decode
from streams.engine import Engine
from streams.events import EventBatch

CONFIG = Setting(1).engine
STEP_MS, RECORDS, CHUNK = 12_000, 16_000, 250
KILLED = 48
"""Commits before the kill: 40 hours, so that all horizons but the longest were met."""

Topic = dict[str, bytes]


@dataclass(frozen=True)
class Life:
    """A shard up to a kill: its records at the last commits, oldest first, and what comes after."""

    topics: list[Topic]
    rest: list[EventBatch]


def batches() -> list[EventBatch]:
    """Records of 53 hours of a small shop, in chunks, each of which is committed."""
    made = list(islice(Shop(3, "record", 1, STEP_MS, skus=8).records(), RECORDS))
    out = []
    for start in range(0, len(made), CHUNK):
        batch, _ = decode([one.value for one in made[start : start + CHUNK]], clock_ms=1 << 61)
        batch.tick_ms[:] = np.maximum.accumulate(batch.time_ms)
        out.append(batch)
    return out


def commit(engine: Engine, topic: Topic) -> Topic:
    """The live records after another commit."""
    merged = {**topic, **dict(engine.changes())}
    return {key: value for key, value in merged.items() if value is not None}


@pytest.fixture(scope="module")
def life() -> Life:
    engine, topics, every = Engine(CONFIG), [Topic()], batches()
    for batch in every[:KILLED]:
        engine.process(batch)
        topics.append(commit(engine, topics[-1]))
    return Life(topics, every[KILLED:])


def gone_on(life: Life, restored: Topic) -> Balance:
    """The balance of a shard that goes on with these records, though others were committed."""
    topic, balance, engine = life.topics[-1], Balance(CONFIG), Engine(CONFIG)
    balance.take(topic)
    engine.restore(restored)
    for batch in life.rest:
        engine.process(batch)
        topic = commit(engine, topic)
        balance.take(topic)
    return balance


def faults(life: Life, restored: Topic) -> list[str]:
    """What it finds; demand is that of the shard that restores all it should."""
    sound = Engine(CONFIG)
    sound.restore(life.topics[-1])
    for batch in life.rest:
        sound.process(batch)
    return gone_on(life, restored).faults(sound)


def test_a_shard_that_restores_what_was_committed_keeps_the_balance(life: Life) -> None:
    balance, engine = Balance(CONFIG), Engine(CONFIG)
    for topic in life.topics[1:]:
        balance.take(topic)
    engine.restore(life.topics[-1])
    assert balance.faults(engine) == []
    assert balance.outcomes > 200
    assert balance.steps > 40
    assert balance.doubtful == 0
    assert faults(life, life.topics[-1]) == []


def without(head: str) -> Callable[[Life], Topic]:
    return lambda life: {key: value for key, value in life.topics[-1].items() if not key.startswith(head)}


def older(head: str) -> Callable[[Life], Topic]:
    """Records of a kind as they were some commits before, three hours and a bucket that was met."""
    return lambda life: {**life.topics[-1], **{k: v for k, v in life.topics[-6].items() if k.startswith(head)}}


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (without("learner/model/"), "were met, and -"),
        (without("learner/cells/"), "outcomes wait for a bucket that is final"),
        (without("learner/sums/"), "learning sums of 7: "),
        (older("learner/model/"), "outcomes were met, and "),
        (older("learner/cells/"), "outcomes were met, and "),
    ],
    ids=["nothing learned", "no forecasts wait", "no sums wait", "some lost", "some twice"],
)
def test_a_restart_that_loses_or_repeats_is_seen(life: Life, broken: Callable[[Life], Topic], sentence: str) -> None:
    said = faults(life, broken(life))
    assert any(sentence in text for text in said), said
