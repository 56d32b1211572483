"""Series that are due to requests, and answers to forecasts and decisions.

In: what is due, the answers of a forecaster. Out: `Request`s; `ForecastSet`s and `Trigger`s.
Must not know: threads, models, events. Rule: a decision rests on the forecast and the stock of one instant, however
late the answer comes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.forecast import take_forecast
from online.outcomes import Outcomes
from streams.buckets import Buckets
from streams.due import CLOSED, Due, Request, Slots, as_of, copy_rows
from streams.learning import Learning
from streams.outputs import ForecastSet
from streams.panes import UNIT
from streams.positions import Positions
from streams.refresh import Refresh
from streams.replenishment import Replenishment
from streams.series import SeriesMap
from streams.triggers import Trigger

LEAST_PER_DAY = np.float32(1e-3)
"""Units a day taken for series that sell nothing, so that their cover is long but finite."""


class Forecasting:
    """Makes requests for forecasts and takes over the answers; the parts are the engine's."""

    def __init__(
        self,
        series: SeriesMap,
        buckets: Buckets,
        refresh: Refresh,
        due: Due,
        positions: Positions,
        replenishment: Replenishment,
        outcomes: Outcomes,
        learning: Learning,
    ) -> None:
        self._series, self._buckets, self._refresh, self._due = series, buckets, refresh, due
        self._positions, self._replenishment = positions, replenishment
        self._outcomes, self._learning = outcomes, learning

    def gather(self, rows: int, refreshed_ms: int) -> Request | None:
        """The next request: of one zone and one reason, at most so many rows, the most urgent first.

        Parameters
        ----------
        rows
            Series of a request at most.
        refreshed_ms
            The newest instant at which changed series became due.
        """
        waiting = self._due.waiting(self._series.used)
        if not len(waiting):
            return None
        level = self._due.level(waiting)
        waiting = waiting[level == level.max()]
        zone = int(self._buckets.series["zone"][waiting[0]])
        waiting = self._buckets.in_zone(waiting, zone)
        if len(waiting) > rows:
            urgent = np.argpartition(self._cover(waiting, refreshed_ms), rows - 1)[:rows]
            waiting = np.sort(waiting[urgent])
        state = self._buckets.zones[zone]
        as_of_ms = max(state.zone.start_ms(state.open), refreshed_ms)
        request = self._refresh.request(waiting, zone, as_of_ms, at_close=int(level.max()) == CLOSED)
        request.positions = copy_rows(self._positions.tables, waiting)
        self._learning.prepare(request)
        self._due.begin(request)
        return request

    def absorb(self, request: Request, forecasts: ForecastSet) -> list[Trigger]:
        """Take over the answer to a request; triggers decided from it and the stock of its instant come back."""
        self._due.end(request)
        stay = np.array([slot not in request.left for slot in request.slots.tolist()], np.bool_)
        slots, rows = request.slots[stay], np.flatnonzero(stay)
        forecast = take_forecast(forecasts.forecast, rows)
        self._refresh.keep(slots, forecast)
        if request.at_close and self._buckets.zones[request.zone].open == request.opened:
            self._outcomes.publish(slots, request.opened, forecast.quantiles)
        self._learning.keep(request, stay)
        with as_of(self._positions.tables, request.slots, request.positions):
            return self._replenishment.decide(
                slots,
                forecast.cumulative,
                request.as_of_ms,
                lambda row: forecasts.forecast_id(int(rows[row])),
                np.array(request.steps, np.int64),
            )

    def _cover(self, slots: Slots, now_ms: int) -> npt.NDArray[np.float64]:
        """Days that stock lasts, as far as known; series with an open trigger before all others."""
        available = self._positions.available(slots, now_ms) / UNIT
        per_day = np.maximum(self._refresh.table["per_day"][slots] - np.float32(1), LEAST_PER_DAY)
        cover = np.where(self._positions.table["counted_ms"][slots] > 0, available / per_day, np.inf)
        return np.where(self._replenishment.is_open(slots), -np.inf, cover)
