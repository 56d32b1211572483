"""A forecaster by the name of its model."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from models.forecast import ForecastError
from models.model_folder import ModelLoadError, read_model
from models.named import BASELINE, CHAMPION, CHANNELS, PRETRAINED, SHIPPED, LateEncoder, forecaster_named
from models.registry import Registry, RegistryError
from models.serving import EncoderForecaster
from tests.batches import shop

NOWHERE = Path("nowhere")


def test_names_stand_for_the_baseline_the_shipped_encoder_and_models_of_the_registry(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    digest = registry.add(SHIPPED)
    registry.promote(digest)
    name = read_model(SHIPPED).name
    assert forecaster_named(BASELINE, NOWHERE).name == "baseline-1"
    for told in (PRETRAINED, CHAMPION, digest, digest[:8], name):
        assert forecaster_named(told, tmp_path).name == name


def test_a_wrong_name_or_a_damaged_model_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="champion"):
        forecaster_named(CHAMPION, tmp_path)
    with pytest.raises(RegistryError, match="deadbeef"):
        forecaster_named("deadbeef", tmp_path)
    registry = Registry(tmp_path)
    digest = registry.add(SHIPPED)
    weights = tmp_path / "models" / digest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ModelLoadError):
        forecaster_named(digest, tmp_path)


def test_torch_is_not_imported_before_a_forecast_is_asked_for() -> None:
    """A worker takes over shards and reads a backlog in the seconds that it takes; transformers would double them."""
    lines = """
import sys
from pathlib import Path
from models.named import forecaster_named
late = forecaster_named("pretrained", Path("nowhere"))
late.name, late.channels
assert "torch" not in sys.modules
late.load()
assert "torch" in sys.modules
assert "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", lines], check=True, timeout=120)


def test_threads_that_need_it_at_once_load_it_once() -> None:
    late, batch = LateEncoder(read_model(SHIPPED)), shop(3)
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(late.forecast(batch).quantiles)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(found[0], other) for other in found[1:])
    assert len(found) == 3


def test_what_it_reads_of_history_is_known_before_it_is_loaded() -> None:
    shipped = read_model(SHIPPED)
    assert EncoderForecaster(shipped.encoders(), shipped.name).channels == LateEncoder(shipped).channels == CHANNELS


def test_a_device_that_is_not_there_is_told() -> None:
    import torch

    if torch.cuda.is_available():
        assert LateEncoder(read_model(SHIPPED), "cuda").forecast(shop(2)).quantiles.shape[0] == 2
        return
    with pytest.raises(ForecastError, match="no CUDA device"):
        LateEncoder(read_model(SHIPPED), "cuda").load()
