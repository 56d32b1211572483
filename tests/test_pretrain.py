"""Pre-training: the shipped encoder on made-up shops that it has not seen; the same seed again."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import torch

from models.baseline import SeasonalWindow
from models.corpus import corpus
from models.finetune import weighted_quantile_loss
from models.model_folder import read_model
from models.named import PRETRAINED, SHIPPED, forecaster_named
from models.panel import Panel
from models.pretrain import CORPUS_SEED, COVARIATES, DAYS, HORIZON, SERIES, pretrain
from models.recipe import PRETRAINING

TINY = replace(PRETRAINING, steps=3, windows=16)


def test_the_shipped_encoder_beats_the_baseline_on_shops_it_has_not_seen() -> None:
    panel = Panel(corpus(300, DAYS, CORPUS_SEED + 1), horizon=HORIZON)
    cutoffs, last = np.array([DAYS - HORIZON - 1]), DAYS - 1
    found, base = (
        weighted_quantile_loss(panel, who, cutoffs, last)
        for who in (forecaster_named(PRETRAINED, SHIPPED), SeasonalWindow())
    )
    assert found < 0.97 * base


def test_the_weights_are_small_and_nothing_but_safetensors_and_json() -> None:
    sizes = {path.name: path.stat().st_size for path in SHIPPED.iterdir()}
    assert set(sizes) == {"card.json", "config.json", "model.safetensors"}
    assert sum(sizes.values()) < 12 << 20


def test_the_card_says_how_the_shipped_weights_were_made_and_the_name_is_that_of_their_digest() -> None:
    shipped = read_model(SHIPPED)
    assert forecaster_named(PRETRAINED, SHIPPED).name == shipped.name == f"{SHIPPED.name}@sha256:{shipped.digest[:12]}"
    now = {**asdict(PRETRAINING), "corpus_seed": CORPUS_SEED, "corpus_series": SERIES, "corpus_days": DAYS}
    then = shipped.card.recipe
    assert {name: value for name, value in now.items() if name in then} == {
        name: then[name] for name in now.keys() & then
    }
    assert {"steps", "seed", "corpus_seed", "torch"} <= set(then)
    assert (shipped.card.horizon, shipped.card.covariates, shipped.card.seeds) == (
        HORIZON,
        COVARIATES,
        (PRETRAINING.seed,),
    )
    assert len(shipped.card.scores) == 4


def test_the_same_seed_gives_the_same_weights() -> None:
    one, two = (pretrain(TINY, series=20).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert pretrain(TINY, series=20).config.covariates == list(COVARIATES)
