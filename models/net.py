"""The net of the encoder, in plain torch: from windows to quantiles of each step.

In: `models.windows.Windows`. Out: quantiles, float32 (B, N, Q), in units of demand.
Must not know: files, shops, how it is trained, transformers, whose import takes longer than torch's own. Rule: a
quantile is a learned mix of empirical quantiles and of nothing, moved by what the net adds to its asinh; with all
weights at zero the model is nearly the mean of its anchors.

Depth does not decide here, columns and recipe do: one hidden layer of columns, some residual blocks, a gate over the
anchors and nothing, a residual per level, 40 to 60 thousand parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from models.columns import ANCHORS, StepInputs, step_inputs
from models.forecast import LEVELS, ForecastBatch
from models.windows import Windows, windows_of

MODEL_TYPE = "shelftide-encoder"
"""What ``config.json`` says that it is of."""

CLIP = 5.0
"""Standardised columns are held to this: what was never seen in training must not throw a forecast far away."""

MOST_POWER = 2981.0
"""The power of e that a quantile is read from, and one over it, is held to this: at e to the 8 a quantile is 1,490
times a row's scale."""

NOTHING = -2.0
"""Bias of the gate for nothing at first: it then weighs 3 % where the anchors weigh the rest."""

_Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]


class NetConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a net is made of, as its ``config.json`` says; the fields are those of `models.encoder.EncoderConfig`.

    Examples
    --------
    >>> NetConfig.of({"covariates": ["promo"], "model_type": "told elsewhere"}).hidden
    96
    """

    covariates: list[str] = []
    dates: bool = False
    hidden: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 96
    blocks: Annotated[int, msgspec.Meta(ge=0, le=64)] = 2
    dropout: _Share = 0.1
    feature_dropout: _Share = 0.05
    anchored: bool = True
    codes: dict[str, list[int]] = {}
    attributes: dict[str, list[int]] = {}

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> NetConfig:
        """Read it from the content of a ``config.json``; what it says beyond this is somebody else's.

        Raises
        ------
        msgspec.ValidationError
            If a value is of another type, or out of bounds.
        """
        made = msgspec.convert(told, cls)
        # In alphabetical order, as the library's files have them and as weights are laid out.
        codes, attributes = (dict(sorted(names.items())) for names in (made.codes, made.attributes))
        return msgspec.structs.replace(made, codes=codes, attributes=attributes)


@dataclass(frozen=True, slots=True)
class Columns:
    """How many columns a configuration has: per row, and per row and step."""

    series: int
    steps: int


class _Block(nn.Module):
    """One residual block."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.up, self.down = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.down(self.dropout(nn.functional.silu(self.up(self.norm(x)))))
        return out


