"""What titles and kinds are worth for items without history: WQL of items left out, by what is borrowed for them.

In: task folders (`models.task`), some with titles or kinds in ``static.parquet``. Out: tables, or ``--json``.
Must not know: anything but `models`. Rule: of an item left out nothing is shown but its title, its kinds and as many
days as the table says; whoever lends to it knows nothing later than the cutoff.

A fifth of the items is left out, several times, and forecast from the others at every cutoff of the task, as if they
were new. The second table shows some days of them, at four windows that end before the first cutoff: it is what choices
in `models.cold_start` were made by. WQL is the mean over the levels .1 to .9, and the spread is that between seeds.

Run: ``python -m load_tests.cold_start TASK_DIR …``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models.baseline import SeasonalWindow, phase_quantiles
from models.cold_start import Likeness, borrow, donors, judged, likeness
from models.forecast import F32, LEVELS, ForecastBatch, Forecaster, Pool, take
from models.lender import kinds_of
from models.measures import SCORED, pinball
from models.named import PRETRAINED, forecaster_named
from models.panel import Panel
from models.quantiles import I64
from models.task import TaskError, read_task

SHARE = 5
"""One item in so many is left out."""
DAYS = (0, 1, 2, 3, 4, 6)
WINDOWS = 4
Embed = Callable[[Sequence[str | None]], F32]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path, nargs="+", help="task folders")
    parser.add_argument("--seeds", type=int, default=3, help="how often items are left out")
    parser.add_argument("--cache", type=Path, help="folder of embeddings that later runs read")
    parser.add_argument("--young", action="store_true", help="also items with some days of history")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error("seeds must be at least 1")
    try:
        shops = [Shop(folder, options.cache) for folder in options.tasks]
    except TaskError as error:
        sys.exit(f"{error}")
    figures = [measured(shop, options.seeds, young=options.young) for shop in shops]
    print(json.dumps(figures) if options.json else "\n\n".join(table(one) for one in figures))


class Shop:
    """A task with the ways in which its items can be alike."""

    def __init__(self, folder: Path, cache: Path | None = None) -> None:
        self.task = read_task(folder)
        if len(self.task.ids) < 2 * SHARE:
            raise TaskError(f"{folder}: has {len(self.task.ids)} series, too few to leave some of them out.")
        self.name, self.panel = self.task.file.name or folder.name, Panel(self.task)
        titles = self.task.titles if any(self.task.titles) else []
        kinds = kinds_of(self.task)
        self.alike: dict[str, tuple[F32 | None, tuple[I64, ...]]] = {"all alike": (None, ())}
        if titles:
            vectors = _embedding(cache)(titles)
            self.alike |= {"words": (words(titles), ()), "words and letters": (words(titles, letters=True), ())}
            self.alike["text"] = (vectors, ())
        if kinds:
            self.alike["category"] = (None, kinds)
        if titles and kinds:
            self.alike["text and category"] = (vectors, kinds)

    @property
    def lacks(self) -> list[str]:
        """What cannot be measured, a sentence each."""
        told = "{} has no {} in static.parquet: what {} worth is not measured on it."
        lines = [told.format(self.name, "column title", "titles are")] if "text" not in self.alike else []
        return lines + ([told.format(self.name, "kinds", "they are")] if "category" not in self.alike else [])

    def like(self, way: str, some: I64, others: I64) -> Likeness:
        """How like some items are to others, in one of the ways."""
        vectors, kinds = self.alike[way]
        pair = None if vectors is None else (vectors[some], vectors[others])
        return likeness(pair, tuple((codes[some], codes[others]) for codes in kinds))


@dataclass
class Sums:
    """Loss and demand of each seed."""

    loss: list[float]
    demand: list[float]

    @property
    def wql(self) -> np.ndarray:
        """Of each seed."""
        return np.asarray(np.array(self.loss) / np.array(self.demand))

    def figure(self, plain: Sums) -> dict[str, float]:
        """Mean over seeds and spread between them, of the WQL and of what it gains over another on the same items."""
        pairs = {"wql": self.wql, "gain": 1 - self.wql / plain.wql}
        out = {name: round(float(values.mean()), 4) for name, values in pairs.items()}
        several = len(self.loss) > 1
        return out | {f"{n}_spread": round(float(v.std(ddof=1)), 4) if several else 0.0 for n, v in pairs.items()}


def measured(shop: Shop, seeds: int, *, young: bool) -> dict[str, Any]:
    """Leave items out and forecast them."""
    encoder = forecaster_named(PRETRAINED, Path())
    sums: dict[str, Sums] = {}
    grown: dict[str, Sums] = {}
    first = int(shop.task.cutoff.min())
    horizon = shop.panel.horizon
    for seed in range(seeds):
        out = np.sort(np.random.default_rng(seed).permutation(len(shop.task.ids))[: len(shop.task.ids) // SHARE])
        for cutoff in np.unique(shop.task.cutoff).tolist():
            items, actual = _items(shop, out, cutoff, shop.task.demand.shape[1] - 1)
            for name, quantiles in unseen(shop, out, items, cutoff, encoder):
                _add(sums, name, seed, seeds, actual, quantiles)
        for cutoff in range(first - WINDOWS * horizon, first - horizon + 1, horizon) if young else ():
            items, actual = _items(shop, out, cutoff, first)
            for name, quantiles in seen_for_days(shop, out, items, cutoff, encoder):
                _add(grown, name, seed, seeds, actual, quantiles)
    return {
        "task": shop.name,
        "items": len(shop.task.ids),
        "lacks": shop.lacks,
        "unseen": {name: one.figure(sums["all alike"]) for name, one in sums.items()},
        "young": {name: one.figure(grown["0 pool"]) for name, one in grown.items()},
    }


def unseen(shop: Shop, out: I64, items: I64, cutoff: int, encoder: Forecaster) -> Iterator[tuple[str, F32]]:
    """Forecasts of items of which nothing has been seen, by what is borrowed; then with all of their history."""
    lenders, old = _lenders(shop, out, cutoff)
    whole = shop.panel.batch(items, np.full(len(items), cutoff))
    cold = young(whole, 0)
    yield "mean of quantiles", SeasonalWindow().forecast(replace(cold, pool=means(old))).quantiles
    for way in shop.alike:
        like, among = shop.like(way, items, lenders), shop.like(way, lenders[judged(len(lenders))], lenders)
        yield way, SeasonalWindow().forecast(replace(cold, borrowed=borrow(old, cold, like, among))).quantiles
    yield "own history, baseline", SeasonalWindow().forecast(whole).quantiles
    yield "own history, encoder", encoder.forecast(whole).quantiles


def seen_for_days(shop: Shop, out: I64, items: I64, cutoff: int, encoder: Forecaster) -> Iterator[tuple[str, F32]]:
    """Forecasts of items that have been seen for some days, by the most that is known of likeness."""
    lenders, old = _lenders(shop, out, cutoff)
    whole, way = shop.panel.batch(items, np.full(len(items), cutoff)), list(shop.alike)[-1]
    like, among = shop.like(way, items, lenders), shop.like(way, lenders[judged(len(lenders))], lenders)
    for days in DAYS:
        cold = replace(young(whole, days), pool=means(old))
        yield f"{days} pool", SeasonalWindow().forecast(cold).quantiles
        yield f"{days} encoder", encoder.forecast(cold).quantiles
        yield (
            f"{days} borrowed",
            SeasonalWindow().forecast(replace(cold, borrowed=borrow(old, cold, like, among))).quantiles,
        )


def means(old: ForecastBatch) -> Pool:
    """The mean of everybody's quantiles, which mixtures are measured against."""
    return Pool(phase_quantiles(old).mean(axis=0, keepdims=True))


