"""The typed subscriber on a real Kafka: what is handed out, once, and only when it is committed."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import msgspec
import orjson
import pytest

from shelftide import subscribe
from streams.decode import decode
from streams.events import Ack
from streams.kafka.answers import AnswerError, Answers
from streams.kafka.broker import LocalBroker, free_port
from streams.kafka.connection import UnreachableError
from streams.kafka.decisions import DemandForecast
from streams.kafka.reader import Reader, SubscribeError
from streams.kafka.settings import KafkaSettings
from streams.kafka.subscriber import Subscription
from streams.kafka.topics import apply
from streams.outputs import DEMAND_TOPIC, TRIGGER_TOPIC, Output
from streams.price_forecast import PRICE_TOPIC
from tests.kafka.reading import read_all
from tests.kafka.writing import PARTITIONS, Writer, alerts, decided, value_of

SOON_S = 20.0
"""How long a test waits for what must come."""
QUIET_S = 0.7
"""How long a test waits to see that nothing comes."""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[Output]:
    """Forecasts and triggers."""
    return decided(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def triggers(outputs: list[Output]) -> list[Output]:
    """Revisions of triggers."""
    return [one for one in outputs if one.topic == TRIGGER_TOPIC]


@pytest.fixture
def forecasts(outputs: list[Output]) -> list[Output]:
    """Forecasts of each day."""
    return [one for one in outputs if one.topic == DEMAND_TOPIC]


@pytest.fixture
def kafka(broker: LocalBroker, prefix: str) -> KafkaSettings:
    """A shop of its own with all its topics."""
    settings = KafkaSettings(bootstrap_servers=broker.bootstrap, topic_prefix=prefix, partitions=PARTITIONS)
    apply(settings)
    return settings


def taken(subscription: Subscription[Any], count: int) -> list[Any]:
    """The next items; all but the last are done."""
    out: list[Any] = []
    for _ in range(count):
        item = subscription.receive(SOON_S)
        assert item is not None, f"{len(out)} of {count} came: {subscription.counts}"
        out.append(item)
    return out


def ids(items: list[Any]) -> list[str]:
    """Which triggers."""
    return sorted(item.trigger_id for item in items)


def all_ids(written: list[Output]) -> list[str]:
    """Which outputs."""
    return sorted(one.event_id for one in written)


# -- what is handed out


def test_every_field_of_a_decision_has_its_place_in_a_struct(kafka: KafkaSettings, outputs: list[Output]) -> None:
    for what, written in (
        ("triggers", [one for one in outputs if one.topic == TRIGGER_TOPIC]),
        ("alerts", alerts()),
        ("forecasts", [one for one in outputs if one.topic == DEMAND_TOPIC]),
        ("prices", [one for one in outputs if one.topic == PRICE_TOPIC]),
    ):
        assert written
        Writer(kafka).write(written)
        newest = what in ("forecasts", "prices")
        kept = {one.key if newest else one.event_id.encode(): one for one in written}
        with subscribe(what, kafka=kafka) as subscription:  # type: ignore[call-overload]  # one of the four
            items = taken(subscription, len(kept))
            assert subscription.receive(QUIET_S) is None
        found = {orjson.dumps(_without_none(msgspec.to_builtins(item)), option=orjson.OPT_SORT_KEYS) for item in items}
        told = {orjson.dumps(_without_none(value_of(one)), option=orjson.OPT_SORT_KEYS) for one in kept.values()}
        assert _numbers(found) == _numbers(told)


def _without_none(value: Any) -> Any:
    """JSON without what is missing or empty, for a struct has defaults there; numbers as floats."""
    match value:
        case dict():
            return {name: _without_none(v) for name, v in value.items() if v not in (None, [])}
        case list():
            return [_without_none(v) for v in value]
        case int():
            return float(value)
        case _:
            return value


def _numbers(texts: set[bytes]) -> set[bytes]:
    return {text for text in texts if text}


def test_what_is_not_committed_is_not_seen(kafka: KafkaSettings, triggers: list[Output]) -> None:
    writer = Writer(kafka)
    first, second, third = triggers[:5], triggers[5:10], triggers[10:15]
    writer.write(first)
    writer.begin(second)
    writer.abort()
    with subscribe("triggers", kafka=kafka) as subscription:
        assert ids(taken(subscription, 5)) == all_ids(first)
        writer.begin(third)
        assert subscription.receive(QUIET_S) is None
        writer.commit()
        assert ids(taken(subscription, 5)) == all_ids(third)
        assert subscription.receive(QUIET_S) is None
    assert len(read_all(kafka, TRIGGER_TOPIC, committed=False)) == 15


def test_forecasts_begin_with_the_newest_of_every_item_and_go_on(kafka: KafkaSettings, forecasts: list[Output]) -> None:
    last_ms = max(one.time_ms for one in forecasts)
    old = [one for one in forecasts if one.time_ms < last_ms]
    new = [one for one in forecasts if one.time_ms == last_ms]
    writer = Writer(kafka, transactional=False)
    writer.write([*old, *old[:20]])  # some come out of order: a worker that was fenced out
    newest = {one.key: one.event_id for one in old}
    with subscribe("forecasts", kafka=kafka) as subscription:
        assert {item.forecast_id for item in taken(subscription, len(newest))} == set(newest.values())
        assert subscription.receive(QUIET_S) is None
        writer.write([*new, *old[:10], *new])
        items = taken(subscription, len(new))
        assert {item.forecast_id for item in items} == {one.event_id for one in new}
        assert subscription.receive(QUIET_S) is None
        assert subscription.counts.handed_out == len(newest) + len(new)
    item = items[0]
    assert isinstance(item, DemandForecast)
    assert item.still_to_come(days=2, level=0.9) >= item.still_to_come(days=1, level=0.9) >= 0


def test_a_reader_of_what_comes_next_sees_nothing_of_the_past(kafka: KafkaSettings, forecasts: list[Output]) -> None:
    writer = Writer(kafka, transactional=False)
    writer.write(forecasts[:8])
    with subscribe("forecasts", kafka=kafka, start="latest") as subscription:
        assert subscription.receive(QUIET_S) is None
        writer.write(forecasts[-3:])
        assert len(taken(subscription, 3)) == 3


def test_tombstones_and_what_cannot_be_read_are_counted_and_passed_over(
    kafka: KafkaSettings, forecasts: list[Output], triggers: list[Output]
) -> None:
    writer = Writer(kafka)
    bad = [b"{", b"", b"\xff", b"[]", b"[" * 100_000, b'{"as_of":1,"revision":1}', b'{"trigger_id":"x"}', None]
    for topic, good in ((DEMAND_TOPIC, forecasts[-1]), (TRIGGER_TOPIC, triggers[0])):
        spoiled = [Output(topic, b"bad%d" % n, value, f"b{n}", 0) for n, value in enumerate(bad)]
        writer.write([*spoiled, good, *spoiled])
    deleted = forecasts[0]
    assert deleted.key != forecasts[-1].key
    writer.write([deleted, Output(DEMAND_TOPIC, deleted.key, None, "gone", 0)])
    for what, tombstones in (("forecasts", 3), ("triggers", 2)):
        with subscribe(what, kafka=kafka) as subscription:  # type: ignore[call-overload]  # either
            taken(subscription, 1)
            assert subscription.receive(QUIET_S) is None
            assert subscription.counts.tombstones == tombstones
            assert subscription.counts.unreadable == 2 * (len(bad) - 1)


def test_an_id_that_comes_twice_is_handed_out_once(kafka: KafkaSettings, triggers: list[Output]) -> None:
    Writer(kafka).write([*triggers, *triggers[::-1]])
    with subscribe("triggers", kafka=kafka) as subscription:
        assert ids(taken(subscription, len(triggers))) == all_ids(triggers)
        assert subscription.receive(QUIET_S) is None
        assert subscription.counts.repeated == len(triggers)


@pytest.mark.parametrize("codec", ["none", "gzip", "zstd"])
def test_codecs_that_need_no_further_package_are_read(codec: str, kafka: KafkaSettings, triggers: list[Output]) -> None:
    Writer(kafka, settings={"compression.codec": codec, "linger.ms": 50}).write(triggers * 20)
    with subscribe("triggers", kafka=kafka) as subscription:
        assert ids(taken(subscription, len(triggers))) == all_ids(triggers)


def test_a_codec_that_is_not_installed_is_named(kafka: KafkaSettings, triggers: list[Output]) -> None:
    Writer(kafka, settings={"compression.codec": "lz4", "linger.ms": 50}).write(triggers * 20)
    with subscribe("triggers", kafka=kafka) as subscription, pytest.raises(SubscribeError, match="lz4"):
        subscription.receive(SOON_S)


# -- how far a reader is


def test_an_item_is_done_when_its_handler_has_returned(kafka: KafkaSettings, triggers: list[Output]) -> None:
    Writer(kafka).write(triggers[:10])
    done: list[str] = []

    def handle(trigger: Any) -> None:
        if len(done) == 4:
            raise RuntimeError("the stock system is down")
        done.append(trigger.trigger_id)

    with subscribe("triggers", kafka=kafka, group_id=f"{kafka.topic_prefix}g") as subscription:
        with pytest.raises(RuntimeError):
            subscription.run(handle)
        with pytest.raises(RuntimeError):
            subscription.run(handle)
        assert subscription.counts.handed_out == 6
    with subscribe("triggers", kafka=kafka, group_id=f"{kafka.topic_prefix}g") as subscription:
        rest = taken(subscription, 6)
        assert sorted([*done, *ids(rest)]) == all_ids(triggers[:10])


def test_an_item_that_a_loop_breaks_off_at_is_not_done_unless_it_is_committed(
    kafka: KafkaSettings, triggers: list[Output]
) -> None:
    Writer(kafka).write(triggers[:6])
    seen = []
    for commits in (False, True, True):
        with subscribe("triggers", kafka=kafka, group_id=f"{kafka.topic_prefix}g") as subscription:
            for trigger in subscription:
                seen.append(trigger.trigger_id)
                if commits:
                    subscription.commit()
                break
    assert seen[0] == seen[1] != seen[2]


def test_a_reader_without_a_group_begins_at_the_beginning_each_time(
    kafka: KafkaSettings, triggers: list[Output]
) -> None:
    Writer(kafka).write(triggers[:6])
    for _ in range(2):
        with subscribe("triggers", kafka=kafka) as subscription:
            assert ids(taken(subscription, 6)) == all_ids(triggers[:6])
            subscription.commit()


def test_readers_of_a_group_share_the_items_and_take_over_from_each_other(
    kafka: KafkaSettings, triggers: list[Output]
) -> None:
    writer, group = Writer(kafka), f"{kafka.topic_prefix}g"
    seen: list[tuple[int, str]] = []
    readers = [subscribe("triggers", kafka=kafka, group_id=group) for _ in range(2)]
    threads = [
        threading.Thread(target=reader.run, args=(lambda item, n=n: seen.append((n, item.trigger_id)),))
        for n, reader in enumerate(readers)
    ]
    for thread in threads:
        thread.start()
    expected = all_ids(triggers[:20])
    again = 0
    while {n for n, _ in seen} != {0, 1}:  # until both have partitions, and have had something of them
        writer.write([_renamed(one, again) for one in triggers[:20]])
        again += 1
        assert again < 100
        time.sleep(0.3)
    readers[0].stop()
    threads[0].join(SOON_S)
    readers[0].close()
    writer.write(triggers[:20])
    _wait(lambda: set(expected) <= {name for n, name in seen if n == 1})
    written = {f"{name}~{n}" for n in range(again) for name in expected} | set(expected)
    _wait(lambda: {name for _, name in seen} == written)
    readers[1].stop()
    threads[1].join(SOON_S)
    readers[1].close()


def _renamed(output: Output, n: int) -> Output:
    value = value_of(output) | {"trigger_id": f"{output.event_id}~{n}"}
    return Output(output.topic, output.key, orjson.dumps(value), value["trigger_id"], output.time_ms)


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def test_a_group_of_forecast_readers_gives_each_item_to_one_and_anew_to_who_takes_over(
    kafka: KafkaSettings, forecasts: list[Output]
) -> None:
    Writer(kafka, transactional=False).write(forecasts)
    newest = {one.key: one.event_id for one in forecasts}
    group = f"{kafka.topic_prefix}g"
    first = subscribe("forecasts", kafka=kafka, group_id=group)
    assert {item.forecast_id for item in taken(first, len(newest))} == set(newest.values())
    second = subscribe("forecasts", kafka=kafka, group_id=group)
    got: list[str] = []
    until = time.monotonic() + SOON_S
    while not got:
        assert time.monotonic() < until
        assert first.receive(0.1) is None
        got += [item.forecast_id for item in [second.receive(0.1)] if item is not None]
    while item := second.receive(QUIET_S):
        got.append(item.forecast_id)
        assert first.receive(0) is None
    assert set(got) < set(newest.values())
    first.close()
    while len(got) < len(newest):
        assert time.monotonic() < until + SOON_S
        got += [item.forecast_id for item in [second.receive(0.1)] if item is not None]
    assert Counter(got) == Counter(newest.values())
    second.close()


def test_a_slow_reader_shows_that_it_lives_and_loses_nothing(kafka: KafkaSettings, triggers: list[Output]) -> None:
    Writer(kafka).write(triggers)
    reader = Reader(kafka, TRIGGER_TOPIC, group_id=f"{kafka.topic_prefix}g", keep_alive_s=0.0)
    values = []
    for _ in triggers:
        record = reader.next(SOON_S)
        assert record is not None
        values.append(record.value)
        reader.finish(record)
    assert Counter(values) == Counter(one.value for one in triggers)
    assert reader.next(QUIET_S) is None
    reader.close()


# -- answers


def test_an_answer_is_one_event_however_often_it_is_given(kafka: KafkaSettings, triggers: list[Output]) -> None:
    Writer(kafka).write(triggers[:1])
    with subscribe("triggers", kafka=kafka) as subscription:
        trigger = taken(subscription, 1)[0]
        for status in ("received", "accepted", "accepted"):
            subscription.ack(trigger, status)
        subscription.ack(trigger.idempotency_key, "accepted")
        with pytest.raises(ValueError, match="'maybe' is not known; use one of received, accepted, rejected"):
            subscription.ack(trigger, "maybe")  # type: ignore[arg-type]  # that is the point
    found = read_all(kafka, "replenishment.ack.v1")
    assert {record.key for record in found} == {trigger.idempotency_key.encode()}
    batch, letters = decode(
        [one.value for one in found], clock_ms=time.time_ns() // 1_000_000, topic="replenishment.ack.v1"
    )
    assert letters == []
    events = [event for _, event in batch.facts if isinstance(event, Ack)]
    assert [event.status for event in events] == ["received", "accepted", "accepted", "accepted"]
    assert {event.idempotency_key for event in events} == {trigger.idempotency_key}
    assert events[0].event_id != events[1].event_id == events[2].event_id == events[3].event_id


def test_an_answer_that_finds_no_kafka_says_so() -> None:
    answers = Answers(KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}"), 0.5)
    with pytest.raises(AnswerError, match=r"'received' to rt_1 was not confirmed within 0.5 s .*no Kafka answers"):
        answers.send("rt_1", "received")
    answers.close()


# -- a broker that goes and comes


@pytest.fixture
def hushed(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """kafka-python's log of failed connections is not kept, for with it their sockets would be; then they are swept."""
    caplog.set_level(logging.CRITICAL, "kafka")
    yield
    gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # kafka-python drops those that never connected
