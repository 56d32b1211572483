"""Which model answers in each shard, by what the shards say: whether all of them obeyed the last command.

In: `engine.model.v1`, read only. Out: a `Finding`.
Must not know: registries, workers. Rule: the newest record of a shard holds; a shard that never said anything answers
with the model of its settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from streams.kafka.champion import MODEL_TOPIC
from streams.kafka.findings import Finding
from streams.kafka.offsets import Offsets
from streams.kafka.reread import Reread
from streams.kafka.settings import KafkaSettings


class Said(msgspec.Struct):
    """What a shard said last."""

    type: str
    shard: int
    model: str
    reason: str = ""


_SAID: msgspec.json.Decoder[Said] = msgspec.json.Decoder(Said)


def answering(kafka: KafkaSettings, offsets: Offsets, timeout_s: float) -> Finding | None:
    """Whether all shards answer with one model; None where no shard has ever been told which.

    Raises
    ------
    streams.kafka.source.SourceError
        If the topic cannot be read.
    """
    place = (kafka.topic(MODEL_TOPIC), 0)
    start, end = offsets.beginnings([place], timeout_s)[place], offsets.ends([place], timeout_s)[place]
    reread = Reread(kafka, [place[0]], timeout_s)
    newest: dict[int, Said] = {}
    try:
        for message in reread.read({place: (start, end)}):
            with suppress(msgspec.MsgspecError, UnicodeDecodeError):  # nobody but shards should write there
                said = _SAID.decode(message.value() or b"")
                newest[said.shard] = said
    finally:
        reread.close()
    return finding(newest, kafka.partitions) if newest else None


def finding(newest: Mapping[int, Said], shards: int) -> Finding:
    """What the newest words of shards come to.

    Examples
    --------
    >>> print(finding({0: Said("model_promoted", 0, "tea@sha256:1"), 1: Said("model_promoted", 1, "tea@sha256:1")}, 2))
    ok       models: tea@sha256:1 answers in all 2 shards
    """
    facts: dict[str, Any] = {"shards": {str(shard): said.model for shard, said in sorted(newest.items())}}
    refused = [said for _, said in sorted(newest.items()) if said.type == "model_refused"]
    if refused:
        text = f"shard {refused[0].shard} refused the last command ({refused[0].reason})"
        advice = "put the model into the registry of its worker, and give the command again"
        return Finding("models", "warning", text, advice, facts)
    models = {said.model for said in newest.values()}
    silent = [shard for shard in range(shards) if shard not in newest]
    if len(models) > 1 or silent:
        other = f"; shards {silent} have said nothing of it" if silent else ""
        text = f"shards answer with {len(models)} models: {', '.join(sorted(models))}{other}"
        advice = "wait for shards that are behind, or give the last command again (`shelftide models promote --live`)"
        return Finding("models", "warning", text, advice, facts)
    return Finding("models", "ok", f"{models.pop()} answers in all {shards} shards", facts=facts)
