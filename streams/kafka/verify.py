"""The consistency checker: the state of every shard against the raw topics, up to exactly the offsets in that state.

In: Kafka, read only; the engine's configuration. Out: a `Report`.
Must not know: commands. Rule: nobody is fenced and nothing is written, so it may run beside workers: each state that it
reads is one that some commit left.

    report = verify(kafka, settings.engine(), settings.partitioner)
    assert report.equal, report

Of each shard it reads the state as a new owner would, restores an engine from it, counts the orders topic anew without
any of the engine's code (`recount.py`) and compares every bucket (`pane_check.py`). It also looks whether offsets in
the state lie beyond their topic, whether the group has committed more than the state contains, whether a record that
is no event became no dead letter or two, and whether an id of an alert or trigger has two contents.

Limits: clicks are not counted anew. An id that one item uses on two topics, against the contract, shows as a
difference. Buckets of which records were deleted by retention are not compared: `since` says from when on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import xxhash
from confluent_kafka.admin import AdminClient

from streams.calendar import HOUR_MS, Width
from streams.engine import Engine, EngineConfig
from streams.kafka.arrivals import ITEM_TOPICS, LARGEST_VALUE_BYTES, SHARED_TOPICS
from streams.kafka.connection import reach
from streams.kafka.ledger import STATE_TOPIC, Ledger, LedgerError, Position, of_engine
from streams.kafka.offsets import Offsets
from streams.kafka.pane_check import Compared, Difference, PaneCheck
from streams.kafka.recount import Recount, Rules
from streams.kafka.reread import Reread, headers_of
from streams.kafka.settings import KafkaSettings
from streams.kafka.shard import CANDIDATES_TOPIC
from streams.kafka.source import Place, SourceError
from streams.outputs import ALERT_TOPIC, DEADLETTER_TOPIC, TRIGGER_TOPIC
from streams.parked import parked_values
from streams.partition import Partitioner, PartitionerName
from streams.state import SnapshotError

ORDERS, CATALOG = "shop.orders.v1", "shop.catalog.v1"
FINAL_STAGES = ("late", "ahead")
"""Stages of events that were good but for their time; they had passed all others."""

TIMEOUT_S = 60.0


class VerifyError(Exception):
    """State or topics cannot be compared; one sentence."""

    wrong_input = False


@dataclass(frozen=True, slots=True)
class At:
    """How far a partition has come: in state, as the group's committed offset (-1: none), and its end."""

    state: int
    group: int
    end: int


@dataclass(slots=True)
class ShardReport:
    """What was found of one shard, or of the coordinator (-1), whose offsets alone are looked at.

    Attributes
    ----------
    shard
        Number.
    offsets
        Of each topic, without the prefix.
    records
        Orders read, by what became of them.
    compared
        The panes.
    faults
        Sentences on everything else that is wrong.
    notes
        Sentences on what could not be looked at.
    """

    shard: int
    offsets: dict[str, At] = field(default_factory=dict)
    records: dict[str, int] = field(default_factory=dict)
    compared: Compared = field(default_factory=Compared)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults and not self.compared.differences