def young(batch: ForecastBatch, days: int) -> ForecastBatch:
    """The rows as if they had begun so many days ago."""
    before = batch.demand.shape[1] - days
    demand, weeks = batch.demand.copy(), None if batch.weeks is None else np.full_like(batch.weeks, np.nan)
    demand[:, :before] = np.nan
    channels = {name: np.where(np.isfinite(demand), one, np.float32(np.nan)) for name, one in batch.channels.items()}
    return replace(batch, demand=demand, weeks=weeks, channels=channels)


def words(titles: Sequence[str | None], *, letters: bool = False) -> F32:
    """Vectors of length one of the words of titles, rare ones counting more, and of 3 and 4 letters in a row if asked.

    Examples
    --------
    >>> mug, cup = words(["RED MUG", "red cup"])
    >>> bool(0 < mug @ cup < 1)
    True
    """
    told = []
    for title in titles:
        parts = re.findall(r"[^\W_]+", (title or "").lower())
        line = f" {' '.join(parts)} "
        runs = [line[at : at + n] for n in (3, 4) for at in range(len(line) - n + 1)] if letters else []
        told.append(set(parts) | set(runs))
    number = {word: index for index, word in enumerate(sorted(set().union(*told)))}
    counts = np.zeros((len(told), max(1, len(number))))
    for row, parts_of in enumerate(told):
        counts[row, [number[word] for word in parts_of]] = 1
    counts *= np.log((1 + len(told)) / (1 + counts.sum(axis=0))) + 1
    length = np.linalg.norm(counts, axis=1, keepdims=True)
    out: F32 = (counts / np.where(length > 0, length, 1)).astype(np.float32)
    return out


