"""How soon detectors of drift see a change, and how often they see one where there is none.

    python -m load_tests.drift [--seeds N] [--series N] [--buckets N] [--json]

A shard of series with gamma-distributed levels sells Poisson amounts; its forecasts are right until, after `BEFORE`
buckets, all demand is multiplied by a factor at once, or half of it moves from one half of the series to the other.
Delay is counted in buckets, 1 for the first that differs, and what is not seen within `AFTER` is missed.

In: sizes. Out: a table, or JSON. Must not know: engines, shops.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np

from models.forecast import F32
from online.drift import Drift, load
from online.scores import SCORE_LEVELS, losses_of

BEFORE, AFTER = 60, 60
FACTORS = (0.5, 0.7, 0.85, 1.15, 1.3, 2.0)
MOVES = "half moves"


class Shard:
    """Series, forecasts that are right, and what is sold."""

    def __init__(self, series: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.slots = np.arange(series)
        self.level = self.random.gamma(1.0, 4.0, series)
        draws = self.random.poisson(self.level, (4000, series))
        self.quantiles: F32 = np.quantile(draws, SCORE_LEVELS, axis=0).T.astype(np.float32)

    def sold(self, change: float | str) -> F32:
        """Demand of a bucket."""
        by = np.where(self.slots // 8 % 2, 0.5, 1.5) if change == MOVES else float(change)
        sold: F32 = self.random.poisson(self.level * by).astype(np.float32)
        return sold


def delay(series: int, seed: int, change: float | str) -> tuple[int | None, str]:
    """Buckets until a change is seen, None where it is not, and by which signal and detector."""
    shard, drift = Shard(series, seed), Drift(7)
    for bucket in range(BEFORE + AFTER):
        sold = shard.sold(change if bucket >= BEFORE else 1.0)
        found = drift.add(bucket, losses_of(shard.quantiles, sold))
        if found and bucket >= BEFORE:
            return bucket - BEFORE + 1, f"{found[0].signal} by {found[0].detector}"
    return None, ""


def false_alarms(series: int, seeds: int, buckets: int) -> dict[str, Any]:
    """Changes seen where there are none, and what a bucket takes."""
    load()
    found, spent_s = 0, 0.0
    for seed in range(seeds):
        shard, drift = Shard(series, 1000 + seed), Drift(7)
        demand = [shard.sold(1.0) for _ in range(buckets)]
        started_s = time.process_time()
        for bucket, sold in enumerate(demand):
            found += len(drift.add(bucket, losses_of(shard.quantiles, sold)))
        spent_s += time.process_time() - started_s
    return {"buckets": seeds * buckets, "changes_seen": found, "ms_a_bucket": round(spent_s / seeds / buckets * 1e3, 2)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--series", type=int, default=400)
    parser.add_argument("--buckets", type=int, default=365)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    quiet = false_alarms(options.series, options.seeds, options.buckets)
    changes: dict[str, dict[str, Any]] = {}
    for change in (*FACTORS, MOVES):
        seen = [delay(options.series, seed, change) for seed in range(options.seeds)]
        delays = [buckets for buckets, _ in seen if buckets is not None]
        changes[str(change)] = {
            "seen": len(delays), "of": options.seeds, "median_delay": statistics.median(delays) if delays else None,
            "most": max(delays, default=None), "by": max({who for _, who in seen}, key=[who for _, who in seen].count),
        }  # fmt: skip
    if options.json:
        print(json.dumps({"series": options.series, "quiet": quiet, "changes": changes}))
        return
    print(f"{quiet['changes_seen']} changes seen in {quiet['buckets']:,} buckets without one; "
          f"{quiet['ms_a_bucket']} ms of CPU a bucket of {options.series} series")  # fmt: skip
    for name, one in changes.items():
        took = f"after {one['median_delay']} buckets in the median, {one['most']} at most"
        print(f"demand x {name:10} seen {one['seen']} of {one['of']}, {took}, mostly {one['by']}")


if __name__ == "__main__":
    main()
