"""The demo on a terminal: one frame as a picture, or as one line where there is no terminal.

In: a `streams.demo.Frame`, the size of the terminal. Out: something rich can print.
Must not know: how a frame came about, clocks. Rule: a frame and a size give one picture, and it shows nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from streams.demo import AHEAD_DAYS, HISTORY_DAYS, AlertView, Frame, ItemView, TriggerView

SOLD, TODAY, BAND, MEDIAN = "#5f9fd7", "#afdfff", "#34506b", "#ffcf5f"
"""Colours of the charts: past demand, today so far, the 80 % interval, the median."""
_SEVERITY = {"critical": "bold #ff5f5f", "warning": "#ffaf5f", "info": "#87afff"}
_URGENCY = {"critical": "bold #ff5f5f", "high": "#ffaf5f", "normal": "#87afff"}
_STANDING = ("open", "updated")
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_BORDER = "#5f6f7f"
_WIDE = 112
"""Columns from which demand and decisions stand side by side."""


def picture(frame: Frame, width: int, height: int) -> RenderableType:
    """Draw a frame to fill a terminal of ``width`` columns and ``height`` lines."""
    body = height - 3  # the headline takes two lines, and the last stays free for the cursor
    chart_rows = 4 if height >= 45 else 3
    if width >= _WIDE:
        return Group(_headline(frame, width), _side_by_side(frame, width, body, chart_rows))
    lists = 0 if body < 20 else 11
    items = frame.items[: max(1, (body - lists - 2) // (chart_rows + 1))]
    parts: list[RenderableType] = [_demand(items, width, chart_rows)]
    if lists:
        left = body - 1 - (2 + (chart_rows + 1) * max(1, len(items)))
        parts += [_alerts(frame, left // 2), _triggers(frame, left - left // 2)]
        parts.append(_one_line([figure for row in _figures(frame) for figure in row]))
    return Group(_headline(frame, width), *parts)


def _side_by_side(frame: Frame, width: int, body: int, chart_rows: int) -> RenderableType:
    items = frame.items[: max(1, (body - 2) // (chart_rows + 1))]
    per_day = 3 if width >= 150 else 2
    left = 4 + HISTORY_DAYS + 1 + AHEAD_DAYS * per_day
    figures = _panel("Accuracy and engine", "", _lines([_one_line(row) for row in _figures(frame)]), 5)
    rows = max(8, (2 + (chart_rows + 1) * max(1, len(items))) - 5)
    alerts = 2 + 2 * max(1, (rows // 2 - 2) // 2)
    grid = Table.grid(expand=True)
    grid.add_column(width=left)
    grid.add_column(ratio=1)
    grid.add_row(
        _demand(items, left, chart_rows), Group(_alerts(frame, alerts), _triggers(frame, rows - alerts), figures)
    )
    return grid


# -- the lines above


def _headline(frame: Frame, width: int) -> RenderableType:
    first = Table.grid(expand=True, padding=(0, 1, 0, 0))
    for ratio in (1, None, None, None):
        first.add_column(ratio=ratio, no_wrap=True, overflow="ellipsis")
    name = Text.assemble(("shelftide", f"bold {MEDIAN}"), (" demo", "bold"), ("  a simulated shop", "dim"))
    name.no_wrap, name.overflow = True, "ellipsis"
    first.add_row(name, Text(f"{frame.now:%a %d %b %Y %H:%M}", style="bold"), _phase(frame), _bar(frame, width // 8))
    lag_min = (frame.now - frame.watermark).total_seconds() / 60
    figures = [
        (f"{frame.pace.events_per_s:,.0f}", "events/s") if frame.pace else None,
        (f"{frame.events:,}", "events"),
        (f"{frame.series:,}", "series"),
        (f"{frame.forecasts:,}", "forecasts"),
        (f"{frame.watermark:%H:%M}", f"watermark ({lag_min:.0f} min behind)"),
    ]
    second = Text("  ").join(Text.assemble((n, "bold"), (f" {what}", "dim")) for n, what in filter(None, figures))
    second.no_wrap, second.overflow = True, "ellipsis"
    return Group(first, second)


def _bar(frame: Frame, width: int) -> RenderableType:
    return ProgressBar(frame.days, frame.day, width=max(8, width), complete_style=SOLD, finished_style=SOLD)


def _phase(frame: Frame) -> Text:
    if frame.phase == "warm-up":
        return Text(f"warming up, day {frame.day} of {frame.days}", style="#ffaf5f")
    return Text(f"day {frame.day} of {frame.days}", style="#87d787")


# -- demand and the forecast fan

TITLE_COLUMNS = 21
"""Of an item's name, the mark of its cut included, before anything beside it is left out."""


