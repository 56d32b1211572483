"""Whether Kafka can be reached, and why not, in one sentence; an admin client once it can.

In: `KafkaSettings`, a time to wait. Out: nothing, an admin client, or `UnreachableError`.
Must not know: topics, groups, what a caller wants of Kafka. Rule: a wrong password, user or mechanism ends the wait at
once; whatever may pass by itself is waited for, and no longer than was asked.

librdkafka is asked first, even where kafka-python works afterwards: it says why it cannot connect, and kafka-python
says only that it could not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient
from kafka.errors import KafkaConnectionError, KafkaTimeoutError, RequestTimedOutError

from streams.kafka.settings import KafkaSettings

logging.getLogger("kafka").addHandler(logging.NullHandler())  # else kafka-python's words go to stderr beside ours

_ASK_S = 0.25
"""How long one question for metadata waits before errors are looked at."""

_VAGUE = {KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT}
"""What librdkafka tells besides the reason."""


class UnreachableError(Exception):
    """Kafka does not answer, or does not let us in; one sentence with the reason.

    Attributes
    ----------
    wrong_input
        Whether a setting is wrong, such as the password; otherwise Kafka may come later.
    """

    def __init__(self, sentence: str, *, wrong_input: bool = False) -> None:
        super().__init__(sentence)
        self.wrong_input = wrong_input


def reach(kafka: KafkaSettings, timeout_s: float) -> None:
    """Wait until Kafka answers.

    Raises
    ------
    UnreachableError
        If it does not within `timeout_s`, or refuses user, password or mechanism.
    SettingsError
        If a file of the settings cannot be read.
    """
    reasons: list[KafkaError] = []
    quiet: dict[str, Any] = {"error_cb": reasons.append, "log_level": 0, "reconnect.backoff.max.ms": 1_000}
    try:
        client = AdminClient({**kafka.librdkafka(), **quiet})
    except KafkaException as error:
        raise UnreachableError(f"librdkafka refuses the settings ({_text(error.args[0])})", wrong_input=True) from None
    until_s = time.monotonic() + timeout_s
    while True:
        try:
            client.list_topics(timeout=max(0.01, min(_ASK_S, until_s - time.monotonic())))
        except KafkaException as error:
            client.poll(0)  # lets it tell its errors
            _give_up_if_hopeless(kafka, reasons)
            if time.monotonic() >= until_s:
                raise _away(kafka, timeout_s, [*reasons, error.args[0]]) from None
        else:
            return


def _give_up_if_hopeless(kafka: KafkaSettings, reasons: list[KafkaError]) -> None:
    for reason in reasons:
        if reason.code() == KafkaError._AUTHENTICATION:
            who = f"user {kafka.sasl_username!r}" if kafka.sasl_username else "a connection without user"
            raise UnreachableError(
                f"Kafka at {kafka.bootstrap_servers} refuses {who} ({_text(reason)}); check kafka.sasl_mechanism, "
                "kafka.sasl_username and kafka.sasl_password",
                wrong_input=True,
            )


def _away(kafka: KafkaSettings, timeout_s: float, reasons: list[KafkaError]) -> UnreachableError:
    told = next((reason for reason in reasons if reason.code() not in _VAGUE), reasons[0])
    return UnreachableError(
        f"no Kafka answers at {kafka.bootstrap_servers} within {timeout_s:.3g} s ({_text(told)}); start it, or check "
        "kafka.bootstrap_servers and kafka.security_protocol"
    )


def _text(error: KafkaError) -> str:
    """The reason without the name of the connection, which the sentence has, and without librdkafka's inner state."""
    text = str(error.str()).partition(" (after ")[0]
    head, found, tail = text.partition("/bootstrap: ")
    return tail if found and " " not in head else text


@contextmanager
def admin(kafka: KafkaSettings, timeout_s: float) -> Iterator[KafkaAdminClient]:
    """An admin client for a while; as `reach`. No request of it waits longer than `timeout_s`.

    Raises
    ------
    UnreachableError
        Also if Kafka goes away meanwhile.
    """
    reach(kafka, timeout_s)
    wait_ms = max(1, round(1000 * timeout_s))
    try:
        with KafkaAdminClient(
            **kafka.kafka_python(), bootstrap_timeout_ms=wait_ms, request_timeout_ms=wait_ms
        ) as client:
            yield client
    except (KafkaConnectionError, KafkaTimeoutError, RequestTimedOutError) as error:
        raise UnreachableError(f"Kafka at {kafka.bootstrap_servers} answers no more ({error}); try again") from None
