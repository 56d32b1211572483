"""How many buckets a shop that changes costs its forecasts, with learning and without.

    python -m load_tests.recovery [--series N] [--seeds N] [--models NAMES] [--cases NAMES] [--json]

A shop of six categories sells amounts of a negative binomial distribution, each category with a week of its own; days
are good or bad for all, and every series has promotions, known ahead, two days of some eight. After forty weeks it
changes in one of four ways:

* *level*: everything sells half as much again;
* *promotions*: they lift demand by 1.2, no longer by 2.5;
* *season*: demand grows to double within four weeks, and stays there. That is what a shop keeper calls a new season: it
  comes by degrees, and everything is busier once it is there. A week that turns round is none;
* *dead items*: a third of the series sells nothing any more.

The model answers every day, from twelve weeks before the change to sixteen after it, and a learner corrects it
(`online.rehearsal`). The yardstick is a twin: a shop with the same items, promotions and good days that has always been
in the new regime, forecast by the same model, uncorrected; after the change both sell the same amounts, but for the
four weeks in which the season is coming. The shop's own level before the change would be no yardstick: WQL falls where
demand grows, and moves where a third of the series is gone.

* *Recovery*: the first bucket after the change, 1 for the one that brings it, from which on the WQL of seven buckets
  stays within a tenth of the twin's. Of outcomes forecast one bucket ahead, and of those of all steps; many of the
  latter were forecast before the change, so that *at best* stands beside: the model until the change, its twin since.
* *Excess*: loss of the first eight weeks beyond the twin's, as a share of the twin's.
* *Worse weeks*: those in which what was published lost over half a percent more than the model's own answers, of nine
  before the change and sixteen since, by seed.

A fitted net is fitted to what lies before the first answer, and answers all cases and their twins: what a net would do
that was fitted again is another matter.

In: sizes. Out: a table, or JSON. Must not know: engines.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from models.backtest import answers
from models.crew import Choice
from models.finetune import SCORED, finetune
from models.forecast import LEVELS, Forecast, ForecastBatch, Forecaster
from models.named import BASELINE, PRETRAINED, forecaster_named
from models.panel import Panel
from models.recipe import Recipe
from models.task import Task, read_task
from online.learner import LEARNED, Learner
from online.rehearsal import Rehearsal

F64 = npt.NDArray[np.float64]

CHANGE, LEARNS, WATCHED = 280, 84, 112
"""Day of the change; days before it on which it is answered and learned, and after it."""

FIRST = CHANGE - LEARNS
HORIZON = LEARNED[-1]
BEGUN = dt.datetime(2023, 1, 2)
CASES = ("level", "promotions", "season", "dead items")
FITTED = "fitted"

SHIFT, LIFT, NEW_LIFT, GROWN, GROWS_DAYS, DEAD = 1.5, 2.5, 1.2, 2.0, 28, 1 / 3
"""What the cases do."""

CATEGORIES, MEAN, SPREAD, GOOD_DAYS, PROMOTION_DAYS, PROMOTED = 6, 12.0, 8.0, 0.08, 2, 0.125
"""Of the shop: mean demand of a series and day, shape of the gamma law by which its mean varies from day to day,
deviation of the days that are good or bad for all, days of a promotion, chance that one begins."""

BUCKETS, WITHIN = 7, 0.1
"""Of recovery: buckets whose WQL is looked at together, and how far from the twin's it may be."""

EXCESS_DAYS, COVERED_DAYS, WORSE = 56, 28, 0.005
SPANS = {"week 1": (0, 7), "2": (7, 14), "3-4": (14, 28), "5-8": (28, 56), "9-16": (56, WATCHED)}
"""Days since the change that a table shows together."""


@dataclass(frozen=True, slots=True)
class Shop:
    """What is drawn once of a shop, whatever happens to it; S series, D days."""

    level: F64  # (S,)
    category: npt.NDArray[np.int64]  # (S,)
    week: F64  # (S, 7)
    good: F64  # (D,)
    promo: npt.NDArray[np.bool_]  # (S, D)
    dying: npt.NDArray[np.bool_]  # (S,)
    seed: int

    def demand(self, case: str, *, always: bool = False) -> F64:
        """Units sold, (S, D), of a shop that changes, or that has always been what the other becomes."""
        days = np.arange(CHANGE + WATCHED)
        takes = GROWS_DAYS if case == "season" else 1
        new = np.ones(len(days)) if always else np.clip((days - CHANGE + 1) / takes, 0, 1)  # share of the new regime
        lift = LIFT + (NEW_LIFT - LIFT) * new if case == "promotions" else np.full(len(days), LIFT)
        to = {"level": SHIFT, "season": GROWN}.get(case, 1.0)
        mean = self.level[:, None] * self.week[:, days % 7] * self.good * np.where(self.promo, lift, 1)
        mean *= 1 + (to - 1) * new
        if case == "dead items":
            mean *= 1 - self.dying[:, None] * new
        past, future = (np.random.default_rng([self.seed, part]) for part in (1, 2))  # alike in both after the change
        return np.concatenate([_sold(past, mean[:, :CHANGE]), _sold(future, mean[:, CHANGE:])], axis=1)


