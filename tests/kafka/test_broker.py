"""The local broker: up, status, down, and each way in which it cannot be."""

from __future__ import annotations

from confluent_kafka.admin import AdminClient

from streams.kafka.broker import LocalBroker


def test_a_broker_that_is_up_answers(broker: LocalBroker, prefix: str) -> None:
    seen = AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=10)
    assert seen.cluster_id
    assert prefix.startswith("t")
