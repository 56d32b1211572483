"""Pre-training: encoders that have seen made-up shops alone, and the one that ships with the package.

In: seeds, steps. Out: an encoder. The one that ships with the package is `models.named.SHIPPED`.
Must not know: real shops. Rule: whoever runs it again with the same seed, on the same machine, gets the same weights.
"""

from __future__ import annotations

from collections.abc import Callable

from models.corpus import corpus
from models.encoder import Encoder, EncoderConfig
from models.panel import Panel
from models.recipe import PRETRAINING, Keeping, Recipe
from models.train import fit

SERIES, DAYS, HORIZON = 12_000, 900, 28
CORPUS_SEED = 11

COVARIATES = ("promo", "holiday", "price")
"""Known covariates that any shop may have; others are for fine-tuning."""


def pretrain(
    recipe: Recipe = PRETRAINING,
    *,
    series: int = SERIES,
    progress: Callable[[int], None] | None = None,
    keeping: Keeping | None = None,
) -> Encoder:
    """Fit an encoder to the synthetic corpus; some fifteen minutes on a core.

    Parameters
    ----------
    series
        Of the corpus.
    progress
        Called with the number of steps done.
    keeping
        Checkpoints and logs.
    """
    panel = Panel(corpus(series, DAYS, CORPUS_SEED), horizon=HORIZON)
    return fit(panel, DAYS - 1, EncoderConfig(COVARIATES, feature_dropout=0.1), recipe, progress, keeping=keeping)
