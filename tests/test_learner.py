"""What is learned corrects the right model's answers, only where it pays, from what is final and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.baseline import SeasonalWindow
from models.forecast import F32, LEVELS, Basis, Forecast, ForecastBatch
from models.promises import fault_of
from online.correction import band_of
from online.learner import LEARNED, MOST_LEARNED, SUMS, Learner, Truth, kept
from online.residuals import Residuals
from streams.engine import Engine, EngineConfig
from tests.small_shop import DAY, MONDAY, NOON, Till, order, stock
from tests.test_buckets import at

SERIES, HORIZON = 60, 28
SLOTS = np.arange(SERIES)
NOBODY = np.full(SERIES, -1)


def batch_of(rows: int, observed: F32) -> ForecastBatch:
    """What promises are held against: the history does not matter for them."""
    return ForecastBatch(
        demand=np.ones((rows, 84), np.float32), is_open=np.ones((rows, 84), bool),
        future_open=np.ones((rows, HORIZON), bool), observed=observed,
        elapsed=np.zeros(rows, np.float32), day=np.zeros(rows, np.int64), hour=np.zeros(rows, np.int64), season=7,
        group=np.full(rows, -1, np.int32),
    )  # fmt: skip


def forecast_of(draws: npt.NDArray[Any], basis: Basis = Basis.MODEL) -> Forecast:
    """What a model would say that knew samples of all steps, (samples, rows, horizon), to be true."""
    sums = draws.cumsum(axis=2)
    quantiles = (np.moveaxis(np.quantile(values, LEVELS, axis=0), 0, 2).astype(np.float32) for values in (draws, sums))
    single, total = quantiles
    return Forecast(
        quantiles=single, mean=draws.mean(axis=0).astype(np.float32),
        cumulative=np.maximum.accumulate(total, axis=1), cumulative_mean=sums.mean(axis=0).astype(np.float32),
        basis=np.full(draws.shape[1], basis, np.uint8),
    )  # fmt: skip


def poisson_forecast(level: npt.NDArray[Any], seed: int = 0) -> Forecast:
    random = np.random.default_rng(seed)
    return forecast_of(random.poisson(level[None, :, None], (400, len(level), HORIZON)))


@dataclass
class Shop:
    """A learner, a model that always says the same, and a demand that does what it likes."""

    learner: Learner
    said: Forecast
    sold: list[F32]

    def play(self, demand: npt.NDArray[Any]) -> Forecast | None:
        """Let days pass, (days, series); what was published last comes back."""
        published = None
        for sold in demand.astype(np.float32):
            day = len(self.sold)
            if day:
                self.learner.expect(day)
                correction = self.learner.correction(SLOTS, NOBODY)
                waiting = kept(correction, self.said, None, self.learner.learned(SLOTS))
                self.learner.keep(SLOTS[waiting.rows], day, waiting)
                published = correction.applied(self.said, np.zeros(SERIES, np.float32))
            self.sold.append(sold)
            past = np.stack(self.sold[-SUMS[-1] :], axis=1)
            missing = np.full((SERIES, SUMS[-1] - past.shape[1]), np.nan, np.float32)
            self.learner.learn(Truth(day, SLOTS, np.concatenate([missing, past], axis=1), NOBODY))
        return published

    def wql(self, rival: str) -> float:
        return float(self.learner.summary()["rivals"][rival]["overall"]["wql"])


def shop(level: npt.NDArray[Any]) -> Shop:
    return Shop(Learner("m", SERIES, 7), poisson_forecast(level), [])


def levels(seed: int) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).gamma(2.0, 8.0, SERIES) + 1


@pytest.mark.parametrize("seed", range(4))
def test_of_a_model_that_is_right_nothing_is_made_worse(seed: int) -> None:
    level = levels(seed)
    right = shop(level)
    random = np.random.default_rng(100 + seed)
    together = np.exp(random.normal(0, 0.15, (250, 1)))  # days that are good or bad for all
    right.play(random.poisson(level * together, (250, SERIES)))
    assert right.wql("published") <= 1.005 * right.wql("model")


def test_a_model_that_stays_behind_is_corrected_within_weeks() -> None:
    level = levels(1)
    behind, random = shop(level), np.random.default_rng(1)
    behind.play(random.poisson(level, (60, SERIES)))
    assert all(acts["factors"] == "none" for acts in behind.learner.acting().values())
    published = behind.play(random.poisson(1.6 * level, (60, SERIES)))
    assert published is not None
    assert published.mean.sum() / behind.said.mean.sum() == pytest.approx(1.6, rel=0.05)
    sums = [float(forecast.cumulative_mean[:, -1].sum()) for forecast in (published, behind.said)]
    assert sums[0] / sums[1] == pytest.approx(1.6, rel=0.05)
    assert behind.learner.drift.last is not None
    assert 60 <= behind.learner.drift.last.bucket < 70
    assert behind.wql("published") < behind.wql("model")


def test_forecasts_made_before_a_change_teach_nothing_of_what_a_model_says_since() -> None:
    level, random = levels(1), np.random.default_rng(1)
    surprised = shop(level)
    surprised.play(random.poisson(level, (60, SERIES)))
    evidence = []
    for _ in range(40):
        surprised.play(random.poisson(1.6 * level, (1, SERIES)))
        evidence.append(float(surprised.learner.residuals._weights[0, -1, -1]))
    seen = surprised.learner._turned
    assert 60 <= seen < 70
    first = seen + LEARNED[-1]  # the first bucket that was forecast so far ahead by who knew
    assert np.diff(evidence[seen - 60 : first - 60]).max() <= 0
    assert np.diff(evidence[first - 60 :]).min() > 0


@pytest.mark.parametrize(("near", "far"), [(1.0, 0.0), (2.0, 0.5)])
def test_a_factor_far_ahead_ends_with_what_shows_one_bucket_ahead(near: float, far: float) -> None:
    residuals, slots, nobody = Residuals(8, (1, 20), 7), np.arange(8), np.zeros(8, np.int64)
    said = np.full(8, 50, np.float32)
    for bucket in range(60):
        residuals.expect(bucket)
        for index, times in enumerate((near, 2.0)):
            residuals.learn(index, bucket, slots, nobody, said, times * said)
    found = float(residuals.foretell(slots, nobody)[0][0, 1])
    assert found == pytest.approx(0, abs=0.01) if not far else found > far


def test_when_the_world_returns_the_correction_goes() -> None:
    level = levels(2)
    world, random = shop(level), np.random.default_rng(2)
    world.play(random.poisson(level, (40, SERIES)))
    world.play(random.poisson(1.6 * level, (60, SERIES)))
    published = world.play(random.poisson(level, (90, SERIES)))
    assert published is not None
    assert published.mean.sum() / world.said.mean.sum() == pytest.approx(1.0, abs=0.03)


def test_an_interval_that_is_too_narrow_is_widened() -> None:
    level, random = levels(3), np.random.default_rng(3)
    narrow = shop(level)
    rows = random.gamma(8, 1 / 8, (300, SERIES))  # wider than Poisson, the same mean
    published = narrow.play(random.poisson(level * rows))
    assert published is not None
    assert (published.quantiles[:, :, -3] >= narrow.said.quantiles[:, :, -3]).all()
    rivals = narrow.learner.summary()["rivals"]
    assert rivals["model"]["overall"]["coverage80"] < 0.68
    last = random.poisson(level * random.gamma(8, 1 / 8, (2000, SERIES)))
    inside = (last >= published.quantiles[:, 5, 2]) & (last <= published.quantiles[:, 5, 10])
    assert 0.76 < inside.mean() < 0.86


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_corrected_answers_keep_every_promise(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = int(random.integers(1, SERIES))
    scale = 10.0 ** random.uniform(-2, 4, (1, rows, 1))
    draws = random.gamma(0.5, scale, (60, rows, HORIZON))
    draws[:, : rows // 2] = np.rint(draws[:, : rows // 2])
    said = forecast_of(draws)
    said.basis[: rows // 4] = Basis.COLD_START
    learner = Learner("m", SERIES, 7)
    for calibration in (learner.calibration, learner.sum_calibration):
        for index in range(len(calibration._steps)):
            calibration._all[index] = random.normal(0, 0.2, 5)
        calibration._readings = [None] * len(calibration._steps)
    observed = random.gamma(0.5, 5, rows).astype(np.float32)
    said.quantiles[:, 0] = np.maximum(said.quantiles[:, 0], observed[:, None])
    correction = replace(
        learner.correction(SLOTS[:rows], NOBODY[:rows]),
        groups=random.normal(0, 0.3, (rows, len(LEARNED))).astype(np.float32),
        series=random.normal(0, 0.3, (rows, len(LEARNED))).astype(np.float32),
        acts=random.integers(0, 3, len(LEARNED)).tolist(),
        reads=(random.random(len(LEARNED)) < 0.5).tolist(), sum_reads=(random.random(len(SUMS)) < 0.5).tolist(),
    )  # fmt: skip
    batch = batch_of(rows, observed)
    assert fault_of(batch, said) is None
    before = msgspec.msgpack.encode([values.tobytes() for values in (said.quantiles, said.mean, said.cumulative)])
    published = correction.applied(said, observed)
    assert fault_of(batch, published) is None
    whole = (said.quantiles == np.rint(said.quantiles)).all(axis=(1, 2)) & (observed == np.rint(observed))
    np.testing.assert_array_equal(published.quantiles[whole], np.rint(published.quantiles[whole]))
    young = said.basis == Basis.COLD_START
    np.testing.assert_array_equal(published.quantiles[young], said.quantiles[young])
    after = msgspec.msgpack.encode([values.tobytes() for values in (said.quantiles, said.mean, said.cumulative)])
    assert before == after


@pytest.mark.parametrize("stop", [1, 20, 75])
def test_a_restart_changes_nothing(stop: int) -> None:
    level = levels(5)
    whole, halves, random = shop(level), shop(level), np.random.default_rng(5)
    demand = random.poisson(level * np.where(np.arange(100) < 50, 1, 1.7)[:, None], (100, SERIES))
    whole.play(demand)
    halves.play(demand[:stop])
    records = {key: msgspec.msgpack.encode(payload) for key, payload in halves.learner.changes(SERIES)}
    halves.learner = Learner("m", SERIES, 7)
    for key, value in records.items():
        halves.learner.restore(key, msgspec.msgpack.decode(value))
    halves.play(demand[stop:])
    assert whole.learner.summary() == halves.learner.summary()
    assert whole.learner.acting() == halves.learner.acting()
    same = (learner.learner.correction(SLOTS, NOBODY) for learner in (whole, halves))
    one, other = same
    np.testing.assert_array_equal(one.groups, other.groups)
    np.testing.assert_array_equal(one.series, other.series)


def test_what_was_learned_of_one_model_says_nothing_of_another() -> None:
    level = levels(6)
    learned, random = shop(level), np.random.default_rng(6)
    learned.play(random.poisson(2 * level, (40, SERIES)))
    other = Learner("n", SERIES, 7)
    for key, payload in learned.learner.changes(SERIES):
        other.restore(key, payload)
    assert other.summary() == Learner("n", SERIES, 7).summary()
    assert not other.correction(SLOTS, NOBODY).groups.any()


def test_each_target_teaches_once_and_none_before_it_is_met() -> None:
    level = levels(7)
    taught = shop(level)
    taught.play(np.random.default_rng(7).poisson(level, (30, SERIES)))
    by_horizon = taught.learner.summary()["rivals"]["published"]["by_horizon"]
    # The first answers were kept on day 1, so a horizon has met 30 - h days.
    assert {int(h): figures["outcomes"] for h, figures in by_horizon.items()} == {
        h: SERIES * (30 - h) for h in LEARNED
    }  # fmt: skip


def test_weeks_add_up_to_the_whole() -> None:
    level = levels(7)
    taught = shop(level)
    taught.play(np.random.default_rng(7).poisson(level, (40, SERIES)))
    told = taught.learner.summary()
    assert [week["begins"] for week in told["weeks"]][:2] == ["1969-12-29", "1970-01-05"]
    for rival, figures in told["rivals"].items():
        weight = [week["outcomes"] for week in told["weeks"]]
        assert sum(weight) == figures["overall"]["outcomes"]
        covered = np.average([week["coverage80"][rival] for week in told["weeks"]], weights=weight)
        assert covered == pytest.approx(figures["overall"]["coverage80"], abs=1e-5)


def test_what_was_out_of_stock_or_had_not_begun_teaches_nothing() -> None:
    level = levels(8)
    some = shop(level)
    some.play(np.full((20, SERIES), np.nan))
    assert some.learner.summary()["rivals"]["model"]["overall"]["outcomes"] == 0


def test_amounts_beyond_all_measure_leave_what_was_learned_finite() -> None:
    level = levels(10)
    world, random = shop(level), np.random.default_rng(10)
    world.play(random.poisson(1.6 * level, (40, SERIES)))
    world.said = replace(world.said, quantiles=np.full_like(world.said.quantiles, 3e38))
    world.play(np.full((3, SERIES), 3e38))
    world.said = poisson_forecast(level)
    published = world.play(random.poisson(level, (40, SERIES)))
    assert published is not None
    assert fault_of(batch_of(SERIES, np.zeros(SERIES, np.float32)), published) is None
    assert np.isfinite(world.learner.correction(SLOTS, NOBODY).groups).all()


def test_a_slot_that_is_freed_leaves_nothing_to_the_next() -> None:
    level = levels(9)
    freed = shop(level)
    freed.play(np.random.default_rng(9).poisson(3 * level, (30, SERIES)))
    assert freed.learner.correction(SLOTS, NOBODY).series[4].any()
    freed.learner.clear(4)
    assert not freed.learner.correction(SLOTS, NOBODY).series[4].any()
    before = freed.learner.summary()["rivals"]["model"]["overall"]["outcomes"]
    past = np.ones((1, SUMS[-1]), np.float32)
    freed.learner.learn(Truth(30, np.array([4]), past, np.array([-1])))
    assert freed.learner.summary()["rivals"]["model"]["overall"]["outcomes"] == before


def test_series_beyond_those_that_are_learned_from_are_corrected_all_the_same() -> None:
    learner = Learner("m", 10 * MOST_LEARNED, 7)
    slots = np.array([0, MOST_LEARNED, 5 * MOST_LEARNED])
    assert learner.learned(slots).tolist() == [0]
    assert learner.correction(slots, np.full(3, -1)).groups.shape == (3, len(LEARNED))


def test_what_sums_alone_teach_is_written_as_well() -> None:
    said, learner = poisson_forecast(levels(11)), Learner("m", SERIES, 7)
    waiting = kept(learner.correction(SLOTS, NOBODY), said, None, SLOTS)
    learner.keep(SLOTS, 40, replace(waiting, cells=np.zeros_like(waiting.cells)))
    assert list(learner.changes(SERIES))
    learner.learn(Truth(40 + SUMS[0] - 1, SLOTS, np.ones((SERIES, SUMS[-1]), np.float32), NOBODY))
    assert "learner/model/m" in dict(learner.changes(SERIES)), "a restart would forget what was met"


def test_every_step_has_a_horizon_that_stands_for_it() -> None:
    assert [LEARNED[n] for n in band_of(LEARNED, 28)] == [1] + 3 * [3] + 4 * [6] + 6 * [11] + 14 * [20]


# -- in the engine


def outcomes_learned(till: Till) -> int:
    return int(till.engine.learning.learner.summary()["rivals"]["model"]["overall"]["outcomes"])


@pytest.mark.parametrize(("on_hand", "learned"), [(9.0, True), (0.0, False)])
def test_an_engine_learns_nothing_from_days_without_stock(on_hand: float, learned: bool) -> None:
    till = Till()
    for day in range(12):  # a week of history, and some days to be met
        till.take(order(NOON + day * DAY, 3), stock(NOON + day * DAY, on_hand))
    at(till, MONDAY + 14 * DAY)
    assert (outcomes_learned(till) > 0) is learned


def test_an_engine_that_shall_not_learn_does_not() -> None:
    till = Till(EngineConfig(max_series=10, learning=False))
    for day in range(14):
        till.take(order(NOON + day * DAY, 3))
    assert outcomes_learned(till) == 0
    assert not [key for key, _ in till.engine.changes() if key.startswith("learner/")]


class Other(SeasonalWindow):
    """The same under another name."""

    name = "other-1"


def topic_of(till: Till, topic: dict[str, bytes] | None = None) -> dict[str, bytes]:
    """State records as a compacted topic has them after another commit."""
    merged = {**(topic or {}), **dict(till.engine.changes())}
    return {key: value for key, value in merged.items() if value is not None}


@pytest.mark.parametrize("other", [{"learning": False}, {"forecaster": Other()}], ids=["off", "another model"])
def test_what_nobody_meets_waits_no_longer(other: dict[str, Any]) -> None:
    till = Till()
    for day in range(14):
        till.take(order(NOON + day * DAY, 3))
    topic = topic_of(till)
    assert [key for key in topic if key.startswith("learner/cells/")]
    between = Engine(EngineConfig(max_series=32, learning=other.get("learning", True)), other.get("forecaster"))
    between.restore(topic)
    till.engine = between
    for day in range(14, 24):
        till.take(order(NOON + day * DAY, 30))
    topic = topic_of(till, topic)
    again = Engine(EngineConfig(max_series=32))
    again.restore(topic)
    assert again.learning.learner.summary()["rivals"]["model"]["overall"]["outcomes"] > 0
    assert not any(cells.any() for cells in again.learning.learner._cells.cells), "of days that are over"
