"""The encoder: from windows to quantiles of each step, as a Hugging Face model.

In: `models.windows.Windows`. Out: quantiles, float32 (B, N, Q), in units of demand.
Must not know: files, shops, how it is trained. Rule: a quantile is a learned mix of empirical quantiles, moved by what
the net adds to its asinh; with all weights at zero the model is the mean of its anchors.

Depth does not decide here, columns and recipe do: one hidden layer of columns, some residual blocks, a gate over the
anchors and a residual per level, 40 to 60 thousand parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from models.forecast import LEVELS, ForecastBatch
from models.windows import ANCHORS, StepInputs, Windows, step_inputs, windows_of

MODEL_TYPE = "shelftide-encoder"
CLIP = 5.0
"""Standardised columns are held to this: what was never seen in training must not throw a forecast far away."""


class EncoderConfig(PretrainedConfig):
    """What an encoder is made of.

    Parameters
    ----------
    covariates
        Names of the known covariates read, in order.
    dates
        Whether day of month and day of year are read.
    hidden, blocks
        Width, and number of residual blocks.
    dropout, feature_dropout
        Of hidden units, and of whole columns.
    """

    model_type = MODEL_TYPE

    def __init__(
        self,
        covariates: tuple[str, ...] = (),
        *,
        dates: bool = False,
        hidden: int = 96,
        blocks: int = 2,
        dropout: float = 0.1,
        feature_dropout: float = 0.05,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self.covariates = list(covariates)
        self.dates, self.hidden, self.blocks = dates, hidden, blocks
        self.dropout, self.feature_dropout = dropout, feature_dropout


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


class Encoder(PreTrainedModel):
    """Quantiles of demand from windows.

    Examples
    --------
    >>> model = Encoder(EncoderConfig())
    >>> sum(p.numel() for p in model.parameters()) < 80_000
    True
    """

    config_class = EncoderConfig
    config: EncoderConfig
    series_mean: Tensor
    series_scale: Tensor
    step_mean: Tensor
    step_scale: Tensor
    base_model_prefix = "encoder"

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        columns = columns_of(config)
        self.register_buffer("series_mean", torch.zeros(columns.series))
        self.register_buffer("series_scale", torch.ones(columns.series))
        self.register_buffer("step_mean", torch.zeros(columns.steps))
        self.register_buffer("step_scale", torch.ones(columns.steps))
        self.from_series = nn.Linear(columns.series, config.hidden)
        self.from_steps = nn.Linear(columns.steps, config.hidden, bias=False)
        self.blocks = nn.ModuleList(_Block(config.hidden, config.dropout) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.hidden)
        self.gate = nn.Linear(config.hidden, len(ANCHORS))
        self.residual = nn.Linear(config.hidden, len(LEVELS))
        self.post_init()  # type: ignore[no-untyped-call]
        for head in (self.gate, self.residual):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def _init_weights(self, module: nn.Module) -> None:
        """Keep what torch has initialised."""

    @torch.no_grad()
    def standardise(self, inputs: StepInputs) -> None:
        """Take means and deviations of the columns from a sample."""
        for name, values in (("series", inputs.series), ("step", inputs.steps.flatten(0, 1))):
            spread, mean = torch.std_mean(values, dim=0, correction=0)
            getattr(self, f"{name}_mean").copy_(mean)
            getattr(self, f"{name}_scale").copy_(spread.clamp_min(0.05))

    def inputs(self, windows: Windows, steps: Tensor | None = None) -> StepInputs:
        """Columns and anchors as this model reads them."""
        return step_inputs(windows, steps, dates=self.config.dates)

    def forward(self, inputs: StepInputs) -> Tensor:
        """Quantiles over scale, sorted, at least zero, float32 (B, N, Q)."""
        series = self._standard(inputs.series, self.series_mean, self.series_scale)
        steps = self._standard(inputs.steps, self.step_mean, self.step_scale)
        x = self.from_series(series)[:, None] + self.from_steps(steps)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        share = self.gate(x).softmax(-1)
        anchor = torch.einsum("bna,bnaq->bnq", share, inputs.anchors)
        moved = torch.sinh((torch.asinh(anchor) + self.residual(x)).clamp_max(8.0))
        out: Tensor = moved.clamp_min(0).sort(-1).values
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


def load(folder: Path) -> Encoder:
    """Read an encoder as `save_pretrained` wrote it, ready to answer."""
    model = Encoder(EncoderConfig.from_pretrained(folder, local_files_only=True))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    nn.Module.eval(model)
    return model


def columns_of(config: EncoderConfig) -> Columns:
    """Count the columns of a configuration, by making those of one empty row."""
    batch = ForecastBatch(
        demand=np.zeros((1, 84), np.float32), is_open=np.ones((1, 84), bool), future_open=np.ones((1, 1), bool),
        observed=np.zeros(1, np.float32), elapsed=np.zeros(1, np.float32), day=np.zeros(1, np.int64),
        hour=np.zeros(1, np.int64), season=7, group=np.full(1, -1, np.int32),
    )  # fmt: skip
    inputs = step_inputs(windows_of(batch, tuple(config.covariates)), dates=config.dates)
    return Columns(inputs.series.shape[1], inputs.steps.shape[2])


def pinball(quantiles: Tensor, actual: Tensor) -> Tensor:
    """Mean over levels of twice the pinball loss, same leading shape as `actual`.

    Koenker and Bassett, "Regression Quantiles", Econometrica 46(1), 1978.

    Examples
    --------
    >>> pinball(torch.full((1, 1, len(LEVELS)), 2.0), torch.tensor([[2.0]])).item()
    0.0
    """
    levels = torch.tensor(LEVELS, device=quantiles.device)
    gap = actual[..., None] - quantiles
    return 2 * torch.maximum(levels * gap, (levels - 1) * gap).mean(-1)


AutoConfig.register(MODEL_TYPE, EncoderConfig, exist_ok=True)
AutoModel.register(EncoderConfig, Encoder, exist_ok=True)
