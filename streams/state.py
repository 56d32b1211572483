"""State as records: named arrays, of which a commit writes the changed rows, and each block of 512 rows now and then.

In: arrays that other modules fill, and the rows they touched.
Out: ``(key, value)`` records for a compacted topic; ``None`` as value deletes the key.
Must not know: what the arrays mean, Kafka, time. Rule: restoring all live records gives the same bytes in every array.

A commit with changes has a serial number. The changed rows of all blocks go into one record ``<name>/+<serial>``, a
block that changed much into one of its own, ``<name>/<block>``. Blocks with rows in such deltas are written whole in
turn, each within `CYCLE` commits, so that a delta can be deleted `CYCLE` commits later: what a commit writes grows with
what changed, and what lives in the topic stays near the size of the tables.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from streams.sparse import shrink, spread

BLOCK_ROWS = 512
"""Rows of a block: one whole is a few kB, so that one of them per commit and table weighs little."""

CYCLE = 128
"""Commits within which a changed block is written whole, and deltas of a table that live at most."""

VERSION = 1
"""Format of the records. A reader takes its own version and the one before it."""

Record = tuple[str, bytes | None]
Fields = Mapping[str, tuple[npt.DTypeLike, tuple[int, ...]]]
Rows = npt.NDArray[np.integer[Any]]

_DENSE = BLOCK_ROWS // 2  # changed rows from which a block is written whole: see adr/0009
_MARKS = 4096  # marks of changed rows kept before repeats are taken out


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


def restore_order(key: str) -> tuple[str, int, int, str]:
    """Sort key of record keys: blocks of a table before its deltas, and numbers as numbers.

    Examples
    --------
    >>> sorted(["lines/rows/+10", "open/2", "lines/rows/+9", "lines/rows/11", "open/10"], key=restore_order)
    ['lines/rows/11', 'lines/rows/+9', 'lines/rows/+10', 'open/2', 'open/10']
    """
    name, _, last = key.rpartition("/")
    if last.isdecimal():
        return name, 0, int(last), ""
    if last[:1] == "+" and last[1:].isdecimal():
        return name, 1, int(last[1:]), ""
    return name, 0, -1, last


class Table:
    """Named arrays with one row per slot that remember which rows changed.

    Arrays are ``np.zeros`` at the maximum: pages are committed on first touch and nothing is ever copied.
    A row of zeros means "nothing known".

    Parameters
    ----------
    name
        First part of the record keys.
    rows
        Maximum number of slots.
    fields
        Name of each array -> (dtype, shape of one row).
    cycle
        Commits within which a changed block is written whole.

    Examples
    --------
    >>> t = Table("stock", 1000, {"on_hand": (np.int64, ())})
    >>> t["on_hand"][3] = 7
    >>> t.touch(np.array([3]))
    >>> [(key, value)] = t.changes()
    >>> other = Table("stock", 1000, {"on_hand": (np.int64, ())})
    >>> other.restore(key, value)
    >>> key, int(other["on_hand"][3]), list(t.changes())
    ('stock/+1', 7, [])
    """

    def __init__(self, name: str, rows: int, fields: Fields, cycle: int = CYCLE) -> None:
        self.name = name
        self.rows = rows
        self.arrays: dict[str, npt.NDArray[Any]] = {
            field: np.zeros((rows, *shape), dtype) for field, (dtype, shape) in fields.items()
        }
        self._layout = zlib.crc32(repr([(n, a.dtype.str, a.shape[1:]) for n, a in self.arrays.items()]).encode())
        self._cycle = cycle
        self._serial = 0
        self._marks = np.empty(_MARKS, np.int32)  # rows touched, with repeats: a flag for every row would cost 1 B each
        self._marked = 0
        blocks = -(-rows // BLOCK_ROWS)
        self._dense = np.zeros(blocks, np.bool_)  # much changed since the last commit
        self._patched = np.zeros(blocks, np.bool_)  # some delta is newer than the block's own record
        self._whole = np.zeros(blocks, np.int64)  # serial of the block's own record, 0 = none
        self._deltas: deque[int] = deque()

    def __getitem__(self, field: str) -> npt.NDArray[Any]:
        return self.arrays[field]

    @property
    def row_bytes(self) -> int:
        """Bytes that one slot takes in all arrays together."""
        return sum(array.itemsize * int(np.prod(array.shape[1:])) for array in self.arrays.values())

    # -- what changed

    def touch(self, slots: Rows | int) -> None:
        """Note that these rows changed since the last call of `changes`."""
        stop = self._marked + np.size(slots)
        if stop > len(self._marks):
            self._tidy(np.size(slots))
            stop = self._marked + np.size(slots)
        self._marks[self._marked : stop] = slots
        self._marked = stop

    def clear(self, slots: Rows | int) -> None:
        """Set rows to zero, so that their slots can be used again."""
        for array in self.arrays.values():
            array[slots] = 0
        self.touch(slots)

    def _tidy(self, room: int) -> None:
        """Sort the marks, take out repeats and those of blocks that changed much; make room for more."""
        rows = self._distinct(self._marks[: self._marked])
        counts = np.bincount(rows // BLOCK_ROWS, minlength=len(self._dense))
        self._dense |= counts >= _DENSE
        rows = rows[~self._dense[rows // BLOCK_ROWS]]
        size = max(_MARKS, 2 * (len(rows) + room))
        if size != len(self._marks):
            self._marks = np.empty(size, np.int32)
        self._marks[: len(rows)] = rows
        self._marked = len(rows)

    def _distinct(self, rows: Rows) -> Rows:
        if len(rows) < self.rows // 64:
            ordered = np.sort(rows)
            return ordered[np.diff(ordered, prepend=-1) > 0]  # np.unique hashes integers, which takes ten times as long
        flags = np.zeros(self.rows, np.bool_)
        flags[rows] = True
        return np.flatnonzero(flags)

    # -- state

    def changes(self) -> Iterator[Record]:
        """Yield the rows touched since the last call, blocks whose turn it is, and deletions of deltas they outdate."""
        if not self._marked and not self._dense.any():
            return
        self._tidy(0)
        self._serial += 1
        rows = self._marks[: self._marked].copy()
        self._patched[rows // BLOCK_ROWS] = True
        turn = (np.arange(len(self._patched)) + self._serial) % self._cycle == 0
        whole = self._dense | (self._patched & turn)
        rows = rows[~whole[rows // BLOCK_ROWS]]
        self._patched &= ~whole
        self._whole[whole] = self._serial
        self._dense[:] = False
        self._marked = 0
        for block in np.flatnonzero(whole).tolist():
            span = self._span(block)
            yield f"{self.name}/{block}", self._encode({n: array[span] for n, array in self.arrays.items()})
        if len(rows):
            self._deltas.append(self._serial)
            parts = {"": np.diff(rows, prepend=-1)} | {n: array[rows] for n, array in self.arrays.items()}
            yield f"{self.name}/+{self._serial}", self._encode(parts, len(rows))
        while self._deltas and self._deltas[0] <= self._serial - self._cycle:
            yield f"{self.name}/+{self._deltas.popleft()}", None

    def _encode(self, parts: Mapping[str, npt.NDArray[Any]], rows: int = 0) -> bytes:
        fields = {name: packed for name, part in parts.items() if (packed := shrink(part)) is not None}
        return pack({"serial": self._serial, "layout": self._layout, "rows": rows, "fields": fields})

    def _span(self, block: int) -> slice:
        return slice(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, self.rows))

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record; those of a table must come in the order of `restore_order`, the newest of each key.

        Raises
        ------
        SnapshotError
            If the record's fields or sizes are not those of this table.
        """
        if value is None:
            return
        payload = unpack(key, value)
        if payload["layout"] != self._layout:
            raise SnapshotError(
                f"state record {key!r} has another layout than {sorted(self.arrays)} of this program; "
                "use the program that wrote it, or start a new application id"
            )
        number = key.rpartition("/")[2]
        try:
            if number[0] == "+":
                self._restore_delta(key, payload)
            else:
                self._restore_block(key, int(number), payload)
        except (ValueError, IndexError, OverflowError) as error:
            raise SnapshotError(f"state record {key!r} is damaged: {error}; restore from another replica") from error
        self._serial = max(self._serial, payload["serial"])

    def _restore_block(self, key: str, block: int, payload: dict[str, Any]) -> None:
        span = self._span(block)
        if not 0 <= span.start < self.rows:
            raise SnapshotError(f"state record {key!r} lies beyond the maximum of {self.rows} rows; raise the maximum")
        if self._patched[block]:
            raise ValueError("it comes after rows that are newer")
        for name, array in self.arrays.items():
            array[span] = 0
            if name in payload["fields"]:
                spread(payload["fields"][name], array[span])
        self._whole[block] = payload["serial"]

    def _restore_delta(self, key: str, payload: dict[str, Any]) -> None:
        rows = np.zeros(payload["rows"], np.int64)
        spread(payload["fields"][""], rows)
        rows = np.cumsum(rows) - 1
        if rows[-1] >= self.rows:
            raise SnapshotError(f"state record {key!r} lies beyond the maximum of {self.rows} rows; raise the maximum")
        newer = self._whole[rows // BLOCK_ROWS] < payload["serial"]
        for name, array in self.arrays.items():
            part = np.zeros((len(rows), *array.shape[1:]), array.dtype)
            if name in payload["fields"]:
                spread(payload["fields"][name], part)
            array[rows[newer]] = part[newer]
        self._patched[rows[newer] // BLOCK_ROWS] = True
        self._deltas.append(payload["serial"])
