"""Pages of backtests: whole, harmless and readable, whatever a task holds; parsed, and drawn by a real browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from models.baseline import SeasonalWindow
from models.forecast import LEVELS, Forecast, ForecastBatch
from models.judge import Judge, judged
from models.task import Task, read_task
from models.worth import InputWorth
from shelftide.backtest_report import (
    POLICIES,
    Backtest,
    measure_rows,
    measures,
    report,
    volume_rows,
    volumes,
    write_report,
)
from shelftide.cli import run
from streams.files import FileError
from tests.program import PROGRAM
from tests.test_backtest import panel_of, write_task

VOID = {"meta", "br", "hr", "img", "input", "link"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</title></svg></style>&amp;&lt;",
    "a\u202eb\u200bc\x07\x1b[31m",
    "x" * 5000,
    " ",
    "日本茶 🍵",
)


class Doubled:
    """Says twice what the baseline says, so that a page has two kinds of figures."""

    name = "doubled-1"
    channels = ()

    def forecast(self, batch: ForecastBatch) -> Forecast:
        said = SeasonalWindow().forecast(batch)
        return Forecast(2 * said.quantiles, 2 * said.mean, 2 * said.cumulative, 2 * said.cumulative_mean, said.basis)


class Page(HTMLParser):
    """What a page is made of; every element must be closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.open[-1] if self.open else "", []).append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def small_task(folder: Path, names: tuple[str, ...] = ("a", "b", "c", "d"), **changes: Any) -> Task:
    random = np.random.default_rng(2)
    series = [(name, 0, list(random.poisson(2 + 3 * n, 60).astype(float))) for n, name in enumerate(names)]
    panel = panel_of(*series)
    return read_task(write_task(folder, panel, **{"cutoffs": ["2024-02-10", "2024-02-20"], **changes}))


def page_of(judge: Judge, forecaster: Any = None, inputs: tuple[InputWorth, ...] = ()) -> str:
    forecaster = forecaster or Doubled()
    return report(Backtest(judge, forecaster, POLICIES["finetuned"], inputs)).decode()


def test_a_page_says_who_was_judged_how_it_was_fitted_and_how_good_it_is(tmp_path: Path) -> None:
    judge = judged(small_task(tmp_path), Doubled())
    text = page_of(judge)
    page = Page(text)
    assert page.texts["h1"] == ["Backtest of doubled-1"]
    assert "fitted once before the first cutoff, and not again" in page.texts["dd"]
    cells = page.texts["td"]
    for name, value in measure_rows(judge):
        assert name in page.texts["th"]
        assert value in cells
    assert page.texts["h2"] == [
        "Figures",
        "Forecasts of single series",
        "Where it is right and wrong",
    ]
    assert [title.split(":")[0] for title in page.texts["h3"]][:3] == ["best", "median", "worst"]
    assert "baseline" in page.texts["th"]


def test_a_page_of_the_baseline_has_nothing_beside_it(tmp_path: Path) -> None:
    page = Page(page_of(judged(small_task(tmp_path), SeasonalWindow()), SeasonalWindow()))
    assert "baseline" not in page.texts["th"]


def test_the_same_backtest_gives_the_same_bytes(tmp_path: Path) -> None:
    task = small_task(tmp_path)
    assert page_of(judged(task, Doubled())) == page_of(judged(task, Doubled()))


def test_every_picture_is_named_and_described_and_has_its_numbers_in_a_table(tmp_path: Path) -> None:
    page = Page(page_of(judged(small_task(tmp_path), Doubled())))
    charts = [attrs for name, attrs in page.tags if name == "svg" and attrs.get("class") == "chart"]
    named = {attrs["id"] for name, attrs in page.tags if name in ("title", "desc") and "id" in attrs}
    assert len(charts) == 6
    assert all(attrs["role"] == "img" for attrs in charts)
    ids = [one for attrs in charts for one in str(attrs["aria-labelledby"]).split()]
    assert set(ids) == named
    assert len(ids) == len(set(ids))
    assert page.count("figure") == 6
    assert page.texts["summary"].count("Numbers") == 6


