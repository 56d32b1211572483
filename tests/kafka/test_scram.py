"""Users with passwords, and encryption, on a real broker: every client gets in by the settings, or says why not."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka import Producer
from kafka import KafkaConsumer
from kafka import TopicPartition as Partition
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion
from pydantic import SecretStr

from shelftide.cli import run
from shelftide.settings_sources import SECRETS
from streams.kafka.broker import LocalBroker
from streams.kafka.broker_properties import HOST, free_port, server_properties
from streams.kafka.connection import UnreachableError, admin, reach
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import apply
from tests.kafka.reading import read_all

PASSWORD = "right; 'and' =long"  # noqa: S105 - of users of brokers that end with the test
TOPIC = "shop.orders.v1"
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


def add_user(plain: KafkaSettings, name: str) -> None:
    """Let a user in by both mechanisms; Kafka takes one of them per request."""
    with admin(plain, 30) as client:
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            wish = UserScramCredentialUpsertion(name, mechanism, password=PASSWORD.encode())
            assert client.alter_user_scram_credentials([wish]) == {name: None}


@pytest.fixture
def user(broker: LocalBroker, kafka: KafkaSettings) -> Callable[..., KafkaSettings]:
    """Settings of a user whom the shared broker knows, by the port that asks for passwords."""
    name = kafka.application_id
    add_user(kafka, name)

    def make(mechanism: Mechanism = "SCRAM-SHA-512", password: str = PASSWORD) -> KafkaSettings:
        return KafkaSettings(
            bootstrap_servers=f"{HOST}:{broker.sasl_port}", security_protocol="SASL_PLAINTEXT",
            sasl_mechanism=mechanism, sasl_username=name, sasl_password=SecretStr(password),
            application_id=name, topic_prefix=kafka.topic_prefix, partitions=1,
        )  # fmt: skip

    return make


User = Callable[..., KafkaSettings]


# -- how each client reads one record


def by_kafka_python(kafka: KafkaSettings) -> bytes:
    consumer = KafkaConsumer(**kafka.kafka_python(), auto_offset_reset="earliest", consumer_timeout_ms=20_000)
    try:
        consumer.assign([Partition(kafka.topic(TOPIC), 0)])
        return bytes(next(iter(consumer)).value)
    finally:
        consumer.close()


def by_aiokafka(kafka: KafkaSettings, given: dict[str, Any] | None = None) -> bytes:
    async def read() -> bytes:
        consumer = AIOKafkaConsumer(**(kafka.aiokafka() if given is None else given), auto_offset_reset="earliest")
        await consumer.start()
        try:
            consumer.assign([TopicPartition(kafka.topic(TOPIC), 0)])
            return bytes((await asyncio.wait_for(consumer.getone(), 20)).value)
        finally:
            await consumer.stop()

    return asyncio.run(read())


def by_faust(kafka: KafkaSettings) -> bytes:
    """What Faust makes of its own credentials, given to the client that it uses."""
    from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

    given = credentials_to_aiokafka_auth(kafka.faust()["broker_credentials"], None)
    return by_aiokafka(kafka, {**given, "bootstrap_servers": kafka.bootstrap_servers})


def by_librdkafka(kafka: KafkaSettings) -> bytes:
    (found,) = read_all(kafka, TOPIC)
    assert found.value is not None
    return found.value


READERS = [by_kafka_python, by_aiokafka, by_faust, by_librdkafka]


def write(kafka: KafkaSettings) -> None:
    """Make the topics, and write one record, as this user."""
    apply(kafka)
    producer = Producer(kafka.librdkafka())
    producer.produce(kafka.topic(TOPIC), b"tea")
    assert producer.flush(30) == 0


# -- passwords


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_every_client_is_let_in_with_the_right_password(mechanism: Mechanism, user: User) -> None:
    kafka = user(mechanism)
    write(kafka)
    assert [read(kafka) for read in READERS] == [b"tea"] * len(READERS)


def test_a_wrong_password_ends_at_once_in_a_sentence_that_does_not_show_it(user: User) -> None:
    kafka = user(password="wrong")  # noqa: S106 - what is tested
    with pytest.raises(UnreachableError) as refused:
        reach(kafka, 600)
    sentence = str(refused.value)
    assert f"refuses user {kafka.sasl_username!r} (SASL authentication error" in sentence
    assert "check kafka.sasl_mechanism, kafka.sasl_username and kafka.sasl_password" in sentence
    assert "wrong" not in sentence
    assert refused.value.wrong_input


def test_a_mechanism_that_the_broker_lacks_is_told_with_those_it_has(user: User) -> None:
    with pytest.raises(UnreachableError, match=r"supported mechanisms: .*SCRAM-SHA-512") as refused:
        reach(user("PLAIN"), 600)
    assert refused.value.wrong_input


def test_a_command_reads_the_password_from_a_secret_file(
    user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kafka = user()
    monkeypatch.setenv(SECRETS, str(tmp_path))
    for name in ("bootstrap_servers", "security_protocol", "sasl_mechanism", "sasl_username", "topic_prefix"):
        monkeypatch.setenv(f"SHELFTIDE_KAFKA__{name.upper()}", str(getattr(kafka, name)))
    (tmp_path / "kafka__sasl_password").write_text(f"{PASSWORD}\n")
    assert run(["topics", "apply", "--partitions", "1"]) == 0
    (tmp_path / "kafka__sasl_password").write_text("stale\n")
    assert run(["topics", "apply", "--partitions", "1"]) == 2
    shown = capsys.readouterr()
    assert "refuses user" in shown.err.splitlines()[-1]
    assert PASSWORD not in shown.out + shown.err


# -- encryption


@dataclass(frozen=True)
class Encrypted:
    """A broker that encrypts: where it wants passwords, where certificates, and files for its clients."""

    plain: KafkaSettings
    password_port: int
    certificate_port: int
    authority: Path
    certificate: Path
    key: Path


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate of loopback that vouches for itself, and its key."""
    made, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", made, "-days", "2",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=IP:{HOST}"], check=True, capture_output=True,
    )  # fmt: skip
    return made, key


