"""Partitions of keys are those of the Kafka producers."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import partition
from streams.partition import (
    Partitioner,
    PartitionerError,
    PartitionerName,
    crc32_partition,
    murmur2,
    murmur2_partition,
)

# Apache Kafka, clients/src/test/java/org/apache/kafka/common/utils/UtilsTest.java, testMurmur2
JAVA_VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "hashed"), JAVA_VECTORS.items())
def test_murmur2_is_the_hash_of_kafkas_java_client(key: bytes, hashed: int) -> None:
    assert murmur2(key) == hashed


@pytest.mark.parametrize(("key", "hashed"), JAVA_VECTORS.items())
def test_a_negative_hash_loses_its_sign_bit_before_the_modulo(key: bytes, hashed: int) -> None:
    assert murmur2_partition(key, 7) == (hashed & 0x7FFFFFFF) % 7


def test_crc32_is_the_unsigned_checksum_that_librdkafka_takes() -> None:
    assert zlib.crc32(b"123456789") == 0xCBF43926  # the check value of CRC-32/ISO-HDLC
    assert crc32_partition(b"123456789", 1000) == 0xCBF43926 % 1000


@pytest.mark.parametrize("name", ["murmur2", "crc32"])
@given(skus=st.lists(st.text(max_size=20)), partitions=st.integers(1, 300))
def test_remembered_partitions_are_the_computed_ones(name: PartitionerName, skus: list[str], partitions: int) -> None:
    rule = {"murmur2": murmur2_partition, "crc32": crc32_partition}[name]
    partitioner = Partitioner(name, partitions)
    expected = [rule(sku.encode(), partitions) for sku in skus]
    for _ in range(2):
        found = partitioner.of(skus)
        assert found.dtype == np.int32
        assert found.tolist() == expected
    assert all(0 <= number < partitions for number in expected)


def test_a_full_cache_starts_again_and_answers_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "_MAX_CACHED", 10)
    skus = [f"SKU-{i}" for i in range(25)]
    partitioner = Partitioner("murmur2", 8)
    pieces = [partitioner.of(skus[start : start + 5]) for start in range(0, 25, 5)]
    assert np.concatenate(pieces).tolist() == Partitioner("murmur2", 8).of(skus).tolist()


def test_keys_spread_over_the_partitions() -> None:
    counts = np.bincount(Partitioner("murmur2", 12).of([f"SKU-{i}" for i in range(12_000)]), minlength=12)
    assert counts.min() > 800
    assert counts.max() < 1200


@pytest.mark.parametrize(("name", "partitions"), [("fnv", 4), ("murmur2", 0), ("crc32", -1)])
def test_a_nonsense_setting_is_refused_in_one_sentence(name: PartitionerName, partitions: int) -> None:
    with pytest.raises(PartitionerError, match="use"):
        Partitioner(name, partitions)
