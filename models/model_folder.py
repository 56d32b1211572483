"""A fitted model in a folder: its card, its nets, its digest.

In: a folder as `transformers` writes it, or several that answer as one. Out: `Model`: bytes that were checked; nets.
Must not know: other models, which is the champion. Rule: what is loaded is what was checked, and that is JSON and
safetensors alone: nothing in a model is ever executed.

A folder of one net holds `card.json`, `config.json` and `model.safetensors`; one of several nets holds `card.json` and
folders 0, 1, … of the other two.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from models.forecast import ForecastError

if TYPE_CHECKING:  # torch takes seconds to import, and a list of models needs none of it
    from models.net import Net

FORMAT = 1
"""Of cards and of the history of champions. Whoever changes what a field means counts it up."""

CARD, CONFIG, WEIGHTS = "card.json", "config.json", "model.safetensors"

MAX_JSON_BYTES, MAX_WEIGHTS_BYTES = 1 << 20, 1 << 29
"""Files are read whole, so that what is checked is what is loaded; an encoder has 250 kB of weights."""

MAX_NETS = 64

_T = TypeVar("_T")


class ModelLoadError(ForecastError):
    """A model cannot be used: damaged, incomplete, or written by another program. One sentence that says what to do."""

    wrong_input = False  # the program ends with 1: no other argument would have helped


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """How a model was made.

    Attributes
    ----------
    name
        First part of the published name: lower case letters, digits, `.`, `_` and `-`.
    created_ms
        When it was made, epoch ms.
    data
        What it was fitted to, in words.
    horizon
        Steps it was made for.
    covariates
        Names of the known covariates it reads.
    recipe
        How it was fitted, name by name.
    seeds
        One for each net.
    commit
        Of the program that made it, or None.
    scores
        Figures by name, such as `wql`.
    format
        Of this card.

    Examples
    --------
    >>> Card(name="retail-1", created_ms=0, data="two shops", horizon=28).seeds
    ()
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,47}$")]
    created_ms: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
    data: Annotated[str, msgspec.Meta(max_length=10_000)]
    horizon: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    covariates: tuple[str, ...] = ()
    recipe: dict[str, bool | int | float | str | None] = {}
    seeds: tuple[int, ...] = ()
    commit: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    scores: dict[str, float] = {}
    format: int = FORMAT


class _Format(msgspec.Struct, frozen=True):
    format: int


@dataclass(frozen=True, slots=True)
class Model:
    """A model whose bytes are those its digest speaks of."""

    digest: str
    card: Card
    files: Mapping[str, bytes] = field(repr=False)
    place: Path = field(repr=False)

    @property
    def name(self) -> str:
        """Published name: it changes with every byte of the model."""
        return published_name(self.card.name, self.digest)

    def encoders(self) -> list[Net]:
        """Make the nets, ready to answer.

        Raises
        ------
        ModelLoadError
            If a net is of another kind or shape than this program's, or has weights that are no numbers.
        """
        return [_encoder(self.files, net, self.place) for net in _nets(self.files)]


def published_name(name: str, digest: str) -> str:
    """Name under which a model's forecasts are published.

    Examples
    --------
    >>> published_name("retail-1", "0123456789abcdef" * 4)
    'retail-1@sha256:0123456789ab'
    """
    return f"{name}@sha256:{digest[:12]}"


def digest_of(files: Mapping[str, bytes]) -> str:
    """Sha256 over names and bytes of files: over what `sha256sum` prints of them, sorted by name.

    Examples
    --------
    >>> digest_of({"b": b"", "a": b""}) == digest_of({"a": b"", "b": b""}) != digest_of({"a": b"", "c": b""})
    True
    """
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_model(folder: Path, digest: str | None = None) -> Model:
    """Read a model from its folder, and check it against a digest where one is given.

    Raises
    ------
    ModelLoadError
        If it is damaged, incomplete, holds what is no part of a model, or has a format this program does not read.
    """
    model = model_of(read_files(folder), folder)
    if digest is not None and model.digest != digest:
        what = f"its bytes have the digest {model.digest[:12]}, not {digest[:12]}"
        raise ModelLoadError(f"{folder}: was changed after it was added ({what}); add the model again")
    return model


def model_of(files: Mapping[str, bytes], folder: Path) -> Model:
    """Make a model of files that were read from a folder; raises as `read_model` does."""
    return Model(digest_of(files), decoded(files[CARD], Card, folder / CARD), files, folder)


def read_card(folder: Path) -> Card:
    """Read the card of a model, and see that all its files are there; raises as `read_model` does."""
    _names(folder)
    return decoded(read_bytes(folder / CARD), Card, folder / CARD)


def read_files(folder: Path, *, without_card: bool = False) -> dict[str, bytes]:
    """Read the files of a model by their names in its folder; links and other files are refused.

    Raises
    ------
    ModelLoadError
        If something is missing, or is there that is no part of a model.
    """
    names = _names(folder, without_card)
    limits = {WEIGHTS: MAX_WEIGHTS_BYTES}
    return {name: read_bytes(folder / name, limits.get(Path(name).name, MAX_JSON_BYTES)) for name in names}