def _sold(random: np.random.Generator, mean: F64) -> F64:
    return random.poisson(mean * random.gamma(SPREAD, 1 / SPREAD, mean.shape)).astype(np.float64)


def shop_of(series: int, seed: int) -> Shop:
    """Draw a shop."""
    random, days = np.random.default_rng([seed, 0]), CHANGE + WATCHED
    category = np.arange(series) % CATEGORIES
    weeks = random.gamma(20, 1 / 20, (CATEGORIES, 7))
    begins = random.random((series, days)) < PROMOTED
    promo = np.logical_or.reduce([np.roll(begins, late, axis=1) for late in range(PROMOTION_DAYS)])
    return Shop(
        random.gamma(1.5, MEAN / 1.5, series), category, (weeks / weeks.mean(axis=1, keepdims=True))[category],
        random.gamma(1 / GOOD_DAYS**2, GOOD_DAYS**2, days), promo, random.permutation(series) < series * DEAD, seed,
    )  # fmt: skip


def write_task(folder: Path, shop: Shop, demand: F64, first: int) -> Task:
    """A shop as a task that is answered on every day from one on; its folder may be fitted to."""
    folder.mkdir()
    series, days = demand.shape
    ids = [f"s{n:05d}" for n in range(series)]
    dates = [BEGUN + dt.timedelta(days=n) for n in range(days)]
    pl.DataFrame({
        "unique_id": np.repeat(ids, days), "ds": dates * series, "y": demand.ravel(),
        "promotion": shop.promo.ravel().astype(np.int8),
    }).write_parquet(folder / "panel.parquet")  # fmt: skip
    kinds = [f"category {n}" for n in shop.category.tolist()]
    pl.DataFrame({"unique_id": ids, "category": kinds}).write_parquet(folder / "static.parquet")
    told = {"freq": "D", "horizon": HORIZON, "season": 7, "cutoffs": [f"{day:%Y-%m-%d}" for day in dates[first:-1]],
            "levels": [0.1, 0.5, 0.9], "known_future": ["promotion"]}  # fmt: skip
    (folder / "task.json").write_bytes(msgspec.json.encode(told))
    return read_task(folder)


class Losses:
    """Twice the pinball loss, mean of the levels .1 to .9, and demand, by the day of the outcome and the step."""

    def __init__(self) -> None:
        self.loss, self.demand, self.inside, self.count = np.zeros((4, CHANGE + WATCHED, HORIZON))

    def add(self, panel: Panel, cutoff: int, forecast: Forecast) -> None:
        """Hold the answers of a day to all series against what came."""
        rows, last = np.arange(len(forecast)), CHANGE + WATCHED - 1
        told = min(HORIZON, last - cutoff)
        actual = panel.actual(rows, np.full(len(rows), cutoff), last)[:, :told].astype(np.float64)
        levels, gap = np.array(LEVELS)[list(SCORED)], actual[:, :, None] - forecast.quantiles[:, :told, SCORED]
        day, step = cutoff + 1 + np.arange(told), np.arange(told)
        self.loss[day, step] = 2 * np.maximum(levels * gap, (levels - 1) * gap).mean(axis=2).sum(axis=0)
        self.demand[day, step] = actual.sum(axis=0)
        low, high = (forecast.quantiles[:, :told, LEVELS.index(level)] for level in (0.1, 0.9))
        self.inside[day, step], self.count[day, step] = ((low <= actual) & (actual <= high)).sum(axis=0), len(rows)

    def coverage(self, begin: int, end: int, steps: int = HORIZON) -> float:
        """Share of these outcomes within the 80 % interval, its ends included."""
        days = slice(CHANGE + begin, CHANGE + end)
        return float(self.inside[days, :steps].sum() / self.count[days, :steps].sum())

    def wql(self, begin: int, end: int, steps: int = HORIZON) -> float:
        """Of outcomes of some days since the change, forecast up to so many steps ahead."""
        days = slice(CHANGE + begin, CHANGE + end)
        return float(self.loss[days, :steps].sum() / max(1.0, self.demand[days, :steps].sum()))