def test_nothing_is_fetched_and_nothing_runs(tmp_path: Path) -> None:
    page = Page(page_of(judged(small_task(tmp_path, HOSTILE, name=HOSTILE[0]), Doubled())))
    assert page.count("script") == page.count("img") == page.count("link") == page.count("iframe") == 0
    attributes = {key for _, attrs in page.tags for key in attrs}
    assert not {key for key in attributes if key.startswith("on") or key in ("src", "href", "style", "xlink:href")}
    assert "url(" not in "".join(page.texts["style"])
    policy = [attrs["content"] for name, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_from_anywhere_are_shown_and_not_obeyed(tmp_path: Path, name: str) -> None:
    text = page_of(judged(small_task(tmp_path, (name,), name=name), Doubled()), inputs=(InputWorth(name, 1.0, 0.1),))
    page = Page(text)
    whole = "".join(part for tag, parts in page.texts.items() if tag != "style" for part in parts)
    assert all(c.isprintable() or c == "\n" or c == "\xa0" for c in whole)
    assert len(text) < 60_000, "no name fills the page"
    assert (name if name.isprintable() and len(name) <= 80 else name[:1]) in whole


def test_what_each_input_is_worth_stands_greatest_first(tmp_path: Path) -> None:
    inputs = (
        InputWorth("price", 0.5, -0.01),
        InputWorth("lags", 0.9, 0.4),
        InputWorth("odd", float("nan"), float("nan")),
    )
    page = Page(page_of(judged(small_task(tmp_path), Doubled()), inputs=inputs))
    assert page.texts["h2"][-1] == "What each input is worth"
    assert [name for name in page.texts["th"] if name in ("price", "lags", "odd")] == ["lags", "price", "odd"]
    assert "+0.4000" in page.texts["td"]
    assert "−0.0100" in page.texts["td"]


def test_without_outcomes_there_are_no_figures_but_the_forecasts(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    panel = panel_of(*((name, 0, list(random.poisson(5, 40).astype(float))) for name in "ab"))
    judge = judged(read_task(write_task(tmp_path, panel, cutoffs=["2024-02-09"])), Doubled())
    assert measures(judge) is None
    assert measure_rows(judge) == [("measures", "no actuals")]
    page = Page(page_of(judge))
    assert any("does not hold what came after" in text for text in page.texts["p"])
    assert page.count("figure") == 2
    assert "WQL" not in page.texts["th"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_series_are_shown_once_each(tmp_path: Path, count: int) -> None:
    task = small_task(tmp_path, ("a", "b", "c")[:count])
    page = Page(page_of(judged(task, Doubled())))
    labels = [title.split(":")[0] for title in page.texts["h3"] if ":" in title]
    assert labels == [["best"], ["best", "worst"], ["best", "median", "worst"]][count - 1]


ODD: dict[str, list[float]] = {
    "nothing sold": [0.0] * 60,
    "huge numbers": [1e36] * 60,
    "tiny numbers": [1e-38] * 60,
    "holes": [3.0, float("nan"), float("nan"), 5.0] * 15,
    "endless": [3.0, float("inf")] * 30,
    "below zero": [-4.0, 3.0] * 30,
    "a sale at the end": [0.0] * 59 + [1.0],
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("horizon", [1, 2, 40])
def test_odd_demand_makes_a_page_all_the_same(tmp_path: Path, kind: str, horizon: int) -> None:
    panel = panel_of(("odd", 0, ODD[kind]), ("plain", 0, [float(day % 7) for day in range(60)]))
    changes: dict[str, Any] = {"cutoffs": {"odd": ["2024-02-20", "2024-02-21"], "plain": ["2024-02-21"]}}
    task = read_task(write_task(tmp_path, panel, horizon=horizon, **changes))
    text = page_of(judged(task, Doubled()))
    page = Page(text)
    assert "nan" not in text
    assert "inf" not in text.replace("info", "")
    numbers = [
        float(value)
        for _, attrs in page.tags
        for key in ("x", "y", "cx", "cy", "x1", "y2")
        if (value := attrs.get(key))
    ]
    assert min(numbers) >= 0
    assert max(numbers) <= 400


def test_hours(tmp_path: Path) -> None:
    stamps = pl.datetime_range(pl.datetime(2024, 1, 1), pl.datetime(2024, 1, 14, 23), "1h", eager=True)
    panel = pl.DataFrame({"unique_id": "a", "ds": stamps, "y": stamps.dt.hour().cast(pl.Float64)})
    folder = write_task(tmp_path, panel, freq="h", season=24, cutoffs=["2024-01-10T04:00"], horizon=30)
    page = Page(page_of(judged(read_task(folder), Doubled())))
    assert "2024-01-10 04:00" in page.texts["time"]
    assert "hours ahead" in page.texts["text"]


# ------------------------------------------------------------------------------------------------ files and commands
def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    backtest = Backtest(judged(small_task(tmp_path / "task"), Doubled()), Doubled(), POLICIES["baseline"])
    write_report(tmp_path / "page.html", backtest)
    assert (tmp_path / "page.html").read_bytes() == report(backtest)
    for wrong in (tmp_path, tmp_path / "none" / "page.html"):
        with pytest.raises(FileError):
            write_report(wrong, backtest)
    assert {path.name for path in tmp_path.iterdir()} == {"task", "page.html"}


def test_the_command_prints_measures_and_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_task(tmp_path / "task", name="shop")
    out, page = tmp_path / "f.parquet", tmp_path / "deep" / "page.html"
    command = ["backtest", str(tmp_path / "task"), "--out", str(out), "--report", str(page)]
    assert run([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    judge = judged(read_task(tmp_path / "task"), SeasonalWindow())
    assert told["measures"] == measures(judge)
    assert set(told["measures"]) == {"wql", "wape", "mase", "coverage80", "coverage80_strict", "bias"}
    assert told["coverage_by_volume"] == volumes(judge)
    assert [one["series"] for one in told["coverage_by_volume"]["tenths"]] == [1, 1, 1, 1]
    assert told["report"] == str(page)
    assert list(told["inputs"]) == ["history beyond 4 seasons", "weeks of two years"]
    assert Page(page.read_text()).texts["dd"][0] == "shop"
    assert "What each input is worth" in Page(page.read_text()).texts["h2"]
    assert run(command) == 0
    shown = capsys.readouterr().out
    assert all(name in shown and value in shown for name, value in [*measure_rows(judge), *volume_rows(judge)])


def test_the_command_says_where_there_are_no_actuals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_task(tmp_path / "task", panel_of(("a", 0, [1.0] * 40)), cutoffs=["2024-02-09"])
    command = ["backtest", str(tmp_path / "task"), "--out", str(tmp_path / "f.parquet")]
    assert run(command) == 0
    assert "no actuals" in capsys.readouterr().out
    assert run([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["measures"], told["coverage_by_volume"]) == (None, None)


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("", "is no regular file"),
        ("task", "is no regular file"),
        ("f.parquet", "is the file of --out"),
        ("task/task.json/page.html", "task.json"),
    ],
)
def test_a_page_that_has_no_place_is_refused_before_anything_is_forecast(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, sentence: str
) -> None:
    small_task(tmp_path / "task")
    out = tmp_path / "f.parquet"
    command = ["backtest", str(tmp_path / "task"), "--out", str(out), "--report", str(tmp_path / place)]
    assert run(command) == 2
    err = capsys.readouterr().err
    assert err.startswith("shelftide: ")
    assert err.count("\n") == 1
    assert sentence in err
    assert not out.exists()


def test_a_page_onto_a_full_disk_ends_in_one_sentence_and_leaves_no_part(tmp_path: Path) -> None:
    small_task(tmp_path / "task")
    limited = ["sh", "-c", 'ulimit -f 24; exec "$@"', "sh", *PROGRAM]  # blocks of 512 bytes: the table fits
    paths = ["--out", str(tmp_path / "f.parquet"), "--report", str(tmp_path / "page.html")]
    done = subprocess.run(
        [*limited, "backtest", str(tmp_path / "task"), *paths], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(b"shelftide: ")
    assert b"page.html" in done.stderr
    assert b"Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"task", "f.parquet"}


# ------------------------------------------------------------------------------------------------ a real browser
PROBE = """<script>
const wrong = [];
for (const chart of document.querySelectorAll("svg.chart")) {
  const frame = chart.getBoundingClientRect();
  const boxes = [...chart.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
  for (const [name, box] of boxes) {
    const inside = box.left > frame.left - 1 && box.right < frame.right + 1 && box.bottom < frame.bottom + 1;
    if (!inside) wrong.push("cut off: " + name);
  }
  boxes.forEach(([name, a], n) => boxes.slice(n + 1).forEach(([other, b]) => {
    const meet = a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom;
    if (meet) wrong.push(name + " on " + other);
  }));
}
const charts = document.querySelectorAll("svg.chart").length;
const wide = document.documentElement.scrollWidth > window.innerWidth;
document.title = JSON.stringify({charts, wrong, wide});
</script>"""


@pytest.fixture(scope="session")
def browser() -> str:
    """A real browser; `apt-get install chromium` brings one."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("there is no chromium on this machine")
    return found


@pytest.mark.parametrize("width", [500, 1280])
def test_a_browser_draws_all_of_it_with_nothing_cut_off_or_overlapping(
    tmp_path: Path, browser: str, width: int
) -> None:
    judge = judged(small_task(tmp_path / "task", HOSTILE, horizon=14, cutoffs=["2024-02-01", "2024-02-10"]), Doubled())
    text = page_of(judge, inputs=(InputWorth("price", 0.5, 0.1),))
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    assert policy in text
    open_page = text.replace(policy, policy + "; script-src 'unsafe-inline'")  # for the probe alone
    (tmp_path / "page.html").write_text(open_page.replace("</body>", PROBE + "</body>"))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    options = [f"--window-size={width},900", "--dump-dom", f"file://{tmp_path / 'page.html'}"]
    done = subprocess.run([*command, *options], capture_output=True, timeout=120, check=True)
    title = done.stdout.decode().partition("<title>")[2].partition("</title>")[0]
    assert json.loads(title) == {"charts": 6, "wrong": [], "wide": False}


def test_levels_that_a_fan_shows_are_forecast() -> None:
    from shelftide.pictures import SHOWN_LEVELS

    assert set(SHOWN_LEVELS) <= set(LEVELS)
