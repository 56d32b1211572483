"""What every answer of a forecaster must keep, checked cheaply before anyone relies on it.

In: a batch and the answer to it. Out: None, or what is wrong in words.
Must not know: which forecaster answered. Rule: an answer without fault is safe to publish and to decide from.
"""

from __future__ import annotations

import numpy as np

from models.forecast import LEVELS, Basis, Forecast, ForecastBatch

_SHAPES = {
    "quantiles": ("rows", "horizon", "levels"),
    "mean": ("rows", "horizon"),
    "cumulative": ("rows", "horizon", "levels"),
    "cumulative_mean": ("rows", "horizon"),
    "basis": ("rows",),
}


def fault_of(batch: ForecastBatch, forecast: Forecast) -> str | None:
    """Say what makes an answer unusable, None where it is sound.

    Values that do not fall along an axis, begin at zero or above and end below infinity are all finite, for a
    comparison with NaN is false: one pass over the quantiles is enough.

    Examples
    --------
    >>> from models.baseline import SeasonalWindow
    >>> from models.forecast import ForecastBatch
    >>> batch = ForecastBatch(
    ...     demand=np.ones((1, 84), np.float32), is_open=np.ones((1, 84), bool), future_open=np.ones((1, 7), bool),
    ...     observed=np.zeros(1, np.float32), elapsed=np.zeros(1, np.float32), day=np.zeros(1, int),
    ...     hour=np.zeros(1, int), season=7, group=np.array([-1], np.int32))
    >>> forecast = SeasonalWindow().forecast(batch)
    >>> fault_of(batch, forecast)
    >>> forecast.quantiles[0, 3, 0] = 99
    >>> fault_of(batch, forecast)
    'quantiles cross, are negative or are not finite'
    """
    return _wrong_form(batch, forecast) or _wrong_values(batch, forecast)


def _wrong_form(batch: ForecastBatch, forecast: Forecast) -> str | None:
    """Name the first array that is missing, or has another shape or type than asked for."""
    size = {"rows": len(batch), "horizon": batch.horizon, "levels": len(LEVELS)}
    for name, axes in _SHAPES.items():
        values = getattr(forecast, name, None)
        wanted = tuple(size[axis] for axis in axes)
        kind = np.uint8 if name == "basis" else np.float32
        if not isinstance(values, np.ndarray):
            return f"{name} is a {type(values).__name__}, not an array"
        if values.shape != wanted or values.dtype != kind:
            return f"{name} is {values.dtype} {values.shape}, not {np.dtype(kind)} {wanted}"
    return None


def _wrong_values(batch: ForecastBatch, forecast: Forecast) -> str | None:
    """Name the first promise of contracts that the values break."""
    quantiles, cumulative, totals = forecast.quantiles, forecast.cumulative, forecast.cumulative_mean
    sound = {
        "quantiles cross, are negative or are not finite": _ordered(quantiles),
        "quantiles of step 1 are below what was observed": bool((quantiles[:, :1, 0] >= batch.observed[:, None]).all()),
        "cumulative quantiles cross, are negative or are not finite": _ordered(cumulative),
        "cumulative quantiles fall along the horizon": bool((cumulative[:, 1:] >= cumulative[:, :-1]).all()),
        "the mean is negative or not finite": bool(((forecast.mean >= 0) & (forecast.mean < np.inf)).all()),
        "the cumulative mean falls, is negative or is not finite": _ordered(totals),
        "the basis is none of those there are": bool((forecast.basis < len(Basis)).all()),
    }
    return next((words for words, kept in sound.items() if not kept), None)


def _ordered(values: np.ndarray) -> bool:
    """Tell whether values along the last axis begin at zero or above, never fall and stay finite; NaN is refused."""
    if not values.size:
        return True
    width, flat = values.shape[-1], values.ravel()
    rising = flat[1:] >= flat[:-1]  # one long comparison: many short ones along the axis take three times as long
    rising[width - 1 :: width] = True  # from the end of one row to the start of the next it may fall
    return bool(rising.all() and (values[..., :1] >= 0).all() and (values[..., -1:] < np.inf).all())
