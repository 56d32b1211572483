"""Kernels against the way without them: any list of byte strings gives the same batch and the same dead letters.

Records are valid ones in many spellings, the hostile corpus, and valid ones with bytes changed, cut, doubled and moved.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import compiled
from streams.decode import decode
from streams.engine import Engine, EngineConfig
from streams.events import EventBatch, concat
from streams.fields import series_key
from streams.key_index import hashes_of
from streams.packed import Texts, pack
from streams.partition import Partitioner, PartitionerName
from tests.hostile import CLOCK_MS, HOSTILE, TYPES, event

FLOWS = TYPES[:6]
NUMBERS = ("0", "1", "2", "0.001", "0.0015", "1e3", "1.5", "-1", "01", "1.", ".5", "999999.999", "1000000",
         "1000000.001",
           "9.99", "0.1234", "123456789012345", "1234567890123456", "0.1000000000000001", "2.675", "1E2", "1.10",
           "0.30000000000000004", "1.0005", "1000000000", "1000000000.1", "null", "true", '"2"', "00", "4.35", "8.0"
)  # fmt: skip
TIMES = (str(CLOCK_MS), str(CLOCK_MS + 3_600_000), str(CLOCK_MS + 3_600_001), "946684800000", "946684799999", "0", "-5",
         "253402300799999", "253402300800000", "1.7e12", '"2023-11-14T22:13:20Z"', "null", "1700000000000.0"
)  # fmt: skip
TEXTS = ('"a"', '""', '"TEA"', '"a|b"', '"default"', '"d"', '"default "', '"' + "x" * 64 + '"', '"' + "x" * 65 + '"',
         '"' + "y" * 128 + '"', '"' + "y" * 129 + '"', '"a\\u0062"', '"Ä"', '"a\x7f"', '"a\x1f"', '"{[{["', "null", "7",
         '"GBP"', '"gbp"', '"GB"', '"EURO"', '"\\"', '"12345678"', '"1234567"', '"123456789abcdef0"')  # fmt: skip
CHOICES = {"event_time": TIMES, "original_time": TIMES, "quantity": NUMBERS, "unit_price": NUMBERS, "price": NUMBERS}
NAMES = ("event_id", "sku", "location", "order_id", "session_id", "currency", "channel", "note", "event_time",
         "original_time", "quantity", "unit_price", "type")  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> Iterator[None]:
    reason = compiled.load()
    assert reason is None, reason
    yield
    compiled.unload()


def both(values: list[bytes | None], **how: Any) -> tuple[Any, Any]:
    """What `decode` gives with kernels and without; both ways must have been gone."""
    with_kernels = decode(values, clock_ms=CLOCK_MS, **how)
    compiled.unload()
    without = decode(values, clock_ms=CLOCK_MS, **how)
    assert compiled.load() is None
    return with_kernels, without


def assert_alike(found: tuple[EventBatch, Any], expected: tuple[EventBatch, Any]) -> None:
    """Same columns, to the bit, and same dead letters."""
    assert found[1] == expected[1]
    for field in fields(EventBatch):
        own, other = getattr(found[0], field.name), getattr(expected[0], field.name)
        if field.name == "series":
            assert own is None or (own == hashes_of(map(series_key, expected[0].sku, expected[0].location))).all()
        elif isinstance(other, np.ndarray):
            assert own.dtype == other.dtype
            assert own.tobytes() == other.tobytes(), field.name
        else:
            assert list(own) == list(other), field.name


def spelled(rng: random.Random) -> bytes:
    """An order or click with some fields of any value, in any order, some twice, with blanks here and there."""
    kind = rng.choice(FLOWS)
    raw = dict(json.loads(event(kind)).items())
    pairs = [(name, json.dumps(value)) for name, value in raw.items()]
    for _ in range(rng.choice((0, 0, 1, 1, 2, 4))):
        name = rng.choice(NAMES)
        pairs = [pair for pair in pairs if pair[0] != name or rng.random() < 0.1]
        text = rng.choice(CHOICES.get(name, TEXTS + NUMBERS if rng.random() < 0.1 else TEXTS))
        pairs.append((name, json.dumps(rng.choice(TYPES)) if name == "type" and rng.random() < 0.9 else text))
    if rng.random() < 0.5:
        rng.shuffle(pairs)
    comma, colon = rng.choice(((",", ":"), (", ", ": "), (" ,", " :"), (",", ":\t")))
    text = "{" + comma.join(f'"{name}"{colon}{value}' for name, value in pairs) + "}"
    return (rng.choice(("", "", "", " ", "\n")) + text + rng.choice(("", "", "", "  ", "\n", "x"))).encode()


def damaged(rng: random.Random, record: bytes) -> bytes:
    """A record with a few bytes changed, taken out, doubled, or cut off."""
    out = bytearray(record)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(5):
            case 0 if at < len(out):
                out[at] = rng.choice(b'"{}[]:,\\ \t0123456789.-+eE|nulltrefas\x00\x1f\x7f\x80\xc2\xff')
            case 1:
                del out[at : at + rng.choice((1, 1, 2, 9))]
            case 2:
                out[at:at] = out[at : at + rng.choice((1, 4, 12))]
            case 3 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 4 if rng.random() < 0.2:
                del out[at:]
    return bytes(out)


def test_the_hashes_are_those_of_the_package_for_every_length() -> None:
    rng = random.Random(7)
    texts: list[bytes | None] = [rng.randbytes(n) for n in range(241) for _ in range(20)]
    packed, short, long = pack(texts), np.zeros(len(texts), np.uint64), np.zeros((len(texts), 2), np.uint64)
    compiled.loaded().hash_texts(packed.buffer.ctypes.data, packed.starts, packed.ends, short, long)
    assert short.tolist() == [xxhash.xxh3_64_intdigest(text or b"") for text in texts]
    assert [high << 64 | low for low, high in long.tolist()] == [xxhash.xxh3_128_intdigest(t or b"") for t in texts]


@pytest.mark.parametrize("name", ["murmur2", "crc32"])
def test_partitions_are_those_without_kernels(name: PartitionerName) -> None:
    rng = random.Random(8)
    keys = ["".join(rng.choices("abcXYZ019-_", k=rng.randrange(1, 40))) for _ in range(500)]
    packed, out = pack([key.encode() for key in keys]), np.zeros(500, np.int32)
    compiled.loaded().partitions(packed.buffer.ctypes.data, packed.starts, packed.ends, name == "murmur2", 7, out)
    assert out.tolist() == Partitioner(name, 7).of(keys).tolist()


def test_records_of_any_spelling_give_the_same_by_both_ways() -> None:
    rng = random.Random(1)
    records: list[bytes | None] = [spelled(rng) for _ in range(20_000)]
    found, expected = both(records)
    assert_alike(found, expected)
    assert 4_000 < len(expected[0]) < 16_000  # enough of both kinds, or nothing was shown


def test_most_of_the_plain_records_are_read_by_the_kernel() -> None:
    records = [event(kind, event_id=f'"e{n}"', quantity=None if "item" in kind or "cart" in kind else "2.5")
               for n in range(10) for kind in FLOWS]  # fmt: skip
    packed = decode(records, clock_ms=CLOCK_MS)[0]
    assert len(packed) == 60
    assert type(packed.sku).__name__ == "Texts"


def test_damaged_records_give_the_same_by_both_ways() -> None:
    rng = random.Random(2)
    records: list[bytes | None] = [damaged(rng, spelled(rng) if n % 2 else event(FLOWS[n % 6])) for n in range(30_000)]
    assert_alike(*both(records))


@pytest.mark.parametrize("topic", [None, "shop.orders.v1", "north.shop.clicks.v1", "shop.catalog.v1"])
def test_the_hostile_corpus_gives_the_same_by_both_ways(topic: str | None) -> None:
    records = [record for case in HOSTILE for record in case.records]
    keys: list[bytes | None] = [(b"TEA", None, b"tea", b"TEAS")[n % 4] for n in range(len(records))]
    assert_alike(*both(records, topic=topic))
    assert_alike(*both(records, topic=topic, keys=keys))


def test_keys_that_are_not_the_sku_are_dead_letters_by_both_ways() -> None:
    rng = random.Random(3)
    records: list[bytes | None] = [event(rng.choice(FLOWS)) for _ in range(400)]
    keys: list[bytes | None] = [rng.choice((b"TEA", b"TEA", b"TEB", b"", None, b"TEA ")) for _ in records]
    found, expected = both(records, keys=keys, topic="shop.orders.v1")
    assert_alike(found, expected)
    assert {letter.stage for letter in found[1]} == {"route", "validate"}


@settings(max_examples=60, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 1 << 32), min_size=16, max_size=60), raw=st.lists(st.binary(max_size=40), max_size=5)
)
def test_any_list_of_bytes_gives_the_same_by_both_ways(seeds: list[int], raw: list[bytes]) -> None:
    records: list[bytes | None] = [spelled(random.Random(seed)) for seed in seeds]
    assert_alike(*both([*records, *raw, None]))


def test_a_packed_batch_joined_with_a_plain_one_holds_what_both_hold() -> None:
    flows = [event(event_id=f'"e{n}"', sku=f'"sku-{n}"') for n in range(300)]
    facts = [event("price_set", sku='"Thé"'), event("stock_counted", location='"york"'), event("day_described")]
    parts = [decode(values, clock_ms=CLOCK_MS)[0] for values in (flows, facts)]
    assert [type(part.sku) for part in parts] == [Texts, list]
    whole = concat(parts)
    for name in ("sku", "location", "values", "keys"):
        assert list(getattr(whole, name)) == [*getattr(parts[0], name), *getattr(parts[1], name)], name
        assert isinstance(getattr(whole, name), list) == (name == "keys"), name  # there are none in files
    assert whole.series is not None
    assert np.array_equal(whole.series, hashes_of(map(series_key, whole.sku, whole.location)))
    rule = Partitioner("murmur2", 7)
    assert np.array_equal(rule.of(whole.sku), rule.of(list(whole.sku)))


def test_an_engine_makes_the_same_of_batches_of_both_ways() -> None:
    rng = random.Random(4)
    records: list[bytes | None] = [
        event(
            rng.choice(FLOWS), event_id=f'"{rng.randrange(900)}"', sku=f'"S{rng.randrange(40)}"',
            event_time=str(CLOCK_MS - rng.randrange(9_000_000)), location=rng.choice((None, '"york"', '"default"')),
        )
        for _ in range(2_000)
    ]  # fmt: skip
    written = []
    for batch, letters in both(records):
        engine = Engine(EngineConfig(max_series=50))
        assert not letters
        out = engine.process(batch)
        written.append((list(engine.changes()), [letter for _, letter in out.dead_letters]))
    assert written[0] == written[1]
