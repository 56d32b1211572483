"""Forecasts of prices from an engine: when they are due, what they rest on, and what a restart leaves of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.price import HORIZON, PriceBatch, PriceForecast, PriceModel
from models.price_hurdle import PriceHurdle
from streams.calendar import Width
from streams.decode import decode
from streams.engine import Engine, EngineConfig
from streams.outputs import Outputs
from streams.price_forecasting import PriceRequest, answered
from tests.shop_events import START, Spec, records
from tests.small_shop import CLOCK, DAY, HOUR, MONDAY, NOON, Event, Till, lines, order, price, retired

CONFIG = EngineConfig(max_series=32)
HURDLE = PriceHurdle()
EIGHT = MONDAY + 8 * HOUR


@dataclass
class Prices(Till):
    """A till that keeps forecasts of prices."""

    requests: list[PriceRequest] = field(default_factory=list)

    def _keep(self, out: Outputs) -> None:
        super()._keep(out)
        self.requests += [request for _, request in out.prices]

    def said(self, sku: str = "TEA", channel: str = "web", location: str = "default") -> list[dict[str, Any]]:
        """All forecasts of a line so far, as they are published."""
        values = [orjson.loads(o.value or b"") for one in self.requests for o in answered(one, HURDLE).encode()]
        return [v for v in values if (v["sku"], v["channel"], v["location"]) == (sku, channel, location)]

    def days(self, count: int, start: int = 0) -> Self:
        """Let days pass at whose noon something is sold."""
        for n in range(start, start + count):
            self.take(order(NOON + n * DAY))
        return self


def test_a_line_is_forecast_once_when_a_day_begins() -> None:
    till = Prices().days(0)
    till.take(price(EIGHT, 9.5))
    till.days(3)
    said = till.said()
    assert [value["as_of"] for value in said] == [MONDAY + DAY, MONDAY + 2 * DAY]
    assert said[0]["steps"] == [MONDAY + n * DAY for n in range(2, HORIZON + 2)]
    assert (said[0]["price"], said[0]["currency"], said[0]["quantiles"][0][6]) == (9.5, "EUR", 9.5)


def test_each_channel_and_item_is_a_line_with_or_without_a_series() -> None:
    till = Prices()
    till.take(price(EIGHT, 9.5), price(EIGHT, 8.0, channel="trade"), price(EIGHT, 3.0, "MUG"))
    till.days(2)
    assert [till.said(sku, channel)[0]["price"] for sku, channel in (("TEA", "web"), ("TEA", "trade"), ("MUG", "web"))]
    assert till.slot("MUG") == -1


def test_a_line_that_has_no_price_yet_is_silent() -> None:
    till = Prices()
    till.take(price(EIGHT, 0.0), price(EIGHT, -3.0, "MUG")).days(2)
    assert till.requests == []


def test_a_line_that_appears_during_a_day_waits_for_the_next() -> None:
    till = Prices().days(2)
    till.take(price(NOON + DAY + HOUR, 9.5))
    assert till.said() == []
    till.days(1, start=2)
    assert [value["as_of"] for value in till.said()] == [MONDAY + 2 * DAY]


def test_off_keeps_nothing_and_says_nothing() -> None:
    till = Prices(replace(CONFIG, price_model="off"))
    till.take(price(EIGHT, 9.5)).days(3)
    assert till.requests == []
    assert [key for key, _ in till.engine.changes() if key.startswith("runs/")] == []


def test_switched_off_after_a_restart_what_was_kept_is_deleted() -> None:
    till = Prices().take(price(EIGHT, 9.5))
    state = {key: value for key, value in till.engine.changes() if value is not None}
    kept = {key for key in state if key.startswith("runs/")}
    other = Engine(replace(CONFIG, price_model="off"))
    other.restore(state)
    changes = dict(other.changes())
    assert kept
    assert all(changes[key] is None for key in kept)


def test_an_offer_that_is_announced_is_certain_on_its_days() -> None:
    till = Prices().take(price(EIGHT, 9.5))
    till.take(price(EIGHT + HOUR, 7.5, effective_from=MONDAY + 3 * DAY, effective_until=MONDAY + 5 * DAY, promo=True))
    till.days(7)
    first = till.said()[0]  # as of Tuesday: Thursday and Friday are steps 2 and 3
    assert first["price"] == 9.5
    assert [row[0] for row in first["quantiles"][1:4]] == [7.5, 7.5, 9.5]
    assert first["p_change"][1:4] == [1, 1, 0]
    assert 0 < first["p_change"][0] < 1
    # it begins and ends although nobody says so again
    assert [value["price"] for value in till.said()] == [9.5, 9.5, 7.5, 7.5, 9.5, 9.5]
    assert till.said()[3]["p_change"][0] == 1
    assert len(till.engine.price_forecasts.windows) == 0


def test_a_price_that_holds_for_a_time_gives_way_to_the_one_before() -> None:
    till = Prices().take(price(EIGHT, 9.5)).days(1)
    till.take(price(NOON + HOUR, 7.5, effective_until=MONDAY + 2 * DAY)).days(3, start=1)
    assert [value["price"] for value in till.said()] == [7.5, 9.5, 9.5]


def test_a_change_for_good_that_is_announced_happens() -> None:
    till = Prices().take(price(EIGHT, 9.5), price(EIGHT + HOUR, 11.0, effective_from=MONDAY + 3 * DAY)).days(5)
    assert [value["price"] for value in till.said()] == [9.5, 9.5, 11.0, 11.0]
    assert [value["p_change"][0] == 1 for value in till.said()] == [False, True, False, False]


def test_a_fault_that_is_hardly_meant_is_not_the_price_but_a_jump_is() -> None:
    till = Prices()
    till.take(*(price(EIGHT + n * HOUR // 4, 9.5) for n in range(8)))
    till.take(price(NOON - HOUR, 950.0)).days(2)
    assert till.said()[0]["price"] == 9.5
    till.take(price(NOON + DAY + HOUR, 9.5), price(NOON + DAY + 2 * HOUR, 14.0)).days(1, start=2)
    assert till.said()[1]["price"] == 14.0


def test_another_currency_begins_a_line_anew_once_it_is_accepted() -> None:
    till = Prices().take(price(EIGHT, 9.5))
    till.take(*(price(EIGHT + (n + 1) * 60_000, 12.5, currency="USD") for n in range(12))).days(2)
    said = till.said()[0]
    assert (said["price"], said["currency"]) == (12.5, "USD")
    assert float(till.requests[0].batch.price[0, 1]) != 9.5


def test_a_retired_item_is_forgotten_and_its_slot_is_another_line() -> None:
    till = Prices().take(price(EIGHT, 9.5), price(EIGHT + 1, 5.5, effective_from=MONDAY + 9 * DAY)).days(2)
    till.take(retired(NOON + DAY + HOUR), price(NOON + DAY + 2 * HOUR, 3.0, "MUG")).days(2, start=2)
    assert len(till.said()) == 1
    assert [value["price"] for value in till.said("MUG")] == [3.0, 3.0]
    assert len(till.engine.price_forecasts.windows) == 0


def test_days_begin_in_the_zone_of_a_location() -> None:
    config = replace(CONFIG, location_time_zones={"york": "America/New_York"})
    till = Prices(config).take(price(EIGHT, 9.5), price(EIGHT, 9.0, location="york")).days(3)
    assert [value["as_of"] for value in till.said()] == [MONDAY + DAY, MONDAY + 2 * DAY]
    york = till.said(location="york")
    assert [value["as_of"] for value in york] == [MONDAY + 29 * HOUR, MONDAY + 53 * HOUR]
    assert york[0]["time_zone"] == "America/New_York"


def test_hour_buckets_ask_once_a_day_too() -> None:
    till = Prices(replace(CONFIG, width=Width.HOUR)).take(price(EIGHT, 9.5))
    for hour in range(60):
        till.take(order(EIGHT + hour * HOUR))
    assert [value["as_of"] for value in till.said()] == [MONDAY + DAY, MONDAY + 2 * DAY]


def test_prices_of_one_chunk_are_taken_in_order() -> None:
    events: list[Event] = [price(EIGHT + n, amount) for n, amount in enumerate((9.5, 8.5, 9.0, 8.5))]
    alone, together = Prices().take(*events).days(2), Prices()
    together.take(*events, together=True).days(2)
    assert [value["price"] for value in together.said()] == [8.5]
    assert together.requests[0].batch.price.tobytes() == alone.requests[0].batch.price.tobytes()


# -- shells that have requests answered elsewhere


def deferred(made: list[bytes], engine: Engine, start: int = 0, stop: int | None = None) -> None:
    """Play records, with nobody to answer what becomes due."""
    batch, _ = decode(made[start:stop], clock_ms=CLOCK)
    batch.tick_ms[:] = np.maximum(batch.time_ms, START)
    engine.process(batch)
    while engine.paused:
        engine.resume()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), rows=st.sampled_from([1, 3, 1024]))
def test_what_was_under_way_when_a_worker_died_is_due_for_the_next_one_alike(seed: int, rows: int) -> None:
    made = records(Spec(seed, facts=0.4, windows=0.3))
    whole, died = (Engine(CONFIG, deferred=True) for _ in range(2))
    for engine in (whole, died):
        deferred(made, engine)
    lost = died.price_forecasts.gather(rows)
    assert lost is not None
    heir = Engine(CONFIG, deferred=True)
    heir.restore({key: value for key, value in died.changes() if value is not None})
    assert messages(heir, rows) == messages(whole, 1024)
    assert not heir.price_forecasts.due


def messages(engine: Engine, rows: int) -> list[tuple[str, bytes | None]]:
    """What an engine has to say of prices, answered so many lines at a time."""
    out = []
    while (request := engine.price_forecasts.gather(rows)) is not None:
        out += [(output.event_id, output.value) for output in answered(request, HURDLE).encode()]
        engine.price_forecasts.absorb(request)
    return sorted(out)


def test_an_answer_that_comes_after_the_next_day_has_begun_leaves_that_day_due() -> None:
    engine = Engine(CONFIG, deferred=True)
    deferred(lines([price(EIGHT, 9.5), order(NOON), order(NOON + DAY)]), engine)
    late = engine.price_forecasts.gather()
    deferred(lines([order(NOON + 2 * DAY)]), engine)
    newer = engine.price_forecasts.gather()
    assert late is not None
    assert newer is not None
    engine.price_forecasts.absorb(late)
    assert engine.price_forecasts.gather() is None  # the newer one is under way
    engine.price_forecasts.absorb(newer)
    assert (late.day + 1, engine.price_forecasts.due) == (newer.day, False)


class Broken:
    """A model that raises."""

    name = "broken-1"

    def forecast(self, batch: PriceBatch) -> PriceForecast:
        """Raise."""
        raise ValueError("no\nsense")


def test_a_model_that_fails_leaves_the_last_price_and_the_reason() -> None:
    till = Prices().take(price(EIGHT, 9.5)).days(2)
    [output] = answered(till.requests[0], Broken()).encode()
    value = orjson.loads(output.value or b"")
    assert (value["model"], value["reason"]) == ("last-price-1", "model failed: ValueError: no sense")
    assert (value["basis"], value["mean"]) == ("baseline", [9.5] * HORIZON)


@pytest.mark.parametrize("name", ["net", "hurdle"])
def test_the_models_of_the_setting_answer_what_an_engine_asks(name: PriceModel) -> None:
    from models.price_net import price_forecaster

    forecaster = price_forecaster(name)
    assert forecaster is not None
    till = Prices().take(price(EIGHT, 9.5)).days(2)
    [output] = answered(till.requests[0], forecaster).encode()
    value = orjson.loads(output.value or b"")
    assert (value["model"], value["reason"]) == (forecaster.name, None)
