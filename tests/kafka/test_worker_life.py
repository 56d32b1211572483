"""The life of a worker: stopped under load, replaced, doubled, without Kafka, behind a password, with a bad model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from pydantic import SecretStr

from streams.kafka.broker import LocalBroker
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import apply
from streams.outputs import DEMAND_TOPIC
from tests.kafka.reading import read_all
from tests.kafka.test_scram import PASSWORD, add_user
from tests.kafka.test_worker_input import SHARDS, counted, orders, send
from tests.kafka.workers import Workers, command_of
from tests.program import wait_for

DAY_MS = 86_400_000
DAYS = 12
"""More than the baseline calls a cold start."""

SKUS = [f"sku-{n}" for n in range(12)]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Load:
    """Orders of all SKUs, again and again until told to stop."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self.sent = 0
        self._kafka, self._stop = kafka, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            send(self._kafka, [one for sku in SKUS for one in orders(sku, 100, now_ms(), self.sent)])
            self.sent += 100

    def wait(self, rounds: int = 3) -> None:
        """Wait until more was sent."""
        wanted = self.sent + 100 * rounds
        wait_for(lambda: self.sent >= wanted, "load", 60)


def units(kafka: KafkaSettings) -> dict[str, float]:
    """Units of each SKU in committed state."""
    return counted(kafka, now_ms())[0]


def test_a_worker_stopped_under_load_leaves_its_shards_to_the_other_and_nothing_is_lost(
    kafka: KafkaSettings, workers: Workers
) -> None:
    apply(kafka)
    patient: dict[str, Any] = {"session_timeout_ms": 120_000}  # no shards would move by themselves in this test
    first, second = (workers.start(name, **patient) for name in ("one", "two"))
    workers.wait_assigned([first, second], 60)
    with Load(kafka) as load:
        load.wait()
        assert first.stop() == 0
        wait_for(lambda: second.shards == {-1, *range(SHARDS)}, "all shards at the other worker", 60)
        load.wait()
        again = workers.start("one", **patient)
        workers.wait_assigned([second, again], 60)
        load.wait()
        assert second.stop() == 0
        wait_for(lambda: again.shards == {-1, *range(SHARDS)}, "all shards at the first worker again", 60)
    workers.wait_committed(60)
    assert again.stop() == 0
    assert units(kafka) == dict.fromkeys(SKUS, load.sent)
    for worker in workers.started:
        assert not [line for line in worker.said if line["level"] == "critical"]
        assert "Traceback" not in worker.text


def test_of_two_workers_of_one_instance_id_one_ends_and_says_why(kafka: KafkaSettings, workers: Workers) -> None:
    apply(kafka)
    both = [workers.start("same")]
    both[0].wait_assigned()
    both.append(workers.start("same"))
    wait_for(lambda: any(worker.process.poll() is not None for worker in both), "one of them ends", 60)
    [ended] = [worker for worker in both if worker.process.poll() is not None]
    [left] = [worker for worker in both if worker is not ended]
    assert ended.process.returncode == 1
    assert "the same instance id" in ended.text
    assert "Traceback" not in ended.text
    send(kafka, orders("sku", 10, now_ms()))
    workers.wait_committed(60)
    assert left.stop() == 0
    assert units(kafka) == {"sku": 10}


def test_told_to_stop_without_kafka_a_worker_ends_soon_and_says_that_it_could_not_commit(
    own_broker: Callable[..., LocalBroker], tmp_path: Path
) -> None:
    broker = own_broker()
    broker.up()
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap, partitions=SHARDS)
    apply(kafka)
    workers = Workers(kafka, tmp_path)
    try:
        worker = workers.start()
        worker.wait_assigned()
        broker.down(kill=True)
        code = worker.stop(8)  # five seconds are promised, and the machine may be busy
        assert code == 1
        assert "Traceback" not in worker.text
        assert "commit" in worker.text.rstrip().splitlines()[-1]
    finally:
        workers.close()


