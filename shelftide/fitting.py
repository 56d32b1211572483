"""Nets fitted while a bar moves, and what there is to tell of it.

In: a task, a `Fitting`. Out: nets in a folder; figures.
Must not know: options of commands. Rule: nothing heavy is imported before nets are fitted.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shelftide.report import sharing

if TYPE_CHECKING:
    from models.crew import Net
    from models.finetune import Finetuned
    from models.forecast import Forecaster
    from models.task import Task
    from shelftide.fitting_options import Fitting


def fit_nets(task_dir: Path, out: Path, fitting: Fitting, figures: dict[str, Any], what: str = "") -> Finetuned:
    """Fit nets to a task, show how far it is, and note what was chosen and how long it took; `what` is its name."""
    from models.finetune import finetune

    started_s = time.perf_counter()
    with sharing(f"fitting {fitting.seeds} net{'s' * (fitting.seeds > 1)} to {what or task_dir}") as progress:
        fitted = finetune(
            task_dir,
            out,
            seeds=fitting.seeds,
            recipe=fitting.recipe,
            progress=progress,
            start=fitting.start,
            in_turn=fitting.in_turn,
            keeping=fitting.keeping,
        )
    figures["fit_s"] = round(time.perf_counter() - started_s, 1)
    figures["choices"] = [{"mode": one.mode, "dates": one.dates, "wql": round(one.wql, 5)} for one in fitted.choices]
    return fitted


def refit_nets(task: Task, task_dir: Path, out: Path, fitting: Fitting, figures: dict[str, Any]) -> Forecaster:
    """Fit nets up to each cutoff of a task, and note how long it took; what is chosen is chosen before the first."""
    from models.encoder import load
    from models.finetune import finetune
    from models.refit import Refitted
    from models.serving import EncoderForecaster

    cutoffs, started_s = sorted(set(task.cutoff.tolist())), time.perf_counter()
    answering: dict[int, Forecaster] = {}
    fitted = fit_nets(task_dir, out / "0", fitting, figures)
    with sharing(f"fitting anew at {len(cutoffs) - 1} further cutoffs") as progress:
        for number, last in enumerate(cutoffs):
            if number:
                fitted = finetune(
                    task_dir, out / str(number), seeds=fitting.seeds, recipe=fitting.recipe, start=fitting.start,
                    in_turn=fitting.in_turn, last=last, choices=fitted.choices,
                )  # fmt: skip
            nets = [load(folder) for folder in fitted.folders]
            answering[task.first_bucket + last + 1] = EncoderForecaster(nets, f"refitted-{fitting.seeds}")
            progress((number + 1) / len(cutoffs))
    figures |= {"fit_s": round(time.perf_counter() - started_s, 1), "fits": len(cutoffs)}
    return Refitted(answering, f"refitted-{fitting.seeds}")


def pretrain_net(out: Path, fitting: Fitting, figures: dict[str, Any]) -> Net:
    """Fit a net to made-up shops, and write it."""
    from models.crew import Net
    from models.pretrain import pretrain

    recipe, started_s = fitting.recipe, time.perf_counter()
    with sharing("fitting a net to made-up shops") as progress:
        model = pretrain(recipe, progress=lambda done: progress(done / recipe.steps), keeping=fitting.keeping)
    model.save_pretrained(out / "0")
    figures |= {"fit_s": round(time.perf_counter() - started_s, 1), "choices": []}
    return Net({}, None, recipe.mode)


def fit_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """What there is to say of a fit."""
    if "fit_s" not in figures:
        return []
    rows = [("seconds of fitting", f"{figures['fit_s']:.1f}")]
    rows += [("fitted anew", f"at each of {figures['fits']} cutoffs")] if "fits" in figures else []
    return rows + [
        (f"  validation, {one['mode']}, {'with' if one['dates'] else 'without'} dates", f"WQL {one['wql']:.4f}")
        for one in figures["choices"]
    ]
