"""Fine-tuning: an encoder fitted to the past of a task.

In: a `Panel`, the last column that may be seen, a `Recipe`. Out: an `Encoder`.
Must not know: cutoffs that are scored, files of a registry. Rule: nothing after `last` is read, not even to choose.

The number of steps is fixed. Early stopping watches one window of the past, and what is special about it (an Easter, a
sale) decides when to stop: measured, it costs more than it saves. Weights are averaged along the way instead
(exponential moving average), and the rate falls to zero.

A batch is a function of the seed and its number. A run that was killed therefore goes on from its last checkpoint with
the batches that it would have had, and ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainingArguments

from models.augment import augmented, chances, sold_share
from models.callbacks import Averaged, Logged, Progress, Saved, Watched, learned
from models.checkpoint import Checkpoint, fingerprint_of, read_checkpoint, write_checkpoint
from models.columns import INPUTS, StepInputs, tensors
from models.encoder import Encoder, EncoderConfig, pinball
from models.panel import Panel
from models.recipe import Keeping, Recipe
from models.start import StartError, learning, plain, read_start, standardise_new, taken_over

I64 = npt.NDArray[np.int64]

HELD_BACK_HORIZONS = 4
"""Validation covers so many horizons: several weeks of origins, so that no single holiday decides."""

HELD_BACK_SHARE = 0.25
"""And this share of what is seen at most."""

LOG_STEPS = 10
"""Between two figures for TensorBoard: each is the mean loss of so many steps."""

WATCH_STEPS, PATIENCE, WATCHED_WINDOWS = 50, 4, 2048
"""Early stopping: steps between looks, looks without improvement before it stops, windows looked at."""

_MADE_OF = (
    "covariates", "dates", "hidden", "blocks", "dropout", "feature_dropout", "anchored", "codes", "attributes",
)  # fmt: skip
"""What a configuration says of the encoder; all else in it is the library's, which the trainer writes to as well."""

_STANDARD_BATCH, _WATCHED_BATCH = 0xFFFF_FFFF, 0xFFFF_FFFE  # numbers that no run of steps reaches


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


def held_back(panel: Panel, last: int) -> int:
    """Last column before the validation span that ends with `last`."""
    return last - min(HELD_BACK_HORIZONS * panel.horizon, int(HELD_BACK_SHARE * (last + 1)))


class Batches(Dataset[dict[str, Tensor]]):
    """The n-th batch of a training run: the same for the same seed, in whatever order they are asked for.

    Parameters
    ----------
    begin
        Number of the first; a run that goes on from a checkpoint has had those before it.
    """

    def __init__(self, panel: Panel, windows: Origins, recipe: Recipe, model: Encoder, begin: int = 0) -> None:
        self._panel, self._windows, self._recipe, self._model, self._begin = panel, windows, recipe, model, begin
        self._chances: npt.NDArray[np.float64] | None = None
        if recipe.sample_power or recipe.sample_sold_power:
            self._chances = chances(panel, windows.series, windows.last, scale_power=recipe.sample_power,
                                    sold_power=recipe.sample_sold_power)  # fmt: skip

    def __len__(self) -> int:
        return self._recipe.steps - self._begin

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        inputs, actual, weight = self.sample(self._begin + number, self._recipe.windows)
        return {**tensors(inputs), "actual": actual, "weight": weight}

    def sample(self, number: int, windows: int) -> tuple[StepInputs, Tensor, Tensor]:
        """Inputs, demand over scale and weights of some steps of some windows."""
        recipe, panel = self._recipe, self._panel
        rng = np.random.default_rng([recipe.seed, number])
        picked = self._pick(rng, windows)
        series, cutoff = self._windows.series[picked], self._windows.cutoff[picked]
        reach = np.minimum(self._windows.last - cutoff, panel.horizon)
        steps = (rng.random((windows, recipe.horizons)) * reach[:, None]).astype(np.int64)
        batch = panel.batch(series, cutoff)
        demand = np.take_along_axis(panel.actual(series, cutoff, self._windows.last), steps, axis=1)
        is_open = np.take_along_axis(batch.future_open, steps, axis=1)
        factor = None
        if recipe.scaling or recipe.masking or recipe.promo_dropout:
            batch, factor = augmented(batch, rng, scaling=recipe.scaling, masking=recipe.masking,
                                      promo_dropout=recipe.promo_dropout)  # fmt: skip
            demand = demand * factor[:, None]
        inputs = self._model.inputs(self._model.windows(batch), torch.from_numpy(steps))
        usable = torch.from_numpy(np.isfinite(demand) & is_open)
        actual = torch.nan_to_num(torch.from_numpy(demand)) / inputs.scale[:, None]
        own = inputs.scale if factor is None else inputs.scale / torch.from_numpy(factor)
        weight = usable * own[:, None] ** recipe.scale_power
        if recipe.sold_power:
            weight *= torch.from_numpy(sold_share(batch.demand) ** recipe.sold_power).float()[:, None]
        return inputs, actual, weight

    def _pick(self, rng: np.random.Generator, windows: int) -> I64:
        if self._chances is None:
            return rng.integers(0, len(self._windows), windows)
        return np.searchsorted(self._chances, rng.random(windows), side="right").astype(np.int64)


