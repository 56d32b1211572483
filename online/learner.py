"""What one shard learns of one model: factors, levels, changes of its world, and whether they pay.

In: answers of the model as they are asked for and given; the demand of buckets once they are final. Out: a `Correction`
for what is asked next; scores of what was published beside the model's own answers and the baseline's; state records.
Must not know: the shop, threads, clocks. Rule: what was learned is kept under the model's name and acts on no other's
answers; nothing is learned before a bucket is final, and nothing twice.

It learns from the first `MOST_LEARNED` slots: enough to know a shop by, and few enough that what waits for its truth
(2 KB a series) does not weigh on a shard of a million.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.forecast import F32, Basis, Bools, Forecast
from online.calibration import TIERS, Calibration, tiers_of
from online.correction import Correction, expected_of
from online.drift import Change, Drift
from online.guard import Guard
from online.pending import MOST, Pending, packed, unpacked
from online.residuals import Residuals, of_groups
from online.scores import PICK, Losses, Scores, losses_of, picked, pinball
from online.weeks import Weeks

F16 = npt.NDArray[np.float16]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Slots = npt.NDArray[np.integer[Any]]

LAYOUT = 2
"""Of the records: whoever changes what lies in them, or in which order, raises it and reads those before it. The first
knew no changes of the world that the last forecasts may have been made before."""

READS = (1, 2)
"""Layouts that this program reads."""

MOST_LEARNED = 2048
"""Slots of a shard that are learned from."""

LEARNED: tuple[int, ...] = (1, 3, 6, 11, 20)
"""Horizons at which it learns, in buckets; each stands for those near it (`online.correction.band_of`). No whole weeks:
promotions of every other week would make all days alike that lie a fortnight apart, and unlike those between."""

SUMS: tuple[int, ...] = (7, 14)
"""Buckets that sums are held against: lead times of a week or two."""

OF_MODEL = "learner/model/"
"""How keys of records begin that hold what was learned of one model."""

RIVALS = ("published", "model", "baseline")
"""Who is scored on the same outcomes: what was published, the model's own answer, and the baseline's."""

FACTORS = ("none", "groups", "series")
"""Factors of which the guard lets one act: none, that of the group, or that and the series' own."""

READ = 1
"""What the guard of levels says where others are read; 0 where they are not."""

_SAID, _BASE, _READ = (slice(n * len(PICK), (n + 1) * len(PICK)) for n in range(3))
_LOGS = slice(3 * len(PICK), 3 * len(PICK) + 2)
_ACT, _DOES_READ, _TIER, _WIDTH = range(_LOGS.stop, _LOGS.stop + 4)
_SUM_PLAIN, _SUM_READ, _SUM_TIER = slice(0, len(PICK)), slice(len(PICK), 2 * len(PICK)), 2 * len(PICK)
_SUM_WIDTH = _SUM_TIER + 1


@dataclass(frozen=True, slots=True)
class Kept:
    """What waits of one answer: rows of the request, and their vectors per sampled horizon and sum."""

    rows: I64
    cells: F16  # (rows, horizons, _WIDTH)
    sums: F16  # (rows, sums, _SUM_WIDTH)

    def of(self, stay: Bools) -> Kept:
        """Some of the rows, (rows,)."""
        return Kept(self.rows[stay], self.cells[stay], self.sums[stay])


@dataclass(frozen=True, slots=True)
class Met:
    """What was published at one horizon and met by the newest final bucket.

    Attributes
    ----------
    outcomes
        How many.
    loss
        Twice the pinball loss, mean of the levels, summed over them.
    inside
        How many lay within the 80 % interval.
    """

    outcomes: int
    loss: float
    inside: int


@dataclass(frozen=True, slots=True)
class Truth:
    """Demand of one final bucket and of those before it.

    Attributes
    ----------
    bucket
        The final bucket.
    slots
        Slots it is known of, below `MOST_LEARNED`, (N,).
    demand
        Of the last `SUMS` buckets up to this one, oldest first, NaN where it is no measure of what was wanted: the
        item was out of stock, or not sold yet, float32 (N, 14).
    groups
        Category of each series, -1 for none, (N,).
    """

    bucket: int
    slots: Slots
    demand: F32
    groups: I64


