"""Forecasts of prices on Dominick's orange juice, beside the last price, the plain hurdle and ETS.

    python -m load_tests.price_forecasts [--data FOLDER] [--json] [--ets] [--made-up]

In: `yx.parquet` of the Dominick's panel in the folder named by `--data`.
Out: per forecaster WQL over prices and over the last price's, Brier score of p_change, coverage of the 80 % interval.

A price per store and brand holds for the seven days of its week. The last 20 weeks are scored: 5 cutoffs, 4 weeks
each. Forecasters see the weeks before a cutoff alone. `--ets` fits an ETS to every line (some minutes; needs
statsforecast, which is no dependency). `--made-up` scores made-up lines that no weights were fitted to instead.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from models.corpus_prices import price_corpus
from models.forecast import F32, LEVELS
from models.price import LastPrice, PriceBatch, PriceForecaster, runs_of
from models.price_hurdle import PriceHurdle
from models.price_net import shipped

F64 = npt.NDArray[np.float64]

CUTOFFS, WEEKS = 5, 4
SCORED = tuple(level for level in LEVELS if 0.1 <= level <= 0.9)
_SCORED_AT = [LEVELS.index(level) for level in SCORED]
OUNCES = np.array([64, 96, 64, 64, 64, 96, 64, 64, 64, 64, 128])
"""Of brands 1 to 11: the panel has prices per ounce, shelves have prices per pack."""


@dataclass(frozen=True, slots=True)
class Cutoff:
    """Lines at one cutoff: what may be seen, and what came."""

    batch: PriceBatch
    seen: F32  # (B, weeks) NaN where unknown
    actual: F32  # (B, 4)


def panel(folder: Path) -> F32:
    """Prices per line and week, float32 (lines, weeks), NaN where the panel has none."""
    names = ["store", "brand", "week", *(f"price{brand}" for brand in range(1, 12))]
    table = pq.read_table(folder / "yx.parquet", columns=names)
    store, brand, week = (table[name].to_numpy().astype(np.int64) for name in names[:3])
    per_ounce = np.stack([table[name].to_numpy() for name in names[3:]], axis=1)
    lines, line = np.unique(store * 100 + brand, return_inverse=True)
    out = np.full((len(lines), int(week.max() - week.min()) + 1), np.nan, np.float32)
    out[line, week - week.min()] = np.round(per_ounce[np.arange(len(line)), brand - 1] * OUNCES[brand - 1], 2)
    return out


def cutoffs(prices: F32) -> list[Cutoff]:
    """The last 20 weeks, four at a time; lines without a price in the week before a cutoff are left out."""
    found = []
    for index in range(CUTOFFS):
        cut = prices.shape[1] - CUTOFFS * WEEKS + index * WEEKS
        rows = np.isfinite(prices[:, cut - 1])
        seen, actual = prices[rows, :cut], prices[rows, cut : cut + WEEKS]
        price, began, _ = runs_of(np.repeat(seen, 7, axis=1))
        batch = PriceBatch(price, began, np.full(len(price), 7 * cut - 1, np.int64), 7 * WEEKS)
        found.append(Cutoff(batch, seen, actual))
    return found


def scores(quantiles: F32, p_change: F32, actual: F32, today: F32) -> dict[str, Any]:
    """WQL, Brier score and coverage over what is known of the actual prices; shapes (B, N, Q) and (B, N)."""
    known = np.isfinite(actual)
    levels = np.array(SCORED)
    gap = actual[:, :, None] - quantiles[:, :, _SCORED_AT]
    loss = 2 * np.maximum(levels * gap, (levels - 1) * gap).mean(axis=2)
    changed = (actual != today[:, None]).astype(float)
    inside = (actual >= quantiles[:, :, LEVELS.index(0.1)]) & (actual <= quantiles[:, :, LEVELS.index(0.9)])
    return {
        "wql": float(loss[known].sum() / actual[known].sum()),
        "brier": float(((p_change - changed) ** 2)[known].mean()),
        "coverage_80": float(inside[known].mean()),
        "n": int(known.sum()),
        "changed": float(changed[known].mean()),
    }


def by_forecaster(parts: Sequence[Cutoff], forecaster: PriceForecaster) -> dict[str, Any]:
    """Score a forecaster on all cutoffs; the first day of each week stands for it."""
    began = time.process_time()
    found = [forecaster.forecast(part.batch) for part in parts]
    took = time.process_time() - began
    quantiles = np.concatenate([one.quantiles[:, ::7] for one in found])
    p_change = np.concatenate([one.p_change[:, ::7] for one in found])
    result = scores(quantiles, p_change, *_truth(parts))
    return {**result, "lines_per_s": round(len(quantiles) / max(took, 1e-9))}


def climatology(parts: Sequence[Cutoff]) -> F32:
    """P_change of each line: the share of weeks before the cutoff whose price was not the week before's, (B, 4)."""
    rows = []
    for part in parts:
        pair = np.isfinite(part.seen[:, 1:]) & np.isfinite(part.seen[:, :-1])
        changed = (part.seen[:, 1:] != part.seen[:, :-1]) & pair
        share = changed.sum(axis=1) / np.maximum(pair.sum(axis=1), 1)
        rows.append(np.repeat(share[:, None], part.actual.shape[1], axis=1).astype(np.float32))
    return np.concatenate(rows)


