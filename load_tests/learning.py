"""What learning costs: labels a second that a learner takes in, and time that a correction adds to a forecast.

    python -m load_tests.learning [--series N] [--days N] [--json]

A learner of one shard meets days of Poisson demand under a model that says the same every day, with everything that it
learns acting; one thread. A label is a forecast of one horizon met by its day.

In: sizes. Out: a table, or JSON. Must not know: engines, Kafka.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np

from models.forecast import LEVELS, Basis, Forecast
from online.drift import load
from online.learner import SUMS, Learner, Truth, kept

HORIZON = 28


def said_of(level: np.ndarray[Any, np.dtype[np.float64]], random: np.random.Generator) -> Forecast:
    """What a model says that knows the levels of all series."""
    draws = random.poisson(level, (400, len(level)))
    one = np.quantile(draws, LEVELS, axis=0).T.astype(np.float32)
    mean = np.repeat(level.astype(np.float32)[:, None], HORIZON, axis=1)
    steps = np.arange(1, HORIZON + 1, dtype=np.float32)
    quantiles = np.repeat(one[:, None], HORIZON, axis=1)
    basis = np.full(len(level), Basis.MODEL, np.uint8)
    return Forecast(quantiles, mean, quantiles * steps[None, :, None], mean * steps, basis)


def measured(series: int, days: int) -> dict[str, Any]:
    """Seconds of CPU of each part."""
    load()
    random = np.random.default_rng(1)
    level = random.gamma(1.0, 8.0, series) + 0.05
    said, slots, groups = said_of(level, random), np.arange(series), np.arange(series) % 12
    learner, observed = Learner("m", series, 7), np.zeros(series, np.float32)
    past = random.poisson(level, (days + SUMS[-1], series)).astype(np.float32)
    spent = dict.fromkeys(("learn", "keep", "correct"), 0.0)
    labels = 0
    for day in range(days):
        begun_s = time.process_time()
        learner.learn(Truth(day, slots, past[day : day + SUMS[-1]].T, groups))
        learner.expect(day + 1)
        learned_s = time.process_time()
        correction = learner.correction(slots, groups)
        waiting = kept(correction, said, None, slots)
        learner.keep(slots, day + 1, waiting)
        kept_s = time.process_time()
        acting = replace(correction, acts=[2] * 5, reads=[True] * 5, sum_reads=[True] * 2)
        acting.applied(said, observed)
        spent["learn"] += learned_s - begun_s
        spent["keep"] += kept_s - learned_s
        spent["correct"] += time.process_time() - kept_s
        labels += sum(met.outcomes for met in learner.met.values())
    taken_s = spent["learn"] + spent["keep"]
    return {
        "series": series, "days": days, "labels": labels, "labels_per_s": round(labels / taken_s),
        "learn_us_per_label": round(spent["learn"] / labels * 1e6, 2),
        "keep_us_per_series": round(spent["keep"] / days / series * 1e6, 2),
        "correct_us_per_series": round(spent["correct"] / days / series * 1e6, 2),
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=2048)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    found = measured(options.series, options.days)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{found['labels']:,} labels of {found['series']:,} series: {found['labels_per_s']:,} a second and core")
    print(f"{found['learn_us_per_label']} µs to learn a label; {found['keep_us_per_series']} µs a series and close to "
          f"keep what will be met; {found['correct_us_per_series']} to correct {HORIZON} steps of one")  # fmt: skip


if __name__ == "__main__":
    main()
