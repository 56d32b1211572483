"""Checkpoints of a fit: everything a run needs to go on as if it had never stopped, in one file.

In: tensors by name, counts. Out: one safetensors file, replaced as a whole; the newest state, or none.
Must not know: nets, trainers. Rule: no pickle, so that reading a checkpoint executes nothing; a file is that of a run,
whose fingerprint it holds, and is never taken for that of another.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from models.forecast import ForecastError
from models.panel import Panel

FORMAT = "1"
"""Whoever changes what a checkpoint holds counts it up: an older one is then refused, not misread."""

NAME = "checkpoint.safetensors"


class CheckpointError(ForecastError):
    """A checkpoint cannot be used; the message is one sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a run stands.

    Attributes
    ----------
    step
        Steps done.
    tensors
        By name: weights, their average, moments of the optimiser, states of random generators.
    notes
        Other facts as text.
    done
        Whether the run is over: the weights are those that it ended with.
    """

    step: int
    tensors: Mapping[str, Tensor]
    notes: Mapping[str, str] = field(default_factory=dict)
    done: bool = False

    def part(self, name: str) -> dict[str, Tensor]:
        """Tensors whose names begin with a word and a slash, by the rest of their names."""
        head = f"{name}/"
        return {key.removeprefix(head): value for key, value in self.tensors.items() if key.startswith(head)}


def write_checkpoint(folder: Path, fingerprint: str, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint of a folder; whoever is killed meanwhile leaves the one before.

    The file is on disk before it takes its name, and the name before this returns.
    """
    told = {
        "format": FORMAT, "fingerprint": fingerprint, "step": str(checkpoint.step), "done": str(int(checkpoint.done)),
        "notes": msgspec.json.encode(dict(checkpoint.notes)).decode(),
    }  # fmt: skip
    tensors = {name: value.detach().cpu().contiguous() for name, value in checkpoint.tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{NAME}.{os.getpid()}"  # of its own: a run that was taken for dead may still write
    with part.open("wb") as stream:
        stream.write(save(tensors, told))
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, folder / NAME)
    place = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def read_checkpoint(folder: Path, fingerprint: str) -> Checkpoint | None:
    """Read the checkpoint of a folder, None where there is none yet.

    Raises
    ------
    CheckpointError
        If it is damaged, or belongs to another run: another task, recipe or program.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        if (told.get("format"), told.get("fingerprint")) != (FORMAT, fingerprint):
            remedy = "name another folder, or delete it to begin anew"
            raise CheckpointError(f"{path}: is of another run (other data, recipe or program); {remedy}")
        notes = msgspec.json.decode(told["notes"], type=dict[str, str])
        return Checkpoint(int(told["step"]), tensors, notes, told["done"] == "1")
    except (OSError, KeyError, ValueError, SafetensorError, msgspec.DecodeError) as error:
        why = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: cannot be read ({why}); delete it to begin anew") from error


def fingerprint_of(panel: Panel, last: int, told: Mapping[str, object], weights: Mapping[str, Tensor]) -> str:
    """Digest of all that decides how a run goes: what it sees, how it is fitted, where it begins.

    Parameters
    ----------
    last
        Column after which demand is not read; known columns are read one horizon further.
    told
        Recipe and configuration, as JSON can write them.
    weights
        Those it begins with.
    """
    task, digest = panel.task, hashlib.sha256()
    facts = [FORMAT, last, panel.horizon, task.first_bucket, task.file.season, task.file.freq, task.file.open, task.ids]
    digest.update(msgspec.json.encode([facts, told, str(torch.__version__)], order="sorted"))
    matrices: dict[str, npt.NDArray[Any]] = {"y": task.demand[:, : last + 1]}
    matrices |= {f"past/{name}": one[:, : last + 1] for name, one in task.past.items()}
    matrices |= {f"known/{name}": one[:, : last + 1 + panel.horizon] for name, one in task.known.items()}
    matrices |= {f"attribute/{name}": codes for name, codes in task.attributes.items()}
    for name, said in task.ahead.items():
        seen = said.window % said.buckets <= last
        matrices |= {f"ahead/{name}/{part}": getattr(said, part)[seen] for part in ("window", "step", "value")}
    for name, matrix in sorted(matrices.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(matrix).tobytes())
    for name, value in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
