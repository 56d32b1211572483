"""Events of every type become rows with the right columns; what the contract forbids becomes dead letters."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from streams.decode import TOPICS, TopicError, decode
from streams.events import DayDescribed, Event, ItemRetired, Kind, OrderPlaced, concat
from streams.fields import epoch_ms, pack_currency, unpack_currency
from tests.hostile import CLOCK_MS, TYPES, event, required

GOOD = [event(kind, event_id=f'"e{i}"') for i, kind in enumerate(TYPES)]


def one(record: bytes | None, **how: Any) -> tuple[str, str, str]:
    """Stage, field and reason of the dead letter that a single record becomes."""
    batch, letters = decode([record], clock_ms=CLOCK_MS, **how)
    assert len(batch) == 0
    return letters[0].stage, letters[0].field, letters[0].reason


def test_every_type_of_the_contract_is_decoded_under_its_own_kind() -> None:
    batch, letters = decode(GOOD, clock_ms=CLOCK_MS)
    assert not letters
    assert [Kind(kind).name.lower() for kind in batch.kind.tolist()] == list(TYPES)
    assert sorted(batch.kind.tolist()) == list(range(1, 20))
    assert {kind for kinds in TOPICS.values() for kind in kinds} == set(Kind)


@pytest.mark.parametrize("kind", TYPES)
def test_each_required_field_is_missed_by_name(kind: str) -> None:
    for name in required(kind):
        stage, field, reason = one(event(kind, **{name: None}))
        assert (stage, field) == ("validate", f"$.{name}")
        assert reason


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("raw", ["null", "true", "[[]]", "1e400"])
def test_each_required_field_refuses_a_value_of_another_type(kind: str, raw: str) -> None:
    for name in required(kind):
        stage, field, _ = one(event(kind, **{name: raw}))
        assert stage == "validate"
        assert field.startswith(f"$.{name}")


@pytest.mark.parametrize("kind", TYPES)
def test_unknown_fields_are_ignored(kind: str) -> None:
    plain, _ = decode([event(kind)], clock_ms=CLOCK_MS)
    extended, letters = decode([event(kind, extra='{"deep":[1,{"type":"ack"}]}')], clock_ms=CLOCK_MS)
    assert not letters
    assert extended.facts == plain.facts
    assert extended.id_hash.tolist() == plain.id_hash.tolist()


def test_orders_fill_their_columns_in_thousandths_and_ten_thousandths() -> None:
    records = [
        event(quantity="1.5", unit_price="9.99", currency='"EUR"', location='"london"', event_id='"a"'),
        event("order_cancelled", quantity="80995", original_time=str(CLOCK_MS - 5), event_id='"b"'),
        event("order_cancelled", quantity="1", original_time='"2023-11-14T22:13:20Z"', event_id='"c"'),
        event("order_returned", quantity="0.001", event_id='"d"'),
    ]
    batch, letters = decode(records, clock_ms=CLOCK_MS)
    assert not letters
    assert batch.quantity.tolist() == [1500, 80_995_000, 1000, 1]
    assert batch.price.tolist() == [99_900, 0, 0, 0]
    assert [unpack_currency(code) for code in batch.currency.tolist()] == ["EUR", "", "", ""]
    assert batch.original_ms.tolist() == [-1, CLOCK_MS - 5, CLOCK_MS, -1]
    assert batch.location == ["london", "default", "default", "default"]
    assert batch.session.tolist() == [0, 0, 0, 0]
    assert batch.facts == []


def test_clicks_carry_the_hash_of_their_session_and_no_quantity() -> None:
    batch, _ = decode([event("cart_added"), event("item_viewed", session_id='"Ü"')], clock_ms=CLOCK_MS)
    assert batch.session.tolist() == [xxhash.xxh3_64_intdigest(text.encode()) for text in ("s1", "Ü")]
    assert batch.quantity.tolist() == [0, 0]


def test_ids_are_hashed_as_utf8() -> None:
    batch, _ = decode([event(event_id='"Straße"'), event(event_id=r'"Stra\u00dfe"')], clock_ms=CLOCK_MS)
    assert batch.id_hash.tolist() == [xxhash.xxh3_64_intdigest("Straße".encode())] * 2


def test_columns_have_the_promised_types_also_when_empty() -> None:
    empty, full = concat([]), decode(GOOD, clock_ms=CLOCK_MS)[0]
    none, letters = decode([], clock_ms=CLOCK_MS)
    assert len(none) == 0
    assert not letters
    for name in (
        "row",
        "kind",
        "time_ms",
        "tick_ms",
        "id_hash",
        "quantity",
        "price",
        "currency",
        "original_ms",
        "session",
    ):
        assert getattr(empty, name).dtype == getattr(full, name).dtype == getattr(none, name).dtype


def test_every_row_that_is_no_flow_is_kept_whole_among_the_facts() -> None:
    batch, _ = decode(GOOD, clock_ms=CLOCK_MS)
    assert [i for i, _ in batch.facts] == list(range(6, 19))
    assert [type(fact).__struct_config__.tag for _, fact in batch.facts] == list(TYPES[6:])


def test_taken_rows_keep_their_facts_under_new_indices() -> None:
    batch, _ = decode(GOOD, clock_ms=CLOCK_MS)
    part = batch.take(np.array([0, 7, 12, 3]))
    assert [(i, fact.event_kind) for i, fact in part.facts] == [(1, Kind.COMPETITOR_PRICE_SET), (2, Kind.DAY_DESCRIBED)]
    assert part.row.tolist() == [0, 7, 12, 3]
    turned = batch.take(np.array([12, 0, 7]))
    assert [(i, fact.event_kind) for i, fact in turned.facts] == [
        (0, Kind.DAY_DESCRIBED),
        (2, Kind.COMPETITOR_PRICE_SET),
    ]


@pytest.mark.parametrize("kind", TYPES)
def test_a_struct_that_is_encoded_decodes_to_itself(kind: str) -> None:
    found = msgspec.json.decode(event(kind), type=Event)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Event) == found
    assert type(found) in get_args(Event)


@pytest.mark.parametrize(
    ("written", "time_ms"),
    [
        ('"2023-11-14T22:13:20Z"', CLOCK_MS),
        ('"2023-11-14T22:13:20.001Z"', CLOCK_MS + 1),
        ('"2023-11-14T22:13:20.0019999Z"', CLOCK_MS + 2),  # msgspec rounds to microseconds: 2,000 of them
        ('"2023-11-14T22:13:20.001999Z"', CLOCK_MS + 1),
        ('"2023-11-14T23:13:20+01:00"', CLOCK_MS),
        ('"2023-11-14T12:43:20-09:30"', CLOCK_MS),
    ],
)
def test_a_written_time_is_the_instant_it_names(written: str, time_ms: int) -> None:
    batch, letters = decode([event(event_time=written), event()], clock_ms=CLOCK_MS)
    assert not letters
    assert batch.time_ms.tolist() == [time_ms, CLOCK_MS]


def test_the_clock_bounds_the_event_time_to_the_millisecond() -> None:
    records = [event(event_time=str(CLOCK_MS + 3_600_000)), event(event_time=str(CLOCK_MS + 3_600_001))]
    batch, letters = decode(records, clock_ms=CLOCK_MS)
    assert batch.row.tolist() == [0]
    assert [(letter.row, letter.field) for letter in letters] == [(1, "$.event_time")]
    assert batch.tick_ms.tolist() == [CLOCK_MS]


@given(st.integers(1, 10**9))
def test_a_quantity_of_three_decimals_is_exact_however_it_is_written(thousandths: int) -> None:
    texts = [f"{thousandths / 1000:.3f}", repr(thousandths / 1000), f"{thousandths}e-3"]
    batch, letters = decode([event(quantity=text) for text in texts], clock_ms=CLOCK_MS)
    assert not letters
    assert batch.quantity.tolist() == [thousandths] * 3


@given(st.integers(0, 10**13))
def test_a_price_of_four_decimals_is_exact(price: int) -> None:
    batch, _ = decode([event(unit_price=f"{price // 10_000}.{price % 10_000:04d}")], clock_ms=CLOCK_MS)
    assert batch.price.tolist() == [price]


@given(st.text(max_size=130), st.text(max_size=66), st.booleans())
def test_skus_and_locations_are_valid_by_their_characters_alone(sku: str, location: str, escaped: bool) -> None:
    document = json.loads(event()) | {"sku": sku, "location": location}
    batch, letters = decode([json.dumps(document, ensure_ascii=escaped).encode()], clock_ms=CLOCK_MS)
    controls = any(ord(character) < 32 or 127 <= ord(character) < 160 for character in sku + location)
    valid = 1 <= len(sku) <= 128 and 1 <= len(location) <= 64 and not controls and "|" not in location
    assert (len(batch), len(letters)) == ((1, 0) if valid else (0, 1))
    if valid:
        assert (batch.sku, batch.location) == ([sku], [location])


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_takes_its_own_types_and_no_other(topic: str) -> None:
    batch, letters = decode(GOOD, clock_ms=CLOCK_MS, topic=f"north.{topic}")
    assert tuple(batch.kind.tolist()) == TOPICS[topic]
    assert len(batch) + len(letters) == len(GOOD)
    assert {(letter.stage, letter.field) for letter in letters} == {("validate", "$.type")}
    assert all(topic in letter.reason for letter in letters)


def test_a_type_missing_is_missed_on_a_topic_of_one_type_too() -> None:
    assert one(event("review_posted", type=None), topic="shop.reviews.v1")[:2] == ("validate", "$.type")


def test_a_topic_without_events_is_refused_with_the_list_of_those_that_have_some() -> None:
    with pytest.raises(TopicError, match=r"forecast\.demand\.v1.*shop\.orders\.v1"):
        decode([], clock_ms=CLOCK_MS, topic="forecast.demand.v1")


@pytest.mark.parametrize("key", [None, b"", b"COFFEE", b"tea", b"TEA ", b"\xff"])
def test_an_item_event_under_another_key_than_its_sku_is_a_route_dead_letter(key: bytes | None) -> None:
    batch, letters = decode([event(), event()], keys=[b"TEA", key], clock_ms=CLOCK_MS)
    assert batch.row.tolist() == [0]
    assert [(letter.row, letter.stage, letter.field, letter.key) for letter in letters] == [(1, "route", "$.sku", key)]


def test_days_acks_and_commands_lie_under_any_key() -> None:
    batch, letters = decode(GOOD[12:], keys=[b"any"] * 7, clock_ms=CLOCK_MS)
    assert not letters
    assert len(batch) == 7


def test_a_null_value_on_the_catalog_retires_the_item() -> None:
    batch, letters = decode([None], keys=["Grüner Tee".encode()], clock_ms=CLOCK_MS, topic="shop.catalog.v1")
    assert not letters
    [(_, retired)] = batch.facts
    assert isinstance(retired, ItemRetired)
    assert (batch.sku, batch.time_ms.tolist(), len(retired.event_id)) == (["Grüner Tee"], [CLOCK_MS], 40)


def test_a_deletion_has_the_id_of_its_key_and_clock() -> None:
    ids = [
        decode([None], keys=[key], clock_ms=clock_ms, topic="shop.catalog.v1")[0].id_hash.tolist()
        for key, clock_ms in [(b"A", CLOCK_MS), (b"A", CLOCK_MS), (b"B", CLOCK_MS), (b"A", CLOCK_MS + 1)]
    ]
    assert ids[0] == ids[1]
    assert len({tuple(found) for found in ids}) == 3


@pytest.mark.parametrize(
    ("key", "location"),
    [(b"2026-12-25|", None), (b"2026-12-25", None), (b"2026-12-25|london", "london"), (b"2026-12-25|a%20b", "a b")],
)
def test_a_null_value_on_the_calendar_makes_the_day_ordinary(key: bytes, location: str | None) -> None:
    batch, letters = decode([None], keys=[key], clock_ms=CLOCK_MS, topic="shop.calendar.v1")
    assert not letters
    [(_, day)] = batch.facts
    assert isinstance(day, DayDescribed)
    assert (day.date.isoformat(), day.location, day.name, day.kind, day.open) == ("2026-12-25", location, "", "", True)


@pytest.mark.parametrize(
    ("topic", "key"),
    [
        (None, b"TEA"),
        ("shop.orders.v1", b"TEA"),
        ("shop.catalog.v1", None),
        ("shop.catalog.v1", b""),
        ("shop.catalog.v1", b"\xff"),
        ("shop.catalog.v1", b"T\nA"),
        ("shop.catalog.v1", b"x" * 129),
        ("shop.calendar.v1", b"Christmas|"),
        ("shop.calendar.v1", b"2026-02-30|"),
        ("shop.calendar.v1", b"20261225|"),
        ("shop.calendar.v1", b"2026-W08-5|"),
        ("shop.calendar.v1", b"2026-12-25|a%7Cb"),
        ("shop.calendar.v1", b"2026-12-25|a%00"),
        ("shop.calendar.v1", b"2026-12-25|" + b"x" * 65),
        ("shop.calendar.v1", None),
    ],
)
def test_a_null_value_that_deletes_nothing_is_a_dead_letter(topic: str | None, key: bytes | None) -> None:
    stage, field, reason = one(None, keys=[key], topic=topic)
    assert (stage, field) == ("decode", "")
    assert reason.startswith("null value")


def test_a_null_value_of_a_command_is_counted_by_its_absence() -> None:
    values = [None, event("rollback"), b"{"]
    batch, letters = decode(values, keys=[b"a", b"b", b"c"], clock_ms=CLOCK_MS, topic="engine.command.v1")
    assert (batch.row.tolist(), [letter.row for letter in letters]) == ([1], [2])
    assert len(values) - len(batch) - len(letters) == 1


def test_a_record_with_two_faults_is_one_dead_letter() -> None:
    record = event(currency='"gbp"', event_time="1", quantity="0.0001", sku='"a\\u0001"')
    assert one(record, keys=[b"b"], topic="shop.clicks.v1")[:2] == ("validate", "$.event_time")


def test_records_are_kept_beside_their_events_for_later_stages() -> None:
    values = [event(), b"{", event("ack")]
    batch, letters = decode(values, keys=[b"TEA", b"x", b"y"], clock_ms=CLOCK_MS)
    assert list(batch.values) == [values[0], values[2]]
    assert list(batch.keys) == [b"TEA", b"y"]
    assert (letters[0].value, letters[0].key) == (b"{", b"x")


def test_structs_are_frozen() -> None:
    found = msgspec.json.decode(event(), type=OrderPlaced)
    with pytest.raises(AttributeError):
        found.sku = "COFFEE"  # type: ignore[misc]  # the point of the test


@given(st.datetimes(timezones=st.timezones()))
def test_epoch_ms_drops_the_part_of_a_millisecond(moment: dt.datetime) -> None:
    since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert epoch_ms(moment) == (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


@pytest.mark.parametrize("text", ["2026-02-30", "tomorrow", "2026-02-20T10:00:00", "", "20260220", "2026-W08-5"])
def test_epoch_ms_refuses_what_is_no_instant(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        epoch_ms(text)


def test_currency_codes_survive_packing() -> None:
    assert [unpack_currency(pack_currency(code)) for code in ("GBP", "AAA", "ZZZ")] == ["GBP", "AAA", "ZZZ"]
    assert pack_currency("AAA") < pack_currency("GBP") < pack_currency("ZZZ")
