"""Topics on a real broker: made, mended, refused; by several at once; and how it ends without Kafka."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, Producer
from kafka.admin import ConfigResource, ConfigResourceType

from shelftide.cli import run
from streams import outputs
from streams.decode import TOPICS
from streams.kafka.broker import LocalBroker, free_port
from streams.kafka.connection import UnreachableError, admin
from streams.kafka.settings import MIB, KafkaSettings
from streams.kafka.topics import Change, TopicsError, TopicState, apply, described, plan, topic_specs
from tests.program import wait_for

ITEM_TOPICS = {f"shop.{name}.v1" for name in ("orders", "clicks", "prices", "stock", "catalog", "reviews")}
INPUTS = ITEM_TOPICS | {"shop.calendar.v1", "engine.command.v1", "replenishment.ack.v1"}
OUTPUTS = {"forecast.demand.v1", "forecast.price.v1", "alerts.price.v1", "replenishment.trigger.v1"}
ENGINE = {f"engine.{name}.v1" for name in ("candidates", "deadletter", "model", "state")}


def options(kafka: KafkaSettings, *more: str) -> list[str]:
    """What a command is given to mean these topics."""
    where = ["--bootstrap", kafka.bootstrap_servers, "--prefix", kafka.topic_prefix]
    return [*where, "--partitions", str(kafka.partitions), *more]


def make(kafka: KafkaSettings, name: str, partitions: int, **config: str) -> None:
    """Create one topic as somebody else might have done."""
    with admin(kafka, 10) as client:
        given = {"num_partitions": partitions, "replication_factor": 1, "configs": config}
        client.create_topics({kafka.topic(name): given}, wait_for_metadata=True)


def alter(kafka: KafkaSettings, name: str, **config: str) -> None:
    """Change settings of one topic; dots are underscores. Brokers learn it a moment after it is decided."""
    values = {key.replace("_", "."): value for key, value in config.items()}
    with admin(kafka, 10) as client:
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, kafka.topic(name), values)])
    wait_for(lambda: shown(kafka, name, *values) == values, "settings that were altered")


def shown(kafka: KafkaSettings, name: str, *keys: str) -> dict[str, str]:
    """Settings of one topic as Kafka has them."""
    topic = kafka.topic(name)
    with admin(kafka, 10) as client:
        asked = [ConfigResource(ConfigResourceType.TOPIC, topic, list(keys))]
        told = client.describe_configs(asked, config_filter="all")["topic"][topic]
    return {key: entry["value"] for key, entry in told.items()}


def there(kafka: KafkaSettings) -> set[str]:
    """Topics of this application that exist, without the prefix."""
    return {state.spec.name.removeprefix(kafka.topic_prefix) for state in described(kafka) if state.partitions}


# -- what is specified


def test_every_topic_of_the_contracts_is_specified_and_no_other() -> None:
    specs = {spec.name: spec for spec in topic_specs(KafkaSettings(partitions=8))}
    assert set(specs) == INPUTS | OUTPUTS | ENGINE
    assert set(TOPICS) == INPUTS
    published = {value for name, value in vars(outputs).items() if name.endswith("_TOPIC")}
    assert published <= set(specs)
    partitions = {name: spec.partitions for name, spec in specs.items()}
    assert {name for name, count in partitions.items() if count == 8} == ITEM_TOPICS | OUTPUTS
    assert partitions.pop("engine.state.v1") == 9
    assert {count for name, count in partitions.items() if name not in ITEM_TOPICS | OUTPUTS} == {1}


def test_policies_are_those_of_the_contracts() -> None:
    specs = {spec.name: spec.config for spec in topic_specs(KafkaSettings(retention_days=7))}
    compacted = {name for name, config in specs.items() if config["cleanup.policy"] == "compact"}
    assert compacted == {
        "shop.catalog.v1", "shop.calendar.v1", "engine.command.v1", "forecast.demand.v1", "forecast.price.v1",
        "alerts.price.v1", "engine.model.v1", "engine.state.v1",
    }  # fmt: skip
    assert {specs[name]["message.timestamp.type"] for name in INPUTS} == {"CreateTime"}
    assert specs["shop.orders.v1"]["retention.ms"] == str(7 * 86_400_000)
    assert specs["replenishment.trigger.v1"]["retention.ms"] == str(30 * 86_400_000)
    assert specs["engine.deadletter.v1"]["retention.ms"] == str(30 * 86_400_000)
    state = specs["engine.state.v1"]
    assert (state["segment.bytes"], state["segment.ms"]) == (str(64 * MIB), "600000")
    assert (state["min.cleanable.dirty.ratio"], state["max.compaction.lag.ms"]) == ("0.1", "600000")
    assert state["max.message.bytes"] == str(16 * MIB)


def test_with_three_copies_two_must_have_a_record_before_it_counts() -> None:
    for copies, in_sync in ((1, "1"), (2, "1"), (3, "2"), (5, "2")):
        specs = topic_specs(KafkaSettings(replication_factor=copies))
        assert {spec.config["min.insync.replicas"] for spec in specs} == {in_sync}


# -- made and mended


def test_what_is_missing_is_made_as_specified_and_a_second_time_changes_nothing(kafka: KafkaSettings) -> None:
    made = apply(kafka)
    assert [change.topic for change in made] == [spec.name for spec in topic_specs(kafka)]
    assert {change.action for change in made} == {"create"}
    assert [state.as_specified for state in described(kafka)] == [True] * len(made)
    assert apply(kafka) == []


def test_a_dry_run_says_the_same_and_makes_nothing(kafka: KafkaSettings) -> None:
    told = apply(kafka, dry_run=True)
    assert there(kafka) == set()
    assert apply(kafka) == told


def test_settings_that_differ_are_mended_and_others_left(kafka: KafkaSettings) -> None:
    apply(kafka)
    alter(kafka, "engine.state.v1", cleanup_policy="delete", segment_ms="1000000", flush_messages="7")
    alter(kafka, "shop.orders.v1", cleanup_policy="compact")
    state, orders = kafka.topic("engine.state.v1"), kafka.topic("shop.orders.v1")
    changes = apply(kafka)
    assert {(change.topic, change.what, change.before, change.after) for change in changes} == {
        (state, "cleanup.policy", "delete", "compact"),
        (state, "segment.ms", "1000000", "600000"),
        (orders, "cleanup.policy", "compact", "delete"),
    }
    assert {change.note for change in changes if change.what == "cleanup.policy"} == {
        "from now on only the newest record of each key stays",
        "from now on records go by age, the newest of a key too",
    }
    assert apply(kafka) == []
    assert shown(kafka, "engine.state.v1", "flush.messages") == {"flush.messages": "7"}


def test_a_topic_that_somebody_else_made_alike_is_as_good(kafka: KafkaSettings) -> None:
    make(kafka, "shop.orders.v1", 3)
    made = {(change.topic, change.action, change.what) for change in apply(kafka)}
    assert (kafka.topic("shop.orders.v1"), "alter", "retention.ms") in made
    assert apply(kafka) == []


def test_several_may_apply_at_once(kafka: KafkaSettings) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(apply, kafka) for _ in range(4)]
    assert {change.action for one in done for change in one.result()} <= {"create"}
    assert all(state.as_specified for state in described(kafka))


def test_applications_of_one_kafka_do_not_meet(kafka: KafkaSettings) -> None:
    other = kafka.model_copy(update={"topic_prefix": kafka.topic_prefix + "b.", "partitions": 1})
    apply(kafka)
    apply(other)
    assert {state.partitions for state in described(other)} == {1, 2}
    assert apply(kafka) == []


def test_state_and_dead_letters_hold_what_orders_may_not(kafka: KafkaSettings) -> None:
    apply(kafka)
    refused: list[KafkaError] = []

    def told(error: KafkaError | None, message: object) -> None:
        if error is not None:
            refused.append(error)

    producer = Producer({**kafka.librdkafka(), "message.max.bytes": 17 * MIB})
    for name in ("engine.state.v1", "engine.deadletter.v1", "alerts.price.v1", "shop.orders.v1"):
        producer.produce(kafka.topic(name), bytes(2 * MIB), b"key", on_delivery=told)
    assert producer.flush(30) == 0
    assert [error.code() for error in refused] == [KafkaError.MSG_SIZE_TOO_LARGE]


# -- refused


def test_another_partition_count_is_refused_before_anything_is_done(
    kafka: KafkaSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    make(kafka, "shop.clicks.v1", 5)
    with pytest.raises(TopicsError, match=r"shop.clicks.v1' has 5 partitions and must have 3; a partition's number"):
        apply(kafka)
    assert there(kafka) == {"shop.clicks.v1"}
    assert run(["topics", "apply", *options(kafka)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "keep kafka.partitions as it was, or begin anew under another kafka.topic_prefix" in line


def test_more_shards_for_a_live_application_are_refused(kafka: KafkaSettings) -> None:
    apply(kafka)
    for count in (2, 4):
        with pytest.raises(TopicsError, match=f"has 3 partitions and must have {count}") as refused:
            apply(kafka.model_copy(update={"partitions": count}))
        assert refused.value.wrong_input
    assert apply(kafka) == []


def test_a_topic_that_all_read_has_one_partition_however_many_shards(kafka: KafkaSettings) -> None:
    make(kafka, "engine.command.v1", 3)
    with pytest.raises(TopicsError, match=r"has 3 partitions and must have 1; it is read in one order by all"):
        apply(kafka, dry_run=True)


def test_more_copies_than_brokers_are_refused_by_a_dry_run_too(kafka: KafkaSettings) -> None:
    wished = kafka.model_copy(update={"replication_factor": 3})
    for dry_run in (True, False):
        with pytest.raises(TopicsError, match="replication factor of 3 cannot be reached") as refused:
            apply(wished, dry_run=dry_run)
        assert refused.value.wrong_input
    assert there(kafka) == set()


def test_copies_of_topics_that_exist_are_told_and_left_so_that_they_can_still_be_written() -> None:
    kafka = KafkaSettings(replication_factor=3)
    (spec, *_) = topic_specs(kafka)
    one_copy = TopicState(spec, spec.partitions, 1, {**spec.config, "min.insync.replicas": "1"})
    (told,) = plan([one_copy], kafka)
    assert (told.action, told.what, told.before, told.after) == ("leave", "replication factor", "1", "3")
    three_copies = TopicState(spec, spec.partitions, 3, one_copy.config)
    assert plan([three_copies], kafka) == [Change(spec.name, "alter", "min.insync.replicas", "1", "2")]


# -- the commands


def test_the_commands_tell_people_what_is_there_and_what_was_done(
    kafka: KafkaSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    given = options(kafka)
    assert run(["topics", "list", *given]) == 3
    assert capsys.readouterr().out.count("missing: ") == len(topic_specs(kafka))
    assert run(["topics", "apply", "--dry-run", *given]) == 0
    assert "would be done" in capsys.readouterr().out
    assert run(["topics", "apply", *given]) == 0
    assert re.search(r"engine\.state\.v1 +create 4 partitions", capsys.readouterr().out)
    assert run(["topics", "apply", *given]) == 0
    shown = capsys.readouterr()
    assert (shown.out, "are as they must be" in shown.err) == ("", True)
    assert run(["topics", "list", *given]) == 0
    assert re.search(r"replenishment\.trigger\.v1 +3 × 30 days: replenishment triggers", capsys.readouterr().out)
    alter(kafka, "shop.orders.v1", retention_ms="5")
    assert run(["topics", "list", *given]) == 3
    assert "retention.ms: 5, must be -1" in capsys.readouterr().out
    assert run(["topics", "apply", *given]) == 0
    assert "alter retention.ms: 5 → -1" in capsys.readouterr().out


def test_the_commands_tell_programs(kafka: KafkaSettings, capsys: pytest.CaptureFixture[str]) -> None:
    given = options(kafka, "--json")
    assert run(["topics", "apply", *given]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["dry_run"] is False
    assert done["changes"][0]["topic"] == kafka.topic("shop.orders.v1")
    assert run(["topics", "list", *given]) == 0
    states: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert {state["as_specified"] for state in states} == {True}
    assert states[-1]["partitions"] == states[-1]["spec"]["partitions"] == 4


def test_the_commands_read_the_file_of_settings(
    kafka: KafkaSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(
        f'[kafka]\nbootstrap_servers = "{kafka.bootstrap_servers}"\ntopic_prefix = "{kafka.topic_prefix}"\n'
        "partitions = 3\nretention_days = 9\n"
    )
    assert run(["topics", "apply", "--settings", str(file)]) == 0
    assert run(["topics", "list", *options(kafka)]) == 3
    assert "retention.ms: 777600000, must be -1" in capsys.readouterr().out


# -- without Kafka


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands wait for Kafka for a moment only."""
    monkeypatch.setenv("SHELFTIDE_WORKER__CONNECT_TIMEOUT_S", "0.3")


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("command", ["apply", "list"])
def test_where_no_kafka_is_one_sentence_says_so(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    where = f"127.0.0.1:{free_port()}"
    assert run(["topics", command, "--bootstrap", where]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"no Kafka answers at {where} within 0.3 s (" in shown.err.splitlines()[-1]
    assert "Connection refused" in shown.err


@pytest.mark.usefixtures("hurried")
def test_a_name_that_no_machine_has_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["topics", "list", "--bootstrap", "nowhere.invalid:9092"]) == 1
    assert "Failed to resolve 'nowhere.invalid:9092'" in capsys.readouterr().err.splitlines()[-1]


def test_a_kafka_that_is_silent_or_goes_away_is_not_waited_for_forever(own_broker: Callable[..., LocalBroker]) -> None:
    broker = own_broker()
    broker.up()
    pid = broker.status().pid
    assert pid is not None
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(UnreachableError, match="no Kafka answers") as refused:
            described(kafka, 0.5)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert not refused.value.wrong_input
    assert len(described(kafka, 30)) == len(topic_specs(kafka))
    with pytest.raises(UnreachableError, match="answers no more"):
        ask_while_it_dies(kafka, broker)


def ask_while_it_dies(kafka: KafkaSettings, broker: LocalBroker) -> None:
    """Ask a Kafka that was there when the question began."""
    with admin(kafka, 1) as client:
        broker.down(kill=True)
        client.describe_topics(["a"])
