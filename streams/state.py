"""State as records: named arrays in blocks of 512 rows, of which a commit writes the changed blocks only.

In: arrays that other modules fill, and the rows they touched.
Out: ``(key, value)`` records for a compacted topic; ``None`` as value deletes the key.
Must not know: what the arrays mean, Kafka, time. Rule: restoring all live records gives the same bytes in every array.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

BLOCK_ROWS = 512
"""Series per record: at 40-120 bytes a row a changed block is 20-60 kB, which commits in about 40 ms ten at a time."""

VERSION = 1
"""Format of the records. A reader takes its own version and the one before it."""

Record = tuple[str, bytes | None]
Fields = Mapping[str, tuple[npt.DTypeLike, tuple[int, ...]]]


class SnapshotError(Exception):
    """A state record cannot be read: foreign version, unknown key or another layout than this program's."""


def pack(payload: object) -> bytes:
    """Encode a payload of plain values and bytes as one versioned record value.

    Examples
    --------
    >>> unpack("clock", pack({"tick_ms": 5}))
    {'tick_ms': 5}
    """
    return msgspec.msgpack.encode([VERSION, payload])


def unpack(key: str, value: bytes) -> Any:
    """Decode a record value written by `pack`.

    Raises
    ------
    SnapshotError
        If the value is no record of ours or its version is neither this program's nor the one before.
    """
    try:
        version, payload = msgspec.msgpack.decode(value)
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        raise SnapshotError(f"state record {key!r} is damaged: {error}; restore from another replica") from error
    if version not in (VERSION, VERSION - 1):
        raise SnapshotError(
            f"state record {key!r} has version {version}, this program reads {VERSION - 1} and {VERSION}; "
            "use the program that wrote it, or start a new application id"
        )
    return payload


class Table:
    """Named arrays with one row per slot that remember which blocks of rows changed.

    Arrays are ``np.zeros`` at the maximum: pages are committed on first touch and nothing is ever copied.
    A row of zeros means "nothing known".

    Parameters
    ----------
    name
        First part of the record keys, without a slash.
    rows
        Maximum number of slots.
    fields
        Name of each array -> (dtype, shape of one row).

    Examples
    --------
    >>> t = Table("stock", 1000, {"on_hand": (np.int64, ())})
    >>> t["on_hand"][3] = 7
    >>> t.touch(np.array([3]))
    >>> [(key, value)] = t.changes()
    >>> other = Table("stock", 1000, {"on_hand": (np.int64, ())})
    >>> other.restore(key, value)
    >>> int(other["on_hand"][3]), list(t.changes())
    (7, [])
    """

    def __init__(self, name: str, rows: int, fields: Fields) -> None:
        self.name = name
        self.rows = rows
        self.arrays: dict[str, npt.NDArray[Any]] = {
            field: np.zeros((rows, *shape), dtype) for field, (dtype, shape) in fields.items()
        }
        self._touched = np.zeros(-(-rows // BLOCK_ROWS), np.bool_)

    def __getitem__(self, field: str) -> npt.NDArray[Any]:
        return self.arrays[field]

    @property
    def row_bytes(self) -> int:
        """Bytes that one slot takes in all arrays together."""
        return sum(array.itemsize * int(np.prod(array.shape[1:])) for array in self.arrays.values())

    def touch(self, slots: npt.NDArray[np.integer[Any]] | int) -> None:
        """Note that these rows changed since the last call of `changes`."""
        self._touched[slots // BLOCK_ROWS] = True

    def clear(self, slots: npt.NDArray[np.integer[Any]] | int) -> None:
        """Set rows to zero, so that their slots can be used again."""
        for array in self.arrays.values():
            array[slots] = 0
        self.touch(slots)

    def changes(self) -> Iterator[Record]:
        """Yield a record per block touched since the last call, and forget the marks."""
        for block in np.flatnonzero(self._touched).tolist():
            yield f"{self.name}/{block}", self._encode(block)
        self._touched[:] = False

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record; the newest value of a key wins.

        Raises
        ------
        SnapshotError
            If the record's fields or sizes are not those of this table.
        """
        block = int(key.rpartition("/")[2])
        span = slice(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, self.rows))
        if not 0 <= span.start < self.rows:
            raise SnapshotError(f"state record {key!r} lies beyond the maximum of {self.rows} rows; raise the maximum")
        for array in self.arrays.values():
            array[span] = 0
        if value is None:
            return
        payload = unpack(key, value)
        rows = np.frombuffer(payload["rows"], np.uint16).astype(np.int64) + span.start
        fields = payload["fields"]
        if set(fields) != set(self.arrays):
            raise SnapshotError(f"state record {key!r} has fields {sorted(fields)}, expected {sorted(self.arrays)}")
        for field, array in self.arrays.items():
            try:
                array[rows] = np.frombuffer(fields[field], array.dtype).reshape((len(rows), *array.shape[1:]))
            except (ValueError, IndexError) as error:
                raise SnapshotError(f"state record {key!r}, field {field!r}, has another layout: {error}") from error

    def _encode(self, block: int) -> bytes:
        span = slice(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, self.rows))
        used = np.zeros(span.stop - span.start, np.bool_)
        for array in self.arrays.values():
            part = array[span]
            used |= part.reshape(len(part), -1).any(axis=1)
        rows = np.flatnonzero(used)
        return pack(
            {
                "rows": rows.astype(np.uint16).tobytes(),
                "fields": {name: array[span][rows].tobytes() for name, array in self.arrays.items()},
            }
        )
