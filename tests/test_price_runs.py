"""Runs of prices against the runs read off a table of days, and prices that hold for a time, day by day."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.price import RUNS, runs_of
from streams.catalog import FOREVER_MS
from streams.price_runs import PriceRuns, code_of, currency_of
from streams.price_windows import MOST_WINDOWS, PriceWindows, Window

PRICES = st.sampled_from([4.0, 5.0, 5.5, 0.0, -1.0])
ROW = np.array([3])
NAN = float("nan")


def observed(runs: PriceRuns, price: float, day: int, *, promo: bool = False) -> None:
    """Note one price of the one line."""
    runs.observe(ROW, np.array([price], np.float32), np.array([day]), np.array([promo]))


@given(days=st.lists(st.lists(PRICES, max_size=3), min_size=1, max_size=80))
def test_runs_are_those_of_the_last_price_of_each_day(days: list[list[float]]) -> None:
    runs = PriceRuns(8)
    daily = np.full((1, len(days)), np.nan, np.float32)
    for day, prices in enumerate(days):
        for price in prices:
            observed(runs, price, 15_000 + day)
            daily[0, day] = price if price > 0 else daily[0, day]
    found = runs.of(ROW, 15_000 + len(days) - 1)
    wanted = runs_of(daily)
    # A run that was evicted on a day that then ended on its old price does not come back.
    known = int(np.isfinite(found[0]).sum())
    assert known >= min(RUNS, int(np.isfinite(wanted[0]).sum())) - 1
    for here, there in zip(found[:2], wanted[:2], strict=True):
        np.testing.assert_array_equal(here[0, :known], there[0, :known])


def test_an_older_day_and_what_is_no_price_change_nothing() -> None:
    runs = PriceRuns(8)
    observed(runs, 9.0, 100)
    observed(runs, 8.0, 99)
    observed(runs, 0.0, 101)
    observed(runs, NAN, 101)
    assert runs.of(ROW, 101)[0][0, :2].tolist() == pytest.approx([9.0, NAN], nan_ok=True)


def test_the_promotion_of_a_run_moves_with_it() -> None:
    runs = PriceRuns(8)
    for price, day, promo in ((9.0, 1, False), (7.0, 5, True), (9.0, 8, False), (7.5, 9, True)):
        observed(runs, price, day, promo=promo)
    assert runs.of(ROW, 9)[2][0, :5].tolist() == pytest.approx([1, 0, 1, 0, NAN], nan_ok=True)
    observed(runs, 9.0, 9)  # before the evening it was back
    assert runs.of(ROW, 9)[2][0, :4].tolist() == pytest.approx([0, 1, 0, NAN], nan_ok=True)


def test_lines_of_a_zone_are_due_until_they_are_told() -> None:
    runs = PriceRuns(8)
    runs.begin(np.array([1, 3]), np.array([0, 1]), np.array([code_of("GBP")] * 2), np.array([0, 0]))
    assert runs.untold(8, 0, 20).tolist() == []  # no price yet
    for slot in (1, 3):
        runs.observe(np.array([slot]), np.ones(1, np.float32), np.array([19]), np.array([False]))
    assert (runs.untold(8, 0, 20).tolist(), runs.untold(8, 1, 20).tolist()) == ([1], [3])
    runs.tell(np.array([1]), 20)
    assert (runs.untold(8, 0, 20).tolist(), runs.untold(8, 0, 21).tolist()) == ([], [1])


@given(code=st.text(alphabet="ABCXYZ", min_size=3, max_size=3))
def test_currencies_come_back_from_fifteen_bits(code: str) -> None:
    assert currency_of(code_of(code)) == code
    assert 0 < code_of(code) < 1 << 15


# -- prices that hold for a time


def window(begin: int, end: int | None, price: float, said: int = 0, *, promo: bool = True) -> Window:
    """An announcement in days of a thousand."""
    return Window(said * 1000, begin * 1000, FOREVER_MS if end is None else end * 1000, price, promo)


def ahead(windows: PriceWindows, today: int, days: int = 6) -> list[float]:
    """Certain prices of the days after today."""
    ends = [(today + 2 + n) * 1000 - 1 for n in range(days)]
    return windows.ahead(3, (today + 1) * 1000 - 1, ends).tolist()


def test_an_offer_ahead_is_certain_on_its_days_and_its_end_on_one_more() -> None:
    windows = PriceWindows()
    windows.announce(3, window(3, 5, 7.0), (9.0, False))
    assert ahead(windows, 1) == pytest.approx([NAN, 7, 7, 9, NAN, NAN], nan_ok=True)
    assert ahead(windows, 4) == pytest.approx([9, NAN, NAN, NAN, NAN, NAN], nan_ok=True)


def test_a_change_for_good_is_certain_on_its_first_day() -> None:
    windows = PriceWindows()
    windows.announce(3, window(3, None, 10.0), (9.0, False))
    assert ahead(windows, 1) == pytest.approx([NAN, 10, NAN, NAN, NAN, NAN], nan_ok=True)
    windows.settle(3, 3000)
    assert 3 not in windows


def test_an_offer_over_a_change_for_good_ends_on_the_new_price() -> None:
    windows = PriceWindows()
    windows.announce(3, window(2, None, 10.0), (9.0, False))
    windows.announce(3, window(3, 5, 7.0, said=1), (9.0, False))
    assert ahead(windows, 0) == pytest.approx([NAN, 10, 7, 7, 10, NAN], nan_ok=True)
    windows.settle(3, 3500)
    assert windows.told(3).at(3500) == (7.0, True)
    assert windows.told(3).at(5000) == (10.0, True)


def test_a_price_listed_for_good_ends_what_has_begun_and_leaves_what_is_to_come() -> None:
    windows = PriceWindows()
    windows.announce(3, window(1, 3, 7.0), (9.0, False))
    windows.announce(3, window(5, 7, 6.0), (9.0, False))
    assert not windows.listed(3, 1500, 7.0, promo=False)  # the price of the offer, said again
    assert windows.told(3).at(2000)[0] == 7
    assert windows.listed(3, 2000, 8.0, promo=False)
    assert [windows.told(3).at(at)[0] for at in (2500, 5500, 7500)] == [8, 6, 8]


def test_an_announcement_said_again_replaces_itself_and_few_are_kept() -> None:
    windows = PriceWindows()
    for said in range(3):
        windows.announce(3, window(5, 7, 7.0 - said, said), (9.0, False))
    assert windows.told(3).windows == (window(5, 7, 5.0, 2),)
    for n in range(10):
        windows.announce(3, window(10 + 2 * n, 11 + 2 * n, 7.0, 3 + n), (9.0, False))
    assert len(windows.told(3).windows) == MOST_WINDOWS


def test_what_is_announced_comes_back_from_records_and_is_deleted_when_over() -> None:
    windows, other = PriceWindows(), PriceWindows()
    windows.announce(3, window(3, 5, 7.25), (9.0, False))
    [(key, value)] = windows.changes()
    other.restore(key, value)
    assert other.told(3) == windows.told(3)
    windows.settle(3, 5000)
    assert list(windows.changes()) == [("runs/windows/3", None)]
