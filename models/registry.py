"""Fitted models on disk: folders named by what is in them, and which of them is the champion.

In: folders of nets as `transformers` writes them, and a `Card` that says how they were made. Out: digests, cards, nets.
Must not know: training, shops, clocks. Rule: a model is never changed, only added and removed; whoever is killed at any
moment leaves every model and the champion as they were before, or as they were to become.

A folder of models looks like this; whatever begins with `.part-` is unfinished, and the next writer removes it:

    champion.json             champions so far, the present one last
    models/<digest>/          one model: `card.json`, and `config.json` and `model.safetensors`, or several nets
    models/<digest>/0/, 1/    that answer as one, a folder of those two files each
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from models.forecast import ForecastError
from models.model_folder import (
    CARD,
    FORMAT,
    Card,
    Model,
    ModelLoadError,
    decoded,
    model_of,
    published_name,
    read_bytes,
    read_card,
    read_files,
    read_model,
)

if TYPE_CHECKING:
    from models.net import Net

CHAMPION = "champion.json"

MIN_PREFIX = 4
"""Fewer characters of a digest are more likely a slip than a choice."""

HISTORY = 16
"""Champions remembered. All of them are kept on disk, so that each can be brought back."""

_PART = ".part-"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class RegistryError(ForecastError):
    """What was asked of a registry cannot be done; the message is one sentence that says what to do."""


class Promotion(msgspec.Struct, frozen=True):
    """A model became the champion, at a time if somebody said which, epoch ms."""

    digest: _Digest
    at_ms: int | None = None


class _History(msgspec.Struct, frozen=True):
    promotions: list[Promotion] = []
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Entry:
    """A model as a list shows it; `card` is None where it cannot be read, and `fault` says why."""

    digest: str
    card: Card | None
    fault: str = ""

    @property
    def name(self) -> str:
        """Published name, or the digest where the card cannot be read."""
        return published_name(self.card.name, self.digest) if self.card else f"sha256:{self.digest[:12]}"


@dataclass(frozen=True, slots=True)
class Change:
    """Another champion: its digest, and that of the former one or None. Both are equal where nothing changed."""

    champion: str
    former: str | None


class Registry:
    """Models in a folder.

    Reading makes nothing and locks nothing, so a folder that cannot be written is a fine registry. One process at a
    time writes, others wait.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, folder: Path, card: Card | None = None) -> str:
        """Keep a copy of a model; what is there already stays as it is.

        Parameters
        ----------
        folder
            Of one net, or of one folder a net: 0, 1, ….
        card
            How it was made; without one the folder's own `card.json`.

        Returns
        -------
        The digest.

        Raises
        ------
        RegistryError
            If the card cannot be kept, or the disk is full.
        ModelLoadError
            If the model cannot be loaded: then it is not kept.
        """
        files = read_files(folder, without_card=card is not None)
        if card is not None:
            files[CARD] = _card_bytes(card)
        model = model_of(files, folder)
        model.encoders()
        with self._writing():
            place = self._place(model.digest)
            if os.path.lexists(place):
                with contextlib.suppress(ModelLoadError):
                    return read_model(place, model.digest).digest
                _discard(place)  # a damaged copy
            _keep(model, place)
        return model.digest

    def list(self) -> Sequence[Entry]:
        """Every model, the newest first; those that cannot be read come last, with the reason.

        Bytes of nets are not looked at: `show` does that.
        """
        entries = [_entry(self._place(digest)) for digest in self._digests()]
        return sorted(entries, key=lambda entry: (entry.card is not None, _age(entry)), reverse=True)

    def show(self, model: str | None = None) -> Model:
        """Read a model and check every byte of it.

        Parameters
        ----------
        model
            Digest, its beginning, or published name; None is the champion.

        Raises
        ------
        RegistryError
            If there is no such model, or more than one.
        ModelLoadError
            If it is damaged, incomplete, or of a format that this program does not read.
        """
        digest = self.champion() if model is None else self.resolve(model)
        if digest is None:
            raise RegistryError(f"{self.folder}: has no champion yet; promote a model")
        return read_model(self._place(digest), digest)

    def load(self, model: str | None = None) -> Sequence[Net]:
        """Read, check and make the nets of a model, or of the champion; raises as `show` and `Model.encoders` do."""
        return self.show(model).encoders()

    def resolve(self, model: str) -> str:
        """Find the one digest that a digest, its beginning, or a published name stands for.

        Raises
        ------
        RegistryError
            If there is no such model, or more than one.
        """
        name, at, rest = model.strip().rpartition("@")
        prefix = rest.removeprefix("sha256:").lower()
        if not re.fullmatch(rf"[0-9a-f]{{{MIN_PREFIX},64}}", prefix):
            hint = f"a digest, {MIN_PREFIX} or more characters of its beginning, or a name as in retail-1@sha256:…"
            raise RegistryError(f"{model!r} names no model; give {hint}")
        found = [digest for digest in self._digests() if digest.startswith(prefix)]
        if len(found) > 1:
            shown = ", ".join(digest[: len(prefix) + 8] for digest in found[:4])
            raise RegistryError(f"{model!r} is the beginning of {len(found)} models ({shown}); give more of it")
        if not found:
            raise RegistryError(f"{self.folder}: has no model {model!r}; list the models to see which there are")
        entry = _entry(self._place(found[0]))
        if at and entry.card is not None and entry.card.name != name:
            raise RegistryError(f"{self.folder}: {found[0][:12]} is {entry.name}, not {model!r}; name it so")
        return found[0]

    def champion(self) -> str | None:
        """Digest of the model that answers, or None."""
        history = self.history()
        return history[0].digest if history else None

    def history(self) -> Sequence[Promotion]:
        """Champions, the present one first; no more than `HISTORY`.

        Raises
        ------
        ModelLoadError
            If `champion.json` cannot be read.
        """
        path = self.folder / CHAMPION
        if not os.path.lexists(path):
            return []
        return decoded(read_bytes(path), _History, path).promotions[::-1]

    def promote(self, model: str, at_ms: int | None = None) -> Change:
        """Make a model the champion; one that is it already stays it.

        Raises
        ------
        RegistryError
            If there is no such model, or more than one.
        ModelLoadError
            If it cannot be loaded: then the champion stays.
        """
        digest = self.resolve(model)
        read_model(self._place(digest), digest).encoders()
        with self._writing():
            read_model(self._place(digest), digest)  # somebody may have pruned it meanwhile
            history = self.history()
            former = history[0].digest if history else None
            if former != digest:
                self._remember([Promotion(digest, at_ms), *history][:HISTORY])
        return Change(digest, former)

    def rollback(self, model: str | None = None) -> Change:
        """Bring back the champion before the present one, or an earlier one by name, byte for byte.

        Those that came after it are forgotten as champions; their models stay until they are pruned.

        Raises
        ------
        RegistryError
            If there was no champion before, or not this one.
        ModelLoadError
            If its bytes are not what they were: then the present champion stays.
        """
        wanted = None if model is None else self.resolve(model)
        self._former(wanted)  # before anything is written
        with self._writing():
            history = self.history()
            at = self._former(wanted)
            read_model(self._place(history[at].digest), history[at].digest)
            self._remember(history[at:])
        return Change(history[at].digest, history[0].digest)

    def prune(self, keep: int) -> Sequence[str]:
        """Remove models, but not the newest, the champion, or one that can be rolled back to.

        A model whose card cannot be read stays: a newer program may know it.

        Parameters
        ----------
        keep
            How many of the newest stay, >= 0.

        Returns
        -------
        Digests of what was removed.
        """
        if keep < 0:
            raise RegistryError(f"{keep} models cannot be kept; give 0 or more")
        if not self._digests():
            return []
        with self._writing():
            spared = {promotion.digest for promotion in self.history()}
            known = [entry.digest for entry in self.list() if entry.card is not None]
            gone = [digest for digest in known[keep:] if digest not in spared]
            for digest in gone:
                _discard(self._place(digest))
        return gone

    def _former(self, wanted: str | None) -> int:
        """Where in the history the champion to bring back is."""
        digests = [promotion.digest for promotion in self.history()]
        if wanted is None and len(digests) < 2:
            raise RegistryError(f"{self.folder}: has no former champion to bring back; promote a model by its name")
        if wanted is not None and wanted not in digests:
            raise RegistryError(f"{self.folder}: {wanted[:12]} is no former champion; promote it instead")
        return 1 if wanted is None else digests.index(wanted)

    def _remember(self, history: Sequence[Promotion]) -> None:
        """Write the history: into a file of its own, to the disk, over the former one, and that to the disk."""
        part = self.folder / f"{_PART}{CHAMPION}"
        _write(part, _pretty(_History([*history][::-1])))
        os.replace(part, self.folder / CHAMPION)
        _sync(self.folder)

    def _place(self, digest: str) -> Path:
        return self.folder / "models" / digest

    def _digests(self) -> Sequence[str]:
        try:
            return sorted(name for name in os.listdir(self.folder / "models") if _DIGEST.fullmatch(name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RegistryError(f"{self.folder}: cannot be read ({error.strerror}); give another folder") from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Be the only writer; the system lets go of the lock when a process ends, however it ends."""
        try:
            (self.folder / "models").mkdir(parents=True, exist_ok=True)
            lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                for left in (*self.folder.glob(f"{_PART}*"), *self.folder.glob(f"models/{_PART}*")):
                    _remove(left)  # its writer is dead, or it would hold the lock
                yield
            finally:
                os.close(lock)
        except OSError as error:
            why = error.strerror or str(error)
            raise RegistryError(f"{self.folder}: cannot be written ({why}); make room or give another") from error


def _entry(place: Path) -> Entry:
    try:
        return Entry(place.name, read_card(place))
    except ModelLoadError as error:
        return Entry(place.name, None, str(error))


def _age(entry: Entry) -> tuple[int, str]:
    return (entry.card.created_ms if entry.card else 0, entry.digest)


def _card_bytes(card: Card) -> bytes:
    """Write a card, and see that it reads the same: a NaN among the scores would not."""
    try:
        data = _pretty(card)
        if msgspec.json.decode(data, type=Card) == card:
            return data
        why = "a value is no finite number, or no plain text"
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        why = str(error)
    raise RegistryError(f"the card of {card.name!r} cannot be kept ({why}); correct it")


def _pretty(value: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value, order="deterministic"), indent=1) + b"\n"


def _keep(model: Model, place: Path) -> None:
    """Write a model: 1. its files to a folder of their own, 2. to the disk, 3. under its name, 4. that to the disk."""
    part = Path(tempfile.mkdtemp(prefix=_PART, dir=place.parent))
    for name, data in model.files.items():
        (part / name).parent.mkdir(exist_ok=True)
        _write(part / name, data)
    for folder in {(part / name).parent for name in model.files} | {part}:
        _sync(folder)
    part.chmod(0o755)  # as other folders; the system gives temporary ones to their owner alone
    part.rename(place)
    _sync(place.parent)


def _discard(place: Path) -> None:
    """Take a model's name away at once, then the model: one that is half removed must not be found."""
    part = place.with_name(f"{_PART}{place.name}")
    place.rename(part)
    _sync(place.parent)
    _remove(part)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
