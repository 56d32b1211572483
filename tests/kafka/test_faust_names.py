"""Names and signatures inside Faust, mode and aiokafka that our transport overrides or reads.

None of them is promised by anybody. A test here fails when one is renamed, moved or asked for other arguments, before a
worker does something else than we think.
"""

from __future__ import annotations

import asyncio
import inspect
from importlib.metadata import version
from typing import Any

import aiokafka
import faust
import pytest
from aiokafka.consumer.group_coordinator import GroupCoordinator
from faust.assignor.partition_assignor import PartitionAssignor
from faust.transport.consumer import Consumer
from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import ConsumerMessage

from streams.kafka.transport import ChunkConsumer, ChunkTransport, GroupThread, ShardAssignor
from tests.kafka.faust_parts import HERE, an_app, consumer_of

PINNED = {"faust-streaming": "0.15.3", "mode-streaming": "0.7.1", "aiokafka": "0.14.0"}

SIGNATURES = [
    (Consumer.getmany, "self, timeout"),
    (Consumer.perform_seek, "self"),
    (Consumer.resume_partitions, "self, tps"),
    (Consumer.verify_event_path, "self, now, tp"),
    (Consumer.on_partitions_revoked, "self, revoked"),
    (Consumer.on_stop, "self"),
    (Consumer._add_gap, "self, tp, offset_from, offset_to"),
    (Consumer._new_offset, "self, tp"),
    (Consumer._filter_tps_with_pending_acks, "self, topics"),
    (Consumer._get_active_partitions, "self"),
    (driver.Consumer._new_consumer_thread, "self"),
    (driver.AIOKafkaConsumerThread._create_worker_consumer, "self, transport"),
    (driver.AIOKafkaConsumerThread.on_thread_stop, "self"),
    (GroupCoordinator.check_errors, "self"),
    (PartitionAssignor.__init__, "self, app, replicas"),
    (
        ConsumerMessage.__init__,
        "self, topic, partition, offset, timestamp, timestamp_type, headers, key, value, checksum, "
        "serialized_key_size, serialized_value_size, tp, time_in, time_out, time_total, generation_id",
    ),
]


@pytest.mark.parametrize("package", PINNED)
def test_the_versions_are_those_that_were_read(package: str) -> None:
    """Another version is read anew, test by test of this folder, before its number changes here."""
    assert version(package) == PINNED[package]


@pytest.mark.parametrize(("function", "parameters"), SIGNATURES, ids=lambda given: getattr(given, "__qualname__", ""))
def test_a_signature_is_what_we_override_or_call(function: Any, parameters: str) -> None:
    """Names of parameters in their order."""
    assert ", ".join(inspect.signature(function).parameters) == parameters


@pytest.mark.parametrize("ours", [ChunkConsumer, GroupThread, ChunkTransport, ShardAssignor])
def test_what_we_override_takes_what_upstream_passes(ours: type[Any]) -> None:
    """Each of our methods that has one above it takes the same parameters; `super().__init__` aside."""
    above = ours.__mro__[1]
    for name, method in vars(ours).items():
        over = getattr(above, name, None)
        if not inspect.isfunction(method) or not inspect.isfunction(over) or name == "__init__":
            continue
        assert list(inspect.signature(method).parameters) == list(inspect.signature(over).parameters), name


def test_the_consumer_has_what_we_read_and_clear() -> None:
    """Attributes of a consumer: offsets by partition, acks, flow, thread; of an app: the generation."""

    async def main() -> None:
        app = an_app()
        async with consumer_of(app) as consumer:
            assert consumer._read_offset[HERE] is None
            assert consumer._committed_offset[HERE] is None
            assert consumer._acked[HERE] == []
            assert consumer._acked_index[HERE] == set()
            assert len(consumer._unacked_messages) == 0
            assert consumer.flow_active
            assert not consumer.should_stop
            assert consumer.app is app
            assert consumer._thread._consumer is None
            assert isinstance(app.consumer_generation_id, int)
            assert app.crash_reason is None

    asyncio.run(main())


def test_the_drain_looks_up_offsets_in_the_dictionary_that_we_clear() -> None:
    """faust/transport/consumer.py, Consumer._drain_messages binds `_read_offset` once: clear it, never replace it."""
    assert "self._read_offset.__getitem__" in inspect.getsource(Consumer._drain_messages)


def test_the_group_member_has_the_instance_id_that_we_take_away() -> None:
    """aiokafka/consumer/group_coordinator.py: `_group_instance_id` decides whether a stop leaves the group."""
    assert "self._group_instance_id is None" in inspect.getsource(GroupCoordinator._maybe_leave_group)
    assert "group_instance_id" in inspect.signature(aiokafka.AIOKafkaConsumer).parameters


def test_an_app_takes_our_transport_and_assignor() -> None:
    """faust/app/base.py, App.transport and App.assignor; faust/transport/base.py, Transport.Consumer."""

    async def main() -> None:
        app = an_app()
        app.conf.PartitionAssignor = ShardAssignor  # type: ignore[assignment]
        async with consumer_of(app, ChunkConsumer) as consumer:
            assert isinstance(consumer, ChunkConsumer)
            assert isinstance(consumer._thread, GroupThread)
            assert isinstance(app.assignor, ShardAssignor)
            assert app.assignor.replicas == 0
            assert isinstance(app.transport, driver.Transport)
            made = consumer._thread._create_worker_consumer(app.transport)
            await made.stop()
            assert consumer._thread._assignor is app.assignor

    asyncio.run(main())


def test_events_are_made_one_a_message() -> None:
    """faust/topics.py, Topic.decode: what a chunk pays once, and stock Faust for every record.

    The raw codec hands on whatever the message holds.
    """
    chunk: Any = [b"many", b"records"]
    message = ConsumerMessage("orders", 0, 5, 0.0, 0, None, None, chunk, None, 0, 0, HERE)
    app = an_app()

    async def main() -> None:
        topic = app.topic("orders", key_serializer="raw", value_serializer="raw")
        event = await topic.decode(message)
        assert isinstance(event, faust.Event)
        assert event.message is message
        assert event.value is message.value

    asyncio.run(main())
