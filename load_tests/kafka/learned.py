"""What a shard has learned, followed commit by commit: every outcome once, none lost.

In: the committed state records after each commit; in the end an engine restored from them. Out: sentences on outcomes
that were learned twice or not at all, and on parts of a learner that do not agree.
Must not know: Kafka, workers, who was killed. Rule: it reads the records by itself, and of an engine the demand alone.

Under load an undisturbed run is no measure of one whose workers are killed. A request that was under way is made anew:
its answer rests on other sales and other stock, and where its bucket has closed meanwhile nobody waits for it. So what
forecasts say may differ, and which of them wait. What must hold whatever happens is a balance between each commit and
the one before it, for each horizon and each sum:

1. what waited and waits no longer was for buckets that have turned final, and nothing waits for one that has;
2. nothing comes to wait for a forecast of a bucket that had closed before;
3. as many outcomes were learned as waited for these buckets and whose demand is a measure (in stock, not shut): the
   three rivals alike, and in as many buckets as the guards and detectors have seen;
4. horizons, tiers, weeks, guards, detectors and single series have all been told the same number in all.

Only where a commit spans so much that a forecast made after the one before was met as well, the number of outcomes is
known but for these; that happens to short horizons, in backlogs. A killed worker leaves its last commit, and whoever
comes next goes on from there: an outcome that was lost or is learned anew shows as a balance that is not kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.forecast import buckets_per_day
from online.guard import HALF_LIVES
from online.learner import LEARNED, RIVALS, SUMS
from online.residuals import SERIES_HALF_LIFE
from online.scores import PICK
from streams.engine import Engine, EngineConfig
from streams.panes import SHUT, flags_of, stock_of
from streams.state import unpack

F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

KINDS = {"cells": LEARNED, "sums": SUMS}
"""What waits, and its horizons."""

WIDTHS = {"cells": 3 * len(PICK) + 5, "sums": 2 * len(PICK) + 1}
"""Numbers kept of each: three answers and what was learned by then, or two."""

UNSET = -(1 << 60)
"""Buckets below are those of a shard that knows no time yet."""

Place = tuple[str, int]
"""A kind, and the index of a horizon in it."""
Cell = tuple[int, int]
"""A slot, and the bucket that it waits for."""


@dataclass(frozen=True)
class Seen:
    """One commit.

    Attributes
    ----------
    opened, final
        The open bucket, and the oldest that is not final.
    waits
        What waits, of each place.
    outcomes
        Learned so far, per horizon.
    taught
        Buckets of which something was learned, of each place.
    """

    opened: int
    final: int
    waits: dict[Place, set[Cell]]
    outcomes: list[int]
    taught: dict[Place, int]


@dataclass(frozen=True)
class Step:
    """What one commit did for one place: cells that were met, and what was counted; `loose`: buckets in doubt."""

    place: Place
    met: set[Cell]
    outcomes: int | None
    taught: int
    loose: range


class Balance:
    """Follows one shard of a shop with one time zone.

    Parameters
    ----------
    config
        Of its engine.

    Attributes
    ----------
    steps, doubtful
        Commits that taught something, and those of which the number of outcomes is not known exactly.
    outcomes
        Learned so far, over all horizons.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.steps = self.doubtful = self.outcomes = 0
        self._season, self._open_buckets = config.width.season, config.panes.open_buckets
        self._before: Seen | None = None
        self._pending: list[Step] = []
        self._faults: list[str] = []

    def take(self, records: Mapping[str, bytes]) -> None:
        """Take in the live records after a commit."""
        zones = unpack("clock/zones", records["clock/zones"])["zones"] if "clock/zones" in records else []
        if not zones or zones[0][0] < UNSET:
            return
        (opened, final, _), model = zones[0], self._model(records)
        waits = {place: set[Cell]() for place in self._places()}
        for place, cell in self._waiting(records, opened, final):
            waits[place].add(cell)
        now = Seen(opened, final, waits, *self._counted(model))
        self.outcomes = sum(now.outcomes)
        if self._before is not None:
            self._compare(self._before, now)
        self._before = now

    def faults(self, engine: Engine) -> list[str]:
        """What was wrong since the last call, given an engine restored from the newest records."""
        found, self._faults = self._faults, []
        for step in self._pending:
            known = [cell for cell in step.met if self._is_known(engine, step.place, *cell)]
            buckets, more = len({bucket for _, bucket in known}), len(step.loose)
            self.steps += 1
            self.doubtful += more > 0
            if not buckets <= step.taught <= buckets + more:
                found.append(f"{_name(step.place)}: {buckets} buckets were met, and {step.taught} were learned from")
            most = len(known) + more * engine.series.used
            if step.outcomes is not None and not len(known) <= step.outcomes <= most:
                found.append(f"{_name(step.place)}: {len(known)} outcomes were met, and {step.outcomes} were learned")
        self._pending = []
        return found

    # -- one commit

    @staticmethod
    def _places() -> Iterator[Place]:
        return ((kind, index) for kind, horizons in KINDS.items() for index in range(len(horizons)))

    @staticmethod
    def _model(records: Mapping[str, bytes]) -> dict[str, Any] | None:
        found = [key for key in records if key.startswith("learner/model/")]
        assert len(found) < 2, f"more than one model learns: {found}"
        return unpack(found[0], records[found[0]]) if found else None

    def _waiting(self, records: Mapping[str, bytes], opened: int, final: int) -> Iterator[tuple[Place, Cell]]:
        """What waits, each for the one bucket that is not final and shares its column."""
        for key, value in records.items():
            head, _, rest = key.partition("/")
            if head != "learner" or rest.startswith("model/"):
                continue
            kind, *numbers = rest.split("/")
            index, column, _ = map(int, numbers)
            payload, h = unpack(key, value), KINDS[kind][index]
            cells = np.frombuffer(payload["cells"], np.float16).reshape(-1, WIDTHS[kind])
            slots = (payload["start"] + np.flatnonzero(cells[:, 0])).tolist()
            bucket = final + (column - final) % (h + self._open_buckets - 2)
            if slots and bucket > opened + h - 1:
                self._faults.append(f"{_name((kind, index))}: {len(slots)} outcomes wait for a bucket that is final")
            for slot in slots:
                yield (kind, index), (slot, bucket)

    def _counted(self, model: dict[str, Any] | None) -> tuple[list[int], dict[Place, int]]:
        """Outcomes per horizon and buckets per place that a learner's record counts; its parts must agree."""
        if model is None:
            return [0] * len(LEARNED), dict.fromkeys(self._places(), 0)
        per_day = buckets_per_day(self._season)
        outcomes = _sums(model["scores_published"])
        told = {f"scores of {name}": _sums(model[f"scores_{name}"]) for name in RIVALS}
        guards = {name: _unfaded(model[name]["counts"], HALF_LIVES[0] * per_day) for name in ("factors", "reads")}
        sums = _unfaded(model["sum_reads"]["counts"], HALF_LIVES[0] * per_day)
        weeks = np.sum([np.frombuffer(one, np.float64).reshape(4, -1)[0] for _, one in model["weeks"]] or [0], axis=0)
        told |= {f"tiers of {name}": [sum(_sums(model[f"tier_scores_{name}"]))] for name in RIVALS}
        told |= {"weeks": [int(np.max(weeks)), int(np.min(weeks))]}
        series = np.frombuffer(model["residuals"]["seen"], np.float32).astype(np.float64)
        told |= {"single series": [sum(_unfaded(series.tobytes(), SERIES_HALF_LIFE * per_day))]}
        seen = {signal: [one[3]] for signal, one in model["drift"]["usual"].items()}
        wanted = {name: outcomes for name in told if name.startswith("scores")}
        wanted |= {name: [sum(outcomes)] * len(told[name]) for name in told if name not in wanted}
        wanted["single series"] = outcomes[:1]
        told |= {"guard of levels": guards["reads"], **{f"detectors of {name}": one for name, one in seen.items()}}
        wanted |= {"guard of levels": guards["factors"], **{f"detectors of {n}": guards["factors"][:1] for n in seen}}
        self._faults += [
            f"{name} have been told {told[name]}, others {wanted[name]}" for name in told if told[name] != wanted[name]
        ]
        counts = {"cells": guards["factors"], "sums": sums}
        return outcomes, {(kind, index): counts[kind][index] for kind, index in self._places()}

    # -- two commits

    def _compare(self, before: Seen, now: Seen) -> None:
        for place in self._places():
            kind, index = place
            h = KINDS[kind][index]
            gone, came = before.waits[place] - now.waits[place], now.waits[place] - before.waits[place]
            early = [bucket for _, bucket in gone if bucket >= now.final]
            back = [bucket for _, bucket in came if bucket - h + 1 < before.opened]
            if early:
                self._faults.append(f"{_name(place)}: {len(early)} outcomes no longer wait for buckets to come")
            if back:
                self._faults.append(f"{_name(place)}: {len(back)} outcomes wait of forecasts that were over")
            loose = range(max(before.opened + h - 1, before.final), now.final)
            outcomes = now.outcomes[index] - before.outcomes[index] if kind == "cells" else None
            taught = now.taught[place] - before.taught[place]
            if gone or outcomes or taught:
                self._pending.append(Step(place, gone, outcomes, taught, loose))

    def _is_known(self, engine: Engine, place: Place, slot: int, bucket: int) -> bool:
        """Whether the demand of a bucket, or of all those of a sum, is a measure of what was wanted."""
        ring = engine.panes.config.buckets
        assert bucket > engine.buckets.zones[0].open - ring + SUMS[-1], "look more often: the ring has gone past"
        buckets = range(bucket + 1 - (SUMS[place[1]] if place[0] == "sums" else 1), bucket + 1)
        shelf = engine.panes.ring["shelf"][slot, [one % ring for one in buckets]]
        begun = buckets[0] >= int(engine.buckets.series["first"][slot])
        return begun and not ((stock_of(shelf) < 1) | (flags_of(shelf) & SHUT > 0)).any()


def _sums(scores: dict[str, bytes]) -> list[int]:
    """Outcomes per place of `online.scores.Scores`."""
    counts: list[int] = np.frombuffer(scores["sums"], np.float64).reshape(-1, 5)[:, 0].astype(int).tolist()
    return counts


def _unfaded(sums: bytes, half_life: float) -> list[int]:
    """How often one was added to sums that fade before each."""
    fade = 0.5 ** (1 / half_life)
    counts: F64 = np.log1p(-np.frombuffer(sums, np.float64) * (1 - fade)) / np.log(fade)
    return [int(count) for count in np.rint(counts).tolist()]


def _name(place: Place) -> str:
    kind, index = place
    return (
        f"learning {KINDS[kind][index]} buckets ahead" if kind == "cells" else f"learning sums of {KINDS[kind][index]}"
    )
