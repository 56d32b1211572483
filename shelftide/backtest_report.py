"""The report of a backtest: one page of figures and pictures that needs nothing but a browser.

In: a judged backtest, its forecaster, what each input is worth. Out: a page, and the same figures for a terminal.
Must not know: how forecasts are made, how measures are defined. Rule: the same backtest gives the same bytes; whatever
a picture shows stands in a table as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from models.baseline import SeasonalWindow
from models.forecast import LEVELS, Forecaster
from models.judge import Fan, Judge, fan, judged, ranked
from models.measures import Figures
from models.task import Task, bucket_times
from models.worth import InputWorth
from shelftide.markup import amount, page, percent, ratio, shown, tag
from shelftide.page_parts import card, details, legend, section, table
from shelftide.pictures import SHOWN_LEVELS, Line, Words, bar, calibration_chart, day, fan_chart, line_chart, spread
from shelftide.report_style import STYLE
from streams.files import EventWriter

POLICIES = {
    "baseline": "nothing is fitted; each cutoff is answered from what lies before it",
    "pretrained": "not fitted to this task; the net has seen made-up shops alone",
    "finetuned": "fitted once before the first cutoff, and not again",
    "refitted": "fitted anew at each cutoff, to everything up to it; what is chosen is chosen before the first",
}
"""When a model was fitted, by its name on the command line."""

MEASURES = {
    "wql": ("WQL", "Weighted quantile loss: mean over the levels .1 to .9 of twice the pinball loss, over demand."),
    "wape": ("WAPE", "Absolute error of the median, over demand."),
    "mase": (
        "MASE",
        "Absolute error of the median, over the change from season to season before the cutoff.",
    ),
    "coverage": ("coverage80", "Outcomes from q0.1 to q0.9, ideally 80 %. Rare counts lie above by construction."),
    "strict": (
        "coverage80_strict",
        "Outcomes between q0.1 and q0.9, not on them. Whole demand falls on them: the ideal lies between the two.",
    ),
    "bias": ("bias", "Median less outcome, over demand. Of rare counts the median lies below the mean."),
}
_SHARES = ("coverage", "strict", "bias")
_SERIES = 20


@dataclass(frozen=True, slots=True)
class Backtest:
    """What a report is about.

    Attributes
    ----------
    judge
        That has watched all windows of the task.
    forecaster
        Who answered.
    policy
        When it was fitted, in words.
    inputs
        What each input is worth, where somebody has found out.
    """

    judge: Judge
    forecaster: Forecaster
    policy: str
    inputs: Sequence[InputWorth] = ()


def measures(judge: Judge) -> dict[str, float | None] | None:
    """Figures over everything by name, None where undefined; None in all where no outcome is known."""
    if not judge.tally.known:
        return None
    found = judge.tally.in_all()
    values = {title.lower(): float(getattr(found, name)) for name, (title, _) in MEASURES.items()}
    return {name: round(value, 6) if np.isfinite(value) else None for name, value in values.items()}


def measure_rows(judge: Judge) -> list[tuple[str, str]]:
    """The same for a terminal."""
    if not judge.tally.known:
        return [("measures", "no actuals")]
    found = judge.tally.in_all()
    return [(title, _cell(name, float(getattr(found, name)))) for name, (title, _) in MEASURES.items()]


def volumes(judge: Judge) -> dict[str, Any] | None:
    """Coverage in tenths by volume of the series that are not mostly zero; None where no outcome is known."""
    if not judge.tally.known:
        return None
    found = judge.by_volume()
    numbers = (found.tenth, found.series, found.demand, found.figures.coverage, found.figures.strict)
    names = ("tenth", "series", "demand", "coverage80", "coverage80_strict")
    rows = [dict(zip(names, row, strict=True)) for row in zip(*(one.tolist() for one in numbers), strict=True)]
    tenths = [{name: round(value, 6) if np.isfinite(value) else None for name, value in row.items()} for row in rows]
    return {"mostly_zero": found.left_out, "tenths": tenths}


def volume_rows(judge: Judge) -> list[tuple[str, str]]:
    """The same for a terminal, from the tenth that sells least to the one that sells most."""
    found = judge.by_volume() if judge.tally.known else None
    if found is None or not len(found.tenth):
        return []
    parts = (("coverage80 by volume", found.figures.coverage), ("  strict", found.figures.strict))
    return [(title, f"{' '.join(f'{100 * share:.0f}' for share in shares)} %") for title, shares in parts]


def write_report(path: Path, backtest: Backtest) -> None:
    """Write the page; it appears under its name when it is complete.

    Raises
    ------
    FileError
        If it cannot be written.
    """
    with EventWriter(path) as file:
        file.write_block(report(backtest))


def report(backtest: Backtest) -> bytes:
    """Make the page: header, figures, fans, calibration, losses by step and cutoff, inputs."""
    judge, task = backtest.judge, backtest.judge.task
    title = f"Backtest of {shown(backtest.forecaster.name)}"
    plain = isinstance(backtest.forecaster, SeasonalWindow)
    baseline = None if plain or not judge.tally.known else judged(task, SeasonalWindow())
    sections = [_header(title, backtest)]
    if judge.tally.known:
        sections += [_figures(judge, baseline), _fans(backtest, baseline), _losses(judge, baseline)]
        sections += [_inputs(backtest.inputs)] if backtest.inputs else []
    else:
        told = "The task does not hold what came after its cutoffs, so there are no figures."
        sections += [section("Figures", tag("p", told)), _fans(backtest, None)]
    return page(title, STYLE, tag("main", *sections))


# ------------------------------------------------------------------------------------------------ sections
def _header(title: str, backtest: Backtest) -> Element:
    task, known = backtest.judge.task, backtest.judge.tally.known
    cutoffs = np.unique(task.cutoff)
    first, last = (_time(time, task) for time in bucket_times(task.first_bucket + cutoffs[[0, -1]], task.file.freq))
    several: list[str | Element] = [f"{len(cutoffs):,}, from ", first, " to ", last]
    windows = len(task.cutoff)
    rows: list[tuple[str | Element, ...]] = [
        ("Task", shown(task.file.name) if task.file.name else "without a name"),
        ("Model", shown(backtest.forecaster.name)),
        ("Fitted", backtest.policy),
        ("Series", f"{len(np.unique(task.series)):,}"),
        ("Cutoffs", *(several if len(cutoffs) > 1 else ["1, ", first])),
        ("Horizon", f"{task.file.horizon} {_unit(task)}s; a season has {task.file.season}"),
        ("Judged", f"{known:,} of {windows * task.file.horizon:,} forecasts, those whose outcome the task holds"),
    ]
    told = [part for head, *text in rows for part in (tag("dt", head), tag("dd", *text))]
    return tag("header", tag("h1", title), tag("dl", *told))


def _figures(judge: Judge, baseline: Judge | None) -> Element:
    """Figures in all, beside those of the baseline."""
    heads = ["measure", "model", *(["baseline", "change"] if baseline else [])]
    rows: list[list[str | Element]] = []
    for name, (title, _) in MEASURES.items():
        ours = float(getattr(judge.tally.in_all(), name))
        row: list[str | Element] = [title, _cell(name, ours)]
        if baseline:
            theirs = float(getattr(baseline.tally.in_all(), name))
            row += [_cell(name, theirs), _difference(name, ours, theirs)]
        rows.append(row)
    notes = [tag(kind, text) for pair in MEASURES.values() for kind, text in zip(("dt", "dd"), pair, strict=True)]
    beside = " The baseline takes the quantiles of the last twelve same weekdays." if baseline else ""
    what = f"Less is better for WQL, WAPE and MASE.{beside}"
    parts = [table(heads, rows, "figures"), tag("dl", *notes, class_="notes")]
    by_volume = details("Coverage by volume: tenths of the series that are not mostly zero", _volume_table(judge))
    return section("Figures", tag("p", what, class_="soft"), tag("div", *parts, class_="beside"), by_volume)


def _volume_table(judge: Judge) -> Element:
    """Coverage in tenths by volume of the series that are not mostly zero."""
    found = judge.by_volume()
    rows = [
        [f"{tenth:d}", f"{series:,}", amount(demand), percent(coverage), percent(strict)]
        for tenth, series, demand, coverage, strict in zip(
            found.tenth.tolist(), found.series.tolist(), found.demand.tolist(),
            found.figures.coverage.tolist(), found.figures.strict.tolist(), strict=True,
        )
    ]  # fmt: skip
    return table(["tenth", "series", f"demand a {_unit(judge.task)}", "coverage80", "coverage80_strict"], rows)


def _fans(backtest: Backtest, baseline: Judge | None) -> Element:
    """Forecasts of three series, and which series lose most."""
    judge = backtest.judge
    drawn = legend(("line actual", "sold"), ("line median", "median"), ("band", "80 %"), ("band wide", "98 %"))
    cards = [
        _fan_card(f"fan-{number}", label, fan(judge, backtest.forecaster, series), judge.task)
        for number, (label, series) in enumerate(_chosen(judge))
    ]
    unit = _unit(judge.task)
    share = "80 and 98\N{NO-BREAK SPACE}%"
    what = f"Each at its last cutoff, with eight seasons before it; the bands should hold {share} of the {unit}s."
    parts = [tag("p", what, class_="soft"), drawn, tag("div", *cards, class_="charts")]
    if judge.tally.known:
        parts.append(details(f"The {_SERIES} series that lose most", _series_table(judge, baseline)))
    return section("Forecasts of single series", *parts)


def _chosen(judge: Judge) -> list[tuple[str, int]]:
    """Best, median and worst series; where no outcome is known, those that sold most before their first cutoffs."""
    order = ranked(judge).tolist()
    if order:
        labels = {order[len(order) // 2]: "median", order[-1]: "worst"} | {order[0]: "best"}  # of one series: best
        return [(labels[series], series) for series in order if series in labels]
    task = judge.task
    series, windows = np.unique(task.series, return_index=True)
    ends = (task.cutoff[windows] + 1).tolist()
    past = [task.demand[row, :end].astype(np.float64) for row, end in zip(series.tolist(), ends, strict=True)]
    sold = [float(one[np.isfinite(one)].sum()) for one in past]
    return [("sells most", int(series[at])) for at in np.argsort(sold, kind="stable")[::-1][:3]]


def _fan_card(name: str, label: str, shown_fan: Fan, task: Task) -> Element:
    """One forecast as a picture with its numbers."""
    title = f"{label}: {shown(shown_fan.unique_id)}"
    loss = f"WQL {ratio(shown_fan.wql)} in all, " if np.isfinite(shown_fan.wql) else ""
    cutoff = _moment(shown_fan.cutoff, task)
    desc = f"Demand before and after {cutoff}, the median forecast, its 80 and 98 % bands."
    chart = fan_chart(shown_fan, task.file.season, Words(name, title, desc, "", f"units a {_unit(task)}"))
    columns = [shown_fan.quantiles[:, LEVELS.index(level)] for level in SHOWN_LEVELS]
    rows: list[list[str | Element]] = [
        [
            _time(time, task),
            amount(float(value)) if np.isfinite(value) else "–",
            *(amount(float(q[step])) for q in columns),
        ]
        for step, (time, value) in enumerate(zip(shown_fan.times, shown_fan.actual, strict=True))
    ]
    heads = [_unit(task), "sold", *(f"q{level:g}" for level in SHOWN_LEVELS)]
    caption = tag("figcaption", loss, "cutoff ", _time(shown_fan.cutoff, task))
    return tag(
        "figure",
        tag("h3", f"{label}: ", tag("bdi", shown(shown_fan.unique_id))),
        caption,
        chart,
        details("Numbers", table(heads, rows)),
    )


def _series_table(judge: Judge, baseline: Judge | None) -> Element:
    series = judge.task.series
    loss, demand = judge.tally.loss(series), judge.tally.demand(series)
    ours, theirs = judge.by_series().wql, baseline.by_series().wql if baseline else None
    rows: list[list[str | Element]] = []
    for at in np.argsort(-loss, kind="stable")[:_SERIES].tolist():
        shares = [amount(float(demand[at])), percent(float(loss[at] / loss.sum()) if loss.sum() else 0.0)]
        told = [*shares, ratio(float(ours[at])), *([] if theirs is None else [ratio(float(theirs[at]))])]
        rows.append([tag("bdi", shown(judge.task.ids[at])), *told])
    heads = ["series", "demand", "share of all loss", "WQL", *(["baseline's WQL"] if baseline else [])]
    return table(heads, rows)


def _losses(judge: Judge, baseline: Judge | None) -> Element:
    """Calibration, and WQL by step and by cutoff."""
    both = [("model", judge), *([("baseline", baseline)] if baseline else [])]
    drawn = legend(("line model", "model"), ("line other", "baseline")) if baseline else tag("span")
    cards = [_calibration_card(both), _step_card(both), _cutoff_card(both)]
    return section("Where it is right and wrong", drawn, tag("div", *cards, class_="charts"))


Both = Sequence[tuple[str, Judge]]


def _calibration_card(both: Both) -> Element:
    below, at_most = both[0][1].tally.shares()
    levels = np.array(LEVELS)
    desc = "For each quantile level the share of outcomes below the quantile and at or below it; ideal on the diagonal."
    chart = calibration_chart(
        levels, below, at_most, Words("calibration", "Calibration", desc, "level", "share of outcomes")
    )
    shares = [side for _, judge in both for side in judge.tally.shares()]
    rows = [[f"{level:g}", *(percent(float(side[at])) for side in shares)] for at, level in enumerate(LEVELS)]
    heads = ["level", *(f"{name}: {side}" for name, _ in both for side in ("below", "at or below"))]
    what = "Share of outcomes below each quantile, up to that at or below it; ideal on the line."
    return card("Calibration of the model", what, chart, table(heads, rows))


def _step_card(both: Both) -> Element:
    task = both[0][1].task
    at = np.arange(1.0, task.file.horizon + 1)
    seasons = sorted({1, *range(task.file.season, len(at) + 1, task.file.season)})
    places = seasons if 2 < len(seasons) < 7 else [n + 1 for n in spread(len(at))]
    ticks = [(float(n), amount(n)) for n in places]
    words = Words("steps", "Loss by step", "WQL of each step of the horizon.", f"{_unit(task)}s ahead", "WQL")
    figures = [(name, judge.tally.by_step()) for name, judge in both]
    chart = line_chart(_lines(figures), at, ticks, words)
    return card(
        "Loss by step",
        "WQL of each step of the horizon; a gap had no demand.",
        chart,
        _loss_table("step", [f"{n:g}" for n in at], figures),
    )


def _cutoff_card(both: Both) -> Element:
    task, figures = both[0][1].task, [(name, judge.by_cutoff()[1]) for name, judge in both]
    times = both[0][1].by_cutoff()[0]
    at = times.astype(np.float64)
    ticks = [(float(at[n]), day(times[n])) for n in spread(len(at), 4)]
    words = Words("cutoffs", "Loss by cutoff", "WQL of the horizon after each cutoff.", "cutoff", "WQL")
    chart = line_chart(_lines(figures), at, ticks, words)
    losses = _loss_table("cutoff", [_time(time, task) for time in times], figures)
    return card("Loss by cutoff", "WQL of the horizon after each cutoff.", chart, losses)


def _inputs(inputs: Sequence[InputWorth]) -> Element:
    """What each input is worth, the greatest first."""
    order = sorted(inputs, key=lambda one: -one.change if np.isfinite(one.change) else np.inf)
    most = max((abs(one.change) for one in inputs if np.isfinite(one.change)), default=0.0)
    rows: list[list[str | Element]] = []
    for one in order:
        change = f"{'+' if one.change > 0 else ''}{ratio(one.change)}"
        picture: str | Element = bar(one.change, most, f"{change} WQL") if np.isfinite(one.change) else ""
        rows.append([shown(one.name), picture, change, ratio(one.wql_without)])
    what = "WQL of the model without an input, less its WQL with it: above zero, the input saves that much loss."
    return section(
        "What each input is worth",
        tag("p", what, class_="soft"),
        table(["input", "", "change", "WQL without it"], rows),
    )


# ------------------------------------------------------------------------------------------------ parts of a page
def _lines(figures: Sequence[tuple[str, Figures]]) -> list[Line]:
    return [Line(name, kind, one.wql) for (name, one), kind in zip(figures, ("model", "other"), strict=False)]


def _loss_table(head: str, places: Sequence[str | Element], figures: Sequence[tuple[str, Figures]]) -> Element:
    rows = [[place, *(ratio(float(one.wql[at])) for _, one in figures)] for at, place in enumerate(places)]
    return table([head, *(f"WQL of the {name}" for name, _ in figures)], rows)


def _cell(name: str, value: float) -> str:
    return percent(value, signed=name == "bias") if name in _SHARES else ratio(value)


def _difference(name: str, ours: float, theirs: float) -> str:
    """Relative, or in points where the measure is a share."""
    if name in _SHARES:
        return percent(ours - theirs, signed=True).replace("%", "pt")
    return percent(ours / theirs - 1 if theirs else float("nan"), signed=True)


def _unit(task: Task) -> str:
    return "day" if task.file.freq == "D" else "hour"


def _moment(time: np.datetime64, task: Task) -> str:
    """A bucket's start, to what its width needs."""
    return str(time.astype("datetime64[D]" if task.file.freq == "D" else "datetime64[m]")).replace("T", " ")


def _time(time: np.datetime64, task: Task) -> Element:
    """The same, which no line breaks."""
    return tag("time", _moment(time, task))
