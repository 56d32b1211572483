"""`shelftide subscribe`, and the examples of docs/subscribe.md, each as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import orjson
import pytest

from streams.kafka.broker import LocalBroker, free_port
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import apply
from streams.outputs import DEMAND_TOPIC, TRIGGER_TOPIC, Output
from tests.kafka.reading import read_all
from tests.kafka.writing import PARTITIONS, Writer, alerts, decided, value_of
from tests.program import finished, wait_for

PAGE = Path(__file__).parents[2] / "docs" / "subscribe.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[Output]:
    """Forecasts and triggers."""
    return decided(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def kafka(broker: LocalBroker, prefix: str) -> KafkaSettings:
    """A shop of its own with all its topics."""
    settings = KafkaSettings(bootstrap_servers=broker.bootstrap, topic_prefix=prefix, partitions=PARTITIONS)
    apply(settings)
    return settings


def at(kafka: KafkaSettings) -> list[str]:
    """Options that name this Kafka."""
    return ["--bootstrap", kafka.bootstrap_servers, "--prefix", kafka.topic_prefix]


def of(topic: str, outputs: list[Output]) -> list[Output]:
    """Outputs of one topic."""
    return [one for one in outputs if one.topic == topic]


@contextmanager
def running(told: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose standard output goes to a file; it does not outlive the test."""
    with told.open("wb") as out:
        program = subprocess.Popen(
            [sys.executable, *arguments], stdout=out, stderr=subprocess.PIPE, env={**os.environ, **environment}
        )
        try:
            yield program
        finally:
            program.kill()
            program.communicate()


def example(number: int, kafka: KafkaSettings, told: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """An example of the page, running."""
    return running(told, "-c", BLOCKS[number], KAFKA=kafka.bootstrap_servers, PREFIX=kafka.topic_prefix)


# -- the command


def test_items_are_printed_as_they_lie_on_the_topic(kafka: KafkaSettings, outputs: list[Output]) -> None:
    triggers = of(TRIGGER_TOPIC, outputs)
    Writer(kafka).write(triggers)
    options = ["--from-start", "--json", "--limit", str(len(triggers))]
    done = finished("subscribe", "triggers", *at(kafka), *options)
    assert done.returncode == 0, done.stderr
    assert Counter(done.stdout.splitlines()) == Counter(one.value for one in triggers)
    assert done.stderr.decode() == f"triggers at {kafka.bootstrap_servers}; Ctrl-C ends\n"


def test_people_read_a_line_an_item(kafka: KafkaSettings, outputs: list[Output]) -> None:
    Writer(kafka).write([*outputs, *alerts()])
    newest = {one.key for one in of(DEMAND_TOPIC, outputs)}
    shown = {}
    for what, count in (("forecasts", len(newest)), ("prices", 1), ("triggers", 1), ("alerts", 3)):
        done = finished("subscribe", what, *at(kafka), "--from-start", "--limit", str(count))
        assert (done.returncode, done.stdout.count(b"\n")) == (0, count), done.stderr
        shown[what] = done.stdout.decode()
    assert re.search(r"UTC  \S+ default  next 7 days: [\d.]+ \(80 %: [\d.]+ to [\d.]+\)", shown["forecasts"])
    assert re.search(
        r"UTC  \S+ default web  [\d.]+ GBP, in 7 days another with \d+%, [\d.]+ on average; (flat|up|down) in 30",
        shown["prices"],
    )
    first = value_of(of(TRIGGER_TOPIC, outputs)[0])
    assert f"[{first['idempotency_key']} revision 1]" in shown["triggers"] or "revision" in shown["triggers"]
    lines = sorted(shown["alerts"].splitlines())
    assert any("firing  critical  feed_fault  3 price lines, price 0 GBP" in line for line in lines)
    assert any(
        "decimal_shift  TEA default web, price 0.999 GBP, expected 9.99, 360.00 GBP at risk, revert" in line
        for line in lines
    )


def test_without_from_start_only_what_comes_next_is_shown_until_interrupted(
    kafka: KafkaSettings, outputs: list[Output], tmp_path: Path
) -> None:
    writer, triggers = Writer(kafka), of(TRIGGER_TOPIC, outputs)
    writer.write(triggers[:2])
    told = tmp_path / "told"
    with running(told, "-m", "shelftide.cli", "subscribe", "triggers", *at(kafka), "--json") as program:
        assert program.stderr is not None
        assert b"Ctrl-C ends" in program.stderr.readline()
        writer.write(triggers[2:3])
        wait_for(lambda: told.read_bytes().count(b"\n") == 1, "the trigger")
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=20)
    assert (program.returncode, err) == (130, b"interrupted\n")
    assert told.read_bytes() == (triggers[2].value or b"") + b"\n"


