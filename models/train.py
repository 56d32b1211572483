"""Fine-tuning: an encoder fitted to the past of a task.

In: a `Panel`, the last column that may be seen, a `Recipe`. Out: an `Encoder`.
Must not know: cutoffs that are scored, files of a registry. Rule: nothing after `last` is read, not even to choose.

The number of steps is fixed. Early stopping watches one window of the past, and what is special about it (an Easter, a
sale) decides when to stop: measured, it costs more than it saves. Weights are averaged along the way instead
(exponential moving average), and the rate falls to zero.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from models.encoder import Encoder, EncoderConfig, pinball
from models.panel import Panel
from models.windows import StepInputs, windows_of

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an encoder is fitted.

    Attributes
    ----------
    steps
        Of the optimiser.
    windows, horizons
        Windows of a step, and horizon steps of each.
    rate, weight_decay, warmup
        Of AdamW; share of the steps over which the rate rises.
    average
        Decay of the moving average of the weights.
    scale_power
        A window counts by its scale to this power.
    clip
        Norm that gradients are held to.
    seed
        Of everything that is random.
    """

    steps: int = 1000
    windows: int = 192
    horizons: int = 6
    rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: float = 0.1
    average: float = 0.995
    scale_power: float = 0.5
    clip: float = 1.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Origins:
    """Windows to learn from: row and cutoff of each."""

    series: I64
    cutoff: I64
    last: int

    def __len__(self) -> int:
        return len(self.series)


def origins(panel: Panel, last: int) -> Origins:
    """Every window that has at least one season of history and one step to learn before or at the column `last`."""
    demand = panel.task.demand[:, : last + 1]
    begun = np.where(np.isfinite(demand).any(axis=1), np.isfinite(demand).argmax(axis=1), demand.shape[1])
    place = np.arange(demand.shape[1] - 1)
    series, cutoff = np.nonzero(place[None] >= (begun + panel.task.file.season - 1)[:, None])
    return Origins(series.astype(np.int64), cutoff.astype(np.int64), last)


class Batches(Dataset[dict[str, Tensor]]):
    """The n-th batch of a training run: the same for the same seed, in whatever order they are asked for."""

    def __init__(self, panel: Panel, windows: Origins, recipe: Recipe, model: Encoder) -> None:
        self._panel, self._windows, self._recipe, self._model = panel, windows, recipe, model
        self._weight_of_one = 1.0

    def __len__(self) -> int:
        return self._recipe.steps

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        inputs, actual, weight = self.sample(number, self._recipe.windows)
        return {
            "series": inputs.series, "steps": inputs.steps, "anchors": inputs.anchors, "scale": inputs.scale,
            "actual": actual, "weight": weight,
        }  # fmt: skip

    def sample(self, number: int, windows: int) -> tuple[StepInputs, Tensor, Tensor]:
        """Inputs, demand over scale and weights of some steps of some windows."""
        recipe, panel = self._recipe, self._panel
        rng = np.random.default_rng([recipe.seed, number])
        picked = rng.integers(0, len(self._windows), windows)
        series, cutoff = self._windows.series[picked], self._windows.cutoff[picked]
        reach = np.minimum(self._windows.last - cutoff, panel.horizon)
        steps = (rng.random((windows, recipe.horizons)) * reach[:, None]).astype(np.int64)
        batch = panel.batch(series, cutoff)
        demand = np.take_along_axis(panel.actual(series, cutoff, self._windows.last), steps, axis=1)
        is_open = np.take_along_axis(batch.future_open, steps, axis=1)
        inputs = self._model.inputs(windows_of(batch, self._model.config.covariates), torch.from_numpy(steps))
        usable = torch.from_numpy(np.isfinite(demand) & is_open)
        actual = torch.nan_to_num(torch.from_numpy(demand)) / inputs.scale[:, None]
        return inputs, actual, usable * inputs.scale[:, None] ** recipe.scale_power


class _Averaged(TrainerCallback):
    """Keeps a moving average of the weights, and puts it in their place at the end."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._mean = {name: value.detach().clone() for name, value in model.named_parameters()}
        self._count = 0

    def on_step_end(self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **_: Any) -> None:
        assert model is not None  # noqa: S101 - the trainer always passes it
        self._count += 1
        decay = min(self._decay, (1 + self._count) / (10 + self._count))  # the start is forgotten quickly
        with torch.no_grad():
            for name, value in model.named_parameters():
                self._mean[name].lerp_(value, 1 - decay)

    def on_train_end(self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **_: Any) -> None:
        assert model is not None  # noqa: S101
        with torch.no_grad():
            for name, value in model.named_parameters():
                value.copy_(self._mean[name])


class _Trainer(Trainer):
    """Hugging Face's trainer with our loss and our order of batches."""

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        found = model(StepInputs(inputs["series"], inputs["steps"], inputs["anchors"], inputs["scale"]))
        weight = inputs["weight"]
        return (pinball(found, inputs["actual"]) * weight).sum() / weight.sum().clamp_min(1e-9)

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(cast("Batches", self.train_dataset))


def fit(
    panel: Panel, last: int, config: EncoderConfig, recipe: Recipe, progress: Callable[[int], None] | None = None
) -> Encoder:
    """Fit an encoder to what lies at or before the column `last`.

    Parameters
    ----------
    progress
        Called with the number of steps done.
    """
    torch.manual_seed(recipe.seed)
    model = Encoder(config)
    windows = origins(panel, last)
    batches = Batches(panel, windows, recipe, model)
    model.standardise(batches.sample(-1 & 0xFFFF_FFFF, 4096)[0])
    with tempfile.TemporaryDirectory(prefix="shelftide-train-") as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=recipe.steps, per_device_train_batch_size=1, learning_rate=recipe.rate,
            weight_decay=recipe.weight_decay, warmup_steps=round(recipe.warmup * recipe.steps),
            lr_scheduler_type="cosine", max_grad_norm=recipe.clip, save_strategy="no", logging_strategy="no",
            report_to=[], disable_tqdm=True, seed=recipe.seed, remove_unused_columns=False,
            dataloader_pin_memory=False, bf16=torch.cuda.is_available(),
        )  # fmt: skip
        trainer = _Trainer(
            model=model, args=arguments, train_dataset=batches, data_collator=_only,
            callbacks=[_Averaged(model, recipe.average), *([_Progress(progress)] if progress else [])],
        )  # fmt: skip
        with _quiet():
            trainer.train()
    cast("nn.Module", model).cpu().eval()
    return model


class _Progress(TrainerCallback):
    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._tell(state.global_step)


def _only(batches: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The trainer's batch is one of ours."""
    return batches[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the trainer's own table of results off the terminal."""
    logger = logging.getLogger("transformers")
    before, logger.level = logger.level, logging.ERROR
    try:
        with contextlib.redirect_stdout(None):
            yield
    finally:
        logger.level = before
