"""Where a fit begins: from another encoder's weights, and which of them may learn.

In: a folder of an encoder, the configuration of the one to be fitted. Out: an `Encoder`; modules that learn.
Must not know: panels, optimisers. Rule: before its first step, an encoder that begins from another answers as that one
would, whichever covariates it has lost or gained.

A column is told from another by its name (`step_columns`). Columns that both encoders have are taken over with their
weights, means and deviations. A new column begins at weight zero. One that is lost has always been zero, as `windows`
makes columns of a covariate that is unknown; what it said then goes into the bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from models.columns import StepInputs
from models.encoder import Encoder, EncoderConfig, load
from models.forecast import ForecastError
from models.net import CLIP
from models.recipe import Mode

HEADS = ("gate", "residual")

ADAPTED = ("up", "down", *HEADS)
"""Linear layers that get adapters, by the last part of their name."""

RANK = 8
"""Of adapters: 11 of the 54 thousand weights of the shipped encoder. Their usual scale is twice the rank."""

_PHASES = ("lag_1", "lag_2", "lag_3", "lag_4", "mean_2", "mean_4", "mean_8", "mean_12", "q10", "q50", "q90")
_AHEAD = ("ahead", "ahead_log", *(f"weekday_{n}" for n in range(7)), "hour_sin", "hour_cos")
_DATES = ("month", "month_sin", "month_cos", "year_sin", "year_cos", "year_2_sin", "year_2_cos")
_LAST_YEAR = ("last_year", "last_year_grown", "last_year_stood", "last_year_known")
_SHUT = ("shut_before", "shut_after", "shut_7", "shut_14")
_KNOWN = ("own", "before", "after", "mean_7", "mean_14", "effect", "effect_known")


class StartError(ForecastError):
    """A fit cannot begin from this encoder; the message is one sentence that says why."""


def step_columns(covariates: Sequence[str], *, dates: bool = False) -> tuple[str, ...]:
    """Name the columns per row and step, in the order in which `models.columns.step_inputs` makes them.

    Examples
    --------
    >>> step_columns(("promo",))[-2:]
    ('promo.effect', 'promo.effect_known')
    """
    fixed = (*_PHASES, *_AHEAD, *(_DATES if dates else ()), *_LAST_YEAR, *_SHUT)
    return (*fixed, *(f"{name}.{column}" for name in covariates for column in _KNOWN))


def config_of(folder: Path) -> EncoderConfig:
    """Read what an encoder in a folder is made of.

    Raises
    ------
    StartError
        If there is none.
    """
    return read_start(folder).config


def read_start(folder: Path) -> Encoder:
    """Read the encoder to begin from.

    Raises
    ------
    StartError
        If it is missing, or none of this program.
    """
    lost = [name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()]
    if lost:
        raise StartError(f"{folder}: has no {lost[0]}; name the folder of one net, as `shelftide train` writes it")
    try:
        return load(folder)
    except (OSError, RuntimeError, TypeError, ValueError, SafetensorError) as error:
        why = " ".join(str(error).split())[:200]
        raise StartError(f"{folder}: is no encoder of this program ({why})") from error


@torch.no_grad()
def taken_over(start: Encoder, config: EncoderConfig) -> tuple[Encoder, Tensor]:
    """An encoder of another configuration that answers as `start` does, and which of its step columns are new.

    Raises
    ------
    StartError
        If the two differ in more than covariates, dates and dropout.
    """
    for name in ("hidden", "blocks"):
        if getattr(config, name) != getattr(start.config, name):
            here, there = getattr(config, name), getattr(start.config, name)
            raise StartError(f"the encoder to begin from has {name} {there}, and the one to be fitted {here}")
    model, given = Encoder(config), start.state_dict()
    own = model.state_dict()
    model.load_state_dict({name: given[name] if name in given and _is_common(name) else own[name] for name in own})
    before = {name: place for place, name in enumerate(_columns(start))}
    columns = _columns(model)
    places = [(here, before[name]) for here, name in enumerate(columns) if name in before]
    here, there = torch.tensor(places).T
    model.from_steps.weight.zero_()
    model.from_steps.weight[:, here] = start.from_steps.weight[:, there]
    for name in ("step_mean", "step_scale"):
        getattr(model, name)[here] = getattr(start, name)[there]
    lost = torch.ones(len(before), dtype=torch.bool)
    lost[there] = False
    silent = (-start.step_mean / start.step_scale).clamp(-CLIP, CLIP)
    model.from_series.bias.add_(start.from_steps.weight[:, lost] @ silent[lost])
    for name in ("codes", "attributes"):
        _take_over_words(model, start, name)
    new = torch.ones(len(columns), dtype=torch.bool)
    new[here] = False
    return model, new


def _is_common(name: str) -> bool:
    """Whether a weight means the same in every encoder; of the others columns and words are told apart first."""
    return "step" not in name and not name.startswith(("codes.", "attributes."))


def _take_over_words(model: Encoder, start: Encoder, kind: str) -> None:
    """Take over vectors of words that both know; what is lost is unknown, and what that says goes into the bias."""
    own, given = getattr(model.config, kind), getattr(start.config, kind)
    for name, there in zip(given, getattr(start, kind), strict=True):
        vectors = there.vectors.weight.reshape(-1, len(there.known) + 1, start.config.hidden)  # places, words, hidden
        if name not in own:
            model.from_series.bias.add_(vectors[:, 0].sum(0))
            continue
        here = getattr(model, kind)[list(own).index(name)]
        taken = here.vectors.weight.view(-1, len(here.known) + 1, start.config.hidden)
        both = {word: place for place, word in enumerate(there.known.tolist(), 1)}
        words = [(place, both[word]) for place, word in enumerate(here.known.tolist(), 1) if word in both]
        for into, out_of in [(0, 0), *words]:
            taken[:, into] = vectors[:, out_of]


def _columns(model: Encoder) -> tuple[str, ...]:
    names = step_columns(model.config.covariates, dates=model.config.dates)
    found = len(model.step_mean)
    if len(names) != found:
        raise StartError(f"models/start.py names {len(names)} columns per step, and models/columns.py makes {found}")
    return names


@torch.no_grad()
def standardise_new(model: Encoder, inputs: StepInputs, new: Tensor) -> None:
    """Take means and deviations of new step columns from a sample, and leave those of all others."""
    before = {name: value.clone() for name, value in model.named_buffers(recurse=False)}  # words have no standard
    model.standardise(inputs)
    for name, value in before.items():
        getattr(model, name).copy_(torch.where(new, getattr(model, name), value) if "step" in name else value)


def learning(model: Encoder, mode: Mode) -> nn.Module:
    """Let a part of the weights learn, and what is to be trained comes back: the encoder itself, or wrapped."""
    if mode == "lora":
        from peft import LoraConfig, get_peft_model  # takes seconds to import, and few want it

        chosen = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=list(ADAPTED))
        return cast("nn.Module", get_peft_model(model, chosen))
    if mode == "head":
        for name, weight in model.named_parameters():
            weight.requires_grad_(name.split(".")[0] in HEADS)
    return model


def plain(trained: nn.Module) -> Encoder:
    """The encoder of what was trained: adapters are added to the weights that they adapt."""
    if not isinstance(trained, Encoder):
        trained = cast("Any", trained).merge_and_unload()
    model = cast("Encoder", trained)
    for weight in model.parameters():
        weight.requires_grad_(True)
    return model
