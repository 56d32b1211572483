"""The shop in a box as a file of events, with the truth beside it.

In: days, items, a seed.
Out: the records in the order of their arrival; a second file that says what no record does; a summary.
Must not know: how the shop works, the engine. Rule: the same settings give the same bytes in both files.

The truth is JSON lines with a ``kind``: ``settings`` (first line), ``demand`` (per local date, item and location:
units wanted and units sold; no line where nobody wanted any), ``stock_out`` (units lost), ``fault`` (a price fault:
its form, whether one line or the whole feed, first and last wrong event and the correction of each line),
``promotion`` (as announced), ``launch``, ``late`` (flows more than two hours behind the watermark of a reader with a
bound of five minutes, in one partition, and whether their day was final by then), ``counts`` (last line).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import orjson

from streams.events import Kind
from streams.files import EventWriter
from streams.shop import FAULT_RATE, TIME_ZONE, Shop, ShopError
from streams.shop_days import START

__all__ = ["Shop", "ShopError", "SimulateSummary", "simulate", "truth_path"]

_TYPES = frozenset(kind.name.lower() for kind in Kind)


@dataclass(frozen=True)
class SimulateSummary:
    """What was written.

    Attributes
    ----------
    records
        Lines of the file, repeats included.
    events
        Event type -> number, repeats not counted.
    truth
        Counters of the truth: units wanted, sold and cancelled, duplicates, slow and late events, faults, promotions.
    size_bytes
        Of the events before packing.
    truth_out
        The truth file, empty where none was written.

    Examples
    --------
    >>> SimulateSummary(1, 2, 3, "2024-01-01", "Europe/London", 0, {}, {}, 0, "").as_dict()["seed"]
    3
    """

    days: int
    items: int
    seed: int
    start: str
    time_zone: str
    records: int
    events: Mapping[str, int]
    truth: Mapping[str, int]
    size_bytes: int
    truth_out: str

    def as_dict(self) -> dict[str, Any]:
        """Give the summary as plain values, ready for JSON."""
        return asdict(self)


def truth_path(out: Path | str) -> Path | None:
    """Where the truth of a file of events lies unless said otherwise; nowhere for standard output.

    Examples
    --------
    >>> truth_path("shop/events.jsonl.zst").as_posix(), truth_path("-")
    ('shop/events.truth.jsonl', None)
    """
    path = Path(out)
    if str(out) == "-":
        return None
    name = path.name
    for suffix in (".zst", ".gz", ".jsonl", ".json"):
        name = name.removesuffix(suffix)
    return path.with_name(f"{name}.truth.jsonl")


def simulate(
    days: int,
    items: int,
    seed: int,
    out: Path | str,
    *,
    truth_out: Path | str | None = None,
    locations: int = 1,
    start: date = START,
    fault_rate: float = FAULT_RATE,
) -> SimulateSummary:
    """Write a simulated shop as a file of events and, beside it, the truth.

    Parameters
    ----------
    days, items, seed, locations, start, fault_rate
        See `streams.shop.Shop`.
    out
        File to write, see `streams.files.EventWriter`.
    truth_out
        File of the truth; by default `truth_path` of ``out``.

    Raises
    ------
    ShopError
        If a number is out of range.
    FileError
        If a file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> summary = simulate(2, 20, 1, Path(tempfile.mkdtemp()) / "events.jsonl")
    >>> summary.events["item_described"], Path(summary.truth_out).name
    (19, 'events.truth.jsonl')
    """
    shop = Shop(items, seed, days=days, locations=locations, start=start, fault_rate=fault_rate)
    truth_to = truth_path(out) if truth_out is None else truth_out
    settings = {"kind": "settings", "days": days, "items": items, "seed": seed, "start": start.isoformat()}
    settings |= {"time_zone": TIME_ZONE, "locations": list(shop.places), "fault_rate": fault_rate}
    with EventWriter(out) as events, nullcontext() if truth_to is None else EventWriter(truth_to) as truth:
        _write(shop, settings, events, truth)
    counts = {name: shop.counts[name] for name in sorted(shop.counts)}
    return SimulateSummary(
        days=days,
        items=items,
        seed=seed,
        start=start.isoformat(),
        time_zone=TIME_ZONE,
        records=events.lines,
        events={name: count for name, count in counts.items() if name in _TYPES and count},
        truth={name: count for name, count in counts.items() if name not in _TYPES},
        size_bytes=events.size_bytes,
        truth_out="" if truth_to is None else str(truth_to),
    )


def _write(shop: Shop, settings: Mapping[str, Any], events: EventWriter, truth: EventWriter | None) -> None:
    """Write all days, and what is still under way after the last."""
    if truth:
        truth.write([orjson.dumps(settings)])
    for day in range(settings["days"] + 1):
        events.write(shop.day(day) if day < settings["days"] else shop.rest())
        if truth:
            truth.write(shop.truth)
    if truth:
        truth.write([orjson.dumps({"kind": "counts", **shop.counts}, option=orjson.OPT_SORT_KEYS)])
