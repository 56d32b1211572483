"""A task in the order of time: a cutoff reads nothing later, and the command says what learning was worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest

from models.backtest import backtest
from models.baseline import SeasonalWindow
from models.encoder import Encoder, EncoderConfig
from models.finetune import finetune
from models.named import SHIPPED
from models.serving import EncoderForecaster
from models.task import Task, read_task
from online.learner import Learner
from online.lineage import Lineage
from online.rehearsal import Rehearsal, groups_of
from online.trial import WARM_BUCKETS
from shelftide.cli import run
from tests.test_finetune import SHORT, write_task

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
    assert [week["begins"] for week in told["learning"]["weeks"]][-1] == "2024-06-24"
    assert len(pl.read_parquet(out)) == told["rows"] == 6 * 2 * 7
    assert run(["backtest", str(task), "--online", "--out", str(out)]) == 0
    assert "day by day, published" in capsys.readouterr().out
    assert run(["backtest", str(task), "--continual", "7", "--out", str(out)]) == 2
    for wrong in (["--continual", "7"], ["--report", str(tmp_path / "r.html")], ["--model", "finetuned", "--refit"]):
        assert run(["backtest", str(task), "--online", *wrong, "--out", str(out)]) == 2


class Grown(Lineage):
    """A lineage whose every generation is the shipped encoder: fits would take minutes."""

    def next(self, last: int, column: int | None = None) -> Sequence[Path]:
        self.generation, self.born = self.generation + 1, last
        return [SHIPPED]


def test_descendants_answer_once_they_are_better_and_the_champion_until_then(tmp_path: Path) -> None:
    task = read_task(write_task(tmp_path / "a"))
    first = int(task.cutoff.min()) - 60
    task = replace(task, cutoff=np.repeat(np.arange(first, first + 80, 8), 6), series=np.tile(np.arange(6), 10))
    poor = EncoderForecaster([Encoder(EncoderConfig(("promo",), anchored=False))], "poor")
    alone = [answer.mean for _, answer in Rehearsal(task, poor).answers(Learner("poor", 6, 7))]
    rehearsal = Rehearsal(task, poor, lineage=Grown(tmp_path / "a", [], tmp_path / "line"))
    found = [answer.mean for _, answer in rehearsal.answers(Learner("poor", 6, 7))]
    assert rehearsal.lineage is not None
    assert rehearsal.lineage.generation == 10
    promoted = rehearsal.promoted[0] - (first - int(task.cutoff.min()))
    assert 7 + WARM_BUCKETS < promoted < 60
    same = [np.array_equal(one, other) for one, other in zip(alone, found, strict=True)]
    assert same == [8 * n < promoted for n in range(10)]


def test_a_generation_reads_nothing_behind_its_day(tmp_path: Path) -> None:
    plain, other = write_task(tmp_path / "a"), write_task(tmp_path / "b", after=1e6)
    last = int(read_task(plain).cutoff.min())
    nets = finetune(plain, tmp_path / "nets", recipe=SHORT, last=last - 20, choices=[]).folders
    weights = []
    for task_dir in (plain, other):
        lineage = Lineage(task_dir, nets, tmp_path / task_dir.name / "line", 7, SHORT)
        assert not lineage.is_due(last - 7)
        assert lineage.is_due(last)
        weights.append([(folder / "model.safetensors").read_bytes() for folder in lineage.next(last)])
        assert not lineage.is_due(last + 6)
        assert [path.name for path in lineage.out.iterdir()] == ["generation-1"]
    assert weights[0] == weights[1]
    assert weights[0] != [(folder / "model.safetensors").read_bytes() for folder in nets]
