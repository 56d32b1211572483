"""The program in a process of its own, and small inputs for it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

PROGRAM = [sys.executable, "-m", "shelftide.cli"]


def finished(*arguments: str, timeout_s: float = 30, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the real program to its end."""
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, timeout=timeout_s, check=False, **options)


def started(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start the real program."""
    return subprocess.Popen([*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 20) -> None:
    """Wait until something is true."""
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.02)


def write_uci(path: Path) -> Path:
    """Write two lines of UCI Online Retail."""
    rows = {
        "InvoiceNo": ["536365", "536366"],
        "StockCode": ["85123A", "85123A"],
        "Description": ["TEA POT", "TEA POT"],
        "Quantity": [6, 2],
        "InvoiceDate": [datetime(2011, 1, 10, 10), datetime(2011, 1, 11, 11)],
        "UnitPrice": [2.55, 2.55],
        "CustomerID": [17850, 17850],
    }
    pl.DataFrame(rows).write_parquet(path)
    return path


def write_task(folder: Path) -> Path:
    """Write a task of one series over 30 days."""
    folder.mkdir()
    days = [datetime(2024, 1, 1) + timedelta(days=day) for day in range(30)]
    panel = pl.DataFrame({"unique_id": ["a"] * 30, "ds": days, "y": [float(day % 7) for day in range(30)]})
    panel.write_parquet(folder / "panel.parquet")
    pl.DataFrame({"unique_id": ["a"]}).write_parquet(folder / "static.parquet")
    told = {"freq": "D", "horizon": 3, "season": 7, "cutoffs": ["2024-01-20"], "levels": [0.1, 0.5, 0.9]}
    (folder / "task.json").write_text(json.dumps(told))
    return folder
