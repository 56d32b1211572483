"""The topics of one application: what each must be, what Kafka has, and what makes the two one.

In: `KafkaSettings`. Out: `TopicSpec` of every topic, `TopicState` as Kafka has them, `Change` made or to be made.
Must not know: what records mean. Rule: nothing is deleted, and no partition count is changed: shards are partition
numbers, and state is kept by shard. Where any topic refuses, none is changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (
    InvalidReplicationFactorError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    RequestTimedOutError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from streams.kafka.connection import admin
from streams.kafka.settings import MIB, KafkaSettings

CONNECT_TIMEOUT_S = 30.0
_ASK_AGAIN_S = 0.02
_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000

KEPT_MS = 30 * _DAY_MS
"""Decisions, dead letters and the tombstones of facts: how long somebody who was away may come back and read them."""

_INPUT = {"message.timestamp.type": "CreateTime"}
"""Records carry the clock at their arrival, which a worker may go by; a broker's own would hide a replay's."""

_LARGE = {"max.message.bytes": str(16 * MIB)}
"""Blocks of state, alerts that list every line of a feed, and dead letters, which hold a whole record and its trace."""

_FACTS = {"cleanup.policy": "compact", "delete.retention.ms": str(KEPT_MS)}
"""Newest value per key. A shard that was away for a month still learns that an item was retired."""

_UPSERTS = {
    "cleanup.policy": "compact",
    "segment.bytes": str(64 * MIB),
    "segment.ms": str(_HOUR_MS),
    "min.cleanable.dirty.ratio": "0.2",
}
"""Rewritten all day, and read from the start by every new subscriber: old values go within the hour."""

_STATE = {
    "cleanup.policy": "compact",
    "segment.bytes": str(64 * MIB),
    "segment.ms": str(600_000),
    "min.cleanable.dirty.ratio": "0.1",
    "max.compaction.lag.ms": str(600_000),
    **_LARGE,
}
"""A restart reads this topic: the cleaner must keep up, or it reads history. The open segment is never cleaned, so it
is closed after 10 minutes."""

_IN_SYNC = "min.insync.replicas"


class TopicsError(Exception):
    """Topics cannot be made what they must be; one sentence that says which, why, and what to do.

    Attributes
    ----------
    wrong_input
        Whether other settings would do; otherwise Kafka refused.
    """

    def __init__(self, sentence: str, *, wrong_input: bool = False) -> None:
        super().__init__(sentence)
        self.wrong_input = wrong_input


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """What a topic must be.

    Attributes
    ----------
    name
        With the prefix of the application.
    partitions, per_shard
        How many, and whether that follows the number of shards; otherwise it is 1 whatever the settings say.
    config
        Settings by Kafka's names.
    what
        What it carries.
    """

    name: str
    partitions: int
    per_shard: bool
    config: Mapping[str, str]
    what: str


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as Kafka has it.

    Attributes
    ----------
    spec
        What it must be.
    partitions, replication_factor
        What it has; 0 where it is missing.
    config
        Its values of the settings that the specification names.
    """

    spec: TopicSpec
    partitions: int = 0
    replication_factor: int = 0
    config: Mapping[str, str] = field(default_factory=dict)

    @property
    def differs(self) -> dict[str, tuple[str, str]]:
        """Settings that are not as specified: what they are, and what they must be."""
        if not self.partitions:
            return {}
        wanted = {name: value for name, value in self.spec.config.items() if self.config.get(name) != value}
        if int(wanted.get(_IN_SYNC, 1)) >= max(2, self.replication_factor):
            del wanted[_IN_SYNC]  # with as few copies as the topic has, nobody could write any more
        return {name: (self.config.get(name, ""), value) for name, value in wanted.items()}

    @property
    def as_specified(self) -> bool:
        """Whether it is there and as it must be."""
        return self.partitions == self.spec.partitions and not self.differs


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that was done, or is to be done.

    Attributes
    ----------
    topic
        Its name on this Kafka.
    action
        ``create`` the topic, ``alter`` a setting, or ``leave`` what cannot be altered here.
    what, before, after
        The setting and its values; of a new topic its settings.
    note
        What follows from it, where that is not plain.
    """

    topic: str
    action: Literal["create", "alter", "leave"]
    what: str
    before: str
    after: str
    note: str = ""


# ------------------------------------------------------------------------------------------------ specification
def topic_specs(kafka: KafkaSettings) -> list[TopicSpec]:
    """Every topic of an application, inputs first.

    Examples
    --------
    >>> specs = {spec.name: spec for spec in topic_specs(KafkaSettings(partitions=8))}
    >>> specs["shop.orders.v1"].partitions, specs["engine.state.v1"].partitions
    (8, 9)
    >>> specs["shop.catalog.v1"].config["cleanup.policy"]
    'compact'
    """
    events = _kept(kafka.retention_days * _DAY_MS if kafka.retention_days > 0 else -1)
    rows: list[tuple[str, bool, dict[str, str], str]] = [
        ("shop.orders.v1", True, {**_INPUT, **events}, "orders, cancellations, returns"),
        ("shop.clicks.v1", True, {**_INPUT, **events}, "views and carts"),
        ("shop.prices.v1", True, {**_INPUT, **events}, "prices, the shop's and competitors'"),
        ("shop.stock.v1", True, {**_INPUT, **events}, "stock counts"),
        ("shop.catalog.v1", True, {**_INPUT, **_FACTS}, "what items are"),
        ("shop.reviews.v1", True, {**_INPUT, **events}, "reviews"),
        ("shop.calendar.v1", False, {**_INPUT, **_FACTS}, "announced days, read by every shard"),
        ("engine.command.v1", False, {**_INPUT, **_FACTS}, "commands, read by every shard"),
        ("replenishment.ack.v1", False, {**_INPUT, **events}, "answers to triggers, read by every shard"),
        ("forecast.demand.v1", True, _UPSERTS, "demand forecasts, the newest per series"),
        ("forecast.price.v1", True, _UPSERTS, "price forecasts, the newest per price line"),
        ("alerts.price.v1", True, {**_UPSERTS, **_LARGE}, "price alerts, the newest revision"),
        ("replenishment.trigger.v1", True, _kept(KEPT_MS), "replenishment triggers"),
        ("engine.candidates.v1", False, {**_kept(KEPT_MS), **_LARGE}, "what shards found, for the coordinator"),
        ("engine.deadletter.v1", False, {**_kept(KEPT_MS), **_LARGE}, "records that could not be used, and why"),
        ("engine.model.v1", False, {"cleanup.policy": "compact"}, "promotions and rollbacks of models"),
        ("engine.state.v1", True, _STATE, "the state: a partition per shard, the last the coordinator's"),
    ]
    safe = {_IN_SYNC: "2" if kafka.replication_factor > 2 else "1"}  # one broker may be away
    specs = []
    for name, per_shard, config, what in rows:
        partitions = (kafka.partitions + (name == "engine.state.v1")) if per_shard else 1
        specs.append(TopicSpec(kafka.topic(name), partitions, per_shard, {**config, **safe}, what))
    return specs


def _kept(retention_ms: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(retention_ms)}


# ------------------------------------------------------------------------------------------------ what Kafka has
def described(kafka: KafkaSettings, timeout_s: float = CONNECT_TIMEOUT_S) -> list[TopicState]:
    """Every topic of the application as Kafka has it, in the order of `topic_specs`.

    Raises
    ------
    UnreachableError
        If Kafka does not answer within `timeout_s`, or does not let us in.
    TopicsError
        If it does not tell of a topic.
    """
    with admin(kafka, timeout_s) as client, _refusals(kafka):
        return _states(client, topic_specs(kafka))


def plan(states: Iterable[TopicState], kafka: KafkaSettings) -> list[Change]:
    """What makes topics as they are what they must be, in the order it is done.

    Raises
    ------
    TopicsError
        If one of them has another number of partitions.
    """
    changes: list[Change] = []
    for state in states:
        spec = state.spec
        if not state.partitions:
            told = ", ".join(f"{name}={value}" for name, value in sorted(spec.config.items()))
            changes.append(Change(spec.name, "create", _partitions(spec.partitions), "", told))
            continue
        _refuse_other_partitions(state)
        changes += [
            Change(spec.name, "alter", name, before, after, _NOTES.get((name, after), ""))
            for name, (before, after) in state.differs.items()
        ]
        if state.replication_factor != kafka.replication_factor:
            copies = str(state.replication_factor), str(kafka.replication_factor)
            note = "copies are moved by kafka-reassign-partitions, not here"
            changes.append(Change(spec.name, "leave", "replication factor", *copies, note))
    return changes


_NOTES = {
    ("cleanup.policy", "compact"): "from now on only the newest record of each key stays",
    ("cleanup.policy", "delete"): "from now on records go by age, the newest of a key too",
}


def _refuse_other_partitions(state: TopicState) -> None:
    spec, has = state.spec, state.partitions
    if has == spec.partitions:
        return
    raise TopicsError(
        f"topic {spec.name!r} has {_partitions(has)} and must have {spec.partitions}; "
        + (
            "a partition's number is its shard's, so another count would send items to shards that do not hold their "
            "state: keep kafka.partitions as it was, or begin anew under another kafka.topic_prefix"
            if spec.per_shard
            else "it is read in one order by all: delete it with its records, and it is made anew, or choose another "
            "kafka.topic_prefix"
        ),
        wrong_input=True,
    )


def _partitions(count: int) -> str:
    return f"{count} partition{'s' * (count > 1)}"


def _states(client: KafkaAdminClient, specs: list[TopicSpec]) -> list[TopicState]:
    found: dict[str, dict[str, Any]] = {}
    for topic in client.describe_topics([spec.name for spec in specs]):
        if topic["error_code"] == 0:
            found[topic["name"]] = topic
        elif topic["error_code"] != UnknownTopicOrPartitionError.errno:
            raise TopicsError(f"Kafka does not tell of topic {topic['name']!r} ({_reason(topic)})")
    configs = _configs(client, [spec for spec in specs if spec.name in found])
    return [_state(spec, found[spec.name], configs) if spec.name in found else TopicState(spec) for spec in specs]


def _state(spec: TopicSpec, topic: Mapping[str, Any], configs: Mapping[str, Mapping[str, Any]]) -> TopicState:
    partitions = topic["partitions"]
    return TopicState(
        spec,
        len(partitions),
        max(len(partition["replica_nodes"]) for partition in partitions),
        {name: entry["value"] for name, entry in configs[spec.name].items()},
    )


def _configs(client: KafkaAdminClient, specs: list[TopicSpec]) -> Mapping[str, Mapping[str, Any]]:
    if not specs:
        return {}
    asked = [ConfigResource(ConfigResourceType.TOPIC, spec.name, list(spec.config)) for spec in specs]
    told: dict[str, Mapping[str, Mapping[str, Any]]] = client.describe_configs(asked, config_filter="all")
    return told["topic"]


# ------------------------------------------------------------------------------------------------ what is done
def apply(kafka: KafkaSettings, *, dry_run: bool = False, timeout_s: float = CONNECT_TIMEOUT_S) -> list[Change]:
    """Make the topics what they must be; several may do so at once.

    In this order: 1. nothing is done unless all can be done; 2. missing topics are created, and one that somebody else
    created meanwhile is as good; 3. settings are altered; 4. Kafka is asked until it shows all of that, for its brokers
    learn it a moment after it is decided.

    Parameters
    ----------
    dry_run
        Do the first step alone: Kafka too is asked whether it would create the topics.

    Returns
    -------
    What was done, or would be; empty where nothing was left to do.

    Raises
    ------
    UnreachableError
        If Kafka does not answer within `timeout_s`, or does not let us in.
    TopicsError
        If a topic has another number of partitions, or Kafka refuses a change.
    """
    specs = {spec.name: spec for spec in topic_specs(kafka)}
    with admin(kafka, timeout_s) as client, _refusals(kafka):
        changes = plan(_states(client, [*specs.values()]), kafka)
        missing = [specs[change.topic] for change in changes if change.action == "create"]
        _create(client, missing, kafka, validate_only=True)  # 1.
        if not dry_run:
            _create(client, missing, kafka)  # 2.
            _alter(client, changes)  # 3.
            _await_shown(client, [specs[change.topic] for change in changes], kafka, timeout_s)  # 4.
    return changes


def _await_shown(client: KafkaAdminClient, specs: list[TopicSpec], kafka: KafkaSettings, timeout_s: float) -> None:
    until_s = time.monotonic() + timeout_s
    while left := [change for change in plan(_states(client, specs), kafka) if change.action != "leave"]:
        if time.monotonic() >= until_s:
            raise TopicsError(
                f"topic {left[0].topic!r} still shows another {left[0].what} after {timeout_s:g} s; see whether "
                "somebody else changes it"
            )
        time.sleep(_ASK_AGAIN_S)


def _create(
    client: KafkaAdminClient, specs: list[TopicSpec], kafka: KafkaSettings, *, validate_only: bool = False
) -> None:
    if not specs:
        return
    wanted = {
        spec.name: {
            "num_partitions": spec.partitions,
            "replication_factor": kafka.replication_factor,
            "configs": dict(spec.config),
        }
        for spec in specs
    }
    made = client.create_topics(wanted, raise_errors=False, validate_only=validate_only)
    for topic in made["topics"]:
        if topic["error_code"] not in (0, TopicAlreadyExistsError.errno):
            raise TopicsError(
                f"Kafka does not create topic {topic['name']!r} ({_reason(topic)})",
                wrong_input=topic["error_code"] == InvalidReplicationFactorError.errno,
            )
    if not validate_only:
        client.wait_for_topics([*wanted])


def _alter(client: KafkaAdminClient, changes: list[Change]) -> None:
    wanted: dict[str, dict[str, str]] = {}
    for change in changes:
        if change.action == "alter":
            wanted.setdefault(change.topic, {})[change.what] = change.after
    if not wanted:
        return
    told = client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, *one) for one in wanted.items()])
    for topic, answer in told["topic"].items():
        if answer != "OK":
            raise TopicsError(f"Kafka does not alter topic {topic!r} ({answer.strip().rstrip('.')})")


def _reason(topic: Mapping[str, Any]) -> str:
    """Kafka's words for what is wrong with a topic, or the name of the error."""
    words = str(topic.get("error_message") or for_code(topic["error_code"]).__name__)
    return words.strip().rstrip(".")


@contextmanager
def _refusals(kafka: KafkaSettings) -> Iterator[None]:
    """What kafka-python raises while topics are looked at or changed, as sentences."""
    try:
        yield
    except (KafkaConnectionError, KafkaTimeoutError, RequestTimedOutError):
        raise  # Kafka went away, which `admin` tells
    except KafkaError as error:
        raise TopicsError(f"Kafka at {kafka.bootstrap_servers} refuses ({error})") from None
