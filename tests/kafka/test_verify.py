"""The consistency checker: a sound state is equal to its topics, and each way to forge one is named."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from streams.calendar import Width
from streams.decode import decode
from streams.engine import Engine, EngineConfig
from streams.files import read_records
from streams.kafka.arrivals import ITEM_TOPICS, SHARED_TOPICS
from streams.kafka.broker_properties import HOST, free_port
from streams.kafka.connection import UnreachableError
from streams.kafka.ledger import Ledger, Placed, Position
from streams.kafka.offsets import Offsets
from streams.kafka.produce import produce
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import apply
from streams.kafka.verify import Report, VerifyError, verify
from streams.outputs import ALERT_TOPIC, Origin, Output, dead_letter
from streams.partition import murmur2_partition
from tests.kafka.workers import Workers

CONFIG = EngineConfig(max_series=2_000, time_zone="Europe/London", base_currency="GBP")
ORDERS = "shop.orders.v1"
MONDAY_MS = 1_704_755_000_000  # 8 January 2024, the last hour of the shop


class Played:
    """A shop's events on their topics, and the states that engines reached with them, without a worker."""

    def __init__(self, kafka: KafkaSettings, events: Path, config: EngineConfig = CONFIG) -> None:
        self.kafka, self.config = kafka, config
        self.engines = [Engine(config, shard=number) for number in range(kafka.partitions)]
        self.letters: list[Placed] = []
        apply(kafka)
        produce([events], kafka)
        for chunk in read_records(events):
            self.process(chunk)
        for number in range(kafka.partitions):
            self.commit(number)

    def process(self, records: Sequence[bytes]) -> None:
        """Let engines have records."""
        batch, _ = decode(records, clock_ms=1 << 61)
        batch.tick_ms[:] = np.maximum.accumulate(batch.time_ms)
        homes = np.array([self.home(sku) if sku else -1 for sku in batch.sku])
        for number, engine in enumerate(self.engines):
            out = engine.process(batch.take(np.flatnonzero((homes == number) | (homes < 0))))
            self.letters += [Placed(letter) for _, letter in out.dead_letters]

    def home(self, sku: str) -> int:
        """The shard of an item."""
        return murmur2_partition(sku.encode(), self.kafka.partitions)

    def produce(self, value: bytes, sku: str = "") -> int:
        """Put a record on the orders' topic; its offset comes back."""
        sku = sku or str(json.loads(value)["sku"])
        offsets = list[int]()
        producer = Producer({**self.kafka.librdkafka(), "linger.ms": 0})
        topic, at = self.kafka.topic(ORDERS), self.home(sku)
        producer.produce(topic, value, sku.encode(), at, on_delivery=lambda _, m: offsets.append(m.offset() or 0))
        assert producer.flush(10) == 0
        return offsets[0]

    def commit(self, number: int, *more: Placed, ahead: Mapping[str, int] | None = None) -> None:
        """Commit what an engine has changed, with offsets so far ahead of the topics' ends, and outputs."""
        places = [(name, number if name in ITEM_TOPICS else 0) for name in (*ITEM_TOPICS, *SHARED_TOPICS)]
        ends = Offsets(self.kafka).ends([(self.kafka.topic(name), at) for name, at in places], 20)
        offsets = {topic: end for (topic, _), end in ends.items()}
        for name, by in (ahead or {}).items():
            offsets[self.kafka.topic(name)] += by
        letters, self.letters = self.letters, []
        ledger = Ledger(self.kafka, f"shard-{number}", number)
        ledger.open(20)
        position = Position(offsets, 0, self.kafka.partitions)
        ledger.commit(self.engines[number].changes(), position, [*letters, *more], 20)
        ledger.close()

    @staticmethod
    def publish(kafka: KafkaSettings, output: Output) -> None:
        """Write an output that no commit of a shard wrote."""
        producer = Producer(kafka.librdkafka())
        producer.produce(kafka.topic(output.topic), output.value, output.key, headers=dict(output.headers))
        assert producer.flush(10) == 0

    def verify(self) -> Report:
        """Compare."""
        return verify(self.kafka, self.config, "murmur2", timeout_s=20)


def order(event_id: str, sku: str, time_ms: int = MONDAY_MS, kind: str = "order_placed") -> bytes:
    """An order of three."""
    event = {"type": kind, "event_id": event_id, "event_time": time_ms, "sku": sku, "order_id": "o", "quantity": 3}
    return json.dumps(event | {"unit_price": 1, "currency": "GBP"}).encode()


@pytest.fixture
def played(kafka: KafkaSettings, shop: Path) -> Played:
    """A small shop with sound states."""
    return Played(kafka, shop)


