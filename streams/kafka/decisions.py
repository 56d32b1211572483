"""Forecasts, alerts and triggers as their readers get them: the values of contracts.md, section 2, as typed structs.

In: JSON of an output topic. Out: one frozen struct per decision, of plain Python values.
Must not know: Kafka, how decisions are made. Rule: what a newer engine adds is ignored, and names of states and kinds
are plain strings: a word that this version does not know makes no record unreadable.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from msgspec import Struct


class DemandForecast(Struct, frozen=True, kw_only=True):
    """Demand of one item at one location over the next buckets.

    H steps, Q levels. Step 1 is the bucket that contains `as_of`, as a whole.

    Attributes
    ----------
    as_of, revision
        Instant the forecast stands for, epoch ms. Of one item the greatest pair counts.
    steps
        Starts of the buckets, epoch ms, H of them.
    observed_in_open
        Demand seen in step 1 so far.
    levels
        Q quantile levels.
    quantiles
        Demand of each step at each level, H rows of Q.
    cumulative
        Demand still to come up to the end of each step, H rows of Q.
    basis
        ``model``, ``baseline`` or ``cold_start``.

    Examples
    --------
    >>> forecast = DemandForecast(
    ...     forecast_id="fc_1", revision=1, sku="TEA", location="default", as_of=0, freq="D", time_zone="UTC",
    ...     steps=[0, 86_400_000], observed_in_open=1, levels=[0.5, 0.9], mean=[3, 4], quantiles=[[2, 5], [3, 6]],
    ...     cumulative=[[1, 4], [4, 9]], model="m", basis="model",
    ... )
    >>> forecast.demand(step=2, level=0.9), forecast.still_to_come(days=2, level=0.5)
    (6, 4)
    """

    forecast_id: str
    revision: int
    sku: str
    location: str
    as_of: int
    freq: str
    time_zone: str
    steps: list[int]
    observed_in_open: float
    levels: list[float]
    mean: list[float]
    quantiles: list[list[float]]
    cumulative: list[list[float]]
    model: str
    basis: str
    reason: str | None = None
    explanation: Any = None

    def demand(self, *, step: int, level: float) -> float:
        """Demand of the whole of a step, counted from 1, at one of `levels`.

        Raises
        ------
        ValueError
            If there is no such step or level.
        """
        return self.quantiles[self._row(step)][self._column(level)]

    def still_to_come(self, *, days: int, level: float) -> float:
        """Demand from now to the end of that many steps (days, or hours where `freq` is ``h``), at one of `levels`.

        Raises
        ------
        ValueError
            If there is no such step or level.
        """
        return self.cumulative[self._row(days)][self._column(level)]

    def _row(self, step: int) -> int:
        if not 1 <= step <= len(self.steps):
            raise ValueError(f"step {step} is not forecast; steps are 1 to {len(self.steps)}")
        return step - 1

    def _column(self, level: float) -> int:
        if level not in self.levels:
            raise ValueError(f"level {level} is not forecast; levels are {', '.join(map(str, self.levels))}")
        return self.levels.index(level)


class PriceTrend(Struct, frozen=True, kw_only=True):
    """Where a price will lie beside today's: ``up``, ``down`` or ``flat``, and the probability of it."""

    direction: str
    probability: float


class PriceForecast(Struct, frozen=True, kw_only=True):
    """The price of one item at one location and channel over the days after today.

    Attributes
    ----------
    price
        Today's, in `currency`.
    as_of, revision
        First instant of today, epoch ms. Of one price line the greatest pair counts.
    steps
        Starts of the days, epoch ms, H of them.
    quantiles
        Price of each day at each of `levels`, H rows of Q.
    p_change
        Probability that the price of each day differs from today's: 0 or 1 where it is announced.
    trend
        Of the last day.

    Examples
    --------
    >>> forecast = PriceForecast(
    ...     forecast_id="fp_1", revision=1, sku="TEA", location="default", channel="web", currency="EUR", price=9.5,
    ...     as_of=0, freq="D", time_zone="UTC", steps=[86_400_000], levels=[0.5], mean=[9.4], quantiles=[[9.5]],
    ...     p_change=[0.1], trend=PriceTrend(direction="flat", probability=0.9), model="m", basis="model",
    ... )
    >>> forecast.p_change[0]
    0.1
    """

    forecast_id: str
    revision: int
    sku: str
    location: str
    channel: str
    currency: str
    price: float
    as_of: int
    freq: str
    time_zone: str
    steps: list[int]
    levels: list[float]
    mean: list[float]
    quantiles: list[list[float]]
    p_change: list[float]
    trend: PriceTrend
    model: str
    basis: str
    reason: str | None = None


