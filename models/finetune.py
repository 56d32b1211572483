"""Fine-tuning of a task as a whole: choices by validation, some nets, a folder each.

In: a task folder. Out: nets on disk, and what was chosen and why.
Must not know: what is scored afterwards. Rule: a choice is made on the last weeks before the first cutoff, by nets that
have not seen them; the nets that are kept then see everything up to that cutoff.

Nets are fitted side by side, a process each: a net of this size keeps one core busy and gains nothing from a second.
A process ends when the one that started it is gone, however that ended.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import torch
from transformers.utils.logging import disable_progress_bar

from models.crew import Choice, Net, crew_of, own_net
from models.encoder import Encoder, EncoderConfig, load
from models.forecast import LEVELS, Forecaster
from models.panel import I64, Panel
from models.recipe import Keeping, Recipe
from models.serving import EncoderForecaster
from models.task import TaskError, read_task
from models.train import fit, held_back, origins

LEAST_WINDOWS = 500
"""Windows that a fit needs; with fewer there is nothing to learn."""

SCORED = tuple(n for n, level in enumerate(LEVELS) if level in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9))
"""Indices of the levels of which losses are made, as they are mostly reported."""

LOOK_S = 0.2
"""Between two looks at how far the processes are."""


@dataclass(frozen=True, slots=True)
class Finetuned:
    """What came of a task.

    Attributes
    ----------
    folders
        Of the nets.
    choices
        Candidates that were compared, or were given; empty where there was too little to compare, or nothing to choose.
    nets
        What each is, and where it began.
    recipe
        By which they were fitted, but for seeds and modes.
    """

    folders: list[Path]
    choices: list[Choice]
    nets: list[Net]
    recipe: Recipe

    def forecaster(self, name: str) -> EncoderForecaster:
        """All nets as one forecaster."""
        return EncoderForecaster([load(folder) for folder in self.folders], name)


@dataclass(frozen=True, slots=True)
class _Job:
    """One net to be fitted: on which task, up to which column, how."""

    task_dir: Path
    last: int
    net: Net
    recipe: Recipe
    keeping: Keeping


def finetune(
    task_dir: Path,
    out: Path,
    *,
    seeds: int = 1,
    recipe: Recipe | None = None,
    processes: int | None = None,
    progress: Callable[[float], None] | None = None,
    start: Path | None = None,
    in_turn: bool = True,
    keeping: Keeping | None = None,
    last: int | None = None,
    choices: Sequence[Choice] | None = None,
    share: float = 1.0,
) -> Finetuned:
    """Fit nets to what lies at or before the first cutoff of a task, or another column.

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
    start
        Folder of an encoder that every net begins from. In mode ``full`` covariates and dates are those of the task and
        of the validation, in the others those of the encoder.
    in_turn
        Without a start, nets are of the kinds of `models.crew.Crew.nets`; if False, all are of the first, which begins
        from nothing.
    keeping
        Folders of checkpoints and logs, in which each fit has one of its own.
    last
        Column after which nothing is read, if not the first cutoff.
    choices
        Of a former fit, which then hold for this one: nothing is validated.
    share
        Of its core that each process may take; it rests for what is left.

    Raises
    ------
    TaskError
        If the task cannot be used, or has too little before its first cutoff.
    models.forecast.ForecastError
        If it cannot begin from `start`, or a checkpoint is of another run.
    """
    recipe, keeping = recipe or Recipe(), keeping or Keeping()
    panel = Panel(read_task(task_dir))
    last = int(panel.task.cutoff.min()) if last is None else last
    seen = held_back(panel, last)
    if (found := len(origins(panel, last))) < LEAST_WINDOWS:
        raise TaskError(f"{task_dir}: {found} windows before the cutoff; fine-tuning needs {LEAST_WINDOWS}")
    crew = crew_of(panel, last, recipe, start, in_turn=in_turn)
    enough = choices is None and len(origins(panel, seen)) >= LEAST_WINDOWS
    tried = crew.candidates(seeds) if enough else []
    with _Processes(processes, recipe.steps * (len(tried) + seeds), progress, share) as processing:
        jobs = [
            _Job(task_dir, seen, net, replace(recipe, mode=net.mode), keeping.of(f"trial-{n}"))
            for n, net in enumerate(tried)
        ]
        losses = processing.results([processing.pool.submit(_trial, job, last) for job in jobs])
        if choices is None:
            choices = [Choice(net.mode, net.config["dates"], wql) for net, wql in zip(tried, losses, strict=True)]
        nets, folders = crew.nets(seeds, choices), [out / str(number) for number in range(seeds)]
        jobs = [
            _Job(task_dir, last, net, replace(recipe, mode=net.mode, seed=recipe.seed + n), keeping.of(str(n)))
            for n, net in enumerate(nets)
        ]
        pairs = zip(jobs, folders, strict=True)
        processing.results([processing.pool.submit(_keep, job, folder) for job, folder in pairs])
    if progress is not None:
        progress(1.0)  # a fit that was over before, or that stopped early, tells of fewer steps
    return Finetuned(folders, list(choices), nets, recipe)


def continued(
    task_dir: Path,
    folders: Sequence[Path],
    out: Path,
    last: int,
    recipe: Recipe,
    *,
    anew: Mapping[int, Net] | None = None,
    fresh: Recipe | None = None,
    processes: int | None = None,
    share: float = 1.0,
) -> list[Path]:
    """Let nets learn on from where they are, from all windows up to the column `last`; their new folders come back.

    Windows are drawn from the whole past alike, so that what is new does not drive out what was: the loss over older
    regimes is part of every step.

    Parameters
    ----------
    task_dir, out
        The task; where the nets go, a folder each.
    folders
        Of the nets as they are.
    recipe
        Few steps at a low rate; its seed should differ from time to time.
    anew
        Nets that do not learn on but are fitted anew, by their place among the folders.
    fresh
        Recipe of those.
    share
        Of its core that each process may take.

    Raises
    ------
    TaskError
        If the task cannot be used.
    models.start.StartError
        If a folder holds no net.
    """
    kept = [out / str(number) for number in range(len(folders))]
    jobs = []
    for number, folder in enumerate(folders):
        net = (anew or {}).get(number)
        own = recipe if net is None else replace(fresh or Recipe(), mode=net.mode)
        own = replace(own, seed=recipe.seed + number)
        jobs.append(_Job(task_dir, last, net or own_net(folder), own, Keeping()))
    with _Processes(processes, sum(job.recipe.steps for job in jobs), None, share) as processing:
        pairs = sorted(zip(jobs, kept, strict=True), key=lambda pair: -pair[0].recipe.steps)  # the longest first
        processing.results([processing.pool.submit(_keep, job, folder) for job, folder in pairs])
    return kept


class _Processes:
    """Processes that fit nets, and tell how far they are."""

    def __init__(
        self, processes: int | None, steps: int, progress: Callable[[float], None] | None, share: float = 1.0
    ) -> None:
        spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
        self._told = spawn.Queue()
        self._steps, self._done, self._progress = steps, 0, progress
        self._others = set(multiprocessing.active_children())
        count = processes or os.cpu_count() or 1
        self.pool = ProcessPoolExecutor(count, mp_context=spawn, initializer=_begin, initargs=(self._told, share))

    def __enter__(self) -> _Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # who was interrupted does not wait for the fits that are under way
            for process in set(multiprocessing.active_children()) - self._others:
                process.terminate()
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


_told: Any = None  # of such a process: where it tells how far it is
_share = 1.0  # of its core that it may take


def _begin(told: Any, share: float) -> None:
    global _told, _share
    _told, _share = told, share
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; who started this process ends it
    threading.Thread(target=_outlive_nobody, daemon=True).start()
    torch.set_num_threads(1)
    disable_progress_bar()  # one bar is enough


def _outlive_nobody() -> None:
    """End this process once its parent is gone: a parent that was killed tells nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _fitted(job: _Job) -> tuple[Panel, Encoder]:
    panel = Panel(read_task(job.task_dir))
    done, worked_s = 0, time.process_time()

    def tell(step: int) -> None:
        nonlocal done, worked_s
        _told.put(step - done)  # of a run that goes on, the first step brings those before it
        done = step
        time.sleep((time.process_time() - worked_s) * (1 / _share - 1))
        worked_s = time.process_time()

    config = EncoderConfig(**job.net.config)
    return panel, fit(panel, job.last, config, job.recipe, tell, start=job.net.start, keeping=job.keeping)


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
