"""Every benchmark runs small and says what it measured; how fast that is nobody asserts here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from load_tests.forgetting import FIRST, write_task
from load_tests.kafka.drains import Meter
from load_tests.kafka.orders import orders, values
from load_tests.kafka.report import goals, summary, text
from load_tests.kafka.runs import Run
from load_tests.kafka.state import units
from load_tests.kafka.worker import Sample, span
from load_tests.residual_candidates import MODELS, measured
from streams.decode import decode
from streams.engine import Engine, EngineConfig
from streams.panes import UNIT

ROOT = Path(__file__).parents[1]
SMALL = {
    "engine": ["--small", "--json", "--only", "throughput,scale,memory,year"],
    "commits": ["--small", "--json"],
    "decode": ["--events", "500", "--repeats", "2", "--json"],
    "baseline": ["--series", "64", "--repeats", "1"],
    "serving": ["--rows", "32", "--seconds", "0.05", "--json"],
    "refresh": ["--series", "100", "--repeats", "1", "--json"],
    "replenishment": ["--series", "200"],
    "corpus": ["--series", "60", "--days", "400", "--no-tasks", "--json"],
    "text": ["--texts", "40", "--cores", "1", "--rows", "16", "--json"],
    "drift": ["--series", "40", "--seeds", "1", "--buckets", "40", "--json"],
    "forgetting": ["--series", "6", "--steps", "10", "--generations", "1", "--json"],
    "learning": ["--series", "40", "--days", "30", "--json"],
    "recovery": ["--series", "8", "--seeds", "1", "--models", "baseline", "--cases", "season", "--json"],
    "simulate": ["--items", "20", "--days", "3", "--json"],
}
ON_A_STAGE = ("latency", "close", "restart", "soak", "scaling")
"""Those of a running worker, which `tests/kafka/test_load.py` runs."""


def output(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"load_tests.{name}", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_runs_small(name: str) -> None:
    told = output(name, *SMALL[name])
    assert json.loads(told) if "--json" in SMALL[name] else told


def test_the_price_benchmark_writes_alerts_in_the_form_that_is_scored(tmp_path: Path) -> None:
    price = (
        '{"type":"price_set","event_id":"e%d","event_time":%d,"sku":"A","location":"default","channel":"web",'
        '"price":%s,"currency":"GBP","promo":false}\n'
    )
    events = tmp_path / "events.jsonl"
    start_ms = 1_300_000_000_000
    events.write_text("".join(price % (n, start_ms + n * 60_000, 0 if n == 9 else 9.5) for n in range(12)))
    output("price_alerts", str(events), "--out", str(tmp_path / "alerts.jsonl"))
    states = [json.loads(line)["status"] for line in (tmp_path / "alerts.jsonl").read_text().splitlines()]
    assert states == ["firing", "resolved"]


def test_candidates_of_the_residual_are_compared_on_nets_too(tmp_path: Path) -> None:
    task = write_task(tmp_path, 6)
    told = json.loads(output("residual_candidates", str(task), "--days", "30", "--net", "--steps", "4", "--json"))
    assert {(one["task"], one["model"]) for one in told} == {
        (name, model) for name in (task.name, "mean") for model in MODELS
    }
    assert {one["forecaster"] for one in told} == {"baseline-1", "net"}


def test_candidates_of_the_residual_see_nothing_from_the_first_cutoff_on(tmp_path: Path) -> None:
    task, found = write_task(tmp_path, 6), []
    for factor in (1, 1000):
        panel = pl.read_parquet(task / "panel.parquet")
        at = pl.int_range(pl.len()).over("unique_id") >= FIRST - 1
        panel.with_columns(pl.when(at).then(factor * (1 + pl.col("y"))).otherwise("y").alias("y")).write_parquet(
            task / "panel.parquet"
        )
        found.append([{**one, "us_a_group": None} for one in measured(task, 60, None)])
    assert found[0] == found[1]
    assert any(one["alone"] for one in found[0])


@pytest.mark.skipif(
    shutil.which("java") is None or shutil.which("mvn") is None, reason="no Java 17 or Maven on this machine"
)
def test_throughput_runs_small_and_our_worker_commits_every_unit() -> None:
    small = ["--records", "3000", "--days", "2", "--repeats", "1", "--engines", "aiokafka-drain,worker"]
    runs = {run["engine"]: run for run in json.loads(output("throughput", *small, "--json"))["runs"]}
    assert {name: run["error"] for name, run in runs.items()} == {"aiokafka-drain": None, "worker": None}
    assert (runs["worker"]["correct"], runs["worker"]["more"]["exit"]) == (True, 0)


def run_of(engine: str, repeat: int, rate: float) -> Run:
    return Run(engine, repeat, 1000, rate=rate, rate_2nd_half=2 * rate, cpu_us=3.0)


def test_shares_are_made_within_a_repeat() -> None:
    runs = [run_of("aiokafka-drain", n, rate) for n, rate in enumerate((100.0, 200.0, 400.0))]
    runs += [run_of("worker", n, rate) for n, rate in enumerate((150.0, 200.0, 200.0))]
    assert summary(runs)["worker"]["share_of_yardstick"] == {"median": 1.0, "min": 0.5, "max": 1.5}
    assert goals(runs)["worker of a bare aiokafka drain"]["reached"]


def test_a_run_that_failed_has_no_figures_and_its_reason_is_told() -> None:
    runs = [run_of("aiokafka-drain", 0, 100.0), Run("worker", 0, 1000, error="exit code 1")]
    engines = summary(runs)
    told = text({"engines": engines, "goals": goals(runs), "left_out": {"quix": "not here"}, "runs": []})
    assert engines["worker"]["rate"] is None
    assert "exit code 1" in told
    assert "left out: quix: not here" in told


def test_the_first_batch_starts_the_clock_and_is_not_counted() -> None:
    meter = Meter(total=30)
    assert [meter.tick(10), meter.tick(10), meter.tick(10)] == [False, False, True]
    found = meter.result()
    assert found["rate"] is not None
    assert found["rate_2nd_half"] is not None


def test_orders_are_those_of_the_contract_but_for_the_broken_ones() -> None:
    made = orders(1000, days=2)
    batch, letters = decode(list(values(made)), clock_ms=int(made.stamp_ms[-1]))
    expected = made.expected()
    assert (len(batch), len(letters)) == (expected["valid"], 1)
    assert batch.quantity.sum() / UNIT == expected["quantity"]


def test_units_of_committed_state_are_those_of_the_orders() -> None:
    made, config = orders(3000, days=10.3), EngineConfig(max_series=10_000, base_currency="GBP")
    live: dict[str, bytes | None] = {}
    engine, lines = Engine(config), list(values(made))
    for start in range(0, len(made), 500):
        batch, _ = decode(lines[start : start + 500], clock_ms=int(made.stamp_ms[-1]))
        batch.tick_ms[:] = batch.time_ms
        engine.process(batch)
        live |= dict(engine.changes())
    quantity, revenue = units(config, [{key: value for key, value in live.items() if value is not None}])
    expected = made.expected()
    assert quantity == expected["quantity"]
    assert revenue == pytest.approx(expected["revenue"], rel=1e-6)


def sample(at_s: float, processed: int, committed: int) -> Sample:
    return Sample(at_s, processed, committed, cpu_s=at_s / 2)


def test_the_clock_of_our_worker_ends_with_its_last_commit() -> None:
    found = span([sample(1.0, 100, 0), sample(2.0, 600, 500), sample(3.0, 1100, 500), sample(6.0, 1100, 1100)])
    assert (found["rate"], found["processed_rate"], found["tail_s"]) == (200.0, 500.0, 3.0)
    assert found["cpu_us"] == 2500.0


def test_every_benchmark_is_run() -> None:
    assert {path.stem for path in (ROOT / "load_tests").glob("*.py")} - {"__init__"} == {
        *SMALL,
        *ON_A_STAGE,
        "chaos",  # in tests/kafka/test_chaos.py
        "cold_start",  # in tests/test_cold_start.py
        "cold_start_engine",  # in tests/test_lending.py
        "fit_options",  # in tests/test_commands_train.py
        "modes",  # in tests/test_commands_train.py
        "price_alerts",
        "price_forecasts",  # in tests/test_price.py
        "residual_candidates",
        "throughput",
    }
