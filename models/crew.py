"""What the nets of a fit are made of, where each begins, what of it learns: what is tried, and what becomes of it.

In: the words and covariates of a task, a recipe, losses of a validation. Out: a `Net` per fit.
Must not know: windows, processes, what is scored afterwards. Rule: few choices, all made by the validation; a net that
is nearly as good as the best and errs otherwise is worth more in a mean than the best one a second time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.named import SHIPPED
from models.panel import Panel
from models.recipe import Mode, Recipe
from models.start import config_of

NEAR = 1.01
"""A net with adapters is taken where its loss in the validation is at most so many times the least one."""

KINDS = 3
"""Of nets that are fitted side by side, as `Crew.nets` explains."""

_GIVEN = ("hidden", "blocks", "dropout", "feature_dropout", "anchored", "dates")  # by the encoder that one begins from


@dataclass(frozen=True, slots=True)
class Net:
    """A net to be fitted.

    Attributes
    ----------
    config
        Of its `models.encoder.EncoderConfig`.
    start
        Folder of the encoder that it begins from, None for nothing.
    mode
        What learns.
    """

    config: dict[str, Any]
    start: Path | None
    mode: Mode


@dataclass(frozen=True, slots=True)
class Choice:
    """One candidate of the validation: what learned, whether it read dates, and its weighted quantile loss there."""

    mode: Mode
    dates: bool
    wql: float


@dataclass(frozen=True, slots=True)
class Crew:
    """Nets that may be fitted to a task.

    Attributes
    ----------
    own
        The net that the recipe names.
    adapted
        The shipped encoder with adapters, where nets may be of several kinds.
    """

    own: Net
    adapted: Net | None = None

    def candidates(self, seeds: int) -> list[Net]:
        """Nets that the validation compares before `seeds` nets are fitted."""
        if self.own.mode != "full":
            return []
        tried = [_with(self.own, dates=dates) for dates in (False, True)]
        return tried + ([self.adapted] if self.adapted and seeds >= KINDS else [])

    def nets(self, seeds: int, choices: Sequence[Choice]) -> list[Net]:
        """Nets to be fitted, in turn of these kinds: whose quantiles are those of the past, mixed and moved; whose are
        their own, from zero on; and a third that begins from the shipped encoder. Of that all learns, or adapters alone
        where this was `NEAR` the best in the validation."""  # fmt: skip
        full = [one for one in choices if one.mode == "full"]
        own = _with(self.own, dates=min(full, key=lambda one: one.wql).dates) if full else self.own
        if self.adapted is None:
            return [own] * seeds
        least = min((one.wql for one in choices), default=0.0)
        near = any(one.mode == self.adapted.mode and one.wql <= NEAR * least for one in choices)
        third = self.adapted if near else replace(own, start=self.adapted.start)
        kinds = (own, _with(own, anchored=False), third)
        return [kinds[number % len(kinds)] for number in range(seeds)]


def crew_of(panel: Panel, last: int, recipe: Recipe, start: Path | None, *, in_turn: bool) -> Crew:
    """What may be fitted to a task up to the column `last`.

    Parameters
    ----------
    start
        Folder of an encoder that every net begins from.
    in_turn
        Whether nets may be of several kinds; a start that is given rules it out.

    Raises
    ------
    models.start.StartError
        If there is no encoder to begin from.
    """
    own = Net(_config(panel, last, recipe.mode, start), start, recipe.mode)
    if start is not None or not in_turn:
        return Crew(own)
    return Crew(own, Net(_config(panel, last, "lora", SHIPPED), SHIPPED, "lora"))


def own_net(folder: Path) -> Net:
    """A net that learns on from where another stands: the same inputs, all of it.

    Raises
    ------
    models.start.StartError
        If there is no net in the folder.
    """
    given = config_of(folder)
    names = (*_GIVEN, "codes", "attributes")
    config = {"covariates": tuple(given.covariates), **{name: getattr(given, name) for name in names}}
    return Net(config, folder, "full")


def _config(panel: Panel, last: int, mode: Mode, start: Path | None) -> dict[str, Any]:
    """What a net is made of, as far as no validation chooses it."""
    own = {"covariates": panel.covariates, "codes": panel.codes(last), "attributes": panel.kinds}
    if start is None:
        return {**own, "dates": False, "anchored": True}
    if mode == "full":
        given = config_of(start)
        return {**own, **{name: getattr(given, name) for name in _GIVEN}}
    return own_net(start).config


def _with(net: Net, **config: object) -> Net:
    return replace(net, config={**net.config, **config})
