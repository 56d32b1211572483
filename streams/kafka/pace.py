"""How forecasts and records share the one interpreter of a worker.

In: word of requests and answers, of all shards of a worker. Out: whether to ask, and how long to wait.
Must not know: shards, models. Rule: live records wait for forecasts a small share of the time at most, whatever a model
does; forecasts of a backlog take a small share of the time.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

BACKLOG_SHARE = 0.1
"""Share of the time that forecasts may take while a backlog is worked off."""

WAY_S, WAY_EVERY_S = 0.15, 1.5
"""Live records give way to forecasts so long, so often."""


class Pace:
    """Of one worker.

    A backlog: forecasts one at a time, then a rest, for most would be outdated at once.

    Live records: nothing is fetched for a moment once forecasts are asked for. A batch of 250 series takes the baseline
    2 ms alone, but it needs the interpreter some 250 times, and each time waits for its turn while records are applied:
    measured 40 to 150 ms. Nothing is lost by letting it go first, and the time that this may take is bounded.
    """

    def __init__(self) -> None:
        self._under_way = 0
        self._rested_s = 0.0
        self._way_from_s = self._way_until_s = 0.0
        self._idle = asyncio.Event()

    def free(self, now_s: float) -> bool:
        """Whether a shard with a backlog may make another request."""
        return not self._under_way and now_s >= self._rested_s

    def begin(self, now_s: float, *, live: bool) -> None:
        """Note a request; those of live shards have the right of way."""
        self._under_way += 1
        self._idle.clear()
        if live and now_s >= self._way_from_s:
            self._way_from_s, self._way_until_s = now_s + WAY_EVERY_S, now_s + WAY_S

    def ran(self, began_s: float, now_s: float) -> None:
        """Note an answer."""
        self._under_way -= 1
        self._rested_s = now_s + (now_s - began_s) / BACKLOG_SHARE
        if not self._under_way:
            self._idle.set()

    async def give_way(self, *, hungry: bool) -> None:
        """Wait while forecasts are under way and have the right of way; not where records of one topic are lacking.

        A shard that has read others ahead of it cannot apply them, and its own forecasts would wait for the fetch.
        """
        if hungry:
            return
        left_s = self._way_until_s - asyncio.get_running_loop().time()
        if self._under_way and left_s > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), left_s)