def _demand(items: Sequence[ItemView], width: int, chart_rows: int) -> Panel:
    lines: list[Text] = []
    for item in items:
        lines.append(_item_title(item, width - 4))
        lines += fan_chart(item, chart_rows, width - 4)
    legend = Text.assemble(
        ("█", SOLD), (" sold per day ", "dim"), ("█", TODAY), (" today ", "dim"), ("━", f"bold {MEDIAN} on {BAND}"),
        (" median,", "dim"), (" "), ("░░", f"{BAND} on {BAND}"), (" 80 %", "dim"),
    )  # fmt: skip
    content: RenderableType = Group(*lines) if lines else Text("waiting for the first day to close …", style="dim")
    title = Text.assemble(("Best sellers", "bold"), ("  4 weeks, today, 2 weeks ahead", "dim"))
    return Panel(content, title=title, title_align="left", subtitle=legend, subtitle_align="left", border_style=_BORDER)


def _item_title(item: ItemView, width: int) -> Text:
    expected = f"{item.median[0]:,.0f} ({item.low[0]:,.0f}–{item.high[0]:,.0f})"
    more = [] if item.available is None else [f"  stock {item.available:,.0f}"]
    if item.price is not None:
        more += [f"  {item.price:,.2f}", f", changes {_percent(item.p_change, 0)}"]

    def right() -> Text:
        sold = (f"{item.observed:,.0f}", f"bold {TODAY}"), (" sold of ", "dim"), (expected, MEDIAN)
        return Text.assemble(*sold, ("".join(more), "dim"))

    title = Text(item.title, style="bold")
    while more and width - right().cell_len - 2 < min(title.cell_len, TITLE_COLUMNS):
        more.pop()  # a name is worth more than the rest
    title.truncate(max(8, width - right().cell_len - 2), overflow="ellipsis")
    line = Text.assemble(title, " " * max(2, width - title.cell_len - right().cell_len), right())
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def fan_chart(item: ItemView, rows: int, width: int) -> list[Text]:
    """Draw past demand as bars and the forecast as a fan, top line first.

    Parameters
    ----------
    item
        What to draw.
    rows
        Lines; each holds eight steps of height.
    width
        Columns at most; the days ahead are drawn two or three columns wide where there is room, the oldest days of the
        past are left out where there is not.

    Examples
    --------
    >>> item = ItemView("a", "Tea", [0, 4, 8], 2, [2, 0], [4, 2], [8, 4], None)
    >>> [line.plain for line in fan_chart(item, 1, 6)]
    ['▁▄█▂━▁']
    """
    ahead = len(item.median)
    past = [*item.history, item.observed][-max(1, width - ahead) :]
    wide = max(1, min(3, (width - len(past)) // max(ahead, 1)))
    top = max([*(value or 0 for value in past), *item.high, 1e-9])
    scale = 8 * rows / top
    lines = []
    for row in range(rows - 1, -1, -1):
        line = Text(no_wrap=True, overflow="crop")
        for index, value in enumerate(past):
            filled = round(min(max((value or 0) * scale - 8 * row, 0), 8))
            floor = "▁" if not filled and row == 0 and value is not None else ""  # a day without a sale is seen
            colour = TODAY if index == len(past) - 1 else SOLD
            line.append(*((floor, f"dim {colour}") if floor else _block(filled, colour)))
        for low, median, high in zip(item.low, item.median, item.high, strict=True):
            char, style = _fan_cell(8 * row, low * scale, median * scale, high * scale, is_top=row == rows - 1)
            line.append(char * wide, style=style)
        lines.append(line)
    return lines


def _fan_cell(floor: int, low: float, median: float, high: float, *, is_top: bool) -> tuple[str, str]:
    """One cell of the fan: it holds the heights ``floor`` to ``floor`` + 8."""
    below, above = min(max(low - floor, 0), 8), min(max(high - floor, 0), 8)
    if floor <= median < floor + 8 or (is_top and median >= floor + 8):
        at = median - floor
        char = "▁" if at < 2.5 else "━" if at < 5.5 else "▔"
        return char, f"bold {MEDIAN} on {BAND}" if above - below >= 3 else f"bold {MEDIAN}"
    if above - below < 0.5:
        return " ", ""
    if below < 0.5:
        return _block(round(above), BAND, "░")
    # The lower edge of the band: the block below it is cut out of the band by reversing.
    return _EIGHTHS[round(below)], f"reverse {BAND}"


def _block(eighths: int, colour: str, full: str = "█") -> tuple[str, str]:
    """A cell filled from below; a full one stands on its own colour, so that no seam to the next line is seen."""
    return (full, f"{colour} on {colour}") if eighths == 8 else (_EIGHTHS[eighths], colour)


# -- decisions


def _alerts(frame: Frame, height: int) -> Panel:
    rows = [line for alert in frame.alerts for line in _alert_lines(alert)]
    return _panel("Price alerts", f"{frame.alerts_open:,} open", _lines(rows[: (height - 2) // 2 * 2]), height)


def _alert_lines(alert: AlertView) -> tuple[Text, Text]:
    over = alert.status == "resolved"
    style = "" if over else _SEVERITY.get(alert.severity, "")
    mark = ("✓ ", "#87d787") if over else ("● ", style)
    price = f"{alert.observed:,.2f} {alert.currency}"
    usual = "" if alert.expected is None else f", usually {alert.expected:,.2f}"
    risk = "" if alert.money_at_risk is None or over else f", {alert.money_at_risk:,.0f} at risk"
    end = f", {alert.resolution}" if over and alert.resolution else ""
    return (
        Text.assemble(mark, (alert.kind.replace("_", " "), style or "bold"), f"  {alert.what}"),
        Text.assemble(
            (f"  {alert.at:%d %b}  ", "dim"), (price, "dim" if over else "bold"), (usual + risk + end, "dim")
        ),
    )


def _triggers(frame: Frame, height: int) -> Panel:
    table = Table.grid(expand=True, padding=(0, 1, 0, 0))
    table.add_column(width=1)
    table.add_column(width=6)
    table.add_column(width=11)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right", no_wrap=True)
    standing, over = ([t for t in frame.triggers if (t.status in _STANDING) == wanted] for wanted in (True, False))
    rows = max(1, height - 2)
    shown = standing[: max(1, rows - min(len(over), rows // 4))]
    for trigger in [*shown, *over[: rows - len(shown)]]:
        table.add_row(*_trigger_cells(trigger))
    content = table if frame.triggers else None
    return _panel("Replenishment triggers", f"{frame.triggers_open:,} open", content, height)


def _trigger_cells(trigger: TriggerView) -> tuple[Text, ...]:
    over = trigger.status not in _STANDING
    style = "dim" if over else _URGENCY.get(trigger.urgency, "")
    by = datetime.fromisoformat(trigger.order_by)
    return (
        Text("×" if over else "▲", style=style),
        Text(f"{trigger.at:%d %b}", style="dim"),
        Text(trigger.status if over else f"order {trigger.quantity:,.0f}", style=style),
        Text(trigger.what, style="dim" if over else ""),
        Text("" if over else f"by {by:%d %b}", style="dim"),
    )


def _figures(frame: Frame) -> list[list[tuple[str, str]]]:
    """Names and values, three rows of them."""
    scores = frame.scores["overall"]
    letters = ", ".join(f"{stage} {count:,}" for stage, count in frame.dead_letters.items()) or "none"
    rows = [
        [("WQL", _number(scores["wql"], 3)), ("80 % interval covers", _percent(scores["coverage80"]))],
        [("forecasts scored", f"{scores['outcomes']:,}"), ("dead letters", letters)],
    ]
    if frame.pace:
        p50, p99 = frame.pace.chunk_p50_ms, frame.pace.chunk_p99_ms
        rows.insert(1, [("chunk (an hour) p50", f"{p50:.1f} ms"), ("p99", f"{p99:.1f} ms")])
    return rows


def _one_line(figures: Sequence[tuple[str, str]]) -> Text:
    line = Text("  ").join(Text.assemble((f"{name} ", "dim"), (value, "bold")) for name, value in figures)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _lines(lines: Sequence[Text]) -> RenderableType | None:
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines) if lines else None


def _panel(title: str, aside: str, content: RenderableType | None, height: int) -> Panel:
    heading = Text.assemble((title, "bold"), (f"  {aside}" if aside else "", "dim"))
    shown = Text("none yet", style="dim") if content is None else content
    return Panel(shown, title=heading, title_align="left", height=max(3, height), border_style=_BORDER)


# -- without a terminal


def week_line(frame: Frame) -> str:
    """Tell a frame in one line, for a pipe or a log file."""
    scores = frame.scores["overall"]
    parts = [
        f"{frame.now:%Y-%m-%d}",
        f"day {frame.day:>3}/{frame.days} {'(warm-up)' if frame.phase == 'warm-up' else '':9}",
        f"{frame.events:>9,} events",
        f"{frame.series:>5,} series",
        f"{frame.forecasts:>9,} forecasts",
        f"{frame.alerts_open:>2} alerts open",
        f"{frame.triggers_open:>3} triggers open",
        f"WQL {_number(scores['wql'], 3)}",
        f"covered {_percent(scores['coverage80'])}",
    ]
    if frame.pace:
        parts.append(f"p99 {frame.pace.chunk_p99_ms:.1f} ms")
    return "  ".join(parts)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"
