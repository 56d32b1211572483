"""Files of events on a real Kafka: topics, keys, partitions, timestamps, the schedule, and how it ends."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from xxhash import xxh3_64_hexdigest

from shelftide.cli import run
from streams.decode import TOPICS, decode
from streams.files import read_records
from streams.kafka.addresses import Addresses
from streams.kafka.broker import LocalBroker, free_port
from streams.kafka.produce import QUEUE_MESSAGES, Sender, produce
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import apply
from streams.partition import PartitionerName, crc32_partition, murmur2_partition
from streams.replay_clock import ReplayClock
from tests.hostile import CLOCK_MS, HOSTILE, TYPES, event
from tests.kafka.reading import Found, read_all, read_topics
from tests.program import finished, started, wait_for

ITEM_TOPICS = ("shop.orders.v1", "shop.clicks.v1", "shop.prices.v1", "shop.stock.v1", "shop.catalog.v1",
               "shop.reviews.v1")  # fmt: skip
INPUTS = (*ITEM_TOPICS, "shop.calendar.v1", "engine.command.v1", "replenishment.ack.v1")


@pytest.fixture
def kafka(broker: LocalBroker, prefix: str) -> KafkaSettings:
    """A shop of its own with all its topics."""
    settings = KafkaSettings(bootstrap_servers=broker.bootstrap, topic_prefix=prefix, partitions=3)
    apply(settings)
    return settings


def found_on(kafka: KafkaSettings) -> dict[str, list[Found]]:
    """Everything on the input topics."""
    return {topic: found for topic, found in read_topics(kafka, INPUTS).items() if found}


def written(path: Path, records: list[bytes]) -> Path:
    """A file of records."""
    path.write_bytes(b"\n".join(records))
    return path


def orders(count: int) -> list[bytes]:
    """Valid orders, each with an id of its own."""
    return [event(event_id=f'"e{n}"', sku=f'"SKU-{n % 50}"') for n in range(count)]


# -- where records go


@pytest.mark.parametrize(("partitioner", "rule"), [("murmur2", murmur2_partition), ("crc32", crc32_partition)])
def test_every_type_goes_to_its_topic_under_the_key_and_into_the_partition_of_the_contract(
    partitioner: PartitionerName, rule: Callable[[bytes, int], int], kafka: KafkaSettings, tmp_path: Path
) -> None:
    skus = [f"item {n}" for n in range(20)]
    records = [event(kind, sku=json.dumps(sku)) for sku in skus for kind in TYPES]
    records += [event("day_described", location='"50 % off"'), event("day_described", location='"north"')]
    produced = produce([written(tmp_path / "e", records)], kafka, partitioner=partitioner)
    assert (produced.sent, produced.acknowledged, produced.left_out) == (len(records), len(records), 0)
    found = found_on(kafka)
    assert produced.by_topic == {topic: len(there) for topic, there in sorted(found.items())}
    for topic in ITEM_TOPICS:
        assert {record.key for record in found[topic]} == {sku.encode() for sku in skus}
        assert all(record.partition == rule(record.key or b"", 3) for record in found[topic])
    keys = {topic: {record.key for record in found[topic]} for topic in found if topic not in ITEM_TOPICS}
    assert keys == {
        "shop.calendar.v1": {b"2026-12-25|", b"2026-12-25|50%20%25%20off", b"2026-12-25|north"},
        "engine.command.v1": {b"e1"},
        "replenishment.ack.v1": {b"rt_1"},
    }


def test_a_shop_lies_on_kafka_as_in_its_file_stamped_with_the_ticks_of_a_replay(
    shop: Path, kafka: KafkaSettings
) -> None:
    records = [record for chunk in read_records(shop) for record in chunk]
    produced = produce([shop], kafka)
    assert (produced.acknowledged, produced.failed, produced.behind_s) == (len(records), 0, 0.0)
    batch, letters = decode(records, clock_ms=time.time_ns() // 1_000_000)
    assert letters == []
    ticks = ReplayClock().ticks(batch.time_ms).tolist()
    expected: dict[tuple[str, int], list[tuple[bytes, int]]] = {}
    for record, kind, sku, tick in zip(records, batch.kind.tolist(), batch.sku, ticks, strict=True):
        topic = next(topic for topic, kinds in TOPICS.items() if kind in kinds)
        partition = murmur2_partition(sku.encode(), 3) if topic in ITEM_TOPICS else 0
        expected.setdefault((topic, partition), []).append((record, tick))
    there: dict[tuple[str, int], list[tuple[bytes, int]]] = {}
    for topic, found in found_on(kafka).items():
        for one in found:
            tick = one.timestamp_ms // 1000 * 1000
            there.setdefault((topic, one.partition), []).append((one.value or b"", tick))
    assert there == expected


def test_merged_by_their_timestamps_topics_lie_in_the_order_of_the_file(shop: Path) -> None:
    records = [record for chunk in read_records(shop) for record in chunk]
    addressed = Addresses(dict.fromkeys(INPUTS, 5)).of(records)
    for before, after in pairwise(addressed):
        assert after[4] > before[4] or (after[4] == before[4] and after[0] == before[0]), (before, after)


def test_chunks_change_no_address(shop: Path) -> None:
    records = [record for chunk in read_records(shop) for record in chunk]
    records[5:5] = [b"{", event(quantity="-1"), b"[]"]
    counts = dict.fromkeys(INPUTS, 5)
    whole = Addresses(counts, poison=True).of(records)
    small = Addresses(counts, poison=True)
    assert [one for at in range(0, len(records), 7) for one in small.of(records[at : at + 7])] == whole


def test_records_that_are_wrong_but_name_their_type_are_left_to_the_worker(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    records = [
        event(), event(quantity="-1"), event(sku="5"), event("price_set", price='"12"'), event("ack", status='"no"'),
        event("day_described", date='"no day"'), event("snooze", until="-1"), event("item_described", sku="[]"),
    ]  # fmt: skip
    produced = produce([written(tmp_path / "e", records)], kafka)
    assert (produced.acknowledged, produced.left_out) == (len(records), 0)
    found = found_on(kafka)
    assert {topic: [(record.key, record.value) for record in there] for topic, there in found.items()} == {
        "shop.orders.v1": sorted([(b"TEA", records[0]), (b"TEA", records[1]), (None, records[2])], key=_at(found)),
        "shop.prices.v1": [(b"TEA", records[3])],
        "replenishment.ack.v1": [(b"rt_1", records[4])],
        "shop.calendar.v1": [(b"no day|", records[5])],
        "engine.command.v1": [(b"e1", records[6])],
        "shop.catalog.v1": [(f"keyless-{xxh3_64_hexdigest(records[7])}".encode(), records[7])],
    }
    assert {record.timestamp_ms // 1000 * 1000 for there in found.values() for record in there} == {CLOCK_MS}


def _at(found: dict[str, list[Found]]) -> Callable[[tuple[bytes | None, bytes]], int]:
    values = [record.value for record in found["shop.orders.v1"]]
    return lambda pair: values.index(pair[1])


def test_records_that_name_no_type_are_named_and_left_out_or_sent_as_poison(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    poison = [b"{", b"\xff\xfe", b"[1]", b'{"type":"unknown"}', b'{"type":5}', b"[" * 50_000]
    records = [event(), *poison, event()]
    produced = produce([written(tmp_path / "e", records)], kafka)
    assert (produced.records, produced.acknowledged, produced.left_out) == (8, 2, 6)
    assert produced.named[0].startswith("record 2 is no event and was left out: ")
    assert len(produced.named) == 6
    produced = produce([written(tmp_path / "e", records)], kafka, poison=True)
    assert (produced.acknowledged, produced.left_out, produced.poison) == (8, 0, 6)
    there = read_all(kafka, "shop.orders.v1")
    assert Counter(record.value for record in there if record.key is None) == Counter(poison)
    assert len({record.partition for record in there if record.key is None}) == 3


def test_every_hostile_record_is_sent_unchanged_or_named(kafka: KafkaSettings) -> None:
    records = [record for hostile in HOSTILE for record in hostile.records if record is not None]
    sender = Sender(kafka, poison=True)
    sender.send(records)
    produced = sender.finish()
    assert produced.acknowledged == len(records)
    assert Counter(record.value for there in found_on(kafka).values() for record in there) == Counter(records)


# -- the schedule


def test_with_a_rate_records_are_stamped_with_the_instants_they_were_to_be_sent_at(kafka: KafkaSettings) -> None:
    before_ms = time.time_ns() // 1_000_000
    sender = Sender(kafka, rate=500, timestamps="now")
    for at in range(0, 200, 50):
        sender.send(orders(200)[at : at + 50])
    produced = sender.finish()
    after_ms = time.time_ns() // 1_000_000
    ordered = {f'"event_id":"e{n}"'.encode(): n for n in range(200)}
    stamps = np.zeros(200, np.int64)
    for record in read_all(kafka, "shop.orders.v1"):
        stamps[next(n for text, n in ordered.items() if text + b"," in (record.value or b""))] = record.timestamp_ms
    assert set(np.diff(stamps).tolist()) <= {1, 2, 3}
    assert stamps[-1] - stamps[0] in (397, 398, 399)
    assert before_ms <= stamps[0] <= stamps[-1] <= after_ms
    assert 0 < produced.behind_s < produced.seconds


def test_a_dead_broker_holds_the_sender_up_only_when_the_clients_queue_is_full(
    own_broker: Callable[..., LocalBroker],
) -> None:
    local = own_broker()
    local.up()
    kafka = KafkaSettings(bootstrap_servers=local.bootstrap)
    apply(kafka)
    sender = Sender(kafka, delivery_timeout_s=4)
    local.down(kill=True)
    sender.send(orders(1000) * (QUEUE_MESSAGES // 1000))
    assert sender._blocked_s == 0
    sender.send(orders(1000))
    produced = sender.finish()
    assert produced.blocked_s > 0
    assert (produced.sent, produced.acknowledged, produced.failed) == (QUEUE_MESSAGES + 1000, 0, QUEUE_MESSAGES + 1000)
    assert "a record was not acknowledged" in produced.named[0]


def test_a_broker_that_comes_back_has_every_record_once_and_in_order(own_broker: Callable[..., LocalBroker]) -> None:
    local = own_broker()
    local.up()
    kafka = KafkaSettings(bootstrap_servers=local.bootstrap, partitions=1)
    apply(kafka)
    sender = Sender(kafka, rate=2000)
    records = orders(4000)
    sender.send(records[:1000])
    local.down(kill=True)
    sender.send(records[1000:2000])
    local.up()
    sender.send(records[2000:])
    produced = sender.finish()
    assert (produced.acknowledged, produced.failed) == (4000, 0)
    assert [record.value for record in read_all(kafka, "shop.orders.v1")] == records


# -- how it ends


def test_the_program_tells_what_became_of_the_records(
    shop: Path, kafka: KafkaSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ["--bootstrap", kafka.bootstrap_servers, "--prefix", kafka.topic_prefix]
    count = sum(map(len, read_records(shop)))
    assert run(["produce", str(shop), *at, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["records"], told["acknowledged"], told["failed"]) == (count, count, 0)
    assert told["records_per_s"] > 0
    bad = written(tmp_path / "bad", [b"{", *orders(3)])
    assert run(["produce", str(bad), *at, "--rate", "1000", "--timestamps", "now"]) == 0
    shown = capsys.readouterr()
    assert "behind schedule" in shown.out
    assert "record 1 is no event" in shown.err


def test_an_interrupted_sender_says_how_many_records_are_acknowledged(kafka: KafkaSettings, tmp_path: Path) -> None:
    path = written(tmp_path / "e", orders(100_000))
    options = ["--bootstrap", kafka.bootstrap_servers, "--prefix", kafka.topic_prefix, "--rate", "1000", "--json"]
    with started("produce", str(path), *options) as program:
        wait_for(lambda: len(read_all(kafka, "shop.orders.v1")) > 100, "the first records", timeout_s=60)
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=20)
    assert program.returncode == 130
    told = json.loads(out)
    there = len(read_all(kafka, "shop.orders.v1"))
    assert told["sent"] == told["acknowledged"] == there < 100_000
    assert err.decode().splitlines()[-1] == f"interrupted; {there:,} records are acknowledged"


def test_records_that_the_broker_refuses_are_counted_and_the_code_is_1(
    broker: LocalBroker, prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    small = NewTopic(f"{prefix}shop.orders.v1", 1, 1, config={"max.message.bytes": "2000"})
    for future in admin.create_topics([small]).values():
        future.result(10)
    large = event(note=json.dumps("".join(random.Random(1).choices("abcdefghij", k=60_000))))
    path = written(tmp_path / "e", [event(), large])
    at = ["--bootstrap", broker.bootstrap, "--prefix", prefix]
    assert run(["produce", str(path), *at, "--rate", "2", "--json"]) == 1
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert (told["sent"], told["acknowledged"], told["failed"]) == (2, 1, 1)
    assert "a record was not acknowledged: Broker: Message size too large" in shown.err
    assert run(["produce", str(written(tmp_path / "p", [event("price_set")])), *at]) == 1
    assert f"topic '{prefix}shop.prices.v1' does not exist on {broker.bootstrap}; create it with `shelftide topics" in (
        capsys.readouterr().err
    )


def test_without_kafka_it_ends_in_one_sentence_and_code_1(shop: Path) -> None:
    where = f"127.0.0.1:{free_port()}"
    environment = {**os.environ, "SHELFTIDE_WORKER__CONNECT_TIMEOUT_S": "1"}
    done = finished("produce", str(shop), "--bootstrap", where, env=environment)
    assert (done.returncode, done.stdout) == (1, b"")
    note, sentence = done.stderr.decode().splitlines()
    assert note == f"producing {shop}"
    assert sentence.startswith(f"shelftide: no Kafka answers at {where} within 1 s")
