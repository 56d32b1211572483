"""The command `demo`: the whole engine in one process on the built-in shop, to look at.

In: options. Out: a live view on a terminal, lines per simulated week elsewhere; a summary at the end.
Must not know: what a frame shows. Rule: Ctrl-C ends between two chunks, so that the summary is always true.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from shelftide.commands_replay import summary_rows
from shelftide.report import Json, print_json, print_table, stderr, stdout
from shelftide.shop_options import shop_settings

if TYPE_CHECKING:
    from streams.demo import Demo

Items = Annotated[int, typer.Option(metavar="N", min=1, max=20_000, help="Items of the shop.")]
ShopSeed = Annotated[int, typer.Option("--seed", metavar="S", min=0, max=2**32 - 1, help="Another seed, another shop.")]
_FAST = "Simulated days a second, 0 for as fast as it goes."
_WHO = "Who forecasts: `pretrained`, `baseline`, `champion`, the folder of a model, or one of the registry."
Model = Annotated[str, typer.Option(metavar="NAME", help=_WHO)]
Speed = Annotated[float | None, typer.Option(metavar="N", min=0, help=_FAST, show_default="1; without a terminal 0")]
Days = Annotated[int, typer.Option(metavar="N", min=1, max=3650, help="Days played after the warm-up.")]
_BEFORE = "Days played first at full speed, for a history."
WarmUp = Annotated[int, typer.Option(metavar="N", min=0, max=365, help=_BEFORE)]
_PICTURE = "Also write the picture of the last noon, less what was measured: the same options give the same file."
Svg = Annotated[Path | None, typer.Option(metavar="FILE", help=_PICTURE)]

_FRAMES_PER_S = 12
_LIVELY = 1.0
"""Simulated days a second on a terminal: two minutes for a season, slow enough to read an alert."""
_NOON = 12
_SVG_COLUMNS, _SVG_ROWS = 128, 33


def demo(
    items: Items = 200,
    seed: ShopSeed = 1,
    days: Days = 120,
    warm_up: WarmUp = 42,
    speed: Speed = None,
    svg: Svg = None,
    model: Model = "pretrained",
    json: Json = False,
) -> None:
    """Watch the engine run a simulated shop: forecasts, price alerts, replenishment triggers.

    Reads nothing: the shop is built in and grows from its seed; no Kafka, no download.

    Writes a live view to the terminal until the days are over or Ctrl-C; where there is no terminal, a line per
    simulated week. Then a summary. With --json the summary goes to stdout and all else to stderr.
    """
    from streams.demo import Demo, DemoConfig

    if svg is not None and not svg.parent.is_dir():
        raise typer.BadParameter(f"the folder of {str(svg)!r} does not exist", param_hint="--svg")
    console = stderr() if json else stdout()
    forecaster = shop_settings({}, model={"name": model}).forecaster()
    shop = Demo(DemoConfig(items, seed, days, warm_up), None if svg else time.perf_counter, forecaster)
    pace = (_LIVELY if console.is_terminal and not svg else 0.0) if speed is None else speed
    started_s = time.perf_counter()
    with _stop_on_interrupt() as stopped:
        _play(shop, console, pace, stopped, svg)
    seconds = time.perf_counter() - started_s
    summary = shop.player.summary() if stopped() else shop.finish()
    timing = {"seconds": round(seconds, 3), "events_per_s": round(summary["records"] / seconds)}
    if json:
        print_json({**summary, "interrupted": stopped(), "timing": timing})
    else:
        print_table("demo, interrupted" if stopped() else "demo", summary_rows(summary, timing))


def _play(shop: Demo, console: Console, speed: float, stopped: Callable[[], bool], svg: Path | None) -> None:
    """Play to the end or until stopped; the warm-up at full speed, the rest at ``speed`` days a second."""
    show = _live(shop, console) if console.is_terminal else nullcontext(_weekly(shop, console))
    began: tuple[float, int] | None = None
    with show as show_frame:
        for now_ms in shop.hours():
            if stopped():
                break
            show_frame()
            if svg is not None and shop.day == shop.total_days and shop.frame().now.hour >= _NOON:
                _write_svg(shop, svg)
                svg = None
            if shop.warm or not speed:
                continue
            began = began or (time.perf_counter(), now_ms)
            due_s = began[0] + (now_ms - began[1]) / (86_400_000 * speed)
            while (wait_s := due_s - time.perf_counter()) > 0 and not stopped():
                time.sleep(min(wait_s, 1 / _FRAMES_PER_S))
                show_frame()
    if svg is not None:  # stopped before noon, or closed that day
        _write_svg(shop, svg)


@contextmanager
def _live(shop: Demo, console: Console) -> Iterator[Callable[[], None]]:
    """Redraw the terminal a few times a second; the last picture stays."""
    from rich.live import Live

    from streams.live_view import picture

    due_s = [0.0]
    with Live(console=console, screen=True, auto_refresh=False) as live:

        def draw() -> None:
            if time.perf_counter() >= due_s[0]:
                live.update(picture(shop.frame(), console.width, console.height), refresh=True)
                due_s[0] = time.perf_counter() + 1 / _FRAMES_PER_S

        yield draw
    console.print(picture(shop.frame(), console.width, console.height))


def _weekly(shop: Demo, console: Console) -> Callable[[], None]:
    """Print a line as each simulated week ends."""
    from streams.live_view import week_line

    told = 0

    def tell() -> None:
        nonlocal told
        if (week := (shop.day - 1) // 7) > told:
            told = week
            console.print(week_line(shop.frame()), soft_wrap=True)

    return tell


@contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Note the first Ctrl-C instead of breaking off in the middle; a second one breaks off."""
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _write_svg(shop: Demo, path: Path) -> None:
    """Draw the present frame as on a terminal of fixed size."""
    from io import StringIO

    from streams.files import EventWriter
    from streams.live_view import picture

    canvas = Console(
        record=True,
        file=StringIO(),
        width=_SVG_COLUMNS,
        height=_SVG_ROWS,
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
        _environ={},
    )
    canvas.print(picture(shop.frame(), _SVG_COLUMNS, _SVG_ROWS))
    svg = canvas.export_svg(title="shelftide demo")
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # fonts of the reader, none from the network
    with EventWriter(path) as file:
        file.write_block(svg.encode())