def test_a_group_goes_on_where_it_was(kafka: KafkaSettings, outputs: list[Output]) -> None:
    triggers = of(TRIGGER_TOPIC, outputs)[:4]
    Writer(kafka).write(triggers)
    options = [*at(kafka), "--from-start", "--json", "--group", f"{kafka.topic_prefix}g", "--limit", "2"]
    lines = [line for _ in range(2) for line in finished("subscribe", "triggers", *options).stdout.splitlines()]
    assert Counter(lines) == Counter(one.value for one in triggers)


def test_without_kafka_or_topic_it_ends_in_one_sentence_and_code_1(broker: LocalBroker, prefix: str) -> None:
    where = f"127.0.0.1:{free_port()}"
    environment = {**os.environ, "SHELFTIDE_WORKER__CONNECT_TIMEOUT_S": "0.5"}
    done = finished("subscribe", "alerts", "--bootstrap", where, env=environment)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().startswith(f"shelftide: no Kafka answers at {where} within 0.5 s")
    assert done.stderr.count(b"\n") == 1
    done = finished("subscribe", "alerts", "--bootstrap", broker.bootstrap, "--prefix", prefix)
    assert done.returncode == 1
    assert done.stderr.decode() == (
        f"shelftide: topic '{prefix}alerts.price.v1' does not exist on {broker.bootstrap}; create it with "
        "`shelftide topics apply`\n"
    )


# -- the page


def test_the_example_of_triggers_orders_each_once_and_answers(
    kafka: KafkaSettings, outputs: list[Output], tmp_path: Path
) -> None:
    assert BLOCKS[0].count("\n") <= 21
    triggers = of(TRIGGER_TOPIC, outputs)
    Writer(kafka).write(triggers)
    told = tmp_path / "told"
    with example(0, kafka, told) as program:
        wait_for(lambda: told.read_bytes().count(b"\n") == len(triggers), "the triggers")
        program.send_signal(signal.SIGTERM)
        _, err = program.communicate(timeout=20)
    assert (program.returncode, err) == (0, b"")
    open_ones = [value_of(one) for one in triggers if value_of(one)["status"] in ("open", "updated")]
    answers = [orjson.loads(record.value or b"") for record in read_all(kafka, "replenishment.ack.v1")]
    assert Counter(answer["idempotency_key"] for answer in answers) == Counter(
        one["idempotency_key"] for one in open_ones
    )
    assert told.read_text().splitlines()[-1].endswith(" orders stand")


def test_the_example_of_forecasts_names_every_item(kafka: KafkaSettings, outputs: list[Output], tmp_path: Path) -> None:
    Writer(kafka, transactional=False).write(of(DEMAND_TOPIC, outputs))
    told = tmp_path / "told"
    with example(1, kafka, told) as program:
        _, err = program.communicate(timeout=30)
    assert (program.returncode, err) == (0, b"")
    skus = {value_of(one)["sku"] for one in of(DEMAND_TOPIC, outputs)}
    assert {line.split(" at ")[0] for line in told.read_text().splitlines()} == skus


def test_the_other_examples_run() -> None:
    for block in BLOCKS[2:]:
        exec(compile(block, str(PAGE), "exec"), {})  # noqa: S102 - that is the test
