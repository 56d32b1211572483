"""How a worker that cannot go on ends.

In: nothing. Out: `WorkerError`, apart from `worker.py` since importing Faust takes a second.
Must not know: why. Rule: one sentence and one exit code.
"""

from __future__ import annotations


class WorkerError(Exception):
    """The worker cannot run; one sentence. `code` is the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
