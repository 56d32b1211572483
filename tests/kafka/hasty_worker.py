"""A worker that loses chunks between its fetches and its tasks, as Faust can: it must have them fetched again.

In: what to do, on the command line; settings of the environment. Out: what a worker does.
Must not know: what the test looks at. Rule: but for that it is the worker of the program.

early   the flow begins two seconds after the shards are ready
lossy   the first chunk of each partition of orders is fetched and goes nowhere
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

from faust.types.tuples import TP

from streams.kafka.transport import ChunkConsumer, ChunkTransport
from tests.kafka.unruly_worker import serve


class Early(ChunkConsumer):
    """Shards are ready, and Faust is still busy with the group."""

    async def perform_seek(self) -> None:
        """Take two seconds."""
        await asyncio.sleep(2)
        await super().perform_seek()


class Lossy(ChunkConsumer):
    """Faust drops what its queues hold when a flow begins."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._dropped: set[TP] = set()

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """Leave out the first chunk of each partition of orders."""
        async for place, message in super().getmany(timeout):
            if place.topic.endswith("shop.orders.v1") and place not in self._dropped:
                self._dropped.add(place)
            else:
                yield place, message


def main(word: str) -> int:
    """Run the worker."""
    ChunkTransport.Consumer = {"early": Early, "lossy": Lossy}[word]
    return serve()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