class Learner:
    """Learns of one model.

    Parameters
    ----------
    model
        Name of the forecaster.
    max_series
        Slots of the shard.
    season
        Buckets per season: 7 for days, 24 for hours.
    open_buckets
        As `online.pending.Pending` has it.
    """

    def __init__(self, model: str, max_series: int, season: int, open_buckets: int = 3) -> None:
        self.model, self.horizons = model, LEARNED
        most = min(max_series, MOST_LEARNED)
        self._most = most
        self._cells = Pending("learner/cells", most, _WIDTH, open_buckets, LEARNED)
        self._sum_cells = Pending("learner/sums", most, _SUM_WIDTH, open_buckets, SUMS)
        self.residuals = Residuals(most, LEARNED, season)
        self.calibration, self.sum_calibration = Calibration(LEARNED, season), Calibration(SUMS, season)
        self.factors = Guard(len(LEARNED), len(FACTORS), begin=0.995, end=1.0, season=season)
        self.reads = Guard(len(LEARNED), 2, begin=1.002, end=1.004, season=season)
        self.sum_reads = Guard(len(SUMS), 2, begin=1.002, end=1.004, season=season)
        self.drift = Drift(season)
        self.scores = {name: Scores(LEARNED) for name in RIVALS}
        self.tier_scores = {name: Scores(tuple(range(TIERS))) for name in RIVALS}
        self.weeks = Weeks(RIVALS, season)
        self.met: dict[int, Met] = {}
        self._changed, self._seen = False, -1
        self._turned = -1  # bucket that showed the last change of the world

    # -- asked and answered

    def correction(self, slots: Slots, groups: I64) -> Correction:
        """What was learned, for rows of a request; groups are categories, -1 for none."""
        factors, series = self.residuals.foretell(slots, groups)
        return Correction(
            self.model, self.horizons, SUMS, factors, series, tuple(self.factors.acts),
            [self.calibration.reading(index) for index in range(len(self.horizons))],
            [self.sum_calibration.reading(index) for index in range(len(SUMS))],
            [act == READ for act in self.reads.acts], [act == READ for act in self.sum_reads.acts],
        )  # fmt: skip

    def learned(self, slots: Slots) -> I64:
        """Rows among slots that are learned from."""
        return np.flatnonzero(slots < self._most)

    def expect(self, first_bucket: int) -> None:
        """Note that a bucket closed, and forecasts that begin with the next are asked for."""
        self.residuals.expect(first_bucket)
        self._changed = True

    def keep(self, slots: Slots, first_bucket: int, kept: Kept) -> None:
        """Let what was made of an answer wait for its truth; ``slots`` are those of ``kept``, (rows,)."""
        for pending, cells in ((self._cells, kept.cells), (self._sum_cells, kept.sums)):
            for index, h in enumerate(pending.horizons):
                told = np.flatnonzero(cells[:, index, 0])
                if len(told):
                    pending.put(index, slots[told], first_bucket + h - 1, cells[told, index])
        self._changed = True

    # -- what came

    def learn(self, truth: Truth) -> list[Change]:
        """Take in a final bucket; changes of the shard's world that it shows come back."""
        found: list[Change] = []
        self.met = {}
        for index in range(len(self.horizons)):
            cells, has = self._cells.take(index, truth.slots, truth.bucket)
            if len(cells):
                found += self._learn_bucket(index, cells, np.flatnonzero(has), truth)
        for index, h in enumerate(SUMS):
            cells, has = self._sum_cells.take(index, truth.slots, truth.bucket)
            total = np.minimum(np.minimum(truth.demand[has, -h:], np.float32(MOST)).sum(axis=1), np.float32(MOST))
            if (told := np.isfinite(total)).any():
                self._learn_sums(index, truth.bucket, cells[told], total[told])
        return found

    def _learn_bucket(self, index: int, cells: F16, rows: I64, truth: Truth) -> list[Change]:
        sold = np.minimum(truth.demand[rows, -1], np.float32(MOST))
        told = np.isfinite(sold)
        if not told.any():
            return []
        cells, rows, sold = cells[told], rows[told], sold[told]
        slots, groups = truth.slots[rows], truth.groups[rows]
        said, base, read = (losses_of(unpacked(cells[:, part]), sold) for part in (_SAID, _BASE, _READ))
        logs = cells[:, _LOGS].astype(np.float32)
        by_factors = [
            losses_of(said.quantiles * np.exp(log), sold) for log in (logs[:, :1], logs.sum(axis=1, keepdims=True))
        ]
        candidates = [said, *by_factors]
        plain = picked(candidates, cells[:, _ACT].astype(np.int64))
        tiers = cells[:, _TIER].astype(np.int64)
        if self._knew(truth.bucket - self.horizons[index] + 1):
            self.factors.add(index, np.array([one.loss.sum() for one in candidates]))
            self.reads.add(index, np.array([one.loss.sum() for one in (plain, read)]))
            self.calibration.learn(index, tiers, read.quantiles, sold)
            self.residuals.learn(index, truth.bucket, slots, groups, said.quantiles.mean(axis=1), sold)
        published = picked([plain, read], (cells[:, _DOES_READ] == READ).astype(np.int64))
        self._score(index, truth.bucket, tiers, [published, said, base])
        self._changed = True
        if self.horizons[index] > 1 or truth.bucket <= self._seen:  # once, where zones end a bucket one after another
            return []
        self._seen = truth.bucket
        found = self.drift.add(truth.bucket, said)
        if found:
            self._turned = truth.bucket
            self.residuals.change()
            self.calibration.hurry()
            self.sum_calibration.hurry()
        return found

    def _knew(self, first_bucket: int) -> bool:
        """Whether forecasts that began with a bucket were made after the last change of the world that was seen.

        Those made before were surprised by it, and that says nothing of what the model says since.
        """
        return first_bucket > self._turned

    def _score(self, index: int, bucket: int, tiers: I64, rivals: list[Losses]) -> None:
        met = [_met(losses) for losses in rivals]
        self.met[index] = met[0]
        loss, inside = np.array([one.loss for one in met]), np.array([one.inside for one in met])
        demand = float(rivals[0].actual.sum(dtype=np.float64))
        self.weeks.add(bucket, met[0].outcomes, demand, loss, inside)
        for name, losses in zip(RIVALS, rivals, strict=True):
            self.scores[name].add(index, losses)
            self.tier_scores[name].add_each(tiers, losses)

    def _learn_sums(self, index: int, bucket: int, cells: F16, total: F32) -> None:
        if not self._knew(bucket - SUMS[index] + 1):
            return
        plain, read = unpacked(cells[:, _SUM_PLAIN]), unpacked(cells[:, _SUM_READ])
        self.sum_reads.add(index, np.array([pinball(one, total).sum() for one in (plain, read)]))
        self.sum_calibration.learn(index, cells[:, _SUM_TIER].astype(np.int64), read, total)
        self._changed = True

    # -- slots and state

    def clear(self, slot: int) -> None:
        """Forget a slot that is freed."""
        if slot < self._most:
            self._cells.clear(slot)
            self._sum_cells.clear(slot)
            self.residuals.clear(slot)
            self._changed = True

    def changes(self, used: int) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield ``(key, payload)`` of what changed since the last call."""
        most = min(used, self._most)
        for pending in (self._cells, self._sum_cells):
            for key, payload in pending.changes(most):
                yield key, {**payload, "model": self.model}
        if self._changed:
            self._changed = False
            yield self.key, self.snapshot(most)

    @property
    def key(self) -> str:
        """Of the record that holds what was learned of the model, but for what waits."""
        return f"{OF_MODEL}{self.model}"

    def snapshot(self, used: int) -> dict[str, Any]:
        """What was learned, as plain values, with that of the first `used` slots."""
        parts = {name: part.snapshot() for name, part in self._parts().items()}
        return {**parts, "residuals": self.residuals.snapshot(used), "seen": self._seen, "turned": self._turned}

    @staticmethod
    def of_shard(payload: dict[str, Any]) -> dict[str, Any]:
        """What `snapshot` gave, without what concerns single series: their slots may be others' by now."""
        return {**payload, "residuals": of_groups(payload["residuals"])}

    def waiting(self) -> list[str]:
        """Keys of the records in which answers wait for their truth."""
        return [*self._cells.occupied(), *self._sum_cells.occupied()]

    def restore(self, key: str, payload: dict[str, Any]) -> None:
        """Take over one payload of `changes`; what waits for another model's sake is let go."""
        if not key.startswith(OF_MODEL):
            if payload["model"] == self.model:
                (self._cells if key.startswith("learner/cells/") else self._sum_cells).restore(key, payload)
        elif key == self.key:
            for name, part in self._parts().items():
                part.restore(payload[name])
            self.residuals.restore(payload["residuals"])
            self._seen = payload["seen"]
            self._turned = payload.get("turned", -1)

    def _parts(self) -> dict[str, Any]:
        scores = {f"scores_{name}": scores for name, scores in self.scores.items()}
        scores |= {f"tier_scores_{name}": scores for name, scores in self.tier_scores.items()}
        return {
            "calibration": self.calibration, "sum_calibration": self.sum_calibration, "factors": self.factors,
            "reads": self.reads, "sum_reads": self.sum_reads, "drift": self.drift, "weeks": self.weeks, **scores,
        }  # fmt: skip

    def merge(self, other: Learner) -> None:
        """Add the scores of another shard's learner of the same model, for a summary of both."""
        for own, others in ((self.scores, other.scores), (self.tier_scores, other.tier_scores)):
            for name, scores in own.items():
                scores.merge(others[name])
        self.weeks.merge(other.weeks)
        for signal, count in other.drift.counts.items():
            self.drift.counts[signal] += count

    def summary(self) -> dict[str, Any]:
        """How good each rival was on the same outcomes: overall, by horizon, tier of demand and week; changes seen."""
        rivals = {}
        for name in RIVALS:
            by_horizon, by_tier = self.scores[name].summary(), self.tier_scores[name].summary()["by_horizon"]
            sold = {tier: figures for tier, figures in by_tier.items() if figures["outcomes"]}
            rivals[name] = {"overall": by_horizon["overall"], "by_horizon": by_horizon["by_horizon"], "by_tier": sold}
        return {"rivals": rivals, "weeks": self.weeks.summary(), "changes": dict(self.drift.counts)}

    def acting(self) -> dict[str, dict[str, Any]]:
        """What is applied to forecasts now, by horizon: which factors, and whether other levels are read."""
        return {
            str(h): {"factors": FACTORS[self.factors.acts[n]], "levels": self.reads.acts[n] == READ}
            for n, h in enumerate(self.horizons)
        }


