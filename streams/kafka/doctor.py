"""Whether everything is in order for workers to run: Kafka, topics, records, clocks, the group, state, this machine.

In: settings; Kafka, read only. Out: `Finding`s, in the order in which they should be mended.
Must not know: commands. Rule: nothing is written anywhere, nobody is fenced, and no group is joined; one thing that
cannot be looked at does not hide the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kafka.errors import KafkaError

from streams.engine import EngineConfig
from streams.kafka import machine
from streams.kafka.answering import answering
from streams.kafka.arrivals import ITEM_TOPICS, SHARED_TOPICS
from streams.kafka.champion import MODEL_TOPIC
from streams.kafka.connection import UnreachableError, admin, reach
from streams.kafka.findings import Finding, Level, gibibytes
from streams.kafka.ledger import STATE_TOPIC, Position
from streams.kafka.offsets import Offsets
from streams.kafka.samples import judged, sampled
from streams.kafka.settings import KafkaSettings, WorkerSettings
from streams.kafka.shard import CANDIDATES_TOPIC
from streams.kafka.source import Place, SourceError
from streams.kafka.state_topic import MOST_BYTES, StateSize, state_sizes
from streams.kafka.topics import TopicsError, TopicState, described
from streams.partition import PartitionerName

OLDEST_KAFKA = (3, 7)
"""The oldest that workers are meant for."""

SAMPLES = 2_000
"""Newest records of each item topic that are looked at."""

SKEW_S, WRONG_S = 5.0, 3_600.0
"""How far a record may be ahead of this machine's clock; beyond the second its event is a dead letter."""

LITTLE_LIVE, MUCH_BYTES = 0.1, 256 << 20
"""A state topic of which less than this share is live, and that is larger than this, makes restarts slow."""

