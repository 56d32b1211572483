"""The door: public names and the command line. No logic lives here.

In: nothing. Out: the names of ``__all__``, each imported from its module when it is first asked for.
Must not know: anything; importing this package alone takes no noticeable time.

>>> import shelftide
>>> shelftide.Kind.ORDER_PLACED
<Kind.ORDER_PLACED: 1>
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.backtest import backtest as backtest
    from models.baseline import SeasonalWindow as SeasonalWindow
    from models.forecast import LEVELS as LEVELS
    from models.forecast import Forecast as Forecast
    from models.forecast import ForecastBatch as ForecastBatch
    from models.forecast import Forecaster as Forecaster
    from streams.decode import decode as decode
    from streams.engine import Engine as Engine
    from streams.engine import EngineConfig as EngineConfig
    from streams.events import EventBatch as EventBatch
    from streams.events import Kind as Kind
    from streams.files import FileError as FileError
    from streams.files import read_records as read_records
    from streams.kafka.decisions import DemandForecast as DemandForecast
    from streams.kafka.decisions import PriceAlert as PriceAlert
    from streams.kafka.decisions import ReplenishmentTrigger as ReplenishmentTrigger
    from streams.kafka.subscriber import subscribe as subscribe
    from streams.outputs import Output as Output
    from streams.outputs import Outputs as Outputs
    from streams.replay import Replay as Replay
    from streams.replay import ReplayConfig as ReplayConfig
    from streams.replay import replay as replay

_HOME = {
    "LEVELS": "models.forecast",
    "DemandForecast": "streams.kafka.decisions",
    "Engine": "streams.engine",
    "EngineConfig": "streams.engine",
    "EventBatch": "streams.events",
    "FileError": "streams.files",
    "Forecast": "models.forecast",
    "ForecastBatch": "models.forecast",
    "Forecaster": "models.forecast",
    "Kind": "streams.events",
    "Output": "streams.outputs",
    "Outputs": "streams.outputs",
    "PriceAlert": "streams.kafka.decisions",
    "Replay": "streams.replay",
    "ReplayConfig": "streams.replay",
    "ReplenishmentTrigger": "streams.kafka.decisions",
    "SeasonalWindow": "models.baseline",
    "backtest": "models.backtest",
    "decode": "streams.decode",
    "read_records": "streams.files",
    "replay": "streams.replay",
    "subscribe": "streams.kafka.subscriber",
}
"""Where each public name lives."""

__all__ = [
    "LEVELS",
    "DemandForecast",
    "Engine",
    "EngineConfig",
    "EventBatch",
    "FileError",
    "Forecast",
    "ForecastBatch",
    "Forecaster",
    "Kind",
    "Output",
    "Outputs",
    "PriceAlert",
    "Replay",
    "ReplayConfig",
    "ReplenishmentTrigger",
    "SeasonalWindow",
    "backtest",
    "decode",
    "read_records",
    "replay",
    "subscribe",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: ``import shelftide`` alone loads no NumPy."""
    if name not in _HOME:
        raise AttributeError(f"module 'shelftide' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
