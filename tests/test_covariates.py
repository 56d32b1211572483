"""What an engine knows beside demand: named days, promotions and prices ahead, kinds; under the names encoders read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from models.forecast import ForecastBatch, attribute_code
from models.named import SHIPPED
from models.windows import windows_of
from streams.covariates import WORD_CODES, word_code
from streams.engine import EngineConfig
from streams.refresh import Refresh
from tests.small_shop import DAY, HOUR, MONDAY, Event, Till, described, event, order, price, retired

CONTEXT, HORIZON = 84, 28


def batch_of(till: Till, *skus: str, location: str = "default") -> ForecastBatch:
    """What an encoder is given of items at the close that was last."""
    engine = till.engine
    refresh = Refresh(engine.refresh.forecaster, HORIZON, engine.series, engine.buckets, engine.catalog, engine.listed,
                      engine.holidays, channels=("price",))  # fmt: skip
    refresh.table["group"][:] = engine.refresh.table["group"]
    slots = np.array([engine.series.slot(sku, location) for sku in skus])
    state = engine.buckets.zones[0]
    return refresh.batch(slots, state, state.zone.start_ms(state.open))


def ahead(batch: ForecastBatch, name: str) -> list[float]:
    """A covariate of the first row at the steps."""
    return [float(value) for value in batch.known[name][0, CONTEXT:]]


def named(date: str, name: str, kind: str, location: str | None = None, *, is_open: bool = True) -> Event:
    """An announced day."""
    made = event("day_described", MONDAY, name=name, kind=kind, date=date, open=is_open, location=location)
    del made["sku"]
    return made


# -- days


def test_named_days_are_told_with_their_kind_and_name() -> None:
    days = [named("2011-02-02", "Candlemas", "holiday"), named("2011-02-04", "Big Friday", "campaign")]
    batch = batch_of(Till().take(order(MONDAY - 3 * DAY), *days).tick(MONDAY + HOUR), "TEA")
    assert ahead(batch, "holiday")[:6] == [0, 0, 1, 0, 1, 0]
    assert ahead(batch, "holiday_kind")[:5] == [0, 0, word_code("holiday"), 0, word_code("campaign")]
    assert ahead(batch, "holiday_name")[2] == word_code("Candlemas")
    assert not batch.known["holiday"][:, :CONTEXT].any()


def test_days_of_a_location_count_there_alone() -> None:
    days = [named("2011-02-02", "Candlemas", "holiday"), named("2011-02-02", "Stocktaking", "closure", "leeds"),
            named("2011-02-03", "Fair", "campaign", "leeds", is_open=False)]  # fmt: skip
    till = Till().take(order(MONDAY - DAY), order(MONDAY - DAY, location="leeds"), *days).tick(MONDAY + HOUR)
    here, there = batch_of(till, "TEA"), batch_of(till, "TEA", location="leeds")
    assert ahead(here, "holiday_name")[2:4] == [word_code("Candlemas"), 0]
    assert ahead(there, "holiday_name")[2:4] == [word_code("Stocktaking"), word_code("Fair")]
    assert here.future_open[0, 3]
    assert not there.future_open[0, 3]


def test_codes_of_words_are_exact_as_float32_and_never_those_of_no_day() -> None:
    codes = [word_code(f"day {n}") for n in range(2000)]
    assert min(codes) >= 1
    assert max(codes) < WORD_CODES
    assert [int(np.float32(code)) for code in codes] == codes
    assert len(set(codes)) > 1990


# -- promotions and prices


def test_a_promotion_is_known_until_its_end_and_then_the_price_before_it() -> None:
    till = Till().take(order(MONDAY - 9 * DAY), price(MONDAY - 8 * DAY, 6), order(MONDAY - 3 * DAY))
    till.take(price(MONDAY - 2 * DAY, 4, promo=True, effective_until=MONDAY + 3 * DAY)).tick(MONDAY + HOUR)
    batch = batch_of(till, "TEA")
    assert ahead(batch, "promo") == [1, 1, 1] + [0] * 25
    assert ahead(batch, "price") == [4, 4, 4] + [6] * 25
    assert batch.known["promo"][0, CONTEXT - 4 : CONTEXT].tolist() == [0, 0, 1, 1]
    assert batch.known["price"][0, CONTEXT - 4 : CONTEXT].tolist() == [6, 6, 4, 4]
    assert np.isnan(batch.known["promo"][0, : CONTEXT - 9]).all()


def test_a_promotion_planned_for_later_is_known_ahead_and_recorded_when_it_comes() -> None:
    till = Till().take(order(MONDAY - 9 * DAY), price(MONDAY - 8 * DAY, 6), order(MONDAY - DAY)).tick(MONDAY + HOUR)
    till.engine.listed.plan(till.engine.series.slot("TEA", "default"), "web", 4.5, time_ms=MONDAY,
                            from_ms=MONDAY + 2 * DAY, until_ms=MONDAY + 5 * DAY, promo=True)  # fmt: skip
    expected = [0, 0, 1, 1, 1] + [0] * 23
    assert ahead(batch_of(till, "TEA"), "promo") == expected
    assert ahead(batch_of(till, "TEA"), "price") == [4.5 if one else 6 for one in expected]
    till.tick(MONDAY + 10 * DAY + HOUR)
    later = batch_of(till, "TEA")
    assert later.known["promo"][0, CONTEXT - 10 : CONTEXT - 2].tolist() == expected[:8]
    assert later.known["price"][0, CONTEXT - 10 : CONTEXT - 2].tolist() == [4.5 if one else 6 for one in expected[:8]]


def test_without_a_price_none_is_known() -> None:
    batch = batch_of(Till().take(order(MONDAY - DAY)).tick(MONDAY + HOUR), "TEA")
    assert np.isnan(batch.known["price"]).all()
    assert ahead(batch, "promo") == [0] * HORIZON


def test_hours_know_what_holds_at_their_end() -> None:
    till = Till(EngineConfig(max_series=4, width=Till().config.width.HOUR))
    till.take(order(MONDAY - 3 * HOUR), price(MONDAY, 4, promo=True, effective_until=MONDAY + 5 * HOUR))
    till.tick(MONDAY + HOUR + HOUR // 2)
    promo = batch_of(till, "TEA").known["promo"][0]
    assert promo[-HORIZON - 2 :][:8].tolist() == [0, 1, 1, 1, 1, 1, 0, 0]


# -- kinds


def test_category_and_brand_are_codes_of_their_words() -> None:
    till = Till().take(described(MONDAY, "A", category="tea", brand="Assam"), described(MONDAY, "B", category="pots"))
    till.take(*(order(MONDAY + HOUR, 1, sku) for sku in "ABC")).tick(MONDAY + DAY + HOUR)
    batch = batch_of(till, *"ABC")
    assert batch.attributes["category"].tolist() == [attribute_code("tea"), attribute_code("pots"), -1]
    assert batch.attributes["brand"].tolist() == [attribute_code("Assam"), -1, -1]


def test_an_item_described_anew_has_its_new_kind_and_a_slot_its_new_owner() -> None:
    till = Till().take(described(MONDAY, "A", category="tea", brand="Assam"), order(MONDAY + HOUR, 1, "A"))
    refresh = till.engine.refresh

    def kinds(sku: str) -> list[int]:
        slots = np.array([till.slot(sku)])
        found = refresh._covariates.attributes(slots, refresh.table["group"][slots] - np.int32(1))
        return [int(one[0]) for one in found.values()]

    assert kinds("A") == [attribute_code("tea"), attribute_code("Assam")]
    till.take(described(MONDAY + HOUR, "A", category="pots", brand="Ming"))
    assert kinds("A") == [attribute_code("pots"), attribute_code("Ming")]
    slot = till.slot("A")
    till.take(retired(MONDAY + 2 * HOUR, "A"), order(MONDAY + 2 * HOUR, 1, "B"))
    assert till.slot("B") == slot
    assert kinds("B") == [-1, -1]


# -- for whom


def test_the_shipped_encoder_finds_everything_it_reads() -> None:
    told = json.loads((SHIPPED / "config.json").read_text())
    batch = batch_of(Till().take(order(MONDAY - DAY), price(MONDAY - DAY, 3)).tick(MONDAY + HOUR), "TEA")
    assert set(told["covariates"]) <= set(batch.known)
    assert set(told.get("attributes") or {}) <= set(batch.attributes)
    windows = windows_of(batch, told["covariates"])
    assert np.isfinite(windows.known[:, :, -HORIZON:].numpy()).all()


@pytest.mark.parametrize("own", [None, "default"])
def test_a_row_is_read_alike_alone_and_among_others(own: str | None) -> None:
    till = Till()
    for n, sku in enumerate("ABCD"):
        till.take(described(MONDAY - 9 * DAY, sku, category=f"c{n % 2}", brand=f"b{n}"))
        till.take(price(MONDAY - 8 * DAY, 3 + n, sku, promo=n > 1), order(MONDAY - (7 - n) * DAY, 2, sku))
    till.take(named("2011-02-02", "Candlemas", "holiday", own)).tick(MONDAY + HOUR)
    whole = batch_of(till, *"ABCD")
    for row, sku in enumerate("ABCD"):
        alone = batch_of(till, sku)
        for name, values in whole.known.items():
            np.testing.assert_array_equal(alone.known[name][0], values[row], err_msg=name)
        for name, codes in whole.attributes.items():
            assert alone.attributes[name][0] == codes[row]
