"""Fine-tuning of a task: what is chosen, what is written, what is not read; the commands that do it."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
import torch

from models.crew import NEAR, Choice, crew_of
from models.encoder import Encoder, EncoderConfig, load
from models.finetune import finetune, weighted_quantile_loss
from models.named import SHIPPED
from models.panel import Panel
from models.recipe import Mode, Recipe
from models.serving import EncoderForecaster
from models.start import ADAPTED
from models.task import TaskError, read_task
from shelftide.cli import run

DAYS, SERIES = 200, 6
SHORT = Recipe(steps=3, windows=16, horizons=2)


def write_task(folder: Path, *, after: float | None = None, days: int = DAYS) -> Path:
    """A task of six series whose first cutoff is 30 days before the end; `after` replaces what comes behind it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(4)
    first = dt.datetime(2024, 1, 1)
    demand = rng.poisson(5, (SERIES, days)).astype(float)
    if after is not None:
        demand[:, -30:] = after
    pl.DataFrame({
        "unique_id": np.repeat([f"s{n}" for n in range(SERIES)], days),
        "ds": [first + dt.timedelta(days=n) for _ in range(SERIES) for n in range(days)],
        "y": demand.ravel(),
        "promo": (rng.random(SERIES * days) < 0.2).astype(float),
    }).write_parquet(folder / "panel.parquet")  # fmt: skip
    pl.DataFrame({"unique_id": [f"s{n}" for n in range(SERIES)]}).write_parquet(folder / "static.parquet")
    cutoffs = [f"{first + dt.timedelta(days=days - left):%Y-%m-%d}" for left in (31, 24)]
    task: dict[str, Any] = {
        "freq": "D", "horizon": 7, "season": 7, "cutoffs": cutoffs, "levels": [0.1, 0.5, 0.9],
        "known_future": ["promo"],
    }  # fmt: skip
    (folder / "task.json").write_bytes(msgspec.json.encode(task))
    return folder


def weights(folders: list[Path]) -> list[bytes]:
    return [(folder / "model.safetensors").read_bytes() for folder in folders]


def test_it_reads_nothing_behind_the_first_cutoff_and_says_what_it_chose(tmp_path: Path) -> None:
    shares = list[float]()
    plain = finetune(write_task(tmp_path / "a"), tmp_path / "x", recipe=SHORT, processes=1, progress=shares.append)
    other = finetune(write_task(tmp_path / "b", after=1e6), tmp_path / "y", recipe=SHORT, processes=1)
    assert weights(plain.folders) == weights(other.folders)
    assert plain.choices == other.choices
    assert [(one.mode, one.dates) for one in plain.choices] == [("full", False), ("full", True)]
    best = min(plain.choices, key=lambda one: one.wql)
    config = load(plain.folders[0]).config
    assert (config.dates, config.covariates) == (best.dates, ["promo"])
    assert shares[-1] == 1.0
    assert shares == sorted(shares)


def test_nets_of_a_crew_are_of_all_kinds(tmp_path: Path) -> None:
    task = write_task(tmp_path / "a")
    choices = [Choice("full", False, 0.5), Choice("full", True, 0.4), Choice("lora", True, 0.41)]
    crew = finetune(task, tmp_path / "x", seeds=3, recipe=SHORT, choices=choices)
    assert [load(folder).config.anchored for folder in crew.folders] == [True, False, True]
    assert [load(folder).config.dates for folder in crew.folders] == [True] * 3
    begun, shipped = load(crew.folders[2]), load(SHIPPED)
    assert torch.equal(begun.series_mean, shipped.series_mean)
    assert not torch.equal(load(crew.folders[0]).series_mean, shipped.series_mean)
    assert [net.start for net in crew.nets] == [None, None, SHIPPED]


def test_adapters_alone_learn_in_the_third_net_where_they_were_near_the_best(tmp_path: Path) -> None:
    task = write_task(tmp_path / "a")
    choices = [Choice("full", False, 0.5), Choice("full", True, 0.6), Choice("lora", True, 0.5 * NEAR)]
    crew = finetune(task, tmp_path / "x", seeds=4, recipe=SHORT, choices=choices)
    assert [net.mode for net in crew.nets] == ["full", "full", "lora", "full"]
    assert crew.choices == choices
    adapted, shipped = load(crew.folders[2]), load(SHIPPED)
    assert adapted.config.covariates == shipped.config.covariates != load(crew.folders[0]).config.covariates
    before, after = shipped.state_dict(), adapted.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.split(".")[-2] in ADAPTED for name in changed)


def test_adapters_are_tried_only_where_there_are_nets_of_all_kinds(tmp_path: Path) -> None:
    panel = Panel(read_task(write_task(tmp_path / "a")))
    cases: list[tuple[int, Mode, Path | None, bool]] = [
        (2, "full", None, True), (3, "full", None, True), (3, "full", None, False), (3, "full", SHIPPED, True),
        (3, "lora", SHIPPED, False),
    ]  # fmt: skip
    tried = [
        [net.mode for net in crew_of(panel, 150, replace(SHORT, mode=mode), start, in_turn=in_turn).candidates(seeds)]
        for seeds, mode, start, in_turn in cases
    ]
    assert tried == [["full"] * 2, ["full", "full", "lora"], ["full"] * 2, ["full"] * 2, []]


def test_too_little_to_learn_from_is_told_in_a_sentence(tmp_path: Path) -> None:
    task = write_task(tmp_path / "a", days=90)
    with pytest.raises(TaskError, match="windows before the cutoff; fine-tuning needs 500"):
        finetune(task, tmp_path / "x", recipe=SHORT)


def test_the_loss_is_that_of_its_definition(tmp_path: Path) -> None:
    task = read_task(write_task(tmp_path / "a"))
    panel, forecaster = Panel(task), EncoderForecaster([load(_untrained(tmp_path))], "x")
    at = np.array([150, 157])
    found = weighted_quantile_loss(panel, forecaster, at, last=160)
    loss = demand = 0.0
    for cutoff in at:
        rows = np.arange(SERIES)
        quantiles = forecaster.forecast(panel.batch(rows, np.full(SERIES, cutoff))).quantiles
        for row in rows:
            for step in range(min(7, 160 - cutoff)):
                actual = float(task.demand[row, cutoff + 1 + step])
                demand += actual
                for level, index in zip(np.arange(1, 10) / 10, range(2, 11), strict=True):
                    gap = actual - float(quantiles[row, step, index])
                    loss += 2 * max(level * gap, (level - 1) * gap) / 9
    assert found == pytest.approx(loss / demand, rel=1e-5)


def _untrained(folder: Path) -> Path:
    Encoder(EncoderConfig(("promo",))).save_pretrained(folder / "net")
    return folder / "net"


def test_the_commands_fit_write_and_forecast(tmp_path: Path) -> None:
    task, out, nets = write_task(tmp_path / "a"), tmp_path / "f.parquet", tmp_path / "nets"
    assert run(["backtest", str(task), "--model", "finetuned", "--steps", "2", "--out", str(out)]) == 0
    assert len(pl.read_parquet(out)) == SERIES * 2 * 7
    assert run(["train", str(task), "--steps", "2", "--seeds", "2", "--out", str(nets)]) == 0
    assert sorted(path.name for path in nets.iterdir()) == ["0", "1", "card.json"]
    assert run(["train", str(task), "--out", str(nets)]) == 2
    assert run(["train", "--out", str(tmp_path / "none")]) == 2
    assert run(["train", str(task), "--pretrain", "--out", str(tmp_path / "none")]) == 2
    assert run(["backtest", str(task), "--model", "pretrained", "--out", str(out)]) == 0
