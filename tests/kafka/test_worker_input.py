"""Whatever lies on the input topics: each record counts once or is a dead letter, and the worker lives."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer
from kafka.admin import ConfigResource, ConfigResourceType

from streams.decode import decode
from streams.kafka.addresses import Addresses
from streams.kafka.arrivals import LARGEST_VALUE_BYTES
from streams.kafka.broker import LocalBroker
from streams.kafka.connection import admin
from streams.kafka.ledger import MAX_RECORD_BYTES
from streams.kafka.settings import KafkaSettings
from streams.kafka.shard import CANDIDATES_TOPIC
from streams.kafka.topics import apply
from streams.outputs import DEADLETTER_TOPIC
from streams.partition import murmur2_partition
from tests.hostile import HOSTILE
from tests.kafka.reading import Found, read_all
from tests.kafka.workers import Worker, Workers, engine_of
from tests.program import wait_for

SHARDS = 3
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
HOUR_MS = 3_600_000
Record = tuple[str, bytes | None, bytes | None, int]
"""Topic, value, key, partition."""


def order(sku: str, number: int, time_ms: int, **more: Any) -> bytes:
    """One unit ordered."""
    told = {"type": "order_placed", "event_id": f"{sku}-{number}", "event_time": time_ms, "sku": sku, "order_id": "o",
            "quantity": 1, "unit_price": 2.5, "currency": "GBP"}  # fmt: skip
    return orjson.dumps(told | more)


def orders(sku: str, count: int, time_ms: int, first: int = 0) -> list[Record]:
    """Units ordered, where they belong."""
    return [
        ("shop.orders.v1", order(sku, n, time_ms), sku.encode(), murmur2_partition(sku.encode(), SHARDS))
        for n in range(first, first + count)
    ]


def send(kafka: KafkaSettings, records: Sequence[Record], *, stamp_ms: int | None = None, codec: str = "none") -> None:
    """Write records; every one is acknowledged."""
    told = {"message.max.bytes": 30 << 20, "linger.ms": 5, "compression.type": codec, "enable.idempotence": True}
    producer = Producer({**kafka.librdkafka(), **told})
    hand_over(producer, kafka, records, stamp_ms)
    assert producer.flush(30) == 0


def hand_over(producer: Producer, kafka: KafkaSettings, records: Sequence[Record], stamp_ms: int | None = None) -> None:
    """Give records to a producer."""

    def refused(error: Any, _: Any) -> None:
        assert error is None, error

    for topic, value, key, partition in records:
        producer.produce(kafka.topic(topic), value, key, partition, refused, None, stamp_ms or 0)
        producer.poll(0)


def set_topic(kafka: KafkaSettings, topic: str, **config: str) -> None:
    """Change a topic's settings."""
    told = {name.replace("_", "."): value for name, value in config.items()}
    with admin(kafka, 20) as client:
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, kafka.topic(topic), configs=told)])


def hostile_records() -> list[Record]:
    """The corpus, each record where a producer would send it."""
    values = [value for one in HOSTILE for value in one.records if value is not None]
    counts = {f"shop.{name}.v1": SHARDS for name in ("orders", "clicks", "prices", "stock", "catalog", "reviews")}
    counts |= {"shop.calendar.v1": 1, "engine.command.v1": 1, "replenishment.ack.v1": 1}
    return [record[:4] for record in Addresses(counts, poison=True, timestamps="now").of(values)]


