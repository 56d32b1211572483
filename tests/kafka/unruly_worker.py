"""A worker whose forecaster does what the command line says, over and over: raise, hang, or a wrong answer.

In: a word of `tests.unruly_model`; settings of the environment. Out: what a worker does.
Must not know: what the test looks at. Rule: but for its forecaster it is the worker of the program.
"""

from __future__ import annotations

import itertools
import os
import sys
import time

from models.forecast import Forecast, ForecastBatch, Forecaster
from shelftide.settings_sources import read_settings
from streams.kafka.ending import WorkerError
from streams.kafka.logs import set_up
from streams.kafka.service import serve_worker
from streams.kafka.worker import WorkerConfig
from tests.unruly_model import DEEDS, right_answer

FOREVER_S = 3_600


class Unruly:
    """Answers the first batch well, and then never again."""

    name = "model-1"
    channels = ()

    def __init__(self, word: str) -> None:
        self._word = word
        self._calls = itertools.count()

    def forecast(self, batch: ForecastBatch) -> Forecast:
        """Do what was asked."""
        if next(self._calls) == 0:
            return right_answer(batch)
        if self._word == "hang":
            time.sleep(FOREVER_S)
        said: Forecast = DEEDS[self._word](right_answer(batch))
        return said


def serve(forecaster: Forecaster | None = None) -> int:
    """Run the worker of the environment's settings, with a forecaster of the test's own where one is given."""
    settings = read_settings(None, {})
    set_up(settings.worker.log_format, settings.worker.log_level)
    config = WorkerConfig(
        settings.engine(), settings.kafka, settings.worker, settings.partitioner, forecaster=forecaster
    )
    try:
        serve_worker(config, settings.worker.instance_id or str(os.getpid()))
    except WorkerError as error:
        sys.stderr.write(f"{error}\n")
        return error.code
    return 0


def main(word: str) -> int:
    """Run the worker."""
    return serve(Unruly(word))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
