"""A simulated week through workers on a real broker: outputs are those of a replay in one process."""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import orjson
import pytest

from streams.kafka.broker import LocalBroker
from streams.kafka.produce import produce
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import apply
from streams.outputs import ALERT_TOPIC, DEADLETTER_TOPIC, DEMAND_TOPIC, SOURCE, TRIGGER_TOPIC
from streams.partition import Partitioner
from streams.price_forecast import PRICE_TOPIC
from tests.kafka.reading import Found, read_topics
from tests.kafka.weeks import OUTPUTS, Content, Week, make_week
from tests.kafka.workers import Workers

SHARDS = 3
LOCKSTEP = {
    "clock": "record", "backlog_forecasts": "all", "forecast_wait_ms": 600_000, "forecast_timeout_s": 600,
    "session_timeout_ms": 600_000,
}  # fmt: skip
"""Records alone move time, and wait for the forecasts that they make due: as in a replay. Nobody runs out of time."""


@dataclass(frozen=True)
class Run:
    """What a group of workers made of the week.

    Attributes
    ----------
    week
        What they read, and what a replay made of it.
    found
        Topic -> records that they wrote.
    """

    week: Week
    found: dict[str, list[Found]]


@pytest.fixture(scope="module")
def week() -> Week:
    """The week that all groups read."""
    return make_week(SHARDS)


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def run(
    request: pytest.FixtureRequest, broker: LocalBroker, week: Week, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    """The week through a group of workers.

    All of it lies there before they begin: what arrives on one topic before another is applied before it, and a week
    that arrives within a second does not keep its order between topics. Two workers have shared the shards before, and
    take up what was theirs: shards that move in between would not wait for forecasts.
    """
    name, folder = f"t{secrets.token_hex(3)}", tmp_path_factory.mktemp("week")
    kafka = KafkaSettings(
        bootstrap_servers=broker.bootstrap, application_id=name, topic_prefix=f"{name}.", partitions=SHARDS
    )
    apply(kafka)
    workers = Workers(kafka, folder, LOCKSTEP)
    names = [f"worker-{n}" for n in range(request.param)]
    try:
        if len(names) > 1:
            workers.wait_assigned([workers.start(name) for name in names], 60)
            workers.close()
        produce([week.write(folder / "week.jsonl")], kafka, poison=True)
        last = [workers.start(name) for name in names]
        workers.wait_committed(60)
        assert sorted(shard for worker in last for shard in worker.shards) == [-1, *range(SHARDS)]
        assert [worker.stop() for worker in last] == [0] * len(names)
        yield Run(week, read_topics(kafka, OUTPUTS))
    finally:
        workers.close()


def contents(found: list[Found]) -> Counter[Content]:
    """Contents as `Week.outputs` has them."""
    return Counter((record.headers.get("x-stage", record.key), record.value) for record in found)


def test_every_kind_of_decision_occurs(week: Week) -> None:
    statuses = {
        topic: Counter(orjson.loads(value or b"{}")["status"] for _, value in week.outputs[topic])
        for topic in (TRIGGER_TOPIC, ALERT_TOPIC)
    }
    assert {"open", "acknowledged", "updated", "cancelled"} <= statuses[TRIGGER_TOPIC].keys()
    assert {"firing", "resolved", "acknowledged", "snoozed", "updated"} <= statuses[ALERT_TOPIC].keys()
    assert {orjson.loads(value or b"{}")["kind"] for _, value in week.outputs[ALERT_TOPIC]} >= {
        "placeholder",
        "feed_fault",
    }
    prices = [orjson.loads(value or b"{}") for _, value in week.outputs[PRICE_TOPIC]]
    assert len({value["as_of"] for value in prices}) == 7
    assert {value["channel"] for value in prices} == {"web", "trade"}
    assert any(max(value["p_change"]) == 1 for value in prices), "an offer is announced"
    assert {stage for stage, _ in week.outputs[DEADLETTER_TOPIC]} >= {b"decode", b"validate", b"late"}


@pytest.mark.parametrize("topic", OUTPUTS)
def test_outputs_are_those_of_a_replay_with_as_many_shards(run: Run, topic: str) -> None:
    here, there = contents(run.found[topic]), run.week.outputs[topic]
    assert list((there - here).elements())[:3] == [], "what only the replay gave"
    assert list((here - there).elements())[:3] == [], "what only the workers gave"


def test_an_id_never_has_two_contents(run: Run) -> None:
    seen: dict[str, dict[bytes, bytes | None]] = defaultdict(dict)
    for topic in (DEMAND_TOPIC, PRICE_TOPIC, TRIGGER_TOPIC, ALERT_TOPIC):
        for record in run.found[topic]:
            assert seen[topic].setdefault(record.headers["ce_id"], record.value) == record.value


def test_outputs_carry_the_headers_of_cloud_events(run: Run) -> None:
    for topic in (DEMAND_TOPIC, PRICE_TOPIC, TRIGGER_TOPIC, ALERT_TOPIC):
        for record in run.found[topic]:
            headers = record.headers
            assert headers["ce_specversion"] == b"1.0"
            assert headers["ce_type"] == topic.encode()
            assert headers["ce_source"] == SOURCE.encode()
            assert headers["ce_subject"] == record.key
            assert headers["content-type"] == b"application/json"
            assert headers["ce_id"]
            assert headers["ce_time"].endswith(b"Z")


def test_forecasts_and_triggers_lie_in_the_partition_of_their_shard(run: Run) -> None:
    rule = Partitioner("murmur2", SHARDS)
    for topic in (DEMAND_TOPIC, PRICE_TOPIC, TRIGGER_TOPIC):
        records = run.found[topic]
        skus = [orjson.loads(record.value or b"{}")["sku"] for record in records]
        assert rule.of(skus).tolist() == [record.partition for record in records]
        assert {record.partition for record in records} == set(range(SHARDS))


def test_revisions_of_an_alert_lie_in_one_partition_in_order(run: Run) -> None:
    revisions: dict[bytes | None, list[tuple[int, int]]] = defaultdict(list)
    for record in run.found[ALERT_TOPIC]:
        revisions[record.key].append((record.partition, orjson.loads(record.value or b"{}")["revision"]))
    for found in revisions.values():
        assert found == [(found[0][0], n + 1) for n in range(len(found))]


def test_dead_letters_say_where_they_came_from(run: Run) -> None:
    for record in run.found[DEADLETTER_TOPIC]:
        headers = record.headers
        assert headers["__streams.errors.topic"].decode().endswith((".v1",))
        assert int(headers["__streams.errors.partition"]) in range(SHARDS)
        assert int(headers["__streams.errors.offset"]) >= 0
