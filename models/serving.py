"""Encoders as a `Forecaster`: batches in, quantiles, means and cumulative quantiles out.

In: fitted nets, as `models.net` or as encoders. Out: a `Forecast` per batch.
Must not know: training, threads, shops. Rule: several encoders answer as one, by the mean of their quantiles.

Cumulative quantiles come from paths of whole seasons, as in `models.baseline`: which of the last twelve seasons sold
most on a phase says how far up its quantiles a path is on that step, so that good weeks stay good weeks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.baseline import WINDOW, paths, phase_samples
from models.columns import StepInputs, tensors
from models.forecast import F32, LEVELS, Basis, Forecast, ForecastBatch, ForecastError, HorizonError, borrowing, take
from models.net import Net
from models.quantiles import Cuts, cuts_of, interpolate

INPUT_ROWS = 512
"""Rows whose columns are made together: fewer pay more for the calls, more leave the cache."""

FORWARD_ROWS = 64
"""Rows of a forward pass on a CPU: at 28 steps what a layer leaves takes 0.7 MB, inside a second-level cache."""

PATH_ROWS = 256
"""Rows whose paths are added up together: 60 over 28 steps take 1.7 MB."""

COLD_SEASONS = 1
"""With less history than this a forecast rests on what other items do."""

MAX_HORIZON = 56


class EncoderForecaster:
    """Answers batches with the mean of some encoders."""

    def __init__(self, models: Sequence[Net], name: str, device: str = "cpu") -> None:
        if not models:
            raise ForecastError("there is no encoder to answer with")
        self._models, self._name, self._device = list(models), name, torch.device(device)
        for model in self._models:
            cast("nn.Module", model).to(self._device).eval()

    @property
    def name(self) -> str:
        """Name and digest."""
        return self._name

    @property
    def channels(self) -> tuple[str, ...]:
        """The price charged."""
        return ("price",)

    def forecast(self, batch: ForecastBatch) -> Forecast:
        """Forecast every row.

        Raises
        ------
        HorizonError
            If the horizon is zero or above `MAX_HORIZON`.
        """
        if not 1 <= batch.horizon <= MAX_HORIZON:
            raise HorizonError(f"the horizon is {batch.horizon}; it may be 1 to {MAX_HORIZON}")
        quantiles = _with_borrowed(batch, self._quantiles(batch))
        shut = ~batch.future_open
        quantiles[shut] = 0
        remaining = np.float32(1) - np.clip(batch.elapsed, 0, 1)
        quantiles[:, 0] *= remaining[:, None]
        mean = quantiles @ MEAN_WEIGHTS
        cumulative = _cumulative(batch, quantiles)
        cumulative_mean = np.cumsum(mean, axis=1, dtype=np.float32)
        whole = _sold_whole(batch)
        quantiles[whole], cumulative[whole] = np.rint(quantiles[whole]), np.rint(cumulative[whole])
        observed = np.maximum(batch.observed, 0)
        quantiles[:, 0] += observed[:, None]
        mean[:, 0] += observed
        seen = (np.isfinite(batch.demand) & batch.is_open).sum(axis=1)
        basis = np.where(seen < COLD_SEASONS * batch.season, Basis.COLD_START, Basis.MODEL).astype(np.uint8)
        return Forecast(quantiles, mean, cumulative, cumulative_mean, basis)

    @torch.inference_mode()
    def _quantiles(self, batch: ForecastBatch) -> F32:
        """The mean of the encoders' quantiles, in units."""
        out = np.zeros((len(batch), batch.horizon, len(LEVELS)), np.float32)
        for start in range(0, len(batch), INPUT_ROWS):
            part = slice(start, start + INPUT_ROWS)
            for model in self._models:
                inputs = model.inputs(model.windows(take(batch, part)).to(self._device))
                self._add(model, inputs, torch.from_numpy(out[part]))
        return out

    def _add(self, model: Net, inputs: StepInputs, total: Tensor) -> None:
        """Add what an encoder says, in passes of few rows where caches are small."""
        scale = (inputs.scale / len(self._models))[:, None, None]
        if self._device.type != "cpu":
            total += (model(inputs) * scale).cpu()
            return
        parts = {name: value.split(FORWARD_ROWS) for name, value in tensors(inputs).items()}
        for n, (own, into) in enumerate(zip(scale.split(FORWARD_ROWS), total.split(FORWARD_ROWS), strict=True)):
            into.addcmul_(model(StepInputs(**{name: values[n] for name, values in parts.items()})), own)


def _with_borrowed(batch: ForecastBatch, quantiles: F32) -> F32:
    """Answer rows without a season of history by what they borrow, where they do: no encoder knows their level."""
    rows = np.flatnonzero(borrowing(batch))
    if batch.borrowed is not None and len(rows):
        quantiles[rows] = batch.borrowed[rows][:, np.arange(batch.horizon) % batch.season]
    return quantiles


def _sold_whole(batch: ForecastBatch) -> npt.NDArray[np.bool_]:
    """Rows that have sold whole units alone, and some: their quantiles are whole numbers."""
    known = np.isfinite(batch.demand) & batch.is_open
    whole: npt.NDArray[np.bool_] = (np.rint(batch.demand) == batch.demand) | ~known
    return np.asarray(whole.all(axis=1) & known.any(axis=1))


def _mean_weights() -> F32:
    """What each quantile counts for the mean: the trapezoidal rule, constant beyond the outer levels."""
    levels = np.array(LEVELS)
    edges = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [1.0]])
    return np.diff(edges).astype(np.float32)


MEAN_WEIGHTS = _mean_weights()


def _cumulative(batch: ForecastBatch, quantiles: F32) -> F32:
    """Quantiles of running sums, (B, H, Q)."""
    rows, horizon, _ = quantiles.shape
    step = np.arange(horizon)
    seasons = _by_season(batch, quantiles).reshape(rows, horizon * WINDOW)
    table = paths(-(-horizon // batch.season))
    drawn = table[step // batch.season] + (step * WINDOW)[:, None]  # (H, paths)
    cuts = cuts_of(LEVELS, table.shape[1])
    out = np.empty_like(quantiles)
    for first in range(0, rows, PATH_ROWS):
        part = slice(first, first + PATH_ROWS)
        sums, below = np.take(seasons[part], drawn, axis=1), out[part]  # (R, H, paths)
        for at in range(1, horizon):
            sums[:, at] += sums[:, at - 1]
        sums.sort(axis=2)
        level = interpolate(sums, cuts)
        below[:, 0] = quantiles[part, 0]
        for at in range(1, horizon):  # interpolation rounds; sums never fall
            np.maximum(level[:, at], below[:, at - 1], out=below[:, at])
    return out


def _by_season(batch: ForecastBatch, quantiles: F32) -> F32:
    """What a step sells if it is as far up its quantiles as each season was on its phase, (B, H, 12)."""
    samples = phase_samples(batch.demand, batch.is_open, batch.season)  # (B, S, 12), newest first, then NaN
    order = np.argsort(samples, axis=2, kind="stable")  # NaN last
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(WINDOW), axis=2)
    at = (np.arange(WINDOW) + 0.5) / WINDOW
    drawn = interpolate(quantiles, _among_levels(at))  # the step's demand at each rank
    return np.take_along_axis(drawn, rank[:, np.arange(batch.horizon) % batch.season], axis=2)


def _among_levels(at: np.ndarray) -> Cuts:
    place = np.interp(at, LEVELS, np.arange(len(LEVELS)))
    low = np.floor(place).astype(np.int64)
    return Cuts(low, np.minimum(low + 1, len(LEVELS) - 1), (place - low).astype(np.float32))
