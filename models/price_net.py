"""The price net: the hurdle with weights that a small net gives to the candidates.

In: a `PriceBatch`, weights as `models.price_train` fits them. Out: a `PriceForecast`.
Must not know: how it is trained, files beyond its own two. Rule: only NumPy is needed to answer, so a worker that
forecasts prices alone loads no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from models.forecast import F32, Basis
from models.model_folder import ModelLoadError
from models.price import PriceBatch, PriceForecast, PriceForecaster, PriceModel
from models.price_atoms import CANDIDATE_FEATURES, DAY_FEATURES, LINE_FEATURES, Atoms
from models.price_hurdle import PriceHurdle, answer

SHIPPED = Path(__file__).parent / "weights" / "price-1"
"""The weights in the package: `models.price_train.fit_prices()` with what stands there, by seed 1."""

_FILE = "price.safetensors"
_ROWS = 128
"""Rows at once: what lies between the layers stays near 20 MB."""


@dataclass(frozen=True, slots=True)
class PriceWeights:
    """Arrays of the net by name, float32."""

    arrays: Mapping[str, F32]

    def save(self, folder: Path) -> None:
        """Write the weights into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: np.ascontiguousarray(value) for name, value in self.arrays.items()}, folder / _FILE)

    @classmethod
    def load(cls, folder: Path) -> PriceWeights:
        """Read weights as `save` wrote them.

        Raises
        ------
        ModelLoadError
            If the file is missing, damaged, or made for other features.
        """
        try:
            arrays = load_file(folder / _FILE)
        except (OSError, SafetensorError) as error:
            raise ModelLoadError(f"the weights of prices in {folder} cannot be read: {error}") from error
        asked = {"candidate": CANDIDATE_FEATURES, "line": LINE_FEATURES, "day": DAY_FEATURES}
        for name, width in asked.items():
            found = arrays.get(f"{name}.weight")
            if found is None or found.shape[1] != width:
                raise ModelLoadError(f"the weights of prices in {folder} are of another version; train them anew")
        return cls(arrays)

    def logits(self, atoms: Atoms, rows: slice) -> F32:
        """Score the candidates of some rows, float32 (B, H, A)."""
        a = self.arrays
        known = atoms.candidate[rows] @ a["candidate.weight"].T + a["candidate.bias"]
        known += (atoms.line[rows] @ a["line.weight"].T)[:, None]
        days = atoms.day[rows] @ a["day.weight"].T
        x = _silu(known[:, None] + days[:, :, None])  # (B, H, A, hidden)
        x = _silu(x @ a["middle.weight"].T + a["middle.bias"])
        found: F32 = (x @ a["out.weight"].T)[..., 0]
        return found


class PriceNet:
    """Forecasts prices with trained weights.

    Examples
    --------
    >>> price, began = np.array([[9, 7, 9, 7, 9]], np.float32), np.array([[6, 13, 20, 27, 34]], np.float32)
    >>> found = shipped().forecast(PriceBatch(price, began, np.zeros(1, np.int64), horizon=7))
    >>> bool(found.p_change[0, 0] > 0.4), found.quantiles[0, 0, 3].item()
    (True, 7.0)
    """

    def __init__(self, weights: PriceWeights, name: str) -> None:
        self._weights, self._name = weights, name

    @property
    def name(self) -> str:
        """Name and digest of the weights."""
        return self._name

    def forecast(self, batch: PriceBatch) -> PriceForecast:
        """Forecast every row of the batch."""
        return answer(batch, self._weigh, Basis.MODEL)

    def _weigh(self, atoms: Atoms) -> F32:
        weight = np.empty((*atoms.day.shape[:2], atoms.value.shape[1]), np.float32)
        for first in range(0, len(weight), _ROWS):
            rows = slice(first, first + _ROWS)
            logits = np.where(atoms.usable[rows, None], self._weights.logits(atoms, rows), np.float32(-np.inf))
            raised = np.exp(logits - logits.max(axis=2, keepdims=True))
            weight[rows] = raised / raised.sum(axis=2, keepdims=True)
        return weight


def shipped() -> PriceNet:
    """The net in the package, for shops that it has never seen."""
    digest = hashlib.sha256((SHIPPED / _FILE).read_bytes()).hexdigest()
    return PriceNet(PriceWeights.load(SHIPPED), f"{SHIPPED.name}@sha256:{digest}")


def price_forecaster(name: PriceModel) -> PriceForecaster | None:
    """Who forecasts prices, by name; nobody where they are off.

    Examples
    --------
    >>> price_forecaster("hurdle").name, price_forecaster("off")
    ('price-hurdle-1', None)
    """
    if name == "off":
        return None
    return shipped() if name == "net" else PriceHurdle()


def _silu(x: F32) -> F32:
    with np.errstate(over="ignore"):
        out: F32 = x / (1 + np.exp(-x))
    return out
