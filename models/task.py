"""A forecasting task in a folder: a panel of series, the cutoffs to forecast from, and what may be known.

In: ``panel.parquet`` (unique_id, ds, y, covariates), ``static.parquet`` (unique_id, …), ``task.json``; and, where known
columns were told ahead otherwise than they came, ``ahead.parquet`` (unique_id, ds, h, column, value).
Out: a `Task`: one dense matrix per column, series by buckets, NaN where a series has no row.
Must not know: models, where tasks come from. Rule: values of y are never judged here, for a task must read alike
whatever its future holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from models.ahead import Ahead, ahead_of
from models.forecast import F32, attribute_code

I64 = npt.NDArray[np.int64]
BUCKET_SECONDS = {"D": 86_400, "h": 3_600}
_BUCKET_WORDS = {"D": "a day", "h": "an hour"}
EPOCH = datetime(1970, 1, 1)

MAX_KINDS = 50
"""Values of a column that sorts series into kinds; one with more is taken for a name or a number."""

MAX_BUCKETS = 1 << 18
"""Longest panel read, 30 years of hours: one wrong year must end in a sentence, not in an exhausted machine."""


class TaskError(Exception):
    """A task folder cannot be used; the message is one sentence that names the file and what is wrong with it."""


class TaskFile(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``task.json``.

    Attributes
    ----------
    freq
        Width of a bucket: D or h.
    horizon, season
        Steps to forecast; buckets per season.
    cutoffs
        Last buckets seen: one list for all series, or one per series.
    known_future, past_only
        Columns of the panel that may be read for the days of the horizon, and those that may not.
    open
        The known column whose 0 means closed, or None.
    levels
        Quantile levels to write.

    Examples
    --------
    >>> msgspec.json.decode(b'{"freq": "D", "horizon": 2, "season": 7, "cutoffs": [], "levels": [0.5]}', type=TaskFile)
    TaskFile(freq='D', horizon=2, season=7, cutoffs=[], levels=[0.5], known_future=[], past_only=[], open=None, name='')
    """

    freq: Literal["D", "h"]
    horizon: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    season: Annotated[int, msgspec.Meta(ge=1, le=10_000)]
    cutoffs: list[str] | dict[str, list[str]]
    levels: list[Annotated[float, msgspec.Meta(gt=0, lt=1)]]
    known_future: list[str] = []
    past_only: list[str] = []
    open: str | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """A task as matrices: N series, D buckets, W windows to forecast.

    Attributes
    ----------
    file
        What ``task.json`` says.
    ids
        ``unique_id`` of each series, in ascending order.
    first_bucket
        Number of column 0: days, or hours, since 1970-01-01.
    demand
        Column y, float32 (N, D), NaN outside a series' days.
    known, past
        The other columns by name, float32 (N, D).
    attributes
        Columns of ``static.parquet`` that sort series into kinds, by name: `attribute_code` of the value, -1 where
        there is none, int64 (N,).
    titles
        Column title of ``static.parquet``, None where there is none, (N,); empty where the column is missing.
    ahead
        What was said ahead of known columns where something else came true, by name.
    series, cutoff
        Row and column of the last bucket seen, for each window, int64 (W,), in the order of cutoff, then series.
    """

    file: TaskFile
    ids: list[str]
    first_bucket: int
    demand: F32
    known: dict[str, F32]
    past: dict[str, F32]
    series: I64
    cutoff: I64
    attributes: dict[str, I64] = field(default_factory=dict)
    titles: list[str | None] = field(default_factory=list)
    ahead: dict[str, Ahead] = field(default_factory=dict)


