"""Nets that learn on while a shop runs: a line of descendants, each of which stands where the one before it stopped.

In: nets, a task, the newest bucket that is final. Out: the next generation, as folders.
Must not know: who answers, how good anybody is. Rule: a generation reads nothing behind its bucket, and is fitted in
processes of its own; whether it may answer is decided by `online.trial`.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from models.crew import Net
from models.finetune import continued
from models.recipe import Recipe

CONTINUING = Recipe(steps=200, rate=5e-4)
"""Of a generation: a tenth of a fit. What other ways gave is in docs/learning.md."""


def continuing(steps: int) -> Recipe:
    """Of a generation whose nets were fitted in so many steps: a tenth of them, one at least.

    Examples
    --------
    >>> continuing(2000) == CONTINUING
    True
    """
    return replace(CONTINUING, steps=max(1, steps // 10))


FRESH = Recipe()
"""Of a net that is fitted anew."""

KEPT = 2
"""Generations whose folders are kept: the one that answers or is on trial, and the one before it."""


@dataclass(slots=True)
class Lineage:
    """Nets of a task and their descendants.

    Attributes
    ----------
    task_dir
        What they learn from.
    nets
        Folders of the newest generation.
    out
        Where further generations go.
    every_buckets
        Between two generations.
    recipe
        Of nets that learn on.
    origins
        What the nets were before they were fitted. Where it is known, one net of each generation, in turn, is fitted
        anew by the recipe `fresh`; the others learn on.
    fresh
        Of a net that is fitted anew.
    generation
        How many there have been.
    born
        Bucket up to which the newest has read; None until the first look, which takes it for fitted up to there.
    share
        Of a core that a fit may take.
    """

    task_dir: Path
    nets: Sequence[Path]
    out: Path
    every_buckets: int = 7
    recipe: Recipe = CONTINUING
    origins: Sequence[Net] = ()
    fresh: Recipe = FRESH
    generation: int = 0
    born: int | None = None
    share: float = 1.0

    def is_due(self, last: int) -> bool:
        """Whether it is time for the next generation, with `last` as the newest final bucket."""
        if self.born is None:
            self.born = last
        return last - self.born >= self.every_buckets

    def next(self, last: int, column: int | None = None) -> Sequence[Path]:
        """Fit the next generation to what lies at or before a bucket; folders of its nets come back.

        Parameters
        ----------
        last
            The bucket.
        column
            Of the task, in which it lies; the same number where buckets are counted by columns.
        """
        turn = self.generation % max(1, len(self.origins))
        anew = {turn: self.origins[turn]} if self.origins else {}
        folder = self.out / f"generation-{self.generation + 1}"
        recipe = replace(self.recipe, seed=self.recipe.seed + 1000 * (self.generation + 1))
        self.nets = continued(
            self.task_dir, self.nets, folder, last if column is None else column, recipe, anew=anew, fresh=self.fresh,
            processes=1 if self.share < 1 else None, share=self.share,
        )  # fmt: skip
        self.generation, self.born = self.generation + 1, last
        shutil.rmtree(self.out / f"generation-{self.generation - KEPT}", ignore_errors=True)
        return self.nets
