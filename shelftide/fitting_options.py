"""Options that say how nets are fitted, and what they mean together.

In: options of `train` and `backtest`. Out: a `Fitting`: recipe, start, what is kept.
Must not know: tasks, how nets are fitted. Rule: every default is that of `models.recipe`, and no option is silently
ignored: what does not go together ends in a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from models.recipe import PRETRAINING, Keeping, Mode, Recipe

NONE, SHIPPED_START = "none", "shipped"

_FIT, _AUGMENT, _COUNT, _KEEP = ("How nets are fitted", "Augmentation (off by default)",
                                 "Which windows count (by their series)", "What is kept")  # fmt: skip
_DEFAULT = Recipe()

_OF_RECIPE = ("steps", "seed", "mode", "early_stopping", "scaling", "masking", "promo_dropout", "scale_power",
              "sold_power", "sample_power", "sample_sold_power")  # fmt: skip
"""Fields of `Recipe` that are options; `--rate` is a rate of exchange."""


def _fit(
    text: str, metavar: str | None = None, default: object = False, panel: str = _FIT, name: str = "", **more: Any
) -> Any:
    shown, names = default if isinstance(default, bool) else str(default), [name] if name else []
    return typer.Option(*names, help=text, metavar=metavar, show_default=shown, rich_help_panel=panel, **more)


def _share(text: str) -> Any:
    return _fit(text, "P", 0, _AUGMENT, min=0.0, max=1.0)


def _power(text: str, default: float) -> Any:
    return _fit(text, "X", default, _COUNT, min=-4.0, max=4.0)


Seeds = Annotated[int | None, _fit("Nets to fit and average.", "N", 1, min=1, max=20)]
Steps = Annotated[
    int | None,
    _fit(
        "Steps of the optimiser for each net; with --early-stopping the most there may be.", "N",
        f"{_DEFAULT.steps:,}; {PRETRAINING.steps:,} with --pretrain", min=1, max=1_000_000,
    ),
]  # fmt: skip
Seed = Annotated[
    int | None, _fit("Seed of the first net; each further one has the next.", "S", _DEFAULT.seed, min=0, max=2**31 - 1)
]
ModeOption = Annotated[
    Mode | None,
    _fit("What learns: all weights; the output layers; or low-rank adapters that are then merged.",
         default=_DEFAULT.mode),
]  # fmt: skip
StartOption = Annotated[
    str | None,
    _fit(
        "What each net begins from: `none`, `shipped` (the weights in the package), or the folder of one net. Without "
        "it `shipped` where a part alone learns; else nets are of three kinds in turn, and the third begins from it.",
        "none|shipped|FOLDER",
    ),
]
EarlyStopping = Annotated[
    bool,
    _fit(
        "Hold back the last weeks, stop when the loss there no longer falls, keep the best weights. Measured to cost.",
        name="--early-stopping",
    ),
]
Scaling = Annotated[
    float | None,
    _fit("Multiply the demand of a window by e to the power of a normal number of this deviation.", "X", 0, _AUGMENT,
         min=0.0, max=3.0),
]  # fmt: skip
Masking = Annotated[
    float | None, _share("Chance that a span of a window's history is unknown, that its weeks are, and its prices.")
]
PromoDropout = Annotated[float | None, _share("Chance that all known covariates of a window are unknown.")]
ScalePower = Annotated[
    float | None,
    _power("The loss of a window counts by its scale to this power: 1 is WQL's own weight, 0 counts items alike.",
           _DEFAULT.scale_power),
]  # fmt: skip
SoldPower = Annotated[
    float | None, _power("And by the share of its days with a sale to this power.", _DEFAULT.sold_power)
]
SamplePower = Annotated[float | None, _power("Windows are drawn by mean demand to this power.", _DEFAULT.sample_power)]
SampleSoldPower = Annotated[
    float | None, _power("And by the share of days with a sale to this power.", _DEFAULT.sample_sold_power)
]
Checkpoints = Annotated[
    Path | None,
    _fit("Folder of checkpoints: the same command, given again after it was killed, goes on from the last one.", "DIR",
         panel=_KEEP),
]  # fmt: skip
Logs = Annotated[
    Path | None, _fit("Folder for TensorBoard: loss, rate and gradient norm of each fit.", "DIR", panel=_KEEP)
]


@dataclass(frozen=True, slots=True)
class Fitting:
    """How nets are to be fitted.

    Attributes
    ----------
    seeds
        How many nets.
    start, in_turn
        As `models.finetune.finetune` has them.
    """

    recipe: Recipe
    keeping: Keeping
    seeds: int = 1
    start: Path | None = None
    in_turn: bool = True


def fitting_of(given: Mapping[str, Any], base: Recipe | None = None) -> Fitting:
    """What options mean together; those of None are the recipe's.

    Parameters
    ----------
    given
        Values by names of parameters: fields of `Recipe`, and seeds, start, checkpoints, logs.
    base
        Recipe of what is not given.

    Raises
    ------
    typer.BadParameter
        If a part of a net is to learn, and it has nothing to begin from.
    """
    said = {name: value for name in _OF_RECIPE if (value := given.get(name)) is not None}
    recipe, start = replace(base or _DEFAULT, **said), given.get("start")
    if recipe.mode != "full" and start == NONE:
        raise typer.BadParameter(f"--mode {recipe.mode} needs a net to begin from", param_hint="--start")
    if start is None and recipe.mode != "full":
        start = SHIPPED_START
    keeping = Keeping(given.get("checkpoints"), given.get("logs"))
    return Fitting(recipe, keeping, given.get("seeds") or 1, _folder(start), in_turn=start is None)


def _folder(start: str | None) -> Path | None:
    """Folder of the encoder that an option names."""
    from models.named import SHIPPED

    return {None: None, NONE: None, SHIPPED_START: SHIPPED}.get(start, Path(start or ""))


def refuse(given: Mapping[str, Any], names: Mapping[str, str], why: str) -> None:
    """Refuse options that mean nothing here.

    Parameters
    ----------
    given
        Values by names of parameters.
    names
        Names of parameters that mean nothing, and their options.
    why
        What a user is told.

    Raises
    ------
    typer.BadParameter
        If one of them was given.
    """
    for name, option in names.items():
        value = given.get(name)
        if value is not None and value is not False and value != () and value != []:
            raise typer.BadParameter(why, param_hint=option)
