"""Events seen before: one open-addressing table of 64-bit hashes, searched a batch at a time.

In: stable 64-bit hashes of (sku, event_id) and the watermark.
Out: which rows are seen for the first time.
Must not know: what an event is. Rule: until its event is late, and below the stated maximum, an id is known exactly,
apart from two different ids of one 64-bit hash (about 1e-6 for 8 million live ids).

Entries leave by generations: the older of two is dropped once all its events are late, and the younger takes its place.
Nothing is deleted in place. With events in time order a generation spans a little more than the lateness.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.compiled import loaded
from streams.state import Record, pack, unpack
from streams.watermark import NEVER

U64 = npt.NDArray[np.uint64]

_LOAD = 0.6  # above this share of filled cells, probes get long (Knuth vol. 3, 6.4: 1.75 expected for a hit at .6)
_SEED_CELLS = 1 << 12
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: spreads hashes whose low bits are alike (Knuth 6.4)


@dataclass(frozen=True, slots=True)
class DedupeConfig:
    """How many ids are remembered, and for how long.

    Attributes
    ----------
    max_ids
        Ids held at most in one generation. Two generations of 8-byte cells are held: 5 million ids fill 8 million
        cells to `_LOAD`, so both take at most 2 x 64 MiB, the 128 MiB per worker of the design.
    lateness_ms
        How far behind the watermark an event may be: an older one is late, so its id need not be known any more. The
        intake sets it to its own.
    """

    max_ids: int = 5_000_000
    lateness_ms: int = 2 * 3_600_000


class _Cells:
    """One generation: a power-of-two array of hashes, 0 = empty, linear probing, doubled when filled to `_LOAD`."""

    def __init__(self) -> None:
        self.cells: U64 = np.zeros(_SEED_CELLS, np.uint64)
        self.count = 0

    def _home(self, hashes: U64) -> npt.NDArray[np.int64]:
        return ((hashes * _MULTIPLIER) >> np.uint64(self._shift)).astype(np.int64)

    def contains(self, hashes: U64) -> npt.NDArray[np.bool_]:
        """Tell which hashes are in the table, shape (N,)."""
        found = np.zeros(len(hashes), np.bool_)
        if not self.count:
            return found
        mask = len(self.cells) - 1
        at = self._home(hashes)
        cell = self.cells[at]
        hit = cell == hashes
        found |= hit
        left = np.flatnonzero((cell != 0) & ~hit)
        while len(left):
            at[left] = (at[left] + 1) & mask
            cell = self.cells[at[left]]
            hit = cell == hashes[left]
            found[left[hit]] = True
            left = left[(cell != 0) & ~hit]
        return found

    def insert(self, hashes: U64) -> None:
        """Insert hashes that differ from each other and from all that are in the table."""
        while self.count + len(hashes) > _LOAD * len(self.cells):
            self._grow()
        self._place(hashes)
        self.count += len(hashes)

    def see(self, kernels: Any, hashes: U64, old: _Cells) -> npt.NDArray[np.bool_]:
        """Insert hashes that are neither here nor in the older table, each once; mark which these are, shape (N,)."""
        while self.count + len(hashes) > _LOAD * len(self.cells):
            self._grow()
        fresh = np.empty(len(hashes), np.bool_)
        own = np.ascontiguousarray(hashes)
        self.count += kernels.see(own, self.cells, self._shift, old.cells, old._shift, _MULTIPLIER, fresh)
        return fresh

    @property
    def _shift(self) -> int:
        return 64 - (len(self.cells).bit_length() - 1)

    def _place(self, hashes: U64) -> None:
        mask = len(self.cells) - 1
        at = self._home(hashes)
        while len(hashes):
            free = self.cells[at] == 0
            self.cells[at[free]] = hashes[free]  # several may want one cell: the last one written has it
            lost = self.cells[at] != hashes
            hashes = hashes[lost]
            at = (at[lost] + 1) & mask

    def _grow(self) -> None:
        old = self.cells[self.cells != 0]
        self.cells = np.zeros(2 * len(self.cells), np.uint64)
        self._place(old)


class Dedupe:
    """Tells first sightings from repeats, exactly until their events are late.

    Parameters
    ----------
    config
        Maximum and lateness.
    name
        First part of the record keys.

    Examples
    --------
    >>> seen = Dedupe(DedupeConfig())
    >>> seen.first(np.array([7, 8, 7], np.uint64), watermark_ms=0, newest_ms=300).tolist()
    [True, True, False]
    >>> seen.first(np.array([8, 9], np.uint64), watermark_ms=1000, newest_ms=1300).tolist()
    [False, True]
    """

    def __init__(self, config: DedupeConfig, name: str = "dedupe") -> None:
        self.name = name
        self._config = config
        self._young, self._old = _Cells(), _Cells()
        self._young_ms, self._old_ms = NEVER, NEVER  # newest event time in each
        self.wraps = 0
        self._serial = 0
        self._pending: list[U64] = []
        self._pending_ms = NEVER
        self._records: list[tuple[int, int]] = []  # a heap of newest event times and serials: which to delete next
        self._restored: list[U64] = []  # ids of records taken over that are not in the young generation yet

    @property
    def ids(self) -> int:
        """Number of ids held now."""
        self._settle()
        return self._young.count + self._old.count

    @property
    def memory_bytes(self) -> int:
        """Bytes of the cells of both generations."""
        self._settle()
        return self._young.cells.nbytes + self._old.cells.nbytes

    def first(self, hashes: U64, watermark_ms: int, newest_ms: int) -> npt.NDArray[np.bool_]:
        """Mark the rows whose hash is seen for the first time, and remember them.

        Parameters
        ----------
        hashes
            Stable hashes in arrival order, shape (N,). 0 is mapped to 1.
        watermark_ms
            The watermark before the first row, epoch ms; it never falls.
        newest_ms
            Newest event time among the rows: they are remembered until it is late.

        Returns
        -------
        True for first sightings, shape (N,). Of equal hashes in one call the first row wins.
        """
        if not len(hashes):
            return np.zeros(0, np.bool_)
        self._settle()
        self._turn(watermark_ms)
        kernels = loaded()
        if kernels is not None and self._young.count + len(hashes) <= self._config.max_ids:
            fresh = self._young.see(kernels, hashes, self._old)
            self._note(np.where(hashes == 0, np.uint64(1), hashes)[fresh], newest_ms)
            return fresh
        hashes = np.where(hashes == 0, np.uint64(1), hashes)
        fresh = _first_of_each(hashes)
        fresh[fresh] = ~self._young.contains(hashes[fresh])
        fresh[fresh] = ~self._old.contains(hashes[fresh])
        new = hashes[fresh]
        if self._young.count + len(new) > self._config.max_ids:
            self.wraps += 1
            self._rotate()
        self._young.insert(new)
        self._note(new, newest_ms)
        return fresh

    def _note(self, new: U64, newest_ms: int) -> None:
        """Note ids that were put into the young generation."""
        self._young_ms = max(self._young_ms, newest_ms)
        self._pending.append(new)
        self._pending_ms = max(self._pending_ms, newest_ms)

    def _turn(self, watermark_ms: int) -> None:
        """Drop the older generation where all of it is late."""
        if self._young.count and watermark_ms - self._config.lateness_ms > self._old_ms:
            self._rotate()

    def _rotate(self) -> None:
        self._old, self._young = self._young, _Cells()
        self._old_ms, self._young_ms = self._young_ms, NEVER

    def changes(self, watermark_ms: int) -> Iterator[Record]:
        """Yield the ids seen since the last call as one record, and deletions of records that are late by now."""
        new = np.concatenate(self._pending) if self._pending else np.zeros(0, np.uint64)
        if len(new):
            heapq.heappush(self._records, (self._pending_ms, self._serial))
            payload = {"watermark_ms": watermark_ms, "newest_ms": self._pending_ms, "hashes": new.tobytes()}
            yield f"{self.name}/{self._serial}", pack(payload)
            self._serial += 1
        self._pending, self._pending_ms = [], NEVER
        while self._records and watermark_ms - self._config.lateness_ms > self._records[0][0]:
            yield f"{self.name}/{heapq.heappop(self._records)[1]}", None

    def discard_changes(self) -> None:
        """Forget what `changes` would yield: for a shell that keeps no state."""
        self._pending, self._pending_ms = [], NEVER

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record; records must come in the order of their serial numbers."""
        if value is None:
            return
        payload = unpack(key, value)
        serial, watermark_ms, newest_ms = int(key.partition("/")[2]), payload["watermark_ms"], payload["newest_ms"]
        self._serial = max(self._serial, serial + 1)
        heapq.heappush(self._records, (newest_ms, serial))
        if watermark_ms - self._config.lateness_ms > self._old_ms:
            self._settle()
            self._turn(watermark_ms)
        self._restored.append(np.frombuffer(payload["hashes"], np.uint64))
        self._young_ms = max(self._young_ms, newest_ms)

    def _settle(self) -> None:
        """Insert what was restored: a day of commits at once takes a tenth of the time that it takes one by one."""
        if self._restored:
            hashes = np.concatenate(self._restored)
            self._restored = []
            hashes = hashes[_first_of_each(hashes)]
            self._young.insert(hashes[~(self._young.contains(hashes) | self._old.contains(hashes))])


def _first_of_each(hashes: U64) -> npt.NDArray[np.bool_]:
    """Mark the first row of each distinct hash. Sorting values alone is cheap; places are looked up on a hit only."""
    ordered = np.sort(hashes)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    fresh = np.ones(len(hashes), np.bool_)
    if len(repeated):
        rows = np.flatnonzero(np.isin(hashes, repeated))
        _, first = np.unique(hashes[rows], return_index=True)
        fresh[rows] = False
        fresh[rows[first]] = True
    return fresh