@dataclass(slots=True)
class Report:
    """What a verification found.

    Attributes
    ----------
    shards
        Of each shard, then of the coordinator.
    ids, repeated
        Ids of alerts and triggers, and sentences on those with two contents.
    """

    shards: list[ShardReport] = field(default_factory=list)
    ids: int = 0
    repeated: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether nothing is wrong anywhere."""
        return not self.repeated and all(shard.equal for shard in self.shards)

    @property
    def differences(self) -> list[Difference]:
        """The first differences of every shard."""
        return [one for shard in self.shards for one in shard.compared.named]

    @property
    def wrong(self) -> list[str]:
        """Everything that is wrong, in sentences."""
        faults = [fault for shard in self.shards for fault in shard.faults]
        hidden = sum(shard.compared.differences - len(shard.compared.named) for shard in self.shards)
        more = [f"{hidden} further buckets differ"] if hidden else []
        return [*faults, *map(str, self.differences), *more, *self.repeated]

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"equal": self.equal, **asdict(self)}

    def __str__(self) -> str:
        series = sum(shard.compared.series for shard in self.shards)
        buckets = sum(shard.compared.buckets for shard in self.shards)
        head = f"{series} series, {buckets} buckets compared, {self.ids} ids"
        return "\n".join([f"{head}: {'equal' if self.equal else 'not equal'}", *self.wrong])


def verify(
    kafka: KafkaSettings, config: EngineConfig, partitioner: PartitionerName, *, timeout_s: float = TIMEOUT_S
) -> Report:
    """Compare the committed state of every shard with the raw topics.

    Parameters
    ----------
    kafka
        Where, and which application.
    config
        Of its engines, as its workers have it.
    partitioner
        How its producers spread SKUs.
    timeout_s
        How long Kafka may be silent.

    Raises
    ------
    streams.kafka.connection.UnreachableError
        If Kafka does not answer.
    VerifyError
        If topics are missing, or a state cannot be read or restored.
    """
    reach(kafka, timeout_s)
    _check_topics(kafka, timeout_s)
    check = _Verification(kafka, config, partitioner, timeout_s)
    try:
        return check.run()
    except (LedgerError, SourceError) as error:
        raise VerifyError(str(error)) from error
    finally:
        check.close()


def rules_of(config: EngineConfig) -> Rules:
    """What a recount has to know of the engines."""
    return Rules(
        hourly=config.width is Width.HOUR,
        time_zone=config.time_zone,
        location_time_zones=config.location_time_zones,
        ring=config.panes.buckets,
        lateness_ms=config.time.lateness_ms,
        ahead_ms=config.time.ahead_ms + config.time.bound_ms,
    )


def _check_topics(kafka: KafkaSettings, timeout_s: float) -> None:
    wanted = dict.fromkeys((*ITEM_TOPICS, ALERT_TOPIC, TRIGGER_TOPIC), kafka.partitions)
    wanted |= dict.fromkeys((*SHARED_TOPICS, CANDIDATES_TOPIC, DEADLETTER_TOPIC), 1)
    wanted[STATE_TOPIC] = kafka.partitions + 1
    there = AdminClient({**kafka.librdkafka(), "log_level": 0}).list_topics(timeout=timeout_s).topics
    for name, partitions in wanted.items():
        topic = kafka.topic(name)
        has = len(there[topic].partitions) if topic in there else 0
        if has != partitions:
            raise VerifyError(
                f"topic {topic!r} has {has} partitions and must have {partitions}; see `shelftide topics`"
            )


class _Verification:
    def __init__(
        self, kafka: KafkaSettings, config: EngineConfig, partitioner: PartitionerName, timeout_s: float
    ) -> None:
        self._kafka, self._config, self._timeout_s = kafka, config, timeout_s
        read = (ORDERS, CATALOG, DEADLETTER_TOPIC, ALERT_TOPIC, TRIGGER_TOPIC)
        self._offsets, self._reread = Offsets(kafka), Reread(kafka, map(kafka.topic, read), timeout_s)
        self._letters = _Letters(kafka, Partitioner(partitioner, kafka.partitions), self._offsets, self._reread)
        self._partitioner = Partitioner(partitioner, kafka.partitions)

    def close(self) -> None:
        self._reread.close()

    def run(self) -> Report:
        report = Report()
        for number in [*range(self._kafka.partitions), -1]:
            report.shards.append(self._shard(number))
        self._ids(report)
        return report

    def _shard(self, number: int) -> ShardReport:
        found = ShardReport(number)
        topics = [CANDIDATES_TOPIC] if number < 0 else [*ITEM_TOPICS, *SHARED_TOPICS]
        places = {name: (self._kafka.topic(name), number if name in ITEM_TOPICS else 0) for name in topics}
        group = self._offsets.committed(places.values(), self._timeout_s)  # before the state, which may go on meanwhile
        name, partition = ("coordinator", self._kafka.partitions) if number < 0 else (f"shard-{number}", number)
        records, position = Ledger(self._kafka, name, partition).read(self._timeout_s)
        if position is None:
            found.notes.append(f"{name} has committed no state yet")
            position = Position({}, 0, self._kafka.partitions)
        if position.shards != self._kafka.partitions:
            found.faults.append(
                f"{name} has the state of {position.shards} shards, the settings say {self._kafka.partitions}"
            )
            return found
        self._positions(found, name, places, position, group)
        if number >= 0 and records:
            self._panes(found, records, position)
        return found

    # -- offsets

    def _positions(
        self, found: ShardReport, name: str, places: dict[str, Place], position: Position, group: dict[Place, int]
    ) -> None:
        ends = self._offsets.ends(places.values(), self._timeout_s)
        for topic, place in places.items():
            at = At(position.offsets.get(place[0], 0), group.get(place, -1), ends[place])
            found.offsets[topic] = at
            if at.state > at.end:
                found.faults.append(
                    f"{name}: its state says that {topic} was read up to {at.state}, and the topic ends at {at.end}"
                )
            if at.group > at.state and topic not in SHARED_TOPICS:
                found.faults.append(
                    f"{name}: the group has committed {at.group} of {topic}, and the state ends at {at.state}"
                )

    # -- panes

    def _panes(self, found: ShardReport, records: dict[str, bytes], position: Position) -> None:
        engine = Engine(self._config, shard=found.shard)
        try:
            engine.restore(of_engine(records))
        except SnapshotError as error:
            raise VerifyError(f"shard {found.shard}: {error}") from error
        self._letters.read_on(self._timeout_s)
        retired = self._retired(found.shard, position)
        forgotten = engine.counts["item_retired"] > len(retired)
        cut = forgotten or (engine.series.refused > 0 and bool(retired))
        letters = self._letters.of(found.shard, position)
        parked = Counter[bytes | None](parked_values(records))
        recount = Recount(rules_of(self._config), letters, parked, set(retired), all_cut=cut)
        place = (self._kafka.topic(ORDERS), found.shard)
        begins = self._offsets.beginnings([place], self._timeout_s)[place]
        stop = position.offsets.get(place[0], 0)
        for message in self._reread.read({place: (begins, stop)}):
            value = message.value()  # a dead letter has the beginning alone of what is too large for any event
            recount.take(message.offset() or 0, None if value is None else value[:LARGEST_VALUE_BYTES])
        self._lost(found, recount)
        found.records = {"counted": recount.counted, "repeats": recount.repeats, "left out": recount.left_out}
        since_ms = self._since_ms(found, recount, begins)
        found.compared = PaneCheck(found.shard, engine, recount, since_ms).run()
        self._strangers(found, engine)

    def _retired(self, shard: int, position: Position) -> list[str]:
        """SKUs as often as the catalog says that they were retired."""
        place = (self._kafka.topic(CATALOG), shard)
        out = []
        for message in self._reread.read({place: (0, position.offsets.get(place[0], 0))}):
            value, key = message.value(), message.key() or b""
            if value is None or b'"item_retired"' in value:
                out.append(key.decode(errors="replace"))
        return out

    def _lost(self, found: ShardReport, recount: Recount) -> None:
        if recount.lost and not self._letters.since_ms:
            found.faults.append(
                f"shard {found.shard}: {len(recount.lost)} records of {ORDERS} are no events and no dead letters "
                f"either, the first at offset {recount.lost[0]}"
            )
        found.faults += self._letters.twice(found.shard)

    def _since_ms(self, found: ShardReport, recount: Recount, begins: int) -> int:
        """Instant before which something is missing that was counted once."""
        rules, since_ms = rules_of(self._config), -1
        if begins > 0:
            last_ms = recount.first_ms if recount.first_ms is not None else 1 << 45
            since_ms = last_ms + rules.lateness_ms + rules.ahead_ms
            found.notes.append(f"shard {found.shard}: {ORDERS} begins at offset {begins}, what was before is gone")
        if self._letters.since_ms:
            since_ms = max(since_ms, self._letters.since_ms + HOUR_MS)
            found.notes.append(f"shard {found.shard}: the first dead letters are gone, and late events with them")
        return since_ms

    def _strangers(self, found: ShardReport, engine: Engine) -> None:
        """Series that belong to another shard."""
        skus = [engine.series.key(slot)[0] for slot in engine.series.live().tolist()]
        homes = self._partitioner.of(skus).tolist()
        wrong = [sku for sku, home in zip(skus, homes, strict=True) if home != found.shard]
        if wrong:
            found.faults.append(
                f"shard {found.shard}: its state holds {len(wrong)} series of other shards by "
                f"{self._partitioner.name}, such as {wrong[0]!r}"
            )

    # -- outputs

    def _ids(self, report: Report) -> None:
        """Whether an id of an alert or trigger has two contents."""
        names = {self._kafka.topic(name): name for name in (ALERT_TOPIC, TRIGGER_TOPIC)}
        places = [(topic, partition) for topic in names for partition in range(self._kafka.partitions)]
        begins, ends = (ask(places, self._timeout_s) for ask in (self._offsets.beginnings, self._offsets.ends))
        seen: dict[bytes, int] = {}
        for message in self._reread.read({place: (begins[place], ends[place]) for place in places}):
            event_id = headers_of(message).get("ce_id", b"")
            content = xxhash.xxh3_64_intdigest(message.value() or b"")
            if event_id and seen.setdefault(event_id, content) != content:
                name = names[message.topic() or ""]
                report.repeated.append(f"{name}: id {event_id.decode(errors='replace')} has two contents")
        report.ids = len(seen)


@dataclass(frozen=True, slots=True)
class _Letter:
    stage: str
    topic: str
    partition: int
    offset: int
    shard: int
    value: bytes | None


class _Letters:
    """Dead letters of all shards, read on before each.

    Attributes
    ----------
    since_ms
        When the first that is still there was written, if others were before it; else 0.
    """

    def __init__(self, kafka: KafkaSettings, partitioner: Partitioner, offsets: Offsets, reread: Reread) -> None:
        self.since_ms = 0
        self._kafka, self._partitioner, self._offsets, self._reread = kafka, partitioner, offsets, reread
        self._next = -1
        self._all: list[_Letter] = []
        self._times = Counter[tuple[str, int, int, bytes | None]]()

    def read_on(self, timeout_s: float) -> None:
        """Take in what was written since the last call."""
        place = (self._kafka.topic(DEADLETTER_TOPIC), 0)
        end = self._offsets.ends([place], timeout_s)[place]
        begins = self._offsets.beginnings([place], timeout_s)[place] if self._next < 0 else 0
        for message in self._reread.read({place: (max(begins, self._next), end)}):
            if begins and not self.since_ms:
                self.since_ms = int(message.timestamp()[1])
            self._take(headers_of(message), message.key(), message.value())
        if begins and not self.since_ms:
            self.since_ms = 1 << 45  # all of them are gone
        self._next = end

    def _take(self, headers: dict[str, bytes], key: bytes | None, value: bytes | None) -> None:
        stage = headers.get("x-stage", b"").decode()
        topic = headers.get("__streams.errors.topic", b"").decode().removeprefix(self._kafka.topic_prefix)
        try:
            partition, offset = (
                int(headers.get(f"__streams.errors.{name}", b"-1")) for name in ("partition", "offset")
            )
        except ValueError:
            return  # nobody of ours wrote it
        shard = partition
        if stage in FINAL_STAGES:  # the origin may be that of the record which settled the matter
            shard = int(self._partitioner.of([(key or b"").decode(errors="replace")])[0])
        elif topic != ORDERS:
            return
        self._all.append(_Letter(stage, topic, partition, offset, shard, value))
        if stage not in FINAL_STAGES:
            self._times[topic, partition, offset, value] += 1

    def of(self, shard: int, position: Position) -> Counter[bytes | None]:
        """How often each value is a dead letter of a shard, up to a position."""
        found = Counter[bytes | None]()
        for letter in self._all:
            known = position.offsets.get(self._kafka.topic(letter.topic), 0) if letter.topic else letter.offset + 1
            if letter.shard == shard and letter.offset < known:
                found[letter.value] += 1
        return found

    def twice(self, shard: int) -> Iterator[str]:
        """Sentences on records that became two dead letters."""
        for (topic, partition, offset, _), times in self._times.items():
            if times > 1 and partition == shard:
                yield f"shard {shard}: offset {offset} of {topic} is {times} dead letters"
