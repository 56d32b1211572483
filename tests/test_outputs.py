"""Messages as other systems read them: keys, rounding, headers, the forecast's JSON, lines of files."""

from __future__ import annotations

import base64

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.forecast import LEVELS, Basis, Forecast
from streams.outputs import (
    ALERT_TOPIC,
    DEMAND_TOPIC,
    ForecastSet,
    Origin,
    Output,
    as_line,
    dead_letter,
    key_of,
    rfc3339,
    significant,
)

NAMES = st.text("a|%7C5", max_size=5)
FLOATS = st.floats(0, 2.0**120, width=32)


def forecasts(*keys: tuple[str, str], as_of_ms: int = 1_300_000_000_000, revision: int = 1) -> ForecastSet:
    rows, ramp = len(keys), np.arange(len(LEVELS), dtype=np.float32) * 1.23456
    quantiles = np.tile(ramp, (rows, 2, 1)).astype(np.float32)
    mean = np.full((rows, 2), 7.77777, np.float32)
    basis = np.full(rows, Basis.COLD_START, np.uint8)
    return ForecastSet(
        keys=list(keys),
        forecast=Forecast(quantiles, mean, quantiles, mean, basis),
        as_of_ms=as_of_ms,
        at_close=True,
        day=15_046,
        hour=0,
        freq="D",
        time_zone="Europe/London",
        steps=[1_300_000_000_000, 1_300_086_400_000],
        observed=np.arange(rows, dtype=np.float32),
        model="baseline-1",
        revision=revision,
    )


def test_a_forecast_has_the_fields_of_the_contract_and_four_digits() -> None:
    [output] = forecasts(("mug", "default")).encode()
    value = orjson.loads(output.value or b"")
    assert list(value) == [
        "forecast_id", "revision", "sku", "location", "as_of", "freq", "time_zone", "steps", "observed_in_open",
        "levels", "mean", "quantiles", "cumulative", "model", "basis", "reason", "explanation",
    ]  # fmt: skip
    assert (value["levels"], value["basis"], value["mean"]) == (list(LEVELS), "cold_start", [7.778, 7.778])
    assert value["quantiles"][0][:3] == [0, 1.235, 2.469]
    assert (output.topic, output.key, output.event_id) == (DEMAND_TOPIC, b"mug|default", value["forecast_id"])


def test_picked_rows_are_encoded_as_among_all() -> None:
    many = forecasts(("a", "x"), ("b", "x"), ("c", "x"))
    assert [output.value for output in many.encode([2, 0])] == [many.encode()[n].value for n in (2, 0)]
    assert many.encode([]) == []


def test_an_id_tells_series_instant_and_revision_apart() -> None:
    ids = {
        one.forecast_id(0)
        for one in (
            forecasts(("a", "b")), forecasts(("a", "c")), forecasts(("a|b", "")), forecasts(("a", "b"), revision=2),
            forecasts(("a", "b"), as_of_ms=1),
        )
    }  # fmt: skip
    assert len(ids) == 5
    assert forecasts(("a", "b")).forecast_id(0) == forecasts(("z", "z"), ("a", "b")).forecast_id(1)


@settings(max_examples=200, deadline=None)
@given(values=st.lists(FLOATS, min_size=1, max_size=20))
def test_rounding_keeps_order_four_digits_and_zero(values: list[float]) -> None:
    before = np.sort(np.array(values, np.float32))
    after = significant(before)
    assert (np.diff(after) >= 0).all()
    assert ((after == 0) == (before == 0)).all()
    normal = before > 1e-37  # float32 itself has fewer digits below
    np.testing.assert_allclose(after[normal], before[normal], rtol=5.1e-4)


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        (("a", "default"), "a|default"),
        (("a|b", "c"), "a%7Cb|c"),
        (("50%", "c", ""), "50%25|c|"),
        (("é 日本", "x"), "é 日本|x"),
    ],
)
def test_keys_join_parts_and_encode_those_that_hold_a_bar(parts: tuple[str, ...], key: str) -> None:
    assert key_of(*parts) == key


@given(one=st.lists(NAMES, min_size=2, max_size=2), other=st.lists(NAMES, min_size=2, max_size=2))
def test_different_parts_never_share_a_key(one: list[str], other: list[str]) -> None:
    assert (key_of(*one) == key_of(*other)) == (one == other)


def test_headers_are_those_of_cloudevents_in_event_time() -> None:
    output = Output(ALERT_TOPIC, b"fp", b"{}", "fp-1", 1_300_000_000_005, (("x", b"y"),))
    assert dict(output.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"fp-1",
        "ce_type": b"alerts.price.v1",
        "ce_source": b"/shelftide",
        "ce_time": b"2011-03-13T07:06:40.005Z",
        "ce_subject": b"fp",
        "content-type": b"application/json",
        "x": b"y",
    }
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"


def test_a_dead_letter_keeps_bytes_and_key_and_says_where_it_came_from() -> None:
    letter = dead_letter(b"\xff", b"k", "decode", "bad UTF-8", "$.sku", Origin("shop.orders.v1", 3, 77))
    assert (letter.value, letter.key) == (b"\xff", b"k")
    assert dict(letter.headers) == {
        "__streams.errors.exception": b"EventError",
        "__streams.errors.message": b"bad UTF-8 - at `$.sku`",
        "__streams.errors.stacktrace": b"",
        "__streams.errors.topic": b"shop.orders.v1",
        "__streams.errors.partition": b"3",
        "__streams.errors.offset": b"77",
        "x-stage": b"decode",
    }


@pytest.mark.parametrize("value", [b"text", "日本".encode(), b"\xff\xfe", b"", None, b'{"a":"\\ud800"}'])
def test_the_line_of_a_dead_letter_gives_its_bytes_back(value: bytes | None) -> None:
    line = orjson.loads(as_line(dead_letter(value, b"\xff", "decode", "a lone surrogate \ud800")))
    told = base64.b64decode(line["value_base64"]) if "value_base64" in line else line["value"]
    assert (told.encode() if isinstance(told, str) else told) == value
    assert line["headers"]["x-stage"] == "decode"
    assert line["key"] == "\\xff"


def test_other_lines_are_the_value_itself() -> None:
    assert as_line(Output(ALERT_TOPIC, b"k", b'{"a":1}', "i", 0)) == b'{"a":1}'
