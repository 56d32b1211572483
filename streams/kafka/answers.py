"""Answers of an inventory system to triggers, written to `replenishment.ack.v1`.

In: an idempotency key and a status. Out: a record that the broker has confirmed.
Must not know: how triggers are read. Rule: the same answer is the same event however often it is given, so that the
engine counts it once.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, Literal, get_args

import orjson
import xxhash
from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError

from streams.kafka.connection import UnreachableError, reach
from streams.kafka.settings import KafkaSettings

AckStatus = Literal["received", "accepted", "rejected"]
ACK_TOPIC = "replenishment.ack.v1"
CLOSE_S = 2.0
_GRACE_S = 1.0
"""The client gives a record up by itself; it is asked a little later, so that it is not left with one on its way."""


class AnswerError(Exception):
    """An answer was not confirmed; one sentence that says what to do."""

    wrong_input = False


def ack_event(idempotency_key: str, status: AckStatus, time_ms: int) -> bytes:
    """Write the event of an answer; its id comes from key and status alone.

    Examples
    --------
    >>> orjson.loads(ack_event("rt_1", "accepted", 5))["event_id"]
    'ack_02a6fe66b7b8bcf4981e8ff077873a00'
    """
    return orjson.dumps(
        {
            "type": "ack",
            "event_id": f"ack_{xxhash.xxh3_128_hexdigest(f'{idempotency_key}|{status}'.encode())}",
            "event_time": time_ms,
            "idempotency_key": idempotency_key,
            "status": status,
        }
    )


class Answers:
    """Writes answers, each confirmed before the call returns.

    Parameters
    ----------
    kafka
        Where to.
    timeout_s
        How long a confirmation may take.
    """

    def __init__(self, kafka: KafkaSettings, timeout_s: float) -> None:
        self._kafka = kafka
        self._timeout_s = timeout_s
        self._producer: Any = None  # connects when there is something to say

    def send(self, idempotency_key: str, status: AckStatus) -> None:
        """Write one answer and wait until the broker has it.

        Raises
        ------
        ValueError
            If the status is none of received, accepted, rejected.
        AnswerError
            If it is not confirmed in time. It may have arrived all the same; giving it again does no harm.
        """
        if status not in get_args(AckStatus):
            raise ValueError(f"status {status!r} is not known; use one of {', '.join(get_args(AckStatus))}")
        event = ack_event(idempotency_key, status, time.time_ns() // 1_000_000)
        try:
            self._connected().send(self._kafka.topic(ACK_TOPIC), event, key=idempotency_key.encode()).get(
                self._timeout_s + _GRACE_S
            )
        except (KafkaError, UnreachableError) as error:
            self.close()  # a producer that failed to write would first go on trying that
            raise AnswerError(
                f"the answer {status!r} to {idempotency_key} was not confirmed within {self._timeout_s:g} s "
                f"({type(error).__name__}: {error}); give it again, it counts once"
            ) from error

    def close(self) -> None:
        """Leave the broker."""
        if self._producer is not None:
            with suppress(KafkaTimeoutError):  # kafka-python does not close while a record is on its way
                self._producer.close(timeout=CLOSE_S)
                self._producer = None

    def _connected(self) -> Any:
        if self._producer is None:
            reach(self._kafka, self._timeout_s)  # a KafkaProducer that cannot connect leaves its thread behind
            wait_ms = min(max(1, round(self._timeout_s * 1000)), 300_000)  # the client allows no more than 540 s
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
