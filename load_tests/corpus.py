"""The synthetic corpus: how fast it is made, and what it looks like beside real shops.

In: sizes; a folder of evaluation tasks, or the script that exports them. Out: series per second and figures.
Must not know: training. Rule: of real tasks nothing on or after the first day to forecast is read, and nothing that is
read here goes into the corpus by itself.

Run: ``python -m load_tests.corpus``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.corpus import FAMILIES, corpus
from models.corpus_figures import QUANTILES, describe, table
from models.task import Task, read_task

EXPORT = Path(__file__).parents[2] / "shared" / "eval" / "tasks.py"
Figures = dict[str, tuple[float, ...]]


def main() -> None:
    """Measure, describe, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=2000)
    parser.add_argument("--days", type=int, default=800)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tasks", type=Path, help="folder of exported tasks; exported anew where none is named")
    parser.add_argument("--no-tasks", action="store_true", help="the corpus alone")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    if min(options.series, options.days) < 1:
        parser.error("series and days must be at least 1")
    start = time.process_time()
    made = corpus(options.series, options.days, options.seed)
    spent_s = time.process_time() - start
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    columns = {"corpus": describe(made), **{name: describe(family(made, name)) for name in FAMILIES}}
    columns |= {} if options.no_tasks else real(options.tasks)
    speed = {
        "series": options.series,
        "days": options.days,
        "cpu_s": round(spent_s, 3),
        "series_per_cpu_s": round(options.series / max(spent_s, 1e-9)),
        "resident_mib": round(memory_mib),
    }
    if options.json:
        print(json.dumps({"speed": speed, "quantiles": QUANTILES, "figures": columns}).replace("NaN", "null"))
        return
    print(*(f"{name}={value}" for name, value in speed.items()))
    print(table(columns))


def family(task: Task, name: str) -> Task:
    """The series of one family."""
    rows = np.array([one.startswith(name) for one in task.ids])
    known = {column: values[rows] for column, values in task.known.items()}
    return replace(task, ids=[one for one in task.ids if one.startswith(name)], demand=task.demand[rows], known=known)


def real(folder: Path | None) -> dict[str, Figures]:
    """Figures of the evaluation tasks before their first cutoff; nothing where they are not at hand."""
    if folder is not None:
        return {path.parent.name: describe(past(read_task(path.parent))) for path in sorted(folder.glob("*/task.json"))}
    if not EXPORT.exists():
        return {}
    with tempfile.TemporaryDirectory(prefix="shelftide-tasks-") as made:
        subprocess.run([sys.executable, str(EXPORT), "--export", made], check=True, stdout=subprocess.DEVNULL)
        return real(Path(made))


def past(task: Task) -> Task:
    """What lies up to the first cutoff."""
    until = int(task.cutoff.min()) + 1
    known = {name: values[:, :until] for name, values in task.known.items()}
    paid = {name: values[:, :until] for name, values in task.past.items()}
    return replace(task, demand=task.demand[:, :until], known=known, past=paid)


if __name__ == "__main__":
    main()
