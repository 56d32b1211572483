"""Events that wait to be believed, and a state record for each.

In: events of the intake, and which of them wait. Out: those that wait, in order of arrival; state records.
Must not know: why they wait. Rule: a commit writes what was parked or set free since the one before it, never all that
waits: a thousand events of 64 KiB in one record would be more than Kafka takes, on every commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from streams.decode import decode
from streams.events import EventBatch, concat
from streams.state import Record, pack, unpack
from streams.watermark import NEVER

_HEAD = "parked/"
_FAR_MS = 1 << 61  # clock given when records are decoded again: they were checked when they came


class Parked:
    """Events that wait.

    Examples
    --------
    >>> parked = Parked()
    >>> parked.keep(concat([]), [])
    >>> len(parked.batch), list(parked.changes())
    (0, [])
    """

    def __init__(self) -> None:
        self._batch = concat([])
        self._numbers: list[int] = []  # of the records, ascending
        self._next = 0
        self._written: set[int] = set()
        self._restored: dict[int, bytes] = {}

    @property
    def batch(self) -> EventBatch:
        """Those that wait, in order of arrival."""
        self.settle()
        return self._batch

    def keep(self, whole: EventBatch, rows: Sequence[int]) -> None:
        """Keep rows of a batch that begins with those that have waited so far; the others wait no more."""
        if not rows and not self._numbers:
            return
        before = len(self._numbers)
        came = [row for row in rows if row >= before]
        self._numbers = [self._numbers[row] for row in rows if row < before]
        self._numbers += range(self._next, self._next + len(came))
        self._next += len(came)
        self._batch = whole.take(np.array(rows, np.int64))

    def changes(self) -> Iterator[Record]:
        """Yield what was parked since the last call, and deletions of what waits no more."""
        waiting = set(self._numbers)
        for number in sorted(self._written - waiting):
            yield f"{_HEAD}{number}", None
        for number, value, key in zip(self._numbers, self._batch.values, self._batch.keys, strict=True):
            if number not in self._written:
                yield f"{_HEAD}{number}", pack({"value": value, "key": key})
        self._written = waiting

    def discard_changes(self) -> None:
        """Forget what `changes` would yield, for a shell that keeps no state."""
        self._written = set(self._numbers)

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record, in any order; those that wait are whole when all are taken over."""
        if value is not None:
            self._restored[int(key.removeprefix(_HEAD))] = value

    def settle(self) -> None:
        """Make events of the records taken over."""
        if not self._restored:
            return
        self._numbers = sorted(self._restored)
        self._next, self._written = self._numbers[-1] + 1, set(self._numbers)
        told = [unpack(f"{_HEAD}{number}", self._restored[number]) for number in self._numbers]
        self._restored = {}
        self._batch, _ = decode([one["value"] for one in told], clock_ms=_FAR_MS)
        self._batch.keys = [one["key"] for one in told]
        self._batch.tick_ms[:] = NEVER  # the clock that they saw is in the snapshot


def parked_values(records: Mapping[str, bytes]) -> list[bytes]:
    """Parked events as they came, of the state records of a shard."""
    return [unpack(key, value)["value"] for key, value in records.items() if key.startswith(_HEAD)]
