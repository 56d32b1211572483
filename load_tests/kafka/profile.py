"""Where a running Python process spends its CPU, sampled from outside by py-spy.

In: a process id. Out: shares per function and thread.
Must not know: the process. Rule: a profiled run is no measured run, since sampling stops the process now and then.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SAMPLES_PER_S = 200
OURS = re.compile(r"\((streams|online|models|faust)/")
WAITING = re.compile(r"select \(selectors\.py|wait \(threading\.py|_worker \(concurrent/futures/thread\.py")
"""Innermost functions of threads that wait, which a sampler from outside now and then takes for work."""
PY_SPY = ["uv", "tool", "run", "py-spy"]


@contextmanager
def sampled(pid: int, file: Path) -> Iterator[None]:
    """Sample a process while this lasts, into a file of stacks, one a line with the number of its samples."""
    options = ["--rate", str(SAMPLES_PER_S), "--format", "raw", "--threads", "--function", "--nonblocking"]
    with (file.with_suffix(".log")).open("wb") as log:
        spy = subprocess.Popen(
            [*PY_SPY, "record", "--pid", str(pid), *options, "--output", str(file)], stdout=log, stderr=log
        )
        try:
            yield
        finally:
            spy.send_signal(signal.SIGINT)  # it writes what it has
            spy.wait(60)


def shares(stacks: str, top: int = 25) -> dict[str, dict[str, float]]:
    """Shares of the samples: per thread, per function at work, per function of ours at work or waited for.

    Examples
    --------
    >>> shares("thread (0x1);run (a.py:1);add (b.py:2) 3\\nthread (0x1);run (a.py:1) 1")["self"]
    {'add (b.py:2)': 0.75, 'run (a.py:1)': 0.25}
    """
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    threads: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if WAITING.search(frames[-1]):
            continue
        threads[frames[0]] += int(count)
        own[frames[-1]] += int(count)
        for frame in {frame for frame in frames[1:] if OURS.search(frame)}:
            within[frame] += int(count)
    samples = max(1, threads.total())
    found = {"threads": threads, "self": own, "within": within}
    return {name: {key: round(n / samples, 4) for key, n in counts.most_common(top)} for name, counts in found.items()}