class Heard:
    """A forecaster that keeps what it said last."""

    def __init__(self, forecaster: Forecaster) -> None:
        self._forecaster = forecaster
        self.name, self.channels = forecaster.name, forecaster.channels
        self.said: Forecast | None = None

    def forecast(self, batch: ForecastBatch) -> Forecast:
        """Pass on, and keep."""
        self.said = self._forecaster.forecast(batch)
        return self.said


def played(task: Task, forecaster: Forecaster) -> tuple[Losses, Losses]:
    """What was published, and the model's own answers."""
    panel, heard, published, model = Panel(task), Heard(forecaster), Losses(), Losses()
    learner = Learner(heard.name, len(task.ids), task.file.season)
    for part, answer in Rehearsal(task, heard).answers(learner):
        cutoff = int(task.cutoff[part.start])
        published.add(panel, cutoff, answer)
        assert heard.said is not None
        model.add(panel, cutoff, heard.said)
    return published, model


def alone(task: Task, forecaster: Forecaster) -> Losses:
    """The model's answers where nobody learns."""
    panel, losses = Panel(task), Losses()
    for part, answer in answers(task, forecaster):
        losses.add(panel, int(task.cutoff[part.start]), answer)
    return losses


def at_best(model: Losses, twin: Losses) -> Losses:
    """The model's answers until the change was seen, and as in the twin since."""
    out, day, step = Losses(), np.arange(CHANGE + WATCHED)[:, None], np.arange(HORIZON)
    as_twin = twin.loss * model.demand / np.maximum(twin.demand, 1)  # demand differs while the season is coming
    out.loss, out.demand = np.where(day - 1 - step < CHANGE, model.loss, as_twin), model.demand
    return out


def recovery(own: Losses, twin: Losses, steps: int) -> float:
    """First bucket after the change from which on seven buckets stay near the twin's; infinite where none does."""
    begins = range(WATCHED - BUCKETS + 1)
    far = [own.wql(n, n + BUCKETS, steps) > (1 + WITHIN) * twin.wql(n, n + BUCKETS, steps) for n in begins]
    if far[-1]:
        return float("inf")
    return max((n for n, out in enumerate(far) if out), default=-1) + 2


def excess(own: Losses, twin: Losses) -> float:
    """Loss beyond the twin's, as a share of it, of the first eight weeks."""
    days = range(EXCESS_DAYS)
    ideal = sum(twin.wql(n, n + 1) * own.demand[CHANGE + n].sum() for n in days)
    return float(own.loss[CHANGE : CHANGE + EXCESS_DAYS].sum() / ideal - 1)