def test_a_model_that_fails_or_hangs_is_answered_for_and_holds_nothing_up(kafka: KafkaSettings, tmp_path: Path) -> None:
    shops = {word: in_days(kafka, word, tmp_path / word) for word in ("raise", "hang")}
    script = Path(__file__).with_name("unruly_worker.py")
    quick: dict[str, Any] = {"clock": "record", "backlog_forecasts": "all"}
    try:
        for word, workers in shops.items():
            workers.start(command=command_of(script, word), forecast_timeout_s=0.2, forecast_wait_ms=50, **quick)
        for word, workers in shops.items():
            workers.wait_committed(60)
            wait_for(partial(all_answered, workers.kafka), "an answer of the baseline for every item", 60)
            for one in answers(workers.kafka).values():
                assert one["basis"] == "baseline"
                why = "weights" if word == "raise" else "0.2 s"
                assert why in one["reason"] or "rests" in one["reason"], one["reason"]
            assert workers.started[0].stop() == 0
            assert units(workers.kafka) == dict.fromkeys(SKUS, DAYS)
    finally:
        for workers in shops.values():
            workers.close()


def test_a_backlog_without_anything_after_it_leaves_a_forecast_of_every_item(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    workers = in_days(kafka, "past", tmp_path / "past")
    try:
        worker = workers.start(clock="record")  # no tick comes, and by default most forecasts of a backlog are left out
        wait_for(partial(all_answered, workers.kafka), "a forecast of every item", 60)
        assert worker.stop() == 0
    finally:
        workers.close()


def in_days(kafka: KafkaSettings, name: str, folder: Path) -> Workers:
    """An application of its own with an order of every item on each of some days; each closes the day before."""
    told = {"application_id": f"{kafka.application_id}-{name}", "topic_prefix": f"{kafka.topic_prefix}{name}."}
    own = kafka.model_copy(update=told)
    folder.mkdir()
    apply(own)
    start_ms = now_ms() // DAY_MS * DAY_MS - (DAYS + 1) * DAY_MS
    for day in range(DAYS):
        at_ms = start_ms + day * DAY_MS
        send(own, [one for sku in SKUS for one in orders(sku, 1, at_ms, day)], stamp_ms=at_ms)
    return Workers(own, folder)


def answers(kafka: KafkaSettings) -> dict[str, Any]:
    """The newest forecast of the baseline of each item."""
    found = [orjson.loads(record.value or b"{}") for record in read_all(kafka, DEMAND_TOPIC)]
    return {one["sku"]: one for one in found if one["model"] == "baseline-1"}


def all_answered(kafka: KafkaSettings) -> bool:
    """Whether every item has one."""
    return len(answers(kafka)) == len(SKUS)


def test_a_worker_lives_behind_a_password(broker: LocalBroker, kafka: KafkaSettings, tmp_path: Path) -> None:
    add_user(kafka, kafka.application_id)
    closed = kafka.model_copy(update={
        "bootstrap_servers": f"127.0.0.1:{broker.sasl_port}", "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512", "sasl_username": kafka.application_id, "sasl_password": SecretStr(PASSWORD),
    })  # fmt: skip
    apply(closed)
    workers = Workers(closed, tmp_path)
    try:
        worker = workers.start()
        send(closed, orders("sku", 10, now_ms()))
        worker.wait_assigned()
        workers.wait_committed()
        assert worker.stop() == 0
        assert units(closed) == {"sku": 10}
        assert PASSWORD not in worker.text
        wrong = Workers(closed.model_copy(update={"sasl_password": SecretStr("wrong")}), tmp_path / "wrong")
        wrong.folder.mkdir()
        workers.started.append(refused := wrong.start(connect_timeout_s=600))
        assert refused.ended(60) == 2
        assert "refuses user" in refused.text.rstrip().splitlines()[-1]
    finally:
        workers.close()
