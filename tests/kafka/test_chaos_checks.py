"""The checks of the chaos runs see what they are there to see: each promise is broken once, on purpose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import orjson
import pytest
from confluent_kafka import Producer

from load_tests.kafka.oracle import Expected, RawRecords, differences, held
from load_tests.kafka.published import broken_promises
from load_tests.kafka.segments import Batch, backwards, batches, committed, endings
from load_tests.kafka.shop_load import HOUR_MS, Made, Shop
from streams.calendar import Width
from streams.decode import decode
from streams.engine import Engine, EngineConfig
from streams.kafka.broker import LocalBroker
from streams.kafka.settings import KafkaSettings
from streams.kafka.shard import CANDIDATES_TOPIC
from streams.kafka.topics import apply
from streams.outputs import ALERT_TOPIC, DEADLETTER_TOPIC, DEMAND_TOPIC, TRIGGER_TOPIC
from streams.price_forecast import PRICE_TOPIC
from tests.kafka.reading import Found

CONFIG = EngineConfig(max_series=200, width=Width.HOUR, base_currency="EUR")
CLOCK_MS = 1 << 61
RECORDS = 15_000

NONE: Mapping[str, str] = {}


def shop() -> list[Made]:
    """Records of two and a half hours, all in one partition."""
    return list(islice(Shop(3, "record", 1, skus=12).records(), RECORDS))


def played(made: Sequence[Made]) -> Expected:
    """What an engine holds after these records."""
    engine = Engine(CONFIG)
    for start in range(0, len(made), 500):
        batch, _ = decode([one.value for one in made[start : start + 500]], clock_ms=CLOCK_MS)
        batch.tick_ms[:] = np.maximum.accumulate(batch.time_ms)
        engine.process(batch)
    return held(engine)


def expected(made: Sequence[Made]) -> Expected:
    """What the oracle says of them."""
    raw, numbers = RawRecords(1, HOUR_MS), count()
    offsets: dict[str, int] = {}
    for one in made:
        raw.take((one.topic, 0), next(numbers), one.value)
        offsets[one.topic] = RECORDS + 1
    assert raw.reaches(0, {"shop.orders.v1": 1})
    return raw.expected(0, offsets)


@pytest.fixture(scope="module")
def made() -> list[Made]:
    """Records of a shop."""
    return shop()


@pytest.fixture(scope="module")
def wanted(made: list[Made]) -> Expected:
    """What they must come to."""
    return expected(made)


def test_an_engine_that_has_them_all_once_agrees_with_the_oracle(made: list[Made], wanted: Expected) -> None:
    assert differences(played(made), wanted) == []
    assert wanted.counts["duplicate"] > 100
    assert wanted.counts["late"] > 5
    assert wanted.counts["lost"] > 5
    finals = {bucket for _, _, bucket in wanted.cells}
    assert len(finals) > 2


def first(made: list[Made], kind: str) -> int:
    """Row of a record of a kind, past the opening."""
    return next(n for n, one in enumerate(made) if n > 5_000 and f'"type":"{kind}"'.encode() in one.value)


def renamed(one: Made) -> Made:
    """The same event under another id, as if the first had not been remembered."""
    event = orjson.loads(one.value)
    return replace(one, value=orjson.dumps({**event, "event_id": "n-9999999"}))


@pytest.mark.parametrize("kind", ["order_placed", "order_cancelled", "item_viewed", "cart_added"])
def test_one_event_too_few_or_counted_twice_is_seen(made: list[Made], wanted: Expected, kind: str) -> None:
    at = first(made, kind)
    lost = [*made[:at], *made[at + 1 :]]
    twice = [*made[: at + 1], renamed(made[at]), *made[at + 1 :]]
    for wrong in (lost, twice):
        said = " ".join(differences(played(wrong), wanted))
        assert "counted as accepted" in said or "counted as duplicate" in said
        assert "of the" not in said
        assert "panes differ" in said


def test_offsets_that_are_ahead_of_the_state_are_seen(made: list[Made]) -> None:
    raw = RawRecords(1, HOUR_MS)
    offsets = dict.fromkeys({one.topic for one in made}, 0)
    for one in made:
        raw.take((one.topic, 0), offsets[one.topic], one.value)
        offsets[one.topic] += 1
    orders = [one for one in made if one.topic == "shop.orders.v1"]
    short = [one for one in made if one is not orders[-1]]
    assert differences(played(made), raw.expected(0, offsets)) == []
    assert differences(played(short), raw.expected(0, offsets)) != []
    before = {**offsets, "shop.orders.v1": offsets["shop.orders.v1"] - 1}
    assert differences(played(short), raw.expected(0, before)) == []


# -- outputs


def found(value: object, name: str = "", partition: int = 0, headers: Mapping[str, str] = NONE) -> Found:
    """A record of an output topic."""
    told = {"ce_id": name, **headers}
    return Found(partition, 0, b"key", orjson.dumps(value), 0, {key: text.encode() for key, text in told.items()})


def letter(offset: int, stage: str) -> Found:
    """A dead letter of the first partition of orders."""
    head = "__streams.errors."
    origin = {f"{head}topic": "t.shop.orders.v1", f"{head}partition": "0", f"{head}offset": str(offset)}
    return found(None, headers={**origin, "x-stage": stage})


def forecast(as_of: int, name: str, sku: str = "sku-0", partition: int = 0) -> Found:
    """A forecast of a series."""
    return found({"sku": sku, "as_of": as_of, "revision": 1}, name, partition)


LOST = {("shop.orders.v1", 0, 7): "late", ("shop.orders.v1", 0, 9): "lost"}
WHOLE = {
    ALERT_TOPIC: [found(1, "a-1"), found(2, "a-2")],
    TRIGGER_TOPIC: [found(1, "r-1")],
    DEMAND_TOPIC: [forecast(1, "f-1"), forecast(2, "f-2")],
    PRICE_TOPIC: [forecast(1, "p-1"), forecast(2, "p-2")],
    CANDIDATES_TOPIC: [found({"shard": 0, "clock_ms": 5}), found({"shard": 1, "clock_ms": 3})],
    DEADLETTER_TOPIC: [letter(7, "late"), letter(9, "decode")],
}
"""Outputs with which nothing is wrong."""


def wrong() -> Iterator[tuple[str, str, Found]]:
    """What is broken, the topic, and the record that breaks it."""
    yield "1 ids of alerts.price.v1 come more than once, 1 of them with more than one", ALERT_TOPIC, found(3, "a-1")
    yield "1 ids of alerts.price.v1 come more than once, 0 of them", ALERT_TOPIC, found(1, "a-1")
    yield "1 ids of replenishment.trigger.v1 come more than once", TRIGGER_TOPIC, found(1, "r-1")
    yield "1 forecasts follow newer ones", DEMAND_TOPIC, forecast(1, "f-3")
    yield "1 forecasts lie in the partition of another", DEMAND_TOPIC, forecast(9, "f-4", "sku-1")
    yield "1 ids of forecast.price.v1 come more than once", PRICE_TOPIC, forecast(3, "p-1")
    yield "1 forecasts follow newer ones", PRICE_TOPIC, forecast(1, "p-3")
    yield "the clock of shard 0 went back 1 times", CANDIDATES_TOPIC, found({"shard": 0, "clock_ms": 4})
    yield "1 records are dead letters and must not be", DEADLETTER_TOPIC, letter(8, "late")
    yield "1 records are dead letters more than once", DEADLETTER_TOPIC, letter(7, "late")
    yield "1 dead letters are of a wrong stage", DEADLETTER_TOPIC, letter(9, "late")


def kafka_of(partitions: int = 2) -> KafkaSettings:
    """Settings; nothing is asked of Kafka."""
    return KafkaSettings(topic_prefix="t.", partitions=partitions)


def test_whole_outputs_break_no_promise() -> None:
    assert broken_promises(kafka_of(), WHOLE, LOST) == []


@pytest.mark.parametrize(("sentence", "topic", "record"), list(wrong()))
def test_a_broken_promise_is_named(sentence: str, topic: str, record: Found) -> None:
    said = broken_promises(kafka_of(), {**WHOLE, topic: [*WHOLE[topic], record]}, LOST)
    assert any(text.startswith(sentence) for text in said), said


def test_a_dead_letter_that_is_missing_is_named() -> None:
    said = broken_promises(kafka_of(), {**WHOLE, DEADLETTER_TOPIC: []}, LOST)
    assert said[0].startswith("2 records are no dead letters and must be")


# -- the broker's files


def batch(first: int, epoch: int, marker: str = "", producer: int = 1) -> Batch:
    """A batch of one record in a transaction, or a marker."""
    return Batch(first, first, producer, epoch, marker, transactional=True, written_ms=0)


def test_only_what_was_committed_by_an_older_epoch_goes_backwards() -> None:
    fine = [batch(0, 0), batch(1, 1, "abort"), batch(2, 1), batch(3, 1, "commit")]
    assert backwards(fine) == []
    assert [one.first for one in committed(fine)] == [2]
    assert endings(fine) == {"commit": 1, "abort": 1}
    zombie = [*fine, batch(4, 0), batch(5, 1, "commit")]
    assert backwards(zombie) == ["offset 4 of producer 1 is of epoch 0, after 1"]


def test_files_tell_producers_and_how_their_transactions_ended(broker: LocalBroker, kafka: KafkaSettings) -> None:
    apply(kafka)
    topic = kafka.topic("shop.reviews.v1")
    for commits in (True, False, True):
        producer = Producer({**kafka.librdkafka(), "transactional.id": f"{kafka.topic_prefix}x", "linger.ms": 0})
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce(topic, b"one", partition=0)
        producer.produce(topic, b"two", partition=0)
        producer.flush(20)
        producer.commit_transaction(20) if commits else producer.abort_transaction(20)
    plain = Producer({**kafka.librdkafka()})
    plain.produce(topic, b"plain", partition=0)
    assert plain.flush(20) == 0
    seen = batches(Path(broker.folder) / "data", topic, 0)
    assert endings(seen) == {"commit": 2, "abort": 1}
    assert [one.epoch for one in committed(seen)] == sorted({one.epoch for one in committed(seen)})
    assert sum(one.last - one.first + 1 for one in committed(seen)) == 4
    assert (seen[-1].producer, seen[-1].transactional) == (-1, False)
    assert backwards(seen) == []
