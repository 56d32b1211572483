"""Settings of an engine, with the defaults of each.

In: nothing. Out: `EngineConfig`. Must not know: where settings come from. Rule: frozen; one for all shards of a shop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from models.price import PriceModel
from streams.calendar import Width
from streams.dedupe import DedupeConfig
from streams.panes import PaneConfig
from streams.policy import ReplenishmentConfig
from streams.price_rules import PriceAlertConfig
from streams.watermark import TimeConfig


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Settings of a shop's engine.

    Attributes
    ----------
    max_series
        Series held at most; further ones are counted and refused. Memory is committed as series appear.
    width
        Day or hour buckets.
    time_zone, location_time_zones
        Where a day ends: for the shop, and for locations that have their own.
    base_currency, rates
        Currency that revenue is summed in, and units of it per unit of other currencies.
    horizon
        Steps forecast.
    refresh_ms
        Event time between refreshes of changed series within a bucket.
    price_model
        Who forecasts prices; off: nobody, and no runs of prices are kept.
    learning
        Whether it is learned from what comes true; else forecasts are published as the model gives them.
    time, dedupe, prices, replenishment
        Rules of the parts.
    """

    max_series: int = 100_000
    width: Width = Width.DAY
    time_zone: str = "UTC"
    location_time_zones: Mapping[str, str] = field(default_factory=dict)
    base_currency: str = "EUR"
    rates: Mapping[str, float] = field(default_factory=dict)
    horizon: int = 28
    refresh_ms: int = 15 * 60_000
    price_model: PriceModel = "net"
    learning: bool = True
    time: TimeConfig = field(default_factory=TimeConfig)
    dedupe: DedupeConfig = field(default_factory=DedupeConfig)
    prices: PriceAlertConfig = field(default_factory=PriceAlertConfig)
    replenishment: ReplenishmentConfig = field(default_factory=ReplenishmentConfig)

    @property
    def panes(self) -> PaneConfig:
        """Sizes of the panes for this width: 84 days, or 336 hours (two weeks)."""
        if self.width is Width.DAY:
            return PaneConfig()
        return PaneConfig(buckets=336, open_buckets=12)
