"""The demo: the built-in shop lived through hour by hour, its events played through the same engine as any replay.

In: how many items and days, a seed; optionally a clock to measure with, and a forecaster.
Out: a `Frame` of what can be seen at any moment, and a replay's summary at the end.
Must not know: terminals. Rule: without a clock, frames and summary depend on the settings alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson

from models.forecast import LEVELS, Forecaster
from models.price import take_prices
from models.price_hurdle import PriceHurdle
from streams.calendar import DAY_MS, HOUR_MS
from streams.engine import Engine, EngineConfig
from streams.outputs import ALERT_TOPIC, TRIGGER_TOPIC, ForecastSet, Output, Outputs
from streams.price_forecasting import PriceRequest
from streams.price_rules import PriceAlertConfig
from streams.replay import Replay, ReplayConfig
from streams.shop import TIME_ZONE, Shop
from streams.shop_prices import CURRENCY

HISTORY_DAYS = 28
"""Days of demand shown: four weeks, so that each weekday is seen four times."""
AHEAD_DAYS = 14
"""Days of the forecast shown."""
SHOWN_ITEMS = 8
"""Best sellers watched; a view shows as many as it has room for."""
CHANNEL = "web"
"""Whose price is shown."""
REFRESH_MS = HOUR_MS
"""The demo's engine refreshes changed series every hour of event time, not every 15 minutes: nobody could see more."""

_LOW, _MID, _HIGH = (LEVELS.index(level) for level in (0.1, 0.5, 0.9))
_RECENT = 500  # alerts and triggers remembered, so that the end of one still knows its beginning
_CHUNKS_TIMED = 1000
_LAUNCH_DAYS = 365  # launches spread over a year, so that a shorter run is the beginning of a longer one
_RATE_S = 2.0  # span over which events a second are counted

Phase = Literal["warm-up", "live"]


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """What is played.

    Attributes
    ----------
    items
        Items of the shop.
    seed
        Of the shop.
    days
        Days played after the warm-up.
    warm_up_days
        Days played first, so that there is a history to forecast from.
    """

    items: int = 200
    seed: int = 1
    days: int = 120
    warm_up_days: int = 42


@dataclass(frozen=True, slots=True)
class ItemView:
    """One series: demand of the last four weeks, today so far, and the forecast ahead.

    Attributes
    ----------
    history
        Demand per closed day, oldest first; None before the item was on sale.
    observed
        Demand of today that the forecast has seen.
    low, median, high
        Quantiles .1, .5, .9 per day, step 1 is today.
    available
        Stock position in units, None where stock was never counted.
    price, p_change
        Price of the web shop today, and the probability that it is another in two weeks; None before the first.
    """

    sku: str
    title: str
    history: list[float | None]
    observed: float
    low: list[float]
    median: list[float]
    high: list[float]
    available: float | None
    price: float | None = None
    p_change: float | None = None


@dataclass(frozen=True, slots=True)
class AlertView:
    """The newest revision of an alert; ``what`` is the item's title, or how many price lines are hit and by what."""

    at: datetime
    status: str
    severity: str
    kind: str
    what: str
    observed: float
    expected: float | None
    currency: str
    money_at_risk: float | None
    resolution: str | None


@dataclass(frozen=True, slots=True)
class TriggerView:
    """The newest revision of a trigger."""

    at: datetime
    status: str
    urgency: str
    what: str
    quantity: float
    available: float
    order_by: str


@dataclass(frozen=True, slots=True)
class Pace:
    """What was measured: events a second over the last seconds, time per chunk in the engine."""

    events_per_s: float
    chunk_p50_ms: float
    chunk_p99_ms: float


@dataclass(frozen=True, slots=True)
class Frame:
    """All that can be seen at one moment; figures count from the start of the warm-up."""

    now: datetime
    watermark: datetime
    phase: Phase
    day: int
    days: int
    items: list[ItemView]
    alerts: list[AlertView]
    alerts_open: int
    triggers: list[TriggerView]
    triggers_open: int
    events: int
    series: int
    forecasts: int
    dead_letters: dict[str, int]
    scores: dict[str, Any]
    pace: Pace | None


