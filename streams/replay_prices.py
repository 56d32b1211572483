"""Forecasts of prices in a replay: which of them are written, and answered at all.

In: requests as engines give them. Out: messages of ``forecast.price.v1``; counts for the summary.
Must not know: files, shards, other outputs. Rule: what is not written is not answered, for nothing follows from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from models.price import PriceModel
from models.price_net import price_forecaster
from streams.calendar import week_of
from streams.outputs import Output
from streams.price_forecasting import PriceRequest, answered

Written = Literal["all", "daily", "weekly", "last"]


class ReplayedPrices:
    """Answers the requests of a replay that are to be written.

    Parameters
    ----------
    model
        Who forecasts.
    written
        Which are written: each day's (``all`` and ``daily``), those of Mondays and the last, the last alone.
    write
        Called with messages in their final order.
    """

    def __init__(self, model: PriceModel, written: Written, write: Callable[[list[Output]], None]) -> None:
        self._forecaster = price_forecaster(model)
        self._written, self._write = written, write
        self._last: dict[tuple[int, int], list[PriceRequest]] = {}  # by shard and zone
        self._due = self._published = 0

    def note(self, request: PriceRequest) -> None:
        """Take a request; it is answered now, at the end, or never."""
        self._due += len(request)
        kept = self._last.setdefault((request.shard, request.zone), [])
        if kept and kept[0].day != request.day:
            kept.clear()
        kept.append(request)
        if self._wanted(request.day):
            self._publish(request)

    def finish(self) -> None:
        """Write the last forecasts, unless they are already."""
        for requests in self._last.values():
            for request in requests:
                if not self._wanted(request.day):
                    self._publish(request)

    def summary(self) -> dict[str, Any]:
        """Forecasts that were due, those written, and who answered."""
        model = None if self._forecaster is None else self._forecaster.name
        return {"due": self._due, "written": self._published, "model": model}

    def _wanted(self, day: int) -> bool:
        if self._written == "weekly":
            return week_of(day) != week_of(day - 1)
        return self._written != "last"

    def _publish(self, request: PriceRequest) -> None:
        if self._forecaster is not None:
            self._published += len(request)
            self._write(answered(request, self._forecaster).encode())
