"""Nets that learn on beside a shop's workers: fitted to its days, judged in the shadow, promoted where they are better.

In: settings, the events of the shop on Kafka, a registry. Out: models in the registry; the command `promote`.
Must not know: workers, commands of a terminal. Rule: it takes nothing from workers but what the system gives to nobody
else; killed at any moment it leaves a registry in order, and goes on from its newest generation.

What it keeps on disk: the task it fits to, two generations of nets, and `standing.json`. The shop's days are read again
from Kafka when it starts: the events there are the memory.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from models.crew import Net, own_net
from models.encoder import load
from models.finetune import finetune
from models.forecast import Forecaster, ForecastError
from models.model_folder import CARD, Card, published_name
from models.named import PRETRAINED, SHIPPED, LateEncoder, registered
from models.recipe import Recipe
from models.registry import Registry
from models.serving import EncoderForecaster
from models.task import TaskError, read_task
from online.continual import Contest
from online.lineage import Lineage, continuing
from streams.calendar import DAY_MS
from streams.engine import EngineConfig
from streams.kafka.commands import CommandError, tell_workers
from streams.kafka.ending import WorkerError
from streams.kafka.follow import Follow
from streams.kafka.settings import KafkaSettings, LearnSettings, WorkerSettings
from streams.partition import PartitionerName
from streams.shadow import Shadow

log = structlog.get_logger("shelftide.learn")

FORMAT = 1
STANDING = "standing.json"
CHALLENGER = "challenger"
WARM_DAYS = 84
"""Days of history of which the champion is asked, so that what its interval needs is known before it is judged."""

AT_ONCE_DAYS = 2
"""Days after a generation from which on a change that is seen brings the next one."""

TICK_MS = 1_000
"""Time between ticks of the machine's clock, as of a shard."""

AGAIN_S = 10.0
"""Time before a promotion that failed is tried again."""


class Standing(msgspec.Struct, frozen=True):
    """What is kept over a restart: how far the line has come, and its trial.

    Attributes
    ----------
    champion
        Published name of the model that the line contends with.
    generation, born
        The newest, and the day up to which it has read.
    origins
        Of each net: what of it learns when it is fitted anew, and whether it begins from the shipped one.
    judged, trial
        Newest day of the trial; what it has seen.
    contends
        Whether the newest generation is on trial; one that was promoted is not.
    promoting
        Published name of a model whose promotion was begun, else empty.
    """

    champion: str
    generation: int
    born: int
    origins: list[tuple[Literal["full", "head", "lora"], bool]]
    judged: int
    trial: dict[str, float | int | list[float]]
    contends: bool
    promoting: str = ""
    format: int = FORMAT


class _Format(msgspec.Struct, frozen=True):
    format: int


@dataclass(frozen=True)
class TrainerConfig:
    """All that it is told.

    Attributes
    ----------
    engine, kafka, worker, learn, partitioner
        Settings.
    forecaster
        Who answers where the registry has no champion.
    registry
        Of models.
    folder
        For what it keeps; it is there.
    """

    engine: EngineConfig
    kafka: KafkaSettings
    worker: WorkerSettings
    learn: LearnSettings
    partitioner: PartitionerName
    forecaster: Forecaster
    registry: Registry
    folder: Path


