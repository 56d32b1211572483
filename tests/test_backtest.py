"""Task folders: what is read, what is refused and in which words, and that nothing after a cutoff matters."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from models.backtest import backtest, frames, write_backtest
from models.baseline import SeasonalWindow
from models.forecast import LEVELS, Basis, Forecast, ForecastBatch
from models.panel import CONTEXT_SEASONS
from models.task import TaskError, read_task

SHARED = Path(__file__).parents[1].parent / "shared"
FIRST = dt.datetime(2024, 1, 1)


def days(count: int, start: int = 0) -> list[dt.datetime]:
    return [FIRST + dt.timedelta(days=start + day) for day in range(count)]


def panel_of(*series: tuple[str, int, list[float]]) -> pl.DataFrame:
    """One row per day; each series is its name, the day it starts, and its demand."""
    return pl.concat(
        [
            pl.DataFrame(
                {"unique_id": [name] * len(y), "ds": days(len(y), start), "y": np.asarray(y, float)},
                schema_overrides={"ds": pl.Datetime("us")},
            )
            for name, start, y in series
        ]
    )


def write_task(folder: Path, panel: pl.DataFrame, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    panel.write_parquet(folder / "panel.parquet")
    ids = panel["unique_id"].unique().sort()
    pl.DataFrame({"unique_id": ids, "title": [None] * len(ids)}).write_parquet(folder / "static.parquet")
    task = {
        "name": "t", "freq": "D", "horizon": 3, "season": 7, "cutoffs": ["2024-01-20", "2024-01-22"],
        "known_future": [], "past_only": [], "open": None, "levels": [0.1, 0.5, 0.9], **changes,
    }  # fmt: skip
    (folder / "task.json").write_text(json.dumps(task))
    return folder


@pytest.fixture
def two_series() -> pl.DataFrame:
    return panel_of(("b", 0, [2.0] * 30), ("a", 10, [float(day % 7) for day in range(20)]))


class Spy:
    """A forecaster that keeps what it was shown, and says nothing of its own."""

    name = "spy-1"
    channels = ()

    def __init__(self) -> None:
        self.batches: list[ForecastBatch] = []

    def forecast(self, batch: ForecastBatch) -> Forecast:
        self.batches.append(batch)
        return SeasonalWindow().forecast(batch)


def test_one_row_per_window_and_step(tmp_path: Path, two_series: pl.DataFrame) -> None:
    table = backtest(write_task(tmp_path, two_series), SeasonalWindow())
    assert table.columns == ["unique_id", "cutoff", "ds", "h", "q0.1", "q0.5", "q0.9", "mean"]
    assert table["unique_id"].to_list() == ["a"] * 3 + ["b"] * 3 + ["a"] * 3 + ["b"] * 3
    assert table["h"].to_list() == [1, 2, 3] * 4
    assert table["cutoff"].unique(maintain_order=True).to_list() == [dt.datetime(2024, 1, 20), dt.datetime(2024, 1, 22)]
    assert (table["ds"] - table["cutoff"]).dt.total_days().to_list() == [1, 2, 3] * 4
    assert set(table.filter(unique_id="b")["q0.5"].to_list()) == {2.0}


def test_cumulative_columns_are_all_published_levels(tmp_path: Path, two_series: pl.DataFrame) -> None:
    table = backtest(write_task(tmp_path, two_series), SeasonalWindow(), cumulative=True)
    assert table.columns[-14:] == [f"c{level:g}" for level in LEVELS] + ["cmean"]
    np.testing.assert_allclose(table.filter(unique_id="b")["c0.99"].to_numpy(), [2, 4, 6] * 2, rtol=1e-6)


def test_cutoffs_may_be_per_series(tmp_path: Path, two_series: pl.DataFrame) -> None:
    cutoffs = {"b": ["2024-01-05", "2024-01-29", "2024-01-30"], "a": ["2024-01-29"]}
    table = backtest(write_task(tmp_path, two_series, cutoffs=cutoffs), SeasonalWindow())
    seen = [(name, cutoff.day) for name, cutoff in table.filter(h=1).select("unique_id", "cutoff").iter_rows()]
    assert seen == [("b", 5), ("a", 29), ("b", 29), ("b", 30)]
    assert table["ds"].max() == dt.datetime(2024, 2, 2), "the days of the horizon need no row in the panel"


def test_windows_end_at_their_cutoff(tmp_path: Path) -> None:
    values = list(np.arange(200.0))
    panel = panel_of(("a", 0, values)).with_columns(price=pl.col("y") * 10, Promo=pl.col("y") * 100)
    folder = write_task(tmp_path, panel, cutoffs=["2024-06-28"], past_only=["price"], known_future=["Promo"])
    spy = Spy()
    backtest(folder, spy)
    (batch,) = spy.batches
    context = CONTEXT_SEASONS * 7
    last = (dt.datetime(2024, 6, 28) - FIRST).days
    assert batch.demand[0].tolist() == values[last + 1 - context : last + 1]
    assert batch.channels["price"][0, -1] == last * 10
    assert batch.known["promo"][0, [0, -1]].tolist() == [(last + 1 - context) * 100, (last + 3) * 100]
    assert batch.day.tolist() == [(dt.date(2024, 6, 29) - dt.date(1970, 1, 1)).days]


def test_closed_days_come_from_the_open_column(tmp_path: Path) -> None:
    panel = panel_of(("a", 0, [5.0] * 40)).with_columns(Open=(pl.int_range(pl.len()) % 7 != 6).cast(pl.Float64))
    panel = panel.with_columns(y=pl.col("y") * pl.col("Open"))
    spy = Spy()
    table = backtest(write_task(tmp_path, panel, known_future=["Open"], open="Open", cutoffs=["2024-01-26"]), spy)
    assert spy.batches[0].future_open.tolist() == [[True, False, True]]
    assert spy.batches[0].is_open[0, -7:].tolist() == [True, False, True, True, True, True, True]
    assert table["q0.5"].to_list() == [5.0, 0.0, 5.0]


def test_young_series_borrow_from_the_others_of_their_day_alone(tmp_path: Path) -> None:
    old = [3.0] * 20 + [300.0] * 10
    panel = panel_of(("old", 0, old), ("young", 19, [1.0] * 11))
    spy = Spy()
    table = backtest(write_task(tmp_path, panel, cutoffs=["2024-01-20"]), spy)
    assert spy.batches[0].pool is not None
    young = table.filter(unique_id="young")["q0.5"].to_numpy()
    assert young.tolist() == [3.0] * len(young)  # nobody else lends, and a single day is no level of its own
    assert SeasonalWindow().forecast(spy.batches[0]).basis.tolist() == [Basis.BASELINE, Basis.COLD_START]


def test_hours(tmp_path: Path) -> None:
    stamps = [FIRST + dt.timedelta(hours=hour) for hour in range(24 * 14)]
    panel = pl.DataFrame({"unique_id": "a", "ds": stamps, "y": [float(stamp.hour) for stamp in stamps]})
    spy = Spy()
    folder = write_task(tmp_path, panel, freq="h", season=24, cutoffs=["2024-01-10T04:00"], horizon=30)
    table = backtest(folder, spy)
    assert table["ds"][0] == dt.datetime(2024, 1, 10, 5)
    assert table["q0.5"].to_list() == [float(hour % 24) for hour in range(5, 35)]
    assert spy.batches[0].hour.tolist() == [5]


@pytest.mark.parametrize("kind", [pl.Date, pl.Datetime("ms"), pl.Datetime("ns")])
def test_dates_may_have_any_resolution(tmp_path: Path, two_series: pl.DataFrame, kind: pl.DataType) -> None:
    usual = backtest(write_task(tmp_path / "usual", two_series), SeasonalWindow())
    cast = two_series.with_columns(pl.col("ds").cast(kind))
    assert backtest(write_task(tmp_path / "cast", cast), SeasonalWindow()).equals(usual)


def test_rows_of_the_panel_may_come_in_any_order(tmp_path: Path, two_series: pl.DataFrame) -> None:
    usual = backtest(write_task(tmp_path / "usual", two_series), SeasonalWindow())
    mixed = two_series.sample(fraction=1.0, shuffle=True, seed=2)
    assert backtest(write_task(tmp_path / "mixed", mixed), SeasonalWindow()).equals(usual)


def test_a_file_holds_what_the_table_holds_and_nothing_is_left_beside_it(
    tmp_path: Path, two_series: pl.DataFrame
) -> None:
    folder = write_task(tmp_path / "task", two_series)
    rows = write_backtest(folder, SeasonalWindow(), tmp_path / "out" / "f.parquet", cumulative=True)
    table = pl.read_parquet(tmp_path / "out" / "f.parquet")
    assert rows == len(table)
    assert table.equals(backtest(folder, SeasonalWindow(), cumulative=True))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["f.parquet"]


def test_a_failing_forecaster_leaves_no_file(tmp_path: Path, two_series: pl.DataFrame) -> None:
    class Failing:
        name = "failing-1"
        channels = ()

        def forecast(self, batch: ForecastBatch) -> Forecast:
            raise MemoryError

    with pytest.raises(MemoryError):
        write_backtest(write_task(tmp_path / "task", two_series), Failing(), tmp_path / "out" / "f.parquet")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_is_told_in_one_sentence(tmp_path: Path, two_series: pl.DataFrame) -> None:
    """Stands in for it: a process that may write no file above 1,500 bytes."""
    folder = write_task(tmp_path / "task", two_series)
    program = """
