"""What nets are fitted to: a folder of a task, or files of events that are made into one.

In: what `train` names, settings of the shop. Out: a folder of a task, and what a card says of it.
Must not know: how nets are fitted. Rule: a task made of events lies in a folder of its own, and only while it is used.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shelftide.report import counting
from shelftide.shop_options import shop_settings


@dataclass(frozen=True, slots=True)
class FitSource:
    """A task to fit nets to.

    Attributes
    ----------
    folder
        Of the task.
    what
        What a user calls it.
    events
        Files that it was made of; empty where it is a folder that was named.
    counts
        Of records, events, dead letters, series and days, where it was made of events.
    """

    folder: Path
    what: str
    events: tuple[str, ...] = ()
    counts: Mapping[str, int] | None = None


def is_task(sources: Sequence[str]) -> bool:
    """Whether what is named is the folder of a task."""
    return len(sources) == 1 and Path(sources[0]).is_dir()


@contextmanager
def fit_source(sources: Sequence[str], options: Mapping[str, Any]) -> Iterator[FitSource]:
    """Give the task that is meant; one made of events is removed afterwards.

    Parameters
    ----------
    sources
        A folder of a task, or files of events.
    options
        Options of the command by names of parameters: settings of the shop, sort.

    Raises
    ------
    models.task.TaskError
        If there is nothing to fit to in the events.
    streams.files.FileError
        If a file cannot be read.
    """
    if is_task(sources):
        yield FitSource(Path(sources[0]), sources[0])
        return
    from models.task import TaskError

    what = ", ".join(sources)
    with tempfile.TemporaryDirectory(prefix="shelftide-task-") as name:
        counts = _write(sources, options, Path(name))
        try:
            yield FitSource(Path(name), what, tuple(sources), counts)
        except TaskError as error:  # a user knows the events, and not the folder
            raise TaskError(str(error).replace(name, what)) from error


def _write(sources: Sequence[str], options: Mapping[str, Any], folder: Path) -> dict[str, int]:
    from streams.replay import merged
    from streams.task_of_events import EventDays

    days = EventDays(shop_settings(options).engine(), time.time_ns() // 1_000_000)
    what = ", ".join(sources)
    with counting(f"reading {what}", "records") as advance:
        for chunk in merged(sources, sort=bool(options.get("sort"))):
            days.feed(chunk)
            advance(len(chunk))
    task = days.finish(_name(sources[0]))
    task.write(folder)
    return task.counts


def _name(source: str) -> str:
    """What a model that was fitted to a file of events is called.

    Examples
    --------
    >>> _name("shop/events.jsonl.zst"), _name("-")
    ('events', 'events')
    """
    return Path(source).name.partition(".")[0].strip("-") or "events"
