"""Look-ups and sums over columns in kernels: what `streams.key_index`, `streams.dedupe` and the panes do row by row.

In: arrays that these own. Out: the same arrays changed, exactly as NumPy changes them.
Must not know: what the numbers mean. Rule: sums are of integers, so that no order of adding shows.
"""

# mypy: disallow_untyped_decorators=False, disallow_untyped_calls=False, disallow_untyped_defs=False
from __future__ import annotations

import numpy as np
from numba import types

from streams.compiled import kernel

_U0, _U1 = np.uint64(0), np.uint64(1)
_EMPTY = -1


@kernel
def find_keys(wanted, hashes, slots, shift, out):
    """Slot of each wanted hash of two words, -1 where it has none."""
    mask = np.int64(len(slots) - 1)
    for i in range(len(wanted)):
        first, second = wanted[i, 0], wanted[i, 1]
        at = np.int64(first >> np.uint64(shift))
        out[i] = -1
        while slots[at] != _EMPTY:
            if slots[at] >= 0 and hashes[at, 0] == first and hashes[at, 1] == second:
                out[i] = slots[at]
                break
            at = (at + 1) & mask


@kernel
def _holds(cells, shift, multiplier, value):
    """Whether a table of cells holds a value."""
    mask = np.int64(len(cells) - 1)
    at = np.int64((value * multiplier) >> shift)
    while cells[at] != _U0:
        if cells[at] == value:
            return True
        at = (at + 1) & mask
    return False


@kernel
def see(hashes, young, young_shift, old, old_shift, factor, fresh):
    """Mark the hashes that neither table holds nor an earlier row, and put them into the young one, which has room.

    How many these are comes back. A hash of 0 counts as 1.
    """
    multiplier, shift = np.uint64(factor), np.uint64(young_shift)
    mask, count = np.int64(len(young) - 1), 0
    for i in range(len(hashes)):
        value = hashes[i] if hashes[i] != _U0 else _U1
        at = np.int64((value * multiplier) >> shift)
        while young[at] != _U0 and young[at] != value:
            at = (at + 1) & mask
        fresh[i] = young[at] == _U0 and not _holds(old, np.uint64(old_shift), multiplier, value)
        if fresh[i]:
            young[at] = value
            count += 1
    return count


_U64S = types.uint64[::1]
ENTRIES = {
    "find_keys": types.void(
        types.uint64[:, ::1], types.uint64[:, ::1], types.int32[::1], types.int64, types.int32[::1]
    ),
    "see": types.int64(_U64S, _U64S, types.int64, _U64S, types.int64, types.uint64, types.boolean[::1]),
}
"""What `streams.compiled` loads, by name, with the types of the arguments."""
