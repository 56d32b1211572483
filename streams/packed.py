"""Columns of bytes and texts that lie in one buffer, and become objects only where somebody reads them.

In: a buffer, and where each value begins and ends. Out: sequences of bytes, or of texts.
Must not know: what the values mean. Rule: a buffer goes on for `PADDING` bytes after its last value, so that kernels
may read whole words; it is never written again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
T = TypeVar("T")

PADDING = 16
"""Bytes of a buffer after its last value."""


class _Column(Sequence[T], Generic[T]):
    def __init__(self, buffer: npt.NDArray[np.uint8], starts: I64, ends: I64) -> None:
        self.buffer, self.starts, self.ends = buffer, starts, ends

    def _value(self, start: int, end: int) -> T:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[T]: ...
    def __getitem__(self, at: int | slice) -> T | Sequence[T]:
        if isinstance(at, slice):
            return type(self)(self.buffer, self.starts[at], self.ends[at])
        return self._value(int(self.starts[at]), int(self.ends[at]))

    def __iter__(self) -> Iterator[T]:
        return map(self._value, self.starts.tolist(), self.ends.tolist())

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> _Column[T]:
        """Some of the values, in the order given."""
        return type(self)(self.buffer, self.starts[rows], self.ends[rows])


class Packed(_Column[bytes | None]):
    """Values of records; an end below its start is no value.

    Examples
    --------
    >>> packed = pack([b"tea", None, b""])
    >>> list(packed), packed[0], list(packed[1:]), packed.size_bytes
    ([b'tea', None, b''], b'tea', [None, b''], 3)
    """

    def _value(self, start: int, end: int) -> bytes | None:
        return None if end < start else self.buffer[start:end].tobytes()

    @property
    def size_bytes(self) -> int:
        """Bytes of all values."""
        return int(np.maximum(self.ends - self.starts, 0).sum())

    @property
    def absent(self) -> npt.NDArray[np.bool_]:
        """Which have no value, shape (N,)."""
        return self.ends < self.starts


class Texts(_Column[str]):
    """Texts in UTF-8; an empty one stands for ``default``, an end below its start for the empty text.

    Examples
    --------
    >>> packed = pack([b"tea", b""])
    >>> list(Texts(packed.buffer, packed.starts, packed.ends))
    ['tea', 'default']
    """

    def _value(self, start: int, end: int) -> str:
        if end > start:
            return str(self.buffer[start:end].data, "utf-8")
        return "default" if end == start else ""


def pack(values: Sequence[bytes | None]) -> Packed:
    """Values in one buffer; of those that are packed already, the same.

    Examples
    --------
    >>> packed = pack([b"a"])
    >>> pack(packed) is packed
    True
    """
    if isinstance(values, Packed):
        return values
    try:
        sizes = np.fromiter(map(len, values), np.int64, len(values))  # type: ignore[arg-type]
        joined = b"".join([*values, bytes(PADDING)])  # type: ignore[list-item]
        ends = np.cumsum(sizes)
        return Packed(np.frombuffer(joined, np.uint8), ends - sizes, ends)
    except TypeError:  # some are None
        whole = pack([value or b"" for value in values])
        none = np.fromiter((value is None for value in values), np.bool_, len(values))
        return Packed(whole.buffer, whole.starts, np.where(none, whole.starts - 1, whole.ends))


def pack_texts(values: Sequence[str]) -> Texts:
    """Texts in one buffer; of those that are packed already, the same.

    Examples
    --------
    >>> list(pack_texts(["tea", "", "thé"]))
    ['tea', '', 'thé']
    """
    if isinstance(values, Texts):
        return values
    packed = pack([value.encode() for value in values])
    empty = packed.ends == packed.starts
    return Texts(packed.buffer, packed.starts, np.where(empty, packed.starts - 1, packed.ends))


def join(parts: Sequence[Sequence[T]]) -> Sequence[T]:
    """Columns one after the other: in one buffer where one of them is packed, otherwise as a list.

    Examples
    --------
    >>> list(join([pack([b"a"]), [None, b"c"]])), join([["x"], ["y"]])
    ([b'a', None, b'c'], ['x', 'y'])
    """
    if len(parts) == 1:
        return parts[0]
    kinds = {type(part) for part in parts}
    if not kinds & {Packed, Texts}:
        return [value for part in parts for value in part]
    wrap: Any = pack if Packed in kinds else pack_texts
    packed: Any = [wrap(part) for part in parts]
    if len({id(part.buffer) for part in packed}) == 1:
        starts, ends = ([getattr(part, name) for part in packed] for name in ("starts", "ends"))
        return type(packed[0])(packed[0].buffer, np.concatenate(starts), np.concatenate(ends))  # type: ignore[no-any-return]
    offsets = np.cumsum([0, *(len(part.buffer) for part in packed[:-1])]).tolist()
    return type(packed[0])(  # type: ignore[no-any-return]
        np.concatenate([part.buffer for part in packed]),
        np.concatenate([part.starts + offset for part, offset in zip(packed, offsets, strict=True)]),
        np.concatenate([part.ends + offset for part, offset in zip(packed, offsets, strict=True)]),
    )
