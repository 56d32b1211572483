"""Logs of a worker on stderr, as lines for people or as JSON; what Faust and aiokafka say goes the same way.

In: log calls of structlog and of the standard library. Out: lines on stderr.
Must not know: who logs. Rule: no secret is ever an argument of a log call; a flood of one message is one line a second.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import structlog

QUIET = ("aiokafka", "faust", "mode", "kafka")
FLOOD_S = 5.0
"""Time in which one logger says the same thing once: without Kafka aiokafka repeats itself sixty times a second."""


class _Flood(logging.Filter):
    """Lets a message of a place in the source through once in `FLOOD_S`."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        at, now = (record.pathname, record.lineno), time.monotonic()
        if now - self._seen.get(at, -FLOOD_S) < FLOOD_S:
            return False
        self._seen[at] = now
        return True


def set_up(form: str, level: str) -> None:
    """Send all logs to stderr in one form: ``text`` or ``json``."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: Any = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([structlog.processors.format_exc_info] if form == "json" else []),
                last,
            ],
        )
    )
    handler.addFilter(_only_floods_of_others(_Flood()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def _only_floods_of_others(flood: _Flood) -> Any:
    """Our own messages are few and all told."""

    def let_through(record: logging.LogRecord) -> bool:
        return not record.name.startswith(QUIET) or flood.filter(record)

    return let_through