def read_task(folder: Path) -> Task:
    """Read and check a task folder.

    Raises
    ------
    TaskError
        If a file or column is missing or mistyped, a calendar has a gap, or a cutoff lies outside its series.
    """
    file = _read_file(folder / "task.json")
    wanted = list(dict.fromkeys([*file.known_future, *file.past_only, *([file.open] if file.open else [])]))
    if file.open and file.open not in file.known_future:
        raise TaskError(f"{folder / 'task.json'}: open column {file.open!r} is not among known_future")
    panel = _read_table(folder / "panel.parquet", ["unique_id", "ds", "y", *wanted])
    panel, bucket = _with_buckets(panel, folder / "panel.parquet", file.freq)
    ids = panel["unique_id"].unique(maintain_order=True).to_list()
    attributes = _read_attributes(folder / "static.parquet", ids)
    row = panel["unique_id"].rle_id().to_numpy().astype(np.int64)
    _check_calendar(folder / "panel.parquet", ids, row, bucket, file.freq)
    first = int(bucket.min())
    place = (row, bucket - first)
    shape = (len(ids), int(bucket.max()) - first + 1)
    if shape[1] > MAX_BUCKETS:
        start, end = bucket_times(np.array([first, first + shape[1] - 1]), file.freq)
        span = f"runs from {_day(start)} to {_day(end)}"
        raise TaskError(f"{folder / 'panel.parquet'}: column ds {span}, more than {MAX_BUCKETS} buckets")
    matrices = {name: _dense(panel, name, place, shape, folder / "panel.parquet") for name in ["y", *wanted]}
    starts, ends = _ends(row, bucket)
    series, cutoff = _windows(folder / "task.json", file, ids, starts, ends)
    return Task(
        file=file,
        ids=ids,
        first_bucket=first,
        demand=matrices["y"],
        known={name: matrices[name] for name in file.known_future},
        past={name: matrices[name] for name in file.past_only},
        series=series,
        cutoff=cutoff - first,
        attributes=attributes,
        titles=_read_titles(folder / "static.parquet", ids),
        ahead=_read_ahead(folder / "ahead.parquet", file, ids, first, shape[1]),
    )


def bucket_times(buckets: I64, freq: str) -> npt.NDArray[np.datetime64]:
    """Start of each bucket, as the ``ds`` of tables.

    Examples
    --------
    >>> bucket_times(np.array([1, 25]), "h")
    array(['1970-01-01T01:00:00.000000', '1970-01-02T01:00:00.000000'], dtype='datetime64[us]')
    """
    return (buckets * BUCKET_SECONDS[freq]).astype("datetime64[s]").astype("datetime64[us]")


def _read_file(path: Path) -> TaskFile:
    try:
        return msgspec.json.decode(path.read_bytes(), type=TaskFile)
    except OSError as error:
        raise TaskError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TaskError(f"{path}: {error}") from error


