"""Commands about models: `backtest` and `train`.

In: options. Out: a table of forecasts; fitted nets.
Must not know: how forecasts are made. Rule: nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shelftide.commands_registry import Add, RegistryFolder, added
from shelftide.report import Json, print_json, print_table, sharing

if TYPE_CHECKING:
    from models.finetune import Finetuned
    from models.forecast import Forecaster

TaskDir = Annotated[
    Path, typer.Argument(metavar="TASK_DIR", help="Folder of panel.parquet, static.parquet, task.json.")
]
TableOut = Annotated[Path, typer.Option("--out", metavar="F.parquet", help="Parquet file to write.")]
FolderOut = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write, which must not exist yet.")]
Model = Annotated[
    Literal["baseline", "pretrained", "finetuned"],
    typer.Option(
        help="Who answers: `pretrained` knows made-up shops alone, `finetuned` what lies before the first cutoff."
    ),
]
Cumulative = Annotated[bool, typer.Option("--cumulative", help="Add c0.01 … cmean: demand summed over the days 1 … h.")]
Seeds = Annotated[int, typer.Option(min=1, max=20, help="Nets to fit and average.")]
MaybeTaskDir = Annotated[
    Path | None, typer.Argument(metavar="[TASK_DIR]", help="Folder of panel.parquet, static.parquet, task.json.")
]
Pretrain = Annotated[bool, typer.Option("--pretrain", help="Fit to made-up shops instead of a task.")]
MaybeSteps = Annotated[
    int | None,
    typer.Option("--steps", min=1, max=1_000_000, help="Steps of the optimiser: 1,000, or 3,000 to pretrain."),
]
Steps = Annotated[int, typer.Option(min=1, max=1_000_000, help="Steps of the optimiser for each net.")]


def backtest(
    task_dir: TaskDir,
    out: TableOut,
    model: Model = "baseline",
    seeds: Seeds = 1,
    steps: Steps = 1000,
    cumulative: Cumulative = False,
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Also write a page of figures.")] = None,
    json: Json = False,
) -> None:
    """Forecast a task at each of its cutoffs, reading nothing later.

    Reads panel.parquet (unique_id, ds, y, covariates), static.parquet (unique_id) and task.json (freq, horizon,
    season, cutoffs, known_future, past_only, open, levels) in TASK_DIR.

    Writes one row per series, cutoff and day: unique_id, cutoff, ds, h, one q column per level, mean. The file appears
    when it is complete. Where the panel goes on after the cutoffs, what was said is held against what came: WQL, WAPE,
    MASE, coverage, bias, and with --report a page with pictures, beside the baseline.
    """
    for path, option in ((out, "--out"), (report, "--report")):
        if path is not None and path.exists() and not path.is_file():
            raise typer.BadParameter(f"{str(path)!r} is no regular file", param_hint=option)
    if report is not None and report.resolve() == out.resolve():
        raise typer.BadParameter(f"{str(report)!r} is the file of --out", param_hint="--report")
    from models.backtest import write_backtest
    from models.baseline import SeasonalWindow
    from models.judge import Judge
    from models.task import read_task
    from shelftide.backtest_report import POLICIES, Backtest, measure_rows, measures, write_report

    figures: dict[str, Any] = {"model": model, "out": str(out)}
    judge = Judge(read_task(task_dir))
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="shelftide-backtest-") as folder:
        forecaster: Forecaster = SeasonalWindow()
        if model == "finetuned":
            fitted = _finetuned(task_dir, Path(folder), seeds, steps, figures)
            forecaster = fitted.forecaster(f"finetuned-{seeds}")
        elif model == "pretrained":
            forecaster = _pretrained()
        started_s = time.perf_counter()
        with sharing(f"forecasting {task_dir} with {forecaster.name}") as progress:
            watch = judge.telling(progress)
            figures["rows"] = write_backtest(judge.task, forecaster, out, cumulative=cumulative, watch=watch)
        figures["seconds"] = round(time.perf_counter() - started_s, 3)
        figures["measures"] = measures(judge)
        if report is not None:
            write_report(report, Backtest(judge, forecaster, POLICIES[model]))
            figures["report"] = str(report)
    if json:
        print_json(figures)
    else:
        told = [("rows", f"{figures['rows']:,}"), ("model", forecaster.name), ("file", str(out)),
                ("seconds", f"{figures['seconds']:.1f}"), *measure_rows(judge)]  # fmt: skip
        print_table("backtest", told + ([("report", str(report))] if report else []) + _told(figures))


def _write_pretrained(out: Path, steps: int | None, figures: dict[str, Any]) -> int:
    """Fit a net to made-up shops and write it; how many there are comes back."""
    from dataclasses import replace

    from models.pretrain import RECIPE, pretrain

    recipe, started_s = RECIPE if steps is None else replace(RECIPE, steps=steps), time.perf_counter()
    with sharing("fitting a net to made-up shops") as progress:
        model = pretrain(recipe, progress=lambda done: progress(done / recipe.steps))
    model.save_pretrained(out / "0")
    figures |= {"fit_s": round(time.perf_counter() - started_s, 1), "choices": []}
    return 1


def _pretrained() -> Forecaster:
    from models.named import PRETRAINED, SHIPPED, forecaster_named

    return forecaster_named(PRETRAINED, SHIPPED)


def train(
    context: typer.Context,
    out: FolderOut,
    task_dir: MaybeTaskDir = None,
    pretrain: Pretrain = False,
    seeds: Seeds = 1,
    steps: MaybeSteps = None,
    add: Add = False,
    registry: RegistryFolder = None,
    json: Json = False,
) -> None:
    """Fit nets to what lies before the first cutoff of a task, or to all of it where it has none.

    Reads panel.parquet, static.parquet and task.json in TASK_DIR, as `backtest` does. With --pretrain it reads nothing:
    the net is fitted to made-up shops, as the one in the package was.

    Writes a folder per net (config.json, model.safetensors), which Hugging Face's AutoModel reads once `models.encoder`
    is imported, and card.json: how they were made. Whether days of the month and of the year are read is chosen by
    validation on the last weeks.
    """
    if out.exists():
        raise typer.BadParameter(f"{str(out)!r} exists", param_hint="--out")
    if (task_dir is None) != pretrain:
        raise typer.BadParameter("name a task or say --pretrain, one of the two", param_hint="TASK_DIR")
    if registry is not None and not add:
        raise typer.BadParameter("says where to --add the model; say both", param_hint="--registry")
    figures: dict[str, Any] = {"out": str(out)}
    if task_dir is None:
        seeds = _write_pretrained(out, steps, figures)
    else:
        _finetuned(task_dir, out, seeds, 1000 if steps is None else steps, figures)
    from shelftide.cards import write_card

    figures["model"] = write_card(context, out, task_dir, figures["choices"])
    if add:
        figures["added"] = added(out, registry)
    if json:
        print_json(figures)
    else:
        rows = [("nets", str(seeds)), ("folder", str(out)), ("model", figures["model"])]
        print_table("train", rows + _told(figures))


def _finetuned(task_dir: Path, out: Path, seeds: int, steps: int, figures: dict[str, Any]) -> Finetuned:
    """Fit nets, show how far it is, and note what was chosen and how long it took."""
    from models.finetune import finetune
    from models.train import Recipe

    started_s = time.perf_counter()
    with sharing(f"fitting {seeds} net{'s' * (seeds > 1)} to {task_dir}") as progress:
        fitted = finetune(task_dir, out, seeds=seeds, recipe=Recipe(steps=steps), progress=progress)
    figures["fit_s"] = round(time.perf_counter() - started_s, 1)
    figures["choices"] = [{"dates": one.dates, "wql": round(one.wql, 5)} for one in fitted.choices]
    return fitted


def _told(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """What there is to say of a fit."""
    if "fit_s" not in figures:
        return []
    rows = [("seconds of fitting", f"{figures['fit_s']:.1f}")]
    return rows + [
        (f"  validation {'with' if one['dates'] else 'without'} dates", f"WQL {one['wql']:.4f}")
        for one in figures["choices"]
    ]
