"""Whether a shard's world has changed: detectors of change on the loss of its forecasts and on the level of demand.

In: forecasts of the next bucket as the model gave them, met by their actuals. Out: the `Change`s that a bucket shows.
Must not know: the shop, the model, clocks. Rule: what is found depends on the outcomes and their order alone, and a
restart in between changes nothing.

Two signals are watched, a number per bucket each. *loss*: the pinball loss over the loss that the forecasts expected
themselves, which stays near one on weekends and holidays as long as they hold. *level*: demand over the medians. Both
as logarithms, so that twice as much and half as much weigh alike. Series of a shop have their good and bad days
together, so more of them say little more. Each number is held against those of the same weekday and of all days before
it, and divided by how far these usually lie apart: detectors then see mean zero and deviation one, whatever the shop.

The detectors are river's: ADWIN (Bifet and Gavalda 2007, "Learning from time-changing data with adaptive windowing"),
Page-Hinkley (Page 1954, "Continuous inspection schemes") and KSWIN (Raab et al. 2020, "Reactive soft prototype
computing for concept drift streams"). Each sees what the others miss: ADWIN small shifts after a while, Page-Hinkley
large ones at once, KSWIN another spread about the same mean. river keeps their state where only pickle reaches it; so
the numbers since the last change are kept instead, and the detectors are made of these again.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from online.scores import SCORE_LEVELS, Losses, pinball

F64 = npt.NDArray[np.float64]

SIGNALS = ("loss", "level")

KEEP, REMAIN = 112, 56
"""Numbers kept of a signal, and how many of them remain when they are too many: KSWIN looks at 42."""

WARM_SEASONS = 3
"""Seasons before detectors are shown anything: until then nobody knows what is usual."""

HALF_LIFE_SEASONS = 6.0
"""After so many seasons a number counts half of what is usual; a change is seen long before it has become so."""

OWN_PHASE = 3.0
"""Numbers of one phase of the season at which it speaks for itself by half; else all phases do."""

MOST = 3.0
"""Signals are held to this: a shop that is closed without a word must not drown all that follows."""

MOST_USUAL = 4.0
"""And their numbers to this many deviations, for the same reason."""

_MEDIAN = SCORE_LEVELS.index(0.5)
_TINY = 1e-3


@dataclass(frozen=True, slots=True)
class Change:
    """A detector saw that a signal is no longer what it was.

    Attributes
    ----------
    bucket
        The final bucket that showed it.
    signal, detector
        Which.
    """

    bucket: int
    signal: str
    detector: str


@dataclass(slots=True)
class _Usual:
    """What numbers of a signal usually are: faded means of all and of each phase, and the spread about them."""

    season: int
    count: float = 0.0
    mean: float = 0.0
    spread: float = 0.0  # faded mean of squares
    seen: int = 0
    phases: list[list[float]] = field(default_factory=list)  # count and mean of each

    def show(self, phase: int, value: float) -> float | None:
        """Deviations of a number from what is usual, None as long as that is unknown; then it is usual, a little."""
        self.phases = self.phases or [[0.0, 0.0] for _ in range(self.season)]
        fade = 0.5 ** (1 / (HALF_LIFE_SEASONS * self.season))
        count, mean = self.phases[phase]
        own = count / (count + OWN_PHASE)
        expected = own * mean + (1 - own) * self.mean
        warm = self.seen >= WARM_SEASONS * self.season
        gap = value - expected
        out = max(-MOST_USUAL, min(MOST_USUAL, gap / max(math.sqrt(self.spread), 1e-6))) if warm else None
        self.seen += 1
        self.count = self.count * fade + 1
        self.mean += (value - self.mean) / self.count
        if self.seen > self.season:
            bounded = gap if out is None else math.copysign(min(abs(gap), MOST_USUAL * math.sqrt(self.spread)), gap)
            self.spread += (bounded * bounded - self.spread) / min(self.count, self.seen - self.season)
        count = count * fade**self.season + 1
        self.phases[phase] = [count, mean + (value - mean) / count]
        return out

    def change(self) -> None:
        """Let what comes next count more: what was usual is so no longer."""
        self.count = min(self.count, float(self.season))
        self.phases = [[min(count, 1.0), mean] for count, mean in self.phases]


class Drift:
    """Watches one shard under one model.

    Parameters
    ----------
    season
        Buckets per season: 7 for days, 24 for hours.

    Examples
    --------
    >>> from online.scores import losses_of
    >>> random, drift, found = np.random.default_rng(1), Drift(7), []
    >>> quantiles = np.tile(np.float32([2, 3, 4, 5, 7]), (80, 1))
    >>> for bucket in range(90):
    ...     sold = random.poisson(4 if bucket < 60 else 6, 80).astype(np.float32)
    ...     found += drift.add(bucket, losses_of(quantiles, sold))
    >>> found[0].bucket in range(60, 64), found[0].signal
    (True, 'loss')
    """

    def __init__(self, season: int) -> None:
        self.counts = dict.fromkeys(SIGNALS, 0)
        self.last: Change | None = None
        self._season = season
        self._usual = {signal: _Usual(season) for signal in SIGNALS}
        self._shown: dict[str, list[float]] = {signal: [] for signal in SIGNALS}
        self._detectors: dict[str, dict[str, Any]] = {}  # made when the next number comes

    def add(self, bucket: int, losses: Losses) -> list[Change]:
        """Take in the outcomes of a bucket, forecast one bucket ahead.

        Parameters
        ----------
        bucket
            The final bucket.
        losses
            Of what the model gave.
        """
        found = []
        for signal, value in zip(SIGNALS, signals(losses), strict=True):
            usual = self._usual[signal]
            deviations = usual.show(bucket % self._season, value)
            if deviations is not None and (name := self._show(signal, deviations)) is not None:
                usual.change()
                self.last = Change(bucket, signal, name)
                self.counts[signal] += 1
                found.append(self.last)
        return found

    def _show(self, signal: str, value: float) -> str | None:
        """Show a number to the detectors of a signal; the name of one that saw a change, after which all begin anew."""
        shown = self._shown[signal]
        if len(shown) >= KEEP:
            del shown[: len(shown) - REMAIN]
            self._detectors.pop(signal, None)
        if signal not in self._detectors:
            self._detectors[signal] = _detectors()
            for before in shown:
                _update(self._detectors[signal], before)
        shown.append(value)
        if (name := _update(self._detectors[signal], value)) is not None:
            shown.clear()
            del self._detectors[signal]
        return name

    def snapshot(self) -> dict[str, Any]:
        """What was seen, as plain values."""
        last = None if self.last is None else [self.last.bucket, self.last.signal, self.last.detector]
        usual = {signal: [one.count, one.mean, one.spread, one.seen, one.phases] for signal, one in self._usual.items()}
        return {"shown": self._shown, "usual": usual, "counts": self.counts, "last": last}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `snapshot` gave."""
        self.counts = {signal: int(state["counts"][signal]) for signal in SIGNALS}
        self.last = None if state["last"] is None else Change(*state["last"])
        self._shown = {signal: list(map(float, state["shown"][signal])) for signal in SIGNALS}
        self._usual = {signal: _Usual(self._season, *state["usual"][signal]) for signal in SIGNALS}
        self._detectors.clear()