import resource, sys
from pathlib import Path
from models.backtest import write_backtest
from models.baseline import SeasonalWindow
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
try:
    write_backtest(Path(sys.argv[1]), SeasonalWindow(), Path(sys.argv[2]))
except OSError as error:
    print(error)
"""
    command = [sys.executable, "-c", program, str(folder), str(tmp_path / "out" / "f.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert "f.parquet: cannot be written (" in done.stdout
    assert done.stdout.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


def scrambled(panel: pl.DataFrame, after: dt.datetime, columns: list[str]) -> pl.DataFrame:
    """Other values, none, and nonsense after the cutoff, in y and the columns that only the past may show."""
    random = np.random.default_rng(9)
    late = panel["ds"].to_numpy() > np.datetime64(after)
    for column in columns:
        values = panel[column].cast(pl.Float64).to_numpy().copy()
        noise = random.choice([0.0, 1e9, -5.0, np.nan, np.inf, 17.3], len(values))
        panel = panel.with_columns(pl.Series(column, np.where(late, noise, values)))
    return panel


def test_the_future_changes_no_byte(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    panel = panel_of(*((f"s{row}", row * 6, list(random.poisson(4, 200 - row * 6))) for row in range(20)))
    panel = panel.with_columns(price=pl.col("y") + 1.5, promo=pl.col("y") % 2)
    changes: dict[str, Any] = {"past_only": ["price"], "known_future": ["promo"], "cutoffs": ["2024-05-11"]}
    usual = write_task(tmp_path / "usual", panel, **changes)
    other = write_task(tmp_path / "other", scrambled(panel, dt.datetime(2024, 5, 11), ["y", "price"]), **changes)
    for folder in (usual, other):
        write_backtest(folder, SeasonalWindow(), folder / "f.parquet", cumulative=True)
    assert (usual / "f.parquet").read_bytes() == (other / "f.parquet").read_bytes()
    shown = []
    for folder in (usual, other):
        spy = Spy()
        list(frames(read_task(folder), spy))
        shown.append(spy.batches[0])
    assert np.array_equal(shown[0].demand, shown[1].demand, equal_nan=True)
    assert np.array_equal(shown[0].channels["price"], shown[1].channels["price"], equal_nan=True)
    assert np.array_equal(shown[0].known["promo"], shown[1].known["promo"], equal_nan=True)


def text(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def drop_rows(folder: Path, *rows: int) -> None:
    panel = pl.read_parquet(folder / "panel.parquet").with_row_index()
    panel.filter(~pl.col("index").is_in(rows)).drop("index").write_parquet(folder / "panel.parquet")


def repanel(folder: Path, *columns: pl.Expr, drop: str | None = None) -> None:
    panel = pl.read_parquet(folder / "panel.parquet").with_columns(*columns)
    (panel.drop(drop) if drop else panel).write_parquet(folder / "panel.parquet")


FAULTS: dict[str, tuple[Any, str]] = {
    "no folder": (lambda at: [path.unlink() for path in at.iterdir()], r"task\.json: cannot be read \(No such file"),
    "no panel": (lambda at: (at / "panel.parquet").unlink(), r"panel\.parquet: cannot be read \(No such file"),
    "no static": (lambda at: (at / "static.parquet").unlink(), r"static\.parquet: cannot be read"),
    "panel is a folder": (
        lambda at: ((at / "panel.parquet").unlink(), (at / "panel.parquet").mkdir()),
        r"panel\.parquet: cannot be read",
    ),
    "panel is text": (
        lambda at: (at / "panel.parquet").write_text("a,b\n1,2\n"),
        r"panel\.parquet: is no Parquet file",
    ),
    "panel is cut": (
        lambda at: (at / "panel.parquet").write_bytes((at / "panel.parquet").read_bytes()[:-200]),
        r"panel\.parquet: is no Parquet file",
    ),
    "no column": (lambda at: repanel(at, drop="y"), r"panel\.parquet: column y is missing \(it has unique_id, ds\)"),
    "text for numbers": (
        lambda at: repanel(at, pl.col("y").cast(pl.String)),
        r"panel\.parquet: column y is String, it must hold numbers",
    ),
    "text for dates": (
        lambda at: repanel(at, pl.col("ds").dt.to_string()),
        r"panel\.parquet: column ds is String, it must be a date",
    ),
    "zoned dates": (
        lambda at: repanel(at, pl.col("ds").dt.replace_time_zone("UTC")),
        r"column ds is Datetime\(.*UTC.*, it must be a date or a datetime without a zone",
    ),
    "noon": (
        lambda at: repanel(at, pl.col("ds") + pl.duration(hours=12)),
        r"column ds has .*T12:00:00, which is no",
    ),
    "missing date": (lambda at: repanel(at, pl.lit(None, pl.Datetime("us")).alias("ds")), r"ds has 50 rows without"),
    "missing id": (
        lambda at: repanel(at, pl.lit(None, pl.String).alias("unique_id")),
        r"id has 50 rows without",
    ),
    "empty": (lambda at: drop_rows(at, *range(50)), r"panel\.parquet: has no rows"),
    "gap": (lambda at: drop_rows(at, 7, 8), r"series 'b' has no row between 2024-01-07 and 2024-01-10"),
    "twice": (
        lambda at: pl.concat([(one := pl.read_parquet(at / "panel.parquet")), one.head(1)]).write_parquet(
            at / "panel.parquet"
        ),
        r"series 'b' has two rows for 2024-01-01",
    ),
    "centuries": (
        lambda at: repanel(at, pl.when(unique_id="b").then("ds").otherwise(pl.col("ds") + pl.duration(days=10**6))),
        r"panel\.parquet: column ds runs from 2024-01-01 to 4761-12-\d\d, more than 262144 buckets",
    ),
    "no static row": (
        lambda at: pl.DataFrame({"unique_id": ["a"]}).write_parquet(at / "static.parquet"),
        r"static\.parquet: series 'b' of panel\.parquet has no row",
    ),
    "no json": (lambda at: (at / "task.json").write_text("{"), r"task\.json: "),
    "bad utf-8": (lambda at: (at / "task.json").write_bytes(b'{"freq": "\xff"}'), r"task\.json: "),
    "nesting bomb": (lambda at: (at / "task.json").write_text("[" * 200_000), r"task\.json: "),
    "mistyped": (
        lambda at: text(at / "task.json", '"horizon": 3', '"horizon": "3"'),
        r"task\.json: Expected `int`, got",
    ),
    "no horizon": (lambda at: text(at / "task.json", '"horizon": 3', '"horizon": 0'), r"\$\.horizon"),
    "weeks": (lambda at: text(at / "task.json", '"freq": "D"', '"freq": "W"'), r"\$\.freq"),
    "no such date": (lambda at: text(at / "task.json", "2024-01-20", "2024-02-31"), r"cutoff '2024-02-31' is no date"),
    "clock words": (lambda at: text(at / "task.json", "2024-01-20", "today"), r"cutoff 'today' is no date"),
    "zoned cutoff": (lambda at: text(at / "task.json", "2024-01-20", "2024-01-20T00:00Z"), r"without a zone"),
    "noon cutoff": (lambda at: text(at / "task.json", "2024-01-20", "2024-01-20T12:00"), r"is no start of a day"),
    "too early": (
        lambda at: text(at / "task.json", "2024-01-20", "2024-01-05"),
        r"cutoff 2024-01-05 lies outside series 'a', which runs from 2024-01-11 to 2024-01-30",
    ),
    "too late": (lambda at: text(at / "task.json", "2024-01-20", "2024-01-31"), r"cutoff 2024-01-31 lies outside"),
    "cutoff twice": (
        lambda at: text(at / "task.json", "2024-01-20", "2024-01-22"),
        r"cutoff 2024-01-22 stands twice for series 'a'",
    ),
    "no cutoff": (
        lambda at: text(at / "task.json", '["2024-01-20", "2024-01-22"]', "[]"),
        r"task\.json: cutoffs is empty",
    ),
    "unknown series": (
        lambda at: text(at / "task.json", '["2024-01-20", "2024-01-22"]', '{"z": ["2024-01-20"]}'),
        r"cutoffs name series 'z', which panel\.parquet does not have",
    ),
    "unknown covariate": (
        lambda at: text(at / "task.json", '"past_only": []', '"past_only": ["price"]'),
        r"panel\.parquet: column price is missing",
    ),
    "open unannounced": (
        lambda at: text(at / "task.json", '"open": null', '"open": "y"'),
        r"task\.json: open column 'y' is not among known_future",
    ),
    "unknown level": (
        lambda at: text(at / "task.json", "[0.1,", "[0.25,"),
        r"task\.json: level 0\.25 is not forecast; the levels are 0\.01, ",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_told_in_one_sentence(tmp_path: Path, two_series: pl.DataFrame, fault: str) -> None:
    folder = write_task(tmp_path, two_series)
    spoil, sentence = FAULTS[fault]
    spoil(folder)
    with pytest.raises(TaskError, match=sentence) as caught:
        write_backtest(folder, SeasonalWindow(), tmp_path / "out" / "f.parquet")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("out/*"))


YARDSTICK = {"uci_daily": 0.7128, "takeaway_r1": 0.5611, "rossmann": 0.1244, "m5_dept": 0.1051}
"""WQL of WindowDow12, the best cheap baseline of the evaluation."""


def evaluation_tasks() -> Any:
    """The evaluation's own reader of the data."""
    path = SHARED / "eval" / "tasks.py"
    if not path.exists() or not (SHARED / "data").exists():
        pytest.skip("the evaluation data is not beside the checkout")
    spec = importlib.util.spec_from_file_location("evaluation_tasks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


@pytest.mark.data
@pytest.mark.parametrize("name", YARDSTICK)
def test_the_yardstick_is_reproduced_and_the_future_changes_no_byte(tmp_path: Path, name: str) -> None:
    evaluation = evaluation_tasks()
    task = evaluation.load(name)
    folder = evaluation.export(task, tmp_path)
    table = backtest(folder, SeasonalWindow())
    actual = task.actuals()
    key = {column: actual[column].to_numpy().astype("datetime64[us]") for column in ("cutoff", "ds")}
    actual = pl.DataFrame({"unique_id": actual["unique_id"].to_list(), **key, "y": actual["y"].to_numpy()})
    joined = actual.join(table, on=["unique_id", "cutoff", "ds"], validate="1:1")
    assert len(joined) == len(table) == len(actual)
    gap = [pl.col("y") - pl.col(f"q{level / 10:g}") for level in range(1, 10)]
    loss = [2 * pl.max_horizontal(level / 10 * one, (level / 10 - 1) * one) for level, one in enumerate(gap, 1)]
    wql = joined.select(pl.mean_horizontal([one.sum() for one in loss]) / pl.col("y").sum()).item()
    assert wql == pytest.approx(YARDSTICK[name], rel=0.01)
    first = task.cutoffs[0].to_pydatetime()
    panel = pl.read_parquet(folder / "panel.parquet")
    scrambled(panel, first, ["y", *task.past]).write_parquet(folder / "panel.parquet")
    assert backtest(folder, SeasonalWindow()).filter(cutoff=first).equals(table.filter(cutoff=first))
