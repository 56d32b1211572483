"""Pages of what learning was worth: parsed, drawn by a real browser, the same bytes for the same replay."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from shelftide.cli import run
from shelftide.learning_report import learning_report
from tests.small_shop import DAY, MONDAY, NOON, order
from tests.test_backtest_report import PROBE, Page, browser

__all__ = ["browser"]  # a fixture

DAYS, SKUS = 40, ("TEA", "<b>MUG</b>")


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary of a replay of forty days."""
    folder, random = tmp_path_factory.mktemp("replay"), np.random.default_rng(1)
    events = [
        order(NOON + day * DAY, int(random.poisson(6)) + 1, sku)
        for day in range(DAYS) for sku in SKUS
    ]  # fmt: skip
    lines = folder / "events.jsonl"
    lines.write_bytes(b"\n".join(map(orjson.dumps, events)) + b"\n")
    page, until = folder / "page.html", str(MONDAY + (DAYS + 1) * DAY)
    assert run(["replay", str(lines), "--out", str(folder / "out"), "--report", str(page), "--until", until]) == 0
    summary: dict[str, Any] = orjson.loads((folder / "out" / "summary.json").read_bytes())
    assert page.read_bytes() == learning_report(summary)
    return summary


def test_a_page_says_what_was_published_beside_the_model_and_the_baseline(replayed: dict[str, Any]) -> None:
    page = Page(learning_report(replayed).decode())
    assert page.texts["h1"] == ["What learning was worth"]
    assert page.texts["h2"] == ["Figures", "Week by week", "Where", "What acts now"]
    assert "baseline-1" in page.texts["dd"]
    overall = replayed["learning"]["rivals"]["published"]["overall"]
    assert f"{overall['wql']:.4f}" in page.texts["td"]
    assert len(replayed["learning"]["weeks"]) == 5
    assert all(week["begins"] in page.texts["th"] for week in replayed["learning"]["weeks"])
    assert {"1", "3", "6", "11", "20"} <= set(page.texts["th"])


def test_without_outcomes_it_says_so(replayed: dict[str, Any]) -> None:
    learning = replayed["learning"]
    none = {**learning["rivals"]["published"]["overall"], "outcomes": 0}
    rivals = {name: {**one, "overall": none} for name, one in learning["rivals"].items()}
    page = Page(learning_report({**replayed, "learning": {**learning, "rivals": rivals, "weeks": []}}).decode())
    assert page.texts["h2"] == ["Figures"]
    assert page.count("svg") == 0


def test_a_folder_is_no_place_for_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", "-", "--out", str(tmp_path / "out"), "--report", str(tmp_path)]) == 2
    assert "is no regular file" in capsys.readouterr().err


@pytest.mark.parametrize("width", [500, 1280])
def test_a_browser_draws_it_with_nothing_cut_off_or_overlapping(
    tmp_path: Path, browser: str, replayed: dict[str, Any], width: int
) -> None:
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    text = learning_report(replayed).decode().replace(policy, policy + "; script-src 'unsafe-inline'")  # for the probe
    (tmp_path / "page.html").write_text(text.replace("</body>", PROBE + "</body>"))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    options = [f"--window-size={width},900", "--dump-dom", f"file://{tmp_path / 'page.html'}"]
    done = subprocess.run([*command, *options], capture_output=True, timeout=120, check=True)
    title = done.stdout.decode().partition("<title>")[2].partition("</title>")[0]
    assert json.loads(title) == {"charts": 2, "wrong": [], "wide": False}