def refused(records: Sequence[Record]) -> Counter[tuple[str, ...]]:
    """What `decode` makes of each record alone: dead letters as `letters` has them."""
    found: Counter[tuple[str, ...]] = Counter()
    for topic, value, key, partition in records:
        for letter in decode([value], clock_ms=time.time_ns() // 1_000_000, keys=[key], topic=topic)[1]:
            kept = None if value is None else value[:LARGEST_VALUE_BYTES]
            found[letter.stage, topic, str(partition), repr(key), repr(kept)] += 1
    return found


@dataclass(frozen=True)
class Fed:
    """What a worker made of records of every kind.

    Attributes
    ----------
    kafka, worker
        Where, and the worker, which was stopped.
    letters
        Dead letters.
    sent
        What was sent and is not good.
    units
        SKU -> units counted.
    retired
        Items that were retired.
    catalog_gaps
        Offsets that the broker had compacted away before the worker began.
    """

    kafka: KafkaSettings
    worker: Worker
    letters: list[Found]
    sent: list[Record]
    units: dict[str, float]
    retired: int
    catalog_gaps: int

    def lie(self, *stages: str) -> Counter[tuple[str, ...]]:
        """Dead letters of some stages, by stage, topic, partition, key and value."""
        found: Counter[tuple[str, ...]] = Counter()
        for letter in self.letters:
            head = letter.headers
            if (stage := head["x-stage"].decode()) in stages:
                topic = head["__streams.errors.topic"].decode().removeprefix(self.kafka.topic_prefix)
                place = (topic, head["__streams.errors.partition"].decode())
                found[(stage, *place, repr(letter.key), repr(letter.value))] += 1
        return found


@pytest.fixture(scope="module")
def fed(broker: LocalBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fed]:
    """A worker that first works off a backlog of such records, and then gets more of them while it runs."""
    name, folder = f"t{secrets.token_hex(3)}", tmp_path_factory.mktemp("input")
    kafka = KafkaSettings(
        bootstrap_servers=broker.bootstrap, application_id=name, topic_prefix=f"{name}.", partitions=SHARDS
    )
    apply(kafka)
    set_topic(kafka, "shop.orders.v1", max_message_bytes=str(28 << 20), message_timestamp_after_max_ms=str(1 << 62))
    workers = Workers(kafka, folder)
    now_ms = time.time_ns() // 1_000_000 - 60_000
    try:
        compact(kafka, now_ms)
        gaps = catalog_gaps(kafka)
        sent = feed(kafka, "early", now_ms)
        worker = workers.start()
        workers.wait_committed()
        sent += feed(kafka, "late", now_ms)
        workers.wait_committed()
        assert worker.stop() == 0
        units, retired = counted(kafka, now_ms)
        yield Fed(kafka, worker, read_all(kafka, DEADLETTER_TOPIC), sent, units, retired, gaps)
    finally:
        workers.close()


def feed(kafka: KafkaSettings, part: str, now_ms: int) -> list[Record]:
    """Send records of every kind; what is no good comes back."""
    bad = hostile_records() + misplaced(part, now_ms) + deletions(part) + large(part)
    send(kafka, [*orders(f"{part}-hostile", 5, now_ms), *bad, *orders(f"{part}-hostile", 5, now_ms, 5)])
    for codec in CODECS:
        broken = [("shop.orders.v1", b'{"type":"order_pl', b"broken", n % SHARDS) for n in range(3)]
        good = orders(f"{part}-{codec}", 20, now_ms)
        send(kafka, [*good[:10], *broken, *good[10:]], codec=codec)
        bad += broken
    transact(kafka, part, now_ms)
    send(kafka, orders(f"{part}-future", 5, now_ms), stamp_ms=now_ms + 10 * 365 * 24 * HOUR_MS)
    send(kafka, orders(f"{part}-after", 5, now_ms))
    send(kafka, [(CANDIDATES_TOPIC, value, None, 0) for value in (b"garbage", None, b"{}", b'{"type":"found"}')])
    return bad


def misplaced(part: str, now_ms: int) -> list[Record]:
    """Records without a key, under the key of another item, in the partition of another, on a topic of other types."""
    value, sku = order(f"{part}-lost", 1, now_ms), f"{part}-lost".encode()
    home = murmur2_partition(sku, SHARDS)
    return [
        ("shop.orders.v1", value, None, home),
        ("shop.orders.v1", value, b"another", home),
        ("shop.orders.v1", value, b"", home),
        ("shop.orders.v1", value, b"\xff\xfe", home),
        ("shop.orders.v1", value, sku, (home + 1) % SHARDS),
        ("shop.clicks.v1", value, sku, home),
        ("shop.calendar.v1", value, sku, 0),
        ("engine.command.v1", b"not json", b"c", 0),
        ("replenishment.ack.v1", b"[]", None, 0),
    ]


def deletions(part: str) -> list[Record]:
    """Null values: a fault on most topics; on those that are compacted with a key that names nothing."""
    plain = ("orders", "clicks", "prices", "stock", "reviews")
    return [
        *[(f"shop.{name}.v1", None, f"{part}-gone".encode(), 1) for name in plain],
        ("shop.orders.v1", None, None, 1),
        ("replenishment.ack.v1", None, b"k", 0),
        ("shop.calendar.v1", None, b"no day", 0),
        ("shop.catalog.v1", None, b"x" * 200, 1),
        ("shop.catalog.v1", None, b"\xff", 1),
    ]


def large(part: str) -> list[Record]:
    """Records beyond 64 KiB, up to more than a fetch of ours asks for, and to more than a dead letter may have."""
    return [("shop.orders.v1", b"x" * size, part.encode(), 2) for size in (65_537, 1_000_000, 6 << 20, 17 << 20)]


def transact(kafka: KafkaSettings, part: str, now_ms: int) -> None:
    """Transactions: one that is aborted, one that is committed, one more that is aborted at the end of a partition."""
    producer = Producer({**kafka.librdkafka(), "transactional.id": f"{kafka.application_id}-shop"})
    producer.init_transactions(20)
    sku = f"{part}-transaction"
    for n, kept in enumerate((False, True, False)):
        producer.begin_transaction()
        hand_over(producer, kafka, orders(sku, 7, now_ms, 7 * n))
        producer.flush(20)
        (producer.commit_transaction if kept else producer.abort_transaction)(20)


def described(sku: str, now_ms: int, version: int) -> Record:
    """An entry of the catalog."""
    told = {"type": "item_described", "event_id": f"{sku}-{version}", "event_time": now_ms + version, "sku": sku,
            "title": f"version {version}"}  # fmt: skip
    return "shop.catalog.v1", orjson.dumps(told), sku.encode(), murmur2_partition(sku.encode(), SHARDS)


def compact(kafka: KafkaSettings, now_ms: int) -> None:
    """Have the broker compact the catalog, so that offsets are missing."""
    set_topic(kafka, "shop.catalog.v1", segment_ms="50", min_cleanable_dirty_ratio="0.001", max_compaction_lag_ms="100")
    skus = [f"item-{n}" for n in range(12)]
    send(kafka, [described(sku, now_ms, version) for version in range(5) for sku in skus])
    send(kafka, [("shop.catalog.v1", None, b"item-0", murmur2_partition(b"item-0", SHARDS))])
    fillers = iter(range(1_000))

    def compacted() -> bool:
        n = next(fillers)
        send(kafka, [(*described(f"filler-{p}", now_ms, n)[:3], p) for p in range(SHARDS)])
        time.sleep(0.1)  # segments are closed by the next record after their time
        return catalog_gaps(kafka) > 10

    wait_for(compacted, "a compacted catalog", 60)


def catalog_gaps(kafka: KafkaSettings) -> int:
    """Offsets of the catalog that are missing."""
    records = read_all(kafka, "shop.catalog.v1")
    tops = {record.partition: record.offset + 1 for record in records}
    return sum(tops.values()) - len(records)


def counted(kafka: KafkaSettings, now_ms: int) -> tuple[dict[str, float], int]:
    """Units of each SKU in committed state, and items that were retired."""
    units: dict[str, float] = {}
    retired = 0
    for shard in range(SHARDS):
        engine = engine_of(kafka, shard)
        retired += engine.counts["item_retired"]
        engine.tick(now_ms + 72 * HOUR_MS)
        for slot in engine.series.live().tolist():
            sku, _ = engine.series.key(slot)
            units[sku] = units.get(sku, 0) + float(engine.panes.ring["units"][slot].sum())
    return units, retired


def test_records_of_every_codec_count_once_beside_broken_ones(fed: Fed) -> None:
    for part in ("early", "late"):
        assert {codec: fed.units[f"{part}-{codec}"] for codec in CODECS} == dict.fromkeys(CODECS, 20)
        assert fed.units[f"{part}-hostile"] == 10


def test_each_bad_record_is_one_dead_letter_with_its_bytes_key_and_place(fed: Fed) -> None:
    wanted, found = refused(fed.sent), fed.lie("decode", "validate")
    routed = fed.lie("route")
    decoded = Counter({place: count for place, count in wanted.items() if place[0] != "route"})
    assert list((decoded - found).elements())[:3] == []
    assert list((found - decoded).elements())[:3] == []
    unrouted = Counter({place: count for place, count in wanted.items() if place[0] == "route"})
    assert not unrouted - routed


def test_offsets_of_dead_letters_are_those_of_the_records(fed: Fed) -> None:
    at = {}
    for topic in {letter.headers["__streams.errors.topic"].decode() for letter in fed.letters}:
        for record in read_all(fed.kafka, topic.removeprefix(fed.kafka.topic_prefix)):
            at[topic, record.partition, record.offset] = (record.key, record.value)
    for letter in fed.letters:
        head = {name: value.decode() for name, value in letter.headers.items()}
        if head["__streams.errors.topic"].endswith("catalog.v1"):
            continue  # compacted meanwhile
        place = (head["__streams.errors.topic"], int(head["__streams.errors.partition"]),
                 int(head["__streams.errors.offset"]))  # fmt: skip
        key, value = at[place]
        assert (key, value and value[:LARGEST_VALUE_BYTES]) == (letter.key, letter.value)


def test_a_record_in_the_partition_of_another_item_is_a_dead_letter_and_not_counted(fed: Fed) -> None:
    for part in ("early", "late"):
        sku = f"{part}-lost".encode()
        home = (murmur2_partition(sku, SHARDS) + 1) % SHARDS
        [place] = [place for place in fed.lie("route") if place[3] == repr(sku)]
        assert place[:3] == ("route", "shop.orders.v1", str(home))
        assert f"{part}-lost" not in fed.units


def test_aborted_records_do_not_count_and_committed_ones_once(fed: Fed) -> None:
    assert [fed.units[f"{part}-transaction"] for part in ("early", "late")] == [7, 7]


def test_a_timestamp_of_years_ahead_moves_nothing(fed: Fed) -> None:
    for part in ("early", "late"):
        assert (fed.units[f"{part}-future"], fed.units[f"{part}-after"]) == (5, 5)


def test_a_compacted_catalog_is_read_over_its_gaps(fed: Fed) -> None:
    assert fed.catalog_gaps > 10
    titles = {sku: item.title for n in range(SHARDS) for sku, item in engine_of(fed.kafka, n).catalog.items.items()}
    assert {sku: title for sku, title in titles.items() if sku.startswith("item-")} == {
        f"item-{n}": "version 4" for n in range(1, 12)
    }
    assert fed.retired == 1  # by the null value of item-0


def test_nothing_else_was_said_than_what_is_wrong(fed: Fed) -> None:
    assert not [line for line in fed.worker.said if line["level"] in ("error", "critical")]
    assert "Traceback" not in fed.worker.text


def test_parked_events_of_more_bytes_than_a_record_may_have_outlive_a_crash(
    workers: Workers, kafka: KafkaSettings
) -> None:
    apply(kafka)
    old_ms, sku, count = time.time_ns() // 1_000_000 - 20 * HOUR_MS, "ahead", 400
    home = murmur2_partition(sku.encode(), SHARDS)
    send(kafka, orders(sku, 1, old_ms), stamp_ms=old_ms)
    ahead = [order(sku, n + 1, old_ms + 7 * HOUR_MS, note="x" * 60_000) for n in range(count)]
    assert sum(map(len, ahead)) > MAX_RECORD_BYTES
    send(kafka, [("shop.orders.v1", one, sku.encode(), home) for one in ahead], stamp_ms=old_ms + 1_000, codec="zstd")
    worker = workers.start("one", clock="record")
    workers.wait_committed()
    assert engine_of(kafka, home).intake.parked == count
    worker.kill()
    # Then the clock comes near: what was parked before the crash is believed.
    near_ms = old_ms + 2 * HOUR_MS
    send(
        kafka, [("shop.orders.v1", order(sku, count + 1, near_ms + 5 * HOUR_MS), sku.encode(), home)], stamp_ms=near_ms
    )
    again = workers.start("one", clock="record")
    workers.wait_committed()
    assert again.stop() == 0
    assert engine_of(kafka, home).intake.parked == 0
    assert counted(kafka, old_ms)[0][sku] == count + 2
