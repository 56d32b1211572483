"""What a reader of one partition has had already: ids of decisions, or the newest forecast of every item.

In: marks of records, in order of offset. Out: whether a record is new.
Must not know: Kafka, what a decision says. Rule: a record counts as had when its reader has finished with it, and not
before: one that is read again meanwhile is still new.
"""

from __future__ import annotations

from typing import NamedTuple


class Recent:
    """The last ids of a partition.

    Parameters
    ----------
    most
        Ids remembered, about 130 bytes each.

    Examples
    --------
    >>> recent = Recent(most=2)
    >>> for name in "aba":
    ...     print(name, recent.is_new(name))
    ...     recent.finish(name)
    a True
    b True
    a False
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._ids: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def is_new(self, name: str) -> bool:
        """Whether the record of this id is to be handed out."""
        return name not in self._ids

    def finish(self, name: str) -> None:
        """Remember an id; the one that was remembered first may go."""
        self._ids[name] = None
        if len(self._ids) > self._most:
            del self._ids[next(iter(self._ids))]


class Rank(NamedTuple):
    """Which forecast: its key, and what orders forecasts of one key."""

    key: bytes
    as_of: int
    revision: int


class Latest:
    """The newest forecast of every item of a partition, handed out once; then newer ones as they come.

    The partition is read twice: first `scan` sees every record up to an end, then the records are read again from the
    beginning and `is_new` lets the newest of each key through. So the items are kept here (about 200 bytes each), and
    not their forecasts.

    Examples
    --------
    >>> topic = [Rank(b"tea", 1, 1), Rank(b"pot", 1, 1), Rank(b"tea", 2, 1), Rank(b"tea", 1, 2)]
    >>> latest = Latest()
    >>> for rank in topic:
    ...     latest.scan(rank)
    >>> for rank in [*topic, Rank(b"tea", 2, 1), Rank(b"tea", 2, 2)]:
    ...     if latest.is_new(rank):
    ...         print(rank.key, rank.as_of, rank.revision)
    ...         latest.finish(rank)
    b'pot' 1 1
    b'tea' 2 1
    b'tea' 2 2
    """

    def __init__(self) -> None:
        self._newest: dict[bytes, tuple[int, int]] = {}
        self._waiting: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._newest)

    def scan(self, rank: Rank) -> None:
        """See a record for the first time."""
        if rank[1:] > self._newest.get(rank.key, (-1, -1)):
            self._newest[rank.key] = (rank.as_of, rank.revision)
            self._waiting.add(rank.key)

    def scan_deletion(self, key: bytes) -> None:
        """See for the first time that an item was deleted: what was before is not to be handed out."""
        self._waiting.discard(key)

    def forget(self, key: bytes) -> None:
        """Take a deleted item out: its next forecast is new, whatever its instant."""
        self._newest.pop(key, None)
        self._waiting.discard(key)

    def is_new(self, rank: Rank) -> bool:
        """Whether the record of this rank is to be handed out."""
        newest = self._newest.get(rank.key, (-1, -1))
        return rank[1:] > newest or (rank[1:] == newest and rank.key in self._waiting)

    def finish(self, rank: Rank) -> None:
        """Remember what was handed out."""
        self._newest[rank.key] = (rank.as_of, rank.revision)
        self._waiting.discard(rank.key)
