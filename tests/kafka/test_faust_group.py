"""What Faust, mode and aiokafka do in a group on a real broker that our worker steps around.

Each test holds a defect fast as it is, and fails when upstream mends it: then the way around may go.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import InconsistentGroupProtocolError, MessageSizeTooLargeError
from confluent_kafka import Consumer, ConsumerGroupState, Producer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from streams.kafka.broker import LocalBroker
from tests.kafka.faust_parts import an_app, consumer_of

SOON_S = 40.0
PLAIN = Path(__file__).parent / "faust_apps" / "plain.py"


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run one test's coroutine, and give up in time."""
    asyncio.run(asyncio.wait_for(main, SOON_S))


def until(true: Callable[[], Any], what: str) -> Any:
    """Poll until something is true, and give it back."""
    end = time.monotonic() + SOON_S
    while time.monotonic() < end:
        if value := true():
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come to be within {SOON_S:g} s")


async def until_in_loop(true: Callable[[], Any], what: str) -> None:
    """Poll inside a loop until something is true."""
    end = time.monotonic() + SOON_S
    while not true():
        assert time.monotonic() < end, f"{what} did not come to be within {SOON_S:g} s"
        await asyncio.sleep(0.01)


@pytest.fixture
def admin(broker: LocalBroker) -> AdminClient:
    """An administrator of the shared broker."""
    return AdminClient({"bootstrap.servers": broker.bootstrap})


@pytest.fixture
def topic(admin: AdminClient, prefix: str) -> str:
    """A topic of one partition that takes small records only."""
    name = f"{prefix}records"
    admin.create_topics([NewTopic(name, 1, 1, config={"max.message.bytes": "200"})])[name].result(SOON_S)
    return name


def group_of(admin: AdminClient, group: str) -> tuple[ConsumerGroupState, list[str | None]]:
    """The state of a group, and the instance ids of its members, None for those without."""
    described = admin.describe_consumer_groups([group])[group].result(SOON_S)
    return described.state, [member.group_instance_id for member in described.members]


def produce(broker: LocalBroker, topic: str, *values: bytes) -> None:
    """Records into the only partition."""
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(SOON_S) == 0


class Seen(ConsumerRebalanceListener):  # type: ignore[misc]
    """Writes down the generation of each assignment."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self.consumer, self.generations = consumer, list[int]()

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Nothing to do."""

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Write it down."""
        self.generations.append(self.consumer._coordinator.generation)


async def joined(
    stack: AsyncExitStack, broker: LocalBroker, topic: str, **settings: Any
) -> tuple[AIOKafkaConsumer, Seen]:
    """A consumer that has subscribed to `topic` in a group named like it, stopped at the end."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap,
        group_id=topic,
        enable_auto_commit=False,
        heartbeat_interval_ms=100,
        **settings,
    )
    await consumer.start()
    stack.push_async_callback(consumer.stop)
    seen = Seen(consumer)
    consumer.subscribe([topic], listener=seen)
    return consumer, seen


def test_a_static_member_that_stops_does_not_leave(broker: LocalBroker, admin: AdminClient, topic: str) -> None:
    """aiokafka/consumer/group_coordinator.py, GroupCoordinator._maybe_leave_group: not with an instance id.

    Its partitions lie idle until the session times out. Without the id on the coordinator it leaves by its member id,
    which brokers accept of static members too: what our thread does at the end of a graceful stop.
    """

    async def main() -> None:
        for forget, left in ((False, ["one"]), (True, [])):
            async with AsyncExitStack() as stack:
                consumer, seen = await joined(stack, broker, topic, group_instance_id="one")
                await until_in_loop(partial(bool, seen.generations), "an assignment")
                if forget:
                    consumer._coordinator._group_instance_id = None
            assert group_of(admin, topic)[1] == left

    run(main())


def test_two_members_of_one_instance_id_take_turns_for_ever(broker: LocalBroker, topic: str) -> None:
    """aiokafka/consumer/group_coordinator.py, _do_heartbeat and _do_commit_offsets send no instance id.

    So the older one is told that its member id is unknown, instead of that it is fenced; it joins again and throws the
    younger out, which does the same. Both are assigned everything again and again in one and the same generation:
    the generation is no fence, and no sign of a new assignment.
    """

    async def main() -> None:
        async with AsyncExitStack() as stack:
            _, first = await joined(stack, broker, topic, group_instance_id="one")
            await until_in_loop(lambda: first.generations, "an assignment")
            _, second = await joined(stack, broker, topic, group_instance_id="one")
            await until_in_loop(lambda: min(len(first.generations), len(second.generations)) >= 3, "three turns each")
            assert len({*first.generations, *second.generations}) == 1

    run(main())


class OtherAssignor(RoundRobinPartitionAssignor):  # type: ignore[misc]
    """Under a name that the rest of the group does not know."""

    name = "other"


