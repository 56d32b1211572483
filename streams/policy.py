"""What to order, for many series at once: settings, stock positions and forecasts to reorder points and quantities.

In: `Positions`, demand ahead, settings. Out: `Policy` and `Orders`, arrays with one row per series.
Must not know: triggers and their lives, keys, clocks. Rule: reads positions, changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.forecast import LEVELS
from streams.calendar import DAY_MS
from streams.events import pack_currency
from streams.positions import HAS_LEAD, HAS_MAX, THOUSAND, Bools, Ints, Positions
from streams.reorder import (
    F64,
    UNLIMITED,
    DemandAhead,
    critical_level,
    lot_size,
    reorder_point,
    round_order,
    stockout_step,
)

LEAST_REORDER = 0.5
"""Reorder points below half a unit order nothing: at the service level, nobody is expected to come."""


class ReplenishmentError(ValueError):
    """A setting of replenishment makes no sense; the message names it."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What ordering, holding and missing sales cost; known, they set the lot and the service level.

    Attributes
    ----------
    order_cost
        Cost of one order, in `currency`. Items with costs in another currency are planned without these.
    currency
        ISO code.
    holding_per_day
        Cost of keeping a unit for a day, as a share of its cost. 0.2 a year is a common figure in retail.
    shortage
        Cost of a unit not sold (the lost margin), as a share of its cost; 0 leaves the service level alone.

    Examples
    --------
    >>> Costs(order_cost=8.0, currency="GBP", shortage=0.5).shortage
    0.5
    """

    order_cost: float
    currency: str
    holding_per_day: float = 0.2 / 365
    shortage: float = 0.0

    def __post_init__(self) -> None:
        if self.order_cost < 0 or self.holding_per_day <= 0 or self.shortage < 0 or len(self.currency) != 3:
            raise ReplenishmentError(f"costs must be >= 0, holding_per_day > 0 and currency an ISO code: {self}")


@dataclass(frozen=True, slots=True)
class ReplenishmentConfig:
    """Settings of the policy and of a trigger's life.

    Attributes
    ----------
    mode
        ``recommend`` or ``auto``: printed in the message, for the receiver to obey.
    service_level
        Level of series whose placement states none and whose costs do not give one; 0.95 is the usual default.
    review_days
        Time between two decisions on a series that matter: one day, since stock is counted daily.
    lead_mean_days, lead_p90_days
        Lead time where the catalog states none; the reasons say so.
    stale_after_ms
        Age from which a count is no ground for a decision: three days outlast a weekend.
    expires_after_ms
        Life of an unanswered trigger; on fresh stock it is renewed under the same key.
    change_share
        A new quantity is a revision if it differs by more than this share, and by at least a pack.
    cancel_share
        A trigger is cancelled when available stock is above the reorder point by more than this share of it.
    bucket_ms
        Width of a forecast's step.
    costs
        Costs, where the shop knows them.

    Examples
    --------
    >>> ReplenishmentConfig().service_level
    0.95
    """

    mode: str = "recommend"
    service_level: float = 0.95
    review_days: float = 1.0
    lead_mean_days: float = 7.0
    lead_p90_days: float = 10.0
    stale_after_ms: int = 3 * DAY_MS
    expires_after_ms: int = 7 * DAY_MS
    change_share: float = 0.2
    cancel_share: float = 0.1
    bucket_ms: int = DAY_MS
    costs: Costs | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("recommend", "auto"):
            raise ReplenishmentError(f"mode must be recommend or auto, not {self.mode!r}")
        if not LEVELS[0] <= self.service_level <= LEVELS[-1]:
            raise ReplenishmentError(f"service_level must be {LEVELS[0]} to {LEVELS[-1]}, not {self.service_level}")
        if not 0 <= self.lead_mean_days <= self.lead_p90_days:
            raise ReplenishmentError("lead_mean_days must be >= 0 and at most lead_p90_days")
        if min(self.review_days, self.stale_after_ms, self.expires_after_ms, self.bucket_ms) <= 0:
            raise ReplenishmentError("review_days, stale_after_ms, expires_after_ms and bucket_ms must be above 0")
        if min(self.change_share, self.cancel_share) < 0:
            raise ReplenishmentError("change_share and cancel_share must be >= 0")


@dataclass(frozen=True, slots=True)
class Policy:
    """What the (s,S) rule says of some series, one row each; quantities in thousandths, the rest in units and days."""

    as_of_ms: int
    slots: Ints
    ahead: DemandAhead
    available: Ints
    lead_mean: F64
    lead_p90: F64
    level: F64
    point: F64

    def take(self, rows: Ints) -> Policy:
        """The same for some rows, in the order asked for."""
        return Policy(
            self.as_of_ms,
            self.slots[rows],
            self.ahead.take(rows),
            self.available[rows],
            self.lead_mean[rows],
            self.lead_p90[rows],
            self.level[rows],
            self.point[rows],
        )

    def needed(self, above: float = 0.0) -> Bools:
        """Where available stock is at most the reorder point, or that share above it, and somebody is expected."""
        low = self.available <= np.rint(self.point * (1 + above) * THOUSAND)  # in thousandths, free of float noise
        return np.asarray(low & ((self.point >= LEAST_REORDER) | (self.available < 0)))


@dataclass(frozen=True, slots=True)
class Orders:
    """What would be ordered, one row per row of a `Policy`."""

    lot: F64
    pack: Ints
    moq: Ints
    quantity: Ints
    down: Bools

    def take(self, rows: Ints) -> Orders:
        """The same for some rows, in the order asked for."""
        return Orders(self.lot[rows], self.pack[rows], self.moq[rows], self.quantity[rows], self.down[rows])


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a trigger says of the forecast, one row per row of a `Policy`."""

    lead_demand: F64  # (B, 3): 0.1, 0.5 and 0.9 quantile over lead time and review period
    stockout: Ints  # first step (0-based) whose median uses up the stock, or -1
    days: F64  # that the forecast covers


