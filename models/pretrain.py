"""Pre-training: encoders that have seen made-up shops alone, and the one that ships with the package.

In: seeds, steps. Out: an encoder; the shipped one as a `Forecaster`.
Must not know: real shops. Rule: whoever runs it again with the same seed, on the same machine, gets the same weights.

Every made-up series counts alike, whatever it sells (`scale_power` 0): their sizes span almost seven decades, those of
one shop three.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from models.corpus import corpus
from models.encoder import Encoder, EncoderConfig, load
from models.panel import Panel
from models.serving import EncoderForecaster
from models.train import Recipe, fit

SHIPPED = Path(__file__).parent / "weights" / "retail-1"
"""The weights in the package: `shelftide train --pretrain` with what stands here, by seed 1."""

SERIES, DAYS, HORIZON = 4_000, 900, 28
CORPUS_SEED = 11

COVARIATES = ("promo", "holiday", "price")
"""Known covariates that any shop may have; others are for fine-tuning."""

RECIPE = Recipe(steps=3_000, scale_power=0.0, average=0.998)


def pretrain(
    recipe: Recipe = RECIPE, *, series: int = SERIES, progress: Callable[[int], None] | None = None
) -> Encoder:
    """Fit an encoder to the synthetic corpus; two to three minutes on a core.

    Parameters
    ----------
    series
        Of the corpus.
    progress
        Called with the number of steps done.
    """
    panel = Panel(corpus(series, DAYS, CORPUS_SEED), horizon=HORIZON)
    return fit(panel, DAYS - 1, EncoderConfig(COVARIATES, feature_dropout=0.1), recipe, progress)


def pretrained() -> EncoderForecaster:
    """The shipped encoder, as it is, for shops that it has never seen.

    Examples
    --------
    >>> pretrained().name
    'retail-1'
    """
    return EncoderForecaster([load(SHIPPED)], SHIPPED.name)