def _names(folder: Path, without_card: bool = False) -> list[str]:
    """Names of a model's files, complete and nothing else; no file is opened."""
    names = set()
    for name, is_folder in _inside(folder):
        if is_folder and name.isdecimal():
            names |= {f"{name}/{inner}" for inner, _ in _inside(folder / name)} or {name}
        else:
            names.add(name)
    nets = sorted({name.rpartition("/")[0] for name in names if "/" in name})
    several = [f"{number}/" for number in range(min(len(nets), MAX_NETS))]
    wanted = {net + file for net in several or [""] for file in (CONFIG, WEIGHTS)} | {CARD}
    if odd := sorted(names - wanted):
        what = "config.json, model.safetensors and card.json, or folders 0, 1, … of nets"
        raise ModelLoadError(f"{folder / odd[0]}: is no part of a model, which is {what}; take it away")
    if without_card:
        wanted.remove(CARD)
    if lost := sorted(wanted - names):
        raise ModelLoadError(f"{folder / lost[0]}: is missing; add the model again")
    return sorted(wanted)


def _inside(folder: Path) -> list[tuple[str, bool]]:
    """Names in a folder, and whether each is a folder."""
    try:
        if folder.is_symlink():
            raise ModelLoadError(f"{folder}: is a link, and models hold none; put the folder itself there")
        with os.scandir(folder) as found:
            entries = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
    except FileNotFoundError as error:
        raise ModelLoadError(f"{folder}: is not there; add the model again") from error
    except OSError as error:
        why = error.strerror
        raise ModelLoadError(f"{folder}: is no folder that can be read ({why}); add the model again") from error
    return entries


def read_bytes(path: Path, limit: int = MAX_JSON_BYTES) -> bytes:
    """Read a regular file that is no link and not too large.

    Raises
    ------
    ModelLoadError
        If it is anything else, or cannot be read.
    """
    try:
        with open(path, "rb", opener=_open) as stream:
            told = os.fstat(stream.fileno())
            if not stat.S_ISREG(told.st_mode):
                raise ModelLoadError(f"{path}: is no regular file; add the model again")
            if told.st_size > limit:
                raise ModelLoadError(f"{path}: has {told.st_size} bytes, more than {limit}; add a smaller model")
            return stream.read(limit)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ModelLoadError(f"{path}: is a link, and models hold none; put the file itself there") from error
        raise ModelLoadError(f"{path}: cannot be read ({error.strerror}); add the model again") from error


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe without a writer would wait for ever


def decoded(data: bytes, kind: type[_T], path: Path) -> _T:
    """Decode JSON of this program's format; of another one no field is looked at.

    Raises
    ------
    ModelLoadError
        If it has another format, or is damaged.
    """
    try:
        found = msgspec.json.decode(data, type=_Format).format
        if found != FORMAT:
            remedy = "use the program that wrote it, or train the model again"
            raise ModelLoadError(f"{path}: has format {found}, and this program reads {FORMAT}; {remedy}")
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelLoadError(f"{path}: is damaged ({error}); add the model again") from error


def _nets(files: Mapping[str, bytes]) -> list[str]:
    """Folders of the nets, in order, each with its slash; one empty name where there is a single net."""
    found = [name.removesuffix(CONFIG) for name in files if name.endswith(CONFIG)]
    return sorted(found, key=lambda net: (len(net), net))


def _encoder(files: Mapping[str, bytes], net: str, place: Path) -> Net:
    """Make a net of its two files; numbers drawn on the way disturb nobody's seed."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from models.net import MODEL_TYPE, Net, NetConfig

    where, remedy = place / net, "use the program that wrote it, or train the model again"
    refused = (AttributeError, KeyError, RuntimeError, TypeError, ValueError, MemoryError, RecursionError,
               msgspec.MsgspecError, SafetensorError)  # fmt: skip
    try:
        told = msgspec.json.decode(files[net + CONFIG], type=dict[str, Any])
        if (kind := told.get("model_type")) != MODEL_TYPE:
            what = f"is a model of kind {kind!r}, and this program loads {MODEL_TYPE!r}"
            raise ModelLoadError(f"{where}: {what}; {remedy}")
        with torch.random.fork_rng(devices=[]):
            encoder = Net(NetConfig.of(told))
        encoder.load_state_dict(load(files[net + WEIGHTS]))
    except refused as error:
        why = " ".join(str(error).split())[:200]
        raise ModelLoadError(f"{where}: is no encoder of this program ({why}); {remedy}") from error
    broken = [name for name, values in encoder.state_dict().items() if not torch.isfinite(values).all()]
    if broken:
        raise ModelLoadError(f"{where}: {broken[0]} holds what is no finite number; train the model again")
    return encoder.train(False)