def table(figures: dict[str, Any]) -> str:
    """Lay out the figures of one task."""
    lines = [f"{figures['task']}: {figures['items']} items, one in {SHARE} left out", *figures["lacks"]]
    lines.append(f"  {'nothing seen; WQL':24s}                  better than all alike by")
    for name, one in figures["unseen"].items():
        wql, gain = f"{one['wql']:.4f} ± {one['wql_spread']:.4f}", f"{one['gain']:+.1%} ± {one['gain_spread']:.1%}"
        lines.append(f"  {name:24s} {wql} {gain:>20s}")
    if figures["young"]:
        lines.append(f"  {'days of history; WQL':24s} " + " ".join(f"{days:>7d}" for days in DAYS))
        for way in ("pool", "encoder", "borrowed"):
            row = " ".join(f"{figures['young'][f'{days} {way}']['wql']:7.4f}" for days in DAYS)
            lines.append(f"  {way:24s} {row}")
    return "\n".join(lines)


def _lenders(shop: Shop, out: I64, cutoff: int) -> tuple[I64, ForecastBatch]:
    """Who lends at a cutoff: everybody who was not left out and has a season of history."""
    others = np.setdiff1d(np.arange(len(shop.task.ids)), out)
    batch = shop.panel.batch(others, np.full(len(others), cutoff))
    rows = donors(batch)
    return others[rows], take(batch, rows)


def _items(shop: Shop, out: I64, cutoff: int, last: int) -> tuple[I64, F32]:
    """Those of the items left out that are sold at a cutoff, and what they sold then."""
    items = out[np.isfinite(shop.task.demand[out, cutoff])]
    return items, shop.panel.actual(items, np.full(len(items), cutoff), last)


def _add(sums: dict[str, Sums], name: str, seed: int, seeds: int, actual: F32, quantiles: F32) -> None:
    one = sums.setdefault(name, Sums([0.0] * seeds, [0.0] * seeds))
    said = quantiles[:, :, [LEVELS.index(level) for level in SCORED]].astype(np.float64)
    known = np.isfinite(actual)
    losses = 2 * pinball(np.where(known, actual, 0).astype(np.float64), said, np.array(SCORED)).mean(axis=2)
    one.loss[seed] += float(losses[known].sum())
    one.demand[seed] += float(np.abs(actual[known]).sum())


def _embedding(cache: Path | None) -> Embed:
    from models.text import TextEncoder, text_of  # torch takes seconds to import
    from models.text_cache import TextCache

    encoder = TextEncoder()
    embed = encoder.embed if cache is None else TextCache(cache, encoder).embeddings
    return lambda titles: embed([text_of(title) for title in titles])


if __name__ == "__main__":
    main()
