"""Every benchmark runs small and says what it measured; how fast that is nobody asserts here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = {
    "engine": ["--small", "--json", "--only", "throughput,scale,memory,year"],
    "decode": ["--events", "500", "--repeats", "2", "--json"],
    "baseline": ["--series", "64", "--repeats", "1"],
    "replenishment": ["--series", "200"],
    "simulate": ["--items", "20", "--days", "3", "--json"],
}


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


def test_every_benchmark_is_run() -> None:
    assert {path.stem for path in (ROOT / "load_tests").glob("*.py")} - {"__init__"} == {*SMALL, "price_alerts"}
