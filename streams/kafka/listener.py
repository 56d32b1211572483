"""What a worker's parts tell while they work; by default nobody listens.

In: nothing. Out: `Listener`, whose methods do nothing until somebody overrides them.
Must not know: metrics, logs. Rule: a listener returns at once and never raises; what it is told changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from streams.state import Record

if TYPE_CHECKING:
    from streams.kafka.ledger import Placed


class Listener:
    """Told of what happens, by the threads that it happens in."""

    def recovered(self, number: int, task: Any) -> None:
        """Learn that a `streams.kafka.task.Task` has read its state, and was fed nothing yet."""

    def left(self, number: int, task: Any) -> None:
        """Learn that a task is given up."""

    def fetched(self, rows: int) -> None:
        """Learn of a chunk."""

    def arrived(self, topic: str, ages_ms: npt.NDArray[np.int64]) -> None:
        """Learn how old events of a topic, with its prefix, were when Kafka got them."""

    def answered(self, rows: int, seconds: float) -> None:
        """Learn of a batch of forecasts, and what computing it took."""

    def committed(self, seconds: float, written: int, records: Sequence[Record], outputs: Sequence[Placed]) -> None:
        """Learn of a transaction, the bytes of state in it, and the rest of what it held."""

    def aborted(self) -> None:
        """Learn of a transaction that was begun and not committed."""


NOBODY = Listener()
