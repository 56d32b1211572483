"""Commands to running workers, written to `engine.command.v1`: which model answers.

In: what to do, and a model by its published name. Out: a record that the broker has confirmed.
Must not know: registries, workers. Rule: a command is written under an id that its sender chose, so that one that is
written twice is obeyed once; of commands that concern models the newest is kept.
"""

from __future__ import annotations

import time
from typing import Literal

import orjson

from streams.kafka.confirmed import Confirmed, UnconfirmedError
from streams.kafka.settings import KafkaSettings

COMMAND_TOPIC = "engine.command.v1"
MODEL_KEY = b"model"
TIMEOUT_S = 10.0


class CommandError(Exception):
    """A command was not confirmed; one sentence that says what to do."""

    wrong_input = False


def tell_workers(
    kafka: KafkaSettings,
    what: Literal["promote", "rollback"],
    model: str,
    event_id: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> str:
    """Have all shards answer with a model from their next commit on; the id of the command comes back.

    Parameters
    ----------
    kafka
        Where to.
    what
        `promote` puts the model on top of those that were; `rollback` goes back to it.
    model
        Published name; each worker must find it in its registry.
    event_id
        The same for a command that may have been written before.

    Raises
    ------
    CommandError
        If Kafka does not confirm it in time.
    """
    now_ms = time.time_ns() // 1_000_000
    event_id = event_id or f"cmd_{what}_{model.rpartition(':')[2]}_{now_ms}"
    event = {"type": what, "event_id": event_id, "event_time": now_ms, "model": model}
    out = Confirmed(kafka, timeout_s)
    try:
        out.write(COMMAND_TOPIC, MODEL_KEY, orjson.dumps(event))
    except UnconfirmedError as error:
        raise CommandError(
            f"the command {what!r} was {error}; the registry has changed, running workers may not know: say "
            f"`shelftide models {what} {model} --live`"
        ) from error
    finally:
        out.close()
    return event_id