def _read_table(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    """Read some columns of a Parquet file; ids become text."""
    try:
        with path.open("rb") as source:
            names = pl.read_parquet_schema(source)
        missing = [name for name in columns if name not in names]
        if missing:
            raise TaskError(f"{path}: column {', '.join(missing)} is missing (it has {', '.join(names)})")
        table = pl.read_parquet(path, columns=list(columns)).with_columns(pl.col("unique_id").cast(pl.String))
    except OSError as error:
        raise TaskError(f"{path}: cannot be read ({error.strerror or error})") from error
    except pl.exceptions.PolarsError as error:
        raise TaskError(f"{path}: is no Parquet file that can be read ({str(error).splitlines()[0]})") from error
    if table["unique_id"].null_count():
        raise TaskError(f"{path}: column unique_id has {table['unique_id'].null_count()} rows without a value")
    return table


def _read_attributes(path: Path, ids: list[str]) -> dict[str, I64]:
    """Columns that sort series into kinds; one with a value of its own per series, such as a title, sorts nothing."""
    _read_table(path, ["unique_id"])  # says what is wrong with the file
    names = [name for name, kind in pl.read_parquet_schema(path).items() if name != "unique_id" and _sorts(kind)]
    table = _read_table(path, ["unique_id", *names]).unique("unique_id", keep="first")
    rows = pl.DataFrame({"unique_id": ids}).join(table, on="unique_id", how="left", maintain_order="left")
    known = set(table["unique_id"].to_list())
    lost = next((name for name in ids if name not in known), None)
    if lost is not None:
        raise TaskError(f"{path}: series {lost!r} of panel.parquet has no row")
    words = {name: rows[name].cast(pl.String).to_list() for name in names if 2 <= rows[name].n_unique() <= MAX_KINDS}
    return {name: np.array([-1 if word is None else attribute_code(word) for word in column], np.int64)
            for name, column in words.items()}  # fmt: skip


def _read_titles(path: Path, ids: list[str]) -> list[str | None]:
    """What each series is called; nothing where the file does not say."""
    if pl.read_parquet_schema(path).get("title") not in (pl.String, pl.Categorical, pl.Enum):
        return []
    table = _read_table(path, ["unique_id", "title"])
    titles = dict(zip(table["unique_id"].to_list(), table["title"].cast(pl.String).to_list(), strict=True))
    return [titles.get(name) for name in ids]


def _read_ahead(path: Path, file: TaskFile, ids: list[str], first: int, buckets: int) -> dict[str, Ahead]:
    """What was said ahead otherwise than it came, by column; nothing where there is no such file."""
    if not path.exists():
        return {}
    table = _read_table(path, ["unique_id", "ds", "h", "column", "value"])
    if lost := sorted(set(table["column"].cast(pl.String).to_list()) - set(file.known_future)):
        raise TaskError(f"{path}: column {lost[0]!r} is not among known_future of task.json")
    rows = pl.DataFrame({"unique_id": ids, "row": range(len(ids))}, schema_overrides={"row": pl.Int64})
    table = table.join(rows, on="unique_id", how="inner")
    stamp_us = table["ds"].cast(pl.Datetime("us")).to_physical().to_numpy()
    cutoff = (stamp_us // (BUCKET_SECONDS[file.freq] * 1_000_000) - first).astype(np.int64)
    step = table["h"].cast(pl.Int64).to_numpy() - 1
    value = table["value"].cast(pl.Float32).fill_null(float("nan")).to_numpy()
    inside = (cutoff >= 0) & (cutoff < buckets) & (step >= 0)
    found = {}
    for name in file.known_future:
        own = inside & (table["column"] == name).to_numpy()
        if own.any():
            found[name] = ahead_of(table["row"].to_numpy()[own], cutoff[own], step[own], value[own], buckets)
    return found


def _sorts(kind: pl.DataType) -> bool:
    return kind.is_integer() or kind in (pl.String, pl.Boolean, pl.Categorical, pl.Enum)


def _with_buckets(panel: pl.DataFrame, path: Path, freq: str) -> tuple[pl.DataFrame, I64]:
    """Sort by series and time, and number the buckets."""
    kind = panel.schema["ds"]
    naive = kind == pl.Date or (isinstance(kind, pl.Datetime) and kind.time_zone is None)
    if not naive:
        raise TaskError(f"{path}: column ds is {kind}, it must be a date or a datetime without a zone")
    if panel.is_empty():
        raise TaskError(f"{path}: has no rows")
    if panel["ds"].null_count():
        raise TaskError(f"{path}: column ds has {panel['ds'].null_count()} rows without a value")
    panel = panel.with_columns(pl.col("ds").cast(pl.Datetime("us"))).sort("unique_id", "ds")
    stamp_us = panel["ds"].to_physical().to_numpy()
    bucket, rest = np.divmod(stamp_us, BUCKET_SECONDS[freq] * 1_000_000)
    if rest.any():
        wrong = stamp_us[np.flatnonzero(rest)[0]].astype("datetime64[us]")
        raise TaskError(f"{path}: column ds has {_day(wrong)}, which is no start of {_BUCKET_WORDS[freq]}")
    return panel, bucket.astype(np.int64)


def _check_calendar(path: Path, ids: list[str], row: I64, bucket: I64, freq: str) -> None:
    """Every series must have each bucket from its first to its last exactly once."""
    step = np.diff(bucket)
    wrong = np.flatnonzero((np.diff(row) == 0) & (step != 1))
    if len(wrong):
        at = int(wrong[0])
        after, until = bucket_times(bucket[at : at + 2], freq)
        fault = (
            f"has two rows for {_day(after)}"
            if step[at] == 0
            else f"has no row between {_day(after)} and {_day(until)}"
        )
        raise TaskError(f"{path}: series {ids[row[at]]!r} {fault}")


def _dense(panel: pl.DataFrame, name: str, place: tuple[I64, I64], shape: tuple[int, int], path: Path) -> F32:
    column = panel[name]
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        raise TaskError(f"{path}: column {name} is {column.dtype}, it must hold numbers")
    matrix = np.full(shape, np.nan, np.float32)
    matrix[place] = column.cast(pl.Float32, strict=False).fill_null(float("nan")).to_numpy()
    return matrix


def _ends(row: I64, bucket: I64) -> tuple[I64, I64]:
    """First and last bucket of each series."""
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    return bucket[starts], bucket[np.append(starts[1:], len(row)) - 1]


def _windows(path: Path, file: TaskFile, ids: list[str], starts: I64, ends: I64) -> tuple[I64, I64]:
    """List the (series, cutoff bucket) pairs to forecast, in the order of cutoff, then series."""
    if isinstance(file.cutoffs, dict):
        number = {name: index for index, name in enumerate(ids)}
        unknown = next((name for name in file.cutoffs if name not in number), None)
        if unknown is not None:
            raise TaskError(f"{path}: cutoffs name series {unknown!r}, which panel.parquet does not have")
        series = np.repeat([number[name] for name in file.cutoffs], [len(days) for days in file.cutoffs.values()])
        cutoff = _parse(path, [day for days in file.cutoffs.values() for day in days], file.freq)
    else:
        once = _parse(path, file.cutoffs, file.freq)
        series, cutoff = np.tile(np.arange(len(ids)), len(once)), np.repeat(once, len(ids))
    if not len(cutoff):
        raise TaskError(f"{path}: cutoffs is empty, there is nothing to forecast")
    series = series.astype(np.int64)
    outside = np.flatnonzero((cutoff < starts[series]) | (cutoff > ends[series]))
    if len(outside):
        at = int(outside[0])
        name = ids[series[at]]
        day, first, last = bucket_times(np.array([cutoff[at], starts[series[at]], ends[series[at]]]), file.freq)
        raise TaskError(
            f"{path}: cutoff {_day(day)} lies outside series {name!r}, which runs from {_day(first)} to {_day(last)}"
        )
    order = np.lexsort((series, cutoff))
    series, cutoff = series[order], cutoff[order]
    twice = np.flatnonzero((np.diff(series) == 0) & (np.diff(cutoff) == 0))
    if len(twice):
        day = bucket_times(cutoff[twice[:1]], file.freq)[0]
        raise TaskError(f"{path}: cutoff {_day(day)} stands twice for series {ids[series[twice[0]]]!r}")
    return series, cutoff


def _parse(path: Path, cutoffs: list[str], freq: str) -> I64:
    """Read cutoffs as bucket numbers."""
    width, buckets = timedelta(seconds=BUCKET_SECONDS[freq]), []
    for text in cutoffs:
        try:
            bucket, rest = divmod(datetime.fromisoformat(text) - EPOCH, width)
        except (ValueError, TypeError) as error:  # TypeError: the text names a zone
            raise TaskError(f"{path}: cutoff {text!r} is no date or time without a zone") from error
        if rest:
            raise TaskError(f"{path}: cutoff {text!r} is no start of {_BUCKET_WORDS[freq]}")
        buckets.append(bucket)
    return np.array(buckets, np.int64)


def _day(time: np.datetime64) -> str:
    """A bucket's start without the zeros of midnight."""
    return str(time.astype("datetime64[s]")).removesuffix("T00:00:00")
