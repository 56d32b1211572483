"""Which model foretells best by how much groups of series will sell beyond their forecasts.

    python -m load_tests.residual_candidates TASK_DIR … [--days N] [--net] [--json]

`online.residuals` learns that residual, a logarithm per group, horizon and day, and asks a model for what comes. Here
the model is another one each time, and all else is as it is there: residuals, averages, bounds, the share of a category
in its own factor, what a change of the shop does. Forecasts are the baseline's over the last days before a task's first
cutoff; with ``--net`` also those of one net over the last four horizons before it, fitted to what lies before these.

A residual of so many buckets ahead is learned when its bucket is final. Figures are WQL of forecasts times the factor
against that of forecasts as they are, over all steps, for a sampled horizon's factor acts on those near it: wherever
there is a factor (``alone``), or where the guard lets it act (``guarded``); the guard sees the sampled horizons, as a
learner's does. Then microseconds per group, horizon and day, for learning and foretelling.

In: task folders (`models.task`). Out: a table, or JSON. Must not know: engines. Rule: nothing at or after the first
cutoff is read; no column of the tasks reaches that far.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from river.linear_model import LinearRegression
from river.optim import SGD, AdaGrad
from river.time_series import SNARIMAX, HoltWinters
from river.tree import HoeffdingAdaptiveTreeRegressor

from load_tests.fit_options import tell
from models.baseline import SeasonalWindow
from models.crew import Choice
from models.finetune import finetune
from models.forecast import F32, Basis, Forecaster
from models.panel import Panel
from models.recipe import Recipe
from models.task import Task, read_task
from models.train import held_back
from online.correction import band_of
from online.drift import Drift, load
from online.guard import Guard
from online.learner import LEARNED
from online.rehearsal import groups_of
from online.residuals import Residuals, group_of
from online.scores import PICK, losses_of

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

WARM_SEASONS = 12
"""Seasons of a task before the baseline is asked: it looks at so many."""


class Foretelling(Protocol):
    """What `Residuals` asks of a model."""

    def predict_one(self, x: dict[int, float]) -> float:
        """Residual that is foretold from averages of those before it."""

    def learn_one(self, x: dict[int, float], y: float) -> object:
        """Take in a residual, and the averages from which it was foretold."""


@dataclass(slots=True)
class Mean:
    """The average that is no shorter than the horizon, as it is."""

    def predict_one(self, x: dict[int, float]) -> float:
        """The first."""
        return x[0]

    def learn_one(self, x: dict[int, float], y: float) -> None:
        """Nothing: averages are learned by `Residuals`."""


@dataclass(slots=True)
class Series:
    """A forecaster of river that knows past residuals and no averages; the last one it learned is of the newest day."""

    forecaster: Any
    horizon: int

    def predict_one(self, x: dict[int, float]) -> float:
        """Residual so many buckets ahead."""
        try:
            return float(self.forecaster.forecast(self.horizon)[-1])
        except IndexError:  # it has not seen enough to begin
            return 0.0

    def learn_one(self, x: dict[int, float], y: float) -> None:
        """Take in the residual."""
        self.forecaster.learn_one(y)


class Swapped(Residuals):
    """Residuals that ask another model, made for a horizon."""

    def __init__(self, max_series: int, season: int, made: Callable[[int], Foretelling]) -> None:
        super().__init__(max_series, LEARNED, season)
        self._made = made

    def _model(self, key: tuple[int, int]) -> Foretelling:
        if (model := self._models.get(key)) is None:
            model = self._models[key] = self._made(self._horizons[key[1]])
            for *known, residual in self._pairs.get(key, []):
                model.learn_one(dict(enumerate(known)), residual)
        found: Foretelling = model
        return found


def _linear(optimiser: Any) -> LinearRegression:
    return LinearRegression(optimizer=optimiser, intercept_lr=0.0)  # nothing is foretold from nothing


def _tree(horizon: int) -> Foretelling:
    tree: Foretelling = HoeffdingAdaptiveTreeRegressor(  # by default it looks for a split every 200 days
        grace_period=14, leaf_model=_linear(SGD(0.3)), drift_window_threshold=28, seed=1
    )
    return tree


def _holt_winters(horizon: int) -> Foretelling:
    return Series(HoltWinters(alpha=0.2, beta=0.05), horizon)  # type: ignore[no-untyped-call]


def _snarimax(horizon: int) -> Foretelling:
    return Series(SNARIMAX(p=2, d=0, q=0, m=7, sp=1, regressor=_linear(SGD(0.1))), horizon)


MODELS: dict[str, Callable[[int], Foretelling] | None] = {
    "bayesian": None,
    "sgd": lambda horizon: _linear(SGD(0.3)),
    "adagrad": lambda horizon: _linear(AdaGrad(0.1)),
    "tree": _tree,
    "holt-winters": _holt_winters,
    "snarimax": _snarimax,
    "mean": lambda horizon: Mean(),
}
"""Candidates, None for what `Residuals` has. Rates are those at which residuals of .1 to .3 are followed within weeks;
Holt-Winters has no season, for river begins it with quotients by a level that is near zero here."""


@dataclass(frozen=True, slots=True)
class Said:
    """What was said at the end of a day: rows, and their quantiles at `SCORE_LEVELS`, (rows, steps, levels)."""

    rows: I64
    quantiles: F32


@dataclass(frozen=True, slots=True)
class Foretold:
    """What was foretold at the end of a day: factors per sampled horizon, (rows, horizons), and which of them act."""

    factors: F32
    acts: list[int]


@dataclass(slots=True)
class Tally:
    """Losses of forecasts as they are, with their factors, and with those that the guard let act; time taken."""

    losses: F64 = field(default_factory=lambda: np.zeros(3))
    demand: float = 0.0
    updates: int = 0
    spent_s: float = 0.0

    def add(self, losses: F64, acts: int, demand: float) -> None:
        """Take in what forecasts lost as they are and with factors, one of which was published."""
        self.losses += (*losses, losses[acts])
        self.demand += demand

    @contextmanager
    def timed(self, updates: int = 0) -> Iterator[None]:
        """Add the time that something takes."""
        begun_s = time.process_time()
        yield
        self.spent_s += time.process_time() - begun_s
        self.updates += updates


def before(task: Task, last: int) -> Task:
    """A task without the columns from `last` on."""
    return replace(
        task, demand=task.demand[:, :last], known={name: matrix[:, :last] for name, matrix in task.known.items()},
        past={name: matrix[:, :last] for name, matrix in task.past.items()},
    )  # fmt: skip


def said_by(forecaster: Forecaster, task: Task, days: range) -> dict[int, Said]:
    """What a forecaster says at the end of each day, of series that have sold for a season."""
    panel, said = Panel(task), {}
    for day in days:
        known = np.isfinite(task.demand[:, : day + 1])
        rows = np.flatnonzero(known[:, -1] & (known.sum(axis=1) >= task.file.season))
        if not len(rows):
            continue
        forecast = forecaster.forecast(panel.batch(rows, np.full(len(rows), day)))
        old = forecast.basis != Basis.COLD_START
        said[day] = Said(rows[old], forecast.quantiles[old][:, :, PICK])
    return said


def played(task: Task, said: dict[int, Said], days: range, residuals: Residuals) -> Tally:
    """Let one candidate meet the days in turn."""
    groups, steps = groups_of(task), task.file.horizon
    guard = Guard(len(LEARNED), 2, begin=0.995, end=1.0, season=task.file.season)
    drift, band = Drift(task.file.season), band_of(LEARNED, steps).tolist()
    foretold: dict[int, Foretold] = {}
    tally = Tally()
    for day in days:
        bucket = task.first_bucket + day
        for h in range(1, steps + 1):
            index, asked = band[h - 1], day - h
            if asked not in foretold or not (told := np.isfinite(task.demand[said[asked].rows, day])).any():
                continue
            rows, sold = said[asked].rows[told], task.demand[said[asked].rows[told], day]
            plain = losses_of(said[asked].quantiles[told, h - 1], sold)
            corrected = losses_of(plain.quantiles * foretold[asked].factors[told, index, None], sold)
            losses = np.array([plain.loss.sum(), corrected.loss.sum()])
            tally.add(losses, foretold[asked].acts[index], float(sold.sum(dtype=np.float64)))
            if h != LEARNED[index]:
                continue
            guard.add(index, losses)
            with tally.timed(len(np.union1d(group_of(groups[rows]), [0]))):
                residuals.learn(index, bucket, rows, groups[rows], plain.quantiles.mean(axis=1), sold)
            if h == 1 and drift.add(bucket, plain):
                residuals.change()
        if day in said:
            with tally.timed():
                residuals.expect(bucket + 1)
                logs, _ = residuals.foretell(said[day].rows, groups[said[day].rows])
            foretold[day] = Foretold(np.exp(logs), list(guard.acts))
    return tally


def measured(folder: Path, days: int, net: Recipe | None) -> Iterator[dict[str, Any]]:
    """Figures of each candidate on one task; `net` says how one is fitted, None for the baseline alone."""
    whole = read_task(folder)
    cutoff = int(whole.cutoff.min())
    task, season = before(whole, cutoff), whole.file.season
    spans: list[tuple[Forecaster, range]] = [
        (SeasonalWindow(), range(max(cutoff - days, WARM_SEASONS * season), cutoff))
    ]
    with tempfile.TemporaryDirectory(prefix="shelftide-candidates-") as scratch:
        if net is not None:
            seen = held_back(Panel(whole), cutoff)
            fitted = finetune(folder, Path(scratch), recipe=net, last=seen, choices=[Choice("full", False, 0.0)])
            spans.append((fitted.forecaster("net"), range(seen, cutoff)))
        for forecaster, span in spans:
            yield from compared(folder.name, task, forecaster, span)


def compared(name: str, task: Task, forecaster: Forecaster, days: range) -> Iterator[dict[str, Any]]:
    """Figures of each candidate over some days of a task."""
    said = said_by(forecaster, task, days)
    for model, made in MODELS.items():
        size, season = len(task.ids), task.file.season
        tally = played(task, said, days, Residuals(size, LEARNED, season) if made is None
                       else Swapped(size, season, made))  # fmt: skip
        none, alone, guarded = tally.losses.tolist()
        if not none:
            return
        yield {
            "task": name, "forecaster": forecaster.name, "days": len(days), "model": model,
            "wql": round(none / len(PICK) / tally.demand, 5) if tally.demand else None,
            "alone": round(alone / none - 1, 5), "guarded": round(guarded / none - 1, 5),
            "us_a_group": round(tally.spent_s / tally.updates * 1e6, 1),
        }  # fmt: skip


def with_means(found: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """All figures, and then their means over the tasks."""
    lines = defaultdict(list)
    for one in found:
        lines[one["forecaster"], one["model"]].append(one)
        yield one
    for (forecaster, model), some in lines.items():
        yield {"task": "mean", "forecaster": forecaster, "days": None, "model": model, "wql": None,
               **{name: round(float(np.mean([one[name] for one in some])), 5)
                  for name in ("alone", "guarded", "us_a_group")}}  # fmt: skip


def line(one: dict[str, Any]) -> str:
    """A line of the table."""
    begin = f"{one['task']:14} {one['forecaster']:16} {one['model']:12}"
    figures = f"alone {one['alone']:+7.2%}  guarded {one['guarded']:+7.2%}  {one['us_a_group']:7.1f} µs a group"
    return f"{begin} {figures}" + (f"  of {one['wql']:.4f}, {one['days']} days" if one["wql"] is not None else "")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path, nargs="+", help="task folders")
    parser.add_argument("--days", type=int, default=364, help="of the baseline, before the first cutoff")
    parser.add_argument("--net", action="store_true", help="also those of a net")
    parser.add_argument("--steps", type=int, default=Recipe().steps, help="of its fit")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    torch.set_num_threads(1)
    load()
    net = Recipe(steps=options.steps) if options.net else None
    found = (one for folder in options.tasks for one in measured(folder, options.days, net))
    tell(with_means(found), line, as_json=options.json)


if __name__ == "__main__":
    main()
