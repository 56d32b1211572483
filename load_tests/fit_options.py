"""What each option of a fit is worth: WQL of nets on the last weeks before a task's first cutoff.

In: task folders (`models.task`). Out: a table, or ``--json``.
Must not know: what is scored. Rule: nothing after the first cutoff is read, neither to fit nor to measure.

Each net is fitted to what lies before the validation span of `models.finetune` (the last four horizons before the first
cutoff) and forecasts it every seventh day. It begins from nothing and reads no dates, unless its line says otherwise.
WQL is the mean over the levels .1 to .9; where there are several seeds, it is their mean, with the spread behind it.

Run: ``python -m load_tests.fit_options TASK_DIR … [--seeds 2] [--only plain,masking]``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.encoder import EncoderConfig
from models.finetune import weighted_quantile_loss
from models.named import SHIPPED
from models.panel import Panel
from models.recipe import Recipe
from models.serving import EncoderForecaster
from models.start import config_of
from models.task import TaskError, read_task
from models.train import fit, held_back

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "scaling": {"scaling": 0.2},
    "masking": {"masking": 0.2},
    "promo-dropout": {"promo_dropout": 0.2},
    "sample-power": {"sample_power": 0.5},
    "sample-sold-power": {"sample_sold_power": 0.5},
    "sold-power": {"sold_power": 0.5},
    "scale-power 0": {"scale_power": 0.0},
    "scale-power 1": {"scale_power": 1.0},
    "early-stopping": {"early_stopping": True},
    "start shipped": {},
    "mode head": {"mode": "head"},
    "mode lora": {"mode": "lora"},
}
"""Options by the line of the table; a value of each that is neither faint nor extreme."""

BEGUN = ("start shipped", "mode head", "mode lora")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path, nargs="+", help="task folders")
    parser.add_argument("--seeds", type=int, default=1, help="nets of each line")
    parser.add_argument("--steps", type=int, default=Recipe().steps, help="of each net")
    parser.add_argument("--only", default=",".join(VARIANTS), help="lines of the table, joined by commas")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if unknown := [name for name in chosen if name not in VARIANTS]:
        parser.error(f"{unknown[0]!r} is none of {', '.join(VARIANTS)}")
    torch.set_num_threads(1)
    tell(chain.from_iterable(measured(folder, chosen, options.seeds, options.steps) for folder in options.tasks),
         line, as_json=options.json)  # fmt: skip


def tell(found: Iterable[dict[str, Any]], line: Callable[[dict[str, Any]], str], *, as_json: bool) -> None:
    """Print figures as lines, each when it is there, or all as one JSON document; a wrong task ends in a sentence."""
    figures = []
    try:
        for one in found:
            figures.append(one)
            if not as_json:
                print(line(one), flush=True)
    except TaskError as error:
        sys.exit(f"{error}")
    if as_json:
        print(json.dumps(figures))


def measured(folder: Path, chosen: list[str], seeds: int, steps: int) -> Iterator[dict[str, Any]]:
    """WQL of each line on one task."""
    panel = Panel(read_task(folder))
    last = int(panel.task.cutoff.min())
    seen = held_back(panel, last)
    for name in chosen:
        started_s = time.perf_counter()
        recipe = replace(Recipe(steps=steps), **VARIANTS[name])
        found = [_wql(panel, seen, last, replace(recipe, seed=1 + n), begun=name in BEGUN) for n in range(seeds)]
        yield {"task": folder.name, "line": name, "wql": found, "steps": steps,
               "seconds_a_net": round((time.perf_counter() - started_s) / seeds, 1)}  # fmt: skip


def _wql(panel: Panel, seen: int, last: int, recipe: Recipe, *, begun: bool) -> float:
    config = EncoderConfig(panel.covariates, codes=panel.codes(seen), attributes=panel.kinds)
    if begun:
        given = config_of(SHIPPED)
        if recipe.mode != "full":
            config = given
        else:
            config.feature_dropout = given.feature_dropout
    net = fit(panel, seen, config, recipe, start=SHIPPED if begun else None)
    cutoffs = np.arange(seen, max(seen + 1, last - panel.horizon + 1), 7)
    return weighted_quantile_loss(panel, EncoderForecaster([net], "trial"), cutoffs, last)


def line(one: dict[str, Any]) -> str:
    """A line of the table."""
    found = one["wql"]
    spread = f" ± {np.std(found):.4f}" if len(found) > 1 else ""
    return f"{one['task']:14} {one['line']:18} {np.mean(found):.4f}{spread}  ({one['seconds_a_net']:.0f} s a net)"


if __name__ == "__main__":
    main()
