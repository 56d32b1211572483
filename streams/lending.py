"""What series without a season of history borrow: who lends, drawn after a close, and what they lend.

In: histories of series that are old enough, batches with young rows. Out: `ForecastBatch.borrowed`; state records.
Must not know: slots, zones, events. Rule: what a row borrows depends on its days, its category and the donors alone.

Donors are drawn when the first young series asks after a close: a shop without young series never pays for them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from models.baseline import phase_samples
from models.cold_start import Choice, Donors, donors, donors_of
from models.forecast import F32, LEVELS, Bools, ForecastBatch, take
from models.quantiles import I64
from streams.sparse import shrink, spread
from streams.state import Record, SnapshotError, pack, unpack

MOST_DONORS = 512
"""Donors held: a record of 512 takes 190 kB of days or 640 kB of hours at most, and a young row a tenth of a
millisecond. First weeks of the UCI year had a WQL of .838 with 128, .812 with 512 and .805 with 2,048 of them."""

MOST_JUDGED = 128
"""Donors that the category's worth is judged on: a tenth of a second at a close."""


class Lending:
    """Donors, and what they lend.

    Examples
    --------
    >>> from tests.batches import batch_of
    >>> lending = Lending()
    >>> lending.learn(batch_of([[3.0] * 14, [5.0] * 14, [5.0] * 14]))
    >>> lending.borrowed(batch_of([[np.nan] * 14, [1.0] * 14]))[:, 0, 6].tolist()
    [5.0, nan]
    """

    def __init__(self) -> None:
        self._donors: Donors | None = None
        self._phase = 0  # of the season, of the donors' phase 0
        self._changed = self._due = self._due_written = False
        self._outdated = False  # a record of a program before donors is there

    def expect(self) -> None:
        """Note that a bucket closed: donors are drawn anew when a series without history asks."""
        self._due = True

    @property
    def due(self) -> bool:
        """Whether donors shall be drawn before anything is lent."""
        return self._due or (self._outdated and self._donors is None)

    def learn(self, batch: ForecastBatch) -> None:
        """Draw donors from histories; those before stay where none of these is old enough."""
        self._due = False
        lenders = take(batch, donors(batch, MOST_DONORS))
        if not len(lenders):
            return
        group = lenders.group.astype(np.int64)
        kinds = (group,) if len(np.unique(group[group >= 0])) > 1 else ()
        self._donors = donors_of(lenders, kinds, MOST_JUDGED)
        self._phase, self._changed = _phase(batch), True

    def borrowed(self, batch: ForecastBatch) -> F32 | None:
        """What the young rows of a batch borrow, float32 (B, S, Q), NaN for the others; None while nobody lends."""
        if self._donors is None:
            return None
        young, later = young_rows(batch), _phase(batch) - self._phase
        out = np.full((len(batch), batch.season, len(LEVELS)), np.nan, np.float32)
        kinds: tuple[I64, ...] = (batch.group[young].astype(np.int64),) if self._donors.kinds else ()
        sold = phase_samples(batch.demand[young], batch.is_open[young], batch.season)
        out[young] = np.roll(self._donors.lend(np.roll(sold, later, axis=1), kinds), -later, axis=1)
        return out

    def changes(self) -> Iterator[Record]:
        """Yield what changed since the last call."""
        if self._changed and self._donors is not None:
            self._changed = False
            yield "pool/donors", _packed(self._donors, self._phase)
            if self._outdated:
                self._outdated = False
                yield "pool/all", None
        if self._due != self._due_written:
            self._due_written = self._due
            yield "pool/due", pack(self._due)

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record; one of means, as programs before donors kept them, makes donors due.

        Raises
        ------
        SnapshotError
            If the record is none of these, or of other levels.
        """
        if value is None:
            return
        if key == "pool/due":
            self._due = self._due_written = bool(unpack(key, value))
        elif key == "pool/all":
            self._outdated = True
        elif key == "pool/donors":
            self._donors, self._phase = _unpacked(key, value)
        else:
            raise SnapshotError(f"state record {key!r} is none of this program's; it was written by a newer one")


def young_rows(batch: ForecastBatch) -> Bools:
    """Rows with less than a season of history, (B,)."""
    young: Bools = (np.isfinite(batch.demand) & batch.is_open).sum(axis=1) < batch.season
    return young


def _phase(batch: ForecastBatch) -> int:
    """Where in the season the step 1 of a batch lies; its rows are of one zone."""
    return int(batch.hour[0]) if batch.season == 24 else int(batch.day[0]) % batch.season


def _packed(donors: Donors, phase: int) -> bytes:
    return pack(
        {
            "phase": phase,
            "shape": donors.atoms.shape,
            "atoms": shrink(np.ascontiguousarray(donors.atoms)),
            "groups": [one.astype(np.int32).tobytes() for one in donors.kinds],
            "factors": list(donors.choice.factors),
        }
    )


def _unpacked(key: str, value: bytes) -> tuple[Donors, int]:
    state = unpack(key, value)
    atoms = np.zeros(state["shape"], np.float32)
    if atoms.shape[2] != len(LEVELS):
        raise SnapshotError(
            f"state record {key!r} has {atoms.shape[2]} levels, this program {len(LEVELS)}; "
            "use the program that wrote it, or start a new application id"
        )
    if state["atoms"] is not None:
        spread(state["atoms"], atoms)
    kinds = tuple(np.frombuffer(one, np.int32).astype(np.int64) for one in state["groups"])
    return Donors(atoms, kinds, Choice(factors=tuple(state["factors"]))), int(state["phase"])
