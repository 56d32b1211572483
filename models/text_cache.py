"""Embeddings of texts in a memory-mapped file that processes share, so that each text is embedded once per model.

In: texts, and the encoder for those not seen before. Out: embeddings, float32 (N, E), and a file per model that grows.
Must not know: what the texts are about, torch. Rule: what is on disk is believed only row by row, each by its checksum:
a reader beside a writer, a kill in the middle of a row and a damaged page cost an embedding, never a wrong answer.

The file is a header of 128 bytes and rows that are only ever appended: checksum, xxh3_128 of the text, embedding.
Readers take whole rows up to the file's size and need no lock. Writers hold a lock file while they append or mend; it
goes with the process that held it. A full file is replaced by one with its newest half (the next *generation*), under
the same name; who still reads the old one reads on until it next looks for a text that it lacks. No writer ever cuts
off a whole row, so nobody's map ends beyond its file.

Embeddings lie there as float16: a million of 384 numbers in .8 GB instead of 1.6, each number .05 % off at most, and
the cosine to the float32 vector above .999999. New ones go through float16 as well before they are answered, so that
the first answer for a text and every later one are the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xxhash

from models.forecast import F32, Bools, ForecastError

log = logging.getLogger("shelftide.text")

FORMAT = 1
"""Version of the file's layout; part of its name, so that other versions never meet."""
MOST_ROWS = 1_000_000
"""Texts kept per model unless told otherwise: as many items as a worker is built for."""
PIECE = 512
"""Texts embedded between two appends: under a second of work lost to a kill, and batches still full."""

_MAGIC = b"shelftide texts\0"
_HEADER = struct.Struct("<16sIIQ64s")  # magic, format, width, generation, digest
_HEADER_BYTES = 128  # the rest is zero: room for what a later version wants to say
_CHECK_BYTES = 8
_READ = 8192  # rows copied and checked at a time: 6 MB at 384 numbers each
_YOUNG = 4096  # keys looked up in a dict before they are sorted in: 1 MB, and sorting stays rare

Keys = npt.NDArray[np.bytes_]  # 16 bytes each; numpy drops trailing zeros and compares as if they were there
I64 = npt.NDArray[np.int64]


class TextCacheError(ForecastError):
    """The folder of the text cache cannot be used."""


class Embedder(Protocol):
    """What embeds the texts that the cache lacks; `models.text.TextEncoder` is one.

    Attributes
    ----------
    digest
        Hexadecimal; another one for whatever gives other embeddings.
    width
        Numbers per embedding.
    """

    @property
    def digest(self) -> str:
        """Hexadecimal; another one for whatever gives other embeddings."""

    @property
    def width(self) -> int:
        """Numbers per embedding."""

    def embed(self, texts: Sequence[str | None]) -> F32:
        """Embeddings of texts, float32 (N, E)."""


@dataclass(frozen=True, slots=True)
class TextStats:
    """Totals of a cache since it was opened.

    Attributes
    ----------
    asked
        Different texts per call, empty ones not counted.
    embedded
        How many of them the model embedded.
    damaged
        Rows whose checksum did not hold; they were embedded anew.
    """

    asked: int = 0
    embedded: int = 0
    damaged: int = 0


