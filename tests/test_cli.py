"""The program as a user meets it: what each command writes, how it fails in a sentence, how it stops."""

from __future__ import annotations

import json
import os
import pty
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import shelftide
from shelftide.cli import run
from streams.files import read_records

PROGRAM = [sys.executable, "-m", "shelftide.cli"]
COMMANDS = ("demo", "replay", "convert", "simulate", "backtest")
DAY_MS = 86_400_000


def finished(*arguments: str, timeout_s: float = 30, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the real program in a process of its own."""
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, timeout=timeout_s, check=False, **options)


def started(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def wait_for(condition: Any, what: str, timeout_s: float = 20) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight days of a small shop as a file of events; the Monday among them has its forecasts written."""
    out = tmp_path_factory.mktemp("shop") / "events.jsonl.zst"
    assert run(["simulate", "--days", "8", "--items", "8", "--seed", "4", "--out", str(out), "--json"]) == 0
    return out


@pytest.fixture
def uci(tmp_path: Path) -> Path:
    """Two lines of UCI Online Retail."""
    rows = {
        "InvoiceNo": ["536365", "536366"],
        "StockCode": ["85123A", "85123A"],
        "Description": ["TEA POT", "TEA POT"],
        "Quantity": [6, 2],
        "InvoiceDate": [datetime(2011, 1, 10, 10), datetime(2011, 1, 11, 11)],
        "UnitPrice": [2.55, 2.55],
        "CustomerID": [17850, 17850],
    }
    pl.DataFrame(rows).write_parquet(tmp_path / "uci.parquet")
    return tmp_path / "uci.parquet"


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A task of one series over 30 days."""
    folder = tmp_path / "task"
    folder.mkdir()
    days = [datetime(2024, 1, 1) + timedelta(days=day) for day in range(30)]
    pl.DataFrame({"unique_id": ["a"] * 30, "ds": days, "y": [float(day % 7) for day in range(30)]}).write_parquet(
        folder / "panel.parquet"
    )
    pl.DataFrame({"unique_id": ["a"]}).write_parquet(folder / "static.parquet")
    told = {"freq": "D", "horizon": 3, "season": 7, "cutoffs": ["2024-01-20"], "levels": [0.1, 0.5, 0.9]}
    (folder / "task.json").write_text(json.dumps(told))
    return folder


# -- what commands do


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_reads_and_writes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Reads" in text
    assert "Writes" in text
    assert "--json" in text


def test_without_a_command_the_help_is_shown_and_it_counts_as_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    shown = capsys.readouterr()
    assert all(command in shown.out + shown.err for command in COMMANDS)


def test_replay_prints_the_summary_it_writes_and_the_time_it_took(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", str(shop), "--out", str(tmp_path), "--json"]) == 0
    shown = capsys.readouterr()
    printed = json.loads(shown.out)
    timing = printed.pop("timing")
    assert printed == json.loads((tmp_path / "summary.json").read_text())
    assert timing["seconds"] > 0
    assert printed["records"] == sum(map(len, read_records(shop)))
    assert {path.name for path in tmp_path.iterdir()} == {
        "summary.json", "forecast.demand.v1.jsonl", "alerts.price.v1.jsonl", "replenishment.trigger.v1.jsonl",
        "engine.deadletter.v1.jsonl",
    }  # fmt: skip
    written = (tmp_path / "forecast.demand.v1.jsonl").read_text().splitlines()
    assert len(written) == printed["forecasts"]["written"] > 0


def test_replay_tells_people_the_figures_in_a_table(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", str(shop), "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    for name in (
        "time taken",
        "events",
        "order_placed",
        "dead letters",
        "forecasts made",
        "price alerts",
        "triggers",
        "WQL",
    ):
        assert name in shown.out
    assert "\x1b" not in shown.out + shown.err  # no colours and no bars where there is no terminal


def test_chunks_change_no_byte_of_a_replay(shop: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("large", "small")]
    for folder, chunk in zip(folders, ("8192", "101"), strict=True):
        assert run(["replay", str(shop), "--out", str(folder), "--chunk", chunk, "--json"]) == 0
    for path in folders[0].iterdir():
        assert path.read_bytes() == (folders[1] / path.name).read_bytes(), path.name


def test_options_override_the_file_of_settings(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "shop.toml"
    settings.write_text('time_zone = "Europe/London"\nbase_currency = "GBP"\nmax_series = 1\n')
    options = ["--settings", str(settings), "--max-series", "50", "--forecasts", "last", "--json"]
    assert run(["replay", str(shop), "--out", str(tmp_path / "out"), *options]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["series"] > 1
    assert summary["intake"]["revenue_without_rate"] == 0
    line = (tmp_path / "out" / "forecast.demand.v1.jsonl").read_text().splitlines()[0]
    assert json.loads(line)["time_zone"] == "Europe/London"


def test_until_lets_open_buckets_close(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    closes = []
    for until in ([], ["--until", "2024-01-12T00:00:00Z"], ["--until", "1705017600000"]):
        assert run(["replay", str(shop), "--out", str(tmp_path), "--json", *until]) == 0
        closes.append(json.loads(capsys.readouterr().out)["closes"])
    assert closes[0] < closes[1] == closes[2]


def test_hour_buckets_and_locations_of_their_own_zone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    event = {"type": "order_placed", "event_time": "2024-01-01T10:00:00Z", "sku": "TEA", "location": "tokyo",
             "order_id": "o", "quantity": 1, "unit_price": 2, "currency": "USD"}  # fmt: skip
    late = {**event, "event_time": "2024-01-01T12:10:00Z"}
    lines = [json.dumps({**e, "event_id": str(n)}) for n, e in enumerate([event, late])]
    (tmp_path / "e.jsonl").write_text("\n".join(lines))
    arguments = ["--bucket", "hour", "--location-time-zone", "tokyo=Asia/Tokyo", "--rate", "USD=0.9", "--shards", "2"]
    assert run(["replay", str(tmp_path / "e.jsonl"), "--out", str(tmp_path / "o"), *arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["intake"]["revenue_without_rate"] == 0
    line = (tmp_path / "o" / "forecast.demand.v1.jsonl").read_text().splitlines()[0]
    assert (json.loads(line)["freq"], json.loads(line)["time_zone"]) == ("h", "Asia/Tokyo")


def test_replay_reads_events_from_standard_input(shop: Path, tmp_path: Path) -> None:
    done = finished("replay", "-", "--out", str(tmp_path / "out"), "--json", input=shop.read_bytes())
    assert done.returncode == 0
    assert json.loads(done.stdout)["records"] == sum(map(len, read_records(shop)))
    assert done.stderr.count(b"\n") == 1


def test_convert_says_what_it_left_out_and_how_to_play_the_events(
    uci: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "e.jsonl.gz")
    assert run(["convert", "uci-online-retail", str(uci), "--with-stock", "--seed", "3", "--out", out]) == 0
    shown = capsys.readouterr()
    assert "order_placed" in shown.out
    assert "simulated: stock_counted" in shown.out
    assert "--time-zone Europe/London --base-currency GBP" in shown.err
    assert run(["convert", "uci-online-retail", str(uci), "--out", out, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["events"]["order_placed"], summary["currency"], summary["simulated"]) == (2, "GBP", {})


def test_events_on_standard_output_leave_the_summary_to_stderr(tmp_path: Path) -> None:
    done = finished("simulate", "--days", "2", "--items", "5", "--out", "-", "--json")
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"type", "event_id", "event_time"} <= set(lines[0])
    told = done.stderr.decode()
    assert json.loads(told[told.index("{") : told.rindex("}") + 1])["records"] == len(lines)


def test_simulate_writes_the_truth_beside_the_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "e.jsonl"
    arguments = ["simulate", "--days", "3", "--items", "10", "--seed", "1", "--out", str(out)]
    assert run(arguments) == 0
    assert "truth" in capsys.readouterr().out
    assert json.loads((tmp_path / "e.truth.jsonl").read_text().splitlines()[0])["seed"] == 1
    first = out.read_bytes()
    assert run([*arguments, "--truth", str(tmp_path / "t"), "--start", "2099-05-01", "--json"]) == 0
    assert (tmp_path / "t").exists()
    assert "ahead of today" in capsys.readouterr().err
    assert run(arguments) == 0
    assert out.read_bytes() == first


def test_backtest_writes_a_row_per_series_cutoff_and_day(
    task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "f.parquet"
    assert run(["backtest", str(task), "--out", str(out), "--model", "baseline", "--cumulative", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 3
    table = pl.read_parquet(out)
    assert table.columns[:6] == ["unique_id", "cutoff", "ds", "h", "q0.1", "q0.5"]
    assert "cmean" in table.columns
    assert run(["backtest", str(task), "--out", str(out)]) == 0
    assert "baseline" in capsys.readouterr().out


# -- what a user can get wrong


def wrong_usages() -> Iterator[tuple[str, str]]:
    yield "bogus", "No such command 'bogus'"
    yield "replay", "Missing argument 'EVENTS...'"
    yield "replay {events}", "Missing option '--out'"
    yield "replay {events} --out {dir}/o --nonsense", "--nonsense"
    yield "replay {dir}/none --out {dir}/o", "does not exist"
    yield "replay {dir} --out {dir}/o", "is a directory"
    yield "replay {dir}/loop --out {dir}/o", "cannot be read"
    yield "replay {dir}/cut.zst --out {dir}/o", "ends in the middle of its zst data"
    yield "replay {dir}/cut.gz --out {dir}/o", "ends in the middle of its gz data"
    yield "replay {dir}/cut.zst {events} --sort --out {dir}/o", "ends in the middle of its zst data"
    yield "replay {uci} --out {dir}/o", "is a Parquet file"
    yield "replay {events} --out {events}", "is a file; name a folder"
    yield "replay {events} --out {events}/o", "Not a directory"
    yield "replay {events} --out {dir}/o --until soon", "'soon' is neither an ISO date nor RFC 3339"
    yield "replay {events} --out {dir}/o --until 2024-01-01T00:00", "nor RFC 3339 with an offset"
    yield "replay {events} --out {dir}/o --until 7", "lies before 2000"
    yield "replay {events} --out {dir}/o --shards 0", "--shards"
    yield "replay {events} --out {dir}/o --shards many", "--shards"
    yield "replay {events} --out {dir}/o --chunk 0", "--chunk"
    yield "replay {events} --out {dir}/o --max-series 0", "--max-series"
    yield "replay {events} --out {dir}/o --max-series 99999999999", "--max-series"
    yield "replay {events} --out {dir}/o --forecasts some", "--forecasts"
    yield "replay {events} --out {dir}/o --bucket week", "--bucket"
    yield "replay {events} --out {dir}/o --partitioner md5", "--partitioner"
    yield "replay {events} --out {dir}/o --time-zone Mars", "'Mars' is no IANA time zone"
    yield "replay {events} --out {dir}/o --location-time-zone here", "not of the form NAME=VALUE"
    yield "replay {events} --out {dir}/o --location-time-zone here=Mars", "'Mars' is no IANA time zone"
    yield "replay {events} --out {dir}/o --base-currency pounds", "'pounds' is no currency code"
    yield "replay {events} --out {dir}/o --rate USD", "not of the form NAME=VALUE"
    yield "replay {events} --out {dir}/o --rate USD=much", "'much' is no number"
    yield "replay {events} --out {dir}/o --rate USD=-1", "rate of USD is -1"
    yield "replay {events} --out {dir}/o --rate USD=inf", "rate of USD is inf"
    yield "replay {events} --out {dir}/o --rate EUR=2", "EUR is the base currency"
    yield "replay {events} --out {dir}/o --settings {dir}/none", "cannot be read"
    yield "replay {events} --out {dir}/o --settings {dir}/odd.toml", "unknown field `colour`"
    yield "replay {events} --out {dir}/o --settings {uci}", "is no TOML file"
    yield "convert uci {uci} --out {dir}/e", "FORMAT"
    yield "convert rees46 {uci} --out {dir}/e", "has no column event_time"
    yield "convert uci-online-retail {events} --out {dir}/e", "cannot be read as Parquet"
    yield "convert uci-online-retail {dir}/none --out {dir}/e", "does not exist"
    yield "convert uci-online-retail {uci} --out {dir}/none/e", "the folder of"
    yield "convert uci-online-retail {uci} --out {dir}", "is a directory"
    yield "convert uci-online-retail {uci} --out {dir}/e --currency EUR", "is GBP"
    yield "convert rees46 {uci} --out {dir}/e --currency euro", "no currency code"
    yield "convert rees46 {uci} --out {dir}/e --with-stock", "uci-online-retail alone"
    yield "simulate --days 0 --items 5 --out {dir}/e", "--days"
    yield "simulate --days 2 --items 0 --out {dir}/e", "--items"
    yield "simulate --days 2 --items 5 --seed -1 --out {dir}/e", "--seed"
    yield "simulate --days 2 --items 5 --out {dir}/e --truth {dir}/e", "a file of its own"
    yield "simulate --days 2 --items 5 --out {dir}/none/e", "the folder of"
    yield "simulate --days 2 --items 5 --out {dir}/e --start 1999-12-31", "from 2000 to 2099"
    yield "simulate --days 2 --items 5 --out {dir}/e --start tomorrow", "--start"
    yield "backtest {dir}/none --out {dir}/f", "task.json: cannot be read"
    yield "backtest {task} --out {dir}", "is no regular file"
    yield "backtest {task} --out /dev/full", "is no regular file"
    yield "backtest {task} --out {dir}/f --model oracle", "--model"
    yield "backtest {dir} --out {dir}/f", "task.json: cannot be read"
    yield "demo --items 0", "--items"
    yield "demo --days 0", "--days"
    yield "demo --speed -1", "--speed"
    yield "demo --speed nan", "--speed"
    yield "demo --svg {dir}/none/p.svg", "the folder of"


@pytest.mark.parametrize(("usage", "sentence"), list(wrong_usages()))
def test_wrong_usage_ends_in_one_sentence_and_code_2(
    usage: str, sentence: str, tmp_path: Path, uci: Path, task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "events.jsonl").write_text("{}\n")
    (tmp_path / "cut.zst").write_bytes(b"\x28\xb5\x2f\xfd\x04")
    (tmp_path / "cut.gz").write_bytes(b"\x1f\x8b\x08\x00")
    (tmp_path / "odd.toml").write_text('colour = "red"\n')
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    places = {"dir": tmp_path, "events": tmp_path / "events.jsonl", "uci": uci, "task": task}
    assert run([part.format(**places) for part in usage.split()]) == 2
    shown = capsys.readouterr()
    *notes, last = shown.err.splitlines()
    assert last.startswith("shelftide: ")
    assert sentence in last
    assert len(notes) <= 1  # what was begun
    assert shown.out == ""
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert not {name for name in left if name.endswith((".part", ".jsonl"))} - {"events.jsonl"}


def test_a_path_with_control_characters_is_shown_and_not_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["backtest", f"{tmp_path}/a\x1b[31m\nb", "--out", f"{tmp_path}/f"]) == 2
    assert "\x1b" not in capsys.readouterr().err.splitlines()[-1]


def test_wrong_usage_in_a_process_has_no_traceback(tmp_path: Path) -> None:
    done = finished("replay", str(tmp_path / "none"), "--out", str(tmp_path / "o"))
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"does not exist" in done.stderr
    assert b"Traceback" not in done.stderr


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
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))

    done = finished("backtest", str(task), "--out", str(tmp_path / "f.parquet"), preexec_fn=small_files)
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


# -- the door


@pytest.mark.parametrize("name", shelftide.__all__)
def test_every_public_name_can_be_imported_and_says_what_it_is(name: str) -> None:
    value = getattr(shelftide, name)
    assert name in dir(shelftide)
    assert getattr(value, "__doc__", None)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = shelftide.Nothing


def test_importing_the_door_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; began = time.perf_counter(); import shelftide; took = time.perf_counter() - began; "
        "print(took, *[name for name in ('numpy', 'polars', 'msgspec', 'typer') if name in sys.modules])"
    )
    took, *heavy = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    ).stdout.split()
    assert heavy == []
    assert float(took) < 0.2


def test_the_help_of_the_program_loads_no_engine() -> None:
    code = "import sys, shelftide.cli; print(*[n for n in ('numpy', 'polars', 'streams.engine') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.split() == []
