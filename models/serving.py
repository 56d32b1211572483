"""Encoders as a `Forecaster`: batches in, quantiles, means and cumulative quantiles out.

In: fitted `Encoder`s. Out: a `Forecast` per batch.
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
from models.encoder import Encoder
from models.forecast import F32, LEVELS, Basis, Forecast, ForecastBatch, ForecastError, HorizonError, take
from models.quantiles import Cuts, cuts_of, interpolate
from models.windows import windows_of

ROWS = 512
"""Rows of a forward pass: their inputs at 28 steps take some 10 MB."""

COLD_SEASONS = 1
"""With less history than this a forecast rests on what other items do."""

MAX_HORIZON = 56


class EncoderForecaster:
    """Answers batches with the mean of some encoders."""

    def __init__(self, models: Sequence[Encoder], name: str, device: str = "cpu") -> None:
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
        quantiles = self._quantiles(batch)
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

    def _quantiles(self, batch: ForecastBatch) -> F32:
        parts = [self._part(batch, start) for start in range(0, len(batch), ROWS)]
        return np.concatenate(parts) if parts else np.empty((0, batch.horizon, len(LEVELS)), np.float32)

    @torch.inference_mode()
    def _part(self, batch: ForecastBatch, start: int) -> F32:
        part = take(batch, slice(start, start + ROWS))
        total: Tensor | None = None
        for model in self._models:
            inputs = model.inputs(windows_of(part, model.config.covariates).to(self._device))
            found = model(inputs) * inputs.scale[:, None, None]
            total = found if total is None else total + found
        assert total is not None  # noqa: S101 - there is a model
        out: F32 = (total / len(self._models)).float().cpu().numpy()
        return out


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
    samples = phase_samples(batch.demand, batch.is_open, batch.season)  # (B, S, 12), newest first, then NaN
    order = np.argsort(np.nan_to_num(samples, nan=np.inf), axis=2, kind="stable")
    rank = np.argsort(order, axis=2)  # how far up its phase each season was
    at = (np.arange(WINDOW) + 0.5) / WINDOW
    drawn = interpolate(quantiles, _among_levels(at))  # (B, H, 12): the step's demand at each rank
    step = np.arange(horizon)
    table = paths(-(-horizon // batch.season))
    cuts = cuts_of(LEVELS, table.shape[1])
    out = np.empty_like(quantiles)
    for first in range(0, rows, ROWS):
        part = slice(first, first + ROWS)
        ranks = rank[part][:, step[:, None] % batch.season, table[step // batch.season]]  # (R, H, paths)
        sums = np.take_along_axis(drawn[part], ranks, axis=2)
        for n in range(1, horizon):
            sums[:, n] += sums[:, n - 1]
        sums.sort(axis=2)
        out[part] = np.maximum.accumulate(interpolate(sums, cuts), axis=1)
    out[:, 0] = quantiles[:, 0]
    return np.maximum.accumulate(out, axis=1)


def _among_levels(at: np.ndarray) -> Cuts:
    place = np.interp(at, LEVELS, np.arange(len(LEVELS)))
    low = np.floor(place).astype(np.int64)
    return Cuts(low, np.minimum(low + 1, len(LEVELS) - 1), (place - low).astype(np.float32))
