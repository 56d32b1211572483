"""Refits between cutoffs: each cutoff of a backtest answered by nets that were fitted up to it.

In: forecasters by the bucket that they answer first. Out: a `Forecaster`.
Must not know: how nets are fitted, what is scored. Rule: no batch is answered by a net that has seen a later day.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from models.forecast import Forecast, ForecastBatch, Forecaster, ForecastError


class Refitted:
    """Answers the windows of each cutoff with the forecaster of that cutoff.

    Parameters
    ----------
    forecasters
        By the number of the bucket after the cutoff: days, or hours, since 1970-01-01.
    name
        Of all together.

    Examples
    --------
    >>> from models.baseline import SeasonalWindow
    >>> from tests.batches import batch_of
    >>> batch = batch_of([[1.0] * 14])
    >>> first = int(batch.day[0])
    >>> Refitted({first: SeasonalWindow()}, "refitted-1").forecast(batch).mean[0, 0].item()
    1.0
    >>> Refitted({first + 7: SeasonalWindow()}, "refitted-1").forecast(batch)
    Traceback (most recent call last):
    models.forecast.ForecastError: nothing was fitted for the bucket ...
    """

    def __init__(self, forecasters: Mapping[int, Forecaster], name: str) -> None:
        self.name = name
        self.channels = next(iter(forecasters.values())).channels
        self._forecasters = dict(forecasters)

    def forecast(self, batch: ForecastBatch) -> Forecast:
        """Forecast windows that all end at the same bucket.

        Raises
        ------
        ForecastError
            If nothing was fitted up to it, or they end at several.
        """
        buckets = np.unique(batch.day if batch.season == 7 else batch.day * 24 + batch.hour).tolist()
        if not buckets:
            return next(iter(self._forecasters.values())).forecast(batch)
        if len(buckets) > 1 or buckets[0] not in self._forecasters:
            raise ForecastError(f"nothing was fitted for the bucket {', '.join(map(str, buckets))}")
        return self._forecasters[buckets[0]].forecast(batch)
