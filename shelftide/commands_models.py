"""Commands about models: `backtest`.

In: options. Out: a table of forecasts.
Must not know: how forecasts are made. Rule: nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from shelftide.report import Json, note, print_json, print_table

TaskDir = Annotated[
    Path, typer.Argument(metavar="TASK_DIR", help="Folder of panel.parquet, static.parquet, task.json.")
]
TableOut = Annotated[Path, typer.Option("--out", metavar="F.parquet", help="Parquet file to write.")]
Model = Annotated[Literal["baseline"], typer.Option(help="Which forecaster answers.")]
Cumulative = Annotated[bool, typer.Option("--cumulative", help="Add c0.01 … cmean: demand summed over the days 1 … h.")]


def backtest(
    task_dir: TaskDir, out: TableOut, model: Model = "baseline", cumulative: Cumulative = False, json: Json = False
) -> None:
    """Forecast a task at each of its cutoffs, reading nothing later.

    Reads panel.parquet (unique_id, ds, y, covariates), static.parquet (unique_id) and task.json (freq, horizon,
    season, cutoffs, known_future, past_only, open, levels) in TASK_DIR.

    Writes one row per series, cutoff and day: unique_id, cutoff, ds, h, one q column per level, mean. The file appears
    when it is complete.
    """
    if out.exists() and not out.is_file():
        raise typer.BadParameter(f"{str(out)!r} is no regular file", param_hint="--out")
    from models.backtest import write_backtest
    from models.baseline import SeasonalWindow

    forecaster = SeasonalWindow()
    note(f"forecasting {task_dir} with {forecaster.name}")
    started_s = time.perf_counter()
    rows = write_backtest(task_dir, forecaster, out, cumulative=cumulative)
    seconds = time.perf_counter() - started_s
    figures = {"rows": rows, "model": model, "out": str(out), "seconds": round(seconds, 3)}
    if json:
        print_json(figures)
    else:
        print_table("backtest", [("rows", f"{rows:,}"), ("model", forecaster.name), ("file", str(out)),
                                 ("seconds", f"{seconds:.1f}")])  # fmt: skip
