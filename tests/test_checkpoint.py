"""Checkpoints: a fit that was killed ends with the bytes of one that was not; what is no checkpoint is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from models.checkpoint import NAME, Checkpoint, CheckpointError, read_checkpoint, write_checkpoint
from models.encoder import Encoder, EncoderConfig
from models.panel import Panel
from models.recipe import Keeping, Mode, Recipe
from models.train import fit
from tests.test_train import LAST, promoted

ROOT = Path(__file__).parents[1]
RECIPE = Recipe(steps=30, windows=16, horizons=3)
CONFIG = EncoderConfig(("promo",))


def same(one: Encoder, two: Encoder) -> bool:
    left, right = one.state_dict(), two.state_dict()
    return list(left) == list(right) and all(torch.equal(left[name], right[name]) for name in left)


def killed_at(folder: Path, step: int) -> None:
    """Fit in a process of its own, and kill it with SIGKILL once it has taken so many steps."""
    program = f"""
        import os, time
        from tests.test_checkpoint import CONFIG, RECIPE
        from tests.test_train import LAST, promoted
        from models.panel import Panel
        from models.recipe import Keeping
        from models.train import fit
        from pathlib import Path

        def tell(step):
            if step == {step}:
                os.write(1, b"now\\n")  # the trainer keeps `print` off stdout
                time.sleep(600)

        fit(Panel(promoted()), LAST, CONFIG, RECIPE, tell, keeping=Keeping(Path({str(folder)!r}), every=10))
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"  # it sleeps in the fit's own thread, between two steps
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def test_a_fit_that_was_killed_ends_with_the_same_bytes(tmp_path: Path) -> None:
    killed_at(tmp_path / "kept", 24)
    steps = list[int]()
    keeping = Keeping(tmp_path / "kept", every=10)
    resumed = fit(Panel(promoted()), LAST, CONFIG, RECIPE, steps.append, keeping=keeping)
    assert steps == list(range(21, 31))
    assert same(resumed, fit(Panel(promoted()), LAST, CONFIG, RECIPE))
    assert same(resumed, fit(Panel(promoted()), LAST, CONFIG, RECIPE, steps.append, keeping=keeping))
    assert len(steps) == 10  # the fit was over: nothing was done again


class _StopError(Exception):
    pass


@pytest.mark.parametrize(("mode", "early"), [("head", False), ("lora", False), ("full", False), ("full", True)])
def test_adapters_early_stopping_and_a_start_go_on_as_well(tmp_path: Path, mode: Mode, early: bool) -> None:
    recipe = Recipe(steps=130, windows=8, horizons=2, mode=mode, early_stopping=early, masking=0.2)
    torch.manual_seed(1)
    Encoder(CONFIG).save_pretrained(tmp_path / "net")

    def stop(step: int) -> None:
        if step == 119:
            raise _StopError

    panel, keeping = Panel(promoted()), Keeping(tmp_path / "kept", every=10)
    with pytest.raises(_StopError):
        fit(panel, LAST, CONFIG, recipe, stop, start=tmp_path / "net", keeping=keeping)
    resumed = fit(panel, LAST, CONFIG, recipe, start=tmp_path / "net", keeping=keeping)
    assert same(resumed, fit(panel, LAST, CONFIG, recipe, start=tmp_path / "net"))


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    keeping, task = Keeping(tmp_path, every=2), promoted()
    fit(Panel(task), LAST, CONFIG, Recipe(steps=4, windows=8), keeping=keeping)
    with pytest.raises(CheckpointError, match="is of another run"):
        fit(Panel(task), LAST, CONFIG, Recipe(steps=5, windows=8), keeping=keeping)
    task.demand[:, LAST + 1 :] = 1e6  # what is not seen makes no other run
    fit(Panel(task), LAST, CONFIG, Recipe(steps=4, windows=8), keeping=keeping)
    task.demand[0, LAST] += 1
    with pytest.raises(CheckpointError, match="is of another run"):
        fit(Panel(task), LAST, CONFIG, Recipe(steps=4, windows=8), keeping=keeping)


def test_what_is_read_is_what_was_written_and_damage_is_told(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path, "x") is None
    tensors = {"weight/a": torch.arange(6.0).reshape(2, 3).T, "rng/cpu": torch.get_rng_state()}
    write_checkpoint(tmp_path, "x", Checkpoint(7, tensors, {"best_loss": "0.1"}))
    found = read_checkpoint(tmp_path, "x")
    assert found is not None
    assert (found.step, found.done, dict(found.notes)) == (7, False, {"best_loss": "0.1"})
    assert torch.equal(found.part("weight")["a"], tensors["weight/a"])
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    data = (tmp_path / NAME).read_bytes()
    for damaged in (data[:-9], data[:40], b"", bytes(np.zeros(64, np.uint8))):
        (tmp_path / NAME).write_bytes(damaged)
        with pytest.raises(CheckpointError, match="delete it to begin anew"):
            read_checkpoint(tmp_path, "x")
