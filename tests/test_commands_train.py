"""The command `train`: what its options reach, how it goes on after it was killed, how wrong usage ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]  # has no types
    EventAccumulator,
)

from models.checkpoint import NAME
from models.encoder import load
from models.model_folder import read_model
from models.named import SHIPPED
from models.recipe import PRETRAINING, Recipe
from models.start import HEADS
from shelftide.cli import run
from shelftide.fitting_options import fitting_of
from tests.program import finished, started, wait_for
from tests.test_finetune import write_task

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """A task too short for a validation: each net is one fit."""
    return write_task(tmp_path / "short", days=130)


def files(folder: Path) -> dict[str, Any]:
    """All bytes of a model, but for when its card was written."""
    found: dict[str, Any] = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}
    card = json.loads(found.pop("card.json"))
    del card["created_ms"]
    return {**found, "card": card}


# -- what options mean


def test_without_options_a_fit_is_that_of_the_recipe() -> None:
    nothing = dict.fromkeys(["steps", "seed", "mode", "scale_power", "seeds", "start", "checkpoints", "logs"])
    fitting = fitting_of(nothing)
    assert (fitting.recipe, fitting.seeds, fitting.start, fitting.in_turn) == (Recipe(), 1, None, True)
    assert fitting_of(nothing, PRETRAINING).recipe == PRETRAINING


def test_every_option_reaches_the_recipe() -> None:
    given = {"steps": 7, "seed": 0, "mode": "lora", "early_stopping": True, "scaling": 0.1, "masking": 0.2,
             "promo_dropout": 0.3, "scale_power": 0.0, "sold_power": 0.4, "sample_power": 0.6,
             "sample_sold_power": -0.5}  # fmt: skip
    fitting = fitting_of({**given, "seeds": 2, "logs": Path("l"), "checkpoints": Path("c")})
    assert {name: getattr(fitting.recipe, name) for name in given} == given
    assert (fitting.keeping.checkpoint, fitting.keeping.log_dir, fitting.seeds) == (Path("c"), Path("l"), 2)


@pytest.mark.parametrize(("mode", "start", "found", "in_turn"), [
    ("full", None, None, True), ("full", "none", None, False), ("full", "shipped", SHIPPED, False),
    ("head", None, SHIPPED, False), ("lora", "my/net", Path("my/net"), False),
])  # fmt: skip
def test_a_start_is_the_shipped_encoder_where_a_part_alone_learns(
    mode: str, start: str | None, found: Path | None, in_turn: bool
) -> None:
    fitting = fitting_of({"mode": mode, "start": start})
    assert (fitting.start, fitting.in_turn) == (found, in_turn)


def test_a_part_of_a_net_that_was_fitted_learns_and_cards_say_what_each_began_from(short: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(["train", str(short), "--steps", "2", "--seeds", "2", "--start", "none", "--out", str(one)]) == 0
    assert [load(one / name).config.anchored for name in "01"] == [True, True]
    options = ["--mode", "head", "--start", str(one / "1"), "--steps", "2", "--masking", "0.5", "--seed", "4"]
    assert run(["train", str(short), *options, "--out", str(two)]) == 0
    before, after = load(one / "1").state_dict(), load(two / "0").state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(HEADS)
    told, card = read_model(one).card.recipe, read_model(two).card
    assert (told["start"], told["mode"], told["masking"]) == ("nothing, nothing", "full", 0.0)
    assert str(card.recipe["start"]).startswith("sha256:")
    assert (card.recipe["mode"], card.recipe["masking"], card.seeds) == ("head", 0.5, (4,))


# -- killed, and given again


def test_a_command_that_was_killed_goes_on_and_ends_with_the_same_bytes(short: Path, tmp_path: Path) -> None:
    kept, logs = tmp_path / "kept", tmp_path / "logs"
    words = ["train", str(short), "--steps", "120", "--out"]
    keep = ["--checkpoints", str(kept), "--logs", str(logs)]
    with started(*words, str(tmp_path / "nets"), *keep) as program:
        wait_for((kept / "0" / NAME).exists, "a checkpoint", timeout_s=300)
        program.send_signal(signal.SIGKILL)
        assert program.wait() == -signal.SIGKILL
    assert not (tmp_path / "nets").exists()
    assert finished(*words, str(tmp_path / "nets"), *keep, timeout_s=300).returncode == 0
    assert finished(*words, str(tmp_path / "undisturbed"), timeout_s=300).returncode == 0
    assert files(tmp_path / "nets") == files(tmp_path / "undisturbed")
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "logs", "nets", "short", "undisturbed"}
    runs = sorted((logs / "0").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert len(runs) == 2
    again = EventAccumulator(str(runs[1]))
    again.Reload()
    steps = [one.step for one in again.Scalars("train/loss")]
    assert steps[0] > 50  # it did not begin anew
    assert steps[-1] == 120


def test_checkpoints_of_another_command_are_refused(short: Path, tmp_path: Path, capsys: Capture) -> None:
    keep = ["--checkpoints", str(tmp_path / "kept")]
    assert run(["train", str(short), "--steps", "2", "--out", str(tmp_path / "one"), *keep]) == 0
    assert run(["train", str(short), "--steps", "3", "--out", str(tmp_path / "two"), *keep]) == 2
    assert "is of another run" in capsys.readouterr().err
    assert not (tmp_path / "two").exists()


# -- what a user can get wrong


WRONG_USAGES = [
    ("{task} --mode head --start none", "--mode head needs a net to begin from"),
    ("{task} --mode sideways", "sideways"),
    ("{task} --start {dir}", "has no config.json; name the folder of one net"),
    ("{task} --start {dir}/none --mode lora", "has no config.json"),
    ("{task} --masking 1.5", "--masking"),
    ("{task} --scaling -1", "--scaling"),
    ("{task} --steps 0", "--steps"),
    ("{task} --registry {dir}", "say both"),
    ("--pretrain --mode head", "--pretrain fits one net"),
    ("--pretrain --start shipped", "--pretrain fits one net"),
    ("--pretrain --seeds 2", "--pretrain fits one net"),
    ("{dir}/none", "task.json: cannot be read"),
    ("", "name a task or say --pretrain"),
]


@pytest.mark.parametrize(("usage", "sentence"), WRONG_USAGES)
def test_wrong_usage_ends_in_one_sentence_and_code_2(
    usage: str, sentence: str, short: Path, tmp_path: Path, capsys: Capture
) -> None:
    before = set(tmp_path.iterdir())
    words = usage.format(task=short, dir=tmp_path).split()
    assert run(["train", *words, "--out", str(tmp_path / "nets")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("shelftide: ")
    assert sentence in said[-1]
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("option", ["--steps 5", "--mode head", "--seeds 2", "--start none", "--seed 3"])
def test_a_backtest_that_fits_nothing_refuses_options_of_fits(option: str, short: Path, capsys: Capture) -> None:
    assert run(["backtest", str(short), *option.split(), "--out", str(short / "f.parquet")]) == 2
    assert "which --model finetuned alone does" in capsys.readouterr().err
    assert not (short / "f.parquet").exists()
