"""Inputs that several files of tests about the program share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shelftide.cli import run
from tests.program import write_task, write_uci

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: its threads wait for each other by spinning


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four days of a small shop as a file of events; the last is a Monday, so that its forecasts are written."""
    out = tmp_path_factory.mktemp("shop") / "events.jsonl.zst"
    size = ["--days", "4", "--items", "8", "--start", "2024-01-05"]
    assert run(["simulate", *size, "--out", str(out), "--json"]) == 0
    return out


@pytest.fixture
def uci(tmp_path: Path) -> Path:
    """Two lines of UCI Online Retail."""
    return write_uci(tmp_path / "uci.parquet")


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task of one series over 30 days."""
    return write_task(tmp_path / "task")
