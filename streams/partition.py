"""Which partition a key lies in: the two rules that Kafka producers use by default.

In: keys as bytes, or SKUs; the number of partitions.
Out: partition numbers.
Must not know: events, topics, Kafka clients.
Rule: the numbers are those of the producers, byte for byte, or records land in shards that do not expect them.

References
----------
murmur2: Apache Kafka, ``org.apache.kafka.common.utils.Utils.murmur2`` and ``BuiltInPartitioner.partitionForKey``.
crc32: librdkafka, ``rd_kafka_msg_partitioner_consistent`` (its default, ``consistent_random``, agrees for every key but
null and the empty one).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from streams.compiled import loaded
from streams.packed import Texts

PartitionerName = Literal["murmur2", "crc32"]

_M = 0x5BD1E995
_SEED = 0x9747B28C
_UINT32 = 0xFFFFFFFF
_MAX_CACHED = 1_000_000
"""Keys remembered at once: the most series a worker holds, 90 MB (measured)."""


class PartitionerError(ValueError):
    """The rule is not known, or the number of partitions is not positive."""


def murmur2(key: bytes) -> int:
    """Hash a key as Kafka's Java client does; signed, 32 bits.

    Examples
    --------
    >>> murmur2(b"foobar"), murmur2(b"21")
    (-790332482, -973932308)
    """
    length = len(key)
    hashed = _SEED ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * _M & _UINT32
        word = (word ^ (word >> 24)) * _M & _UINT32
        hashed = (hashed * _M & _UINT32) ^ word
    if length > whole:
        hashed = (hashed ^ int.from_bytes(key[whole:], "little")) * _M & _UINT32
    hashed = (hashed ^ (hashed >> 13)) * _M & _UINT32
    hashed ^= hashed >> 15
    return hashed - (1 << 32) if hashed & 0x80000000 else hashed


def murmur2_partition(key: bytes, partitions: int) -> int:
    """Partition of a key by the Java client's rule: the hash without its sign bit, modulo.

    Examples
    --------
    >>> murmur2_partition(b"foobar", 12)
    6
    """
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def crc32_partition(key: bytes, partitions: int) -> int:
    """Partition of a key by librdkafka's rule: the unsigned CRC-32, modulo.

    Examples
    --------
    >>> crc32_partition(b"foobar", 12)
    5
    """
    return zlib.crc32(key) % partitions


_RULES: dict[str, Callable[[bytes, int], int]] = {"murmur2": murmur2_partition, "crc32": crc32_partition}


class Partitioner:
    """Partitions of SKUs by one rule, remembered: a SKU seen before costs a look-up.

    Parameters
    ----------
    name
        ``murmur2`` (Java clients, the default of Kafka) or ``crc32`` (librdkafka).
    partitions
        Number of partitions, at least 1.

    Raises
    ------
    PartitionerError
        If the name is none of these or the number is not positive.

    Examples
    --------
    >>> Partitioner("murmur2", 12).of(["foobar", "21", "foobar"])
    array([6, 0, 6], dtype=int32)
    """

    def __init__(self, name: PartitionerName, partitions: int) -> None:
        if name not in _RULES:
            raise PartitionerError(f"partitioner {name!r} is not known; use one of {', '.join(_RULES)}")
        if partitions < 1:
            raise PartitionerError(f"{partitions} partitions; use at least 1")
        self.name = name
        self.partitions = partitions
        self._rule = _RULES[name]
        self._known: dict[str, int] = {}

    def of(self, skus: Sequence[str]) -> npt.NDArray[np.int32]:
        """Partition of each SKU, int32 (N,)."""
        kernels = loaded()
        if kernels is not None and isinstance(skus, Texts):
            out = np.empty(len(skus), np.int32)
            own = (np.ascontiguousarray(skus.starts), np.maximum(skus.starts, skus.ends))  # an end below is no text
            kernels.partitions(skus.buffer.ctypes.data, *own, self.name == "murmur2", self.partitions, out)
            return out
        known = self._known
        try:
            return np.array([known[sku] for sku in skus], np.int32)
        except KeyError:
            self._learn(skus)
        return np.array([known[sku] for sku in skus], np.int32)

    def _learn(self, skus: Sequence[str]) -> None:
        # dict.fromkeys and not a set: the order of the cache must not depend on Python's string hash.
        new = [sku for sku in dict.fromkeys(skus) if sku not in self._known]
        if len(self._known) + len(new) > _MAX_CACHED:
            self._known.clear()
            new = list(dict.fromkeys(skus))
        for sku in new:
            self._known[sku] = self._rule(sku.encode(), self.partitions)
