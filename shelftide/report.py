"""How commands speak: tables and JSON on stdout, notes and bars on stderr.

In: figures as names and texts. Out: lines.
Must not know: what the figures mean. Rule: stdout holds results alone; bars appear on a terminal only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")]
Seed = Annotated[int, typer.Option(metavar="S", min=0, max=2**32 - 1, help="Seed of everything drawn at random.")]

PLAIN_COLUMNS = 120
"""Width of tables that do not go to a terminal, which has its own."""


def stdout() -> Console:
    """The console of results."""
    return _console(Console(highlight=False))


def stderr() -> Console:
    """The console of notes and bars."""
    return _console(Console(stderr=True, highlight=False))


def _console(console: Console) -> Console:
    if not console.is_terminal:
        console.width = PLAIN_COLUMNS
    return console


def note(text: str) -> None:
    """Say something on stderr."""
    stderr().print(Text(text, style="dim"), soft_wrap=True)


def print_json(value: Any, *, aside: bool = False) -> None:
    """Print a value as JSON on stdout, or on stderr where stdout holds something else."""
    import orjson

    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode(), err=aside)


def print_table(title: str, rows: Sequence[tuple[str, str]], *, aside: bool = False) -> None:
    """Print names and values below each other; a name that begins with blanks belongs to the one above."""
    table = Table(
        title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2, 0, 0)
    )
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name, style="dim" if name.startswith(" ") else ""), Text(value))
    (stderr() if aside else stdout()).print(table)


def moment(time_ms: int) -> str:
    """An instant for people: UTC, to the minute.

    Examples
    --------
    >>> moment(1_300_000_000_005), moment(-1)
    ('2011-03-13 07:06 UTC', '–')
    """
    return "–" if time_ms < 0 else f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show that something takes its time: a spinner on a terminal, else one line."""
    console = stderr()
    if not console.is_terminal:
        note(what)
        yield
        return
    with Progress(
        SpinnerColumn(), TextColumn(what, markup=False), TimeElapsedColumn(), console=console, transient=True
    ) as bar:
        bar.add_task("", total=None)
        yield


@contextmanager
def counting(what: str, unit: str) -> Iterator[Callable[[int], None]]:
    """Count what is done, as a moving bar with a rate on a terminal; elsewhere silently.

    Yields
    ------
    To be called with the number done since the last call.
    """
    console = stderr()
    if not console.is_terminal:
        note(what)
        yield lambda done: None
        return
    shown = TextColumn("{task.completed:,.0f} " + unit)
    rate = TextColumn("{task.fields[rate]}", style="dim")
    columns = (SpinnerColumn(), TextColumn(what, markup=False), BarColumn(24), shown, rate, TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, rate="")

        def advance(done: int) -> None:
            bar.advance(task, done)
            row = bar.tasks[0]
            if row.elapsed:
                bar.update(task, rate=f"{row.completed / row.elapsed:,.0f}/s")

        yield advance


@contextmanager
def sharing(what: str) -> Iterator[Callable[[float], None]]:
    """Show which share of something is done, as a bar on a terminal; elsewhere silently.

    Yields
    ------
    To be called with the share, 0 to 1.
    """
    console = stderr()
    if not console.is_terminal:
        note(what)
        yield lambda share: None
        return
    columns = (SpinnerColumn(), TextColumn(what, markup=False), BarColumn(24), TextColumn("{task.percentage:.0f} %"),
               TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share: bar.update(task, completed=share)