# ------------------------------------------------------------------------------------------------ sound states
def test_sound_states_are_equal(played: Played) -> None:
    report = played.verify()
    assert report.equal, report
    shards = report.shards[:3]
    assert [shard.shard for shard in report.shards] == [0, 1, 2, -1]
    assert sum(shard.compared.series for shard in shards) == sum(len(engine.series) for engine in played.engines) > 7
    assert sum(shard.records["counted"] for shard in shards) > 40
    assert all(at.state == at.end for shard in shards for at in shard.offsets.values())
    assert {shard.compared.since for shard in shards} == {"2023-10-16"}
    assert json.loads(json.dumps(report.as_dict()))["equal"] is True


def test_sound_states_are_equal_by_the_hour(kafka: KafkaSettings, shop: Path) -> None:
    report = Played(kafka, shop, replace(CONFIG, width=Width.HOUR)).verify()
    assert report.equal, report


def test_before_the_first_commit_there_is_nothing_to_compare(kafka: KafkaSettings) -> None:
    apply(kafka)
    report = verify(kafka, CONFIG, "murmur2", timeout_s=20)
    assert report.equal
    assert report.shards[0].notes == ["shard-0 has committed no state yet"]


def test_states_of_a_worker_are_equal_while_it_works_and_after_its_end(
    kafka: KafkaSettings, shop: Path, workers: Workers
) -> None:
    apply(kafka)
    worker = workers.start(clock="record", commit_interval_ms=100)
    worker.wait_assigned()
    produce([shop], kafka)
    for _ in range(3):
        report = verify(kafka, CONFIG, "murmur2", timeout_s=20)
        assert report.equal, report
    workers.wait_committed()
    assert worker.stop() == 0
    report = verify(kafka, CONFIG, "murmur2", timeout_s=20)
    assert report.equal, report
    assert sum(shard.compared.series for shard in report.shards) > 7


# ------------------------------------------------------------------------------------------------ forged states
def test_every_order_that_state_and_topics_disagree_on_is_named(played: Played) -> None:
    at = played.home("LOST")
    twice = next(name for name in map("TWICE-{}".format, range(9)) if played.home(name) == at)
    early = next(name for name in map("EARLY-{}".format, range(9)) if played.home(name) == at)
    played.produce(order("lost", "LOST"))
    for kind in ("order_placed", "order_cancelled"):
        played.produce(order(kind, twice, kind=kind))
        played.process([order(kind, twice, kind=kind), order(f"{kind} again", twice, kind=kind)])
    played.produce(order("early", early))
    played.process([order("early", early)])
    played.commit(at, ahead={ORDERS: -1})
    report = played.verify()
    assert sorted(str(one).partition(": ")[2] for one in report.differences) == [
        f"{early} at default, 2024-01-08: 3 ordered in state, 0 in the topics",
        "LOST at default, 2024-01-08: 0 ordered in state, 3 in the topics",
        f"{twice} at default, 2024-01-08: 6 cancelled in state, 3 in the topics",
        f"{twice} at default, 2024-01-08: 6 ordered in state, 3 in the topics",
    ]
    assert report.wrong == [str(one) for one in report.differences], "nothing else is wrong"
    assert str(report).splitlines()[0].endswith("ids: not equal")


def test_a_forged_pane_is_named_to_the_thousandth(played: Played) -> None:
    engine = next(engine for engine in played.engines if len(engine.series))
    slot, bucket = engine.series.live()[:1], np.array([engine.buckets.zones[0].open])
    engine.panes.add("units", slot, bucket, np.array([1]))
    played.commit(played.engines.index(engine))
    report = played.verify()
    [one] = report.differences
    assert (one.sku, one.location) == engine.series.key(int(slot[0]))
    assert round(one.in_state - one.in_topics, 6) == 0.001