class _Trainer(Trainer):
    """Hugging Face's trainer with our loss and our order of batches; it goes on from our checkpoints."""

    def __init__(self, *, recipe: Recipe, begun: Checkpoint | None, **rest: Any) -> None:
        self._recipe, self._begun = recipe, begun
        super().__init__(**rest)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        return _loss(model, inputs)

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(cast("Batches", self.train_dataset))

    @torch.no_grad()
    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Make it for the whole run, and set it and the optimizer, which is made before it, to where the run stands."""
        scheduler: Any = super().create_scheduler(self._recipe.steps, optimizer)
        if self._begun is None:
            return scheduler
        optimizer, step = cast("Any", self.optimizer), self._begun.step
        weight, first, second = (self._begun.part(name) for name in ("weight", "first", "second"))
        for name, value in learned(cast("nn.Module", self.model)).items():
            value.copy_(weight[name])
            count = torch.tensor(float(step), device=value.device if optimizer.defaults.get("fused") else None)
            moments = (first[name].to(value.device), second[name].to(value.device))
            optimizer.state[value] = {"step": count, "exp_avg": moments[0], "exp_avg_sq": moments[1]}
        rates = [base * at(step) for base, at in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        told = {"last_epoch": step, "_step_count": step + 1, "_last_lr": rates}
        scheduler.load_state_dict({**scheduler.state_dict(), **told})
        return scheduler


def _loss(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    found = model(StepInputs(**{name: inputs[name] for name in INPUTS}))
    weight = inputs["weight"]
    return (pinball(found, inputs["actual"]) * weight).sum() / weight.sum().clamp_min(1e-9)


def fit(
    panel: Panel,
    last: int,
    config: EncoderConfig,
    recipe: Recipe,
    progress: Callable[[int], None] | None = None,
    *,
    start: Path | None = None,
    keeping: Keeping | None = None,
) -> Encoder:
    """Fit an encoder to what lies at or before the column `last`.

    Parameters
    ----------
    progress
        Called with the number of steps done.
    start
        Folder of an encoder to begin from; with none, everything is learned from scratch.
    keeping
        Checkpoints and logs.

    Raises
    ------
    models.start.StartError
        If it cannot begin from there.
    models.checkpoint.CheckpointError
        If the checkpoint is of another run.
    """
    torch.manual_seed(recipe.seed)
    keeping = keeping or Keeping()
    model, new = _begin(config, recipe, start)
    seen = held_back(panel, last) if recipe.early_stopping else last
    batches = Batches(panel, origins(panel, seen), recipe, model)
    sample = batches.sample(_STANDARD_BATCH, 4096)[0]
    if new is None:
        model.standardise(sample)
    else:
        standardise_new(model, sample, new)
    fingerprint, begun = "", None
    if keeping.checkpoint is not None:
        told = {"recipe": asdict(recipe), "config": {name: getattr(config, name) for name in _MADE_OF}}
        fingerprint = fingerprint_of(panel, last, told, model.state_dict() if start else {})
        begun = read_checkpoint(keeping.checkpoint, fingerprint)
    if begun is not None and begun.done:
        model.load_state_dict(dict(begun.tensors))
    else:
        watched = _span(panel, seen, last, recipe, model) if recipe.early_stopping else None
        model = _Run(panel, seen, recipe, keeping, fingerprint, begun, progress).train(model, watched)
    cast("nn.Module", model).cpu().eval()
    if keeping.checkpoint is not None and not (begun and begun.done):
        write_checkpoint(keeping.checkpoint, fingerprint, Checkpoint(recipe.steps, model.state_dict(), done=True))
    return model


def _begin(config: EncoderConfig, recipe: Recipe, start: Path | None) -> tuple[Encoder, Tensor | None]:
    """The encoder before its first step, and which of its step columns are new to it if it began as another."""
    if start is None:
        if recipe.mode != "full":
            raise StartError(f"mode {recipe.mode} needs an encoder to begin from")
        return Encoder(config), None
    begun = read_start(start)
    asked, given = ((list(one.covariates), one.dates, one.codes, one.attributes) for one in (config, begun.config))
    if recipe.mode != "full" and asked != given:
        raise StartError(f"mode {recipe.mode} reads what the encoder to begin from reads, which is {given[0]}")
    return taken_over(begun, config)


def _span(panel: Panel, seen: int, last: int, recipe: Recipe, model: Encoder) -> dict[str, Tensor]:
    """What early stopping looks at: windows that begin in the span behind `seen`, as they are."""
    every = origins(panel, last)
    late = every.cutoff >= seen
    if not late.any():
        raise StartError("there is no validation span to watch; fit without early stopping")
    as_is = replace(recipe, scaling=0.0, masking=0.0, promo_dropout=0.0, sample_power=0.0, sample_sold_power=0.0)
    windows = Origins(every.series[late], every.cutoff[late], last)
    inputs, actual, weight = Batches(panel, windows, as_is, model).sample(_WATCHED_BATCH, WATCHED_WINDOWS)
    return {**tensors(inputs), "actual": actual, "weight": weight}


@dataclass(frozen=True, slots=True)
class _Run:
    """The steps of one fit, all of them or those behind a checkpoint."""

    panel: Panel
    seen: int
    recipe: Recipe
    keeping: Keeping
    fingerprint: str
    begun: Checkpoint | None
    progress: Callable[[int], None] | None

    def train(self, model: Encoder, span: dict[str, Tensor] | None) -> Encoder:
        """Take the steps that are left."""
        done = self.begun.step if self.begun else 0
        batches = Batches(self.panel, origins(self.panel, self.seen), self.recipe, model, done)
        trained = learning(model, self.recipe.mode)
        with tempfile.TemporaryDirectory(prefix="shelftide-train-") as folder:
            trainer = _Trainer(
                recipe=self.recipe, begun=self.begun, model=trained, args=self._arguments(folder, done),
                train_dataset=batches, data_collator=_only, callbacks=self._callbacks(trained, done, span),
            )  # fmt: skip
            with _quiet():
                trainer.train()
        return plain(trained)

    def _arguments(self, folder: str, done: int) -> TrainingArguments:
        recipe = self.recipe
        return TrainingArguments(
            output_dir=folder, max_steps=recipe.steps - done, per_device_train_batch_size=1, learning_rate=recipe.rate,
            weight_decay=recipe.weight_decay, warmup_steps=round(recipe.warmup * recipe.steps),
            lr_scheduler_type="cosine", max_grad_norm=recipe.clip, save_strategy="no",
            logging_strategy="no" if self.keeping.log_dir is None else "steps", logging_steps=LOG_STEPS,
            report_to=[], disable_tqdm=True, seed=recipe.seed, remove_unused_columns=False,
            dataloader_pin_memory=False, bf16=torch.cuda.is_available(),
        )  # fmt: skip

    def _callbacks(self, model: nn.Module, done: int, span: dict[str, Tensor] | None) -> list[TrainerCallback]:
        """In the order in which they must be called: what is saved is what was averaged and looked at before."""
        averaged, folder = Averaged(model, self.recipe.average), self.keeping.checkpoint
        watched = None
        if span is not None:
            watched = Watched(averaged, lambda net: _watched_loss(net, span), WATCH_STEPS, PATIENCE, done)
        write = None if folder is None else lambda state: write_checkpoint(folder, self.fingerprint, state)
        out: list[TrainerCallback] = [averaged, *([watched] if watched else [])]
        out.append(Saved(write, self.keeping.every, averaged, watched, self.begun))
        if self.keeping.log_dir is not None:
            out.append(Logged(self.keeping.log_dir, done))
        return [*out, *([Progress(self.progress, done)] if self.progress else [])]


def _watched_loss(model: nn.Module, span: dict[str, Tensor]) -> float:
    device = next(model.parameters()).device
    return float(_loss(model, {name: value.to(device) for name, value in span.items()}))


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
