"""What learning was worth in a replay: one page of figures and pictures that needs nothing but a browser.

In: the summary of a replay. Out: a page.
Must not know: how anything was learned. Rule: the same summary gives the same bytes; all who are compared were held
against the same outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from shelftide.markup import page, percent, ratio, shown, tag
from shelftide.page_parts import card, legend, section, table
from shelftide.pictures import Line, Words, day, line_chart, spread
from shelftide.report_style import STYLE
from streams.files import EventWriter

KINDS = {"published": "model", "model": "third", "baseline": "other"}
"""Who is compared, and the class that gives each its colour."""

NAMES = {"published": "published", "model": "the model by itself", "baseline": "the baseline"}

MEASURES = {"wql": "WQL", "wape": "WAPE", "coverage80": "coverage80", "bias": "bias"}
_SHARES = ("coverage80", "bias")


def write_learning_report(path: Path, summary: Mapping[str, Any]) -> None:
    """Write the page; it appears under its name when it is complete.

    Raises
    ------
    streams.files.FileError
        If it cannot be written.
    """
    with EventWriter(path) as file:
        file.write_block(learning_report(summary))


def learning_report(summary: Mapping[str, Any]) -> bytes:
    """Make the page of a replay's summary: figures in all, by week, by horizon, by tier of demand; what acts."""
    learning, title = summary["learning"], "What learning was worth"
    parts = [_header(title, summary)]
    if learning["rivals"]["published"]["overall"]["outcomes"]:
        parts += [_figures(learning), _weeks(learning["weeks"]), _places(learning), _acting(learning["acting"])]
    else:
        parts.append(section("Figures", tag("p", "No forecast was met by its bucket, so there are no figures.")))
    return page(title, STYLE, tag("main", *parts))


def _header(title: str, summary: Mapping[str, Any]) -> Element:
    learning = summary["learning"]
    changes = ", ".join(f"{count} of {signal}" for signal, count in learning["changes"].items() if count)
    rows = [
        ("Model", shown(str(summary["forecasts"]["model"]))),
        ("Series", f"{summary['series']:,} in {summary['shards']} shard{'s' * (summary['shards'] > 1)}"),
        ("Met", f"{learning['rivals']['published']['overall']['outcomes']:,} forecasts of the series learned from"),
        ("Changes seen", changes or "none"),
    ]
    told = [part for head, text in rows for part in (tag("dt", head), tag("dd", text))]
    return tag("header", tag("h1", title), tag("dl", *told))


def _figures(learning: Mapping[str, Any]) -> Element:
    rows = [
        [title, *(_cell(name, learning["rivals"][rival]["overall"][name]) for rival in KINDS)]
        for name, title in MEASURES.items()
    ]
    what = "All were held against the same outcomes, once their buckets were final."
    return section("Figures", tag("p", what, class_="soft"), table(["measure", *NAMES.values()], rows))


def _weeks(weeks: Sequence[Mapping[str, Any]]) -> Element:
    times = np.array([week["begins"] for week in weeks], "datetime64[D]")
    at = times.astype(np.float64)
    ticks = [(float(at[n]), day(times[n])) for n in spread(len(at), 4)]
    cards = []
    for name, title, what in (
        ("wql", "Loss by week", "WQL of the forecasts that were met in a week; less is better."),
        ("coverage80", "Coverage by week", "Share of outcomes within the 80 % interval; rare counts lie above it."),
    ):
        lines = [Line(NAMES[rival], kind, _values(weeks, name, rival)) for rival, kind in KINDS.items()]
        chart = line_chart(lines, at, ticks, Words(name, title, what, "week", MEASURES[name]))
        rows = [[str(time), *(_cell(name, week[name][rival]) for rival in KINDS)]
                for time, week in zip(times, weeks, strict=True)]  # fmt: skip
        cards.append(card(title, what, chart, table(["week from", *NAMES.values()], rows)))
    drawn = legend(*((f"line {kind}", NAMES[rival]) for rival, kind in KINDS.items()))
    return section("Week by week", drawn, tag("div", *cards, class_="charts"))


def _values(weeks: Sequence[Mapping[str, Any]], name: str, rival: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([np.nan if week[name][rival] is None else week[name][rival] for week in weeks], np.float64)


def _places(learning: Mapping[str, Any]) -> Element:
    """Loss and coverage by horizon, and by tier of expected demand."""
    heads = ["", *(f"{what} {rival}" for what in ("WQL", "coverage") for rival in KINDS)]
    parts = []
    for title, kind, name_of in (
        ("By horizon, in buckets", "by_horizon", str),
        ("By expected demand of a bucket", "by_tier", _tier),
    ):
        told = {rival: learning["rivals"][rival][kind] for rival in KINDS}
        rows = [
            [name_of(place), *(_cell(name, told[rival][place][name])
                               for name in ("wql", "coverage80") for rival in KINDS)]
            for place in told["published"] if told["published"][place]["outcomes"]
        ]  # fmt: skip
        parts += [tag("h3", title), table(heads, rows)]
    return section("Where", *parts)


def _tier(tier: str) -> str:
    """Words for a tier of `online.calibration.tiers_of`."""
    least = 2.0 ** (int(tier) - 4)
    return f"up to {2 * least:g}" if tier == "0" else f"{least:g} to {2 * least:g}"


def _acting(shards: Sequence[Mapping[str, Mapping[str, Any]]]) -> Element:
    rows = [
        [f"shard {number}, {horizon}", acts["factors"], "yes" if acts["levels"] else "no"]
        for number, shard in enumerate(shards)
        for horizon, acts in shard.items()
    ]
    what = "What would have lost less of late, at the end of the replay: factors, and whether other levels are read."
    return section("What acts now", tag("p", what, class_="soft"), table(["horizon", "factors", "levels"], rows))


def _cell(name: str, value: float | None) -> str:
    number = float("nan") if value is None else float(value)
    return percent(number, signed=name == "bias") if name in _SHARES else ratio(number)