def test_offsets_and_series_out_of_place_are_faults(kafka: KafkaSettings, played: Played) -> None:
    played.commit(0, ahead={"shop.stock.v1": 1})
    consumer = Consumer({**kafka.librdkafka(), "group.id": kafka.application_id, "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition(kafka.topic(ORDERS), 1, 1_000)], asynchronous=False)
    consumer.close()
    stranger = next(name for name in "ABCDEF" if played.home(name) != 2)
    played.engines[2].add_series(stranger, "default", MONDAY_MS)
    played.commit(2)
    report = played.verify()
    assert report.differences == []
    assert not report.equal
    ahead, group, series = report.wrong
    assert ahead.startswith("shard-0: its state says that shop.stock.v1 was read up to ")
    assert group.startswith(f"shard-1: the group has committed 1000 of {ORDERS}, and the state ends at ")
    assert series.endswith(f"holds 1 series of other shards by murmur2, such as {stranger!r}")


# ------------------------------------------------------------------------------------------------ dead letters and ids
def test_what_is_no_event_is_one_dead_letter(kafka: KafkaSettings, played: Played) -> None:
    at = played.home("TEA")
    values = [b'{"none', b'{"one', b'{"two']
    offsets = [played.produce(value, "TEA") for value in values]
    for times, (value, offset) in enumerate(zip(values, offsets, strict=True)):
        origin = Origin(kafka.topic(ORDERS), at, offset)
        played.letters += [Placed(dead_letter(value, b"TEA", "decode", "why", "", origin))] * times
    played.commit(at)
    report = played.verify()
    assert report.differences == []
    assert not report.equal
    assert report.wrong == [
        f"shard {at}: 1 records of {ORDERS} are no events and no dead letters either, the first at offset {offsets[0]}",
        f"shard {at}: offset {offsets[2]} of {ORDERS} is 2 dead letters",
    ]


def test_late_orders_are_missed_unless_they_are_dead_letters(kafka: KafkaSettings, played: Played) -> None:
    late = order("late", "TEA", MONDAY_MS - 86_400_000)
    offset = played.produce(late)
    played.process([late])
    assert [dict(letter.output.extra)["x-stage"] for letter in played.letters] == [b"late"]
    letters, played.letters = played.letters, []
    played.commit(played.home("TEA"))
    assert [str(one).partition(": ")[2] for one in played.verify().differences] == [
        "TEA at default, 2024-01-07: 0 ordered in state, 3 in the topics"
    ]
    origin = Origin(kafka.topic(ORDERS), played.home("TEA"), offset + 2)
    beyond = dead_letter(order("good", "TEA"), b"TEA", "late", "a repeat that the state does not know of", "", origin)
    played.produce(order("good", "TEA"))
    played.process([order("good", "TEA")])
    played.commit(played.home("TEA"), *letters)
    played.produce(order("good", "TEA"))
    assert played.verify().equal
    Played.publish(kafka, beyond)
    report = played.verify()
    assert report.equal, report


def test_an_id_with_two_contents_is_named(played: Played) -> None:
    def alert(value: bytes) -> Placed:
        return Placed(Output(ALERT_TOPIC, b"f1", value, "f1-1", 5))

    played.commit(0, alert(b"{}"), alert(b"{}"))
    report = played.verify()
    assert report.equal
    assert report.ids == 1
    played.commit(1, alert(b'{"status":"resolved"}'))
    assert played.verify().wrong == ["alerts.price.v1: id f1-1 has two contents"]


# ------------------------------------------------------------------------------------------------ what is gone
def test_of_deleted_records_it_says_from_when_on_it_compares(kafka: KafkaSettings, played: Played) -> None:
    ends = Offsets(kafka).ends([(kafka.topic(ORDERS), partition) for partition in range(3)], 20)
    admin = AdminClient(kafka.librdkafka())
    gone = [TopicPartition(*place, end // 2) for place, end in ends.items()]
    for future in admin.delete_records(gone).values():
        future.result(10)
    report = played.verify()
    assert report.equal, report
    for shard in report.shards[:3]:
        assert "2024-01-05" < shard.compared.since < "2024-01-12"
        assert "what was before is gone" in shard.notes[0]


def test_retired_items_are_known(kafka: KafkaSettings, played: Played) -> None:
    engine = next(engine for engine in played.engines if len(engine.series))
    sku, _ = engine.series.key(0)
    retired = {"type": "item_retired", "event_id": "end", "event_time": MONDAY_MS, "sku": sku}
    played.process([json.dumps(retired).encode()])
    producer = Producer(kafka.librdkafka())
    producer.produce(kafka.topic("shop.catalog.v1"), None, sku.encode(), played.home(sku))
    assert producer.flush(10) == 0
    played.commit(played.home(sku))
    report = played.verify()
    assert report.equal, report
    engine.add_series(sku, "default", MONDAY_MS)
    slot, bucket = np.array([engine.series.slot(sku, "default")]), np.array([engine.buckets.zones[0].open])
    engine.panes.add("units", slot, bucket, np.array([123_456]))
    played.commit(played.home(sku))
    assert {one.sku for one in played.verify().differences} == {sku}, "no end of its history gives that"


# ------------------------------------------------------------------------------------------------ what cannot be done
def test_a_missing_topic_is_one_sentence(kafka: KafkaSettings) -> None:
    with pytest.raises(VerifyError, match=r"has 0 partitions and must have 3; see `shelftide topics`"):
        verify(kafka, CONFIG, "murmur2", timeout_s=20)


def test_states_of_other_settings_are_one_sentence(played: Played) -> None:
    with pytest.raises(VerifyError, match=r"shard 0: state record .* lies beyond the maximum of 1 series"):
        verify(played.kafka, replace(CONFIG, max_series=1), "murmur2", timeout_s=20)


def test_without_kafka_there_is_one_sentence() -> None:
    kafka = KafkaSettings(bootstrap_servers=f"{HOST}:{free_port()}")
    with pytest.raises(UnreachableError, match="no Kafka answers"):
        verify(kafka, CONFIG, "murmur2", timeout_s=0.5)
