"""The command `train`: what its options reach, how it goes on after it was killed, how wrong usage ends."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
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
from streams.task_of_events import DAYS
from tests.program import finished, started, wait_for
from tests.test_finetune import write_task

ROOT = Path(__file__).parents[1]
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
    assert (told["start"], told["mode"], told["masking"]) == ("nothing, nothing", "full, full", 0.0)
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


# -- refits between cutoffs


def test_a_refit_learns_up_to_each_cutoff_and_reads_nothing_behind_it(tmp_path: Path, capsys: Capture) -> None:
    few = ["--model", "finetuned", "--mode", "head", "--steps", "2", "--json", "--out"]
    said = {}
    for name, after in (("as it was", None), ("scrambled", 1e6)):
        task = write_task(tmp_path / name, after=after, days=130)
        assert run(["backtest", str(task), "--refit", *few, str(tmp_path / f"{name}.parquet")]) == 0
        figures = json.loads(capsys.readouterr().out)
        assert (figures["model"], figures["fits"]) == ("refitted", 2)
        said[name] = pl.read_parquet(tmp_path / f"{name}.parquet").partition_by("cutoff")
    assert said["as it was"][0].equals(said["scrambled"][0])  # of the first, all of the change lies behind
    assert run(["backtest", str(tmp_path / "as it was"), *few, str(tmp_path / "once.parquet")]) == 0
    once = pl.read_parquet(tmp_path / "once.parquet").partition_by("cutoff")
    assert once[0].equals(said["as it was"][0])
    assert not once[1].equals(said["as it was"][1])


def test_what_an_option_is_worth_is_measured_before_the_first_cutoff(tmp_path: Path) -> None:
    found = []
    for name, after in (("a", None), ("b", 1e6)):
        task = write_task(tmp_path / name, after=after, days=130)
        words = ["-m", "load_tests.fit_options", str(task), "--steps", "2", "--only", "plain,masking", "--json"]
        done = subprocess.run([sys.executable, *words], capture_output=True, check=True, cwd=ROOT, timeout=300)
        found.append([(one["line"], one["wql"]) for one in json.loads(done.stdout)])
    assert [line for line, _ in found[0]] == ["plain", "masking"]
    assert found[0] == found[1]


def test_ways_of_adapting_the_encoder_are_judged_net_by_net_and_in_the_mean(tmp_path: Path) -> None:
    task = write_task(tmp_path / "a", days=130)
    few = ["--steps", "2", "--seeds", "2", "--modes", "pretrained,lora"]
    words = ["-m", "load_tests.modes", str(task), *few, "--json"]
    done = subprocess.run([sys.executable, *words], capture_output=True, check=True, cwd=ROOT, timeout=300)
    found = {one["mode"]: one for one in json.loads(done.stdout)}
    assert list(found) == ["pretrained", "lora"]
    assert [len(one["nets"]) for one in found.values()] == [0, 2]
    assert all(0 < one["wql"] < 5 and 0 <= one["coverage"] <= 1 for one in found.values())


# -- a shop's own events


def test_nets_are_fitted_to_events_and_a_replay_is_answered_by_them(tmp_path: Path, capsys: Capture) -> None:
    shop, begin, nets = tmp_path / "my shop.jsonl", tmp_path / "begin.jsonl", tmp_path / "nets"
    zone = ["--time-zone", "Europe/London", "--base-currency", "GBP"]
    assert run(["simulate", "--days", "110", "--items", "6", "--out", str(shop)]) == 0
    capsys.readouterr()
    assert run(["train", str(shop), *zone, "--steps", "2", "--rate", "EUR=0.9", "--out", str(nets), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    records = shop.read_bytes().splitlines(keepends=True)
    assert (figures["events"]["records"], figures["events"]["days"]) == (len(records), 110)
    card = read_model(nets).card
    assert (card.name, card.horizon, set(card.covariates)) == ("my-shop", 28, {"promo", "price", *DAYS})
    assert hashlib.sha256(shop.read_bytes()).hexdigest() in card.data
    assert card.data.startswith("events up to the end of 2024-04-")
    assert (card.recipe["time_zone"], card.recipe["rate"]) == ("Europe/London", Recipe().rate)
    assert "--rate EUR=0.9" in str(card.recipe["command"])
    begin.write_bytes(b"".join(records[: len(records) // 8]))
    words = [str(begin), *zone, "--model", str(nets), "--forecasts", "last", "--out", str(tmp_path / "out"), "--json"]
    assert run(["replay", *words]) == 0
    told = json.loads(capsys.readouterr().out)["forecasts"]
    assert told["model"] == read_model(nets).name
    assert told["written_by_basis"]["model"] > 0


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
    ("{dir}/none", "does not exist; check the path"),
    ("{dir}/short {dir}/none", "is a directory"),
    ("{task} --time-zone Europe/London", "a task or --pretrain has none"),
    ("{task} --sort", "a task or --pretrain has none"),
    ("{dir}/short/task.json", "no day of these events is over"),
    ("", "name a task or events, or say --pretrain"),
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


@pytest.mark.parametrize("option", ["--steps 5", "--mode head", "--seeds 2", "--start none", "--seed 3", "--refit"])
def test_a_backtest_that_fits_nothing_refuses_options_of_fits(option: str, short: Path, capsys: Capture) -> None:
    assert run(["backtest", str(short), *option.split(), "--out", str(short / "f.parquet")]) == 2
    assert "which --model finetuned alone does" in capsys.readouterr().err
    assert not (short / "f.parquet").exists()
