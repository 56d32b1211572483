"""The local broker's life: up, found again, stopped, killed, out of disk, started again on the same data."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from confluent_kafka.cimpl import NewTopic

from streams.kafka.broker import BrokerError, LocalBroker, free_port
from tests.program import finished, started, wait_for

MakeBroker = Callable[..., LocalBroker]

ARRIVED = 0


def quiet(bootstrap: str, **more: Any) -> dict[str, Any]:
    """Configuration of a client that does not print what it cannot reach."""
    return {"bootstrap.servers": bootstrap, "log_level": 0, **more}


def make_topic(broker: LocalBroker, topic: str, **config: str) -> None:
    admin = AdminClient(quiet(broker.bootstrap))
    admin.create_topics([NewTopic(topic, 1, config=config)])[topic].result(20)


def send(broker: LocalBroker, topic: str, *values: bytes) -> list[int]:
    """Send records one after another; the code of each one's error, 0 where it arrived."""
    producer, codes = Producer(quiet(broker.bootstrap, **{"message.timeout.ms": 3_000})), list[int]()

    def told(error: KafkaError | None, message: Message) -> None:
        codes.append(ARRIVED if error is None else error.code())  # comparing an error with None breaks the interpreter

    for value in values:
        producer.produce(topic, value, on_delivery=told)
        producer.flush(20)
    return codes


def values_of(broker: LocalBroker, topic: str, count: int) -> list[bytes | None]:
    consumer = Consumer(quiet(broker.bootstrap, **{"group.id": "reader", "auto.offset.reset": "earliest"}))
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        return [message.value() for message in consumer.consume(count, timeout=20)]
    finally:
        consumer.close()


def lives(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_shared_broker_serves(broker: LocalBroker, prefix: str) -> None:
    make_topic(broker, f"{prefix}t")
    assert send(broker, f"{prefix}t", b"one", b"two") == [ARRIVED, ARRIVED]
    assert values_of(broker, f"{prefix}t", 2) == [b"one", b"two"]
    assert broker.up() is False
    assert broker.status().serving


def test_a_scram_user_is_let_in_with_the_right_password_alone(broker: LocalBroker, prefix: str) -> None:
    user = f"{prefix}ada"
    credentials = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
    admin = AdminClient(quiet(broker.bootstrap))
    admin.alter_user_scram_credentials([UserScramCredentialUpsertion(user, credentials, b"right")])[user].result(20)
    secured = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "SCRAM-SHA-256", "sasl.username": user}
    bootstrap = f"127.0.0.1:{broker.sasl_port}"
    assert AdminClient(quiet(bootstrap, **secured, **{"sasl.password": "right"})).list_topics(timeout=20).cluster_id
    errors: list[KafkaError] = []
    refused = AdminClient(quiet(bootstrap, **secured, **{"sasl.password": "wrong"}, error_cb=errors.append))
    wait_for(lambda: refused.poll(0.05) or errors, "the broker's answer")
    assert errors[0].code() == KafkaError._AUTHENTICATION


def test_a_killed_broker_comes_back_with_its_data_and_its_port(own_broker: MakeBroker) -> None:
    broker = own_broker(properties={"message.max.bytes": "2000"})
    assert broker.up() is True
    make_topic(broker, "t")
    assert send(broker, "t", b"kept", os.urandom(4000)) == [ARRIVED, KafkaError.MSG_SIZE_TOO_LARGE]
    before = broker.status()
    assert broker.down(kill=True) is True
    assert (broker.status().running, broker.down()) == (False, False)
    assert broker.up() is True
    assert broker.status().bootstrap == before.bootstrap
    assert values_of(broker, "t", 1) == [b"kept"]
    assert broker.down() is True
    assert before.pid is not None
    assert not lives(before.pid)


def test_a_full_disk_ends_the_broker_and_room_brings_it_back(own_broker: MakeBroker) -> None:
    full = own_broker(launcher=("prlimit", f"--fsize={12 << 20}"))  # above the 10 MiB that Kafka claims for an index
    full.up()
    make_topic(full, "t")
    chunk, kept = os.urandom(900_000), 0
    while send(full, "t", chunk) == [ARRIVED]:
        kept += 1
    wait_for(lambda: not full.status().running, "the broker to end")
    assert b"File too large" in (full.folder / "broker.log").read_bytes()
    assert kept > 5
    roomy = replace(full, launcher=())
    roomy.up()
    assert values_of(roomy, "t", kept) == [chunk] * kept


def test_the_program_starts_a_broker_that_outlives_it_and_stops_it(java: None, tmp_path: Path) -> None:
    options = ["--folder", str(tmp_path / "b"), "--json"]
    port = str(free_port())
    done = finished("broker", "up", *options, "--port", port, timeout_s=90)
    assert (done.returncode, done.stderr) == (0, b"starting Kafka\n")
    up = json.loads(done.stdout)
    assert (up["started"], up["with"], up["bootstrap"]) == (True, "jars", f"127.0.0.1:{port}")
    try:
        again = finished("broker", "up", *options, "--port", port)
        assert json.loads(again.stdout) == {**up, "started": False}
        found = finished("broker", "status", *options)
        assert (found.returncode, json.loads(found.stdout)["pid"]) == (0, up["pid"])
        other = finished("broker", "up", *options, "--port", str(free_port()))
        assert other.returncode == 2
        assert f"runs already, at 127.0.0.1:{port}".encode() in other.stderr
    finally:
        down = finished("broker", "down", *options, timeout_s=60)
    assert (down.returncode, json.loads(down.stdout)["stopped"]) == (0, True)
    assert not lives(up["pid"])
    assert finished("broker", "status", *options).returncode == 1
    assert json.loads(finished("broker", "down", *options).stdout)["stopped"] is False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_start_leaves_no_broker(java: None, number: int, tmp_path: Path) -> None:
    with started("broker", "up", "--folder", str(tmp_path / "b"), "--port", str(free_port())) as program:
        wait_for((tmp_path / "b" / "pid").exists, "the broker's process")
        wait_for(lambda: (tmp_path / "b" / "pid").read_text(), "its number")
        pid = int((tmp_path / "b" / "pid").read_text())
        program.send_signal(number)
        program.communicate(timeout=20)
    wait_for(lambda: not lives(pid), "its end")


def test_a_broker_that_takes_too_long_is_given_up(own_broker: MakeBroker) -> None:
    broker = own_broker()
    with pytest.raises(BrokerError, match=r"has not started in 0\.05 s; see .*broker\.log"):
        broker.up(timeout_s=0.05)
    assert not broker.status().running
    with socket.socket() as free:
        free.bind(("127.0.0.1", broker.port))
