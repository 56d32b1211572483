"""What happens to workers and brokers in earnest, each as a function over the workers that are there.

In: a `Crew` of an arena under load, its broker where that is to suffer. Out: figures.
Must not know: what is right; the arena checks. Rule: every moment is drawn from the arena's seed or found by looking,
and a worker that ends by itself is started again, as a supervisor would.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from load_tests.kafka.arena import Arena, freeze, thaw
from streams.kafka.broker import LocalBroker
from streams.kafka.settings import KafkaSettings
from tests.kafka.workers import Worker

DIVIDING = b"because it is rebalancing"
"""What aiokafka logs of a worker that learns that the group divides its partitions anew."""

STARTED_S = 60.0
"""A worker has its shards by then, on a machine that does other things besides."""


class Crew:
    """The workers that ought to be there, by instance id."""

    def __init__(self, arena: Arena, *names: str) -> None:
        self.arena = arena
        self.workers: dict[str, Worker] = {name: arena.start(name) for name in names}
        self.newest = names[-1]

    def settle(self) -> None:
        """Wait until they share all shards, each some."""
        self.arena.wait(self._settled, f"shards shared by {sorted(self.workers)}", STARTED_S)

    def _settled(self) -> bool:
        self.watch()
        wanted = {-1, *range(self.arena.kafka.partitions)}
        parts = [worker.shards for worker in self.workers.values()]
        return all(parts) and sum(map(len, parts)) == len(wanted) and set().union(*parts) == wanted

    def watch(self) -> None:
        """Start again what has ended by itself."""
        for name, worker in list(self.workers.items()):
            if worker.process.poll() is not None:
                self.arena.note_end(worker)
                self.start(name)

    def wait_told(self, name: str, event: str) -> None:
        """Wait until one has logged an event; none, where it is empty."""

        def told() -> bool:
            self.watch()
            return not event or bool(self.workers[name].told(event))

        self.arena.wait(told, f"{name} to be {event}", STARTED_S)

    def start(self, name: str) -> Worker:
        """Start one."""
        self.workers[name] = self.arena.start(name)
        self.newest = name
        return self.workers[name]

    def kill(self, name: str) -> str:
        """Kill one; how far it had come comes back. Nobody takes its place yet."""
        return self.arena.kill(self.workers.pop(name))


def kills(crew: Crew, count: int, check_every: int = 5) -> dict[str, Any]:
    """Kill workers at random moments: as they start, recover, run; they come back at once, most by the same name."""
    arena, random = crew.arena, crew.arena.random
    crew.settle()
    stages: Counter[str] = Counter()
    for number in range(count):
        name, until, most_s = random.choice([
            (crew.newest, "", 4.0), (crew.newest, "recovered", 0.3),
            *[(random.choice(sorted(crew.workers)), "assigned", 2.5)] * 3,
        ])  # fmt: skip
        crew.wait_told(name, until)
        arena.rest(random.uniform(0, most_s))
        crew.watch()
        stages[crew.kill(name)] += 1
        arena.rest(random.choice([0.0, 0.0, 0.3]))
        crew.start(name if random.random() < 0.85 else f"r{number}")
        if number % check_every == check_every - 1:
            arena.check()
            arena.wait_progress(1, STARTED_S)
    crew.settle()
    return {"kills": count, "kills by stage": dict(stages)}


def in_learning(crew: Crew, count: int, check_every: int = 2) -> dict[str, Any]:
    """Kill workers, as `kills` does, once every shard learns of what its forecasts come to; then let it learn on."""
    crew.settle()
    crew.arena.wait_learned(1)
    found = kills(crew, count, check_every)
    crew.arena.wait_learned(100)
    return found


def in_recovery(crew: Crew, times: int = 1) -> dict[str, Any]:
    """Kill a worker that runs, and again when the first of its shards is back and the others are not."""
    arena, stages = crew.arena, Counter[str]()
    for _ in range(times):
        crew.settle()
        arena.wait_progress(1)
        name = max(crew.workers, key=lambda name: len(crew.workers[name].shards))
        stages[crew.kill(name)] += 1
        crew.start(name)
        crew.wait_told(name, "recovered")
        stages[crew.kill(name)] += 1
        crew.start(name)
    crew.settle()
    return {"kills": 2 * times, "kills by stage": dict(stages)}


def in_rebalance(crew: Crew, times: int = 1, *, back: bool = True) -> dict[str, Any]:
    """Kill a worker that holds shards while another joins, at a random moment of it.

    Parameters
    ----------
    back
        Whether it comes back at once; otherwise its shards wait for the end of its session.
    """
    arena, stages = crew.arena, Counter[str]()
    for number in range(times):
        crew.settle()
        arena.wait_progress(1)
        holder = max(crew.workers, key=lambda name: len(crew.workers[name].shards))
        log = crew.workers[holder].log
        before = len(log.read_bytes())
        crew.start(f"joins-{number}")
        arena.wait(partial(_divides, log, before), "a rebalance", STARTED_S)
        arena.rest(arena.random.uniform(0, 0.4))
        stages[crew.kill(holder)] += 1
        if back:
            crew.start(holder)
    crew.settle()
    return {"kills": times, "kills by stage": dict(stages)}


def _divides(log: Path, since: int) -> bool:
    return DIVIDING in log.read_bytes()[since:]


def scale(crew: Crew, records: int = 2_000) -> dict[str, Any]:
    """Two workers more, then one less, which leaves in order."""
    arena = crew.arena
    crew.settle()
    arena.wait_progress(records)
    crew.start("more-1")
    crew.start("more-2")
    crew.settle()
    arena.wait_progress(records)
    arena.check()
    began_s, leaver = time.monotonic(), crew.workers.pop("more-1")
    code = leaver.stop()
    stopped_s = time.monotonic() - began_s
    if code != 0:
        arena.broken.append(f"a worker that was asked to stop left with {code}: {leaver.text[-1_000:]}")
    crew.settle()
    taken_s = time.monotonic() - began_s
    arena.wait_progress(records)
    return {"stopped in, s": stopped_s, "taken over after a stop, s": taken_s}


def zombie(crew: Crew) -> dict[str, Any]:
    """Freeze a worker for longer than its session; others take over; thawed, it must end and publish nothing."""
    arena = crew.arena
    crew.settle()
    arena.wait_progress(1)
    name = max(crew.workers, key=lambda name: len(crew.workers[name].shards))
    frozen, began_s = crew.workers.pop(name), time.monotonic()
    freeze(frozen)
    crew.settle()
    taken_s = time.monotonic() - began_s
    arena.wait_progress(1_000)
    thaw(frozen)
    began_s = time.monotonic()
    arena.wait(lambda: frozen.process.poll() is not None, "the end of a worker that was shut out", 30)
    ended_s = time.monotonic() - began_s
    arena.note_end(frozen)
    if "taken over by another worker" not in frozen.text:
        arena.broken.append(f"a worker that was shut out said: {frozen.text[-1_000:]}")
    crew.settle()
    arena.wait_progress(1)
    return {"taken over, s": taken_s, "ended, s": ended_s, "others ended": arena.deaths.total() - 1}


def broker_away(crew: Crew, broker: LocalBroker, seconds: float = 0.0, times: int = 1) -> dict[str, Any]:
    """Kill the broker, and start it again after a while, or at once."""
    arena, back_s = crew.arena, []
    crew.settle()
    for _ in range(times):
        arena.wait_progress(1)
        broker.down(kill=True)
        arena.rest(seconds)
        broker.up()
        began_s = time.monotonic()
        crew.settle()
        arena.wait_progress(2_000)
        back_s.append(time.monotonic() - began_s)
        arena.check()
    return {"going again after, s": max(back_s)}


def disk_full(crew: Crew, broker: LocalBroker) -> dict[str, Any]:
    """Run the broker into the end of its disk; when there is room again, it and the workers go on.

    Parameters
    ----------
    broker
        One that cannot write files beyond a size.
    """
    arena = crew.arena
    crew.settle()
    arena.wait_progress(1)
    _fill(arena.kafka)
    arena.wait(lambda: not broker.status().running, "the end of the disk", 60)
    at_end = arena.progress()
    arena.rest(2.0)
    replace(broker, launcher=()).up()
    crew.settle()
    arena.wait_progress(2_000)
    return {"committed when the disk was full": at_end}


def _fill(kafka: KafkaSettings) -> None:
    """Write to a topic of its own until the broker takes no more."""
    topic = kafka.topic("ballast")
    admin = AdminClient({**kafka.librdkafka(), "log_level": 0})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)
    producer = Producer({**kafka.librdkafka(), "message.timeout.ms": 3_000, "log_level": 0})
    failed: list[object] = []
    while not failed:
        producer.produce(
            topic, os.urandom(900_000), on_delivery=lambda error, _: failed.append(error) if error else None
        )
        producer.flush(10)
