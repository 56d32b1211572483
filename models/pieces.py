"""A batch in as many calls of the forecaster as memory and the rows per call ask for.

In: a batch of any size. Out: one answer for all its rows, checked.
Must not know: threads, clocks, what becomes of a batch that failed. Rule: row i of the answer answers row i.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np

from models.forecast import Forecast, ForecastBatch, Forecaster, ForecastError, take
from models.promises import fault_of

GROW_AFTER = 64
"""Calls without running out of memory before the rows per call are doubled again: growing too early costs one call."""


class UnwantedError(Exception):
    """Nobody waits for the answer any more."""


class Pieces:
    """Calls forecasters with at most so many rows; with half as many each time memory runs out.

    Parameters
    ----------
    rows
        Rows per call at most.

    Examples
    --------
    >>> from models.baseline import SeasonalWindow
    >>> from models.forecast import ForecastBatch
    >>> forecast = Pieces(rows=2).ask(SeasonalWindow(), ForecastBatch(
    ...     demand=np.ones((5, 84), np.float32), is_open=np.ones((5, 84), bool), future_open=np.ones((5, 7), bool),
    ...     observed=np.zeros(5, np.float32), elapsed=np.zeros(5, np.float32), day=np.zeros(5, int),
    ...     hour=np.zeros(5, int), season=7, group=np.full(5, -1, np.int32)))
    >>> len(forecast)
    5
    """

    def __init__(self, rows: int) -> None:
        self.rows_per_call = rows
        self.out_of_memory = 0
        self._rows, self._calm = rows, 0

    def ask(self, forecaster: Forecaster, batch: ForecastBatch, wanted: Callable[[], bool] = lambda: True) -> Forecast:
        """Forecast every row of a batch.

        Parameters
        ----------
        forecaster
            The model.
        batch
            The rows.
        wanted
            Asked before each call whether anybody still waits.

        Raises
        ------
        ForecastError
            If an answer breaks a promise of `models/promises.py`; whatever else the forecaster raises passes through.
        UnwantedError
            If nobody waits any more.
        """
        parts: list[Forecast] = []
        start = 0
        while start < len(batch) or not parts:
            if not wanted():
                raise UnwantedError
            rows = self.rows_per_call
            part = batch if start == 0 and len(batch) <= rows else take(batch, slice(start, start + rows))
            if (forecast := self._call(forecaster, part)) is None:
                continue
            parts.append(forecast)
            start += len(part)
        return _join(parts)

    def _call(self, forecaster: Forecaster, part: ForecastBatch) -> Forecast | None:
        """Call the model once; None where memory ran out and fewer rows may fit."""
        try:
            forecast = forecaster.forecast(part)
        except Exception as error:
            if not _out_of_memory(error) or len(part) <= 1:
                raise
        else:
            if (fault := fault_of(part, forecast)) is not None:
                raise ForecastError(fault)
            self._calm += 1
            if self.rows_per_call < self._rows and self._calm >= GROW_AFTER:
                self.rows_per_call, self._calm = min(self._rows, 2 * self.rows_per_call), 0
            return forecast
        # Not before here does Python let go of the error, and with it of what the failed call held.
        self.rows_per_call, self._calm = len(part) // 2, 0
        self.out_of_memory += 1
        return None


def _out_of_memory(error: Exception) -> bool:
    """Tell by name: the libraries whose errors these are need not be installed."""
    return any(kind.__name__ in ("MemoryError", "OutOfMemoryError") for kind in type(error).__mro__)


def _join(parts: list[Forecast]) -> Forecast:
    """Make one answer of the answers to consecutive rows."""
    if len(parts) == 1:
        return parts[0]
    columns = {one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Forecast)}
    return Forecast(**columns)
