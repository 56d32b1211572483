"""`shelftide learn` in the middle of a fit, beside whatever is measured.

In: where the orders are. Out: a process that fits while the context lasts, or a `WorkerError`.
Must not know: what is measured. Rule: it is as an operator starts it; what is measured begins once it fits.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from load_tests.kafka.worker import WorkerError

BEGIN_S = 300.0
ENDS = ("fitted", "no generation could be fitted")
"""What it says once a fit is over: a run that sees one of them was not beside a fit all the time."""


@contextmanager
def learning(settings: Mapping[str, str], folder: Path) -> Iterator[None]:
    """Let somebody learn of a shop for as long as the context lasts.

    Raises
    ------
    WorkerError
        If no fit begins, or it was over before the context.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "learn.log"
    told = {**os.environ, **settings, "SHELFTIDE_WORKER__STATE_FOLDER": str(folder),
            "SHELFTIDE_MODEL__REGISTRY": str(folder / "registry"), "SHELFTIDE_LEARN__STEPS": "100000"}  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "shelftide.cli", "learn"], env=told, stdout=out, stderr=out)
    try:
        _wait_for_a_fit(process, log)
        yield
        if any(end in log.read_text(errors="replace") for end in ENDS):
            raise WorkerError(f"the fit beside was over too early: {log.read_text(errors='replace')[-500:]}")
    finally:
        process.terminate()
        process.wait(30)


def _wait_for_a_fit(process: subprocess.Popen[bytes], log: Path) -> None:
    until_s = time.monotonic() + BEGIN_S
    while "caught up" not in log.read_text(errors="replace"):
        if process.poll() is not None or time.monotonic() > until_s:
            raise WorkerError(f"nobody learns beside: {log.read_text(errors='replace')[-500:]}")
        time.sleep(0.2)
    time.sleep(5)  # the task is written, and the fit's process has loaded what it needs
