"""`shelftide learn` beside a worker: fits, judges, promotes, survives kill -9, follows who brings a model back."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from models.registry import Registry
from shelftide.cli import run
from streams.files import EventWriter
from streams.kafka.produce import produce
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import apply
from streams.outputs import DEMAND_TOPIC
from tests.kafka.reading import read_all
from tests.kafka.test_worker_end_to_end import LOCKSTEP
from tests.kafka.test_worker_models import changes
from tests.kafka.workers import Worker, Workers, environment
from tests.program import PROGRAM, wait_for
from tests.test_commands_registry import trained

DAY_MS = 86_400_000
BEGUN_MS = 19_800 * DAY_MS
SKUS, FITTED, MORE = 16, 120, 60
"""Items; days before the first generation; days after it."""

TOO_LITTLE = "no generation could be fitted; it is tried again tomorrow"
LEARN = {"every_days": "7", "nets": "1", "steps": "60", "core_share": "1"}


def days(first: int, stop: int) -> list[bytes]:
    """Orders of a shop with a week of its own, a dozen a day and item."""
    random, week = np.random.default_rng(first), np.array([4, 6, 8, 10, 14, 20, 2])
    out = []
    for day in range(first, stop):
        for at in range(3):
            for sku in range(SKUS):
                told = {"type": "order_placed", "event_id": f"{day}-{at}-{sku}", "sku": f"sku-{sku}", "order_id": "o",
                        "event_time": BEGUN_MS + day * DAY_MS + at * 7_200_000 + sku, "unit_price": 2.5,
                        "quantity": int(random.poisson(week[day % 7] * (1 + sku % 4) / 3) + 1),
                        "currency": "GBP"}  # fmt: skip
                out.append(orjson.dumps(told))
    return out


class Shop:
    """A shop on Kafka, with a worker and somebody who learns beside it."""

    def __init__(self, kafka: KafkaSettings, folder: Path) -> None:
        self.kafka, self.folder, self.registry = kafka, folder, Registry(folder / "registry")
        self.workers = Workers(kafka, folder, LOCKSTEP)
        self.models = {"model__registry": str(self.registry.folder), "model__name": "champion"}
        self.learners: list[Worker] = []

    def worker(self) -> Worker:
        """Start the worker."""
        return self.workers.start("one", shop=self.models)

    def learn(self, clock: str = "record", **more: str) -> Worker:
        """Start who learns, with settings of `[learn]` that differ."""
        number = len(self.learners)
        told = environment(self.kafka, clock=clock, state_folder=self.folder / "state")
        told |= {f"SHELFTIDE_{name.upper()}": value for name, value in self.models.items()}
        told |= {f"SHELFTIDE_LEARN__{name.upper()}": value for name, value in {**LEARN, **more}.items()}
        log = self.folder / f"learn-{number}.log"
        with log.open("wb") as out:
            process = subprocess.Popen([*PROGRAM, "learn"], env=told, stdout=out, stderr=out)
        self.learners.append(Worker(process, log))
        return self.learners[-1]

    def sell(self, first: int, stop: int) -> None:
        """Write days of orders to Kafka."""
        file = self.folder / f"days-{first}.jsonl"
        with EventWriter(file) as out:
            out.write(days(first, stop))
        produce([file], self.kafka)

    def close(self) -> None:
        """End all that still run."""
        self.workers.close()
        for learner in self.learners:
            if learner.process.poll() is None:
                learner.kill()


@pytest.fixture
def shop(kafka: KafkaSettings, tmp_path: Path) -> Any:
    made = Shop(kafka, tmp_path)
    digest = made.registry.add(trained(tmp_path / "poor", 1))
    made.registry.promote(digest)
    apply(kafka)
    yield made
    made.close()


def test_a_better_generation_is_promoted_on_all_shards_and_brought_back_by_a_command(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    kafka, poor = shop.kafka, shop.registry.show().name
    before = {path: path.read_bytes() for path in shop.registry.folder.rglob("*.safetensors")}
    shop.sell(0, FITTED)
    worker, learner = shop.worker(), shop.learn()
    learner.wait_told("fitted", 120)
    assert learner.told("fitted")[0]["generation"] == 1
    learner.kill()  # at any moment; it goes on from its newest generation
    shop.sell(FITTED, FITTED + MORE)
    learner = shop.learn()
    learner.wait_told("promoted", 180)
    assert learner.told("taken up")[0]["generation"] == 1
    shop.workers.wait_committed(120)
    promoted = learner.told("promoted")[0]["model"]
    assert shop.registry.show().name == promoted
    said = changes(kafka)
    assert {one["shard"] for one in said} == set(range(kafka.partitions))
    assert {(one["type"], one["model"], one["former"]) for one in said} == {("model_promoted", promoted, poor)}

    where = ["--live", "--bootstrap", kafka.bootstrap_servers, "--prefix", kafka.topic_prefix, "--json"]
    assert run(["models", "rollback", "--registry", str(shop.registry.folder), *where]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == poor
    learner.wait_told("another champion", 60)
    assert learner.told("another champion")[-1]["model"] == poor
    shop.workers.wait_committed(60)
    assert {one["model"] for one in changes(kafka)[-kafka.partitions :]} == {poor}
    assert {path: path.read_bytes() for path in before} == before
    assert learner.stop() == 0
    assert worker.stop() == 0
    models = {orjson.loads(one.value or b"")["model"] for one in read_all(kafka, DEMAND_TOPIC)}
    assert poor in models
    assert models <= {poor, promoted, "baseline-1"}
    assert len(list((shop.folder / "state" / "learn" / kafka.application_id / "line").iterdir())) <= 2


def test_a_second_one_is_refused_and_so_is_what_another_program_kept(shop: Shop) -> None:
    shop.sell(0, 5)
    first = shop.learn()
    first.wait_told(TOO_LITTLE, 60)
    assert "fine-tuning needs 500" in first.told(TOO_LITTLE)[0]["reason"]
    second = shop.learn()
    assert second.ended() == 2
    assert "one is enough" in second.text
    os.kill(first.process.pid, 2)
    assert first.ended() == 0
    kept = shop.folder / "state" / "learn" / shop.kafka.application_id / "standing.json"
    standing = {"champion": shop.registry.show().name, "generation": 1, "born": 5, "origins": [], "judged": 4,
                "trial": {}, "contends": True, "format": 99}  # fmt: skip
    kept.write_bytes(orjson.dumps(standing))
    third = shop.learn()
    assert third.ended() == 1
    assert "has format 99, this program reads 1" in third.text
    assert "Traceback" not in third.text


def test_days_end_by_the_clock_of_the_machine_where_that_is_what_moves_time(shop: Shop) -> None:
    shop.sell(0, 2)
    learner = shop.learn("wall")
    learner.wait_told("caught up", 60)
    assert learner.told("caught up")[0]["day"] == time.time() * 1000 // DAY_MS - 1
    assert learner.stop() == 0


def test_told_to_stop_in_the_middle_of_a_fit_it_ends_and_so_do_its_processes(shop: Shop) -> None:
    shop.sell(0, FITTED)
    learner = shop.learn(steps="100000")
    learner.wait_told("caught up", 60)
    pid = learner.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_for(lambda: len(children.read_text().split()) >= 2, "processes of the fit", 60)
    fitting = children.read_text().split()
    assert learner.stop(30) == 0
    assert "stopped" in learner.text
    assert "Traceback" not in learner.text
    wait_for(lambda: not [one for one in fitting if Path(f"/proc/{one}").exists()], "the end of those processes", 20)