def best_constant(parts: Sequence[Cutoff]) -> F32:
    """P_change as a stronger climatology: per line and lag, how often prices a lag apart differed before, (B, 4)."""
    rows = []
    for part in parts:
        lags = range(1, part.actual.shape[1] + 1)
        both = [np.isfinite(part.seen[:, lag:]) & np.isfinite(part.seen[:, :-lag]) for lag in lags]
        moved = [((part.seen[:, n:] != part.seen[:, :-n]) & b).sum(axis=1) for n, b in zip(lags, both, strict=True)]
        share = [m / np.maximum(b.sum(axis=1), 1) for m, b in zip(moved, both, strict=True)]
        rows.append(np.stack(share, axis=1).astype(np.float32))
    return np.concatenate(rows)


def _truth(parts: Sequence[Cutoff]) -> tuple[F32, F32]:
    return np.concatenate([part.actual for part in parts]), np.concatenate([part.batch.price[:, 0] for part in parts])


def by_ets(parts: Sequence[Cutoff]) -> dict[str, Any] | None:
    """Score AutoETS without season on the weekly prices; None where statsforecast is not installed."""
    try:
        model_of = importlib.import_module("statsforecast.models").AutoETS
    except ImportError:
        return None
    coverages = [80, 60, 40, 20]
    rows = []
    for part in parts:
        for line in _filled(part.seen).astype(np.float64):
            found = model_of(season_length=1).forecast(y=line, h=WEEKS, level=coverages)
            low = [found[f"lo-{level}"] for level in coverages]
            high = [found[f"hi-{level}"] for level in reversed(coverages)]
            nine = np.stack([*low, found["mean"], *high], axis=1)  # (4, 9)
            full = np.zeros((WEEKS, len(LEVELS)), np.float32)
            full[:, _SCORED_AT] = np.maximum(np.nan_to_num(nine, nan=float(line[-1])), 0)
            rows.append(full)
    quantiles = np.stack(rows)
    actual, today = _truth(parts)
    found = scores(quantiles, np.zeros(actual.shape, np.float32), actual, today)
    del found["brier"]  # a continuous distribution says nothing of a price that stays
    return found


def _filled(seen: F32) -> F32:
    """Weeks that are not known have the price of the week before; leading ones that of the first known."""
    at = np.maximum.accumulate(np.where(np.isfinite(seen), np.arange(seen.shape[1]), -1), axis=1)
    first = np.isfinite(seen).argmax(axis=1)[:, None]
    return np.take_along_axis(seen, np.where(at < 0, first, at), axis=1)


def made_up(lines: int = 3000, days: int = 300, seed: int = 77) -> dict[str, Any]:
    """Score on made-up lines of another seed than the training's; prices over today's, so that each line counts."""
    corpus = price_corpus(lines, days + 30, seed)
    price, began, promo = runs_of(corpus.price[:, :days], corpus.promo[:, :days])
    batch = PriceBatch(price, began, np.full(lines, days - 1, np.int64), 30, promo)
    today = price[:, 0]
    out = {}
    for forecaster in (LastPrice(), PriceHurdle(), shipped()):
        found = forecaster.forecast(batch)
        over = found.quantiles / today[:, None, None]
        one = np.ones(lines, np.float32)
        out[forecaster.name] = scores(over, found.p_change, corpus.price[:, days:] / today[:, None], one)
    return out


def report(folder: Path, *, ets: bool) -> dict[str, Any]:
    """All rows of the table."""
    parts = cutoffs(panel(folder))
    forecasters: tuple[PriceForecaster, ...] = (LastPrice(), PriceHurdle(), shipped())
    rows: dict[str, Any] = {one.name: by_forecaster(parts, one) for one in forecasters}
    if ets:
        found = by_ets(parts)
        rows["ETS"] = found or "statsforecast is not installed here; ETS was left out"
    actual, today = _truth(parts)
    points = np.repeat(today[:, None, None], actual.shape[1], axis=1).repeat(len(LEVELS), axis=2)
    for name, p_change in (("climatology", climatology(parts)), ("climatology by lag", best_constant(parts))):
        rows[name] = {"brier": scores(points, p_change, actual, today)["brier"]}
    last = rows[LastPrice().name]["wql"]
    for row in rows.values():
        if isinstance(row, dict) and "wql" in row:
            row["over_last_price"] = row["wql"] / last
    return rows


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with yx.parquet")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--ets", action="store_true")
    parser.add_argument("--made-up", action="store_true")
    args = parser.parse_args()
    if args.made_up:
        rows = made_up()
    elif args.data is None or not (args.data / "yx.parquet").exists():
        print("the Dominick's panel is not here (--data FOLDER with yx.parquet); nothing was scored")
        return
    else:
        rows = report(args.data, ets=args.ets)
    if args.json:
        print(json.dumps(rows))
        return
    for name, row in rows.items():
        print(f"{name[:24]:<24}", row if isinstance(row, str) else _line(row))


def _line(row: dict[str, Any]) -> str:
    return "  ".join(
        f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()
    )


if __name__ == "__main__":
    main()
