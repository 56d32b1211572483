"""A model that raises, hangs, answers wrongly and runs out of memory, as a test says; and a clock moved by hand."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from models.baseline import SeasonalWindow
from models.forecast import F32, Basis, Forecast, ForecastBatch, take

Deed = Callable[[Forecast], Any]
"""The right answer to what the model says or does instead."""

PATIENCE_S = 20.0
"""How long a test waits for a thread before it gives up; nothing takes a noticeable part of it."""


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds


class OutOfMemoryError(RuntimeError):
    """Named like the one of a well-known library."""


class WordlessError(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise ValueError("no words")


class UnrulyModel:
    """Answers like the seasonal window, but says `model`; each call does the next thing of a script, then all is well.

    Parameters
    ----------
    script
        Words of `DEEDS`, `hang` or `ok`, one per call.
    fits
        Rows that fit its memory.
    """

    channels = ()

    def __init__(self, script: Iterable[str] = (), fits: int = 1_000_000) -> None:
        self.name = "model-1"
        self.script = list(script)
        self.fits = fits
        self.calls: list[int] = []  # rows of each
        self.hanging: queue.Queue[threading.Event] = queue.Queue()  # set one, and that call goes on

    def forecast(self, batch: ForecastBatch) -> Forecast:
        """Do the next thing of the script."""
        self.calls.append(len(batch))
        deed = self.script.pop(0) if self.script else "ok"
        if len(batch) > self.fits:
            raise OutOfMemoryError("tried to allocate 2 GiB")
        if deed == "hang":
            release = threading.Event()
            self.hanging.put(release)
            assert release.wait(PATIENCE_S), "a test left its model hanging"
        said: Forecast = DEEDS[deed](right_answer(batch)) if deed in DEEDS else right_answer(batch)
        return said

    def hung(self) -> threading.Event:
        """Wait until a call hangs; the event sets it free."""
        return self.hanging.get(timeout=PATIENCE_S)


def right_answer(batch: ForecastBatch) -> Forecast:
    """What the model says when all is well."""
    return replace(SeasonalWindow().forecast(batch), basis=np.full(len(batch), Basis.MODEL, np.uint8))


def _raising(error: BaseException) -> Deed:
    def deed(_: Forecast) -> Forecast:
        raise error

    return deed


def _changed(name: str, change: Callable[[F32], object]) -> Deed:
    return lambda right: replace(right, **{name: change(getattr(right, name))})  # type: ignore[arg-type]  # on purpose


def _nan(values: F32) -> F32:
    values[..., -1] = np.nan
    return values


DEEDS: dict[str, Deed] = {
    "raise": _raising(ValueError("the weights\nare gone")),
    "exit": _raising(SystemExit(3)),
    "wordless": _raising(WordlessError()),
    "memory": _raising(MemoryError()),
    "fewer rows": lambda right: Forecast(right.quantiles[1:], right.mean[1:], right.cumulative[1:],
                                         right.cumulative_mean[1:], right.basis[1:]),
    "nothing": lambda right: None,
    "a list": _changed("mean", lambda values: values.tolist()),
    "doubles": _changed("mean", lambda values: values.astype(np.float64)),
    "nan": _changed("quantiles", _nan),
    "nan mean": _changed("mean", _nan),
    "infinite": _changed("cumulative", lambda values: values + np.inf),
    "negative": _changed("cumulative_mean", lambda values: values - 1e6),
    "crossing": _changed("quantiles", lambda values: values[..., ::-1] + np.arange(13, 0, -1, dtype=np.float32)),
    "falling": _changed("cumulative", lambda values: values[:, ::-1] + 28 - np.arange(28, dtype=np.float32)[:, None]),
    "unseen": _changed("quantiles", lambda values: values * 0),
    "no basis": _changed("basis", lambda values: values + np.uint8(9)),
}  # fmt: skip


def rows_of(batch: ForecastBatch, start: int, stop: int) -> ForecastBatch:
    """Consecutive rows of a batch."""
    return take(batch, slice(start, stop))
