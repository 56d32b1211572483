"""What workers have published: every output of a shop, held against the promises that its readers rely on.

In: output topics as readers of committed records see them, and as they lie on the broker. Out: sentences on broken
promises; figures.
Must not know: engines. Rule: one id has one content and comes once, whatever happened to the workers meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from load_tests.kafka.segments import backwards, batches, endings
from streams.kafka.ledger import STATE_TOPIC
from streams.kafka.settings import KafkaSettings
from streams.kafka.shard import CANDIDATES_TOPIC
from streams.outputs import ALERT_TOPIC, DEADLETTER_TOPIC, DEMAND_TOPIC, TRIGGER_TOPIC
from streams.partition import murmur2_partition
from streams.price_forecast import PRICE_TOPIC
from tests.kafka.reading import Found, read_topics

NAMED = 5
OUTPUTS = (DEMAND_TOPIC, PRICE_TOPIC, ALERT_TOPIC, TRIGGER_TOPIC, CANDIDATES_TOPIC, DEADLETTER_TOPIC)
LOST_STAGES = {"late": {"late"}, "lost": {"decode", "validate", "route"}}

Lost = Mapping[tuple[str, int, int], str]


@dataclass(frozen=True)
class Published:
    """What was found.

    Attributes
    ----------
    broken
        Sentences, each a promise broken.
    counts
        Committed records by topic.
    """

    broken: list[str]
    counts: dict[str, int]


def published(kafka: KafkaSettings, lost: Lost, timeout_s: float = 60) -> Published:
    """Read all outputs, and see what is wrong with them.

    Parameters
    ----------
    lost
        Origins of the records that must be dead letters, each ``late`` or ``lost``.
    """
    found = read_topics(kafka, OUTPUTS, timeout_s=timeout_s)
    return Published(broken_promises(kafka, found, lost), {topic: len(records) for topic, records in found.items()})


def broken_promises(kafka: KafkaSettings, found: Mapping[str, Sequence[Found]], lost: Lost) -> list[str]:
    """What is wrong with the committed records of `OUTPUTS`, in sentences."""
    return [
        *_once(ALERT_TOPIC, found[ALERT_TOPIC]),
        *_once(TRIGGER_TOPIC, found[TRIGGER_TOPIC]),
        *_once(DEMAND_TOPIC, found[DEMAND_TOPIC]),
        *_owned(kafka, found[DEMAND_TOPIC]),
        *_once(PRICE_TOPIC, found[PRICE_TOPIC]),
        *_owned(kafka, found[PRICE_TOPIC]),
        *_never_back(found[CANDIDATES_TOPIC]),
        *_letters(kafka, found[DEADLETTER_TOPIC], lost),
    ]


def _once(topic: str, records: Sequence[Found]) -> list[str]:
    """Ids that come twice, or with two contents."""
    contents: dict[bytes, list[bytes]] = {}
    for record in records:
        contents.setdefault(record.headers["ce_id"], []).append(record.value or b"")
    twice = {name: values for name, values in contents.items() if len(values) > 1}
    unlike = sum(len(set(values)) > 1 for values in twice.values())
    if not twice:
        return []
    named = [name.decode() for name in list(twice)[:NAMED]]
    return [f"{len(twice)} ids of {topic} come more than once, {unlike} of them with more than one content: {named}"]


def _owned(kafka: KafkaSettings, records: Sequence[Found]) -> list[str]:
    """Forecasts that lie where their shard's owner does not write, or that are older than one before them."""
    out: Counter[str] = Counter()
    newest: dict[bytes, tuple[int, int]] = {}
    for record in records:
        value = orjson.loads(record.value or b"{}")
        if murmur2_partition(value["sku"].encode(), kafka.partitions) != record.partition:
            out["forecasts lie in the partition of another shard"] += 1
        at, key = (value["as_of"], value["revision"]), record.key or b""
        if at <= newest.get(key, (-1, -1)):
            out["forecasts follow newer ones"] += 1
        newest[key] = max(at, newest.get(key, at))
    return [f"{count} {what}" for what, count in out.items()]


def _never_back(records: Iterable[Found]) -> list[str]:
    """Shards whose clock went back in what they told the coordinator."""
    newest: dict[int, int] = {}
    back: Counter[int] = Counter()
    for record in records:
        told: Any = orjson.loads(record.value or b"{}")
        back[told["shard"]] += told["clock_ms"] < newest.get(told["shard"], 0)
        newest[told["shard"]] = max(told["clock_ms"], newest.get(told["shard"], 0))
    return [f"the clock of shard {shard} went back {count} times" for shard, count in back.items() if count]


def _letters(kafka: KafkaSettings, records: Sequence[Found], lost: Lost) -> list[str]:
    """Dead letters that are missing, too many, or of another stage than they must be."""
    out = []
    stages: dict[tuple[str, int, int], list[str]] = {}
    for record in records:
        head = {name: text.decode() for name, text in record.headers.items()}
        topic = head["__streams.errors.topic"].removeprefix(kafka.topic_prefix)
        origin = (topic, int(head["__streams.errors.partition"]), int(head["__streams.errors.offset"]))
        stages.setdefault(origin, []).append(head["x-stage"])
    for what, wrong in (
        ("records are no dead letters and must be", [o for o in lost if o not in stages]),
        ("records are dead letters and must not be", [(o, stages[o]) for o in stages if o not in lost]),
        ("records are dead letters more than once", [(o, s) for o, s in stages.items() if len(s) > 1]),
        (
            "dead letters are of a wrong stage",
            [(o, s) for o, s in stages.items() if o in lost and not set(s) <= LOST_STAGES[lost[o]]],
        ),
    ):
        if wrong:
            out.append(f"{len(wrong)} {what}: {wrong[:NAMED]}")
    return out


def in_files(kafka: KafkaSettings, data: Path) -> tuple[list[str], dict[str, int]]:
    """What the broker's own files tell: producers that wrote after they were shut out; transactions by their end.

    Parameters
    ----------
    data
        Folder of the broker's logs.
    """
    broken: list[str] = []
    ends: Counter[str] = Counter()
    owners: dict[int, int] = {}
    for shard in range(kafka.partitions + 1):
        found = batches(data, kafka.topic(STATE_TOPIC), shard)
        ends.update(endings(found))
        broken += [f"state {shard}: {text}" for text in backwards(found)]
        owners.update({batch.producer: shard for batch in found})
        if foreign := {batch.producer for batch in found if owners[batch.producer] != shard}:
            broken.append(f"state {shard}: producers {sorted(foreign)} write to several shards")
    for topic, partitions in (
        (DEMAND_TOPIC, kafka.partitions), (PRICE_TOPIC, kafka.partitions), (TRIGGER_TOPIC, kafka.partitions),
        (ALERT_TOPIC, kafka.partitions), (CANDIDATES_TOPIC, 1), (DEADLETTER_TOPIC, 1),
    ):  # fmt: skip
        for part in range(partitions):
            found = batches(data, kafka.topic(topic), part)
            broken += [f"{topic} {part}: {text}" for text in backwards(found)]
            writers = {owners.get(batch.producer) for batch in found}
            allowed = {part} if topic in (DEMAND_TOPIC, PRICE_TOPIC, TRIGGER_TOPIC) else set(owners.values())
            if not writers <= allowed:
                broken.append(f"{topic} {part}: written by {sorted(map(str, writers - allowed))}, not by its owner")
    return broken, dict(ends)