def load() -> None:
    """Import river, which takes a second or two: for who has a thread to spare; else it is done at the first number."""
    importlib.import_module("river.drift")
    importlib.import_module("river.linear_model")


def _detectors() -> dict[str, Any]:
    from river.drift import ADWIN, KSWIN, PageHinkley

    return {
        "adwin": ADWIN(delta=0.001, clock=1, grace_period=14, min_window_length=5),  # type: ignore[no-untyped-call]
        "page-hinkley": PageHinkley(min_instances=1, delta=0.75, threshold=8.0, alpha=1.0),
        "kswin": KSWIN(alpha=1e-4, window_size=42, stat_size=14, seed=1),
    }


def _update(detectors: dict[str, Any], value: float) -> str | None:
    """Show a number to all detectors; the name of one that saw a change."""
    seen = None
    for name, detector in detectors.items():
        detector.update(value)
        if detector.drift_detected and seen is None:
            seen = name
    return seen


def signals(losses: Losses) -> Iterator[float]:
    """Numbers of a bucket for each of `SIGNALS`."""
    quantiles, actual = losses.quantiles, losses.actual
    said, tiny = quantiles.astype(np.float64), _TINY * len(actual)
    expected = np.mean([pinball(quantiles, quantiles[:, level]) for level in range(said.shape[1])], axis=0)
    loss = float(losses.loss.mean(axis=1).sum())
    yield _log_ratio(loss + tiny, float(expected.mean(axis=1).sum()) + tiny)
    yield _log_ratio(float(actual.sum(dtype=np.float64)) + tiny, float(said[:, _MEDIAN].sum()) + tiny)


def _log_ratio(value: float, other: float) -> float:
    return max(-MOST, min(MOST, math.log(value / other)))