class Demo:
    """Plays the shop and keeps what a view needs.

    Parameters
    ----------
    config
        What is played.
    clock
        Seconds that only grow, to measure with; None measures nothing.
    forecaster
        Who forecasts; the baseline where none is given.

    Examples
    --------
    >>> demo = Demo(DemoConfig(items=10, days=1, warm_up_days=1))
    >>> hours = sum(1 for _ in demo.hours())
    >>> hours > 10, demo.frame().day, demo.finish()["shards"]
    (True, 2, 1)
    """

    def __init__(
        self, config: DemoConfig, clock: Callable[[], float] | None = None, forecaster: Forecaster | None = None
    ) -> None:
        self.config = config
        self.total_days = config.warm_up_days + config.days
        self.shop = Shop(config.items, config.seed, days=max(_LAUNCH_DAYS, self.total_days))
        self.titles = dict(zip(self.shop.items.sku, self.shop.items.title, strict=True))
        self._clock = clock
        # The machine's clock does not matter here: the shop lives in its own time.
        end_ms = self.shop.calendar.start_ms(self.total_days) + 7 * DAY_MS
        settings = ReplayConfig(engine=_engine_config(config.items), clock_ms=end_ms, forecasts="last")
        self.player = Replay(settings, self._see, forecaster)
        self.day = 0  # the day being lived through, from 1
        self._now_ms = self.shop.calendar.start_ms(0)
        self._newest: dict[tuple[str, str], tuple[ForecastSet, int]] = {}
        self._price_forecaster = PriceHurdle()
        self._priced: dict[tuple[str, str], tuple[PriceRequest, int]] = {}
        self._changes: dict[tuple[str, str], tuple[int, float]] = {}  # local day, probability of those that were seen
        self._watched: list[int] = []
        self._alerts: dict[str, AlertView] = {}
        self._alert_open: dict[str, bool] = {}
        self._triggers: dict[str, TriggerView] = {}
        self._trigger_open: dict[str, bool] = {}
        self._chunk_s: deque[float] = deque(maxlen=_CHUNKS_TIMED)
        self._played: deque[tuple[float, int]] = deque()

    @property
    def engine(self) -> Engine:
        """The only engine."""
        return self.player.engines[0]

    @property
    def warm(self) -> bool:
        """True during the warm-up."""
        return self.day <= self.config.warm_up_days

    # -- playing

    def hours(self) -> Iterator[int]:
        """Live through all days; after each hour's events the shop's time is given, epoch ms."""
        for day in range(self.total_days):
            self.day = day + 1
            self.engine.refreshes = not self.warm  # of a past that is played first, the closes will do
            records = self.shop.day(day)
            if day < 7 or day % 7 == 0:
                self._watch()
            bounds = [0, *_hour_starts(self.shop.arrival_ms), len(records)]
            for start, stop in pairwise(bounds):
                if stop > start:
                    self._play(records[start:stop])
                    self._now_ms = int(self.shop.arrival_ms[stop - 1])
                    yield self._now_ms

    def finish(self) -> dict[str, Any]:
        """End the replay where it stands; its summary comes back."""
        self.player.finish()
        return self.player.summary()

    def _play(self, records: list[bytes]) -> None:
        began_s = self._clock() if self._clock else 0.0
        outputs = self.player.feed(records)
        self.player.publish_due()
        if self._clock:
            ended_s = self._clock()
            self._chunk_s.append(ended_s - began_s)
            self._played.append((ended_s, len(records)))
        self._note(outputs)

    # -- what is kept for the view

    def _note(self, outputs: list[Outputs]) -> None:
        for _, forecasts in (entry for out in outputs for entry in out.forecasts):
            for row, key in enumerate(forecasts.keys):
                self._newest[key] = (forecasts, row)
        for _, request in (entry for out in outputs for entry in out.prices):
            for row, (sku, location, channel) in enumerate(request.keys):
                if channel == CHANNEL:
                    self._priced[sku, location] = (request, row)

    def _watch(self) -> None:
        """Pick the best sellers of the last four weeks; once a week, so that the picture stays readable."""
        live = self.engine.series.live()
        if not len(live):
            return
        units = self.engine.panes.demand(live, self._zone.open)[:, -HISTORY_DAYS:].sum(axis=1)
        self._watched = live[np.argsort(-units, kind="stable")[:SHOWN_ITEMS]].tolist()

    @property
    def _zone(self) -> Any:
        return self.engine.buckets.zones[0]

    def _see(self, outputs: list[Output]) -> None:
        """Take what the replay writes."""
        for output in outputs:
            if output.topic == ALERT_TOPIC:
                self._see_alert(orjson.loads(output.value or b"{}"))
            elif output.topic == TRIGGER_TOPIC:
                self._see_trigger(orjson.loads(output.value or b"{}"))

    def _see_alert(self, value: dict[str, Any]) -> None:
        members = value.get("items")
        what = self._title(value["sku"]) if members is None else _lines_hit(len(members), value.get("cause", ""))
        expected, impact = value.get("expected") or {}, value["impact"]
        key, over = value["fingerprint"], value["status"] == "resolved"
        known = self._alerts.pop(key, None)  # the newest stands last
        if over and known is not None:  # keep the price that was wrong: the last revision names the right one
            self._alerts[key] = replace(known, status=value["status"], resolution=value["resolution"])
            _remember(self._alerts, self._alert_open, key, standing=False)
            return
        self._alerts[key] = AlertView(
            at=self._local(value["event_time"]),
            status=value["status"],
            severity=value["severity"],
            kind=value["kind"],
            what=what,
            observed=value["observed"]["price"],
            expected=expected.get("p50"),
            currency=value["observed"]["currency"],
            money_at_risk=impact["money_at_risk"],
            resolution=value["resolution"],
        )
        _remember(self._alerts, self._alert_open, key, standing=not over)

    def _see_trigger(self, value: dict[str, Any]) -> None:
        key, status = value["idempotency_key"], value["status"]
        if status != "updated":  # a revised quantity keeps its place, for a list that can be read
            self._triggers.pop(key, None)
        self._triggers[key] = TriggerView(
            at=self._local(value["issued_at"]),
            status=status,
            urgency=value["urgency"],
            what=self._title(value["sku"]),
            quantity=value["quantity"]["order_qty"],
            available=value["position"]["available"],
            order_by=value["order_by"],
        )
        _remember(self._triggers, self._trigger_open, key, standing=status in ("open", "updated"))

    def _title(self, sku: str) -> str:
        return self.titles.get(sku, sku)

    def _local(self, time_ms: int) -> datetime:
        local: datetime = self._zone.zone.local(time_ms)
        return local

    # -- frames

    def frame(self) -> Frame:
        """What can be seen now."""
        return Frame(
            now=self._local(self._now_ms),
            watermark=self._local(max(self.engine.intake.watermark_ms, 0)),
            phase="warm-up" if self.warm else "live",
            day=self.day,
            days=self.total_days,
            items=[view for slot in self._watched if (view := self._item(slot)) is not None],
            alerts=list(reversed(self._alerts.values())),
            alerts_open=sum(self._alert_open.values()),
            triggers=list(reversed(self._triggers.values())),
            triggers_open=sum(self._trigger_open.values()),
            events=self.player.counts["events"],
            series=len(self.engine.series),
            forecasts=self.player.counts["forecasts_made"],
            dead_letters=dict(sorted(self.player.tallies["dead_letters"].items())),
            scores=self.engine.scores.summary(),
            pace=self._pace(),
        )

    def _item(self, slot: int) -> ItemView | None:
        key = self.engine.series.key(slot)
        if key not in self._newest:
            return None
        forecasts, row = self._newest[key]
        zone, at = self._zone, np.array([slot])
        demand = self.engine.panes.demand(at, zone.open)[0, -HISTORY_DAYS:].tolist()
        age = zone.open - int(self.engine.buckets.series["first"][slot])
        blank = max(0, HISTORY_DAYS - age)
        quantiles = forecasts.forecast.quantiles[row, :AHEAD_DAYS]
        counted = int(self.engine.positions.table["counted_ms"][slot])
        available = int(self.engine.positions.available(at, self._now_ms)[0]) / 1000
        price, p_change = self._price(key)
        return ItemView(
            sku=key[0],
            title=self._title(key[0]),
            history=[None] * blank + demand[blank:],
            observed=float(forecasts.observed[row]),
            low=quantiles[:, _LOW].tolist(),
            median=quantiles[:, _MID].tolist(),
            high=quantiles[:, _HIGH].tolist(),
            available=available if counted > 0 else None,
            price=price,
            p_change=p_change,
        )

    def _price(self, key: tuple[str, str]) -> tuple[float | None, float | None]:
        """Today's price of an item, and the probability that it is another in two weeks: asked for what is shown."""
        if key not in self._priced:
            return None, None
        request, row = self._priced[key]
        day, p_change = self._changes.get(key, (-1, 0.0))
        if day != request.day:
            found = self._price_forecaster.forecast(take_prices(request.batch, slice(row, row + 1)))
            p_change = float(found.p_change[0, AHEAD_DAYS - 1])
            self._changes[key] = (request.day, p_change)
        return float(request.batch.price[row, 0]), p_change

    def _pace(self) -> Pace | None:
        if self._clock is None or not self._chunk_s:
            return None
        now_s = self._clock()
        while self._played and self._played[0][0] < now_s - _RATE_S:
            self._played.popleft()
        events = sum(count for _, count in self._played)
        span_s = now_s - self._played[0][0] if len(self._played) > 1 else _RATE_S
        p50, p99 = np.quantile(np.array(self._chunk_s), (0.5, 0.99)).tolist()
        return Pace(events / max(span_s, 1e-3), p50 * 1000, p99 * 1000)


def _engine_config(items: int) -> EngineConfig:
    return replace(
        EngineConfig(),
        max_series=max(64, items),
        time_zone=TIME_ZONE,
        base_currency=CURRENCY,
        refresh_ms=REFRESH_MS,
        prices=PriceAlertConfig(rates={CURRENCY: 1.0}),
        price_model="hurdle",
    )


def _hour_starts(arrival_ms: npt.NDArray[np.int64]) -> list[int]:
    """Rows at which a new hour of arrival begins, the first row left out."""
    starts: list[int] = (np.flatnonzero(np.diff(arrival_ms // HOUR_MS)) + 1).tolist()
    return starts


def _lines_hit(count: int, cause: str) -> str:
    return f"{count} price line{'s' * (count != 1)}, {cause.replace('_', ' ')}"


def _remember(views: dict[str, Any], is_open: dict[str, bool], key: str, *, standing: bool) -> None:
    """Note whether something is still open, and keep the newest views alone."""
    if standing:
        is_open[key] = True
    else:
        is_open.pop(key, None)
    while len(views) > _RECENT:
        del views[next(iter(views))]
