"""Cards of models that `train` wrote: how each was made, so that it can be made again.

In: what the command was told, and the nets it wrote. Out: `card.json` beside them.
Must not know: how nets are fitted, where models are kept. Rule: what is not known is left out, never guessed.
"""

from __future__ import annotations

import hashlib
import math
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from models.model_folder import CARD, WEIGHTS, Card, read_model

if TYPE_CHECKING:
    from models.crew import Net

TASK_FILES = ("panel.parquet", "static.parquet", "task.json")

_NOT_RECIPE = {"sources", "sort", "out", "json", "add", "registry", "pretrain", "seeds", "start", "checkpoints", "logs"}
"""Options of `train` that say what is read and written; all others say how a net is fitted."""

_UNWRITTEN = {"out", "json", "add", "registry", "checkpoints", "logs"}
"""Options that a card's command leaves out: they change no byte of a net."""

_LONGEST_NAME = 48


def write_card(
    context: typer.Context,
    out: Path,
    task_dir: Path | None,
    choices: Sequence[Mapping[str, Any]],
    nets: Sequence[Net],
    events: Sequence[str] = (),
) -> str:
    """Write the card of the nets in a folder; the published name of the model comes back.

    Parameters
    ----------
    context
        Of the command that fitted them.
    out
        Folder of the nets: 0, 1, ….
    task_dir
        What they were fitted to; None: made-up shops.
    choices
        What was compared by validation, each with its `wql`.
    nets
        What each is, and where it began.
    events
        Files that the task was made of, if it was.

    Raises
    ------
    ModelLoadError
        If something lies in the folder that is no part of a model.
    """
    from models.encoder import load

    folders = sorted((path for path in out.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))
    first = load(folders[0])
    made = _of_made_up_shops() if task_dir is None else _of_task(task_dir, events)
    given = {name: _said(value) for name, value in context.params.items() if name not in _NOT_RECIPE}
    recipe = {**made.pop("recipe"), **{name: value for name, value in given.items() if value is not None}}
    recipe |= {"mode": ", ".join(net.mode for net in nets), "start": ", ".join(_start(net.start) for net in nets)}
    recipe |= {"dates": bool(first.config.dates)}
    recipe |= {"parameters_of_a_net": sum(values.numel() for values in first.parameters()), **_made_with(context)}
    card = Card(
        **made,
        created_ms=time.time_ns() // 1_000_000,
        covariates=tuple(first.config.covariates),
        recipe=recipe,
        seeds=tuple(int(recipe["seed"]) + n for n in range(len(folders))),
        commit=commit(),
        scores=dict(_scores(choices)),
    )
    (out / CARD).write_bytes(card_bytes(card))
    return read_model(out).name


def card_bytes(card: Card) -> bytes:
    """Write a card as JSON: the same card gives the same bytes."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(card, order="deterministic"), indent=1) + b"\n"


def commit() -> str | None:
    """The commit of the source that runs, with `-dirty` where files differ from it; None where git does not know it."""
    here, git = Path(__file__), shutil.which("git")
    if git is None:
        return None
    asked = [
        ["ls-files", "--error-unmatch", here.name],  # the repository around an installed package is another one
        ["describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
    ]
    said = ""
    for words in asked:
        command = [git, "--no-optional-locks", "-C", str(here.parent), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
        if done.returncode:
            return None
        said = done.stdout.strip()
    return said if re.fullmatch(r"[0-9a-f]{40}(-dirty)?", said) else None


def _of_made_up_shops() -> dict[str, Any]:
    """What a card says of a net that has seen made-up shops alone."""
    from models.named import SHIPPED
    from models.pretrain import CORPUS_SEED, DAYS, HORIZON, SERIES
    from models.recipe import PRETRAINING

    corpus = {"corpus_seed": CORPUS_SEED, "corpus_series": SERIES, "corpus_days": DAYS}
    data = f"made-up shops alone (models/corpus.py): {SERIES:,} series of {DAYS} days, seed {CORPUS_SEED}"
    return {"name": SHIPPED.name, "data": data, "horizon": HORIZON, "recipe": {**asdict(PRETRAINING), **corpus}}


def _of_task(task_dir: Path, events: Sequence[str] = ()) -> dict[str, Any]:
    """What a card says of nets that were fitted to a task, or to events that were made into one."""
    import msgspec

    from models.recipe import Recipe
    from models.task import TaskFile

    file = msgspec.json.decode((task_dir / "task.json").read_bytes(), type=TaskFile)
    name = file.name or task_dir.resolve().name
    digests = ", ".join(f"{part} sha256:{_sha256(task_dir / part)}" for part in TASK_FILES)
    if events and isinstance(file.cutoffs, list):
        told = ", ".join(f"{path} sha256:{_sha256(Path(path))}" if path != "-" else "stdin" for path in events)
        data = f"events up to the end of {file.cutoffs[0]}: {told}"
        return {"name": _slug(name), "data": data[:10_000], "horizon": file.horizon, "recipe": asdict(Recipe())}
    data = f"task {name}, {'up to its first cutoff' if file.cutoffs else 'all of it'}: {digests}"
    return {"name": _slug(name), "data": data[:10_000], "horizon": file.horizon, "recipe": asdict(Recipe())}


def _made_with(context: typer.Context) -> dict[str, str | None]:
    """The command, and the versions that ran it."""
    versions = {name: _version(name) for name in ("shelftide", "torch", "transformers")}
    return {"command": _command(context), **versions}


def _command(context: typer.Context) -> str:
    """The command as it would be typed, without what changes no byte of a net."""
    words = ["shelftide", "train"]
    for param in context.command.params:
        name, value = param.name or "", context.params.get(param.name or "")
        source = context.get_parameter_source(name)
        if name in _UNWRITTEN or value is None or source is None or source.name != "COMMANDLINE":
            continue
        if param.param_type_name == "argument":
            words += map(str, value if isinstance(value, list | tuple) else [value])
        elif isinstance(value, bool):
            words += [(param.opts if value else param.secondary_opts)[0]]
        else:
            for one in value if isinstance(value, list | tuple) else [value]:
                words += [param.opts[0], str(one)]
    return shlex.join(words)


def _scores(choices: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """What the validation found: the WQL of each candidate, by what sets it apart."""
    found = []
    for one in choices:
        apart = ", ".join(f"{name} {str(value).lower()}" for name, value in one.items() if name != "wql")
        found.append((f"validation wql, {apart}", float(one["wql"])))
    return [(name, wql) for name, wql in found if math.isfinite(wql)]


def _slug(name: str) -> str:
    """A name as cards may have it.

    Examples
    --------
    >>> _slug("UCI daily (2011)"), _slug("…")
    ('uci-daily-2011', 'task')
    """
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("._-")[:_LONGEST_NAME] or "task"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _start(folder: Path | None) -> str:
    """The encoder that a net began from: its published name where it has a card, else the digest of its weights."""
    if folder is None:
        return "nothing"
    if (folder / CARD).is_file():
        return read_model(folder).name
    return f"sha256:{_sha256(folder / WEIGHTS)}"


def _said(value: Any) -> bool | int | float | str | None:
    """An option as a card has it; None for what is not said."""
    return value if isinstance(value, bool | int | float | str) else None
