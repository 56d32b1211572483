"""Batches of records as they lie in a broker's files: who wrote them, in which epoch, and how each transaction ended.

In: the data folder of a broker on this machine, a topic. Out: `Batch`es; what breaks the order of owners.
Must not know: clients: none of them tells producer ids, epochs or markers. Rule: files are read as they are, also those
that a broker writes just now; a batch that is not whole yet is left out.

The layout is that of magic 2 (Kafka's documentation, "Record Batch").
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_HEAD = struct.Struct(">qiibIhiqqqhii")
_LENGTH_AT = 12
"""Bytes before those that a batch's length counts."""
_CONTROL, _TRANSACTIONAL = 1 << 5, 1 << 4


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of a partition.

    Attributes
    ----------
    first, last
        Offsets.
    producer, epoch
        Of the producer; -1 where it has none.
    marker
        ``commit`` or ``abort`` where the batch ends a transaction, else empty.
    transactional
        Whether it belongs to a transaction.
    written_ms
        Newest timestamp in it.
    """

    first: int
    last: int
    producer: int
    epoch: int
    marker: str
    transactional: bool
    written_ms: int


def batches(data: Path, topic: str, partition: int) -> list[Batch]:
    """All batches of a partition, in the order of offsets."""
    files = sorted((data / f"{topic}-{partition}").glob("*.log"))
    return [batch for file in files for batch in _batches(file)]


def _batches(file: Path) -> Iterator[Batch]:
    try:
        raw = file.read_bytes()
    except FileNotFoundError:  # compacted away just now
        return
    at = 0
    while at + _HEAD.size <= len(raw):
        first, length, _, magic, _, bits, delta, _, newest_ms, producer, epoch, _, _ = _HEAD.unpack_from(raw, at)
        if magic != 2 or length <= 0 or at + _LENGTH_AT + length > len(raw):
            return
        marker = _marker(raw[at + _HEAD.size : at + _LENGTH_AT + length]) if bits & _CONTROL else ""
        yield Batch(first, first + delta, producer, epoch, marker, bool(bits & _TRANSACTIONAL), newest_ms)
        at += _LENGTH_AT + length


def _marker(record: bytes) -> str:
    """Kind of a control record: its key is a version and a type, each of two bytes, behind five short numbers."""
    at = 0
    at = _skip(record, at) + 1  # length, attributes
    at = _skip(record, _skip(record, at))  # time and offset deltas
    at = _skip(record, at)  # length of the key
    kind = int.from_bytes(record[at + 2 : at + 4], "big")
    return {0: "abort", 1: "commit"}.get(kind, "other")


def _skip(raw: bytes, at: int) -> int:
    """Where a number of variable length ends."""
    while raw[at] & 0x80:
        at += 1
    return at + 1


def endings(found: Iterable[Batch]) -> dict[str, int]:
    """How many transactions of a partition were committed and aborted."""
    out = {"commit": 0, "abort": 0}
    for batch in found:
        if batch.marker in out:
            out[batch.marker] += 1
    return out


def committed(found: Iterable[Batch]) -> Iterator[Batch]:
    """Batches of transactions that were committed."""
    open_ones: dict[int, list[Batch]] = {}
    for batch in found:
        if batch.marker:
            ended = open_ones.pop(batch.producer, [])
            if batch.marker == "commit":
                yield from ended
        elif batch.transactional:
            open_ones.setdefault(batch.producer, []).append(batch)


def backwards(found: Iterable[Batch]) -> list[str]:
    """Committed batches of an older epoch behind those of a newer one: a producer that was shut out has published."""
    newest: dict[int, int] = {}
    out = []
    for batch in sorted(committed(found), key=lambda batch: batch.first):
        if batch.epoch < newest.get(batch.producer, -1):
            before = newest[batch.producer]
            out.append(f"offset {batch.first} of producer {batch.producer} is of epoch {batch.epoch}, after {before}")
        newest[batch.producer] = max(newest.get(batch.producer, -1), batch.epoch)
    return out
