"""Answers of an inventory system to triggers, written to `replenishment.ack.v1`.

In: an idempotency key and a status. Out: a record that the broker has confirmed.
Must not know: how triggers are read. Rule: the same answer is the same event however often it is given, so that the
engine counts it once.
"""

from __future__ import annotations

import time
from typing import Literal, get_args

import orjson
import xxhash

from streams.kafka.confirmed import Confirmed, UnconfirmedError
from streams.kafka.settings import KafkaSettings

AckStatus = Literal["received", "accepted", "rejected"]
ACK_TOPIC = "replenishment.ack.v1"


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
        self._out = Confirmed(kafka, timeout_s)

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
            self._out.write(ACK_TOPIC, idempotency_key.encode(), event)
        except UnconfirmedError as error:
            raise AnswerError(
                f"the answer {status!r} to {idempotency_key} was {error}; give it again, it counts once"
            ) from error

    def close(self) -> None:
        """Leave the broker."""
        self._out.close()
