"""Forecasts that wait for their truth: quantiles at sampled horizons, met by the actual when it is final.

In: forecasts as published at a bucket's close; the demand of a bucket once it is final.
Out: matched pairs of quantiles and actuals, to be scored and learned from.
Must not know: the shop, the model. Rule: a forecast meets its actual when the bucket is final, never earlier.

Quantiles are kept as square roots in float16: demand up to 4e9 fits and the relative error stays below 0.2 %. What may
have been a whole number is read back as one: demand is mostly whole, and ties of the two decide the coverage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.forecast import LEVELS
from online.scores import SCORE_LEVELS

F32 = npt.NDArray[np.float32]
Slots = npt.NDArray[np.integer[Any]]

HORIZONS: tuple[int, ...] = (1, 2, 3, 7, 14, 28)
"""Horizons, in buckets, at which forecasts are kept: five levels of each pending target take 610 bytes a series."""

_PICK = [LEVELS.index(level) for level in SCORE_LEVELS]


@dataclass(frozen=True, slots=True)
class Matured:
    """Forecasts of one horizon that met their actuals.

    Attributes
    ----------
    index
        Index into `HORIZONS`.
    quantiles
        As published, float32 (N, levels).
    actual
        Demand of the final bucket, float32 (N,).
    slots
        Rows they belong to, (N,).
    """

    index: int
    quantiles: F32
    actual: F32
    slots: Slots


class Outcomes:
    """Pending forecasts per slot, in rings indexed by the target bucket.

    A cell holds the square roots shifted by one, so that zero still means "nothing published".

    Parameters
    ----------
    max_series
        Number of slots.
    open_buckets
        Buckets that may be open or closed but not final at once; a target waits through all but the open one.
    horizons
        Horizons that are kept, in buckets.
    block_rows
        Slots per record.

    Examples
    --------
    >>> outcomes = Outcomes(4)
    >>> quantiles = np.ones((1, 28, len(LEVELS)), np.float32)
    >>> outcomes.publish(np.array([2]), 100, quantiles)  # step 1 is bucket 100
    >>> [(m.index, m.actual.tolist()) for m in outcomes.mature(np.array([2]), 100, np.array([5.0], np.float32))]
    [(0, [5.0])]
    """

    def __init__(
        self, max_series: int, open_buckets: int = 3, horizons: tuple[int, ...] = HORIZONS, block_rows: int = 512
    ) -> None:
        self.horizons = horizons
        self._sizes = [h + open_buckets - 2 for h in horizons]
        self.cells = [np.zeros((max_series, size, len(_PICK)), np.float16) for size in self._sizes]
        self._block_rows = block_rows
        self._written: dict[tuple[int, int], npt.NDArray[np.bool_]] = {}  # horizon and column -> blocks that changed

    @property
    def row_bytes(self) -> int:
        """Bytes that one series takes."""
        return sum(cell.itemsize * int(np.prod(cell.shape[1:])) for cell in self.cells)

    def publish(self, slots: Slots, first_bucket: int, quantiles: F32) -> None:
        """Keep the sampled horizons of forecasts published at a close; step 1 is ``first_bucket``.

        Parameters
        ----------
        slots
            Rows, (B,).
        first_bucket
            Bucket of step 1.
        quantiles
            As published, float32 (B, H, Q) at the contract's levels.
        """
        blocks = np.unique(slots // self._block_rows)
        for index, h in enumerate(self.horizons):
            if h <= quantiles.shape[1]:
                kept = (np.sqrt(quantiles[:, h - 1, _PICK]) + np.float32(1)).astype(np.float16)  # (B, levels)
                column = (first_bucket + h - 1) % self._sizes[index]
                self.cells[index][slots, column] = kept
                self._touch(index, column, blocks)

    def mature(self, slots: Slots, bucket: int, actual: F32) -> Iterator[Matured]:
        """Yield the pairs of a bucket that is final, and free their cells.

        Parameters
        ----------
        slots
            Rows whose bucket is final, (N,).
        bucket
            The bucket.
        actual
            Its demand, float32 (N,).
        """
        for index, size in enumerate(self._sizes):
            column = bucket % size
            kept = self.cells[index][slots, column].astype(np.float32)  # (N, levels)
            has = kept[:, 0] != 0
            if has.any():
                yield Matured(index, _read(kept[has]), actual[has], slots[has])
                self.cells[index][slots, column] = 0
                self._touch(index, column, np.unique(slots[has] // self._block_rows))

    def clear(self, slot: int) -> None:
        """Forget what waits for a slot."""
        for index, cell in enumerate(self.cells):
            for column in np.flatnonzero(cell[slot].any(axis=1)).tolist():
                self._touch(index, column, np.array([slot // self._block_rows]))
            cell[slot] = 0

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
                yield f"outcomes/{index}/{column}/{block}", {"start": start, "cells": part.tobytes()}
        self._written.clear()

    def restore(self, key: str, payload: dict[str, Any]) -> None:
        """Take over one payload of `changes`."""
        _, index, column, _ = key.split("/")
        values = np.frombuffer(payload["cells"], np.float16).reshape(-1, len(_PICK))
        start = payload["start"]
        self.cells[int(index)][start : start + len(values), int(column)] = values


def _read(cells: F32) -> F32:
    """Quantiles of cells: squares, or the whole numbers that half precision may have moved them from."""
    root = cells - np.float32(1)
    value = np.square(root)
    whole = np.rint(value)
    error = 2 * root * cells * np.float32(2**-11)  # half precision rounds a cell by at most this share of it
    read: F32 = np.where(np.abs(value - whole) <= error, whole, value)
    return read
