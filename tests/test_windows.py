"""What the encoder reads: against sums by hand, its own row alone, nothing later than it may."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
import torch

from models.columns import ANCHORS, LEAST, StepInputs, _day_of_month, quantiles, step_inputs
from models.forecast import LEVELS, ForecastBatch, take
from models.windows import WEEKS, windows_of

PHASE, RECENT, LONG, STATE = range(len(ANCHORS))


def batch_of(rows: int = 5, horizon: int = 14, seed: int = 0, season: int = 7) -> ForecastBatch:
    """Rows with gaps, closures, promotions and prices."""
    rng = np.random.default_rng(seed)
    span = 12 * season
    demand = rng.poisson(3, (rows, span)).astype(np.float32)
    demand[:, : span // 3][:, rng.random(span // 3) < 0.3] = np.nan
    known = {
        "promo": (rng.random((rows, span + horizon)) < 0.3).astype(np.float32),
        "price": rng.choice([4.0, 5.0, 6.0], (rows, span + horizon)).astype(np.float32),
    }
    return ForecastBatch(
        demand=demand, is_open=rng.random((rows, span)) > 0.1, future_open=rng.random((rows, horizon)) > 0.1,
        observed=np.zeros(rows, np.float32), elapsed=np.zeros(rows, np.float32),
        day=rng.integers(15_000, 20_000, rows), hour=np.zeros(rows, np.int64), season=season,
        group=np.full(rows, -1, np.int32), known=known, channels={"price": known["price"][:, :span]},
        weeks=rng.poisson(20, (rows, WEEKS)).astype(np.float32),
    )  # fmt: skip


def inputs_of(batch: ForecastBatch, *, dates: bool = False) -> StepInputs:
    return step_inputs(windows_of(batch, ("promo", "price")), dates=dates)


def test_scale_is_the_greatest_of_a_recent_mean_and_shares_of_older_ones() -> None:
    plain = ForecastBatch(
        demand=np.repeat(np.array([[8.0], [0.0], [0.0]], np.float32), 84, axis=1), is_open=np.ones((3, 84), bool),
        future_open=np.ones((3, 1), bool), observed=np.zeros(3, np.float32), elapsed=np.zeros(3, np.float32),
        day=np.full(3, 19_000), hour=np.zeros(3, np.int64), season=7, group=np.full(3, -1, np.int32),
        weeks=np.repeat(np.array([[7.0], [70.0], [0.0]], np.float32), WEEKS, axis=1),
    )  # fmt: skip
    assert step_inputs(windows_of(plain, ())).scale.tolist() == pytest.approx([8.0, 2.5, LEAST])


def test_anchors_are_the_quantiles_of_their_samples() -> None:
    batch = batch_of()
    inputs = inputs_of(batch)
    demand = np.where(batch.is_open, batch.demand, np.nan)
    for row in range(len(batch)):
        scale = float(inputs.scale[row])
        for step in (0, 5, 13):
            phase = demand[row].reshape(12, 7)[:, step % 7]
            for anchor, samples in ((PHASE, phase), (RECENT, demand[row, -28:]), (LONG, demand[row, -56:])):
                wanted = np.nanquantile(samples, LEVELS) / scale
                np.testing.assert_allclose(inputs.anchors[row, step, anchor], wanted, rtol=1e-4, atol=1e-5)


def test_the_state_anchor_has_the_phases_days_under_the_steps_promotion_or_the_phase_where_these_are_few() -> None:
    batch = batch_of(rows=40, seed=3)
    inputs = inputs_of(batch)
    demand, promo = np.where(batch.is_open, batch.demand, np.nan), batch.known["promo"]
    few = 0
    for row in range(len(batch)):
        for step in range(batch.horizon):
            phase = demand[row].reshape(12, 7)[:, step % 7]
            same = phase[promo[row, :84].reshape(12, 7)[:, step % 7] == promo[row, 84 + step]]
            same = same[np.isfinite(same)]
            few += len(same) < 3
            wanted = np.nanquantile(phase if len(same) < 3 else same, LEVELS) / float(inputs.scale[row])
            np.testing.assert_allclose(inputs.anchors[row, step, STATE], wanted, rtol=1e-4, atol=1e-5)
    assert 0 < few < 40 * 14


def test_a_row_is_read_alike_whatever_rows_stand_beside_it() -> None:
    batch = batch_of(rows=64)
    together = inputs_of(batch, dates=True)
    for row in (0, 31, 63):
        alone = inputs_of(take(batch, slice(row, row + 1)), dates=True)
        for name in ("series", "steps", "anchors", "scale"):
            torch.testing.assert_close(getattr(alone, name)[0], getattr(together, name)[row], rtol=1e-5, atol=1e-6)


def test_chosen_steps_are_those_of_all() -> None:
    windows = windows_of(batch_of(), ("promo", "price"))
    every = step_inputs(windows)
    chosen = torch.tensor([[13, 0, 7]]).expand(5, -1)
    some = step_inputs(windows, chosen)
    for name in ("steps", "anchors"):
        torch.testing.assert_close(getattr(some, name), getattr(every, name)[:, [13, 0, 7]])


@pytest.mark.parametrize("season", [7, 24])
def test_nothing_is_ever_undefined(season: int) -> None:
    """Rows without history, without price, without weeks; closed for ever; huge and tiny demand."""
    batch = batch_of(rows=6, season=season)
    batch.demand[0], batch.demand[1], batch.demand[2] = np.nan, 0, 3e9
    batch.demand[3] = 1e-9
    batch.is_open[4] = False
    batch.known["price"][5] = np.nan
    assert batch.weeks is not None
    batch.weeks[0] = np.nan
    inputs = step_inputs(windows_of(batch, ("promo", "price", "snow")), dates=True)
    for name in ("series", "steps", "anchors", "scale"):
        assert torch.isfinite(getattr(inputs, name)).all(), name
    assert (inputs.scale > 0).all()


def test_a_scaled_row_looks_the_same() -> None:
    """Ten thousand times the demand: the same columns but the scale's own, the same anchors."""
    batch = batch_of()
    assert batch.weeks is not None
    many = ForecastBatch(
        **{name: getattr(batch, name) for name in batch.__dataclass_fields__ if name not in ("demand", "weeks")},
        demand=batch.demand * 10_000, weeks=batch.weeks * 10_000,
    )  # fmt: skip
    small, large = inputs_of(batch), inputs_of(many)
    torch.testing.assert_close(small.series[:, 1:], large.series[:, 1:], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(small.steps, large.steps, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(small.anchors, large.anchors, rtol=1e-3, atol=1e-4)


def test_quantiles_leave_out_what_is_unknown() -> None:
    samples = torch.tensor([[3.0, torch.nan, 1.0, 2.0], [torch.nan] * 4])
    found = quantiles(samples)
    np.testing.assert_allclose(found[0], np.quantile([1.0, 2.0, 3.0], LEVELS), rtol=1e-6)
    assert found[1].tolist() == [0.0] * len(LEVELS)


def test_days_of_the_month_are_those_of_the_calendar() -> None:
    days = np.arange(-800_000, 800_000, 37) % 100_000
    wanted = [(dt.date(1970, 1, 1) + dt.timedelta(days=int(day))).day for day in days]
    assert _day_of_month(torch.from_numpy(days)).tolist() == wanted
