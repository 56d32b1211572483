"""A shop under load whose workers are killed, frozen and replaced, and the proof that nothing is lost or counted twice.

In: a broker, a seed. Out: `Arena`: workers to be mistreated; sentences on what was found wrong.
Must not know: why somebody kills. Rule: a check holds committed state, at whatever offsets it stands, against the raw
records below these offsets, so that it can be made at any moment.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from types import TracebackType

from load_tests.kafka.learned import Balance
from load_tests.kafka.oracle import TOPICS, RawTopics, differences, held
from load_tests.kafka.published import in_files, published
from load_tests.kafka.shop_load import HOUR_MS, STEP_MS, Clock, Load, Shop
from load_tests.kafka.state import SHELL, StateTopic
from streams.calendar import Width
from streams.engine import Engine, EngineConfig
from streams.kafka.ledger import STATE_TOPIC, Position, positions_of
from streams.kafka.settings import KafkaSettings
from streams.kafka.shard import CANDIDATES_TOPIC
from streams.kafka.topics import apply
from streams.kafka.verify import verify
from tests.kafka.workers import Worker, Workers, ends

MAX_SERIES = 1_000
WORKER: Mapping[str, object] = {"session_timeout_ms": 6_000, "commit_interval_ms": 300}
"""The shortest session that a broker allows by default, and more commits to be hit than usual."""

CAUGHT_UP_S = 90.0
NAMED = 10
"""Sentences on what a shard learned, at each check: what is lost once is missing from then on."""


@dataclass(frozen=True)
class Setting:
    """What is played.

    Attributes
    ----------
    seed
        Of the records and of every random moment.
    clock
        What event time runs with.
    rate
        Records per second.
    step_ms
        Event time between them, where it runs with them.
    past
        Records that lie there before any worker starts: a past that ends where the others begin.
    """

    seed: int
    clock: Clock = "record"
    rate: float = 1_500
    step_ms: int = STEP_MS
    past: int = 0

    @property
    def engine(self) -> EngineConfig:
        """The configuration of the workers' engines."""
        return EngineConfig(max_series=MAX_SERIES, width=Width.HOUR, time_zone="UTC", base_currency="EUR")

    @property
    def shop(self) -> dict[str, str]:
        """The same, as a worker's settings."""
        return {"time_zone": "UTC", "base_currency": "EUR", "max_series": str(MAX_SERIES), "bucket": "hour"}


