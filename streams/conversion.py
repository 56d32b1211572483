"""What every conversion of a public data set to events shares: reading a table, encoding, the summary.

In: a Parquet file; frames with a column per field of an event.
Out: a file of events in order of event time, facts before flows at equal times; `ConvertSummary`.
Must not know: any one data set. Rule: every row of the source is an event or is counted under a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from streams.calendar import DAY_MS
from streams.files import EventWriter

SPAN_MS = 31 * DAY_MS
"""Events are encoded and written a month at a time, so that memory holds one month of text (about 80 MB for UCI)."""

RANKS = {"item_described": 0, "price_set": 1, "stock_counted": 2}
"""Order of events of one instant: what an item is, its price, its stock, then the flows (rank 3)."""


class ConvertError(Exception):
    """A source is not the data set it was said to be; one sentence with the path and what was expected.

    Attributes
    ----------
    source
        The path as given.
    """

    def __init__(self, source: Path | str, sentence: str) -> None:
        super().__init__(sentence)
        self.source = str(source)


@dataclass(frozen=True)
class ConvertSummary:
    """What a conversion read, wrote and left out, and what of it was made up.

    Attributes
    ----------
    rows
        Rows of the source. Each is one flow event or counted once in ``skipped``.
    events
        Event type -> number written.
    skipped
        Reason -> rows without an event.
    codes
        Of the rows skipped as ``not_a_product``: code -> rows.
    items
        Distinct SKUs among the events.
    first_ms, last_ms
        Event time of the first and the last event, -1 without events.
    simulated
        What is invented rather than taken from the source, and how; empty when all is real.
    notes
        Decisions a reader of the events should know.

    Examples
    --------
    >>> summary = ConvertSummary("uci-online-retail", 2, {"order_placed": 1}, {"write_off": 1}, {}, 1, 0, 0, "GBP")
    >>> summary.as_dict()["skipped"]
    {'write_off': 1}
    """

    format: str
    rows: int
    events: Mapping[str, int]
    skipped: Mapping[str, int]
    codes: Mapping[str, int]
    items: int
    first_ms: int
    last_ms: int
    currency: str
    simulated: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Give the summary as plain values, ready for JSON."""
        return asdict(self)


def read_table(source: Path | str, columns: Mapping[str, pl.DataType], *, time_zone: str = "UTC") -> pl.DataFrame:
    """Read the named columns of a Parquet file, cast to the given types; a value that does not fit is null.

    Times without a zone stay as they are; those with one become local times of ``time_zone``.

    Raises
    ------
    ConvertError
        If the file is missing or no Parquet file, or a column is absent or of a wholly different type.

    Examples
    --------
    >>> read_table("nowhere.parquet", {"InvoiceNo": pl.String()})
    Traceback (most recent call last):
    streams.conversion.ConvertError: 'nowhere.parquet' does not exist; check the path
    """
    name = repr(str(source))
    try:
        with Path(source).open("rb") as file:
            present = pl.read_parquet_schema(file)
            missing = [column for column in columns if column not in present]
            if missing:
                raise ConvertError(source, f"{name} has no column {', '.join(missing)}; it is another data set")
            for column, wanted in columns.items():
                if wanted.is_temporal() != present[column].is_temporal():
                    raise ConvertError(source, f"{name}: column {column} is {present[column]}, expected {wanted}")
            file.seek(0)
            table = pl.read_parquet(file, columns=list(columns))
    except FileNotFoundError as error:
        raise ConvertError(source, f"{name} does not exist; check the path") from error
    except IsADirectoryError as error:
        raise ConvertError(source, f"{name} is a directory; name the Parquet file in it") from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise ConvertError(source, f"{name} cannot be read as Parquet; convert reads Parquet files only") from error
    except (OSError, ValueError) as error:
        raise ConvertError(source, f"{name} cannot be read ({error}); check the path and its permissions") from error
    return table.select(_cast(column, table.schema[column], wanted, time_zone) for column, wanted in columns.items())


def _cast(column: str, present: pl.DataType, wanted: pl.DataType, time_zone: str) -> pl.Expr:
    value = pl.col(column)
    if isinstance(present, pl.Datetime) and present.time_zone:
        value = value.dt.convert_time_zone(time_zone).dt.replace_time_zone(None)
    elif present.is_float() and wanted.is_integer():
        value = pl.when(value == value.floor()).then(value)  # half a unit is no unit
    return value.cast(wanted, strict=False)


def clean(text: str | pl.Expr) -> pl.Expr:
    """Text of a title as an event may carry it: no control characters, no blanks around, never above 2,000 characters.

    Examples
    --------
    >>> pl.select(clean(pl.lit(" TEA\\t POT "))).item()
    'TEA  POT'
    """
    expression = pl.col(text) if isinstance(text, str) else text
    return expression.str.replace_all(r"\p{Cc}", " ").str.strip_chars().str.head(2000)


def write_events(parts: Iterable[tuple[str, pl.DataFrame]], out: Path | str) -> tuple[dict[str, int], int, int]:
    r"""Write events of several types as one file in order of event time.

    Each frame has ``event_id``, ``event_time`` (epoch ms), the further fields of its type in order, and ``_order``,
    which breaks ties among flows (or facts of one type) of one instant.

    Returns
    -------
    Event type -> number written, and the first and last event time (-1 where nothing was written).

    Examples
    --------
    >>> import io, tempfile
    >>> part = pl.DataFrame({"event_id": ["a"], "event_time": [5], "sku": ["TEA"], "_order": [0]})
    >>> path = Path(tempfile.mkdtemp()) / "e.jsonl"
    >>> write_events([("item_retired", part)], path), path.read_text()
    (({'item_retired': 1}, 5, 5), '{"type":"item_retired","event_id":"a","event_time":5,"sku":"TEA"}\n')
    """
    frames = [(kind, frame) for kind, frame in parts if len(frame)]
    counts: dict[str, int] = {}
    for kind, frame in frames:
        counts[kind] = counts.get(kind, 0) + len(frame)
    first = min((_bound(frame["event_time"].min()) for _, frame in frames), default=-1)
    last = max((_bound(frame["event_time"].max()) for _, frame in frames), default=-1)
    with EventWriter(out) as writer:
        if frames:
            for start in range(first, last + 1, SPAN_MS):
                block = _encode(frames, start, start + SPAN_MS)
                if block:
                    writer.write_block(block)
    return counts, first, last


def _bound(value: object) -> int:
    return int(str(value))


def _encode(frames: list[tuple[str, pl.DataFrame]], start: int, end: int) -> bytes:
    """Encode the events of one span of time as sorted lines."""
    encoded = []
    for kind, frame in frames:
        part = frame.filter(pl.col("event_time").is_between(start, end, closed="left"))
        fields = [column for column in part.columns if column != "_order"]
        line = pl.struct(pl.lit(kind).alias("type"), *fields).struct.json_encode()
        encoded.append(
            part.select("event_time", pl.lit(RANKS.get(kind, 3)).alias("rank"), "_order", line.alias("line"))
        )
    lines = pl.concat(encoded).sort("event_time", "rank", "_order", maintain_order=True)["line"]
    return (lines.str.join("\n").item() + "\n").encode() if len(lines) else b""