@pytest.fixture
def encrypted(own_broker: Callable[..., LocalBroker], tmp_path: Path) -> Encrypted:
    """A broker of this test's own with two encrypted ports."""
    (made, key), (client, client_key) = make_certificate(tmp_path, "broker"), make_certificate(tmp_path, "client")
    (tmp_path / "broker.pem").write_text(key.read_text() + made.read_text())
    port, *ports = free_port(), free_port(), free_port()
    ours = server_properties(port, None, tmp_path / "broker-0" / "data")
    encrypting = f",SASL_SSL://{HOST}:{ports[0]},SSL://{HOST}:{ports[1]}"
    broker = own_broker(
        port=port,
        properties={
            "controller.quorum.voters": ours["controller.quorum.voters"],
            "listeners": ours["listeners"] + encrypting,
            "advertised.listeners": ours["advertised.listeners"] + encrypting,
            "listener.security.protocol.map": ours["listener.security.protocol.map"] + ",SASL_SSL:SASL_SSL,SSL:SSL",
            "listener.name.sasl_ssl.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config":
                "org.apache.kafka.common.security.scram.ScramLoginModule required;",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(tmp_path / "broker.pem"),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(client),
            "listener.name.ssl.ssl.client.auth": "required",
        },
    )  # fmt: skip
    broker.up()
    return Encrypted(KafkaSettings(bootstrap_servers=broker.bootstrap), ports[0], ports[1], made, client, client_key)


def test_every_client_is_let_in_by_password_or_certificate_over_tls(encrypted: Encrypted) -> None:
    add_user(encrypted.plain, "shop")
    by_password = KafkaSettings(
        bootstrap_servers=f"{HOST}:{encrypted.password_port}", security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512", sasl_username="shop", sasl_password=SecretStr(PASSWORD),
        ssl_ca_file=encrypted.authority, topic_prefix="a.", partitions=1,
    )  # fmt: skip
    by_certificate = KafkaSettings(
        bootstrap_servers=f"{HOST}:{encrypted.certificate_port}", security_protocol="SSL",
        ssl_ca_file=encrypted.authority, ssl_certificate_file=encrypted.certificate, ssl_key_file=encrypted.key,
        topic_prefix="b.", partitions=1,
    )  # fmt: skip
    for kafka in (by_password, by_certificate):
        write(kafka)
        assert [read(kafka) for read in READERS] == [b"tea"] * len(READERS)
    for wrong, sentence in [
        (by_password.model_copy(update={"sasl_password": SecretStr("no")}), "refuses user 'shop'"),
        (by_password.model_copy(update={"ssl_ca_file": encrypted.certificate}), "certificate verify failed"),
        (encrypted.plain.model_copy(update={"bootstrap_servers": by_password.bootstrap_servers}), "no Kafka answers"),
    ]:
        with pytest.raises(UnreachableError, match=sentence):
            reach(wrong, 1)