ASK_TIMEOUT_S = 10.0
_UNITS = (("days", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def examine(
    kafka: KafkaSettings,
    worker: WorkerSettings,
    config: EngineConfig,
    partitioner: PartitionerName,
    *,
    samples: int = SAMPLES,
) -> list[Finding]:
    """Look at everything.

    Parameters
    ----------
    kafka, worker, config, partitioner
        Settings of the workers.
    samples
        Newest records of each item topic to look at.

    Raises
    ------
    streams.kafka.connection.UnreachableError
        If Kafka refuses the settings: user, password, mechanism.
    """
    found = list[Finding]()
    members = 0
    try:
        reach(kafka, min(worker.connect_timeout_s, ASK_TIMEOUT_S))
        doctor = _Doctor(kafka, partitioner, samples)
        found += doctor.run()
        members = doctor.members
    except UnreachableError as error:
        if error.wrong_input:
            raise
        what, _, advice = str(error).partition("; ")
        found.append(Finding("Kafka", "fault", what, advice))
    shards = -(-kafka.partitions // max(1, members))
    return [*found, machine.memory(config, worker, shards), machine.metrics_port(worker), machine.disk(worker)]


class _Doctor:
    """Looks at one Kafka."""

    def __init__(self, kafka: KafkaSettings, partitioner: PartitionerName, samples: int) -> None:
        self.members = 0
        self._kafka, self._partitioner, self._samples = kafka, partitioner, samples
        self._offsets = Offsets(kafka)
        self._counts: dict[str, int] = {}

    def run(self) -> Iterator[Finding]:
        yield from self._guarded("Kafka", self._broker)
        yield from self._guarded("topics", self._topics)
        present = [name for name in ITEM_TOPICS if self._counts.get(name)]
        if present:
            yield from self._guarded("records", lambda: self._records(present))
            yield from self._guarded("clocks", lambda: self._clocks(present))
        if self._counts.get(MODEL_TOPIC):
            yield from self._guarded("models", self._models)
        if self._counts.get(STATE_TOPIC) != self._kafka.partitions + 1:
            return
        yield from self._guarded("group", self._group)
        yield from self._guarded("state", self._state)

    def _guarded(self, check: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
        """What a look finds, or why it cannot be had."""
        try:
            yield from list(look())
        except (KafkaError, SourceError, TopicsError, UnreachableError) as error:
            advice = "see that this user may describe topics, groups and the cluster"
            yield Finding(check, "warning", f"cannot be looked at ({error})", advice)

    # -- the broker and its topics

    def _broker(self) -> Iterator[Finding]:
        with admin(self._kafka, ASK_TIMEOUT_S) as client:
            brokers = client.describe_cluster()["brokers"]
            versions = sorted({client.get_broker_version_data(one["broker_id"]).broker_version for one in brokers})
        told = " and ".join(".".join(map(str, version)) for version in versions)
        found = f"{len(brokers)} broker{'s' * (len(brokers) > 1)} of Kafka {told} at {self._kafka.bootstrap_servers}"
        facts = {"brokers": len(brokers), "versions": [list(version) for version in versions]}
        if versions[0] < OLDEST_KAFKA:
            yield Finding("Kafka", "warning", found, "workers are meant for 3.7 and newer", facts)
        else:
            yield Finding("Kafka", "ok", found, facts=facts)

    def _topics(self) -> Iterator[Finding]:
        states = described(self._kafka, ASK_TIMEOUT_S)
        prefix = self._kafka.topic_prefix
        self._counts = {state.spec.name.removeprefix(prefix): state.partitions for state in states}
        bad = [*_missing(states), *(finding for state in states for finding in _topic(state, self._kafka))]
        yield from bad
        if not bad:
            text = f"all {len(states)} are as they must be, the item topics with {self._kafka.partitions} partitions"
            yield Finding("topics", "ok", text)

    def _models(self) -> Iterator[Finding]:
        found = answering(self._kafka, self._offsets, ASK_TIMEOUT_S)
        if found is not None:
            yield found

    # -- records and clocks

    def _records(self, present: list[str]) -> Iterator[Finding]:
        found = sampled(self._kafka, present, self._counts, self._samples, ASK_TIMEOUT_S)
        return judged(found, self._partitioner)

    def _clocks(self, present: list[str]) -> Iterator[Finding]:
        """Kafka tells no time of its own; the newest timestamps tell that of producers and workers."""
        now_ms = time.time_ns() // 1_000_000
        inputs = [(self._kafka.topic(name), at) for name in present for at in range(self._counts[name])]
        states = [(self._kafka.topic(STATE_TOPIC), at) for at in range(self._counts.get(STATE_TOPIC, 0))]
        newest = self._offsets.newest_ms([*inputs, *states], ASK_TIMEOUT_S)
        for whose, places in (("producers", inputs), ("workers", states)):
            times = [newest[place] for place in places if newest.get(place, -1) >= 0]
            if times:
                yield _clock(whose, (max(times) - now_ms) / 1000)
        if not newest:
            yield Finding("clocks", "ok", "no records yet to compare this machine's clock with")

    # -- the group

    def _group(self) -> Iterator[Finding]:
        with admin(self._kafka, ASK_TIMEOUT_S) as client:
            told: dict[str, Any] = client.describe_groups([self._kafka.application_id])[self._kafka.application_id]
        self.members = len(told["members"])
        facts = {"members": self.members, "state": told["group_state"]}
        name = f"group {self._kafka.application_id!r}"
        if not self.members:
            yield Finding(
                "group", "warning", f"{name} has no members: no worker runs", "start `shelftide worker`", facts
            )
        elif told["group_state"] != "Stable":
            text = f"{name} is in state {told['group_state']}"
            yield Finding("group", "warning", text, "look again in a minute: it is dividing its partitions", facts)
        else:
            yield Finding("group", "ok", f"{name} has {self.members} worker{'s' * (self.members > 1)}", facts=facts)

    # -- state

    def _state(self) -> Iterator[Finding]:
        on_disk = self._on_disk()
        whole = on_disk is not None and on_disk <= MOST_BYTES
        sizes = state_sizes(self._kafka, ASK_TIMEOUT_S, whole=whole)
        yield _size(sizes, on_disk, whole=whole)
        positions = [size.position for size in sizes]
        others = {position.shards for position in positions if position is not None} - {self._kafka.partitions}
        if others:
            text = f"the state is that of {min(others)} shards, the settings say {self._kafka.partitions}"
            yield Finding("state", "fault", text, "set kafka.partitions back, or begin under another topic_prefix")
            return
        yield self._lag(positions)

    def _on_disk(self) -> int | None:
        """Bytes of the state topic on the brokers' disks, one copy; None where they do not say."""
        topic = self._kafka.topic(STATE_TOPIC)
        try:
            with admin(self._kafka, ASK_TIMEOUT_S) as client:
                told: Any = client.describe_log_dirs()
        except KafkaError:
            return None
        sizes: dict[int, int] = {}
        for folder in (folder for broker in told for folder in broker["log_dirs"]):
            for one in (part for found in folder["topics"] if found["name"] == topic for part in found["partitions"]):
                at = one["partition_index"]
                sizes[at] = max(sizes.get(at, 0), one["partition_size"])
        return sum(sizes.values())

    def _lag(self, positions: list[Position | None]) -> Finding:
        """Records that no committed state contains yet, by what the state itself says."""
        done: dict[Place, int] = {}
        for shard, position in enumerate(positions):
            offsets = position.offsets if position is not None else {}
            names = (*ITEM_TOPICS, *SHARED_TOPICS) if shard < self._kafka.partitions else (CANDIDATES_TOPIC,)
            for name in names:
                place = (self._kafka.topic(name), shard if name in ITEM_TOPICS else 0)
                done[place] = min(offsets.get(place[0], 0), done.get(place, 1 << 62))
        ends = self._offsets.ends(done, ASK_TIMEOUT_S)
        lags = {
            at: max(0, ends[at] - offset) for at, offset in done.items() if at[0] != self._kafka.topic(CANDIDATES_TOPIC)
        }
        total = sum(lags.values())
        prefix = self._kafka.topic_prefix
        facts = {
            "records": total,
            "partitions": {f"{topic.removeprefix(prefix)}/{at}": lag for (topic, at), lag in lags.items()},
            "positions": [None if one is None else {"clock_ms": one.clock_ms, **one.offsets} for one in positions],
        }
        if not total:
            return Finding("lag", "ok", "committed state contains every record of the input topics", facts=facts)
        most = max(lags, key=lambda at: lags[at])
        text = f"{total:,} records are in no committed state yet, most of them ({lags[most]:,}) in partition "
        text += f"{most[1]} of {most[0]}"
        if self.members:
            return Finding("lag", "ok", text, facts=facts)
        return Finding("lag", "warning", text, "start a worker: what retention deletes before is lost", facts)


def _missing(states: list[TopicState]) -> Iterator[Finding]:
    names = [repr(state.spec.name) for state in states if not state.partitions]
    if names:
        text = f"{names[0]} is missing" if len(names) == 1 else f"{len(names)} are missing: {', '.join(names)}"
        yield Finding("topics", "fault", text, "run `shelftide topics apply`")


def _topic(state: TopicState, kafka: KafkaSettings) -> Iterator[Finding]:
    """What is wrong with a topic that is there."""
    spec = state.spec
    if not state.partitions:
        return
    if state.partitions != spec.partitions:
        text = f"{spec.name!r} has {state.partitions} partitions and must have {spec.partitions}"
        advice = (
            "set kafka.partitions to what the item topics have" if spec.per_shard else "see `shelftide topics list`"
        )
        yield Finding("topics", "fault", text, advice)
    for name, (has, wanted) in state.differs.items():
        text = f"{spec.name!r} has {name}={has} and must have {wanted}"
        yield Finding("topics", "warning", text, "run `shelftide topics apply`")
    if state.replication_factor < kafka.replication_factor:
        text = f"{spec.name!r} has {state.replication_factor} of {kafka.replication_factor} copies"
        yield Finding("topics", "warning", text, "move copies with kafka-reassign-partitions")


def _clock(whose: str, ahead_s: float) -> Finding:
    level: Level = "fault" if ahead_s > WRONG_S else "warning" if ahead_s > SKEW_S else "ok"
    facts = {"ahead_s": round(ahead_s, 3)}
    if level == "ok":
        age = next(
            f"{max(0.0, -ahead_s) / unit_s:,.0f} {unit}" for unit, unit_s in _UNITS if -ahead_s >= unit_s or unit_s == 1
        )
        return Finding(
            "clocks", "ok", f"the newest record of {whose} is {age} old by this machine's clock", facts=facts
        )
    text = f"the newest record of {whose} is {ahead_s:,.0f} s ahead of this machine's clock"
    return Finding("clocks", level, text, "let all machines follow one time server (NTP)", facts)


def _size(sizes: list[StateSize], on_disk: int | None, *, whole: bool) -> Finding:
    """How large the state topic is, and how much of it is live."""
    disk = "an unknown size" if on_disk is None else gibibytes(on_disk)
    if not whole:
        return Finding("state", "ok", f"{disk} on disk, too large to be read here", facts={"disk_bytes": on_disk})
    size, live = (sum(getattr(one, name) for one in sizes) for name in ("size_bytes", "live_bytes"))
    facts = {
        "disk_bytes": on_disk, "size_bytes": size, "live_bytes": live,
        "shards": [{"records": s.records, "live_records": s.live_records, "live_bytes": s.live_bytes} for s in sizes],
    }  # fmt: skip
    share = live / size if size else 1.0
    text = f"{disk} on disk, {gibibytes(live)} of {gibibytes(size)} are live ({share:.0%})"
    if share < LITTLE_LIVE and size > MUCH_BYTES:
        advice = "restarts read all of it: see that the broker's log cleaner runs, and `shelftide topics apply`"
        return Finding("state", "warning", text, advice, facts)
    return Finding("state", "ok", text, facts=facts)
