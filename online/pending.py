"""What waits for its truth: short vectors per slot and sampled horizon, in rings indexed by the target bucket.

In: vectors as of a bucket's close, for a bucket to come. Out: the same once that bucket is final; state records.
Must not know: what the vectors mean, the shop, the model. Rule: a vector waits until its bucket is final, and is given
out once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

F16 = npt.NDArray[np.float16]
Bools = npt.NDArray[np.bool_]
Slots = npt.NDArray[np.integer[Any]]

HORIZONS: tuple[int, ...] = (1, 2, 3, 7, 14, 28)
"""Horizons, in buckets, at which forecasts are kept."""

MOST = 4.28e9
"""The largest number that is told from larger ones: the square of what half precision holds."""


class Pending:
    """Vectors of half precision per slot, horizon and target bucket.

    Parameters
    ----------
    name
        First part of the record keys.
    max_series
        Number of slots.
    width
        Numbers of a vector; the first is never zero in what is kept, so that zero means "nothing".
    open_buckets
        Buckets that may be open or closed but not final at once; a target waits through all but the open one.
    horizons
        Horizons that are kept, in buckets.
    block_rows
        Slots per record.

    Examples
    --------
    >>> pending = Pending("kept", 4, width=2)
    >>> pending.put(0, np.array([2]), 100, np.float16([[1, 5]]))
    >>> [vectors.tolist() for vectors, has in [pending.take(0, np.array([1, 2]), 100)]]
    [[[1.0, 5.0]]]
    """

    def __init__(
        self,
        name: str,
        max_series: int,
        width: int,
        open_buckets: int = 3,
        horizons: tuple[int, ...] = HORIZONS,
        block_rows: int = 512,
    ) -> None:
        self.horizons = horizons
        self._name, self._width = name, width
        self._sizes = [h + open_buckets - 2 for h in horizons]
        self.cells = [np.zeros((max_series, size, width), np.float16) for size in self._sizes]
        self._block_rows = block_rows
        self._written: dict[tuple[int, int], Bools] = {}  # horizon and column -> blocks that changed

    @property
    def row_bytes(self) -> int:
        """Bytes that one series takes."""
        return sum(cell.itemsize * int(np.prod(cell.shape[1:])) for cell in self.cells)

    def put(self, index: int, slots: Slots, bucket: int, vectors: F16) -> None:
        """Keep vectors, float16 (B, width), for a bucket that is as many buckets ahead as the horizon of `index`."""
        column = bucket % self._sizes[index]
        self.cells[index][slots, column] = vectors
        self._touch(index, column, np.unique(slots // self._block_rows))

    def take(self, index: int, slots: Slots, bucket: int) -> tuple[F16, Bools]:
        """Vectors of a bucket, (N, width), and which slots have one, (B,): N of B; their cells are free again."""
        column = bucket % self._sizes[index]
        kept = self.cells[index][slots, column]
        has: Bools = kept[:, 0] != 0
        if has.any():
            self.cells[index][slots[has], column] = 0
            self._touch(index, column, np.unique(slots[has] // self._block_rows))
        return kept[has], has

    def clear(self, slot: int) -> None:
        """Forget what waits for a slot."""
        for index, cell in enumerate(self.cells):
            for column in np.flatnonzero(cell[slot].any(axis=1)).tolist():
                self._touch(index, column, np.array([slot // self._block_rows]))
            cell[slot] = 0

    def occupied(self) -> list[str]:
        """Keys of the records in which something may wait: as it stands, or as it was when last written."""
        keys = set()
        for index, cell in enumerate(self.cells):
            for column in range(cell.shape[1]):
                waits = np.flatnonzero(cell[:, column, 0]) // self._block_rows
                changed = np.flatnonzero(self._written.get((index, column), ()))
                keys |= {self._key(index, column, block) for block in (*waits.tolist(), *changed.tolist())}
        return sorted(keys)

    def _key(self, index: int, column: int, block: int) -> str:
        return f"{self._name}/{index}/{column}/{block}"

    def _touch(self, index: int, column: int, blocks: npt.NDArray[np.integer[Any]]) -> None:
        changed = self._written.get((index, column))
        if changed is None:
            changed = self._written[index, column] = np.zeros(-(-len(self.cells[index]) // self._block_rows), np.bool_)
        changed[blocks] = True

    def changes(self, used: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield ``(key, payload)`` of what was written since the last call: a block of slots of one target bucket."""
        for (index, column), changed in self._written.items():
            for block in np.flatnonzero(changed).tolist():
                start = block * self._block_rows
                part = self.cells[index][start : min(start + self._block_rows, used), column]
                yield self._key(index, column, block), {"start": start, "cells": part.tobytes()}
        self._written.clear()

    def restore(self, key: str, payload: dict[str, Any]) -> None:
        """Take over one payload of `changes`."""
        index, column, _ = key.removeprefix(f"{self._name}/").split("/")
        values = np.frombuffer(payload["cells"], np.float16).reshape(-1, self._width)
        start = payload["start"]
        self.cells[int(index)][start : start + len(values), int(column)] = values


def packed(quantiles: npt.NDArray[np.float32]) -> F16:
    """Quantiles as numbers of half precision: square roots shifted by one, so that none is zero.

    Demand up to `MOST` fits, more is taken for as much; the relative error stays below 0.2 %.

    Examples
    --------
    >>> float(unpacked(packed(np.float32([1e30])))[0]) > 4e9
    True
    """
    return (np.sqrt(np.minimum(quantiles, np.float32(MOST))) + np.float32(1)).astype(np.float16)


def unpacked(cells: F16) -> npt.NDArray[np.float32]:
    """Quantiles of `packed`: squares, or the whole numbers that half precision may have moved them from.

    Demand is mostly whole, and ties of the two decide the coverage.

    Examples
    --------
    >>> unpacked(packed(np.float32([0, 3, 1234, 0.25]))).tolist()
    [0.0, 3.0, 1234.0, 0.25]
    """
    wide = cells.astype(np.float32)
    root = wide - np.float32(1)
    value = np.square(root)
    whole = np.rint(value)
    error = 2 * root * wide * np.float32(2**-11)  # half precision rounds a cell by at most this share of it
    read: npt.NDArray[np.float32] = np.where(np.abs(value - whole) <= error, whole, value)
    return read
