"""A batch of histories as tensors of fixed shape, on whatever device the encoder runs.

In: a `ForecastBatch`, and which of its known covariates and attributes count. Out: `Windows`.
Must not know: weights, shops, files. Rule: what a batch does not have is unknown, and never made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.forecast import ForecastBatch

SEASONS = 12
"""Seasons of history read: what the panes of the engine hold of days."""

WEEKS = 103
"""Whole weeks read before the week of step 1."""

PRICE = "price"
"""The covariate that is a price."""


@dataclass(frozen=True, slots=True)
class Windows:
    """A batch as tensors; B rows, T buckets of history (oldest first), H steps, C covariates, W weeks.

    Attributes
    ----------
    demand
        Float32 (B, T), NaN where a bucket was closed or says nothing.
    future_open
        Bool (B, H).
    past_open
        Bool (B, T).
    observed, elapsed
        Of step 1, float32 (B,).
    day, hour
        Of step 1, int64 (B,).
    weeks
        Demand of whole weeks before that of step 1, oldest first, float32 (B, W), NaN where unknown.
    known
        Covariates over history and steps, float32 (B, C, T + H), NaN where unknown.
    price
        Price charged, float32 (B, T), NaN where unknown.
    prices
        Which covariates are prices, by index: their ratios count, not their values.
    season
        Buckets per season.
    attributes
        `attribute_code` of what kind each row is, int64 (B, A), -1 where unknown.
    """

    demand: Tensor
    future_open: Tensor
    past_open: Tensor
    observed: Tensor
    elapsed: Tensor
    day: Tensor
    hour: Tensor
    weeks: Tensor
    known: Tensor
    price: Tensor
    prices: tuple[int, ...]
    season: int
    attributes: Tensor

    def __len__(self) -> int:
        return len(self.demand)

    @property
    def horizon(self) -> int:
        """Steps."""
        return int(self.future_open.shape[1])

    def to(self, device: torch.device | str) -> Windows:
        """The same on another device."""
        moved: dict[str, Any] = {
            one.name: value.to(device, non_blocking=True)
            for one in fields(self)
            if isinstance(value := getattr(self, one.name), Tensor)
        }
        return replace(self, **moved)


def windows_of(batch: ForecastBatch, covariates: Sequence[str], attributes: Sequence[str] = ()) -> Windows:
    """Lay out a batch as tensors; what it does not have is unknown.

    Examples
    --------
    >>> batch = ForecastBatch(
    ...     demand=np.ones((1, 84), np.float32), is_open=np.ones((1, 84), bool), future_open=np.ones((1, 2), bool),
    ...     observed=np.zeros(1, np.float32), elapsed=np.zeros(1, np.float32), day=np.array([19723]),
    ...     hour=np.array([0]), season=7, group=np.array([-1], np.int32))
    >>> windows = windows_of(batch, ("promo",))
    >>> tuple(windows.demand.shape), tuple(windows.known.shape), bool(windows.known.isnan().all())
    ((1, 84), (1, 1, 86), True)
    """
    rows, span, horizon = len(batch), SEASONS * batch.season, batch.horizon
    demand = np.where(batch.is_open, np.maximum(batch.demand, 0), np.float32(np.nan))
    known = np.full((rows, len(covariates), span + horizon), np.nan, np.float32)
    for index, name in enumerate(covariates):
        if name in batch.known:
            known[:, index] = _newest(batch.known[name], span + horizon, np.nan)
    weeks = batch.weeks if batch.weeks is not None else np.empty((rows, 0), np.float32)
    price = batch.channels.get("price", np.empty((rows, 0), np.float32))
    kinds = np.full((rows, len(attributes)), -1, np.int64)
    for index, name in enumerate(attributes):
        kinds[:, index] = batch.attributes.get(name, -1)
    return Windows(
        demand=torch.from_numpy(_newest(demand, span, np.nan)),
        future_open=_own(batch.future_open),
        past_open=torch.from_numpy(_newest(batch.is_open, span, True)),
        observed=_own(batch.observed),
        elapsed=_own(batch.elapsed),
        day=_own(batch.day),
        hour=_own(batch.hour),
        weeks=torch.from_numpy(_newest(weeks, WEEKS, np.nan)),
        known=torch.from_numpy(known),
        price=torch.from_numpy(_newest(price, span, np.nan)),
        prices=tuple(index for index, name in enumerate(covariates) if name == PRICE),
        season=batch.season,
        attributes=torch.from_numpy(kinds),
    )


def _own(values: npt.NDArray[Any]) -> Tensor:
    """A copy: what is handed in may be read-only, or a view of something that changes."""
    return torch.from_numpy(np.array(values))


def _newest(values: npt.NDArray[Any], span: int, missing: float) -> npt.NDArray[Any]:
    """The newest columns, in front of them what is missing."""
    out = np.full((len(values), span), missing, values.dtype)
    have = min(span, values.shape[1])
    if have:
        out[:, -have:] = values[:, values.shape[1] - have :]
    return out
