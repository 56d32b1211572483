"""Runs of one sitting as a table: medians, spread, and shares of the yardstick of the same repeat.

In: runs. Out: rows, goals, text.
Must not know: how runs are made. Rule: a share is made within one repeat, where the machine was in one mood, and only
then is the median taken.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from load_tests.kafka.runs import Run

YARDSTICK = "aiokafka-drain"
OURS = "worker"
OURS_TWICE = "worker-2"
"""The same command with ``--processes 2``: as many as cores, all of which Kafka Streams' threads use too."""
OURS_BESIDE = "worker-learn"
"""The worker while nets are fitted beside it."""
MOST_FOREIGN = 0.1
"""A run that shared the machine with more than this share of strangers' work is not to be trusted."""

GOALS: list[tuple[str, str, Callable[[Run, Run], float | None], float]] = [
    ("of a bare aiokafka drain", YARDSTICK, lambda ours, other: _over(ours.rate, other.rate), 1.0),
    ("of Kafka Streams' warm rate", "kstreams", lambda ours, other: _over(ours.rate, other.rate_2nd_half), 2.0),
    ("of stock Faust take(1000)", "faust-take", lambda ours, other: _over(ours.rate, other.rate), 35.0),
    ("of stock Faust's windowed table", "faust-table", lambda ours, other: _over(ours.rate, other.rate), 35.0),
]
"""What our worker is held to: words, engine compared with, the ratio of two runs of one repeat, the least wanted."""
CPU_GOAL_US = 3.5
BESIDE_GOAL = 0.95


def _over(value: float | None, other: float | None) -> float | None:
    return value / other if value and other else None


def spread(values: Iterable[float | None]) -> dict[str, float] | None:
    """Median, least and greatest of what was measured; None where nothing was.

    Examples
    --------
    >>> spread([3.0, None, 1.0])
    {'median': 2.0, 'min': 1.0, 'max': 3.0}
    """
    known = [value for value in values if value is not None]
    return {"median": statistics.median(known), "min": min(known), "max": max(known)} if known else None


def ratios(runs: Sequence[Run], name: str, other: str, ratio: Callable[[Run, Run], float | None]) -> list[float | None]:
    """One ratio of two engines per repeat in which both ran."""
    by = {(run.engine, run.repeat): run for run in runs}
    repeats = sorted({run.repeat for run in runs})
    return [ratio(by[name, n], by[other, n]) for n in repeats if (name, n) in by and (other, n) in by]


def summary(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Figures per engine, in the order of their first runs."""
    out: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(run.engine for run in runs):
        own = [run for run in runs if run.engine == name]
        verdicts = [run.correct for run in own if run.correct is not None]
        out[name] = {
            "records": own[0].records,
            "runs": sum(run.rate is not None for run in own),
            "rate": spread(run.rate for run in own),
            "rate_2nd_half": spread(run.rate_2nd_half for run in own),
            "cpu_us": spread(run.cpu_us for run in own),
            "broker_us": spread(run.broker_us for run in own),
            "rss_mib": spread(run.rss_mib for run in own),
            "share_of_yardstick": spread(ratios(runs, name, YARDSTICK, lambda a, b: _over(a.rate, b.rate))),
            "foreign_share": max(run.foreign_share for run in own),
            "correct": all(verdicts) if verdicts else None,
            "errors": [run.error for run in own if run.error],
        }
    return out


def goals(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Each goal that the runs speak of: what was measured, what is wanted, whether the median reaches it."""
    out: dict[str, dict[str, Any]] = {}
    for ours in (OURS, OURS_TWICE):
        for words, other, ratio, least in GOALS:
            if found := spread(ratios(runs, ours, other, ratio)):
                out[f"{ours} {words}"] = {**found, "goal": f">= {least:g}", "reached": found["median"] >= least}
    if found := spread(ratios(runs, OURS_BESIDE, OURS, lambda a, b: _over(a.rate, b.rate))):
        reached = found["median"] >= BESIDE_GOAL
        out["of its rate alone, beside a fit"] = {**found, "goal": f">= {BESIDE_GOAL:g}", "reached": reached}
    if found := spread(run.cpu_us for run in runs if run.engine == OURS):
        out["µs of CPU per record"] = {**found, "goal": f"<= {CPU_GOAL_US}", "reached": found["median"] <= CPU_GOAL_US}
    return out


def text(found: dict[str, Any]) -> str:
    """The sitting as a table for people."""
    head = ("engine", "records", "rec/s min / median / max", "2nd half", "CPU µs", "broker µs", "RSS MiB", "share", "")
    rows = [head, *(_row(name, row) for name, row in found["engines"].items())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines += [f"left out: {name}: {reason}" for name, reason in found["left_out"].items()]
    for words, goal in found["goals"].items():
        verdict = "reached" if goal["reached"] else "not reached"
        measured = f"{goal['median']:.2f} ({goal['min']:.2f} to {goal['max']:.2f})"
        lines.append(f"{words}: {measured}, goal {goal['goal']}: {verdict}")
    for run in found["runs"]:
        lines += _state(run) + _profile(run)
    return "\n".join(lines)


def _state(run: dict[str, Any]) -> list[str]:
    """What a run of our worker wrote for its state."""
    more = run["more"]
    if "commits" not in more:
        return []
    written = (more["state_bytes_per_s"] or 0) / 1e6
    return [
        f"repeat {run['repeat']}: {more['commits']} commits, {written:.2f} MB of state a second, "
        f"{more['state_live_bytes'] / 1e6:.2f} MB live; the last one {more['tail_s']:.2f} s after the last record"
    ]


def _profile(run: dict[str, Any], top: int = 20) -> list[str]:
    """Threads and functions of a sampled run by their shares."""
    lines = []
    for name, shares in run["more"].get("profile", {}).items():
        lines += [f"{name}:", *(f"  {share:6.1%}  {of}" for of, share in list(shares.items())[:top])]
    return lines


def _row(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    rate, share = row["rate"], row["share_of_yardstick"]
    remarks = [*row["errors"]]
    if row["correct"] is not None:
        remarks.append("sums right" if row["correct"] else "SUMS WRONG")
    if row["foreign_share"] > MOST_FOREIGN:
        remarks.append(f"foreign CPU up to {row['foreign_share']:.0%}")
    return (
        name,
        f"{row['records']:,}",
        " / ".join(f"{rate[key]:,.0f}" for key in ("min", "median", "max")) if rate else "-",
        _median(row["rate_2nd_half"], ",.0f"),
        _median(row["cpu_us"], ".2f"),
        _median(row["broker_us"], ".2f"),
        _median(row["rss_mib"], ".0f"),
        f"{share['median']:.2f}" if share else "-",
        "; ".join(remarks),
    )


def _median(found: dict[str, float] | None, form: str) -> str:
    return format(found["median"], form) if found else "-"