def test_errors_of_the_group_never_reach_faust(broker: LocalBroker, topic: str) -> None:
    """faust/transport/drivers/aiokafka.py, AIOKafkaConsumerThread._fetch_records asks the fetcher past `check_errors`.

    aiokafka's coordination waits until somebody takes the error, and its fetcher, whatever the timeout, for an
    assignment: Faust has a worker without group or heartbeat, and nothing is logged after the first line.
    """

    async def main() -> None:
        async with AsyncExitStack() as stack:
            _, seen = await joined(stack, broker, topic)
            await until_in_loop(lambda: seen.generations, "an assignment")
            refused, _ = await joined(stack, broker, topic, partition_assignment_strategy=[OtherAssignor])
            await until_in_loop(lambda: refused._coordinator._pending_exception, "an error of the group")
            faust_consumer = await stack.enter_async_context(consumer_of(an_app()))
            fetch = asyncio.ensure_future(faust_consumer._thread._fetch_records(refused, set(), timeout=0.01))
            await asyncio.sleep(0)
            with pytest.raises(InconsistentGroupProtocolError):
                await refused.getmany(timeout_ms=100)
            assert not fetch.done()
            fetch.cancel()

    run(main())


def test_flush_says_nothing_of_records_that_were_refused(broker: LocalBroker, topic: str) -> None:
    """faust/transport/drivers/aiokafka.py, Producer.flush waits for batches and never looks at how they ended.

    Consumer._commit_offsets commits after it all the same. Only the future of each record knows.
    """

    async def main() -> None:
        producer = an_app(broker=f"kafka://{broker.bootstrap}").producer
        await producer.start()
        try:
            sent = await producer.send(topic, None, b"x" * 1000, 0, None, None)
            await producer.flush()
            assert isinstance(sent, asyncio.Future)
            assert isinstance(sent.exception(), MessageSizeTooLargeError)
        finally:
            await producer.stop()

    run(main())


class Plain:
    """A running `faust_apps/plain.py`, and what it printed."""

    def __init__(self, broker: LocalBroker, topic: str, group: str, folder: Path, **settings: Any) -> None:
        given = {
            "id": group,
            "topic": topic,
            "broker": f"kafka://{broker.bootstrap}",
            "datadir": str(folder),
            **settings,
        }
        self.process = subprocess.Popen(
            [sys.executable, str(PLAIN), json.dumps(given)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.lines: list[dict[str, Any]] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def said(self, what: str) -> bool:
        """Whether it printed such a line."""
        return any(line["what"] == what for line in self.lines)

    def kill(self) -> None:
        """Kill it, if it still runs, as a power cut would."""
        self.process.kill()
        self.process.wait(SOON_S)
        self._reading.join(SOON_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def plain(*args: Any, **settings: Any) -> Iterator[Plain]:
    """A running process, killed at the end."""
    app = Plain(*args, **settings)
    try:
        yield app
    finally:
        app.kill()


def test_a_record_whose_agent_raised_is_committed(broker: LocalBroker, topic: str, tmp_path: Path) -> None:
    """faust/streams.py, Stream.__aiter__ acknowledges in `finally`; App.on_stop commits what was acknowledged.

    CrashingSupervisor ends the app as it should; the record that raised is lost all the same.
    And faust/app/base.py, App._on_partitions_assigned sends its signal when recovery was started already: records are
    processed while a handler of on_partitions_assigned is still at work, so no state may be brought back there.
    """
    produce(broker, topic, b"fine")
    with plain(broker, topic, topic, tmp_path, broker_commit_interval=0.1) as app:
        until(lambda: app.said("assigned"), "the end of the handler, which waited for a record")
        assert [line["what"] for line in app.lines] == ["assigning", "complete", "record", "assigned"]
        produce(broker, topic, b"boom", b"never seen")
        assert app.process.wait(SOON_S) == 1
        assert [line["offset"] for line in app.lines if line["what"] == "record"] == [0, 1]
    committed = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": topic})
    assert [place.offset for place in committed.committed([Place(topic, 0)], timeout=SOON_S)] == [2]
    committed.close()


def test_after_a_kill_only_a_static_member_is_replaced_at_once(
    broker: LocalBroker, admin: AdminClient, topic: str, tmp_path: Path
) -> None:
    """faust/types/settings/settings.py, consumer_group_instance_id: none by default, with a session of 60 s.

    Without one the group waits for the dead member until its session is over, and everybody else stands still with it.
    """
    produce(broker, topic, b"fine")
    groups: dict[str, dict[str, Any]] = {"static": {"consumer_group_instance_id": "one"}, "dynamic": {}}
    with ExitStack() as stack:

        def start(kind: str) -> Plain:
            group, settings = f"{topic}.{kind}", groups[kind]
            return stack.enter_context(plain(broker, topic, group, tmp_path, canonical_url="http://one", **settings))

        first = {kind: start(kind) for kind in groups}
        for app in first.values():
            until(partial(app.said, "complete"), "a first assignment")
            app.kill()
        second = {kind: start(kind) for kind in groups}
        until(lambda: second["static"].said("complete"), "the assignment of the replacement")
        waiting = ConsumerGroupState.PREPARING_REBALANCING, [None, None]
        until(lambda: group_of(admin, f"{topic}.dynamic") == waiting, "a group that waits for its dead member")
        assert not second["dynamic"].said("complete")