def test_a_broker_that_was_away_costs_nothing_but_time(
    own_broker: Callable[..., LocalBroker], triggers: list[Output], hushed: None
) -> None:
    local = own_broker()
    local.up()
    kafka = KafkaSettings(bootstrap_servers=local.bootstrap, partitions=PARTITIONS)
    apply(kafka)
    Writer(kafka).write(triggers[:10])
    with subscribe("triggers", kafka=kafka, group_id="g", connect_timeout_s=2) as subscription:
        first = taken(subscription, 8)
        subscription.ack(first[1], "accepted")
        local.down(kill=True)
        with pytest.raises(AnswerError, match=r"was not confirmed within 2 s .*; give it again, it counts once"):
            subscription.ack(first[0], "accepted")
        first += taken(subscription, 2)  # they were fetched before
        assert subscription.receive(QUIET_S) is None
        local.up()
        _until(lambda: subscription.ack(first[0], "accepted"))
        Writer(kafka).write(triggers[10:20])
        rest = taken(subscription, 10)
        assert ids([*first, *rest]) == all_ids(triggers[:20])
        subscription.commit()
    with subscribe("triggers", kafka=kafka, group_id="g") as subscription:
        assert subscription.receive(2 * QUIET_S) is None


def _until(answer: Callable[[], None]) -> None:
    """Give an answer until it is confirmed."""
    for _ in range(10):
        with suppress(AnswerError):
            return answer()
    raise AssertionError("no answer was confirmed")


def test_without_kafka_or_topic_it_ends_in_one_sentence(broker: LocalBroker, prefix: str) -> None:
    where = f"127.0.0.1:{free_port()}"
    with pytest.raises(UnreachableError, match=f"no Kafka answers at {where} within 0.5 s"):
        subscribe("alerts", bootstrap_servers=where, connect_timeout_s=0.5)
    with pytest.raises(SubscribeError, match=f"topic '{prefix}alerts.price.v1' does not exist"):
        subscribe("alerts", bootstrap_servers=broker.bootstrap, topic_prefix=prefix)
    with pytest.raises(ValueError, match="'orders' cannot be subscribed to"):
        subscribe("orders", bootstrap_servers=broker.bootstrap)  # type: ignore[call-overload]  # that is the point
