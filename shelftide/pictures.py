"""Charts as SVG: fans of a forecast, lines beside each other, calibration.

In: arrays and the words around them. Out: `svg` elements whose colours are classes, for the page to choose by theme.
Must not know: the page, where figures come from. Rule: every picture has a title and a description, and nothing outside
its frame; values that are not finite are gaps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np
import numpy.typing as npt

from models.forecast import LEVELS
from models.judge import Fan
from shelftide.markup import amount, percent, shown, tag

Floats = npt.NDArray[np.floating]

WIDTH, HEIGHT = 400, 256
"""In units of the picture. A phone shows its letters at nine tenths of their size, and three fit a desk's screen."""

SHOWN_LEVELS = (0.01, 0.1, 0.5, 0.9, 0.99)
"""Of a fan: the 98 % interval, the 80 % interval, the median."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 24, 26, 42
_X_TICKS, _Y_TICKS = 5, 5
_MARKED = 32
"""Points of a line up to which each is marked."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart: its name, the class that gives its colour, and its values."""

    name: str
    kind: str
    values: Floats


@dataclass(frozen=True, slots=True)
class Words:
    """What stands around a chart: an id unique on the page, title, description, and names of the two scales."""

    id: str
    title: str
    desc: str
    x: str
    y: str


@dataclass(frozen=True, slots=True)
class _Plane:
    """The frame of a chart, and where values lie in it."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        return _LEFT + _share(value, self.x_range) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - _share(value, self.y_range) * (HEIGHT - _TOP - _BOTTOM)


def fan_chart(fan: Fan, season: int, words: Words) -> Element:
    """Draw a forecast: 98 % and 80 % bands, the median, what was sold before and after."""
    steps, past = len(fan.actual), len(fan.past)
    band = {
        level: np.asarray(fan.quantiles[:, LEVELS.index(level)], np.float64) for level in (0.01, 0.1, 0.5, 0.9, 0.99)
    }
    ticks = _scale([fan.past, fan.actual, band[0.99]])
    plane = _Plane((0.5 - past, steps + 0.5), (ticks[0], ticks[-1]))
    ahead = np.arange(1.0, steps + 1)
    edges = np.concatenate([[0.6], ahead[1:-1], [steps + 0.4]]) if steps > 1 else np.array([0.6, 1.4])
    wide = {level: values if steps > 1 else np.repeat(values, 2) for level, values in band.items()}
    demand = np.concatenate([fan.past, fan.actual]).astype(np.float64)
    every = season * max(1, math.ceil((past + steps) / season / _X_TICKS))
    times = np.concatenate([fan.past_times, fan.times])
    marks = [at for at in range(1 - past, steps + 1) if at % every == 0]
    picture = _frame(words, plane, ticks, [(float(at), day(times[at + past - 1])) for at in marks])
    cutoff = plane.x(0.5)
    picture.extend(
        [
            _band(plane, edges, wide[0.01], wide[0.99], "band wide"),
            _band(plane, edges, wide[0.1], wide[0.9], "band"),
            tag("line", x1=cutoff, x2=cutoff, y1=_TOP, y2=HEIGHT - _BOTTOM, class_="cutoff"),
            tag("path", d=_path(plane, edges, wide[0.5]), class_="median"),
            tag("path", d=_path(plane, np.arange(1.0 - past, steps + 1), demand), class_="actual"),
        ]
    )
    if steps <= _MARKED:
        dots = zip(ahead.tolist(), fan.actual.tolist(), strict=True)
        picture.extend(
            tag("circle", cx=plane.x(x), cy=plane.y(y), r=1.7, class_="sold") for x, y in dots if math.isfinite(y)
        )
    return picture


def line_chart(lines: Sequence[Line], at: Floats, ticks: Sequence[tuple[float, str]], words: Words) -> Element:
    """Draw lines over the same places, from zero up."""
    heights = _scale([line.values for line in lines])
    span = (float(at.min()), float(at.max()))
    plane = _Plane(span if span[1] > span[0] else (span[0] - 1, span[0] + 1), (heights[0], heights[-1]))
    picture = _frame(words, plane, heights, ticks)
    for line in reversed(lines):
        picture.append(tag("path", d=_path(plane, at, line.values), class_=f"line {line.kind}"))
        if len(at) <= _MARKED:
            picture.extend(_marks(plane, at, line))
    return picture


def _marks(plane: _Plane, at: Floats, line: Line) -> Iterator[Element]:
    """A circle at each point, which says its value when pointed at."""
    for place, value in zip(at.tolist(), line.values.tolist(), strict=True):
        if math.isfinite(value):
            note = tag("title", f"{line.name}: {value:.4g}")
            yield tag("circle", note, cx=plane.x(place), cy=plane.y(value), r=2.2, class_=f"mark {line.kind}")


def calibration_chart(levels: Floats, below: Floats, at_most: Floats, words: Words) -> Element:
    """Draw, for each level, the share of outcomes below its quantile and the share at or below it, beside the level."""
    plane = _Plane((0.0, 1.0), (0.0, 1.0))
    fifths = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    picture = _frame(words, plane, fifths, [(share, amount(share)) for share in fifths])
    ends = {"x1": plane.x(0), "y1": plane.y(0), "x2": plane.x(1), "y2": plane.y(1)}
    picture.append(tag("line", class_="ideal", **ends))
    for level, low, high in zip(levels.tolist(), below.tolist(), at_most.tolist(), strict=True):
        if math.isfinite(low) and math.isfinite(high):
            note = tag("title", f"level {level:g}: {percent(low)} below, {percent(high)} at or below")
            bottom, top = plane.y(low) + 2, plane.y(high) - 2
            place = {"x": plane.x(level) - 2, "y": top, "width": 4.0, "height": bottom - top}
            picture.append(tag("rect", note, rx=2, class_="share", **place))
    return picture


def bar(value: float, most: float, label: str) -> Element:
    """Draw a signed number as a bar from the middle, in units of the greatest."""
    half = 60 * (abs(value) / most if most > 0 and math.isfinite(value) else 0)
    picture = tag("svg", tag("title", label), viewBox="0 0 124 12", class_="bar", role="img", aria_label=label)
    where = {"x": 62.0 if value >= 0 else 62 - half, "y": 1.5, "width": half, "height": 9.0}
    picture.append(tag("rect", class_="gain" if value >= 0 else "harm", **where))
    picture.append(tag("line", x1=62, x2=62, y1=0, y2=12, class_="axis"))
    return picture


def day(time: np.datetime64) -> str:
    """Day and month of a time.

    Examples
    --------
    >>> day(np.datetime64("2011-11-09T05"))
    '9 Nov'
    """
    *_, month, number = str(time.astype("datetime64[D]")).split("-")
    return f"{int(number)} {_MONTHS[int(month) - 1]}"


def spread(count: int, most: int = _X_TICKS) -> list[int]:
    """Choose some of so many places to be labelled, evenly, the first and the last among them.

    Examples
    --------
    >>> spread(3), spread(8, 4), spread(1), spread(0)
    ([0, 1, 2], [0, 2, 5, 7], [0], [])
    """
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, most)).tolist()})


def nice_ticks(low: float, high: float, most: int = _Y_TICKS) -> list[float]:
    """Round places from at or below `low` to at or above `high`, about as many as asked for.

    Examples
    --------
    >>> nice_ticks(0, 0.83), nice_ticks(0, 0), nice_ticks(-3, 12)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 1.0], [-5.0, 0.0, 5.0, 10.0, 15.0])
    """
    if not high > low:
        return [float(low), low + max(1.0, abs(low))]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((size * power for size in (1, 2, 2.5, 5) if size * power >= rough), 10 * power)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def _scale(values: Sequence[Floats]) -> list[float]:
    """Ticks of a scale that begins at zero, or below where values do."""
    found = np.concatenate([np.asarray(one, np.float64).ravel() for one in values])
    found = found[np.isfinite(found)]
    return nice_ticks(min(0.0, float(found.min(initial=0))), float(found.max(initial=0)))


def _share(value: float, span: tuple[float, float]) -> float:
    low, high = span
    return (value - low) / (high - low) if high > low else 0.5


def _frame(words: Words, plane: _Plane, heights: Sequence[float], places: Sequence[tuple[float, str]]) -> Element:
    """A picture with its title, description, grid and scales, yet empty."""
    ids = f"{words.id}-title {words.id}-desc"
    names = [
        tag("title", shown(words.title, 200), id=f"{words.id}-title"),
        tag("desc", words.desc, id=f"{words.id}-desc"),
    ]
    picture = tag("svg", *names, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_labelledby=ids, class_="chart")
    right, floor = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    for height in heights:
        y = plane.y(height)
        kind = "axis" if height == 0 else "grid"
        picture.append(tag("line", x1=_LEFT, x2=right, y1=y, y2=y, class_=kind))
        picture.append(tag("text", amount(height), x=_LEFT - 6, y=y + 4, class_="end"))
    for place, label in places:
        x = plane.x(place)
        picture.append(tag("line", x1=x, x2=x, y1=floor, y2=floor + 5, class_="tick"))
        picture.append(tag("text", label, x=x, y=floor + 19, class_="middle"))
    picture.append(tag("text", words.y, x=4, y=12, class_="name"))
    picture.append(tag("text", words.x, x=right, y=HEIGHT - 5, class_="name end"))
    return picture


def _path(plane: _Plane, at: Floats, values: Floats) -> str:
    """A line through the finite values; one that stands alone becomes a dot by its round ends."""
    known = np.isfinite(values)
    drawn = []
    for index in np.flatnonzero(known).tolist():
        point = f"{plane.x(float(at[index])):.1f} {plane.y(float(values[index])):.1f}"
        begins = index == 0 or not known[index - 1]
        alone = begins and (index + 1 == len(known) or not known[index + 1])
        drawn.append(f"{'M' if begins else 'L'}{point}{'h0.1' if alone else ''}")
    return "".join(drawn)


def _band(plane: _Plane, at: Floats, low: Floats, high: Floats, kind: str) -> Element:
    """The space between two lines."""
    edge = [*zip(at.tolist(), high.tolist(), strict=True), *zip(at[::-1].tolist(), low[::-1].tolist(), strict=True)]
    points = " ".join(f"{plane.x(x):.1f},{plane.y(y):.1f}" for x, y in edge if math.isfinite(y))
    return tag("polygon", points=points, class_=kind)