class Planner:
    """The (s,S) policy of every series: s covers lead time and review period, S lies a lot above it.

    Examples
    --------
    >>> positions, row = Positions(9), np.array([3])
    >>> _ = positions.count(3, on_hand=5, time_ms=1000)
    >>> steps = 2 * np.arange(1, 29, dtype=np.float32)  # two units a day, for certain
    >>> cumulative = np.repeat(steps[None, :, None], 13, axis=2)
    >>> planner = Planner(ReplenishmentConfig(), positions)
    >>> policy = planner.policy(row, DemandAhead(cumulative, np.zeros(1), 1.0, np.arange(1)), 2000)
    >>> policy.point.tolist(), policy.needed().tolist(), planner.orders(policy).quantity.tolist()
    ([19.0], [True], [16000])
    """

    def __init__(self, config: ReplenishmentConfig, positions: Positions) -> None:
        self.config = config
        self.positions = positions

    def policy(self, slots: Ints, ahead: DemandAhead, as_of_ms: int) -> Policy:
        """Where each series stands, and its reorder point."""
        table = self.positions.table
        stated = (table["flags"][slots] & HAS_LEAD) > 0
        lead_mean = np.where(stated, table["lead_mean"][slots].astype(np.float64), self.config.lead_mean_days)
        lead_p90 = np.where(stated, table["lead_p90"][slots].astype(np.float64), self.config.lead_p90_days)
        level = self._levels(slots, ahead)
        point = reorder_point(ahead, lead_mean, lead_p90, self.config.review_days, level)
        available = self.positions.available(slots, as_of_ms)
        return Policy(as_of_ms, slots, ahead, available, lead_mean, lead_p90, level, point)

    def _levels(self, slots: Ints, ahead: DemandAhead) -> F64:
        stated = self.positions.table["service_level"][slots].astype(np.float64)
        derived: F64 | float = self.config.service_level
        if self.config.costs is not None and self.config.costs.shortage > 0:
            rate, unit_cost = ahead.rate(), self._unit_cost(slots)
            short = self.config.costs.shortage * unit_cost
            holding = self.config.costs.holding_per_day * unit_cost
            level = critical_level(rate, self._lot(slots, rate), holding, short)
            derived = np.where((short > 0) & (rate > 0), level, self.config.service_level)
        return np.clip(np.where(stated > 0, stated, derived), LEVELS[0], LEVELS[-1])

    def _unit_cost(self, slots: Ints) -> F64:
        """Cost of a unit where it is known in the currency of the costs, else 0."""
        table, costs = self.positions.table, self.config.costs
        if costs is None:
            return np.zeros(len(slots))
        same = table["cost_currency"][slots] == pack_currency(costs.currency)
        return np.where(same, table["unit_cost"][slots] / 10_000, 0.0)

    def _lot(self, slots: Ints, rate: F64) -> F64:
        costs = self.config.costs
        moq = self.positions.table["moq"][slots] / THOUSAND
        holding = self._unit_cost(slots) * (0.0 if costs is None else costs.holding_per_day)
        return lot_size(rate, self.config.review_days, moq, 0.0 if costs is None else costs.order_cost, holding)

    def orders(self, policy: Policy) -> Orders:
        """What each series would order now, needed or not."""
        table, slots = self.positions.table, policy.slots
        lot = self._lot(slots, policy.ahead.rate())
        pack_size = np.where(table["pack"][slots] > 0, table["pack"][slots], THOUSAND).astype(np.int64)
        moq = np.where(table["moq"][slots] > 0, table["moq"][slots], pack_size).astype(np.int64)
        capped = (table["flags"][slots] & HAS_MAX) > 0
        room = np.where(capped, table["max_stock"][slots] - policy.available, UNLIMITED)
        wanted = policy.point + lot - policy.available / THOUSAND
        return Orders(lot, pack_size, moq, *round_order(wanted, moq, pack_size, room))

    def outlook(self, policy: Policy) -> Outlook:
        """What to expect of each series."""
        window = policy.lead_mean + self.config.review_days
        demand = np.stack([policy.ahead.quantile(window, level) for level in (0.1, 0.5, 0.9)], axis=1)
        stockout = stockout_step(policy.ahead.median(), policy.available / THOUSAND)
        return Outlook(demand, stockout, policy.ahead.days)
