"""Whether nets that learn on forget: a shop that is one, becomes another for twelve weeks, and is the first one again.

    python -m load_tests.forgetting [--series N] [--steps N] [--generations N] [--json]

The shop sells Poisson amounts with a weekly pattern. In its second regime demand is doubled and the week turned round.
A net is fitted to the first regime and left alone; its descendants learn on through the second, a generation a week.
Both then forecast windows of the first regime, of the second, and of the first when it has returned; and so do the
descendants that have learned on through its first four weeks.

In: sizes. Out: a table, or JSON. Must not know: engines.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from models.crew import Choice
from models.encoder import load
from models.finetune import finetune, weighted_quantile_loss
from models.panel import Panel
from models.recipe import Recipe
from models.serving import EncoderForecaster
from models.task import read_task
from online.lineage import Lineage, continuing

FIRST, SECOND, AGAIN, HORIZON = 280, 84, 56, 14
WEEK = np.array([0.6, 0.8, 1.0, 1.1, 1.3, 1.5, 0.7])
BACK = 28
"""Days of the regime that has returned before it is forecast."""

SPANS = {
    "first": range(FIRST - 60, FIRST - HORIZON, 7),
    "second": range(FIRST + SECOND // 2, FIRST + SECOND - HORIZON, 7),
    "first again": range(FIRST + SECOND + BACK, FIRST + SECOND + AGAIN - HORIZON, 7),
}


def write_task(folder: Path, series: int) -> Path:
    """The shop as a task whose cutoff lies at the end of its first regime."""
    random, days = np.random.default_rng(1), np.arange(FIRST + SECOND + AGAIN)
    second = (days >= FIRST) & (days < FIRST + SECOND)
    pattern = np.where(second, 2 * WEEK[::-1][days % 7], WEEK[days % 7])
    demand = random.poisson(random.gamma(1.5, 4.0, series)[:, None] * pattern).astype(float)
    begun = dt.datetime(2023, 1, 2)
    ids = [f"s{n:03d}" for n in range(series)]
    pl.DataFrame({
        "unique_id": np.repeat(ids, len(days)), "ds": [begun + dt.timedelta(days=n) for n in days.tolist()] * series,
        "y": demand.ravel(),
    }).write_parquet(folder / "panel.parquet")  # fmt: skip
    pl.DataFrame({"unique_id": ids}).write_parquet(folder / "static.parquet")
    cutoff = f"{begun + dt.timedelta(days=FIRST - 1):%Y-%m-%d}"
    told = {"freq": "D", "horizon": HORIZON, "season": 7, "cutoffs": [cutoff], "levels": [0.1, 0.5, 0.9],
            "known_future": []}  # fmt: skip
    (folder / "task.json").write_bytes(msgspec.json.encode(told))
    return folder


def measured(series: int, steps: int, generations: int) -> dict[str, Any]:
    """WQL by regime of the net that was left alone, and of its last descendants."""
    with tempfile.TemporaryDirectory(prefix="shelftide-forgetting-") as scratch:
        task_dir = write_task(Path(scratch), series)
        panel, recipe = Panel(read_task(task_dir)), Recipe(steps=steps)
        nets = finetune(task_dir, Path(scratch) / "nets", recipe=recipe, last=FIRST - 1,
                        choices=[Choice("full", False, 0.0)]).folders  # fmt: skip
        lineage = Lineage(task_dir, nets, Path(scratch) / "line", 7, continuing(steps))
        for n in range(1, generations + 1):
            lineage.next(FIRST - 1 + n * SECOND // generations)
        found = {"left alone": _losses(panel, nets), "learned on": _losses(panel, lineage.nets)}
        weeks = min(generations, BACK // 7)
        for n in range(1, weeks + 1):
            lineage.next(FIRST + SECOND - 1 + n * BACK // weeks)
        found["learned on since"] = _losses(panel, lineage.nets)
    return {"series": series, "generations": generations, "wql": found}


def _losses(panel: Panel, folders: Sequence[Path]) -> dict[str, float]:
    """WQL by regime."""
    forecaster = EncoderForecaster([load(folder) for folder in folders], "nets")
    return {
        span: round(weighted_quantile_loss(panel, forecaster, np.array(cutoffs), max(cutoffs) + HORIZON), 5)
        for span, cutoffs in SPANS.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=100)
    parser.add_argument("--steps", type=int, default=Recipe().steps, help="of the first fit; a generation has a tenth")
    parser.add_argument("--generations", type=int, default=12)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    found = measured(options.series, options.steps, options.generations)
    if options.json:
        print(json.dumps(found))
        return
    alone = found["wql"]["left alone"]
    for name, losses in found["wql"].items():
        told = "  ".join(f"{span} {losses[span]:.4f} ({losses[span] / alone[span] - 1:+.1%})" for span in SPANS)
        print(f"{name:16} {told}")


if __name__ == "__main__":
    main()
