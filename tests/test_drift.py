"""Detectors of change see planted changes within days, nothing where nothing changes, and the same after a restart."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from online.drift import KEEP, MOST, SIGNALS, Change, Drift, signals
from online.scores import SCORE_LEVELS, losses_of

SERIES = 160
F32 = np.ndarray[Any, np.dtype[np.float32]]


class Shop:
    """Series that sell Poisson amounts, less on Sundays, all with good and bad days; forecasts are right on average."""

    def __init__(self, seed: int, together: float = 0.1) -> None:
        self.random = np.random.default_rng(seed)
        self.level, self.together = self.random.gamma(1.0, 4.0, SERIES), together
        draws = self.random.poisson(self.level, (4000, SERIES))
        self.quantiles: F32 = np.quantile(draws, SCORE_LEVELS, axis=0).T.astype(np.float32)

    def sold(self, bucket: int, factor: float = 1.0) -> F32:
        day = (0.6 if bucket % 7 == 6 else 1.0) * np.exp(self.random.normal(0, self.together))
        sold: F32 = self.random.poisson(self.level * factor * day).astype(np.float32)
        return sold


def run(drift: Drift, shop: Shop, buckets: range, factor: float = 1.0) -> list[Change]:
    found = []
    for bucket in buckets:
        found += drift.add(bucket, losses_of(shop.quantiles, shop.sold(bucket, factor)))
    return found


@pytest.mark.parametrize("together", [0.0, 0.1, 0.4])
def test_where_nothing_changes_nothing_is_seen(together: float) -> None:
    found = [change for seed in range(8) for change in run(Drift(7), Shop(seed, together), range(2 * KEEP))]
    assert len(found) <= 1


@pytest.mark.parametrize(("factor", "within"), [(1.6, 7), (2.5, 4), (0.5, 5)])
def test_a_change_of_demand_is_seen_within_days(factor: float, within: int) -> None:
    drift, shop = Drift(7), Shop(7)
    assert run(drift, shop, range(60)) == []
    found = run(drift, shop, range(60, 60 + within), factor)
    assert found
    assert drift.last == found[-1]
    assert sum(drift.counts.values()) == len(found)


def test_exact_buckets_on_a_seeded_stream() -> None:
    drift, shop = Drift(7), Shop(1)
    run(drift, shop, range(60))
    assert run(drift, shop, range(60, 90), 1.6)[:2] == SEEN


SEEN = [Change(64, "loss", "page-hinkley"), Change(64, "level", "page-hinkley")]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.integers(1, 2 * KEEP), st.sampled_from([1.0, 1.8]))
def test_a_restart_changes_nothing(seed: int, stop: int, factor: float) -> None:
    shop, whole, halves = Shop(seed), Drift(7), Drift(7)
    found: list[list[Change]] = [[], []]
    for bucket in range(2 * KEEP + 20):
        losses = losses_of(shop.quantiles, shop.sold(bucket, 1.0 if bucket < KEEP else factor))
        found[0] += whole.add(bucket, losses)
        if bucket == stop:
            written = msgspec.msgpack.encode(halves.snapshot())
            halves = Drift(7)
            halves.restore(msgspec.msgpack.decode(written))
        found[1] += halves.add(bucket, losses)
    assert found[0] == found[1]
    assert whole.snapshot() == halves.snapshot()


def test_what_is_kept_is_bounded() -> None:
    drift, shop = Drift(7), Shop(3)
    run(drift, shop, range(5 * KEEP))
    assert all(len(drift.snapshot()["shown"][signal]) <= KEEP for signal in SIGNALS)


def test_signals_do_not_depend_on_how_much_is_sold_and_are_held() -> None:
    shop = Shop(5)
    sold = shop.sold(0)
    small, large = (signals(losses_of(by * shop.quantiles, by * sold)) for by in (1, 1000))
    np.testing.assert_allclose(list(small), list(large), atol=0.02)
    assert max(map(abs, signals(losses_of(shop.quantiles, np.zeros(SERIES, np.float32))))) <= MOST