class Arena:
    """Topics of their own, load on them, workers; left, it ends what it started.

    Parameters
    ----------
    kafka
        Where; its topics are made.
    folder
        For logs of workers.
    setting
        What is played.
    """

    def __init__(self, kafka: KafkaSettings, folder: Path, setting: Setting) -> None:
        self.kafka, self.setting = kafka, setting
        self.random = Random(setting.seed)
        self.broken: list[str] = []
        self.deaths: Counter[str] = Counter()
        self.checks = 0
        self.began_s: dict[Worker, float] = {}
        self._candidates: int | None = None
        apply(kafka)
        folder.mkdir(parents=True, exist_ok=True)
        self.workers = Workers(kafka, folder, {**WORKER, "clock": setting.clock})
        shop = Shop(setting.seed, setting.clock, kafka.partitions, setting.step_ms, past=setting.past)
        self.load = Load(kafka, shop, setting.rate)
        self._raw = RawTopics(kafka, HOUR_MS)
        self._state = StateTopic(kafka.bootstrap_servers, kafka.topic(STATE_TOPIC), kafka.partitions + 1)
        self._balances = [Balance(setting.engine) for _ in range(kafka.partitions)]
        self._state.on_commit = self._note_commit

    def __enter__(self) -> Arena:
        self.load.start()
        self.wait(lambda: self._raw.records >= self.setting.past, "the past on its topics")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.workers.close()
        self.load.stop(5 if error is None else 1)
        self._raw.close()
        self._state.close()

    # -- workers

    def start(self, instance: str) -> Worker:
        """Start a worker."""
        worker = self.workers.start(instance, shop=self.setting.shop)
        self.began_s[worker] = time.time()
        return worker

    def kill(self, worker: Worker) -> str:
        """End a worker without a word; how far it had come is noted and comes back."""
        if worker.process.poll() is not None:
            self.note_end(worker)
            return "ended"
        worker.kill()
        reached = stage_of(worker)
        self.deaths[reached] += 1
        return reached

    def note_end(self, worker: Worker) -> None:
        """Note that a worker ended by itself: it must have said why, in a sentence, and have left with code 1."""
        code = worker.ended()
        self.deaths[f"ended by itself with {code}"] += 1
        if code != 1 or not (worker.told("crashed") or "shelftide: " in worker.text):
            self._break(f"a worker ended with {code} and said: {worker.text[-2_000:]}")
        if "Traceback" in worker.text:
            self._break(f"a worker ended with a traceback: {worker.text[-4_000:]}")

    def wait(self, condition: Callable[[], object], what: str, timeout_s: float = 30) -> None:
        """Wait until something is true; the raw records are read meanwhile."""
        until_s = time.monotonic() + timeout_s
        while not condition():
            self._raw.poll(0.01)
            self._state.poll(0)
            if time.monotonic() > until_s:
                raise AssertionError(f"seed {self.setting.seed}: waited in vain for {what}")

    def rest(self, seconds: float) -> None:
        """Let time pass; what happens meanwhile is taken in."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            self._raw.poll(min(0.01, left_s))
            self._state.poll(0)

    def progress(self) -> int:
        """Records of item topics that committed state contains."""
        self._state.poll(0.01)
        positions = (self._position(shard) for shard in range(self.kafka.partitions))
        return sum(sum(self._offsets(position).values()) for position in positions if position is not None)

    def wait_progress(self, records: int, timeout_s: float = 60) -> None:
        """Wait until so many more records are committed."""
        before = self.progress()
        self.wait(lambda: self.progress() >= before + records, f"{records} more records committed", timeout_s)

    def wait_learned(self, outcomes: int, timeout_s: float = 120) -> None:
        """Wait until every shard has learned so many more outcomes; a series needs a day of its own for the first."""
        before = [balance.outcomes for balance in self._balances]

        def learned() -> bool:
            return all(now.outcomes >= at + outcomes for now, at in zip(self._balances, before, strict=True))

        self.wait(learned, f"{outcomes} more outcomes learned by every shard", timeout_s)

    def recoveries_s(self) -> list[float]:
        """Seconds from the start of each process to its first assignment with all shards recovered."""
        first = ((began_s, worker.told("assigned")) for worker, began_s in self.began_s.items())
        return [_epoch_s(told[0]["timestamp"]) - began_s for began_s, told in first if told]

    # -- checks

    def check(self) -> None:
        """Hold the state that is committed now against the raw records that it says it contains."""
        self._state.settle()
        for shard in range(self.kafka.partitions):
            position = self._position(shard)
            if position is None:
                continue
            offsets = self._offsets(position)
            while not self._raw.reaches(shard, offsets):
                self._raw.poll(0.05)
            engine = self._engine(shard)
            texts = differences(held(engine), self._raw.expected(shard, offsets))
            for text in [*texts, *self._balances[shard].faults(engine)[:NAMED]]:
                self._break(f"shard {shard} at {offsets}: {text}")
        self.checks += 1

    def finish(self, data: Path | None = None, timeout_s: float = CAUGHT_UP_S) -> dict[str, int]:
        """End the load, wait until everything is committed, and check all that was promised; figures come back.

        Parameters
        ----------
        data
            Folder of the broker's logs, where it is at hand.
        """
        self.load.stop()
        written = self.load.sent - self.load.refused
        self.wait(lambda: self._raw.records >= written, "all that was sent on its topics", timeout_s)
        self.wait(self._caught_up, "commits of all that was sent", timeout_s)
        self.check()
        if self._raw.poll(0.2) or self._raw.records != self._raw.written():
            self._break(f"the oracle has read {self._raw.records} of {self._raw.written()} records")
        found = published(self.kafka, self._raw.lost())
        self._broken(found.broken)
        self._broken(verify(self.kafka, self.setting.engine, "murmur2").wrong)  # the command's own oracle
        figures = {"records": self._raw.records, "sent": self.load.sent, **found.counts}
        for name in ("outcomes", "steps", "doubtful"):
            figures[f"learning {name}"] = sum(getattr(balance, name) for balance in self._balances)
        if data is not None:
            broken, endings = in_files(self.kafka, data)
            self._broken(broken)
            figures |= {f"transactions {name}": count for name, count in endings.items()}
        return figures

    def _caught_up(self) -> bool:
        """Whether committed state contains all raw records, and the coordinator's all that shards had found by then."""
        positions = {shard: self._position(shard) for shard in range(self.kafka.partitions)}
        if any(at is None or not self._raw.within(shard, self._offsets(at)) for shard, at in positions.items()):
            return False
        if self._candidates is None:
            self._candidates = ends(self.kafka, [CANDIDATES_TOPIC])[CANDIDATES_TOPIC, 0]
        coordinator = self._position(self.kafka.partitions)
        return coordinator is not None and coordinator.offsets[self.kafka.topic(CANDIDATES_TOPIC)] >= self._candidates

    def _engine(self, shard: int) -> Engine:
        engine = Engine(self.setting.engine)
        records = self._state.shards[shard]
        engine.restore({key: value for key, value in records.items() if not key.startswith(SHELL)})
        return engine

    def _note_commit(self, shard: int) -> None:
        if shard < self.kafka.partitions:
            self._balances[shard].take(self._state.shards[shard])

    def _position(self, shard: int) -> Position | None:
        return positions_of(self._state.shards[shard])

    def _offsets(self, position: Position) -> dict[str, int]:
        return {topic: position.offsets.get(self.kafka.topic(topic), 0) for topic in TOPICS}

    def _broken(self, texts: list[str]) -> None:
        for text in texts:
            self._break(text)

    def _break(self, text: str) -> None:
        self.broken.append(f"seed {self.setting.seed}, {self.setting.clock} clock: {text}")


def stage_of(worker: Worker) -> str:
    """How far a worker had come, by its log: starting, recovering, running."""
    events = [line["event"] for line in worker.said]
    if "assigned" in events:
        return "running"
    return "recovering" if "recovered" in events else "starting"


def _epoch_s(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def freeze(worker: Worker) -> None:
    """Let a worker stand still."""
    worker.signal(signal.SIGSTOP)


def thaw(worker: Worker) -> None:
    """Let it go on."""
    worker.signal(signal.SIGCONT)
