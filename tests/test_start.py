"""Beginning from another encoder: columns by name, the same answers before the first step, what learns in each mode."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.encoder import Encoder, EncoderConfig, load
from models.net import NetConfig, columns_of
from models.panel import Panel
from models.recipe import Recipe
from models.start import HEADS, StartError, config_of, standardise_new, step_columns, taken_over
from models.task import Task
from models.train import fit, origins
from models.windows import windows_of
from tests.test_train import LAST, promoted

SHORT = Recipe(steps=4, windows=32, horizons=4)


def begun(folder: Path, covariates: tuple[str, ...], *, dates: bool = False) -> tuple[Encoder, Path]:
    """An encoder whose weights all say something, and its folder."""
    torch.manual_seed(3)
    model = Encoder(EncoderConfig(covariates, dates=dates))
    with torch.no_grad():
        for value in (*model.parameters(), model.step_mean, model.series_mean):
            value.add_(0.1 * torch.randn_like(value))
    model.save_pretrained(folder)
    return load(folder), folder


def answers(model: Encoder, task: Task) -> torch.Tensor:
    batch = Panel(task).batch(task.series, task.cutoff)
    torch.nn.Module.eval(model)
    with torch.no_grad():
        found: torch.Tensor = model(model.inputs(model.windows(batch)))
    return found


@pytest.mark.parametrize("dates", [False, True])
@pytest.mark.parametrize("covariates", [(), ("promo",), ("price", "promo")])
def test_every_column_has_a_name(covariates: tuple[str, ...], dates: bool) -> None:
    names = step_columns(covariates, dates=dates)
    assert len(names) == columns_of(NetConfig(covariates=list(covariates), dates=dates)).steps
    assert len(set(names)) == len(names)


def test_the_names_stand_where_the_columns_do() -> None:
    task = promoted()
    batch = Panel(task).batch(task.series, task.cutoff)
    without = Encoder(EncoderConfig(("promo", "price"))).inputs(windows_of(batch, ("none", "price"))).steps
    told = Encoder(EncoderConfig(("promo", "price"))).inputs(windows_of(batch, ("promo", "price"))).steps
    names = step_columns(("promo", "price"))
    moved = {name for n, name in enumerate(names) if not torch.equal(without[..., n], told[..., n])}
    assert moved == {name for name in names if name.startswith("promo.")}
    weekday = told[..., [n for n, name in enumerate(names) if name.startswith("weekday_")]]
    assert torch.equal(weekday.sum(-1), torch.ones(weekday.shape[:2]))
    assert torch.equal(told[0, :, names.index("promo.own")], torch.from_numpy(task.known["promo"][0, LAST + 1 :][:7]))
    dated = Encoder(EncoderConfig((), dates=True)).inputs(windows_of(batch, ())).steps
    day = np.datetime64(int(batch.day[0]), "D")
    month = float((day - day.astype("datetime64[M]")).astype(int) + 1) / 31
    assert dated[0, 0, step_columns((), dates=True).index("month")].item() == pytest.approx(month)


def test_before_its_first_step_it_answers_as_the_one_it_began_from(tmp_path: Path) -> None:
    task = promoted()
    start, _ = begun(tmp_path / "net", ("holiday", "promo", "price"))
    model, new = taken_over(start, EncoderConfig(("own", "promo"), dates=True))
    panel = Panel(task)
    batch = panel.batch(task.series, task.cutoff)
    standardise_new(model, model.inputs(model.windows(batch)), new)
    names = step_columns(("own", "promo"), dates=True)
    assert {name.partition(".")[0] for n, name in enumerate(names) if new[n]} == {
        "own", "month", "month_sin", "month_cos", "year_sin", "year_cos", "year_2_sin", "year_2_cos",
    }  # fmt: skip
    torch.testing.assert_close(answers(model, task), answers(start, task), rtol=1e-4, atol=1e-5)


def test_words_are_told_by_what_they_say(tmp_path: Path) -> None:
    torch.manual_seed(5)
    config = EncoderConfig(("promo",), codes={"promo": [0, 1]}, attributes={"kind": [7, 9], "store": [4]})
    start = Encoder(config)
    with torch.no_grad():
        for value in start.parameters():
            value.add_(0.1 * torch.randn_like(value))
    task, kinds = promoted(), {"kind": np.array([9, 3] * 6), "store": np.full(12, -1)}
    task = replace(task, attributes=kinds)
    other = EncoderConfig(("promo",), codes={"promo": [0, 1, 2]}, attributes={"new": [1, 2], "kind": [5, 9]})
    model, new = taken_over(start, other)
    assert not new.any()
    batch = Panel(task).batch(task.series, task.cutoff)
    standardise_new(model, model.inputs(model.windows(batch)), new)
    torch.testing.assert_close(answers(model, task), answers(start, task), rtol=1e-4, atol=1e-5)


def test_new_columns_learn_and_old_ones_keep_their_standard(tmp_path: Path) -> None:
    start, folder = begun(tmp_path / "net", ("holiday",))
    fitted = fit(Panel(promoted()), LAST, EncoderConfig(("promo",)), SHORT, start=folder)
    shared, width = len(step_columns(())), len(step_columns(("promo",)))
    assert torch.equal(fitted.step_mean[:shared], start.step_mean[:shared])
    assert torch.equal(fitted.series_mean, start.series_mean)
    assert fitted.from_steps.weight[:, shared:width].abs().max() > 0


def test_heads_alone_learn_in_mode_head(tmp_path: Path) -> None:
    start, folder = begun(tmp_path / "net", ("promo",))
    recipe = Recipe(steps=4, windows=32, horizons=4, mode="head")
    before, after = start.state_dict(), fit(Panel(promoted()), LAST, start.config, recipe, start=folder).state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(HEADS)


def test_adapters_are_plain_weights_once_they_are_merged(tmp_path: Path) -> None:
    start, folder = begun(tmp_path / "net", ("promo",))
    recipe = Recipe(steps=4, windows=32, horizons=4, mode="lora")
    fitted = fit(Panel(promoted()), LAST, start.config, recipe, start=folder)
    fitted.save_pretrained(tmp_path / "fitted")
    again = load(tmp_path / "fitted")
    before, after = start.state_dict(), again.state_dict()
    assert list(before) == list(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{name}.weight" for name in ("blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down",
                                                     "gate", "residual")}  # fmt: skip
    for name in changed:
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-4) <= 8
    assert torch.equal(answers(again, promoted()), answers(fitted, promoted()))


def test_what_cannot_be_begun_from_is_told_in_a_sentence(tmp_path: Path) -> None:
    panel = Panel(promoted())
    _, folder = begun(tmp_path / "net", ("holiday",))
    with pytest.raises(StartError, match="mode head needs an encoder to begin from"):
        fit(panel, LAST, EncoderConfig(), Recipe(mode="head"))
    with pytest.raises(StartError, match="mode lora reads what the encoder to begin from reads"):
        fit(panel, LAST, EncoderConfig(("promo",)), Recipe(mode="lora"), start=folder)
    with pytest.raises(StartError, match="has hidden 96, and the one to be fitted 8"):
        fit(panel, LAST, EncoderConfig(hidden=8), SHORT, start=folder)
    with pytest.raises(StartError, match=r"has no config\.json; name the folder of one net"):
        config_of(tmp_path)
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(StartError, match="is no encoder of this program"):
        config_of(folder)
    assert len(origins(panel, LAST))
