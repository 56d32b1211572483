"""Messages of `forecast.price.v1`: what is in them, and that ids and figures come from the forecast alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from models.forecast import LEVELS
from models.price import PriceBatch
from models.price_hurdle import PriceHurdle
from streams.price_forecast import PRICE_TOPIC, PriceForecastSet, to_the_cent

DAY = 86_400_000


def forecasts(revision: int = 1) -> PriceForecastSet:
    """Two lines: one of weekly offers, one of a single price."""
    price = np.array([[9.99, 7.49, 9.99, 7.49], [0.038984, np.nan, np.nan, np.nan]], np.float32)
    began = np.array([[6, 13, 20, 27], [100, np.nan, np.nan, np.nan]], np.float32)
    found = PriceHurdle().forecast(PriceBatch(price, began, np.full(2, 19_000, np.int64)))
    steps = [19_001 * DAY + step * DAY for step in range(30)]
    keys = [("a|b", "default", "web"), ("TEA", "north", "")]
    codes, as_of_ms = ["GBP", "EUR"], 19_000 * DAY + 5
    return PriceForecastSet(keys, codes, price[:, 0], found, as_of_ms, steps, "UTC", "price-hurdle-1", revision)


def body(row: int = 0) -> dict[str, Any]:
    """The JSON of a row."""
    value: dict[str, Any] = orjson.loads(forecasts().encode([row])[0].value or b"")
    return value


def test_a_message_has_the_shape_of_a_demand_forecast_and_the_hurdle() -> None:
    value = body()
    assert {"forecast_id", "revision", "as_of", "steps", "levels", "mean", "quantiles", "model", "basis"} <= set(value)
    assert (value["sku"], value["location"], value["channel"]) == ("a|b", "default", "web")
    assert (value["currency"], value["basis"], value["levels"]) == ("GBP", "baseline", list(LEVELS))
    assert np.shape(value["quantiles"]) == (30, 13)
    assert len(value["steps"]) == len(value["mean"]) == len(value["p_change"]) == 30
    assert value["trend"]["direction"] in ("up", "down", "flat")
    assert 0 <= value["trend"]["probability"] <= 1


def test_the_key_names_the_line_and_hides_its_separator() -> None:
    first, second = forecasts().encode()
    assert (first.key, second.key) == (b"a%7Cb|default|web", b"TEA|north|")
    assert first.topic == PRICE_TOPIC
    assert dict(first.headers)["ce_type"] == PRICE_TOPIC.encode()


def test_published_quantiles_are_to_the_cent_and_do_not_cross() -> None:
    quantiles = np.array(body()["quantiles"])
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert np.allclose(quantiles * 100, np.rint(quantiles * 100))
    assert body(1)["quantiles"][0][6] == 0.03898  # a price below one keeps four digits


def test_rounding_keeps_order_where_the_rule_changes() -> None:
    prices = np.sort(np.concatenate([np.linspace(0.98, 1.02, 401), [0.99996, 1.0, 1.004, 1.006]])).astype(np.float32)
    assert (np.diff(to_the_cent(prices)) >= 0).all()


def test_an_id_belongs_to_one_instant_revision_and_model() -> None:
    assert forecasts().forecast_id(0) == forecasts().forecast_id(0)
    assert len({forecasts().forecast_id(0), forecasts().forecast_id(1), forecasts(2).forecast_id(0)}) == 3


def test_rows_encoded_alone_have_the_bytes_they_have_together() -> None:
    together = forecasts().encode()
    assert [forecasts().encode([row])[0].value for row in range(2)] == [output.value for output in together]
