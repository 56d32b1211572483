"""Commands that make files of events: `convert` a public data set, `simulate` the shop in a box.

In: options. Out: a file of events and a summary of it.
Must not know: data sets, the simulator. Rule: nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
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


SimulatedDays = Annotated[int, typer.Option("--days", metavar="N", min=1, max=3650, help="Days the shop lives.")]
SimulatedItems = Annotated[int, typer.Option("--items", metavar="N", min=1, max=1_000_000, help="Items it sells.")]
Truth = Annotated[str | None, typer.Option(metavar="FILE", help="File of the truth.", show_default="beside EVENTS")]
Locations = Annotated[int, typer.Option(metavar="N", min=1, max=3, help="Places it sells from.")]
Start = Annotated[datetime, typer.Option(metavar="DATE", formats=["%Y-%m-%d"], help="Its first day.")]


def simulate(
    days: SimulatedDays,
    items: SimulatedItems,
    out: EventsOut,
    seed: Seed = 0,
    truth: Truth = None,
    locations: Locations = 1,
    start: Start = datetime(2024, 1, 1),
    json: Json = False,
) -> None:
    """Write the built-in shop as a file of events, with the truth beside it.

    Reads nothing: the shop grows from its seed.

    Writes EVENTS, one event per line in order of arrival (with duplicates, disorder, late events, price faults), and
    the truth that no event tells: demand that was wanted and sold, faults, promotions, launches. The same options give
    the same bytes.
    """
    if truth is not None and (truth == out or Path(truth) == Path(out)):
        raise typer.BadParameter("the truth needs a file of its own", param_hint="--truth")
    if not 2000 <= start.year < 2100:
        raise typer.BadParameter("a shop opens from 2000 to 2099", param_hint="--start")
    from streams.simulate import simulate as write_shop

    started_s = time.perf_counter()
    with working(f"simulating {items:,} items over {days:,} days"):
        made = write_shop(days, items, seed, out, truth_out=truth, locations=locations, start=start.date())
    seconds = time.perf_counter() - started_s
    summary = made.as_dict() | {"seconds": round(seconds, 3)}
    aside = out == "-"
    if json:
        print_json(summary, aside=aside)
    else:
        _print_simulation(summary, aside=aside)
    if (start + timedelta(days=days)).timestamp() > time.time():
        note("the last days lie ahead of today: a replay refuses events ahead of this machine's clock")


def _print_simulation(summary: Mapping[str, Any], *, aside: bool) -> None:
    rows = [
        ("days, items, seed", f"{summary['days']:,}, {summary['items']:,}, {summary['seed']}"),
        ("records written", f"{summary['records']:,} ({summary['size_bytes'] / 1e6:,.1f} MB before packing)"),
        *((f"  {name}", f"{count:,}") for name, count in summary["events"].items()),
        ("truth", summary["truth_out"] or "not written"),
        *((f"  {name}", f"{count:,}") for name, count in summary["truth"].items()),
        ("time zone", summary["time_zone"]),
        ("time taken", f"{summary['seconds']:.1f} s, {summary['records'] / summary['seconds']:,.0f} events/s"),
    ]
    print_table("simulate", rows, aside=aside)
