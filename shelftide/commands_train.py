"""The command `train`: nets fitted to a task, to a shop's events, or to made-up shops.

In: options. Out: a folder of nets and their card, which appears once it is complete.
Must not know: how nets are fitted. Rule: nothing heavy is imported before a command runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from models.recipe import PRETRAINING
from shelftide.commands_registry import Add, RegistryFolder, added
from shelftide.fit_source import fit_source, is_task
from shelftide.fitting import fit_nets, fit_rows, pretrain_net
from shelftide.fitting_options import (
    Checkpoints,
    EarlyStopping,
    Logs,
    Masking,
    ModeOption,
    PromoDropout,
    SamplePower,
    SampleSoldPower,
    ScalePower,
    Scaling,
    Seed,
    Seeds,
    SoldPower,
    StartOption,
    Steps,
    fitting_of,
    refuse,
)
from shelftide.report import Json, print_json, print_table
from shelftide.shop_options import (
    BaseCurrency,
    LocationZone,
    MaxSeries,
    Rate,
    Settings,
    Sort,
    TimeZone,
)
from shelftide.whole_folder import whole_folder

Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TASK_DIR | EVENTS...]",
        help="Folder of panel.parquet, static.parquet, task.json; or files of events as `replay` reads them.",
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write, which must not exist yet.")]
Pretrain = Annotated[bool, typer.Option("--pretrain", help="Fit to made-up shops instead of a task.")]

_OF_EVENTS = {
    name: f"--{name.replace('_', '-')}"
    for name in ("sort", "settings", "time_zone", "location_time_zone", "base_currency", "rate", "max_series")
}
_NOT_PRETRAINED = {name: f"--{name}" for name in ("mode", "start", "seeds")}


def train(
    context: typer.Context,
    out: Out,
    sources: Sources = None,
    pretrain: Pretrain = False,
    seeds: Seeds = None,
    steps: Steps = None,
    seed: Seed = None,
    mode: ModeOption = None,
    start: StartOption = None,
    early_stopping: EarlyStopping = False,
    scaling: Scaling = None,
    masking: Masking = None,
    promo_dropout: PromoDropout = None,
    scale_power: ScalePower = None,
    sold_power: SoldPower = None,
    sample_power: SamplePower = None,
    sample_sold_power: SampleSoldPower = None,
    checkpoints: Checkpoints = None,
    logs: Logs = None,
    sort: Sort = False,
    settings: Settings = None,
    time_zone: TimeZone = None,
    location_time_zone: LocationZone = None,
    base_currency: BaseCurrency = None,
    rate: Rate = None,
    max_series: MaxSeries = None,
    add: Add = False,
    registry: RegistryFolder = None,
    json: Json = False,
) -> None:
    """Fit nets to what lies before the first cutoff of a task, or to all days of a shop's events that are over.

    Reads panel.parquet, static.parquet and task.json in TASK_DIR, as `backtest` does; or EVENTS, as `replay` does, with
    the settings of the shop. With --pretrain it reads nothing: the net is fitted to made-up shops, as the one in the
    package was.

    Writes a folder per net (config.json, model.safetensors), which Hugging Face's AutoModel reads once `models.encoder`
    is imported, and card.json: how they were made. The folder appears when it is complete. Whether days of the month
    and of the year are read is chosen by validation on the last weeks, where all weights learn.
    """
    if out.exists():
        raise typer.BadParameter(f"{str(out)!r} exists", param_hint="--out")
    if bool(sources) == pretrain:
        raise typer.BadParameter("name a task or events, or say --pretrain, one of these", param_hint="TASK_DIR")
    if registry is not None and not add:
        raise typer.BadParameter("says where to --add the model; say both", param_hint="--registry")
    if pretrain:
        refuse(context.params, _NOT_PRETRAINED, "--pretrain fits one net, all of it, that begins from nothing")
    if pretrain or is_task(sources or []):
        why = "says what events mean, and a task or --pretrain has none"
        refuse(context.params, _OF_EVENTS, why)
    fitting = fitting_of(context.params, PRETRAINING if pretrain else None)
    figures: dict[str, Any] = {"out": str(out), "nets": fitting.seeds}
    from shelftide.cards import write_card

    with whole_folder(out) as part:
        if not sources:
            nets = [pretrain_net(part, fitting, figures)]
            figures["model"] = write_card(context, part, None, figures["choices"], nets)
        else:
            with fit_source(sources, context.params) as source:
                figures |= {"events": dict(source.counts)} if source.counts else {}
                nets = fit_nets(source.folder, part, fitting, figures, source.what).nets
                figures["model"] = write_card(context, part, source.folder, figures["choices"], nets, source.events)
    if add:
        figures["added"] = added(out, registry)
    if json:
        print_json(figures)
    else:
        rows = [("nets", str(fitting.seeds)), ("folder", str(out)), ("model", figures["model"])]
        read = [(name.replace("_", " "), f"{count:,}") for name, count in figures.get("events", {}).items()]
        print_table("train", rows + read + fit_rows(figures))
