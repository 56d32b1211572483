"""The command `backtest`: forecasts of a task at each of its cutoffs.

In: options. Out: a table of forecasts; how good they are.
Must not know: how forecasts are made. Rule: nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shelftide.fitting import fit_nets, fit_rows, refit_nets
from shelftide.fitting_options import Fitting, ModeOption, Seed, Seeds, StartOption, Steps, fitting_of, refuse
from shelftide.report import Json, print_json, print_table, sharing

if TYPE_CHECKING:
    from models.finetune import Finetuned
    from models.forecast import Forecast, Forecaster
    from models.judge import Judge
    from models.task import Task
    from shelftide.backtest_report import Backtest

TaskDir = Annotated[
    Path, typer.Argument(metavar="TASK_DIR", help="Folder of panel.parquet, static.parquet, task.json.")
]
TableOut = Annotated[Path, typer.Option("--out", metavar="F.parquet", help="Parquet file to write.")]
Model = Annotated[
    Literal["baseline", "pretrained", "finetuned"],
    typer.Option(
        help="Who answers: `pretrained` knows made-up shops alone, `finetuned` what lies before the first cutoff."
    ),
]
Cumulative = Annotated[bool, typer.Option("--cumulative", help="Add c0.01 … cmean: demand summed over the days 1 … h.")]
Refit = Annotated[
    bool, typer.Option("--refit", help="Fit anew at each cutoff, to everything up to it; a policy of its own.")
]
Online = Annotated[
    bool,
    typer.Option(
        "--online",
        help="Forecast every day up to the last cutoff, learn from each once it is over, and correct what is said.",
    ),
]
Continual = Annotated[
    int | None,
    typer.Option(
        "--continual", min=1, metavar="DAYS",
        help="With --online: every so many days nets learn on in the shadow, and take over once they are better.",
    ),
]  # fmt: skip
WARM_DAYS = 56
"""Days before the first cutoff from which on it is learned of a model that was not fitted to them."""

_OF_FITS = {name: f"--{name}" for name in ("seeds", "steps", "seed", "mode", "start", "refit")}


def backtest(
    context: typer.Context,
    task_dir: TaskDir,
    out: TableOut,
    model: Model = "baseline",
    seeds: Seeds = None,
    steps: Steps = None,
    seed: Seed = None,
    mode: ModeOption = None,
    start: StartOption = None,
    refit: Refit = False,
    online: Online = False,
    continual: Continual = None,
    cumulative: Cumulative = False,
    report: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Also write a page of figures.")] = None,
    json: Json = False,
) -> None:
    """Forecast a task at each of its cutoffs, reading nothing later.

    Reads panel.parquet (unique_id, ds, y, covariates), static.parquet (unique_id) and task.json (freq, horizon,
    season, cutoffs, known_future, past_only, open, levels) in TASK_DIR.

    Writes one row per series, cutoff and day: unique_id, cutoff, ds, h, one q column per level, mean. The file appears
    when it is complete. Where the panel goes on after the cutoffs, what was said is held against what came: WQL, WAPE,
    MASE, coverage (also in tenths by volume of the series that sell on most days), bias, and with --report a page with
    pictures, beside the baseline. `finetuned` is fitted once, up to the first cutoff; with --refit anew at each, which
    is another policy and named `refitted`. With --online what an engine learns between the cutoffs corrects its
    answers, and the summary says what that was worth.
    """
    _refuse_together(out, report, online=online, refit=refit)
    if continual is not None and (model == "baseline" or not online):
        why = "is for nets that are learned of; say --online, and a --model that has nets"
        raise typer.BadParameter(why, param_hint="--continual")
    if model != "finetuned":
        refuse(context.params, _OF_FITS, "says how nets are fitted, which --model finetuned alone does")
    fitting = fitting_of(context.params)
    from models.backtest import write_backtest
    from models.judge import Judge
    from models.task import read_task
    from shelftide.backtest_report import POLICIES, measure_rows, measures, volume_rows, volumes, write_report

    figures: dict[str, Any] = {"model": "refitted" if refit else model, "out": str(out)}
    judge = Judge(read_task(task_dir))
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="shelftide-backtest-") as folder:
        fitted: Finetuned | None = None
        if refit:
            forecaster = refit_nets(judge.task, task_dir, Path(folder), fitting, figures)
        else:
            forecaster, fitted = _forecaster(model, task_dir, Path(folder), fitting, figures)
        started_s = time.perf_counter()
        with sharing(f"forecasting {task_dir} with {forecaster.name}") as progress:
            watch = judge.telling(progress)
            said = None
            if online:
                said = _learned(judge.task, task_dir, forecaster, fitted, continual, figures)
            figures["rows"] = write_backtest(judge.task, forecaster, out, cumulative=cumulative, watch=watch, said=said)
        figures["seconds"] = round(time.perf_counter() - started_s, 3)
        figures |= {"measures": measures(judge), "coverage_by_volume": volumes(judge)}
        if report is not None:
            told_of = _judged(judge, forecaster, POLICIES["refitted" if refit else model])
            write_report(report, told_of)
            figures["inputs"] = {one.name: round(one.change, 6) for one in told_of.inputs}
            figures["report"] = str(report)
    if json:
        print_json(figures)
    else:
        learned = _learned_rows(figures)
        told = [("rows", f"{figures['rows']:,}"), ("model", forecaster.name), ("file", str(out)),
                ("seconds", f"{figures['seconds']:.1f}"), *measure_rows(judge), *volume_rows(judge),
                *learned]  # fmt: skip
        print_table("backtest", told + ([("report", str(report))] if report else []) + fit_rows(figures))


def _refuse_together(out: Path, report: Path | None, *, online: bool, refit: bool) -> None:
    """Refuse options that do not go together, and paths that cannot be written."""
    for path, option in ((out, "--out"), (report, "--report")):
        if path is not None and path.exists() and not path.is_file():
            raise typer.BadParameter(f"{str(path)!r} is no regular file", param_hint=option)
    if report is not None and report.resolve() == out.resolve():
        raise typer.BadParameter(f"{str(report)!r} is the file of --out", param_hint="--report")
    if online and report is not None:
        raise typer.BadParameter("draws what the model says by itself; leave out --online", param_hint="--report")
    if online and refit:
        raise typer.BadParameter("learns of one model; leave out --refit", param_hint="--online")


def _learned(
    task: Task,
    task_dir: Path,
    forecaster: Forecaster,
    fitted: Finetuned | None,
    continual: int | None,
    figures: dict[str, Any],
) -> Iterator[tuple[slice, Forecast]]:
    """Answers corrected by what is learned on the way; in the end the figures say what it was worth."""
    from models.named import SHIPPED
    from online.learner import Learner
    from online.lineage import Lineage
    from online.rehearsal import Rehearsal

    per_day = 24 if task.file.freq == "h" else 1
    learner = Learner(forecaster.name, len(task.ids), task.file.season)
    rehearsal = Rehearsal(task, forecaster, 0 if fitted else WARM_DAYS * per_day)
    with tempfile.TemporaryDirectory(prefix="shelftide-lineage-") as scratch:
        if continual is not None:
            folders = fitted.folders if fitted else [SHIPPED]
            rehearsal.lineage = Lineage(task_dir, folders, Path(scratch), continual * per_day)
            if fitted:
                rehearsal.lineage.origins, rehearsal.lineage.fresh = fitted.nets, fitted.recipe
        yield from rehearsal.answers(learner)
        figures["learning"] = {**learner.summary(), "acting": learner.acting()}
        if rehearsal.lineage is not None:
            figures["learning"] |= {"generations": rehearsal.lineage.generation, "promoted": rehearsal.promoted}


def _learned_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """What learning was worth on the days between the cutoffs."""
    if "learning" not in figures:
        return []
    rivals = figures["learning"]["rivals"]
    rows = [
        (f"  day by day, {name}", f"WQL {one['overall']['wql']:.4f}, coverage {one['overall']['coverage80']:.3f}")
        for name, one in rivals.items()
        if one["overall"]["wql"] is not None
    ]
    rows.append(("changes seen", str(sum(figures["learning"]["changes"].values()))))
    if "promoted" in figures["learning"]:
        took = ", ".join(f"day {day}" for day in figures["learning"]["promoted"])
        rows.append(("generations of nets", f"{figures['learning']['generations']}, promoted: {took or 'none'}"))
    return rows


def _judged(judge: Judge, forecaster: Forecaster, policy: str) -> Backtest:
    """What a page tells, with what each input is worth: the task is forecast once more for each."""
    from models.worth import blanks, inputs_worth
    from shelftide.backtest_report import Backtest

    inputs = []
    if judge.tally.known:
        with sharing("forecasting without each input") as progress:
            for one in inputs_worth(judge, forecaster):
                inputs.append(one)
                progress(len(inputs) / len(blanks(judge.task)))
    return Backtest(judge, forecaster, policy, inputs)


def _forecaster(
    model: str, task_dir: Path, out: Path, fitting: Fitting, figures: dict[str, Any]
) -> tuple[Forecaster, Finetuned | None]:
    """Who answers, and its nets where they were fitted to what lies before the first cutoff, in a folder."""
    from models.baseline import SeasonalWindow
    from models.named import PRETRAINED, SHIPPED, forecaster_named

    if model == "finetuned":
        fitted = fit_nets(task_dir, out, fitting, figures)
        return fitted.forecaster(f"finetuned-{fitting.seeds}"), fitted
    return forecaster_named(PRETRAINED, SHIPPED) if model == "pretrained" else SeasonalWindow(), None
