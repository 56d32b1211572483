"""What series in their first week borrow in an engine: who lends, by category and first days, across restarts."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.cold_start import borrow, donors
from models.forecast import F32, LEVELS, Basis, ForecastBatch, take
from models.measures import SCORED
from streams.calendar import Width
from streams.engine import EngineConfig
from streams.lending import MOST_DONORS, Lending, young_rows
from streams.state import SnapshotError, pack
from tests.batches import batch_of, shop
from tests.small_shop import DAY, HOUR, MONDAY, Event, Till, described, lines, order

ROOT = Path(__file__).parents[1]
MEDIAN = LEVELS.index(0.5)
SHELF = {"mug": 2.0, "vase": 60.0}


def young_shop(rows: int, seed: int = 5) -> ForecastBatch:
    """Rows that have 0, 1, …, 6 days, in turn."""
    batch = shop(rows, seed=seed, gaps=False)
    demand = batch.demand.copy()
    for row in range(rows):
        demand[row, : demand.shape[1] - row % 7] = np.nan
    return replace(batch, demand=demand, group=np.arange(rows, dtype=np.int32) % 4 - 1)


def lending(rows: int = 40) -> Lending:
    """Donors of three categories."""
    made = Lending()
    made.learn(shop(rows, gaps=False))
    return made


def lent(found: F32 | None) -> F32:
    """What was borrowed, where something was."""
    assert found is not None
    return found


def restored(other: Lending) -> Lending:
    """The same from its records."""
    made = Lending()
    for key, value in other.changes():
        made.restore(key, value)
    return made


def two_shelves(days: int) -> list[Event]:
    """Six mugs that sell 2 a day and six vases that sell 60, each with its category."""
    begun = MONDAY - days * DAY
    made = [described(begun, f"{kind}{n}", category=kind) for kind in SHELF for n in range(6)]
    for day in range(days):
        at = begun + day * DAY + 10 * HOUR
        made += [order(at, level + (n + day) % 3, f"{kind}{n}") for kind, level in SHELF.items() for n in range(6)]
    return made


# -- in an engine


def said(till: Till, sku: str) -> tuple[F32, str]:
    """Quantiles and basis of the newest forecast of an item."""
    for one in reversed(till.sets):
        skus = [key[0] for key in one.keys]
        if sku in skus:
            row = skus.index(sku)
            return one.forecast.quantiles[row], Basis(int(one.forecast.basis[row])).name.lower()
    raise AssertionError(f"{sku} has no forecast")


def test_a_new_item_is_forecast_as_its_category() -> None:
    till = Till().take(*two_shelves(28), together=True)
    new = [described(MONDAY, f"new {kind}", category=kind) for kind in SHELF]
    till.take(*new, order(MONDAY + HOUR, 2, "new mug"), order(MONDAY + HOUR, 1, "new vase"), together=True)
    till.tick(MONDAY + 9 * HOUR)
    for kind, level in SHELF.items():
        quantiles, basis = said(till, f"new {kind}")
        assert basis == "cold_start"
        assert (abs(quantiles[1:, MEDIAN] - level) <= 2).all()


def test_an_item_without_category_may_be_either_until_it_has_sold() -> None:
    till = Till().take(*two_shelves(28), together=True)
    till.take(order(MONDAY + HOUR, 61, "NEW")).tick(MONDAY + 9 * HOUR)
    at_first, basis = said(till, "NEW")
    assert basis == "cold_start"
    assert at_first[3, LEVELS.index(0.1)] < 5
    assert at_first[3, LEVELS.index(0.9)] > 55
    till.take(order(MONDAY + 30 * HOUR, 61, "NEW")).tick(MONDAY + DAY + 9 * HOUR)
    after_a_day, basis = said(till, "NEW")
    assert basis == "cold_start"
    assert (after_a_day[1:, LEVELS.index(0.2)] > 40).all()


def test_an_item_of_a_week_stands_for_itself() -> None:
    till = Till(EngineConfig(max_series=32, learning=False))  # else it learns that the shelves have stopped selling
    till.take(*two_shelves(28), *(order(MONDAY + n * DAY, 500, "NEW") for n in range(8)), together=True)
    till.tick(MONDAY + 7 * DAY + 9 * HOUR)
    quantiles, basis = said(till, "NEW")
    assert basis == "baseline"
    assert (quantiles[1:, MEDIAN] == 500).all()


def test_an_engine_restored_before_a_new_item_comes_lends_it_the_same() -> None:
    """Donors were drawn for one item; the next one comes after the restart, before any close."""
    first = Till().take(*two_shelves(28), order(MONDAY + HOUR, 2, "A"), together=True).tick(MONDAY + 9 * HOUR)
    second = Till()
    second.engine.restore({key: value for key, value in first.engine.changes() if value is not None})
    second.clock_ms = first.clock_ms
    for till in (first, second):
        till.take(order(MONDAY + 10 * HOUR, 1, "B")).tick(MONDAY + 20 * HOUR)
    np.testing.assert_array_equal(said(first, "B")[0], said(second, "B")[0])
    assert said(second, "B")[0][1:].any()


def test_hours_borrow_too() -> None:
    till = Till(EngineConfig(max_series=8, width=Width.HOUR))
    hours = [order(MONDAY + n * HOUR, 1 + n % 24, sku) for n in range(120) for sku in ("A", "B", "C")]
    till.take(*hours, order(MONDAY + 120 * HOUR, 1, "NEW"), together=True)
    till.tick(MONDAY + 122 * HOUR + HOUR // 2)
    quantiles, basis = said(till, "NEW")
    assert basis == "cold_start"
    at = np.arange(quantiles.shape[0] - 1) + 123  # hours since Monday of steps 2, 3, …
    np.testing.assert_array_equal(quantiles[1:, MEDIAN], 1 + at % 24)


# -- who lends what


def test_what_an_engine_lends_is_what_a_backtest_lends() -> None:
    old, new = shop(40, gaps=False), young_shop(28)
    made, old = Lending(), replace(old, group=np.full(40, -1, np.int32))
    made.learn(old)
    found, young = lent(made.borrowed(new)), np.flatnonzero(young_rows(new))
    np.testing.assert_array_equal(found[young], borrow(take(old, donors(old)), take(new, young)))


def test_a_row_borrows_alike_alone_and_among_others() -> None:
    made, new = lending(), young_shop(40)
    whole = lent(made.borrowed(new))
    for row in range(40):
        np.testing.assert_array_equal(lent(made.borrowed(take(new, slice(row, row + 1))))[0], whole[row])


def test_sums_that_reach_a_level_reach_it_in_every_row() -> None:
    """Ten donors alike: a tenth of the mass lies at or below the first, exactly."""
    made, new = Lending(), batch_of(np.full((600, 84), np.nan))
    made.learn(batch_of(np.repeat(np.arange(1.0, 11.0)[:, None], 84, axis=1)))
    new.demand[:, -1] = np.arange(600)  # rows of their own, so that none stands for another
    first = lent(made.borrowed(new))
    np.testing.assert_array_equal(lent(made.borrowed(take(new, np.arange(599, -1, -1))))[::-1], first)
    nothing = lent(made.borrowed(batch_of(np.full((1, 84), np.nan))))
    assert nothing[0, 0, [LEVELS.index(level) for level in SCORED]].tolist() == list(range(1, 10))


def test_donors_lend_each_phase_its_own() -> None:
    """Drawn when Thursday is next, and asked when Saturday is."""
    week = np.tile(np.arange(7, dtype=np.float32), 12)
    made = Lending()
    made.learn(batch_of(np.tile(week, (3, 1)), day=19_000))
    for later in (0, 2, 9):
        found = lent(made.borrowed(batch_of(np.full((1, 84), np.nan), day=19_000 + later)))
        assert found[0, :, MEDIAN].tolist() == [(n + later) % 7 for n in range(7)]


def test_nobody_lends_before_there_is_a_season_of_history() -> None:
    made, new = Lending(), young_shop(7)
    made.expect()
    made.learn(new)
    assert made.borrowed(new) is None
    assert not made.due
    till = Till().take(order(MONDAY), order(MONDAY + DAY, 3, "B"), together=True).tick(MONDAY + DAY + 9 * HOUR)
    assert said(till, "B")[1] == "cold_start"


# -- the evaluation


def test_the_evaluation_runs_small(tmp_path: Path) -> None:
    begun = MONDAY - 28 * DAY
    new = [order(begun + n * DAY + 11 * HOUR, 2, f"new{n}") for n in range(15, 27)]
    events = sorted([*two_shelves(28), *new], key=lambda one: one["event_time"])
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(lines(events)))
    command = [sys.executable, "-m", "load_tests.cold_start_engine", str(tmp_path / "events.jsonl"), "--steps", "2"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["rows"] > 12
    assert set(told["by_days"]) <= set("123456")


# -- records


def test_donors_come_back_from_their_record() -> None:
    made, new = lending(), young_shop(28)
    other = restored(made)
    np.testing.assert_array_equal(lent(other.borrowed(new)), lent(made.borrowed(new)))
    assert list(other.changes()) == list(made.changes()) == []


def test_a_record_is_bounded() -> None:
    made, random = Lending(), np.random.default_rng(2)
    made.learn(batch_of(random.gamma(1, 5, (3 * MOST_DONORS, 336)), season=24))
    ((key, value),) = made.changes()
    assert key == "pool/donors"
    assert value is not None
    assert len(value) < 700_000


def test_means_of_a_program_before_are_not_lent_but_make_donors_due() -> None:
    made = Lending()
    made.restore("pool/all", pack({"shape": [1, 7, 13], "quantiles": np.zeros(91, np.float32).tobytes()}))
    made.restore("pool/due", pack(False))
    assert made.due
    assert made.borrowed(young_shop(7)) is None
    made.learn(shop(40, gaps=False))
    assert not made.due
    assert [(key, value is None) for key, value in made.changes()] == [("pool/donors", False), ("pool/all", True)]
    assert not list(made.changes())


@pytest.mark.parametrize(("key", "state"), [("pool/other", {}), ("pool/donors", {"shape": [1, 7, 12]})])
def test_records_of_another_program_are_refused(key: str, state: dict[str, object]) -> None:
    with pytest.raises(SnapshotError, match="program"):
        Lending().restore(key, pack(state))
