"""Which worker gets which partitions: what Faust's assignor keeps, and when it is not asked.

A shard is partition p of every item topic, so one worker must have all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from faust.assignor.partition_assignor import PartitionAssignor
from faust.transport.drivers import aiokafka as driver

from tests.kafka.faust_parts import an_app, consumer_of

ITEM_TOPICS = ("orders", "clicks", "prices", "stock", "catalog", "reviews")
SINGLE = "candidates"


class Cluster:
    """All that an assignor asks of a cluster."""

    def __init__(self, partitions: int) -> None:
        self._partitions = dict.fromkeys(ITEM_TOPICS, partitions) | {SINGLE: 1}

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """Numbers of a topic's partitions."""
        return set(range(self._partitions[topic])) if topic in self._partitions else None


def assigned(assignor: Any, partitions: int, metadata: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the members get: as it goes over the wire, and as topic -> partitions."""
    wire = assignor.assign(Cluster(partitions), metadata)
    return wire, {member: {topic: sorted(ps) for topic, ps in got.assignment} for member, got in wire.items()}


def generations(partitions: int, rounds: Sequence[str], replicas: int = 0) -> list[dict[str, dict[str, list[int]]]]:
    """What members get as they come and go, each remembering what it had as Faust's do; a letter is a member."""
    topics, before, got = {*ITEM_TOPICS, SINGLE}, dict[str, Any](), []
    app = an_app()
    for members in rounds:
        metadata = {}
        for member in members:
            assignor = PartitionAssignor(app, replicas=replicas)
            if member in before:
                assignor.on_assignment(before[member])
            metadata[member] = assignor.metadata(topics)
        before, plain = assigned(PartitionAssignor(app, replicas=replicas), partitions, metadata)
        got.append(plain)
    return got


def together(got: Mapping[str, Mapping[str, list[int]]]) -> bool:
    """Whether every member has the same partitions of each item topic."""
    return all(len({tuple(topics.get(name, ())) for name in ITEM_TOPICS}) == 1 for topics in got.values())


@pytest.mark.parametrize("partitions", [1, 4, 5, 8])
def test_a_partition_of_all_item_topics_goes_to_one_worker(partitions: int) -> None:
    """faust/assignor/partition_assignor.py, PartitionAssignor._get_copartitioned_groups: relied on, no defect.

    Topics with the same number of partitions and the same subscribers are given out as one.
    """
    for got in generations(partitions, ["a", "ab", "abc", "bc", "bcdef", "f", "fg"]):
        assert together(got)
        shards = sorted(shard for topics in got.values() for shard in topics.get("orders", ()))
        assert shards == list(range(partitions))
        sizes = [len(topics.get("orders", ())) for topics in got.values()]
        assert max(sizes) - min(sizes) <= 1


def test_with_standby_copies_a_new_worker_may_get_nothing() -> None:
    """faust/assignor/copartitioned_assignor.py, CopartitionedAssignor.get_assignment.

    With replicas, and table_standby_replicas is 1 by default, a member gives up only what exceeds its even share
    rounded up: two members with two partitions each leave none for a third.
    """
    *_, got = generations(4, ["ab", "abc"], replicas=an_app().conf.table_standby_replicas)
    assert sorted(len(topics.get("orders", ())) for topics in got.values()) == [0, 2, 2]


@pytest.mark.parametrize(("replicas", "asked"), [(0, RoundRobinPartitionAssignor), (1, PartitionAssignor)])
def test_without_standby_copies_faust_does_not_ask_its_own_assignor(replicas: int, asked: type[Any]) -> None:
    """faust/transport/drivers/aiokafka.py, AIOKafkaConsumerThread._create_worker_consumer."""

    async def main() -> None:
        app = an_app(table_standby_replicas=replicas)
        async with consumer_of(app) as consumer:
            assert isinstance(app.transport, driver.Transport)
            made = consumer._thread._create_worker_consumer(app.transport)
            await made.stop()
            used = consumer._thread._assignor
            assert used is asked or isinstance(used, asked)

    asyncio.run(main())


def test_the_assignor_that_is_asked_then_parts_shards() -> None:
    """aiokafka/coordinator/assignors/roundrobin.py: partitions of all topics in one row, dealt out in turn."""
    metadata = {member: RoundRobinPartitionAssignor.metadata({*ITEM_TOPICS, SINGLE}) for member in "ab"}
    _, got = assigned(RoundRobinPartitionAssignor, 5, metadata)
    assert not together(got)


def test_a_replacement_under_another_url_does_not_survive_its_own_assignment() -> None:
    """faust/assignor/partition_assignor.py, PartitionAssignor.on_assignment: `assert metadata.url == str(self._url)`.

    A broker gives a static member that comes back what it had, url included. On another host, as pods are, the
    assertion ends aiokafka's coordination, and the process lives on without group. So our url is one of the instance.
    """
    here, there = (PartitionAssignor(an_app(canonical_url=f"http://{host}:1")) for host in ("here", "there"))
    wire, _ = assigned(here, 4, {"one": here.metadata(set(ITEM_TOPICS))})
    here.on_assignment(wire["one"])
    with pytest.raises(AssertionError):
        there.on_assignment(wire["one"])
