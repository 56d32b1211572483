"""Arrays as few bytes: entries other than zero, less their common base, in the smallest type that holds them.

In: arrays of any shape and plain type. Out: a short list of plain values and bytes, and the array back from it.
Must not know: what the entries mean, compression, records. Rule: every bit comes back, those of -0.0 and NaN included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Packed = list[Any]
"""Base, bytes of an entry, bits that say which entries are not zero (empty: all), entries less the base."""


def shrink(values: npt.NDArray[Any]) -> Packed | None:
    """Encode an array; None where all of it is zero. Equal entries cost their bits in the mask alone.

    Examples
    --------
    >>> shrink(np.array([0, 1005, 0, 0, 1007]))
    [1005, 1, b'\\x12', b'\\x00\\x02']
    >>> shrink(np.array([7, 7])), shrink(np.zeros(9)), shrink(np.array([True, False, False]))
    ([7, 0, b'', b''], None, [1, 0, b'\\x01', b''])
    """
    cells = _cells(values)
    used = cells != 0
    count = int(np.count_nonzero(used))
    if not count:
        return None
    kept, mask = cells, b""
    if count < len(cells):
        kept, mask = cells[used], np.packbits(used, bitorder="little").tobytes().rstrip(b"\0")
    low = kept.min()
    size = _size(int(kept.max()) - int(low))
    # The difference may leave a signed type; its bits, read without a sign, are right all the same.
    return [int(low), size, mask, (kept - low).view(f"u{kept.itemsize}").astype(f"u{size}").tobytes() if size else b""]


def spread(packed: Packed, into: npt.NDArray[Any]) -> None:
    """Write an encoded array over one of zeros, which is contiguous, of the same type and as many entries.

    Raises
    ------
    ValueError
        If the entries do not fit into the array.

    Examples
    --------
    >>> out = np.zeros((2, 2), np.int16)
    >>> spread(shrink(np.array([[0, -3], [5, 0]], np.int16)), out)
    >>> out.tolist()
    [[0, -3], [5, 0]]
    """
    base, size, mask, data = packed
    cells = _cells(into)
    plain = cells.view(f"u{cells.itemsize}")
    low = np.array(base, cells.dtype).view(plain.dtype)
    used = np.unpackbits(np.frombuffer(mask, np.uint8), count=len(cells), bitorder="little").view(np.bool_)
    count = int(np.count_nonzero(used)) if mask else len(cells)
    if len(data) != size * count:
        raise ValueError(f"{len(data)} bytes for {count} entries of {size}")
    kept = np.frombuffer(data, f"u{size}").astype(plain.dtype) + low if size else low
    if mask:
        plain[used] = kept
    else:
        plain[:] = kept


def _cells(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Entries as integers: whole numbers keep their sign, anything else is its bits."""
    flat = values.reshape(-1)
    return flat if flat.dtype.kind in "iu" else flat.view(f"u{flat.itemsize}")


def _size(span: int) -> int:
    return 0 if not span else 1 if span < 1 << 8 else 2 if span < 1 << 16 else 4 if span < 1 << 32 else 8
