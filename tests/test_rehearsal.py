"""A task in the order of time: a cutoff reads nothing later, and the command says what learning was worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest

from models.backtest import backtest
from models.baseline import SeasonalWindow
from models.task import Task, read_task
from online.learner import Learner
from online.rehearsal import Rehearsal, groups_of
from shelftide.cli import run
from tests.test_finetune import write_task

F32 = np.ndarray[Any, np.dtype[np.float32]]


def published(task: Task, warm: int = 40) -> list[F32]:
    learner = Learner("baseline-1", len(task.ids), 7)
    return [answer.quantiles for _, answer in Rehearsal(task, SeasonalWindow(), warm).answers(learner)]


def test_nothing_behind_a_cutoff_is_read(tmp_path: Path) -> None:
    plain = read_task(write_task(tmp_path / "a"))
    demand = plain.demand.copy()
    first = int(plain.cutoff.min())
    demand[:, first + 1 :] = 1e6
    before, after = published(plain), published(replace(plain, demand=demand))
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.array_equal(before[1], after[1])


def test_windows_come_back_in_the_order_of_the_task(tmp_path: Path) -> None:
    task = read_task(write_task(tmp_path / "a"))
    parts = [part for part, _ in Rehearsal(task, SeasonalWindow(), 0).answers(Learner("baseline-1", 6, 7))]
    assert [(part.start, part.stop) for part in parts] == [(0, 6), (6, 12)]


def test_before_anything_is_learned_answers_are_those_of_the_model(tmp_path: Path) -> None:
    folder = write_task(tmp_path / "a")
    said = backtest(folder, SeasonalWindow()).filter(pl.col("cutoff") == pl.col("cutoff").min())
    found = published(read_task(folder), warm=0)[0]
    np.testing.assert_allclose(found[:, :, 6].ravel(), said["q0.5"].to_numpy(), rtol=1e-6)


def test_kinds_of_items_are_groups_and_without_them_all_are_one(tmp_path: Path) -> None:
    task = read_task(write_task(tmp_path / "a"))
    assert groups_of(task).tolist() == [-1] * 6
    told = replace(task, attributes={"category": np.array([9, 9, 4, -1, 4, 9])})
    assert groups_of(told).tolist() == [2, 2, 1, -1, 1, 2]


def test_the_command_learns_and_says_what_it_was_worth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, out = write_task(tmp_path / "a"), tmp_path / "f.parquet"
    assert run(["backtest", str(task), "--online", "--json", "--out", str(out)]) == 0
    told = orjson.loads(capsys.readouterr().out)
    assert set(told["learning"]["rivals"]) == {"published", "model", "baseline"}
    assert told["learning"]["rivals"]["published"]["overall"]["outcomes"] > 0
    assert len(pl.read_parquet(out)) == told["rows"] == 6 * 2 * 7
    assert run(["backtest", str(task), "--online", "--out", str(out)]) == 0
    assert "day by day, published" in capsys.readouterr().out
    for wrong in (["--report", str(tmp_path / "r.html")], ["--model", "finetuned", "--refit"]):
        assert run(["backtest", str(task), "--online", *wrong, "--out", str(out)]) == 2
