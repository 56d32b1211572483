"""Training of the price net on made-up lines.

In: a seed, steps. Out: `PriceWeights`.
Must not know: real shops. Rule: whoever runs it again with the same seed, on the same machine, gets the same weights.

The loss is the continuous ranked probability score of the weighted candidates, in units of today's price, which is what
quantiles are scored by and needs no sorting: sum w|x - y| - 1/2 sum w w'|x - x'| (Gneiting and Raftery, JASA 102(477),
2007, equation 21); and the log loss of the hurdle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.corpus_prices import price_corpus
from models.forecast import F32
from models.price import HORIZON, I64, PriceBatch, checked, runs_of
from models.price_atoms import CANDIDATE_FEATURES, DAY_FEATURES, LINE_FEATURES, Atoms, atoms_of
from models.price_net import PriceWeights

LINES, DAYS, ORIGINS = 5_000, 420, 8
CORPUS_SEED = 23
HURDLE_SHARE = 0.05
"""Of the log loss of the hurdle in the loss; the score of prices is about a twentieth of it."""


@dataclass(frozen=True, slots=True)
class PriceRecipe:
    """How the net is fitted.

    Attributes
    ----------
    steps, rows, days
        Of the optimiser; lines of a step, and days ahead of each.
    hidden
        Width.
    rate, weight_decay, average
        Of AdamW, and of the moving average of the weights.
    seed
        Of everything that is random.
    """

    steps: int = 2_500
    rows: int = 192
    days: int = 4
    hidden: int = 48
    rate: float = 4e-3
    weight_decay: float = 0.01
    average: float = 0.995
    seed: int = 1


class _Scorer(nn.Module):
    """Logits of candidates; `models.price_net` computes the same in NumPy."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.candidate = nn.Linear(CANDIDATE_FEATURES, hidden)
        self.line = nn.Linear(LINE_FEATURES, hidden, bias=False)
        self.day = nn.Linear(DAY_FEATURES, hidden, bias=False)
        self.middle = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, candidate: Tensor, line: Tensor, day: Tensor) -> Tensor:
        rows = self.candidate(candidate) + self.line(line)[:, None]  # (B, A, hidden)
        x = nn.functional.silu(rows[:, None] + self.day(day)[:, :, None])  # (B, N, A, hidden)
        logits: Tensor = self.out(nn.functional.silu(self.middle(x)))[..., 0]
        return logits


@dataclass(frozen=True, slots=True)
class _Lines:
    """Origins of made-up lines, and what their prices did."""

    atoms: Atoms
    actual: F32  # (N, H) over today's price


def fit_prices(
    recipe: PriceRecipe | None = None, progress: Callable[[int], None] | None = None, *, lines: int = LINES
) -> PriceWeights:
    """Fit the net to made-up lines; a minute or two on a core.

    Parameters
    ----------
    progress
        Called with the number of steps done.
    lines
        Made-up lines to learn from.
    """
    recipe = recipe or PriceRecipe()
    torch.manual_seed(recipe.seed)
    origins = _lines(recipe.seed, lines)
    spread = {name: _spread(getattr(origins.atoms, name)) for name in ("candidate", "line", "day")}
    net = _Scorer(recipe.hidden)
    mean = {name: value.detach().clone() for name, value in net.named_parameters()}
    optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.rate, total_steps=recipe.steps, pct_start=0.1)
    for step in range(recipe.steps):
        rng = np.random.default_rng([recipe.seed, step])
        picked = rng.integers(0, len(origins.actual), recipe.rows)
        loss = _loss(net, origins, spread, picked, rng.integers(0, HORIZON, (recipe.rows, recipe.days)))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        decay = min(recipe.average, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in net.named_parameters():
                mean[name].lerp_(value, 1 - decay)
        if progress:
            progress(step + 1)
    arrays = {name: value.numpy().astype(np.float32) for name, value in mean.items()}
    for name, (middle, scale) in spread.items():  # standardising is folded into the first layer
        arrays[f"{name}.weight"] = arrays[f"{name}.weight"] / scale
        arrays["candidate.bias"] = arrays["candidate.bias"] - arrays[f"{name}.weight"] @ middle
    return PriceWeights(arrays)


def _loss(net: _Scorer, lines: _Lines, spread: dict[str, tuple[F32, F32]], rows: I64, days: I64) -> Tensor:
    atoms, at = lines.atoms, rows[:, None]
    inputs = (atoms.candidate[rows], atoms.line[rows], atoms.day[at, days])
    standard = [
        torch.from_numpy((values - spread[name][0]) / spread[name][1])
        for name, values in zip(("candidate", "line", "day"), inputs, strict=True)
    ]
    usable = torch.from_numpy(atoms.usable[rows])
    logits = net(*standard).masked_fill(~usable[:, None], -torch.inf)
    weight, log_weight = logits.softmax(-1), logits.log_softmax(-1)[..., 0]
    value = torch.from_numpy(np.where(atoms.usable[rows], atoms.value[rows] / atoms.value[rows, :1], 1))
    actual = torch.from_numpy(lines.actual[at, days])
    reach = (weight * (value[:, None] - actual[..., None]).abs()).sum(-1)
    apart = (value[:, :, None] - value[:, None, :]).abs()
    within = torch.einsum("bna,bac,bnc->bn", weight, apart, weight)
    stayed = (actual == 1).float()
    left = torch.log1p(-weight[..., 0].clamp_max(1 - 1e-5))
    hurdle = -(stayed * log_weight + (1 - stayed) * left)
    loss: Tensor = (reach - within / 2).mean() + HURDLE_SHARE * hurdle.mean()
    return loss


def _spread(values: F32) -> tuple[F32, F32]:
    flat = values.reshape(-1, values.shape[-1])
    return flat.mean(axis=0), np.maximum(flat.std(axis=0), 0.05)


def _lines(seed: int, number: int) -> _Lines:
    """Origins of every made-up line; short pasts among them, for lines are young once."""
    corpus = price_corpus(number, DAYS, CORPUS_SEED)
    rng = np.random.default_rng([seed, CORPUS_SEED])
    parts = []
    for _ in range(ORIGINS):
        today = int(rng.integers(90, DAYS - HORIZON))
        begins = np.maximum(0, today - np.exp(rng.uniform(np.log(2), np.log(1500), number)).astype(np.int64))
        seen = np.where(np.arange(today + 1) >= begins[:, None], corpus.price[:, : today + 1], np.float32(np.nan))
        price, began, promo = runs_of(seen, corpus.promo[:, : today + 1])
        batch = checked(PriceBatch(price, began, np.full(number, today), HORIZON, promo))
        parts.append((atoms_of(batch), corpus.price[:, today + 1 : today + 1 + HORIZON] / price[:, :1]))
    names = ("value", "usable", "time", "followed", "candidate", "line", "day", "hazard")
    atoms = Atoms(**{name: np.concatenate([getattr(found, name) for found, _ in parts]) for name in names})
    return _Lines(atoms, np.concatenate([actual for _, actual in parts]))
