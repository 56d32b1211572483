"""What happens beside the steps of a fit: averaging, watching, saving, telling.

In: calls of Hugging Face's trainer. Out: averaged weights; checkpoints; figures for TensorBoard.
Must not know: panels, recipes. Rule: a step counts from the beginning of the run, however often it was interrupted; and
nothing here draws from torch's generators, so that a run is the same with and without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from models.checkpoint import Checkpoint

Weights = dict[str, Tensor]


def learned(model: nn.Module) -> Weights:
    """The weights that learn, by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


class Averaged(TrainerCallback):
    """Keeps a moving average of the weights, and puts it in their place at the end."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self.mean = {name: value.detach().clone() for name, value in learned(model).items()}
        self._count = 0

    def restore(self, mean: Mapping[str, Tensor], count: int) -> None:
        """Go on from an average over so many steps."""
        self._count = count
        for name, value in mean.items():
            self.mean[name].copy_(value)

    def on_step_end(self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **_: Any) -> None:
        """Take the step's weights into the average."""
        assert model is not None  # noqa: S101 - the trainer always passes it
        self._count += 1
        decay = min(self._decay, (1 + self._count) / (10 + self._count))  # the start is forgotten quickly
        with torch.no_grad():
            for name, value in learned(model).items():
                self.mean[name].lerp_(value, 1 - decay)

    def on_train_end(self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **_: Any) -> None:
        """Put the average in place of the weights."""
        assert model is not None  # noqa: S101
        _put(model, self.mean)

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Let the model answer with the averaged weights for a while."""
        before = {name: value.detach().clone() for name, value in learned(model).items()}
        _put(model, self.mean)
        model.train(False)
        try:
            yield
        finally:
            _put(model, before)
            model.train(True)


@torch.no_grad()
def _put(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    own = learned(model)
    for name, value in weights.items():
        own[name].copy_(value)


class Watched(TrainerCallback):
    """Early stopping: looks at a loss now and then, stops when it has long not improved, keeps the best average.

    Parameters
    ----------
    averaged
        Whose weights are looked at.
    loss
        Of a model, on what it does not learn from.
    every, patience
        Steps between looks; looks without improvement after which it stops.
    done
        Steps before this run.
    """

    def __init__(
        self, averaged: Averaged, loss: Callable[[nn.Module], float], every: int, patience: int, done: int = 0
    ) -> None:
        self._averaged, self._loss, self._every, self._patience, self._done = averaged, loss, every, patience, done
        self.best_loss, self.best_step = float("inf"), 0
        self.best: Weights = {name: value.clone() for name, value in averaged.mean.items()}

    def restore(self, best: Mapping[str, Tensor], loss: float, step: int) -> None:
        """Go on from the best weights so far, with their loss and step."""
        self.best, self.best_loss, self.best_step = dict(best), loss, step

    def on_step_end(self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **_: Any) -> None:
        """Look, if it is time to."""
        assert model is not None  # noqa: S101
        step = self._done + state.global_step
        if step % self._every:
            return
        with self._averaged.in_place(model), torch.no_grad():
            loss = self._loss(model)
        if loss < self.best_loss:
            best = {name: value.clone() for name, value in self._averaged.mean.items()}
            self.best, self.best_loss, self.best_step = best, loss, step
        elif step - self.best_step >= self._patience * self._every:
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **_: Any) -> None:
        """Put the best weights in place, if there was a look."""
        assert model is not None  # noqa: S101
        if self.best_step:
            _put(model, self.best)


class Saved(TrainerCallback):
    """Hands out a checkpoint every so many steps, and lets a run go on from one.

    Parameters
    ----------
    write
        Takes a checkpoint.
    every
        Steps between two.
    averaged, watched
        What belongs to the state beside weights and optimiser.
    begun
        The checkpoint that this run goes on from, or None.
    """

    def __init__(
        self, write: Callable[[Checkpoint], None] | None, every: int, averaged: Averaged, watched: Watched | None,
        begun: Checkpoint | None,
    ) -> None:  # fmt: skip
        self._write, self._every, self._averaged, self._watched = write, every, averaged, watched
        self._begun, self._done = begun, begun.step if begun else 0
        if begun is not None:
            averaged.restore(begun.part("average"), begun.step)
            if watched is not None:
                watched.restore(begun.part("best"), float(begun.notes["best_loss"]), int(begun.notes["best_step"]))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Before the first step, set torch's generators: setting up the run has drawn from them."""
        if self._begun is not None and not state.global_step:
            torch.set_rng_state(self._begun.tensors["rng/cpu"])
            if torch.cuda.is_available() and "rng/cuda" in self._begun.tensors:
                torch.cuda.set_rng_state(self._begun.tensors["rng/cuda"])

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: nn.Module | None = None, optimizer: Any = None, **_: Any
    ) -> None:
        """Hand out a checkpoint, if it is time to."""
        assert model is not None  # noqa: S101
        step = self._done + state.global_step
        if self._write is None or step % self._every or control.should_training_stop:  # the end is not ours to save
            return
        tensors: Weights = {"rng/cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["rng/cuda"] = torch.cuda.get_rng_state()
        for name, value in learned(model).items():
            moments = optimizer.state[value]
            tensors |= {f"weight/{name}": value, f"average/{name}": self._averaged.mean[name]}
            tensors |= {f"first/{name}": moments["exp_avg"], f"second/{name}": moments["exp_avg_sq"]}
        notes = {}
        if (watched := self._watched) is not None:
            tensors |= {f"best/{name}": value for name, value in watched.best.items()}
            notes = {"best_loss": repr(watched.best_loss), "best_step": str(watched.best_step)}
        self._write(Checkpoint(step, tensors, notes))


class Logged(TrainerCallback):
    """Writes loss, rate and gradient norm for TensorBoard."""

    def __init__(self, folder: Path, done: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import, and few want it

        self._writer = SummaryWriter(str(folder), purge_step=done + 1 if done else None)
        self._done = done

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Write the figures of a step."""
        for name, shown in (("loss", "loss"), ("learning_rate", "rate"), ("grad_norm", "gradient_norm")):
            if logs and name in logs:
                step = self._done + state.global_step
                self._writer.add_scalar(f"train/{shown}", logs[name], step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the file."""
        self._writer.close()


class Progress(TrainerCallback):
    """Tells the number of steps done."""

    def __init__(self, tell: Callable[[int], None], done: int = 0) -> None:
        self._tell, self._done = tell, done

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell it."""
        self._tell(self._done + state.global_step)