def _met(losses: Losses) -> Met:
    return Met(len(losses.actual), float(losses.loss.mean(axis=1).sum()), int(losses.inside.sum()))


def kept(correction: Correction, said: Forecast, base: Forecast | None, rows: I64) -> Kept:
    """What is to wait of an answer; any thread may call it.

    Parameters
    ----------
    correction
        As it stood when the answer was asked for.
    said
        The model's answer.
    base
        The baseline's to these rows, or None where it is the model that answered.
    rows
        Rows of the request that are learned from; what was forecast without a history of its own is left out.
    """
    old = said.basis[rows] != Basis.COLD_START
    rows = rows[old]
    shape = len(rows), len(correction.horizons)
    cells = np.zeros((*shape, _WIDTH), np.float16)
    tiers = tiers_of(expected_of(said)[rows])
    read = correction.sampled(said, rows, tiers)
    for index, h in enumerate(correction.horizons):
        if h <= said.mean.shape[1]:
            own = said.quantiles[rows, h - 1][:, PICK]
            cells[:, index, _SAID] = packed(own)
            cells[:, index, _BASE] = packed(own if base is None else base.quantiles[old, h - 1][:, PICK])
            cells[:, index, _READ] = packed(read[:, index])
            cells[:, index, _LOGS] = np.stack([correction.groups[rows, index], correction.series[rows, index]], axis=1)
            cells[:, index, _ACT], cells[:, index, _DOES_READ] = correction.acts[index], correction.reads[index]
            cells[:, index, _TIER] = tiers
    sums = np.zeros((len(rows), len(correction.sums), _SUM_WIDTH), np.float16)
    plain, read = correction.plain_sums(said, rows), correction.sampled_sums(said, rows, tiers)
    for index, h in enumerate(correction.sums):
        if h <= said.mean.shape[1]:
            sums[:, index, _SUM_PLAIN], sums[:, index, _SUM_READ] = packed(plain[:, index]), packed(read[:, index])
            sums[:, index, _SUM_TIER] = tiers
    return Kept(rows, cells, sums)
