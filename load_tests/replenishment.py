"""Replenishment under load, and the rule's cost in a simulated warehouse.

    python -m load_tests.replenishment [--series N] [--json FILE]   decisions per CPU second, bytes per series
    python ../shared/eval/replenish.py --set public --policy load_tests/replenishment.py:policy

In: made-up forecasts and stock; for `policy`, the simulation's state and history. Out: figures, order quantities.
Must not know: the engine, files of events. Rule: time is CPU time of this process, the best of several rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.forecast import LEVELS
from streams.calendar import DAY_MS
from streams.events import LeadTime, Placement
from streams.policy import ReplenishmentConfig
from streams.positions import Positions
from streams.reorder import DemandAhead, critical_level, lot_size, reorder_point
from streams.replenishment import Replenishment
from streams.triggers import Trigger

NOW = 1_764_028_800_000
STEPS = NOW + np.arange(28) * DAY_MS
SHORTAGE, HOLDING, ORDER = 1.0, 0.2 / 7, 2.0
"""Costs of the simulation: per unit lost, per unit and day on stock, per order."""
WINDOW_DAYS = 112
"""Days of history behind the simulated policy's quantiles: 16 weeks, what the classical peers use at most."""


# ------------------------------------------------------------------------------------------------ simulated cost
class State(Protocol):
    """What the simulation says of one series at the end of a day."""

    position: float
    moq: int
    lead_mean: float
    lead_p90: int
    review_days: int


def sums_ahead(history: npt.NDArray[np.float64], days: int) -> DemandAhead:
    """Quantiles of the demand of 1, 2, … `days` consecutive days in recent history."""
    recent = history[-WINDOW_DAYS:]
    total = np.concatenate([[0.0], np.cumsum(recent)])
    sums = [np.quantile(total[h:] - total[:-h], LEVELS) for h in range(1, days + 1)]
    return DemandAhead(np.array(sums, np.float32)[None], np.zeros(1), 1.0, np.arange(1))


def order(state: State, history: npt.NDArray[np.float64], level: float | None) -> float:
    """Units to order by the (s,S) rule; the service level from costs where none is given."""
    ahead = sums_ahead(history, int(np.ceil(state.lead_p90 + state.review_days)))
    rate = np.maximum(ahead.rate(), 1e-3)
    lot = lot_size(rate, state.review_days, np.array([float(state.moq)]), ORDER, HOLDING)
    if level is None:
        levels = critical_level(rate, lot, np.array([HOLDING]), np.array([SHORTAGE]))
    else:
        levels = np.array([level])
    mean, slow = np.array([float(state.lead_mean)]), np.array([float(state.lead_p90)])
    point = reorder_point(ahead, mean, slow, state.review_days, levels)
    return float((point + lot)[0] - state.position) if state.position <= point[0] else 0.0


def policy(state: State, history: npt.NDArray[np.float64], forecast: object) -> float:
    """Our rule with known costs, on the item's own history alone."""
    return order(state, history, None)


def policy_default(state: State, history: npt.NDArray[np.float64], forecast: object) -> float:
    """Our rule at the default service level."""
    return order(state, history, ReplenishmentConfig().service_level)


# ------------------------------------------------------------------------------------------------ speed
def shop(series: int, days_of_stock: float) -> tuple[Replenishment, npt.NDArray[np.float32]]:
    """Series with noisy demand and stock around a number of days of it."""
    random = np.random.default_rng([series, 1])
    rate = random.gamma(0.7, 4.0, series) + 0.05
    spread = np.linspace(0.2, 2.2, len(LEVELS))
    cumulative = (rate[:, None, None] * np.arange(1, 29)[None, :, None] * spread).astype(np.float32)  # (B, 28, 13)
    positions = Positions(series)
    placement = Placement(lead_time_days=LeadTime(9, 13), moq=6, pack_size=6, service_level=0.95)
    stock = np.rint(rate * days_of_stock * random.uniform(0.9, 1.5, series))
    for slot in range(series):
        positions.count(slot, on_hand=float(stock[slot]), time_ms=NOW)
        positions.place(slot, placement, unit_cost=2.5, cost_currency="EUR", time_ms=NOW)
    return Replenishment(
        ReplenishmentConfig(), positions, lambda slot: (f"A{slot}", "x"), lambda _, ms: "-"
    ), cumulative


def decide(engine: Replenishment, cumulative: npt.NDArray[np.float32], tile: int = 4096) -> list[Trigger]:
    """One bucket's close: all series, a tile at a time."""
    issued: list[Trigger] = []
    for start in range(0, len(cumulative), tile):
        part = cumulative[start : start + tile]
        slots = np.arange(start, start + len(part))
        issued += engine.decide(slots, part, NOW, lambda row: f"f{row}", STEPS)
    return issued


def seconds(work: Callable[[], object], rounds: int = 5) -> float:
    """CPU seconds of the fastest round."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def measure(series: int) -> dict[str, Any]:
    """Decisions that find nothing, decisions that open triggers, the screen over open ones, flows, memory."""
    calm, cumulative = shop(series, 60.0)
    assert not decide(calm, cumulative)
    idle_s = seconds(lambda: decide(calm, cumulative))
    busy, cumulative = shop(series, 20.0)
    tracemalloc.start()
    opened = len(decide(busy, cumulative))
    traced = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    opening, cumulative = shop(series, 20.0)
    open_s = seconds(lambda: decide(opening, cumulative), rounds=1)
    again_s = seconds(lambda: decide(busy, cumulative))
    rows = np.random.default_rng(2).integers(0, series, 100_000)
    ones = np.ones(len(rows), np.int64)
    flows_s = seconds(lambda: calm.positions.apply_flows(rows, ones, ones * 1000, ones * (NOW + 60_000)))
    return {
        "series": series,
        "screen_us_per_series": idle_s / series * 1e6,
        "decisions_per_s": series / idle_s,
        "opened": opened,
        "open_us_per_trigger": (open_s - idle_s) / max(opened, 1) * 1e6,
        "open_trigger_bytes": traced / max(opened, 1),
        "screen_with_open_us_per_series": again_s / series * 1e6,
        "flow_us_per_event": flows_s / len(rows) * 1e6,
        "bytes_per_series": calm.positions.row_bytes + calm.row_bytes,
    }


def main() -> None:
    """Print the figures, one a line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--series", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = measure(options.series)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, NumPy {np.__version__}")
    for name, value in figures.items():
        print(f"{name:32} {value:,.2f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
