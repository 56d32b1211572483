"""The quick part of decoding: plain records by the kernel, and the others put between them where they came.

In: values and keys of a chunk, packed. Out: the batch of the plain ones, and of all.
Must not know: why a record is not plain. Rule: what comes out is what `streams.decode` gives without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from streams.events import EventBatch, Kind, concat
from streams.fields import series_key
from streams.key_index import hashes_of
from streams.packed import Packed, Texts

I64 = npt.NDArray[np.int64]


def parse_plain(
    kernels: Any, values: Packed, keys: Packed | None, kinds: Iterable[Kind], clock_ms: int, latest_ms: int
) -> tuple[EventBatch, npt.NDArray[np.bool_]]:
    """Events of the plain records of some kinds, and which records these are, shape (N,)."""
    batch, plain = _empty(values, keys, clock_ms), np.zeros(len(values), np.bool_)
    sku, location = cast("Texts", batch.sku), cast("Texts", batch.location)
    under, none = keys or values, np.zeros(0, np.int64)
    found = kernels.parse(
        values.buffer.ctypes.data, *map(np.ascontiguousarray, (values.starts, values.ends)),
        under.buffer.ctypes.data,
        *((none, none) if keys is None else map(np.ascontiguousarray, (keys.starts, keys.ends))),
        sum(1 << kind for kind in kinds), latest_ms,
        plain, batch.kind, batch.time_ms, batch.quantity, batch.price, batch.currency, batch.original_ms,
        batch.session, batch.id_hash, batch.series, sku.starts, sku.ends, location.starts, location.ends,
    )  # fmt: skip
    return (batch if found == len(values) else batch.take(np.flatnonzero(plain))), plain


def with_others(batch: EventBatch, others: EventBatch, left: I64, values: Packed, keys: Packed | None) -> EventBatch:
    """The plain events and those of the records in rows `left`, in the order in which they came."""
    if not len(others):
        return batch
    others.row = left[others.row].astype(np.int32)
    others.values = values.take(others.row)
    others.keys = [None] * len(others) if keys is None else keys.take(others.row)
    others.series = hashes_of(map(series_key, others.sku, others.location))
    whole = concat([batch, others])
    return whole.take(np.argsort(whole.row, kind="stable"))


def _empty(values: Packed, keys: Packed | None, clock_ms: int) -> EventBatch:
    """A batch whose rows the kernel may fill."""
    n = len(values)
    return EventBatch(
        row=np.arange(n, dtype=np.int32),
        kind=np.zeros(n, np.uint8),
        time_ms=np.zeros(n, np.int64),
        tick_ms=np.full(n, clock_ms, np.int64),
        sku=Texts(values.buffer, np.zeros(n, np.int64), np.zeros(n, np.int64)),
        location=Texts(values.buffer, np.zeros(n, np.int64), np.zeros(n, np.int64)),
        id_hash=np.zeros(n, np.uint64),
        quantity=np.zeros(n, np.int64),
        price=np.zeros(n, np.int64),
        currency=np.zeros(n, np.int32),
        original_ms=np.full(n, -1, np.int64),
        session=np.zeros(n, np.uint64),
        facts=[],
        values=values,
        keys=[None] * n if keys is None else keys,
        series=np.zeros((n, 2), np.uint64),
    )