class PricedItem(Struct, frozen=True, kw_only=True):
    """One price line of a grouped alert: its newest price, and the one expected."""

    sku: str
    location: str
    channel: str
    price: float | None = None
    p50: float | None = None


class ObservedPrice(Struct, frozen=True, kw_only=True):
    """The price that caused a revision of an alert."""

    price: float
    currency: str
    event_time: int
    event_id: str


class ExpectedPrice(Struct, frozen=True, kw_only=True):
    """What the price was expected to be."""

    p01: float
    p50: float
    p99: float
    method: str
    observations: int


class Impact(Struct, frozen=True, kw_only=True):
    """What is at stake while the price stands; None: not known."""

    currency: str
    units_at_risk: float | None = None
    money_at_risk: float | None = None


class PriceAlert(Struct, frozen=True, kw_only=True):
    """One revision of an alert on a price, or on many.

    Attributes
    ----------
    fingerprint, revision
        Which alert; of one alert the greatest revision counts.
    status
        ``firing``, ``updated``, ``acknowledged``, ``snoozed`` or ``resolved``.
    kind
        What is wrong, such as ``decimal_shift``; ``feed_fault`` for many lines at once.
    sku, location, channel
        The price line; None for a grouped alert, which has `items`.
    suggested_action
        ``block``, ``review`` or ``revert``.
    resolution
        Why it is over: ``corrected``, ``accepted``, ``announced`` or ``expired``.
    cause
        Most frequent kind among the lines of a grouped alert.
    superseded_by
        Fingerprint of the grouped alert that took over.
    """

    fingerprint: str
    status: str
    revision: int
    event_time: int
    kind: str
    severity: str
    starts_at: int
    suggested_action: str
    sku: str | None = None
    location: str | None = None
    channel: str | None = None
    items: list[PricedItem] = []
    ends_at: int | None = None
    observed: ObservedPrice | None = None
    expected: ExpectedPrice | None = None
    p_value: float | None = None
    impact: Impact | None = None
    evidence: list[float] = []
    resolution: str | None = None
    count: int = 1
    cause: str | None = None
    superseded_by: str | None = None


class OrderQuantity(Struct, frozen=True, kw_only=True):
    """How much to order, and how it was rounded."""

    order_qty: float
    unrounded_qty: float
    pack_size: float
    moq: float
    rounding: str


class LeadTimeDays(Struct, frozen=True, kw_only=True):
    """Days from order to shelf."""

    mean: float
    p90: float


class OrderPolicy(Struct, frozen=True, kw_only=True):
    """The rule that was applied."""

    type: str
    reorder_point: float
    order_up_to: float
    service_level: float
    review_period_days: float
    lead_time_days: LeadTimeDays


class StockPosition(Struct, frozen=True, kw_only=True):
    """The stock that the decision rests on.

    Attributes
    ----------
    available
        On hand and on order, less what is reserved and what was ordered since the count.
    as_of, counted_at
        Instants of the decision's forecast and of the stock count, epoch ms.
    """

    on_hand: float
    on_order: float
    reserved: float
    available: float
    as_of: int
    ordered_since: float = 0.0
    counted_at: int | None = None


class LeadTimeDemand(Struct, frozen=True, kw_only=True):
    """Demand over the lead time."""

    p10: float
    p50: float
    p90: float


class TriggerForecast(Struct, frozen=True, kw_only=True):
    """The forecast that the decision rests on."""

    forecast_id: str
    lead_time_demand: LeadTimeDemand
    projected_stockout_at: int | None = None


class Cost(Struct, frozen=True, kw_only=True):
    """An amount of money."""

    amount: float
    currency: str


class ReplenishmentTrigger(Struct, frozen=True, kw_only=True):
    """One revision of a decision to order, transfer, or sell off.

    Attributes
    ----------
    idempotency_key
        The same for all revisions of one trigger: an order placed under it once is not placed again.
    trigger_id, revision, supersedes
        This revision, and the one before it.
    status
        ``open``, ``updated``, ``cancelled``, ``acknowledged`` or ``expired``.
    kind
        ``reorder``, ``transfer`` (from `source_location`) or ``overstock``.
    mode
        ``recommend`` or ``auto``.
    need_by, order_by
        Days of the location.
    urgency
        ``normal``, ``high`` or ``critical``.
    issued_at, expires_at
        Epoch ms.
    """

    idempotency_key: str
    trigger_id: str
    revision: int
    status: str
    kind: str
    mode: str
    sku: str
    location: str
    quantity: OrderQuantity
    policy: OrderPolicy
    position: StockPosition
    forecast: TriggerForecast
    need_by: dt.date
    order_by: dt.date
    urgency: str
    reasons: list[str]
    issued_at: int
    expires_at: int
    supersedes: str | None = None
    source_location: str | None = None
    estimated_cost: Cost | None = None
