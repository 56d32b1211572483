"""Parts of Faust without a broker: an app, its consumer, messages as fetched.

In: settings of Faust. Out: an app that is never started, and its consumer inside a running loop.
Must not know: our transport. Rule: nothing of Faust is replaced here; what a test changes, it changes in a subclass.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import faust
from faust.transport.drivers import aiokafka as driver
from faust.types.tuples import TP, ConsumerMessage
from yarl import URL

NOWHERE = "kafka://127.0.0.1:1"
TOPIC = "orders"
HERE = TP(TOPIC, 0)


def an_app(**settings: Any) -> faust.App:
    """An app as Faust's defaults have it, but for state in memory and no broker."""
    return faust.App("defects", **{"broker": NOWHERE, "store": "memory://", **settings})


@asynccontextmanager
async def consumer_of(app: faust.App, kind: type[driver.Consumer] = driver.Consumer) -> AsyncIterator[driver.Consumer]:
    """The app's consumer, acknowledging `TOPIC`, without its thread having started."""

    class Transport(driver.Transport):
        Consumer = kind

    app.transport = Transport([URL(NOWHERE)], app)
    consumer = app.consumer
    assert isinstance(consumer, kind)
    app.topics.add(app.topic(TOPIC, key_serializer="raw", value_serializer="raw"))
    await app.topics._update_indices()  # type: ignore[attr-defined]  # what the subscriber task does first
    try:
        yield consumer
    finally:
        consumer._thread.thread_loop.close()  # made in the constructor; a thread that never ran cannot close it


def a_message(offset: int, tp: TP = HERE, value: bytes = b"") -> ConsumerMessage:
    """A message as the consumer makes them of records."""
    return ConsumerMessage(tp.topic, tp.partition, offset, 0.0, 0, None, None, value, None, 0, 0, tp, generation_id=0)
