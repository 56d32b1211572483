"""A forecaster by the name of its model: the baseline, the shipped encoder, the champion, a folder, one of a registry.

In: a name, a folder of models, a device. Out: a `Forecaster`.
Must not know: settings, Kafka. Rule: a wrong name or a damaged model is told at once, and torch, which takes seconds to
import, is loaded when the first forecast is asked for, or earlier by who has a thread to spare.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from models.baseline import SeasonalWindow
from models.forecast import Forecast, ForecastBatch, Forecaster, ForecastError
from models.model_folder import CARD, Model, read_model
from models.registry import Registry

if TYPE_CHECKING:
    from models.serving import EncoderForecaster

SHIPPED = Path(__file__).parent / "weights" / "retail-1"
"""The weights in the package: `shelftide train --pretrain` with what stands in `models.pretrain`, by seed 1."""

BASELINE, PRETRAINED, CHAMPION = "baseline", "pretrained", "champion"

_SHIPPED_NAME = SHIPPED.name

CHANNELS = ("price",)
"""History that every encoder reads beyond demand."""


class LateEncoder:
    """Encoders whose bytes were checked, made into nets when they are first needed.

    Parameters
    ----------
    model
        The bytes.
    device
        Where the nets answer: ``cpu``, ``cuda``, or ``auto`` for the second where there is one.
    """

    channels = CHANNELS

    def __init__(self, model: Model, device: str = "cpu") -> None:
        self.name = model.name
        self._model, self._device = model, device
        self._loading = threading.Lock()
        self._loaded: EncoderForecaster | None = None

    @property
    def place(self) -> Path:
        """Folder that its bytes came from."""
        return self._model.place

    def load(self) -> None:
        """Import torch and make the nets; nothing where that is done.

        Raises
        ------
        ForecastError
            If a net is of another kind than this program's, or there is no such device.
        """
        with self._loading:
            if self._loaded is None:
                self._loaded = _loaded(self._model, self._device)

    def forecast(self, batch: ForecastBatch) -> Forecast:
        """Forecast every row, as `models.serving.EncoderForecaster` does."""
        self.load()
        assert self._loaded is not None  # noqa: S101 - just loaded
        return self._loaded.forecast(batch)


def _loaded(model: Model, device: str) -> EncoderForecaster:
    import torch

    from models.serving import EncoderForecaster

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ForecastError("there is no CUDA device that torch can use; set model.device to cpu")
    # One thread: the nets are small, and a second one only waits, at the cost of whoever else needs the core.
    torch.set_num_threads(1)
    return EncoderForecaster(model.encoders(), model.name, device)


def forecaster_named(name: str, registry: Path, device: str = "cpu") -> Forecaster:
    """The forecaster of a name.

    Parameters
    ----------
    name
        ``baseline``, ``pretrained``, ``champion``; the folder of a model; or one of the registry by digest or published
        name.
    registry
        Folder of models.
    device
        As of `LateEncoder`.

    Raises
    ------
    ForecastError
        If the registry has no such model, or it is damaged.

    Examples
    --------
    >>> forecaster_named("baseline", Path("nowhere")).name
    'baseline-1'
    >>> forecaster_named("pretrained", Path("nowhere")).name
    'retail-1@sha256:...'
    """
    if name == CHAMPION:
        return LateEncoder(Registry(registry).show(), device)
    if name not in (BASELINE, PRETRAINED) and (Path(name) / CARD).is_file():
        return LateEncoder(read_model(Path(name)), device)
    return registered(name, registry, device)


def registered(name: str, registry: Path, device: str = "cpu") -> Forecaster:
    """The forecaster of a name that comes from outside: no path of this machine, and never whoever is champion now.

    Parameters
    ----------
    name
        Digest or published name of a model of the registry; also ``baseline`` and ``pretrained``, under either name.
    registry, device
        As of `forecaster_named`.

    Raises
    ------
    ForecastError
        If there is no such model, or it is damaged.

    Examples
    --------
    >>> registered("baseline-1", Path("nowhere")).name
    'baseline-1'
    """
    if name in (BASELINE, SeasonalWindow().name):
        return SeasonalWindow()
    shipped = read_model(SHIPPED) if name == PRETRAINED or name.startswith(_SHIPPED_NAME) else None
    if shipped is not None and name in (PRETRAINED, shipped.name):
        return LateEncoder(shipped, device)
    return LateEncoder(Registry(registry).show(name), device)
