"""How an encoder is fitted, and what is written meanwhile: the defaults of both, in one place.

In: nothing. Out: `Recipe`, `Keeping`, and the recipe of the weights that ship.
Must not know: torch, panels. Rule: plain values alone, so that a command can name its defaults without loading torch.

Why each value is what it is stands in docs/training.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Mode = Literal["full", "head", "lora"]
"""What learns: everything; the gate and the residual per level; or low-rank adapters of blocks and heads."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an encoder is fitted.

    Attributes
    ----------
    steps
        Of the optimiser.
    windows, horizons
        Windows of a step, and horizon steps of each.
    rate, weight_decay, warmup
        Of AdamW; share of the steps over which the rate rises.
    average
        Decay of the moving average of the weights.
    scale_power, sold_power
        A window counts by its scale to this power, and by the share of its days on which something was sold.
    clip
        Norm that gradients are held to.
    seed
        Of everything that is random.
    mode
        What learns; all but ``full`` need an encoder to begin from.
    early_stopping
        Learn from what lies before the last four horizons alone, look at these, and keep the weights that were best
        there; `steps` is then the most there may be. Off, for it was measured to cost: docs/training.md.
    scaling, masking, promo_dropout
        Augmentation, as `models.augment.augmented` explains.
    sample_power, sample_sold_power
        Windows are drawn by their series' mean demand to a power, and by the share of days on which it sold to another.
    """

    steps: int = 2000
    windows: int = 192
    horizons: int = 6
    rate: float = 2e-3
    weight_decay: float = 0.02
    warmup: float = 0.1
    average: float = 0.995
    scale_power: float = 0.5
    clip: float = 1.0
    seed: int = 1
    mode: Mode = "full"
    early_stopping: bool = False
    scaling: float = 0.0
    masking: float = 0.0
    promo_dropout: float = 0.0
    sample_power: float = 0.0
    sample_sold_power: float = 0.0
    sold_power: float = 0.0


@dataclass(frozen=True, slots=True)
class Keeping:
    """What a fit writes beside the encoder.

    Attributes
    ----------
    checkpoint
        Folder of a checkpoint, from which the same fit goes on if it was killed; None for none.
    log_dir
        Folder for TensorBoard; None for none.
    every
        Steps between checkpoints: a second of work on one core, and two milliseconds of writing.
    """

    checkpoint: Path | None = None
    log_dir: Path | None = None
    every: int = 50

    def of(self, name: str) -> Keeping:
        """The same in folders of one of several fits."""
        return replace(
            self, checkpoint=self.checkpoint and self.checkpoint / name, log_dir=self.log_dir and self.log_dir / name
        )


PRETRAINING = Recipe(steps=20_000, windows=384, scale_power=0.0, average=0.998)
"""Of the weights that ship. Every made-up series counts alike, whatever it sells: their sizes span almost seven
decades, those of one shop three."""
