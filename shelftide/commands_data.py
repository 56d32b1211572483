"""Commands that make files of events: `convert` a public data set, `simulate` the shop in a box.

In: options. Out: a file of events and a summary of it.
Must not know: data sets, the simulator. Rule: nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from shelftide.report import Json, Seed, moment, note, print_json, print_table, working

_ZONES = {"uci-online-retail": "Europe/London", "rees46": "UTC"}
"""Where a day of each data set ends: said with the summary, because a replay must be told."""


Format = Literal["uci-online-retail", "rees46"]
Source = Annotated[Path, typer.Argument(metavar="SOURCE", help="The data set as a Parquet file.")]
EventsOut = Annotated[
    str, typer.Option("--out", metavar="EVENTS", help="File to write; .zst and .gz pack, - is stdout.")
]
WithStock = Annotated[bool, typer.Option("--with-stock", help="uci-online-retail has no stock: add daily counts of "
                                         "an invented inventory, marked as simulated.")]  # fmt: skip
Currency = Annotated[str | None, typer.Option(metavar="CODE", help="ISO 4217 code of the prices of rees46, which "
                                              "states none.", show_default="USD")]  # fmt: skip


def convert(
    data_format: Annotated[Format, typer.Argument(metavar="FORMAT", help="uci-online-retail or rees46.")],
    source: Source,
    out: EventsOut,
    with_stock: WithStock = False,
    seed: Seed = 0,
    currency: Currency = None,
    json: Json = False,
) -> None:
    """Turn a public data set into events.

    Reads SOURCE (Parquet with the published columns). Writes EVENTS, one event per line in order of event time, and
    prints what was written, what was left out and why, and what was invented. The file appears when it is complete.
    """
    if with_stock and data_format != "uci-online-retail":
        raise typer.BadParameter("stock is invented for uci-online-retail alone", param_hint="--with-stock")
    if currency is not None and data_format != "rees46":
        raise typer.BadParameter("the currency of uci-online-retail is GBP", param_hint="--currency")
    from streams.convert import convert_rees46, convert_uci

    started_s = time.perf_counter()
    with working(f"converting {source}"):
        if data_format == "uci-online-retail":
            summary = convert_uci(source, out, with_stock=with_stock, seed=seed).as_dict()
        else:
            summary = convert_rees46(source, out, currency=currency or "USD").as_dict()
    summary |= {"time_zone": _ZONES[data_format], "seconds": round(time.perf_counter() - started_s, 3)}
    aside = out == "-"  # stdout holds the events
    if json:
        print_json(summary, aside=aside)
    else:
        _print_conversion(summary, aside=aside)
    given = "EVENTS" if aside else out
    note(f"play it: shelftide replay {given} --time-zone {summary['time_zone']} --base-currency {summary['currency']} "
         "--out DIR")  # fmt: skip


def _print_conversion(summary: Mapping[str, Any], *, aside: bool) -> None:
    rows = [
        ("rows read", f"{summary['rows']:,}"),
        ("events written", f"{sum(summary['events'].values()):,}"),
        *((f"  {name}", f"{count:,}") for name, count in summary["events"].items()),
        ("rows left out", f"{sum(summary['skipped'].values()):,}"),
        *((f"  {name}", f"{count:,}") for name, count in summary["skipped"].items()),
        ("items", f"{summary['items']:,}"),
        ("first event", moment(summary["first_ms"])),
        ("last event", moment(summary["last_ms"])),
        ("time zone, currency", f"{summary['time_zone']}, {summary['currency']}"),
        *((f"simulated: {name}", text) for name, text in summary["simulated"].items()),
        *((f"note {n}", text) for n, text in enumerate(summary["notes"], 1)),
        ("seconds", f"{summary['seconds']:.1f}"),
    ]
    print_table(f"convert {summary['format']}", rows, aside=aside)
