"""The newest records of the item topics: whether they lie where the workers look for them, under the keys they expect.

In: Kafka, read only. Out: `Finding`s.
Must not know: what events say beyond type and SKU. Rule: records that are no events are left to the workers, which say
what is wrong with each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from streams.kafka.findings import Finding, Level
from streams.kafka.offsets import Offsets
from streams.kafka.reread import Reread
from streams.kafka.settings import KafkaSettings
from streams.kafka.source import Place
from streams.partition import PartitionerName, crc32_partition, murmur2_partition

RULES = {"murmur2": murmur2_partition, "crc32": crc32_partition}
STRAYS = 0.01
"""Share of records in wrong partitions from which on it is no single producer's slip."""


class _Item(msgspec.Struct):
    sku: str


_ITEM: msgspec.json.Decoder[_Item] = msgspec.json.Decoder(_Item)


@dataclass(slots=True)
class Sample:
    """Records of one topic.

    Attributes
    ----------
    records
        How many were looked at.
    fits
        How many lie where each rule puts their key.
    keyless, foreign
        How many have no key, or one that is not their SKU.
    example
        A SKU and the key that it lies under.
    """

    records: int = 0
    fits: Counter[str] = field(default_factory=Counter)
    keyless: int = 0
    foreign: int = 0
    example: tuple[str, str] = ("", "")

    def take(self, key: bytes | None, value: bytes | None, partition: int, partitions: int) -> None:
        """Look at a record."""
        self.records += 1
        if key is None:
            self.keyless += 1
            return
        for name, rule in RULES.items():
            self.fits[name] += rule(key, partitions) == partition
        try:
            sku = _ITEM.decode(value).sku if value is not None else key.decode()
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return
        if sku.encode() != key:
            self.foreign += 1
            self.example = (sku, key.decode(errors="replace"))


def sampled(
    kafka: KafkaSettings, topics: list[str], counts: Mapping[str, int], most: int, timeout_s: float
) -> dict[str, Sample]:
    """The newest records of topics, at most so many of each.

    Parameters
    ----------
    counts
        Partitions that each topic has.

    Raises
    ------
    streams.kafka.source.SourceError
        If they cannot be read.
    """
    names = {kafka.topic(name): name for name in topics}
    places: list[Place] = [(topic, at) for topic, name in names.items() for at in range(counts[name])]
    offsets, reread = Offsets(kafka), Reread(kafka, names, timeout_s)
    begins, ends = offsets.beginnings(places, timeout_s), offsets.ends(places, timeout_s)
    spans = {}
    for place in places:
        share = -(-most // counts[names[place[0]]])
        spans[place] = (max(begins[place], ends[place] - share), ends[place])
    found = {name: Sample() for name in topics}
    try:
        for message in reread.read(spans):
            name = names[message.topic() or ""]
            found[name].take(message.key(), message.value(), message.partition() or 0, counts[name])
    finally:
        reread.close()
    return found


def judged(found: Mapping[str, Sample], partitioner: PartitionerName) -> Iterator[Finding]:
    """What samples say of the partitioner, then of keys."""
    keyed = {name: sample.records - sample.keyless for name, sample in found.items()}
    total = sum(keyed.values())
    fits = Counter[str]()
    for sample in found.values():
        fits.update(sample.fits)
    yield _partitioner(total, fits, partitioner)
    yield _keys(found)


def _partitioner(total: int, fits: Counter[str], name: PartitionerName) -> Finding:
    if not total:
        return Finding("partitioner", "ok", f"no records yet to tell whether producers use {name}")
    facts = {"records": total, "fits": dict(fits)}
    wrong = total - fits[name]
    if not wrong:
        return Finding("partitioner", "ok", f"all of {total:,} records lie where {name} puts their key", facts=facts)
    other = next(rule for rule in RULES if rule != name)
    text = f"{wrong:,} of {total:,} records lie elsewhere than {name} puts their key, and become dead letters"
    if fits[other] > fits[name]:
        better = f"{fits[other]:,} lie where {other} does: set partitioner = {other!r}, before the first worker runs"
        return Finding("partitioner", "fault", text, better, facts)
    level: Level = "fault" if wrong > STRAYS * total else "warning"
    advice = f"have all producers use {name}; dead letters of stage route name the records"
    return Finding("partitioner", level, text, advice, facts)


def _keys(found: Mapping[str, Sample]) -> Finding:
    total = sum(sample.records for sample in found.values())
    facts = {name: {"records": s.records, "keyless": s.keyless, "foreign": s.foreign} for name, s in found.items()}
    bad = {name: sample for name, sample in found.items() if sample.keyless or sample.foreign}
    if not total:
        return Finding("keys", "ok", "no records yet to tell whether keys are SKUs", facts=facts)
    if not bad:
        return Finding("keys", "ok", f"all of {total:,} records have their SKU as key", facts=facts)
    wrong = sum(sample.keyless + sample.foreign for sample in bad.values())
    sku, key = next((sample.example for sample in bad.values() if sample.foreign), ("", ""))
    like = f", such as {sku!r} under {key!r}" if sku else ", they have none"
    text = f"{wrong:,} of {total:,} records of {', '.join(bad)} do not have their SKU as key{like}"
    level: Level = "fault" if wrong > STRAYS * total else "warning"
    return Finding("keys", level, text, "key item topics by SKU: others are dead letters", facts)