def weeks_of(published: Losses, model: Losses) -> dict[str, list[float]]:
    """Loss of what was published over the model's, less one, by week: where all steps are met, and since."""
    quiet, since = range(-(LEARNS - HORIZON) // 7 * 7 + 7, 0, 7), range(0, WATCHED, 7)
    return {
        name: [published.wql(n, n + 7) / model.wql(n, n + 7) - 1 for n in begins]
        for name, begins in (("before", quiet), ("since", since))
    }


def measured(folder: Path, shop: Shop, case: str, forecaster: Forecaster) -> dict[str, Any]:
    """Figures of one case, shop and model."""
    published, model = played(write_task(folder / "changes", shop, shop.demand(case), FIRST), forecaster)
    always = write_task(folder / "always", shop, shop.demand(case, always=True), CHANGE - HORIZON)
    twin = alone(always, forecaster)
    rivals = {"model": model, "published": published, "at_best": at_best(model, twin)}
    return {
        "days": {name: [round(one.wql(n, n + 1), 5) for n in range(WATCHED)]
                 for name, one in (("model", model), ("published", published), ("twin", twin))},
        "spans": {name: [one.wql(*span) for span in SPANS.values()] for name, one in (*rivals.items(), ("twin", twin))},
        "one_ahead": {name: recovery(one, twin, 1) for name, one in rivals.items()},
        "all_steps": {name: recovery(one, twin, HORIZON) for name, one in rivals.items()},
        "excess": {name: excess(one, twin) for name, one in rivals.items()},
        "weeks": weeks_of(published, model),
        "coverage80": {name: [one.coverage(0, COVERED_DAYS, steps) for steps in (1, HORIZON)]
                       for name, one in (("model", model), ("published", published))},
    }  # fmt: skip


def forecasters(names: Sequence[str], series: int, seed: int, steps: int | None, scratch: Path) -> Iterator[Forecaster]:
    """Models by their names; one that is fitted knows the shop as it is before anything is answered."""
    for name in names:
        if name != FITTED:
            yield forecaster_named(name, scratch)
            continue
        shop, folder = shop_of(series, seed), scratch / f"{FITTED} {seed}"
        write_task(folder, shop, shop.demand(CASES[0]), FIRST)
        recipe = Recipe() if steps is None else Recipe(steps=steps)
        yield finetune(folder, folder / "nets", recipe=recipe, last=FIRST, processes=1,
                       choices=[Choice("full", False, 0.0)]).forecaster(FITTED)  # fmt: skip


def summed(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Runs of several seeds as one: medians of recoveries, with the soonest and latest, and means of all else."""
    out: dict[str, Any] = {}
    for name in ("days", "spans", "excess", "coverage80"):
        means = {rival: np.mean([run[name][rival] for run in runs], axis=0) for rival in runs[0][name]}
        out[name] = {rival: np.round(mean, 5).tolist() for rival, mean in means.items()}
    for name in ("one_ahead", "all_steps"):
        found = {rival: sorted(run[name][rival] for run in runs) for rival in runs[0][name]}
        out[name] = {
            rival: [None if one == float("inf") else one for one in (statistics.median_high(all_), all_[0], all_[-1])]
            for rival, all_ in found.items()
        }
    for name in ("before", "since"):
        weeks = [week for run in runs for week in run["weeks"][name]]
        out[f"weeks_{name}"] = {"worse": sum(week > WORSE for week in weeks), "of": len(weeks),
                                "worst": round(max(weeks), 4)}  # fmt: skip
    return out


def told(case: str, name: str, one: dict[str, Any]) -> Iterator[str]:
    """Lines of one case and model."""
    weeks = [(when, one[f"weeks_{when}"]) for when in ("before", "since")]
    worse = (f"{week['worse']} of {week['of']} {when} (at most {week['worst']:+.1%})" for when, week in weeks)
    yield f"{case}, {name}: weeks in which it was worse to learn: {', '.join(worse)}"
    yield f"  {'':10}" + "".join(f"{span:>8}" for span in SPANS) + "   excess  one ahead     all steps"
    for rival, spans in one["spans"].items():
        line = f"  {rival:10}" + "".join(f"{wql:8.4f}" for wql in spans)
        if rival in one["excess"]:
            line += f" {one['excess'][rival]:+8.1%}"
            line += "".join(f"  {_buckets(one[view][rival]):12}" for view in ("one_ahead", "all_steps"))
        yield line
    told = ", ".join(f"{rival} {near:.3f} and {all_:.3f}" for rival, (near, all_) in one["coverage80"].items())
    yield f"  80 % interval holds in the first four weeks, one bucket and all steps ahead: {told}"


def _buckets(found: Sequence[float | None]) -> str:
    middle, soonest, latest = (f">{WATCHED - BUCKETS + 1}" if one is None else f"{one:.0f}" for one in found)
    return f"{middle} ({soonest}-{latest})"


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--models", type=_names, default=[BASELINE, PRETRAINED], help=f"the two, and {FITTED}")
    parser.add_argument("--cases", type=_names, default=list(CASES))
    parser.add_argument("--steps", type=int, help=f"of the fit of {FITTED}, if not those of a recipe")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory(prefix="shelftide-recovery-") as scratch:
            made = forecasters(options.models, options.series, seed, options.steps, Path(scratch))
            for name, forecaster in zip(options.models, made, strict=True):
                for case in options.cases:
                    folder = Path(scratch) / f"{name} {case}"
                    folder.mkdir()
                    run = measured(folder, shop_of(options.series, seed), case, forecaster)
                    runs.setdefault((case, name), []).append(run)
    found = {case: {name: summed(runs[case, name]) for name in options.models} for case in options.cases}
    if options.json:
        print(json.dumps({"series": options.series, "seeds": options.seeds, "cases": found}))
        return
    for case, models in found.items():
        for name, one in models.items():
            print("\n".join(told(case, name, one)))


if __name__ == "__main__":
    main()
