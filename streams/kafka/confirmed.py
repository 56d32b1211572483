"""Records of which each is confirmed by the broker before the call returns: answers, commands.

In: a topic, a key, a value. Out: a record that the broker has.
Must not know: what records mean. Rule: who is told that a record was not confirmed may write it again; its id must then
be the same, for it may have arrived.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError

from streams.kafka.connection import UnreachableError, reach
from streams.kafka.settings import KafkaSettings

CLOSE_S = 2.0
_GRACE_S = 1.0
"""The client gives a record up by itself; it is asked a little later, so that it is not left with one on its way."""


class UnconfirmedError(Exception):
    """A record was not confirmed; a few words that say why."""

    wrong_input = False


class Confirmed:
    """Writes records one by one.

    Parameters
    ----------
    kafka
        Where to.
    timeout_s
        How long a confirmation may take.
    """

    def __init__(self, kafka: KafkaSettings, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._kafka = kafka
        self._producer: Any = None  # connects when there is something to say

    def write(self, topic: str, key: bytes, value: bytes) -> None:
        """Write a record to a topic, named without the prefix, and wait until the broker has it.

        Raises
        ------
        UnconfirmedError
            If it is not confirmed in time. It may have arrived all the same.
        """
        try:
            self._connected().send(self._kafka.topic(topic), value, key=key).get(self.timeout_s + _GRACE_S)
        except (KafkaError, UnreachableError) as error:
            self.close()  # a producer that failed to write would first go on trying that
            why = f"not confirmed within {self.timeout_s:g} s ({type(error).__name__}: {error})"
            raise UnconfirmedError(why) from error

    def close(self) -> None:
        """Leave the broker."""
        if self._producer is not None:
            with suppress(KafkaTimeoutError):  # kafka-python does not close while a record is on its way
                self._producer.close(timeout=CLOSE_S)
                self._producer = None

    def _connected(self) -> Any:
        if self._producer is None:
            reach(self._kafka, self.timeout_s)  # a KafkaProducer that cannot connect leaves its thread behind
            wait_ms = min(max(1, round(self.timeout_s * 1000)), 300_000)  # the client allows no more than 540 s
            self._producer = KafkaProducer(
                **self._kafka.kafka_python(),
                acks="all",
                max_block_ms=wait_ms,
                request_timeout_ms=wait_ms,
                delivery_timeout_ms=wait_ms,
                bootstrap_timeout_ms=wait_ms,
                reconnect_backoff_max_ms=1_000,
                allow_auto_create_topics=False,
            )
        return self._producer
