"""Windows of a task: nothing later than the cutoff but what is known, weeks as the calendar has them."""

from __future__ import annotations

from typing import Literal

import numpy as np

from models.panel import WEEKS, Panel
from models.task import Task, TaskFile

FIRST = 19_002  # a Tuesday


def task_of(days: int = 400, seed: int = 0, freq: Literal["D", "h"] = "D") -> Task:
    """Two series, the second of which begins on day 100."""
    rng = np.random.default_rng(seed)
    season = 7 if freq == "D" else 24
    demand = rng.poisson(4, (2, days)).astype(np.float32)
    demand[1, :100] = np.nan
    known = {name: (rng.random((2, days)) < 0.3).astype(np.float32) for name in ("Promotion", "Open")}
    file = TaskFile(freq=freq, horizon=14, season=season, cutoffs=[], levels=[0.5], known_future=["Promotion", "Open"],
                    open="Open")  # fmt: skip
    first = FIRST if freq == "D" else FIRST * 24 + 5
    return Task(file, ["a", "b"], first, demand, known, {}, np.array([0]), np.array([300]))


def scramble(task: Task, after: int) -> Task:
    """Other demand after a day."""
    demand = task.demand.copy()
    demand[:, after + 1 :] = 1e6
    return Task(task.file, task.ids, task.first_bucket, demand, task.known, task.past, task.series, task.cutoff)


def test_a_window_holds_nothing_later_than_its_cutoff() -> None:
    task = task_of()
    for cutoff in (3, 150, 299, 385):
        rows = np.array([0, 1]), np.array([cutoff, cutoff])
        seen, scrambled = Panel(task).batch(*rows), Panel(scramble(task, cutoff)).batch(*rows)
        assert seen.weeks is not None
        assert scrambled.weeks is not None
        assert seen.demand.tobytes() == scrambled.demand.tobytes()
        assert seen.weeks.tobytes() == scrambled.weeks.tobytes()


def test_weeks_are_calendar_weeks_before_that_of_the_first_step() -> None:
    widths: tuple[tuple[Literal["D", "h"], int], ...] = (("D", 1), ("h", 24))
    for freq, per_day in widths:
        task = task_of(days=4000 if freq == "h" else 400, freq=freq)
        bucket = task.first_bucket + np.arange(task.demand.shape[1])
        week = (bucket // per_day + 3) // 7
        for cutoff in (250, 251, 299, 300):
            found = Panel(task).batch(np.array([0]), np.array([cutoff])).weeks
            assert found is not None
            now = int(week[cutoff + 1])
            wanted = [float(task.demand[0, week == now - back].sum()) for back in range(1, 6)]
            before = [now - back >= week[0] for back in range(1, 6)]
            assert [v for v, there in zip(found[0, :-6:-1].tolist(), before, strict=True) if there] == [
                v for v, there in zip(wanted, before, strict=True) if there
            ]


def test_weeks_before_a_series_began_are_unknown() -> None:
    found = Panel(task_of()).batch(np.array([1]), np.array([200])).weeks
    assert found is not None
    assert found.shape == (1, WEEKS)
    known = np.flatnonzero(np.isfinite(found[0]))
    assert WEEKS - len(known) == known[0]
    assert len(known) == (FIRST + 201 + 3) // 7 - (FIRST + 100 + 3) // 7


def test_actual_demand_ends_where_it_may_be_seen() -> None:
    task = task_of()
    panel = Panel(task)
    found = panel.actual(np.array([0, 0]), np.array([299, 395]), last=305)
    assert found[0, :6].tolist() == task.demand[0, 300:306].tolist()
    assert np.isnan(found[0, 6:]).all()
    assert np.isnan(found[1]).all()


def test_the_open_column_is_no_covariate() -> None:
    assert Panel(task_of()).covariates == ("promo",)