class _Words(nn.Module):
    """What the net makes of some names at some places: a vector of the hidden width for each, summed; 0 if unknown.

    They begin at nothing, so that a name counts for as much as was learned of it.
    """

    known: Tensor

    def __init__(self, known: list[int], places: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("known", torch.tensor(sorted(known), dtype=torch.int64))
        self.vectors = nn.Embedding((len(known) + 1) * places, hidden)
        nn.init.zeros_(self.vectors.weight)

    def forward(self, words: Tensor) -> Tensor:
        """Vectors of words int64 (..., places), (..., hidden)."""
        at = torch.searchsorted(self.known, words.contiguous()).clamp_max(len(self.known) - 1)
        index = torch.where(self.known[at] == words, at + 1, 0)
        place = torch.arange(words.shape[-1], device=words.device) * (len(self.known) + 1)
        out: Tensor = self.vectors(index + place).sum(-2)
        return out


class Net(nn.Module):
    """Quantiles of demand from windows.

    Examples
    --------
    >>> net = Net(NetConfig())
    >>> sum(p.numel() for p in net.parameters()) < 80_000
    True
    """

    config: NetConfig
    series_mean: Tensor
    series_scale: Tensor
    step_mean: Tensor
    step_scale: Tensor

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config
        self._lay_out(config)

    def _lay_out(self, config: NetConfig) -> None:
        """Make all layers, and let the heads say nothing."""
        columns = columns_of(config)
        self.register_buffer("series_mean", torch.zeros(columns.series))
        self.register_buffer("series_scale", torch.ones(columns.series))
        self.register_buffer("step_mean", torch.zeros(columns.steps))
        self.register_buffer("step_scale", torch.ones(columns.steps))
        self.from_series = nn.Linear(columns.series, config.hidden)
        self.from_steps = nn.Linear(columns.steps, config.hidden, bias=False)
        self.codes = nn.ModuleList(_Words(known, 3, config.hidden) for known in config.codes.values())
        self.attributes = nn.ModuleList(_Words(known, 1, config.hidden) for known in config.attributes.values())
        self.blocks = nn.ModuleList(_Block(config.hidden, config.dropout) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.hidden)
        self.gate = nn.Linear(config.hidden, len(ANCHORS) + 1)
        self.residual = nn.Linear(config.hidden, len(LEVELS))
        for head in (self.gate, self.residual):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        nn.init.constant_(self.gate.bias[-1:], NOTHING)

    @torch.no_grad()
    def standardise(self, inputs: StepInputs) -> None:
        """Take means and deviations of the columns from a sample."""
        for name, values in (("series", inputs.series), ("step", inputs.steps.flatten(0, 1))):
            spread, mean = torch.std_mean(values, dim=0, correction=0)
            getattr(self, f"{name}_mean").copy_(mean)
            getattr(self, f"{name}_scale").copy_(spread.clamp_min(0.05))

    def inputs(self, windows: Windows, steps: Tensor | None = None) -> StepInputs:
        """Columns and anchors as this model reads them."""
        codes = [self.config.covariates.index(name) for name in self.config.codes]
        return step_inputs(windows, steps, dates=self.config.dates, codes=codes)

    def windows(self, batch: ForecastBatch) -> Windows:
        """A batch as this model reads it."""
        return windows_of(batch, self.config.covariates, list(self.config.attributes))

    def forward(self, inputs: StepInputs) -> Tensor:
        """Quantiles over scale, sorted, float32 (B, N, Q); at least zero but in training."""
        series = self._standard(inputs.series, self.series_mean, self.series_scale)
        steps = self._standard(inputs.steps, self.step_mean, self.step_scale)
        x = self.from_series(series)[:, None] + self.from_steps(steps)
        for n, words in enumerate(self.codes):
            x = x + words(inputs.codes[:, :, n])
        for n, words in enumerate(self.attributes):
            x = x + words(inputs.attributes[:, n : n + 1])[:, None]
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        # sinh(asinh(anchor) + residual), by one exponential: e to the asinh of a is a + sqrt(a a + 1)
        power = self.residual(x).exp()
        if self.config.anchored:
            share = self.gate(x).softmax(-1)[:, :, :-1]
            anchor = torch.einsum("bna,bnaq->bnq", share, inputs.anchors)
            power = power * (anchor + (anchor * anchor + 1).sqrt())
        power = power.clamp(1 / MOST_POWER, MOST_POWER)
        out: Tensor = ((power - 1 / power) / 2).sort(-1).values
        if not self.training:  # what is held at zero would learn nothing
            out = out.clamp_min(0)
        return out

    def _standard(self, values: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        standard = ((values - mean) / scale).clamp(-CLIP, CLIP)
        return self._drop_columns(standard)

    def _drop_columns(self, values: Tensor) -> Tensor:
        """In training, let some columns of some rows say nothing."""
        rate = self.config.feature_dropout
        if not self.training or not rate:
            return values
        kept = torch.rand(values.shape[0], *[1] * (values.dim() - 2), values.shape[-1], device=values.device) >= rate
        return values * kept


def columns_of(config: NetConfig) -> Columns:
    """Count the columns of a configuration, by making those of one empty row."""
    batch = ForecastBatch(
        demand=np.zeros((1, 84), np.float32), is_open=np.ones((1, 84), bool), future_open=np.ones((1, 1), bool),
        observed=np.zeros(1, np.float32), elapsed=np.zeros(1, np.float32), day=np.zeros(1, np.int64),
        hour=np.zeros(1, np.int64), season=7, group=np.full(1, -1, np.int32),
    )  # fmt: skip
    inputs = step_inputs(windows_of(batch, tuple(config.covariates)), dates=config.dates)
    return Columns(inputs.series.shape[1], inputs.steps.shape[2])
