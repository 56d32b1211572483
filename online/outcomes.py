"""Published forecasts that wait for their truth: quantiles at sampled horizons, met by the actual when it is final.

In: forecasts as published at a bucket's close; the demand of a bucket once it is final.
Out: matched pairs of quantiles and actuals, to be scored.
Must not know: the shop, the model. Rule: a forecast meets its actual when the bucket is final, never earlier.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from online.pending import HORIZONS, Pending, packed, unpacked
from online.scores import PICK

F32 = npt.NDArray[np.float32]
Slots = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Matured:
    """Forecasts of one horizon that met their actuals.

    Attributes
    ----------
    index
        Index into the horizons.
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
    """Pending forecasts per slot: five levels of each pending target take 610 bytes a series.

    Parameters
    ----------
    max_series, open_buckets, horizons, block_rows
        As `online.pending.Pending` has them.

    Examples
    --------
    >>> from models.forecast import LEVELS
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
        self._pending = Pending("outcomes", max_series, len(PICK), open_buckets, horizons, block_rows)

    @property
    def cells(self) -> list[npt.NDArray[np.float16]]:
        """What waits, (slots, targets, levels) per horizon."""
        return self._pending.cells

    @property
    def row_bytes(self) -> int:
        """Bytes that one series takes."""
        return self._pending.row_bytes

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
        for index, h in enumerate(self.horizons):
            if h <= quantiles.shape[1]:
                self._pending.put(index, slots, first_bucket + h - 1, packed(quantiles[:, h - 1, PICK]))

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
        for index in range(len(self.horizons)):
            kept, has = self._pending.take(index, slots, bucket)
            if len(kept):
                yield Matured(index, unpacked(kept), actual[has], slots[has])

    def clear(self, slot: int) -> None:
        """Forget what waits for a slot."""
        self._pending.clear(slot)

    def changes(self, used: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield ``(key, payload)`` of what was written since the last call: a block of slots of one target bucket."""
        return self._pending.changes(used)

    def restore(self, key: str, payload: dict[str, Any]) -> None:
        """Take over one payload of `changes`."""
        self._pending.restore(key, payload)