class Trainer:
    """Follows one shop, and lets nets learn on.

    Parameters
    ----------
    config
        What it is told.
    now_ms
        The machine's clock.

    Raises
    ------
    WorkerError
        If what it kept is of another program.
    """

    def __init__(self, config: TrainerConfig, now_ms: Callable[[], int]) -> None:
        self._config, self._now_ms = config, now_ms
        self._recipe = Recipe(steps=config.learn.steps)
        self._digest: str | None = None
        self._champion = self._incumbent()
        reader = registered(PRETRAINED, config.registry.folder)
        self.shadow = Shadow(config.engine, now_ms(), self._champion, reader)
        self.shadow.asking_from = now_ms() // DAY_MS - WARM_DAYS
        self._line: Lineage | None = None
        self._waits_from: int | None = None  # day from which on the days of a new line are counted
        self._failed_on = -1  # day on which a fit could not be made: it is tried again on the next
        self._told = -1
        self._promoting = ""
        self._kept = b""
        self._take_up()

    # -- who answers

    def _incumbent(self) -> Forecaster:
        """The registry's champion; without one the model of the settings, which becomes it so that it can come back."""
        registry, own = self._config.registry, self._config.forecaster
        if registry.champion() is None:
            if not isinstance(own, LateEncoder):
                return own
            registry.promote(registry.add(own.place), self._now_ms())
        self._digest = registry.champion()
        return LateEncoder(registry.show(self._digest))

    def _follow_registry(self) -> None:
        """Contend with whoever is champion now: somebody may have promoted a model, or brought one back."""
        digest = self._config.registry.champion()
        if digest is None or digest == self._digest:
            return
        self._champion, self._digest = LateEncoder(self._config.registry.show(digest)), digest
        log.info("another champion", model=self._champion.name)
        self.shadow.contest.settle(self.shadow.rival(self._champion))
        self._line, self._waits_from = None, self.shadow.days.last

    # -- what is kept

    def _take_up(self) -> None:
        """Go on from the newest generation, where it contends with the same champion."""
        path = self._config.folder / STANDING
        if not path.exists():
            return
        try:
            data = path.read_bytes()
            if (found := msgspec.json.decode(data, type=_Format).format) != FORMAT:
                raise WorkerError(
                    f"{path}: has format {found}, this program reads {FORMAT}; use the program that wrote it, or "
                    "remove it to begin anew"
                )
            standing = msgspec.json.decode(data, type=Standing)
        except (OSError, msgspec.MsgspecError) as error:
            raise WorkerError(f"{path}: cannot be read ({error}); remove it to begin anew") from error
        if standing.promoting:
            self._announce(standing.promoting)
        folders = sorted((self._line_folder / f"generation-{standing.generation}").glob("[0-9]*"))
        if standing.champion != self._champion.name or len(folders) != len(standing.origins):
            log.info("the line that was kept contends with another champion; a new one begins")
            return
        nets = [
            replace(own_net(folder), mode=mode, start=SHIPPED if begins else None)
            for folder, (mode, begins) in zip(folders, standing.origins, strict=True)
        ]
        self._line = self._new_line(folders, nets, standing.generation, standing.born)
        if standing.contends:
            self._challenge()
            self.shadow.contest.trial.restore(dict(standing.trial))
        self.shadow.judged = standing.judged
        self.shadow.asking_from = min(self.shadow.asking_from, standing.born + 1)
        log.info("taken up", generation=standing.generation, evidence=round(self.shadow.contest.trial.evidence, 3))

    def _keep(self) -> None:
        """Write where the line stands, where that has changed."""
        if self._line is None or self._line.born is None:
            return
        origins = [(net.mode, net.start is not None) for net in self._line.origins]
        trial = self.shadow.contest.trial.snapshot()
        standing = Standing(
            self._champion.name, self._line.generation, self._line.born, origins, self.shadow.judged, trial,
            self.shadow.contest.challenger is not None, self._promoting,
        )  # fmt: skip
        data = msgspec.json.encode(standing)
        if data == self._kept:
            return
        part, path = self._config.folder / f".part-{STANDING}", self._config.folder / STANDING
        with part.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
        self._kept = data

    @property
    def _line_folder(self) -> Path:
        return self._config.folder / "line"

    @property
    def _task_folder(self) -> Path:
        return self._config.folder / "task"

    # -- its life

    def run(self) -> None:
        """Follow the shop until interrupted.

        Raises
        ------
        streams.kafka.source.SourceError
            If Kafka refuses for good.
        """
        follow = Follow(self._config.kafka, self._config.worker, self._config.partitioner)
        log.info("following", topics=self._config.kafka.topic("shop.*"), champion=self._champion.name)
        was_behind = True
        try:
            while True:
                now_ms = self._now_ms()
                for batch in follow.batches(now_ms):
                    self.shadow.apply(batch)
                if not follow.caught_up:
                    continue
                if self._config.worker.clock == "wall" and now_ms - follow.clock_ms >= TICK_MS:
                    follow.clock_ms = now_ms
                    self.shadow.tick(now_ms)
                if was_behind:
                    was_behind, self.shadow.asking_from = False, 0
                    log.info("caught up", records=follow.records, day=self.shadow.days.last)
                self.look()
        finally:
            self._keep()
            follow.close()

    def look(self) -> None:
        """Do what is due: promote a challenger that is better, follow the registry, fit the next generation."""
        contest = self.shadow.contest
        self._follow_registry()
        if contest.challenger is not None and self.shadow.judged != self._told:
            self._told = self.shadow.judged
            log.info("judged", day=self._told, evidence=round(contest.trial.evidence, 3))
        if contest.is_won:
            self._promote(contest)
        elif self._due():
            self._fit()
        self._keep()

    def _due(self) -> bool:
        last = self.shadow.days.last
        if last is None or last == self._failed_on:
            return False
        since = self._line.born if self._line is not None else self._waits_from
        if since is None:
            return True
        changed = bool(self.shadow.changes) and last - since >= AT_ONCE_DAYS
        return changed or last - since >= self._config.learn.every_days

    # -- generations

    def _new_line(self, folders: list[Path], origins: list[Net], generation: int, born: int) -> Lineage:
        share = self._config.learn.core_share
        return Lineage(
            self._task_folder, folders, self._line_folder, self._config.learn.every_days,
            continuing(self._recipe.steps), origins, self._recipe, generation, born, share,
        )  # fmt: skip

    def _fit(self) -> None:
        """Fit the next generation to all days that are over, and let it contend."""
        started_s, last = time.monotonic(), self.shadow.days.last
        assert last is not None  # noqa: S101 - `_due` has looked
        self.shadow.changes.clear()
        try:
            column = self._write_task()
            if self._line is None:
                shutil.rmtree(self._line_folder, ignore_errors=True)
                learn = self._config.learn
                found = finetune(
                    self._task_folder, self._line_folder / "generation-1", seeds=learn.nets, recipe=self._recipe,
                    processes=1, share=learn.core_share,
                )  # fmt: skip
                self._line = self._new_line(found.folders, found.nets, 1, last)
            else:
                self._line.next(last, column)
        except (TaskError, ForecastError, OSError, BrokenProcessPool) as error:
            log.warning("no generation could be fitted; it is tried again tomorrow", reason=str(error))
            self._failed_on = last
            return
        self._challenge()
        log.info("fitted", generation=self._line.generation, day=last, seconds=round(time.monotonic() - started_s, 1))

    def _write_task(self) -> int:
        """Write the days so far as a task; the column of the newest comes back."""
        part = self._task_folder.with_name(".part-task")
        for folder in (part, self._task_folder):
            shutil.rmtree(folder, ignore_errors=True)
        part.mkdir()
        self.shadow.days.task("the shop").write(part)
        part.rename(self._task_folder)
        return int(read_task(self._task_folder).cutoff.min())

    def _challenge(self) -> None:
        """Let the newest generation be the challenger."""
        assert self._line is not None  # noqa: S101 - there is one
        assert self._line.born is not None  # noqa: S101 - and it was born
        nets = [load(folder) for folder in self._line.nets]
        self.shadow.challenge(EncoderForecaster(nets, CHALLENGER), self._line.born)

    # -- promotion

    def _promote(self, contest: Contest) -> None:
        """Make the newest generation the champion, of the registry and of all workers."""
        assert self._line is not None  # noqa: S101 - it is the challenger's
        registry, line = self._config.registry, self._line
        card = Card(
            name="shop", created_ms=self._now_ms(), horizon=self._config.engine.horizon,
            data=f"the shop's own events up to day {line.born} since 1970",
            recipe={"steps": self._recipe.steps, "generation": line.generation}, seeds=tuple(range(len(line.nets))),
            scores={"evidence": round(contest.trial.evidence, 3)},
        )  # fmt: skip
        folder = self._line_folder / f"generation-{line.generation}"
        if (folder / CARD).exists():  # it was added before, and its bytes are to stay the same
            card = msgspec.json.decode((folder / CARD).read_bytes(), type=Card)
        (folder / CARD).write_bytes(msgspec.json.encode(card))
        try:
            digest = registry.add(folder, card)
            self._promoting = published_name(card.name, digest)
            self._keep()
            self._announce(self._promoting)
        except (ForecastError, CommandError) as error:
            log.error("the promotion failed, and is tried again", reason=str(error))
            time.sleep(AGAIN_S)
            return
        log.info("promoted", model=self._promoting, former=self._champion.name, evidence=card.scores["evidence"])
        self._champion, self._digest, self._promoting = LateEncoder(registry.show(digest)), digest, ""
        contest.settle(self.shadow.rival(self._champion))

    def _announce(self, name: str) -> None:
        """Make a model the champion and tell the workers; twice is as good as once."""
        self._config.registry.promote(name, self._now_ms())
        tell_workers(self._config.kafka, "promote", name, f"cmd_promote_{name.rpartition(':')[2]}")
