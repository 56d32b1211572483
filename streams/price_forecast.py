"""Forecasts of prices as other systems read them: messages of ``forecast.price.v1``.

In: a `PriceForecast` with the keys, currencies and days of its rows. Out: `Output`s.
Must not know: how a forecast came about. Rule: ids come from line, instant, revision and model, never from a clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson
import xxhash

from models.forecast import LEVELS, Basis
from models.price import PriceForecast, Trend
from streams.outputs import Output, key_of, significant

PRICE_TOPIC = "forecast.price.v1"

_LEVELS = list(LEVELS)


def to_the_cent(prices: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Round prices to the cent; below one, where a cent is much, to four significant digits. Order is kept.

    Examples
    --------
    >>> to_the_cent(np.array([12345.678, 9.994, 0.038984], np.float32)).tolist()
    [12345.68, 9.99, 0.03898]
    """
    wide = prices.astype(np.float64)
    out = np.round(wide, 2)
    below = wide < 1
    if below.any():
        out[below] = [float(f"{value:.4g}") for value in significant(prices[below]).tolist()]
    return out


@dataclass(frozen=True, slots=True)
class PriceForecastSet:
    """Forecasts of prices of one instant; a value is encoded when a shell asks for it.

    Attributes
    ----------
    keys
        SKU, location and channel per row.
    currencies
        ISO 4217 code per row.
    today
        Price in force at that instant, per row: what `p_change` and the trend are beside, float32 (B,).
    forecast
        The rows' forecasts.
    as_of_ms
        Instant the forecasts stand for; today is its local day.
    steps
        Starts of the local days after today, epoch ms, H of them.
    time_zone
        Zone in which days begin.
    model
        Name of the forecaster.
    revision
        Of forecasts of one instant the greatest counts.
    reason
        Why another model than the one set answered, or None.

    Examples
    --------
    >>> from models.price import LastPrice, PriceBatch
    >>> batch = PriceBatch(np.array([[9.5]], np.float32), np.zeros((1, 1), np.float32), np.zeros(1, np.int64), 2)
    >>> days = [86_400_000, 172_800_000]
    >>> found = PriceForecastSet(
    ...     [("TEA", "default", "web")], ["EUR"], batch.price[:, 0], LastPrice().forecast(batch), 5, days, "UTC", "m")
    >>> [(output.key, orjson.loads(output.value)["p_change"]) for output in found.encode()]
    [(b'TEA|default|web', [0.0, 0.0])]
    """

    keys: list[tuple[str, str, str]]
    currencies: list[str]
    today: npt.NDArray[np.float32]
    forecast: PriceForecast
    as_of_ms: int
    steps: list[int]
    time_zone: str
    model: str
    revision: int = 1
    reason: str | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def forecast_id(self, row: int) -> str:
        """Id of a row's forecast: hash of line, instant, revision and model."""
        text = f"{key_of(*self.keys[row])}|{self.as_of_ms}|{self.revision}|{self.model}"
        return f"fp_{xxhash.xxh3_64_hexdigest(text.encode())}"

    def encode(self, rows: list[int] | range | None = None) -> list[Output]:
        """Encode rows (all where none are named) as messages of ``forecast.price.v1``."""
        picked = list(range(len(self)) if rows is None else rows)
        f, at = self.forecast, np.array(picked, np.int64)
        today, mean, quantiles = (to_the_cent(prices[at]) for prices in (self.today, f.mean, f.quantiles))
        p_change, p_trend = significant(f.p_change[at]), significant(f.p_trend[at])
        out = []
        for i, row in enumerate(picked):
            sku, location, channel = self.keys[row]
            forecast_id = self.forecast_id(row)
            value = {
                "forecast_id": forecast_id,
                "revision": self.revision,
                "sku": sku,
                "location": location,
                "channel": channel,
                "currency": self.currencies[row],
                "price": today[i],
                "as_of": self.as_of_ms,
                "freq": "D",
                "time_zone": self.time_zone,
                "steps": self.steps,
                "levels": _LEVELS,
                "model": self.model,
                "basis": Basis(int(f.basis[row])).name.lower(),
                "reason": self.reason,
                "mean": mean[i],
                "quantiles": quantiles[i],
                "p_change": p_change[i],
                "trend": {"direction": Trend(int(f.trend[row])).name.lower(), "probability": p_trend[i]},
            }
            body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
            out.append(Output(PRICE_TOPIC, key_of(sku, location, channel).encode(), body, forecast_id, self.as_of_ms))
        return out