class TextCache:
    """Embeddings that are computed once per text and model. One instance serves one thread.

    Two processes that lack the same text at the same moment may both embed it; it is stored once.

    Parameters
    ----------
    folder
        Where the files lie; made if need be. Files of other models in it stay, so that a rollback finds its own.
    encoder
        Embeds what is missing.
    most_rows
        Texts kept; beyond it the oldest half goes. At least 2.

    Raises
    ------
    TextCacheError
        If the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> class Lengths:
    ...     digest, width = "5eed", 2
    ...     def embed(self, texts):
    ...         return np.array([[len(text), 1] for text in texts], np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = TextCache(folder, Lengths())
    ...     cache.embeddings(["mug", "", "mug", "vase"]).tolist(), cache.stats
    ([[3.0, 1.0], [0.0, 0.0], [3.0, 1.0], [4.0, 1.0]], TextStats(asked=2, embedded=2, damaged=0))
    """

    def __init__(self, folder: Path | str, encoder: Embedder, *, most_rows: int = MOST_ROWS) -> None:
        if most_rows < 2:
            raise ValueError(f"most_rows is {most_rows}; a text cache keeps at least 2 rows")
        self.path = Path(folder) / f"text-{encoder.digest[:16]}-{encoder.width}.v{FORMAT}"
        self.most_rows = most_rows
        self.stats = TextStats()
        self._encoder = encoder
        self._digest = encoder.digest.encode()[:64]
        self._row = np.dtype([("check", "<u8"), ("key", "S16"), ("values", "<f2", (encoder.width,))])
        self._rows: npt.NDArray[Any] = np.empty(0, self._row)
        self._file = (0, 0)  # device and inode of what `_rows` maps
        self._index = _Index()
        self._refused = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._writing():
                self._look()
        except OSError as error:
            reason = error.strerror or error
            raise TextCacheError(
                f"The text cache cannot be kept in {folder}: {reason}; name another folder."
            ) from error

    def __len__(self) -> int:
        """Rows of the file when it was last looked at."""
        return len(self._rows)

    @property
    def generation(self) -> int:
        """How many times the file was full, and replaced by one with its newest half."""
        with self.path.open("rb") as file:
            return self._generation(file.read(_HEADER.size)) or 0

    def embeddings(self, texts: Sequence[str | None]) -> F32:
        """Give the embedding of each text, from the file or else from the model, which then goes into the file.

        A file that cannot be written (a full disk) costs the time of embedding again, and one line of the log.

        Returns
        -------
        Float32, shape (N, E), exact in float16; zero where a text is empty or None.
        """
        result = np.zeros((len(texts), self._encoder.width), np.float32)
        told = [place for place, text in enumerate(texts) if text and not text.isspace()]
        if not told:
            return result
        keys, first, inverse = np.unique(
            np.array([_key(texts[place] or "") for place in told], "S16"), return_index=True, return_inverse=True
        )
        values, known = self._find(keys)
        missing = np.flatnonzero(~known)
        damaged = int(np.count_nonzero(self._index.find(keys[missing]) >= 0))
        embedded = 0
        # in the order of the texts, not of the hashes, so that the newest of them are those that a full file keeps
        missing = missing[np.argsort(first[missing])]
        for start in range(0, len(missing), PIECE):
            piece = missing[start : start + PIECE]
            values[piece], known[piece] = self._find(keys[piece])  # another process may have been here since
            piece = piece[~known[piece]]
            made = self._encoder.embed([texts[told[first[place]]] for place in piece])
            values[piece] = made.astype(np.float16)
            self._keep(keys[piece], values[piece])
            embedded += len(piece)
        result[told] = values[inverse]
        now = self.stats
        self.stats = TextStats(now.asked + len(keys), now.embedded + embedded, now.damaged + damaged)
        return result

    def _find(self, keys: Keys) -> tuple[npt.NDArray[np.float16], Bools]:
        """Give the row of each key, and whether there is a sound one."""
        values = np.zeros((len(keys), self._encoder.width), np.float16)
        places = self._index.find(keys)
        if (places < 0).any() and self._look():
            places = self._index.find(keys)
        known = np.zeros(len(keys), bool)
        held = np.flatnonzero(places >= 0)
        for start in range(0, len(held), _READ):
            some = held[start : start + _READ]
            rows = self._rows[places[some]]
            known[some] = rows["check"] == _checks(rows)
            values[some] = rows["values"]
        return values, known

    def _look(self) -> bool:
        """See what the file holds by now; say whether that is something else than before."""
        try:
            with self.path.open("rb") as file:
                stat = os.fstat(file.fileno())
                count = max(0, stat.st_size - _HEADER_BYTES) // self._row.itemsize
                name = (stat.st_dev, stat.st_ino)
                same = name == self._file and count >= len(self._rows)
                if same and count == len(self._rows):
                    return False
                size = _HEADER_BYTES + count * self._row.itemsize
                mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # gone, or shorter than a header: a writer mends it, until then nothing is known
            self._file, self._rows, self._index = (0, 0), np.empty(0, self._row), _Index()
            return True
        old = len(self._rows) if same else 0
        if not same:
            self._index = _Index()
        self._file = name
        self._rows = np.frombuffer(mapped, self._row, count, _HEADER_BYTES)
        self._index.add(self._rows["key"][old:], old)
        return True

    def _keep(self, keys: Keys, values: npt.NDArray[np.float16]) -> None:
        """Append what the file lacks."""
        try:
            with self._writing():
                self._look()
                fresh = ~self._find(keys)[1]
                rows = np.empty(int(np.count_nonzero(fresh)), self._row)
                rows["key"], rows["values"] = keys[fresh], values[fresh]
                rows["check"] = _checks(rows)
                if len(self._rows) + len(rows) > self.most_rows:
                    self._begin_generation(rows)
                else:
                    self._append(rows)
                self._look()
        except OSError as error:
            if not self._refused:
                log.warning(
                    "text cache %s cannot be written (%s): texts are embedded again each time", self.path, error
                )
            self._refused = True

    def _append(self, rows: npt.NDArray[Any]) -> None:
        with self.path.open("r+b", buffering=0) as file:
            file.seek(0, os.SEEK_END)
            _write(file, rows)  # on a full disk a part of it stays: whole rows count, the next writer mends the rest

    def _begin_generation(self, rows: npt.NDArray[Any]) -> None:
        rows = rows[-self.most_rows :]
        stay = self._rows[max(len(self._rows) - max(self.most_rows // 2 - len(rows), 0), 0) :]
        generation = self.generation + 1
        self._replace(generation, stay, rows)
        text = "text cache %s was full: generation %d begins with the newest %d texts"
        log.info(text, self.path.name, generation, len(stay) + len(rows))

    def _replace(self, generation: int, *parts: npt.NDArray[Any]) -> None:
        """Put a new file in the place of the old one, at once: what others have mapped stays as it is."""
        new = self.path.with_name(self.path.name + ".new")
        head = _HEADER.pack(_MAGIC, FORMAT, self._encoder.width, generation, self._digest)
        with new.open("wb", buffering=0) as file:
            for part in (np.frombuffer(head.ljust(_HEADER_BYTES, b"\0"), np.uint8), *parts):
                _write(file, part)
        new.replace(self.path)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Be the one writer, and find a file of whole rows."""
        with self.path.with_name(self.path.name + ".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # waits for as long as another appends; closing the file lets go
            self._mend()
            yield

    def _mend(self) -> None:
        """Begin a file where there is none or an unreadable one, and cut off what a killed writer left half done."""
        if not self.path.exists():
            return self._replace(0)
        with self.path.open("r+b", buffering=0) as file:
            head = file.read(_HEADER.size)
            whole, torn = divmod(os.fstat(file.fileno()).st_size - _HEADER_BYTES, self._row.itemsize)
            if self._generation(head) is None or whole < 0:
                log.warning("text cache %s has no readable header: it begins anew, empty", self.path)
                return self._replace(0)
            if torn:
                text = "text cache %s ended in the middle of a row, %d bytes were cut off: %d texts stay"
                log.warning(text, self.path, torn, whole)
                file.truncate(_HEADER_BYTES + whole * self._row.itemsize)
        return None

    def _generation(self, head: bytes) -> int | None:
        """Read the header: the generation, or None where it is not one of this model and format."""
        if len(head) < _HEADER.size:
            return None
        magic, version, width, generation, digest = _HEADER.unpack(head)
        ours = (_MAGIC, FORMAT, self._encoder.width, self._digest.ljust(64, b"\0"))
        return int(generation) if (magic, version, width, digest) == ours else None


class _Index:
    """Where a key's newest row lies: sorted keys (24 bytes each), and a dict for those that came since."""

    def __init__(self) -> None:
        self._keys: Keys = np.empty(0, "S16")
        self._places: I64 = np.empty(0, np.int64)
        self._young: dict[bytes, int] = {}

    def add(self, keys: Keys, first: int) -> None:
        """Take in the keys of rows from `first` on; of two rows with one key the later counts."""
        many = len(keys) > _YOUNG
        if not many:
            self._young.update(zip(keys.tolist(), range(first, first + len(keys)), strict=True))
        # sorting in an eighth at a time costs each key a bounded number of sorts on its way to a million
        if not many and len(self._young) <= max(_YOUNG, len(self._keys) // 8):
            return
        young = np.array(list(self._young), "S16"), np.fromiter(self._young.values(), np.int64, len(self._young))
        more = (keys, np.arange(first, first + len(keys))) if many else (keys[:0], np.empty(0, np.int64))
        joined = np.concatenate([self._keys, young[0], more[0]])
        places = np.concatenate([self._places, young[1], more[1]])
        order = np.argsort(joined, kind="stable")
        joined, places = joined[order], places[order]
        last = np.append(joined[1:] != joined[:-1], True)[: len(joined)]
        self._keys, self._places, self._young = joined[last], places[last], {}

    def find(self, keys: Keys) -> I64:
        """Give the row of each key, -1 where there is none."""
        found = np.full(len(keys), -1, np.int64)
        if len(self._keys):
            near = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            found = np.where(self._keys[near] == keys, self._places[near], -1)
        if self._young:
            young = (self._young.get(key, -1) for key in keys.tolist())
            found = np.maximum(found, np.fromiter(young, np.int64, len(keys)))  # the later row is the sound one
        return found


def _key(text: str) -> bytes:
    return xxhash.xxh3_128_digest(text.encode("utf-8", "surrogatepass"))


def _checks(rows: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """Checksum of each row: of its key and its embedding, so that a row under a wrong key does not hold either."""
    data, size = rows.tobytes(), rows.dtype.itemsize
    starts = range(0, len(data), size)
    sums = (xxhash.xxh3_64_intdigest(data[start + _CHECK_BYTES : start + size]) for start in starts)
    return np.fromiter(sums, np.uint64, len(rows))


def _write(file: Any, rows: npt.NDArray[Any]) -> None:
    """Write all of it: one call may take less than it was given."""
    rest = np.ascontiguousarray(rows).view(np.uint8).data
    while rest:
        rest = rest[file.write(rest) :]
