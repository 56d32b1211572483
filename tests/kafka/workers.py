"""Worker processes for tests: started, watched by their logs and by what they committed, stopped, killed, suspended.

In: settings of Kafka, a folder. Out: `Workers`, which ends what it started; committed positions and ends of topics.
Must not know: what a worker decides. Rule: a wait has a deadline, and what it waits for is seen from outside: the log,
the state topic.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from shelftide.settings import Settings
from streams.engine import Engine
from streams.kafka.arrivals import ITEM_TOPICS, SHARED_TOPICS
from streams.kafka.ledger import Ledger, Position, of_engine
from streams.kafka.settings import KafkaSettings
from streams.kafka.shard import CANDIDATES_TOPIC
from tests.program import PROGRAM, wait_for

Place = tuple[str, int]
"""A topic, named without the prefix, and a partition of it."""

SHOP = {"time_zone": "Europe/London", "base_currency": "GBP", "max_series": "2000"}
"""Settings of the shop, as the simulator has it."""

TAIL = 200
"""Records at the end of a partition among which the newest that can be read is looked for."""


def environment(kafka: KafkaSettings, **worker: object) -> dict[str, str]:
    """Environment of a worker: this machine's, less settings of ours, and these."""
    made = {name: value for name, value in os.environ.items() if not name.startswith("SHELFTIDE_")}
    made |= {f"SHELFTIDE_{name.upper()}": value for name, value in SHOP.items()}
    made["SHELFTIDE_MODEL__NAME"] = "baseline"  # most tests compare bytes with a replay, and start many workers
    told = kafka.model_dump(mode="json", exclude_defaults=True)
    if kafka.sasl_password is not None:
        told["sasl_password"] = kafka.sasl_password.get_secret_value()
    made |= {f"SHELFTIDE_KAFKA__{name.upper()}": str(value) for name, value in told.items()}
    worker = {"log_format": "json", "metrics_port": -1, **worker}
    return made | {f"SHELFTIDE_WORKER__{name.upper()}": str(value) for name, value in worker.items()}


@dataclass(eq=False)
class Worker:
    """One worker process.

    Attributes
    ----------
    process
        The process.
    log
        File of what it says on stderr.
    """

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def text(self) -> str:
        """Everything it has said."""
        return self.log.read_text(errors="replace")

    @property
    def said(self) -> list[dict[str, Any]]:
        """Its log lines, as far as they are JSON."""
        lines = [line for line in self.text.splitlines() if line.startswith("{") and line.endswith("}")]
        return [json.loads(line) for line in lines]

    def told(self, event: str) -> list[dict[str, Any]]:
        """Log lines of one event."""
        return [line for line in self.said if line["event"] == event]

    @property
    def shards(self) -> set[int]:
        """Shards that it was last assigned; the coordinator is -1."""
        assigned = self.told("assigned")
        return {*assigned[-1]["shards"], *([-1] if assigned[-1]["coordinator"] else [])} if assigned else set()

    def wait_assigned(self, times: int = 1, timeout_s: float = 30) -> None:
        """Wait until shards were assigned and recovered so many times."""
        self._wait(lambda: len(self.told("assigned")) >= times, f"assignment {times}", timeout_s)

    def wait_told(self, event: str, timeout_s: float = 30) -> None:
        """Wait for a log line."""
        self._wait(lambda: self.told(event), repr(event), timeout_s)

    def _wait(self, condition: Any, what: str, timeout_s: float) -> None:
        def holds() -> bool:
            found = bool(condition())
            assert found or self.process.poll() is None, f"exit {self.process.returncode}\n{self.text[-4000:]}"
            return found

        try:
            wait_for(holds, what, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text[-4000:]}") from None

    def signal(self, number: int) -> None:
        """Send a signal: SIGKILL, SIGSTOP, SIGCONT, SIGTERM."""
        self.process.send_signal(number)

    def ended(self, timeout_s: float = 60) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        return self.process.wait(timeout_s)

    def stop(self, timeout_s: float = 60) -> int:
        """Ask it to stop, and wait for its end."""
        self.signal(signal.SIGTERM)
        return self.ended(timeout_s)

    def kill(self) -> None:
        """End it without a word."""
        self.signal(signal.SIGKILL)
        self.ended()


@dataclass
class Workers:
    """Starts workers of one application, and ends them when a test is over.

    Attributes
    ----------
    kafka
        Where, and which application.
    folder
        For logs and state folders.
    settings
        Settings of `[worker]` that all of them get.
    """

    kafka: KafkaSettings
    folder: Path
    settings: Mapping[str, object] = field(default_factory=dict)
    started: list[Worker] = field(default_factory=list)

    def start(
        self,
        instance: str | None = None,
        *,
        command: Sequence[str] | None = None,
        shop: Mapping[str, str] | None = None,
        **settings: object,
    ) -> Worker:
        """Start a worker.

        Parameters
        ----------
        instance
            Its instance id; by default a name of its own.
        command
            What to run instead of `shelftide worker`, with the same environment.
        shop
            Settings of the shop that differ from `SHOP`.
        settings
            Settings of `[worker]`.
        """
        number = len(self.started)
        told = {"instance_id": instance or f"w{number}", "state_folder": self.folder / "state", **self.settings}
        given = environment(self.kafka, **{**told, **settings})
        given |= {f"SHELFTIDE_{name.upper()}": value for name, value in (shop or {}).items()}
        log = self.folder / f"worker-{number}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(command or [*PROGRAM, "worker"], env=given, stdout=out, stderr=out)
        self.started.append(Worker(process, log))
        return self.started[-1]

    def wait_assigned(self, workers: Iterable[Worker], timeout_s: float = 30) -> None:
        """Wait until these workers share all shards and the coordinator, each told so."""
        every = {-1, *range(self.kafka.partitions)}
        chosen = list(workers)

        def shared() -> bool:
            parts = [worker.shards for worker in chosen]
            return all(parts) and sum(map(len, parts)) == len(every) and set().union(*parts) == every

        for worker in chosen:
            worker.wait_assigned(timeout_s=timeout_s)
        wait_for(shared, f"shards shared by {len(chosen)}", timeout_s)

    def wait_committed(self, timeout_s: float = 30) -> None:
        """Wait until everything that lies on the input topics now, and what followed from it, is committed state.

        A worker that has ended by itself meanwhile fails the wait.
        """
        wait_committed(self.kafka, timeout_s, self.started)

    def close(self) -> None:
        """End all that still run."""
        for worker in self.started:
            if worker.process.poll() is None:
                worker.kill()


