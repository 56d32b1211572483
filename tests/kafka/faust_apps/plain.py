"""A stock Faust app as one process: it prints what happens to it as lines of JSON.

In: one JSON argument with `id`, `topic` and settings of Faust. Out: lines {"what": …}; exit code 1 after a crash.
Must not know: our transport, the engine. Rule: a record b"boom" makes its agent raise.

What it prints: `assigning` and `assigned` around the handler of on_partitions_assigned, which waits for a first record,
`complete`, `record` with its offset, and `over` with the reason.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import faust
from mode.supervisors import CrashingSupervisor

PATIENCE_S = 20.0


def say(what: str, **more: Any) -> None:
    """Print one line."""
    print(json.dumps({"what": what, **more}), flush=True)  # noqa: T201 - the test reads it


def an_app(topic: str, **settings: Any) -> tuple[faust.App, asyncio.Event]:
    """The app, and the event that its first record was seen."""
    seen = asyncio.Event()
    app = faust.App(web_enabled=False, topic_disable_leader=True, store="memory://", **settings)

    @app.agent(app.topic(topic, key_serializer="raw", value_serializer="raw"), supervisor_strategy=CrashingSupervisor)
    async def reader(stream: Any) -> None:
        async for event in stream.events():
            seen.set()
            say("record", offset=event.message.offset)
            if event.value == b"boom":
                raise RuntimeError("boom")

    return app, seen


async def serve(topic: str, **settings: Any) -> BaseException | None:
    """Run the app until it crashes; the reason comes back."""
    app, seen = an_app(topic, **settings)

    async def on_assigned(*_given: Any, **_more: Any) -> None:
        say("assigning")
        await asyncio.wait_for(seen.wait(), PATIENCE_S)
        say("assigned")

    async def on_complete(*_given: Any, **_more: Any) -> None:
        say("complete")

    app.on_partitions_assigned.connect(on_assigned)
    app.on_rebalance_complete.connect(on_complete)
    await app.start()
    await app.wait_until_stopped()
    reason: BaseException | None = app.crash_reason
    try:
        await asyncio.wait_for(app.stop(), PATIENCE_S)
    except BaseException as error:  # a crash ends the consumer's thread in the middle of a commit: CancelledError
        reason = reason or error
    return reason


if __name__ == "__main__":
    ended = asyncio.run(serve(**json.loads(sys.argv[1])))
    say("over", reason=repr(ended))
    sys.exit(1 if ended else 0)
