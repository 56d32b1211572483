"""The encoder as a Hugging Face model: the net of `models.net`, saved, loaded and registered as any other.

In: a configuration, or a folder. Out: an `Encoder`, which trains, and which AutoModel finds once this is imported.
Must not know: shops, how it is trained. Rule: what is saved here is what `models.net` reads without transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from models.forecast import LEVELS
from models.net import MODEL_TYPE, Net, NetConfig


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
    anchored
        Whether quantiles are moved empirical ones. Those of a net that is not are its own from zero on: alone it is
        seldom better, but it errs elsewhere, and the mean of both is better than either.
    codes
        Covariates whose values are names (which holiday), with the values known.
    attributes
        Names of what sorts items into kinds, with the codes of the kinds known.
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
        anchored: bool = True,
        codes: dict[str, list[int]] | None = None,
        attributes: dict[str, list[int]] | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self.covariates = list(covariates)
        self.dates, self.hidden, self.blocks = dates, hidden, blocks
        self.dropout, self.feature_dropout, self.anchored = dropout, feature_dropout, anchored
        # In alphabetical order, as the library's files have them: what is loaded has the order of what was saved.
        self.codes, self.attributes = dict(sorted((codes or {}).items())), dict(sorted((attributes or {}).items()))


class Encoder(Net, PreTrainedModel):
    """The net as a `transformers.PreTrainedModel`.

    Examples
    --------
    >>> model = Encoder(EncoderConfig())
    >>> sum(p.numel() for p in model.parameters()) < 80_000
    True
    """

    config_class = EncoderConfig
    config: EncoderConfig  # type: ignore[assignment]  # the same fields, as the library keeps them
    base_model_prefix = "encoder"

    def __init__(self, config: EncoderConfig) -> None:
        PreTrainedModel.__init__(self, config)
        self._lay_out(cast("NetConfig", config))
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """Keep what torch has initialised."""


def load(folder: Path) -> Encoder:
    """Read an encoder as `save_pretrained` wrote it, ready to answer."""
    model = Encoder(EncoderConfig.from_pretrained(folder, local_files_only=True))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    nn.Module.eval(model)
    return model


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