def command_of(script: Path, *arguments: str) -> list[str]:
    """How to run a script as a worker."""
    return [sys.executable, str(script), *arguments]


# -- what was committed


def position(kafka: KafkaSettings, shard: int, timeout_s: float = 20) -> Position | None:
    """What the state of a shard, or of the coordinator (-1), stands for; nobody is fenced by this."""
    name, partition = ("coordinator", kafka.partitions) if shard < 0 else (f"shard-{shard}", shard)
    return Ledger(kafka, name, partition).read(timeout_s)[1]


def committed(kafka: KafkaSettings, timeout_s: float = 20) -> dict[Place, int]:
    """Offsets that committed state contains, by topic (without prefix) and partition; of what all read, the least."""
    found: dict[Place, int] = {}
    for shard in range(-1, kafka.partitions):
        at = position(kafka, shard, timeout_s)
        for name in [CANDIDATES_TOPIC] if shard < 0 else [*ITEM_TOPICS, *SHARED_TOPICS]:
            offset = at.offsets.get(kafka.topic(name), 0) if at is not None else 0
            place = (name, shard if name in ITEM_TOPICS else 0)
            found[place] = min(offset, found.get(place, offset))
    return found


def ends(kafka: KafkaSettings, topics: Iterable[str], timeout_s: float = 20) -> dict[Place, int]:
    """The offset after the newest record that can be read, of every partition; 0 where there is none.

    Not the partition's end: behind the newest record there may be markers and aborted records.
    """
    consumer = Consumer({
        **kafka.librdkafka(), "group.id": "test-ends", "enable.auto.commit": False, "fetch.wait.max.ms": 10,
        "isolation.level": "read_committed", "enable.partition.eof": True, "auto.offset.reset": "earliest",
    })  # fmt: skip
    seen = consumer.list_topics(timeout=timeout_s).topics
    places = [(name, partition) for name in topics for partition in seen[kafka.topic(name)].partitions]
    found = dict.fromkeys(places, 0)
    try:
        for rows in (TAIL, 1 << 62):
            waiting = {place for place in places if not found[place]}
            tops = [TopicPartition(kafka.topic(name), part) for name, part in waiting]
            for top in tops:
                low, high = _marks(consumer, top, timeout_s)
                top.offset = max(low, high - rows)
            consumer.assign(tops)

            def read(waiting: set[Place] = waiting) -> bool:
                for message in consumer.consume(1_000, 0.02):
                    place = (message.topic() or "").removeprefix(kafka.topic_prefix), message.partition() or 0
                    if message.error() is None:
                        found[place] = max(found[place], (message.offset() or 0) + 1)
                    else:
                        waiting.discard(place)
                return not waiting

            wait_for(read, "the ends of topics", timeout_s)
    finally:
        consumer.close()
    return found


def _marks(consumer: Consumer, place: TopicPartition, timeout_s: float) -> tuple[int, int]:
    """First and next offset of a partition; one that was made a moment ago may not have its leader yet."""
    found: list[tuple[int, int]] = []

    def asked() -> bool:
        with suppress(KafkaException):
            found.append(consumer.get_watermark_offsets(place, timeout_s))
        return bool(found)

    wait_for(asked, f"the offsets of {place}", timeout_s)
    return found[0]


def wait_committed(kafka: KafkaSettings, timeout_s: float = 30, workers: Iterable[Worker] = ()) -> None:
    """Wait until all that lies on the input topics now is committed, then all that shards found of it."""
    before = {worker: worker.process.poll() for worker in workers}

    def reached(topics: Sequence[str]) -> None:
        wanted = ends(kafka, topics)

        def holds() -> bool:
            for worker, code in before.items():
                if worker.process.poll() != code:
                    raise AssertionError(f"a worker ended with {worker.process.returncode}\n{worker.text[-4000:]}")
            have = committed(kafka)
            return all(have[place] >= offset for place, offset in wanted.items())

        wait_for(holds, f"commits up to {wanted}", timeout_s)

    reached([*ITEM_TOPICS, *SHARED_TOPICS])
    reached([CANDIDATES_TOPIC])


def engine_of(kafka: KafkaSettings, shard: int, timeout_s: float = 20) -> Engine:
    """The engine of a shard as its committed state has it."""
    records, _ = Ledger(kafka, f"shard-{shard}", shard).read(timeout_s)
    engine = Engine(Settings.model_validate({**SHOP, "max_series": int(SHOP["max_series"])}).engine(), shard=shard)
    engine.restore(of_engine(records))
    return engine
