"""Series per second of the encoder as it serves: histories with covariates in, quantiles and sums out.

    python -m load_tests.serving [--model FOLDER] [--rows N] [--horizon H] [--seconds S] [--json]

Every figure counts all of an answer: the columns made of a batch, the passes of the net, the quantiles of sums, and on
CUDA the transfers. A series has 84 days of history with prices and promotions, of which the horizon is known too, named
days, and 104 weeks.

rows      in one process, by rows a call
cores     one process for each core at once, in wall-clock time, as workers of several processes serve
int8      linear layers by `torch.ao.quantization`, the other way that was tried on CPUs
compile   `torch.compile` of the net; needs a C++ compiler, and its first calls are not counted
cuda      where torch finds one

In: sizes. Out: a table, or JSON. Must not know: anything but `models`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from load_tests.baseline import shop
from models.baseline import SeasonalWindow
from models.forecast import ForecastBatch, Forecaster
from models.model_folder import read_model
from models.named import SHIPPED
from models.serving import EncoderForecaster

ROWS = (64, 256, 1024, 2048)
CONTEXT, WEEKS = 84, 104
GOAL_PER_S = 10_000


def covered(rows: int, horizon: int) -> ForecastBatch:
    """Series of all sizes with covariates throughout."""
    random, whole = np.random.default_rng(1), (rows, CONTEXT + horizon)
    promo = (random.random(whole) < 0.1).astype(np.float32)
    price = np.float32(9.5) * np.where(promo > 0, np.float32(0.8), np.float32(1))
    holiday = np.broadcast_to(np.arange(whole[1]) % 45 == 0, whole).astype(np.float32)
    return replace(
        shop(rows, CONTEXT, horizon),
        channels={"price": price[:, :CONTEXT]},
        known={"promo": promo, "price": price, "holiday": holiday},
        weeks=random.poisson(random.gamma(0.7, 35, (rows, 1)), (rows, WEEKS)).astype(np.float32),
    )


def encoder(folder: Path, device: str = "cpu", change: Callable[[Any], Any] = lambda net: net) -> EncoderForecaster:
    """The encoders of a model as they serve, each changed in a way that is tried."""
    torch.set_num_threads(1)
    model = read_model(folder)
    return EncoderForecaster([change(net) for net in model.encoders()], model.name, device)


def per_s(forecaster: Forecaster, batch: ForecastBatch, seconds: float, clock: Callable[[], float]) -> int:
    """Series per second: the median of calls, as many as fit."""
    forecaster.forecast(batch)
    spent, end_s = list[float](), time.monotonic() + seconds
    while not spent or time.monotonic() < end_s:
        start_s = clock()
        forecaster.forecast(batch)
        spent.append(clock() - start_s)
    return round(len(batch) / statistics.median(spent))


def _on_a_core(told: tuple[Path, int, int, float]) -> int:
    folder, rows, horizon, seconds = told
    return per_s(encoder(folder), covered(rows, horizon), seconds, time.perf_counter)


def on_all_cores(folder: Path, rows: int, horizon: int, seconds: float) -> int:
    """Series per second of a process for each core, all at once."""
    cores = os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        return sum(pool.map(_on_a_core, [(folder, rows, horizon, seconds)] * cores, chunksize=1))


def int8(net: Any) -> Any:
    """Linear layers in eight bits."""
    return torch.ao.quantization.quantize_dynamic(net, {torch.nn.Linear}, dtype=torch.qint8)


def compiled(net: Any) -> Any:
    """The pass of a net compiled; its columns are made as before."""
    net.forward = torch.compile(net.forward, dynamic=False)
    return net


def measured(folder: Path, rows: int, horizon: int, seconds: float) -> dict[str, int | str]:
    """Series per second by case; a sentence where a case is not to be had."""
    batch, cpu = covered(rows, horizon), time.process_time
    plain = encoder(folder)
    found: dict[str, int | str] = {"baseline, one process": per_s(SeasonalWindow(), batch, seconds, cpu)}
    for count in sorted({min(count, rows) for count in ROWS} | {rows}):
        found[f"encoder, {count} rows a call"] = per_s(plain, covered(count, horizon), seconds, cpu)
    found[f"encoder, {os.cpu_count()} processes at once"] = on_all_cores(folder, rows, horizon, seconds)
    for name, change in (("int8", int8), ("torch.compile", compiled)):
        try:
            found[f"encoder, {name}"] = per_s(encoder(folder, change=change), batch, seconds, cpu)
        except Exception as error:  # what is tried beside may be missing here
            found[f"encoder, {name}"] = f"not to be had: {str(error).splitlines()[0][:80]}"
    if torch.cuda.is_available():
        found["encoder, cuda"] = per_s(encoder(folder, "cuda"), batch, seconds, time.perf_counter)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHIPPED, help="folder of a model; the shipped one if not given")
    parser.add_argument("--rows", type=int, default=2048, help="rows of a call")
    parser.add_argument("--horizon", type=int, default=28)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each case")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    found = measured(options.model, options.rows, options.horizon, options.seconds)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    if options.json:
        print(json.dumps({"machine": machine, "horizon": options.horizon, "series_per_s": found}))
        return
    print(f"{machine}; {options.horizon} steps, {CONTEXT} days and {WEEKS} weeks of history, three covariates")
    for name, value in found.items():
        print(f"{name:34s} {value:>9,} series/s" if isinstance(value, int) else f"{name:34s} {value}")
    both = found[f"encoder, {os.cpu_count()} processes at once"]
    print(f"goal on two cores: {GOAL_PER_S:,} series/s, {'reached' if int(both) >= GOAL_PER_S else 'not reached'}")


if __name__ == "__main__":
    main()
