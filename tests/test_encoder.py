"""The encoder and its serving: promises of every forecaster, files, what it makes of its anchors."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from models.encoder import Encoder, EncoderConfig, load, pinball
from models.forecast import LEVELS, Basis, ForecastError, HorizonError, take
from models.net import NOTHING, Net, NetConfig
from models.promises import fault_of
from models.serving import MEAN_WEIGHTS, EncoderForecaster
from models.windows import windows_of
from tests.test_windows import batch_of

COVARIATES = ("promo", "price")


def still(model: Encoder) -> Encoder:
    """Out of training."""
    torch.nn.Module.eval(model)
    return model


@pytest.fixture(scope="module")
def model() -> Encoder:
    """An encoder whose heads say something."""
    torch.manual_seed(3)
    made = Encoder(EncoderConfig(COVARIATES))
    made.standardise(made.inputs(windows_of(batch_of(200), COVARIATES)))
    for head in (made.gate, made.residual):
        torch.nn.init.normal_(head.weight, std=0.05)
    return still(made)


def test_an_untrained_encoder_is_the_mean_of_its_anchors_and_a_little_of_nothing() -> None:
    model = still(Encoder(EncoderConfig(COVARIATES)))
    inputs = model.inputs(windows_of(batch_of(), COVARIATES))
    wanted = inputs.anchors.sum(2) / (inputs.anchors.shape[2] + np.exp(NOTHING))
    with torch.inference_mode():
        torch.testing.assert_close(model(inputs), wanted, rtol=1e-4, atol=1e-5)


def test_a_net_without_anchors_reads_none_and_learns_from_zero_on() -> None:
    model = Encoder(EncoderConfig(COVARIATES, anchored=False))
    inputs = model.inputs(windows_of(batch_of(), COVARIATES))
    assert (still(model)(inputs) == 0).all()
    with torch.no_grad():
        model.residual.bias.fill_(-1.0)
    assert (model(inputs) == 0).all()  # demand is not below zero
    torch.nn.Module.train(model)
    pinball(model(inputs), torch.ones(inputs.steps.shape[:2])).mean().backward()
    assert model.residual.bias.grad is not None
    assert (model.residual.bias.grad < 0).all()  # yet it learns to rise
    none = replace(inputs, anchors=torch.full_like(inputs.anchors, torch.nan))
    assert torch.isfinite(still(model)(none)).all()


def test_it_keeps_the_promises_of_a_forecaster(model: Encoder) -> None:
    batch = batch_of(rows=700, horizon=28)
    batch.demand[0] = np.nan
    batch.demand[1] = 0
    batch.observed[:] = 2.0
    batch.elapsed[:] = 0.25
    forecast = EncoderForecaster([model], "test-1").forecast(batch)
    assert fault_of(batch, forecast) is None
    assert (forecast.quantiles[:, 1:][~batch.future_open[:, 1:]] == 0).all()
    assert (forecast.quantiles[:, 0] >= 2.0).all()
    assert forecast.basis[:2].tolist() == [Basis.COLD_START, Basis.MODEL]


def test_whole_demand_gives_whole_quantiles(model: Encoder) -> None:
    batch = batch_of(50)
    batch.demand[7:] += np.float32(0.25)
    forecast = EncoderForecaster([model], "test-1").forecast(batch)
    for values in (forecast.quantiles, forecast.cumulative):
        assert (values[:7] == np.rint(values[:7])).all()
        assert not (values[7:] == np.rint(values[7:])).all(axis=(1, 2)).any()
    assert not (forecast.mean[:7] == np.rint(forecast.mean[:7])).all()


def test_several_encoders_answer_with_their_mean(model: Encoder) -> None:
    other = Encoder(EncoderConfig(COVARIATES))
    batch = batch_of(20)
    batch.demand[:] += np.float32(0.25)  # else their quantiles are rounded
    one, two, both = (
        EncoderForecaster(models, "x").forecast(batch).quantiles for models in ([model], [other], [model, other])
    )
    np.testing.assert_allclose(both, (one + two) / 2, rtol=1e-5, atol=1e-6)


def test_a_row_is_forecast_alike_whatever_rows_stand_beside_it(model: Encoder) -> None:
    batch, forecaster = batch_of(600), EncoderForecaster([model], "x")
    batch.demand[:] += np.float32(0.25)
    together, alone = forecaster.forecast(batch), forecaster.forecast(take(batch, slice(555, 556)))
    np.testing.assert_allclose(alone.quantiles[0], together.quantiles[555], rtol=1e-3, atol=1e-4)


def test_running_sums_of_certain_steps_are_certain(model: Encoder) -> None:
    batch = replace(batch_of(8), future_open=np.ones((8, 14), bool))
    batch.demand[:] = 5.0
    batch.is_open[:] = True
    anchors = Encoder(EncoderConfig(COVARIATES))
    torch.nn.init.constant_(anchors.gate.bias[-1:], -1e9)  # and nothing of nothing
    plain = EncoderForecaster([anchors], "x").forecast(batch)
    wanted = np.broadcast_to(np.arange(1, 15)[None, :, None] * 5.0, plain.cumulative.shape)
    np.testing.assert_allclose(plain.cumulative, wanted, rtol=1e-4)
    np.testing.assert_allclose(plain.cumulative_mean, np.tile(np.arange(1, 15) * 5.0, (8, 1)), rtol=1e-4)


def test_it_is_saved_and_loaded_as_any_model_of_hugging_face(model: Encoder, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    inputs = model.inputs(windows_of(batch_of(), COVARIATES))
    for loaded in (Encoder.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        assert type(loaded) is Encoder
        with torch.inference_mode():
            assert torch.equal(still(loaded)(inputs), model(inputs))
    plain = Net(NetConfig.of(json.loads((tmp_path / "config.json").read_bytes())))  # as it answers without the library
    plain.load_state_dict(load_file(tmp_path / "model.safetensors"))
    with torch.inference_mode():
        assert torch.equal(plain.eval()(inputs), model(inputs))


def test_names_in_any_order_are_the_same_once_they_were_saved(tmp_path: Path) -> None:
    config = EncoderConfig(
        ("promo", "day"), codes={"promo": [0, 1], "day": [3]}, attributes={"type": [7, 9], "kind": [4]}
    )
    made = Encoder(config)
    made.save_pretrained(tmp_path)
    loaded = load(tmp_path).config
    assert list(loaded.codes.items()) == list(made.config.codes.items())
    assert list(loaded.attributes.items()) == list(made.config.attributes.items())


@pytest.mark.parametrize("horizon", [0, 57])
def test_a_horizon_out_of_reach_is_refused(model: Encoder, horizon: int) -> None:
    with pytest.raises(HorizonError, match=f"horizon is {horizon}"):
        EncoderForecaster([model], "x").forecast(batch_of(2, horizon=horizon))


def test_no_encoder_is_no_forecaster() -> None:
    with pytest.raises(ForecastError, match="no encoder"):
        EncoderForecaster([], "x")


def test_the_mean_of_a_straight_line_of_quantiles_is_its_middle() -> None:
    assert float(np.array(LEVELS, np.float32) @ MEAN_WEIGHTS) == pytest.approx(0.5, abs=1e-3)
    assert MEAN_WEIGHTS.sum() == pytest.approx(1.0)


def test_pinball_is_least_at_the_quantile() -> None:
    rng = np.random.default_rng(1)
    actual = torch.from_numpy(rng.exponential(size=(1, 20_000)).astype(np.float32))
    right = torch.tensor(-np.log1p(-np.array(LEVELS)), dtype=torch.float32)
    losses = [pinball((right * by).expand(1, 20_000, -1), actual).mean().item() for by in (0.9, 1.0, 1.1)]
    assert losses[1] == min(losses)
