"""What each way of adapting the encoder to a task is worth: as it ships, its head alone, LoRA, all of its weights.

    python -m load_tests.modes TASK_DIR … [--seeds 3] [--modes pretrained,head,lora,full] [--steps N] [--json]

Nets are fitted to what lies at or before a task's first cutoff, by the recipe as it is (`models.finetune`), and
forecast its windows; figures are those that the evaluation's ``score.py`` gives. Each net is judged by itself, and the
mean of all, which is what ``--seeds`` makes of them elsewhere. Seconds are those of the fits, trials included, side by
side on all cores.

In: task folders (`models.task`). Out: a table, or JSON. Must not know: anything but `models`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from load_tests.fit_options import tell
from models.encoder import Encoder
from models.finetune import finetune
from models.forecast import Forecaster
from models.judge import judged
from models.named import PRETRAINED, SHIPPED, forecaster_named
from models.recipe import Mode, Recipe
from models.serving import EncoderForecaster
from models.task import Task, read_task

MODES: tuple[Mode, ...] = ("head", "lora", "full")


def scored(task: Task, forecaster: Forecaster) -> tuple[float, float]:
    """WQL and coverage of the 80 % interval over a task's windows."""
    figures = judged(task, forecaster).tally.in_all()
    return float(figures.wql), float(figures.coverage)


def measured(folder: Path, modes: Sequence[str], seeds: int, steps: int) -> Iterator[dict[str, Any]]:
    """Figures of each way on one task."""
    task = read_task(folder)
    if PRETRAINED in modes:
        wql, coverage = scored(task, forecaster_named(PRETRAINED, Path("none")))
        yield {"task": folder.name, "mode": PRETRAINED, "nets": [], "wql": wql, "coverage": coverage, "fit_s": 0.0}
    for mode in (mode for mode in MODES if mode in modes):
        with tempfile.TemporaryDirectory(prefix="shelftide-modes-") as scratch:
            started_s = time.perf_counter()
            recipe = Recipe(mode=mode, steps=steps)
            start = None if mode == "full" else SHIPPED
            fitted = finetune(folder, Path(scratch), seeds=seeds, recipe=recipe, start=start)
            fit_s = time.perf_counter() - started_s
            nets = [Encoder.from_pretrained(one) for one in fitted.folders]
            alone = [scored(task, EncoderForecaster([net], mode))[0] for net in nets]
            wql, coverage = scored(task, EncoderForecaster(nets, mode))
            yield {"task": folder.name, "mode": mode, "nets": alone, "wql": wql, "coverage": coverage,
                   "fit_s": round(fit_s, 1)}  # fmt: skip


def line(one: dict[str, Any]) -> str:
    """A line of the table."""
    alone = one["nets"]
    each = f"  each {np.median(alone):.4f} ({min(alone):.4f} to {max(alone):.4f})" if alone else ""
    return (
        f"{one['task']:14} {one['mode']:11} {one['wql']:.4f}  coverage {one['coverage']:.3f}"
        f"  {one['fit_s']:4.0f} s of fitting{each}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path, nargs="+", help="task folders")
    parser.add_argument("--seeds", type=int, default=3, help="nets of each way")
    parser.add_argument("--steps", type=int, default=Recipe().steps, help="of each net")
    parser.add_argument("--modes", default=",".join((PRETRAINED, *MODES)), help="ways, joined by commas")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    chosen = options.modes.split(",")
    if unknown := [mode for mode in chosen if mode not in (PRETRAINED, *MODES)]:
        parser.error(f"{unknown[0]!r} is none of {PRETRAINED}, {', '.join(MODES)}")
    tell(chain.from_iterable(measured(folder, chosen, options.seeds, options.steps) for folder in options.tasks),
         line, as_json=options.json)  # fmt: skip


if __name__ == "__main__":
    main()
