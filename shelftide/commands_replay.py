"""The command `replay`: files of events through the engine into a folder of decisions.

In: options. Out: ``DIR/<topic>.jsonl``, ``DIR/summary.json`` and the summary on stdout.
Must not know: how a replay works. Rule: what is written depends on files and settings alone; timing is printed only.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from shelftide.report import Json, counting, moment, print_json, print_table
from shelftide.shop_options import (
    BaseCurrency,
    Bucket,
    LocationZone,
    MaxSeries,
    PartitionerName,
    Rate,
    Settings,
    Sort,
    TimeZone,
    shop_settings,
)

_Prices = Literal["net", "hurdle", "off"]
_Written = Literal["all", "daily", "weekly", "last"]


def _option(text: str, **more: Any) -> Any:
    return typer.Option(help=text, show_default=more.pop("show_default", False), **more)


Events = Annotated[list[str], typer.Argument(metavar="EVENTS...", help="Files of JSON lines (.zst, .gz); - is stdin.")]
Out = Annotated[Path, _option("Folder to write into; made where it is missing.", metavar="DIR")]
Forecasts = Annotated[_Written, _option("Which forecasts are written: all, those of each day's close, of Mondays, the "
                                        "last.", show_default=True)]  # fmt: skip
Shards = Annotated[int, _option("Play a group of N workers.", metavar="N", min=1, max=1024, show_default=True)]
Until = Annotated[str | None, _option("Let time pass up to T at the end (RFC 3339 or epoch ms), so that open buckets "
                                      "close.", metavar="T")]  # fmt: skip
Model = Annotated[str, _option("Who forecasts: `baseline`, `pretrained`, `champion`, the folder of a model, or one of "
                               "the registry. With the baseline the bytes are the same on every machine.",
                               metavar="NAME", show_default=True)]  # fmt: skip
Prices = Annotated[_Prices, _option("Who forecasts prices: the plain hurdle, the net, which takes ten times as "
                                    "long, or nobody.", show_default=True)]  # fmt: skip
Report = Annotated[Path | None, _option("Also write a page of what learning was worth, week by week.",
                                        metavar="FILE.html")]  # fmt: skip
Chunk = Annotated[int, _option("Records decoded at a time; no output depends on it.", metavar="N", min=1,
                               max=1_000_000, show_default=True)]  # fmt: skip


def replay(
    context: typer.Context,
    events: Events,
    out: Out,
    forecasts: Forecasts = "weekly",
    shards: Shards = 1,
    sort: Sort = False,
    until: Until = None,
    model: Model = "baseline",
    prices: Prices = "hurdle",
    chunk: Chunk = 8192,
    settings: Settings = None,
    time_zone: TimeZone = None,
    location_time_zone: LocationZone = None,
    base_currency: BaseCurrency = None,
    rate: Rate = None,
    bucket: Bucket = None,
    max_series: MaxSeries = None,
    partitioner: PartitionerName = None,
    report: Report = None,
    json: Json = False,
) -> None:
    """Play files of events through the engine, as fast as it goes.

    Reads EVENTS; the order of lines is the order of arrival, several files are merged by their next event time.

    Writes DIR/forecast.demand.v1.jsonl, forecast.price.v1.jsonl, alerts.price.v1.jsonl, replenishment.trigger.v1.jsonl
    and engine.deadletter.v1.jsonl, one output value per line, and DIR/summary.json. Each appears when it is complete.
    The same events and settings give the same bytes.
    """
    from streams.replay import ReplayConfig
    from streams.replay import replay as play

    shop = shop_settings(context.params, model={"name": model, "prices": prices})
    config = ReplayConfig(
        engine=shop.engine(),
        clock_ms=time.time_ns() // 1_000_000,
        shards=shards,
        forecasts=forecasts,
        partitioner=shop.partitioner,
        until_ms=_instant(until),
    )
    if out.exists() and not out.is_dir():
        raise typer.BadParameter(f"{str(out)!r} is a file; name a folder", param_hint="--out")
    if report is not None and report.exists() and not report.is_file():
        raise typer.BadParameter(f"{str(report)!r} is no regular file", param_hint="--report")
    started_s = time.perf_counter()
    with counting(f"replaying {', '.join(events)}", "records") as advance:
        summary = play(events, out, config, sort=sort, forecaster=shop.forecaster(), progress=advance, rows=chunk)
    seconds = time.perf_counter() - started_s
    if report is not None:
        from shelftide.learning_report import write_learning_report

        report.parent.mkdir(parents=True, exist_ok=True)
        write_learning_report(report, summary)
    timing = {"seconds": round(seconds, 3), "events_per_s": round(summary["records"] / seconds)}
    if json:
        print_json({**summary, "timing": timing})
    else:
        print_table(f"replay into {out}", summary_rows(summary, timing))


def _instant(text: str | None) -> int | None:
    """Read an instant: epoch ms, or RFC 3339 with an offset."""
    if text is None:
        return None
    from streams.fields import EARLIEST_MS, LATEST_MS, epoch_ms

    try:
        instant_ms = epoch_ms(int(text) if text.isascii() and text.lstrip("-").isdigit() else text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}", param_hint="--until") from None
    if not EARLIEST_MS <= instant_ms <= LATEST_MS:
        raise typer.BadParameter(f"{text!r} lies before 2000 or after 9999", param_hint="--until")
    return instant_ms


def summary_rows(summary: Mapping[str, Any], timing: Mapping[str, float]) -> list[tuple[str, str]]:
    """The summary of a replay as names and values for people."""
    scores, made = summary["scores"]["overall"], summary["forecasts"]
    letters = summary["dead_letters"]
    return [
        ("time taken", f"{timing['seconds']:.1f} s, {timing['events_per_s']:,.0f} events/s"),
        ("records", f"{summary['records']:,}"),
        *_counts("events", summary["events"]),
        ("intake", _parts({name: n for name, n in summary["intake"].items() if n})),
        *_counts("dead letters", letters["by_stage"]),
        *(("", f"{count:,}: {reason}") for reason, count in letters["by_reason"].items()),
        ("event time", f"{moment(summary['first_event_ms'] or -1)} to {moment(summary['last_event_ms'] or -1)}"),
        ("series", f"{summary['series']:,} in {summary['shards']} shard{'s' * (summary['shards'] > 1)}"),
        ("forecasts made", f"{made['made']:,}, of these {made['at_close']:,} at {summary['closes']:,} closes"),
        ("forecasts written", _listed(made["written_by_basis"], made["written"])),
        ("model", made["model"]),
        ("price forecasts written", f"{summary['price_forecasts']['written']:,}"),
        ("price alerts", _listed(summary["alerts"]["fired_by_kind"])),
        ("  revisions", _listed(summary["alerts"]["revisions_by_status"])),
        ("triggers", _listed(summary["triggers"])),
        ("forecasts scored", f"{scores['outcomes']:,}"),
        ("WQL, coverage of 80 %", f"{_figure(scores['wql'], 4)}, {_figure(scores['coverage80'], 3)}"),
    ]


def _counts(name: str, counts: Mapping[str, int]) -> Iterable[tuple[str, str]]:
    """A total and its parts, each on a line of its own."""
    yield name, f"{sum(counts.values()):,}"
    for part, count in counts.items():
        yield f"  {part}", f"{count:,}"


def _listed(counts: Mapping[str, int], total: int | None = None) -> str:
    """A total and its parts on one line."""
    parts = _parts(counts)
    return f"{sum(counts.values()) if total is None else total:,}" + (f" ({parts})" if parts else "")


def _parts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _figure(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
