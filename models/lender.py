"""What the young series of a panel borrow at a cutoff, from the others as they were then.

In: a `Panel` whose task may have titles and kinds; which series, which cutoff. Out: `ForecastBatch.borrowed`.
Must not know: forecasters, scores. Rule: nothing later than the cutoff is read; titles do not change with time, and all
of them are embedded together, so that what has been asked before changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache

import numpy as np

from models.cold_start import Likeness, borrow, donors, judged, likeness
from models.forecast import F32, LEVELS, Bools, take
from models.panel import Panel
from models.quantiles import I64
from models.task import Task


class Lender:
    """Finds what series without a season of history borrow.

    Parameters
    ----------
    panel
        Whose series.
    embed
        Embeddings of texts, of length one, zero where there is none; `models.text.TextEncoder` if not given, which is
        loaded when a young series comes and the task has titles.
    """

    def __init__(self, panel: Panel, embed: Callable[[Sequence[str | None]], F32] | None = None) -> None:
        self._panel = panel
        self._embed = embed or _embedded

    @cached_property
    def _embeddings(self) -> F32 | None:
        return self._embed(self._panel.task.titles) if any(self._panel.task.titles) else None

    def borrowed(self, series: I64, cutoff: int, young: Bools) -> F32 | None:
        """What each of some series borrows at a column of the matrices; NaN for those that are not young.

        Returns
        -------
        Float32 (B, S, Q), or None while no series has a season of history.
        """
        everyone = np.arange(len(self._panel.task.ids))
        batch = self._panel.batch(everyone, np.full(len(everyone), cutoff))
        lenders = donors(batch)
        if not len(lenders):
            return None
        out = np.full((len(series), batch.season, len(LEVELS)), np.nan, np.float32)
        like, among = self.likeness(series[young], lenders), self.likeness(lenders[judged(len(lenders))], lenders)
        out[young] = borrow(take(batch, lenders), take(batch, series[young]), like, among)
        return out

    def likeness(self, some: I64, others: I64) -> Likeness:
        """How like some series are to others, by title and kinds."""
        vectors = self._embeddings
        kinds = tuple((codes[some], codes[others]) for codes in kinds_of(self._panel.task))
        return likeness(None if vectors is None else (vectors[some], vectors[others]), kinds)


def kinds_of(task: Task) -> tuple[I64, ...]:
    """Codes of the columns that sort series into kinds; a title is a text, however few there are."""
    return tuple(codes for name, codes in task.attributes.items() if name != "title")


def _embedded(titles: Sequence[str | None]) -> F32:
    return _embedded_once(tuple(titles))


@lru_cache(maxsize=1)
def _embedded_once(titles: tuple[str | None, ...]) -> F32:
    """A report asks for single windows of a task again."""
    from models.text import TextEncoder, text_of  # torch takes seconds to import, and most backtests need none

    return TextEncoder().embed([text_of(title) for title in titles])
