"""How the program stops: full disks, Ctrl-C, readers that go away; the demo in a pipe and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from shelftide.cli import run
from streams.files import read_records
from tests.program import PROGRAM, finished, started, wait_for

# -- what the machine refuses


@pytest.mark.parametrize("command", ["convert uci-online-retail {uci}", "simulate --days 2 --items 5"])
def test_a_full_disk_ends_in_one_sentence_and_code_1(
    command: str, uci: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command.format(uci=uci).split(), "--out", "/dev/full"]) == 1
    assert "'/dev/full' could not be written (No space left on device)" in capsys.readouterr().err


def test_a_replay_onto_a_full_disk_leaves_no_half_written_file(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "forecast.demand.v1.jsonl").symlink_to("/dev/full")
    assert run(["replay", str(shop), "--out", str(tmp_path), "--forecasts", "daily"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["forecast.demand.v1.jsonl"]


def test_a_backtest_onto_a_full_disk_leaves_no_file(task: Path, tmp_path: Path) -> None:
    command = ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", *PROGRAM, "backtest", str(task), "--out"]
    done = subprocess.run([*command, str(tmp_path / "f.parquet")], capture_output=True, timeout=30, check=False)
    assert done.returncode == 1
    assert b"shelftide: " in done.stderr
    assert b"Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"task"}


# -- how it stops


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_replay_leaves_no_file(number: int, code: int, shop: Path, tmp_path: Path) -> None:
    with started("replay", "-", "--out", str(tmp_path), stdin=subprocess.PIPE) as program:
        assert program.stdin is not None
        program.stdin.write(b"\n".join(next(iter(read_records(shop)))))
        program.stdin.flush()
        wait_for(lambda: list(tmp_path.glob("*.part")) or list(tmp_path.glob(".*.part")), "the files to be opened")
        program.send_signal(number)
        out, err = program.communicate(timeout=20)
    assert (program.returncode, out) == (code, b"")
    assert b"Traceback" not in err
    assert list(tmp_path.iterdir()) == []
    if number == signal.SIGINT:
        assert err.splitlines()[-1].startswith(b"shelftide: interrupted")


def test_a_reader_that_goes_away_ends_the_program_quietly() -> None:
    with started("simulate", "--days", "200", "--items", "50", "--out", "-") as program:
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.readline()
        program.stdout.close()
        assert program.wait(timeout=20) == 1
        assert program.stderr.read().splitlines() == [b"simulating 50 items over 200 days"]


def test_a_demo_in_a_pipe_prints_a_line_a_week_and_a_summary() -> None:
    done = finished("demo", "--items", "12", "--days", "8", "--warm-up", "8")
    assert done.returncode == 0
    weeks = [line for line in done.stdout.decode().splitlines() if line.startswith("2024-")]
    assert [week.split()[0] for week in weeks] == ["2024-01-08", "2024-01-15"]
    assert "(warm-up)" in weeks[0]
    assert b"forecasts scored" in done.stdout
    assert b"\x1b" not in done.stdout


def test_a_demo_ends_with_json_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "--items", "12", "--days", "2", "--warm-up", "7", "--json"]) == 0
    shown = capsys.readouterr()
    summary = json.loads(shown.out)
    assert summary["interrupted"] is False
    assert summary["closes"] >= 8
    assert "2024-01-08" in shown.err


def test_an_interrupted_demo_ends_with_a_true_summary() -> None:
    with started("demo", "--items", "12", "--days", "3000", "--warm-up", "0", "--speed", "50") as program:
        assert program.stdout is not None
        first = program.stdout.readline()
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=20)
    assert first.startswith(b"2024-01-08")
    assert (program.returncode, err) == (0, b"")
    assert b"demo, interrupted" in out
    assert b"forecasts scored" in out


def test_on_a_terminal_the_demo_draws_and_puts_the_terminal_back() -> None:
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "36"}
    arguments = [*PROGRAM, "demo", "--items", "12", "--days", "3000", "--warm-up", "7", "--speed", "20"]
    with subprocess.Popen(arguments, stdin=follower, stdout=follower, stderr=follower, env=environment) as program:
        os.close(follower)
        seen = _read_until(leader, b"Best sellers")
        program.send_signal(signal.SIGINT)
        seen += _read_until(leader, None)
        assert program.wait(timeout=20) == 0
    os.close(leader)
    assert seen.count(b"\x1b[?1049h") == seen.count(b"\x1b[?1049l") == 1
    assert seen.rindex(b"\x1b[?25h") > seen.index(b"\x1b[?25l")
    assert b"Price alerts" in seen
    assert b"demo, interrupted" in seen
    assert b"Traceback" not in seen


def _read_until(leader: int, wanted: bytes | None) -> bytes:
    """Read a terminal until something was written to it, or until nobody holds it any more."""
    seen = b""
    until = time.monotonic() + 20
    while wanted is None or wanted not in seen:
        assert time.monotonic() < until, seen[-2000:]
        if not select.select([leader], [], [], 0.2)[0]:
            continue
        try:
            seen += os.read(leader, 1 << 16)
        except OSError:  # Linux says EIO when the other end is closed
            return seen
    return seen


def test_the_picture_of_a_demo_is_the_same_every_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [tmp_path / name for name in ("one.svg", "two.svg")]
    for picture in pictures:
        assert run(["demo", "--items", "12", "--days", "1", "--warm-up", "7", "--svg", str(picture), "--json"]) == 0
    text = pictures[0].read_text()
    assert text == pictures[1].read_text()
    assert "Best" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "").replace("https://www.textualize.io", "")
    assert "ms" not in {word for line in text.splitlines() for word in line.split()}  # nothing that was measured
