"""Fine-tuning of a task as a whole: choices by validation, some nets, a folder each.

In: a task folder. Out: nets on disk, and what was chosen and why.
Must not know: what is scored afterwards. Rule: a choice is made on the last weeks before the first cutoff, by nets that
have not seen them; the nets that are kept then see everything up to that cutoff.

Nets are fitted side by side, a process each: a net of this size keeps one core busy and gains nothing from a second.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import torch
from transformers.utils.logging import disable_progress_bar

from models.encoder import Encoder, EncoderConfig, load
from models.forecast import LEVELS, Forecaster
from models.panel import I64, Panel
from models.serving import EncoderForecaster
from models.task import TaskError, read_task
from models.train import Recipe, fit, origins

HELD_BACK_HORIZONS = 4
"""Validation covers so many horizons: several weeks of origins, so that no single holiday decides."""

HELD_BACK_SHARE = 0.25
"""And this share of what is seen at most."""

LEAST_WINDOWS = 500
"""Windows that a fit needs; with fewer there is nothing to learn."""

SCORED = tuple(n for n, level in enumerate(LEVELS) if level in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9))
"""Indices of the levels of which losses are made, as they are mostly reported."""

LOOK_S = 0.2
"""Between two looks at how far the processes are."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One candidate of the validation, and its weighted quantile loss there."""

    dates: bool
    wql: float


@dataclass(frozen=True, slots=True)
class Finetuned:
    """What came of a task.

    Attributes
    ----------
    folders
        Of the nets.
    choices
        Candidates that were compared; empty where there was too little to compare.
    """

    folders: list[Path]
    choices: list[Choice]

    def forecaster(self, name: str) -> EncoderForecaster:
        """All nets as one forecaster."""
        return EncoderForecaster([load(folder) for folder in self.folders], name)


@dataclass(frozen=True, slots=True)
class _Job:
    """One net to be fitted: on which task, up to which column, how."""

    task_dir: Path
    last: int
    config: dict[str, Any]
    recipe: Recipe


def finetune(
    task_dir: Path,
    out: Path,
    *,
    seeds: int = 1,
    recipe: Recipe | None = None,
    processes: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Finetuned:
    """Fit nets to what lies at or before the first cutoff of a task.

    Parameters
    ----------
    task_dir, out
        The task; where the nets go, a folder each.
    seeds
        How many nets.
    processes
        Side by side; one per core if not given.
    progress
        Called with the share of all steps that is done.

    Raises
    ------
    TaskError
        If the task cannot be used, or has too little before its first cutoff.
    """
    recipe = recipe or Recipe()
    panel = Panel(read_task(task_dir))
    last = int(panel.task.cutoff.min()) if len(panel.task.cutoff) else panel.task.demand.shape[1] - 1
    held_back = last - min(HELD_BACK_HORIZONS * panel.horizon, int(HELD_BACK_SHARE * (last + 1)))
    if (found := len(origins(panel, last))) < LEAST_WINDOWS:
        raise TaskError(f"{task_dir}: {found} windows before the first cutoff; fine-tuning needs {LEAST_WINDOWS}")
    config = {"covariates": panel.covariates}
    compared = (False, True) if len(origins(panel, held_back)) >= LEAST_WINDOWS else ()
    with _Crew(processes, recipe.steps * (len(compared) + seeds), progress) as crew:
        jobs = [_Job(task_dir, held_back, {**config, "dates": dates}, recipe) for dates in compared]
        losses = crew.results([crew.pool.submit(_trial, job, last) for job in jobs])
        choices = [Choice(dates, wql) for dates, wql in zip(compared, losses, strict=True)]
        dates = min(choices, key=lambda one: one.wql).dates if choices else False
        folders = [out / str(number) for number in range(seeds)]
        jobs = [
            _Job(task_dir, last, {**config, "dates": dates}, replace(recipe, seed=recipe.seed + n))
            for n in range(seeds)
        ]
        crew.results([crew.pool.submit(_keep, job, folder) for job, folder in zip(jobs, folders, strict=True)])
    return Finetuned(folders, choices)


class _Crew:
    """Processes that fit nets, and tell how far they are."""

    def __init__(self, processes: int | None, steps: int, progress: Callable[[float], None] | None) -> None:
        spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
        self._told = spawn.Queue()
        self._steps, self._done, self._progress = steps, 0, progress
        count = processes or os.cpu_count() or 1
        self.pool = ProcessPoolExecutor(count, mp_context=spawn, initializer=_begin, initargs=(self._told,))

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def results(self, futures: Sequence[Future[float]]) -> list[float]:
        """What the processes gave, in order; meanwhile it is told how far they are."""
        left = set(futures)
        while left:
            _, left = wait(left, LOOK_S)
            try:
                while True:
                    self._done += self._told.get_nowait()
            except Empty:
                pass
            if self._progress is not None:
                self._progress(min(1.0, self._done / max(1, self._steps)))
        return [future.result() for future in futures]


_told: Any = None  # of a process of the crew: where it tells how far it is


def _begin(told: Any) -> None:
    global _told
    _told = told
    torch.set_num_threads(1)
    disable_progress_bar()  # one bar is enough


def _fitted(job: _Job) -> tuple[Panel, Encoder]:
    panel = Panel(read_task(job.task_dir))
    return panel, fit(panel, job.last, EncoderConfig(**job.config), job.recipe, lambda _: _told.put(1))


def _keep(job: _Job, folder: Path) -> float:
    """Fit a net and write it."""
    _, model = _fitted(job)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    return 0.0


def _trial(job: _Job, last: int) -> float:
    """Fit a net, and measure it on what lies behind what it has seen."""
    panel, model = _fitted(job)
    cutoffs = np.arange(job.last, max(job.last + 1, last - panel.horizon + 1), 7)
    return weighted_quantile_loss(panel, EncoderForecaster([model], "trial"), cutoffs, last)


def weighted_quantile_loss(panel: Panel, forecaster: Forecaster, cutoffs: I64, last: int) -> float:
    """Loss of a forecaster at some cutoffs, over all series that have begun: twice the pinball loss over demand.

    Mean over the levels .1 to .9, as in the M5 "Uncertainty" competition and GluonTS' ``mean_wQuantileLoss``.
    """
    levels = np.array(LEVELS)[list(SCORED)]
    loss = demand = 0.0
    for cutoff in cutoffs.tolist():
        rows = np.flatnonzero(np.isfinite(panel.task.demand[:, cutoff]))
        at = np.full(len(rows), cutoff)
        actual = panel.actual(rows, at, last)
        gap = actual[:, :, None] - forecaster.forecast(panel.batch(rows, at)).quantiles[:, :, SCORED]
        known = np.isfinite(actual)
        loss += float(2 * np.maximum(levels * gap, (levels - 1) * gap).mean(axis=2)[known].sum())
        demand += float(np.abs(actual[known]).sum())
    return loss / demand if demand else 0.0
