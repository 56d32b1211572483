"""What an engine says of series in their first week: WQL of forecasts with basis cold_start, by days of history.

In: a file of events. Out: a table, or ``--json``.
Must not know: how young series are forecast. Rule: what is scored is what was published at a close, against the demand
that the panes held when its days were final.

The shop's own first two weeks are left out: nobody could lend then. WQL is the mean over the levels .1 to .9.

Run: ``python -m load_tests.cold_start_engine EVENTS [--model pretrained] [--steps 7]``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from models.forecast import LEVELS, Basis
from models.measures import SCORED, pinball
from models.named import BASELINE, forecaster_named
from streams.engine import Engine, EngineConfig
from streams.files import read_records
from streams.outputs import ForecastSet
from streams.replay import Replay, ReplayConfig

OWN_WEEKS = 2
"""Weeks of the shop that are left out."""

_AT = [LEVELS.index(level) for level in SCORED]


class Young:
    """Keeps what was published of young series until it can be scored."""

    def __init__(self, steps: int) -> None:
        self.steps, self._first = steps, -1
        self._waiting: dict[int, list[tuple[Any, Any, Any]]] = {}  # opened -> slots, days of history, quantiles
        self.loss: Counter[int] = Counter()
        self.demand: Counter[int] = Counter()
        self.rows: Counter[int] = Counter()

    def watch(self, engine: Engine, forecasts: ForecastSet) -> None:
        """Keep the cold rows of a close."""
        self._first = forecasts.day if self._first < 0 else self._first
        rows = np.flatnonzero(forecasts.forecast.basis == Basis.COLD_START)
        if not forecasts.at_close or forecasts.day < self._first + 7 * OWN_WEEKS or not len(rows):
            return
        slots = np.array([engine.series.slot(*forecasts.keys[row]) for row in rows.tolist()])
        days = forecasts.day - engine.buckets.series["first"][slots]
        said = forecasts.forecast.quantiles[rows, : self.steps][:, :, _AT]
        self._waiting.setdefault(forecasts.day, []).append((slots, days, said))

    def score(self, engine: Engine) -> None:
        """Score what is final by now; the items of this shop are never retired."""
        opened = engine.buckets.zones[0].open
        for day in [day for day in self._waiting if opened >= day + self.steps + 1]:
            for slots, days, said in self._waiting.pop(day):
                ago = opened - day
                actual = engine.panes.demand(slots, opened)[:, -ago : self.steps - ago or None].astype(np.float64)
                losses = 2 * pinball(actual, said.astype(np.float64), np.array(SCORED)).mean(axis=2).sum(axis=1)
                for age in np.unique(days).tolist():
                    own = days == age
                    self.loss[age] += losses[own].sum()
                    self.demand[age] += actual[own].sum()
                    self.rows[age] += int(own.sum())


def measured(events: Path, model: str, steps: int) -> dict[str, Any]:
    """Replay and score."""
    config = ReplayConfig(engine=EngineConfig(), clock_ms=time.time_ns() // 1_000_000, forecasts="last")
    run = Replay(config, lambda outputs: None, None if model == BASELINE else forecaster_named(model, Path()))
    young, (engine,) = Young(steps), run.engines
    began = time.process_time()
    for chunk in read_records(events):
        for out in run.feed(chunk):
            for _, forecasts in out.forecasts:
                young.watch(engine, forecasts)
        young.score(engine)
    ages = sorted(young.rows)
    by_age = {age: {"rows": young.rows[age], "wql": round(young.loss[age] / young.demand[age], 4)} for age in ages}
    return {
        "model": model,
        "steps": steps,
        "rows": young.rows.total(),
        "wql": round(sum(young.loss.values()) / sum(young.demand.values()), 4),
        "by_days": by_age,
        "cpu_s": round(time.process_time() - began, 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("events", type=Path, help="events, as `shelftide convert uci-online-retail` writes them")
    parser.add_argument("--model", default=BASELINE)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    if not options.events.is_file():
        sys.exit(f"{options.events}: there is no such file")
    figures = measured(options.events, options.model, options.steps)
    if options.json:
        print(json.dumps(figures))
        return
    print(f"{figures['model']}, {figures['rows']} forecasts of {figures['steps']} days: WQL {figures['wql']:.4f}")
    for age, one in figures["by_days"].items():
        print(f"  {age} days of history: {one['rows']:6d} forecasts, WQL {one['wql']:.4f}")
    print(f"  {figures['cpu_s']} s of CPU")


if __name__ == "__main__":
    main()
