"""Which slot belongs to which series: keys in, row numbers of all per-series arrays out.

In: SKUs and locations of events. Out: slots, -1 where the series is not known or was refused.
Must not know: what the arrays hold. Rule: a slot belongs to one series until it is freed; the lowest free slot is used
next, so that a restored map hands out the same slots.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from sys import intern

import numpy as np
import numpy.typing as npt
import xxhash

from streams.events import EventBatch
from streams.fields import DEFAULT_LOCATION, series_key
from streams.key_index import U64, KeyIndex
from streams.state import BLOCK_ROWS, Record, pack, unpack

I32 = npt.NDArray[np.int32]


MOST_HOT = 2_048
"""Series whose slot a dict remembers: few enough to stay in the processor's cache and within the memory of a series."""


class SeriesMap:
    """Slots of series ``(sku, location)``, at most ``max_series``.

    Examples
    --------
    >>> series = SeriesMap(2)
    >>> series.add("mug", "default"), series.add("cup", "default"), series.add("jug", "default")
    (0, 1, -1)
    >>> series.find(["cup", "jug"], ["default", "default"]).tolist(), series.refused
    ([1, -1], 1)
    """

    def __init__(self, max_series: int, name: str = "series") -> None:
        self.max_series = max_series
        self.name = name
        self.skus: list[str | None] = []
        self.locations: list[str | None] = []
        self.id_seed = np.zeros(max_series, np.uint64)
        self.refused = 0
        self._index = KeyIndex()
        self._free: list[int] = []
        self._elsewhere: dict[str, list[str]] = {}  # SKU -> locations other than the default one
        self._touched: set[int] = set()
        self._hot: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._index)

    @property
    def used(self) -> int:
        """Slots ever used: rows from here on are untouched."""
        return len(self.skus)

    def find(self, skus: Sequence[str], locations: Sequence[str], hashes: U64 | None = None) -> I32:
        """Slots of series, int32 (N,), -1 where unknown; `hashes` are those of their keys, where somebody has them."""
        if hashes is not None:
            return self._index.find_hashes(hashes)
        if locations.count(DEFAULT_LOCATION) == len(skus):
            return self._find_hot(skus)
        return self._index.find([series_key(sku, location) for sku, location in zip(skus, locations, strict=True)])

    def find_rows(self, batch: EventBatch, start: int, stop: int) -> I32:
        """Slots of some rows of a batch, as `find`."""
        hashes = None if batch.series is None else batch.series[start:stop]
        return self.find(batch.sku[start:stop], batch.location[start:stop], hashes)

    def _find_hot(self, skus: Sequence[str]) -> I32:
        """Slots of series of the default location: of those met often from a small dict, a third of the time."""
        found = list(map(self._hot.get, skus))
        missing = [row for row, slot in enumerate(found) if slot is None] if None in found else []
        if missing:
            slots = self._index.find([skus[row] for row in missing]).tolist()
            if len(self._hot) + len(missing) > MOST_HOT and 2 * len(missing) > len(skus):
                self._hot.clear()  # other series are met often now
            for row, slot in zip(missing, slots, strict=True):
                found[row] = slot
                if slot >= 0 and len(self._hot) < MOST_HOT:
                    self._hot[self.key(slot)[0]] = slot  # the string that is held anyway
        return np.array(found, np.int32)

    def slot(self, sku: str, location: str) -> int:
        """Slot of one series, -1 where unknown."""
        return self._index.get(series_key(sku, location))

    def add(self, sku: str, location: str) -> int:
        """Slot of a series, made where it is new; -1 and a count in ``refused`` where the maximum is reached."""
        slot = self.slot(sku, location)
        if slot >= 0:
            return slot
        if len(self._index) >= self.max_series:
            self.refused += 1
            return -1
        slot = heapq.heappop(self._free) if self._free else self._extend()
        self._assign(slot, sku, location)
        self._touched.add(slot // BLOCK_ROWS)
        return slot

    def free(self, slot: int) -> None:
        """Give a slot back; the caller clears its rows."""
        sku, location = self.key(slot)
        self._index.drop(series_key(sku, location))
        if location != DEFAULT_LOCATION:
            self._elsewhere[sku].remove(location)
            if not self._elsewhere[sku]:
                del self._elsewhere[sku]
        self._hot.pop(sku, None)
        self.skus[slot] = self.locations[slot] = None
        self.id_seed[slot] = 0
        heapq.heappush(self._free, slot)
        self._touched.add(slot // BLOCK_ROWS)

    def key(self, slot: int) -> tuple[str, str]:
        """SKU and location of a used slot."""
        sku, location = self.skus[slot], self.locations[slot]
        if sku is None or location is None:
            raise KeyError(f"slot {slot} holds no series")
        return sku, location

    def of_sku(self, sku: str) -> list[int]:
        """Slots of an item at all its locations."""
        places = [DEFAULT_LOCATION, *sorted(self._elsewhere.get(sku, ()))]  # sorted: the same after a restore
        return [slot for slot in (self.slot(sku, place) for place in places) if slot >= 0]

    def live(self) -> npt.NDArray[np.int64]:
        """All slots in use, ascending."""
        if not self._free:
            return np.arange(len(self.skus))
        return np.array([slot for slot, sku in enumerate(self.skus) if sku is not None], np.int64)

    def _extend(self) -> int:
        self.skus.append(None)
        self.locations.append(None)
        return len(self.skus) - 1

    def _assign(self, slot: int, sku: str, location: str) -> None:
        self._index.put(series_key(sku, location), slot)
        self._note(slot, sku, location)

    def _note(self, slot: int, sku: str, location: str) -> None:
        self.skus[slot], self.locations[slot] = sku, location
        self.id_seed[slot] = sku_seed(sku)
        if location != DEFAULT_LOCATION:
            self._elsewhere.setdefault(sku, []).append(location)

    def changes(self) -> Iterator[Record]:
        """Yield ``<name>/<block>`` records of the blocks whose keys changed."""
        for block in sorted(self._touched):
            rows = range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(self.skus)))
            yield f"{self.name}/{block}", pack([[self.skus[i], self.locations[i]] for i in rows])
        self._touched.clear()

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record; call `settle` after the last one."""
        if value is None:
            return
        start, rows = int(key.rpartition("/")[2]) * BLOCK_ROWS, unpack(key, value)
        while len(self.skus) < start + len(rows):
            self._extend()
        slots = [start + i for i, (sku, _) in enumerate(rows) if sku is not None]
        named = [(sku, intern(location)) for sku, location in rows if sku is not None]
        self._index.put_all([series_key(sku, location) for sku, location in named], np.array(slots, np.int64))
        for slot, (sku, location) in zip(slots, named, strict=True):
            self._note(slot, sku, location)

    def settle(self) -> None:
        """Work out the free slots once all records are taken over."""
        self._free = [slot for slot, sku in enumerate(self.skus) if sku is None]


def sku_seed(sku: str) -> np.uint64:
    """Stable 64-bit hash of a SKU: mixed with an event's hash it makes ids of different SKUs differ."""
    return np.uint64(xxhash.xxh3_64_intdigest(sku.encode()))
