"""What was learned, applied to an answer of the model: factors first, then the levels that are read.

In: a `Correction`, as it stood when a forecast was asked for; the model's answer. Out: the answer that is published.
Must not know: how it was learned. Rule: it keeps every promise of a forecast (`models.promises`), and touches nothing
that others see: any thread may apply it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from models.forecast import F32, Basis, Bools, Forecast
from online.calibration import Reading, between, tiers_of
from online.pending import MOST
from online.scores import PICK

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Correction:
    """Of the rows of one request.

    Attributes
    ----------
    model
        Name of the forecaster whose answers it corrects.
    horizons, sums
        Sampled horizons of single buckets and of sums over buckets.
    groups, series
        Logarithms of factors of the rows' groups and of the rows, (B, horizons) each, whether they act or not.
    acts
        Per horizon 0 for no factor, 1 for that of the group, 2 for both.
    readings, sum_readings
        Per horizon where the model's quantiles are read.
    reads, sum_reads
        Per horizon whether they are read there.
    """

    model: str
    horizons: tuple[int, ...]
    sums: tuple[int, ...]
    groups: F32
    series: F32
    acts: Sequence[int]
    readings: Sequence[Reading]
    sum_readings: Sequence[Reading]
    reads: Sequence[bool]
    sum_reads: Sequence[bool]

    def applied(self, forecast: Forecast, observed: F32) -> Forecast:
        """The answer as it is published; ``observed`` is the demand already seen in step 1, (B,).

        Rows without a history of their own keep their answer, and those beyond all measure: what was learned was not
        learned of such.
        """
        most = np.maximum(forecast.quantiles[:, :, -1].max(axis=1), forecast.cumulative[:, -1, -1])
        alone = (forecast.basis == Basis.COLD_START) | (most > MOST)
        out = self._scaled(forecast, alone) if any(self.acts) else forecast
        tiers = tiers_of(expected_of(forecast)) if any(self.reads) or any(self.sum_reads) else None
        if tiers is not None and any(self.reads):
            out = replace(out, quantiles=_read(out.quantiles, tiers, self.horizons, self.readings, self.reads, alone))
        if tiers is not None and any(self.sum_reads):
            sums = _read(out.cumulative, tiers, self.sums, self.sum_readings, self.sum_reads, alone)
            out = replace(out, cumulative=np.maximum.accumulate(sums, axis=1))
        if out is forecast:
            return forecast
        out = replace(out, quantiles=_as_whole(out.quantiles, forecast.quantiles),
                      cumulative=_as_whole(out.cumulative, forecast.cumulative))  # fmt: skip
        np.maximum(out.quantiles[:, 0], observed[:, None], out=out.quantiles[:, 0])
        return out

    def _scaled(self, forecast: Forecast, alone: Bools) -> Forecast:
        """Factors on everything; sums grow as their means do."""
        steps = band_of(self.horizons, forecast.mean.shape[1])
        factor = np.exp(self.logs(self.acts)[:, steps])  # (B, H)
        factor[alone] = 1
        grown = _grown(forecast.mean, factor)
        mean, quantiles = forecast.mean * factor, forecast.quantiles * factor[:, :, None]
        cumulative = np.maximum.accumulate(forecast.cumulative * grown[:, :, None], axis=1)
        total = np.maximum.accumulate(forecast.cumulative_mean * grown, axis=1)
        return replace(forecast, quantiles=quantiles, mean=mean, cumulative=cumulative, cumulative_mean=total)

    def logs(self, acts: Sequence[int]) -> F32:
        """Logarithms of the factors where these act, float32 (B, horizons)."""
        which = np.array(acts)
        logs: F32 = np.where(which >= 1, self.groups, 0) + np.where(which >= 2, self.series, 0)
        return logs.astype(np.float32)

    def sampled(self, forecast: Forecast, rows: I64, tiers: I64) -> F32:
        """Quantiles of the sampled horizons with all levels read, (rows, horizons, levels), at levels `PICK`.

        They are what outcomes are held against, whether they are published or not; zero beyond the forecast.
        """
        return self._sampled(forecast.quantiles, rows, tiers, self.horizons, self.readings,
                             np.exp(self.logs(self.acts)[rows]))  # fmt: skip

    def sampled_sums(self, forecast: Forecast, rows: I64, tiers: I64) -> F32:
        """The same of sums, (rows, sums, levels)."""
        return self._sampled(forecast.cumulative, rows, tiers, self.sums, self.sum_readings,
                             self._growth(forecast, rows))  # fmt: skip

    def plain_sums(self, forecast: Forecast, rows: I64) -> F32:
        """Sums with factors alone, (rows, sums, levels); zero where a sum lies beyond the forecast."""
        return self._sampled(forecast.cumulative, rows, None, self.sums, self.sum_readings,
                             self._growth(forecast, rows))  # fmt: skip

    def _growth(self, forecast: Forecast, rows: I64) -> F32:
        """By how much factors change the sums of rows, (rows, sums)."""
        horizon = forecast.mean.shape[1]
        factor = np.exp(self.logs(self.acts)[rows][:, band_of(self.horizons, horizon)])
        return _grown(forecast.mean[rows], factor)[:, [min(h, horizon) - 1 for h in self.sums]]

    def _sampled(
        self, quantiles: F32, rows: I64, tiers: I64 | None, horizons: tuple[int, ...], readings: Sequence[Reading],
        factor: F32,
    ) -> F32:  # fmt: skip
        out = np.zeros((len(rows), len(horizons), len(PICK)), np.float32)
        for index, h in enumerate(horizons):
            if h <= quantiles.shape[1]:
                said = np.minimum(quantiles[rows, h - 1], np.float32(MOST))
                read = (said if tiers is None else readings[index].of(said, tiers))[:, PICK] * factor[:, index, None]
                out[:, index] = np.where(_whole(said)[:, None], np.rint(read), read)
        return out


def band_of(horizons: tuple[int, ...], steps: int) -> I64:
    """Index of the sampled horizon that stands for each step: the one to which its ratio is the smallest, (H,).

    Examples
    --------
    >>> band_of((1, 3, 7), 9).tolist()
    [0, 1, 1, 1, 2, 2, 2, 2, 2]
    """
    apart = np.abs(np.log(np.arange(1, steps + 1))[:, None] - np.log(horizons)[None])
    place: I64 = apart.argmin(axis=1)
    return place


def expected_of(forecast: Forecast) -> F32:
    """Expected demand per bucket of each row, over all steps, float32 (B,)."""
    expected: F32 = forecast.mean.mean(axis=1)
    return expected


def _read(
    quantiles: F32, tiers: I64, horizons: tuple[int, ...], readings: Sequence[Reading], reads: Sequence[bool],
    alone: Bools,
) -> F32:  # fmt: skip
    """Quantiles read at other levels, tier by tier, in bands of steps that do so."""
    rows, steps, levels = quantiles.shape
    band, flat = band_of(horizons, steps), quantiles.reshape(rows, steps * levels)
    out, does = flat.copy(), np.array(reads)[band]
    own = np.flatnonzero(np.repeat(does, levels))
    begin = (np.arange(steps) * levels)[:, None]
    for tier in np.unique(tiers[~alone]).tolist():
        some = np.flatnonzero((tiers == tier) & ~alone)
        lower, share = (np.stack([getattr(one, name)[tier] for one in readings])[band] for name in ("lower", "share"))
        part, at = flat[some], (lower + begin).ravel()[own]
        read = between(part.take(at, axis=1), part.take(at + 1, axis=1), share.ravel()[own])
        out[some[:, None], own] = read
    return out.reshape(quantiles.shape)


def _grown(mean: F32, factor: F32) -> F32:
    """By how much sums over the first steps grow where each step's mean does by a factor, (B, H)."""
    before = np.cumsum(mean, axis=1, dtype=np.float64)
    after = np.cumsum(mean * factor, axis=1, dtype=np.float64)
    return np.where(before > 0, after / np.where(before > 0, before, 1), 1).astype(np.float32)


def _whole(quantiles: F32) -> Bools:
    whole: Bools = (quantiles == np.rint(quantiles)).all(axis=tuple(range(1, quantiles.ndim)))
    return whole


def _as_whole(quantiles: F32, said: F32) -> F32:
    """Whole numbers where the model's were; a copy where they are its own still."""
    out = quantiles.copy() if quantiles is said else quantiles
    whole = _whole(said)
    out[whole] = np.rint(out[whole])
    return out
