"""The program as a user meets it: what each command does, and how wrong usage ends in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from shelftide.cli import run
from streams.files import read_records
from tests.program import finished

COMMANDS = ("demo", "replay", "convert", "simulate", "backtest", "train", "settings", "topics apply", "topics list")


# -- what commands do


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_reads_and_writes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert "Reads" in text
    assert "Writes" in text
    assert "--json" in text


def test_without_a_command_the_help_is_shown_and_it_counts_as_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    shown = capsys.readouterr()
    assert all(command.split()[0] in shown.out + shown.err for command in COMMANDS)


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
        "summary.json", "forecast.demand.v1.jsonl", "forecast.price.v1.jsonl", "alerts.price.v1.jsonl",
        "replenishment.trigger.v1.jsonl", "engine.deadletter.v1.jsonl",
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
    for until in ([], ["--until", "2024-01-11T00:00:00Z"], ["--until", "1704931200000"]):
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


WRONG_USAGES = [
    ("bogus", "No such command 'bogus'"),
    ("replay", "Missing argument 'EVENTS...'"),
    ("replay {events}", "Missing option '--out'"),
    ("replay {events} --out {dir}/o --nonsense", "--nonsense"),
    ("replay {dir}/none --out {dir}/o", "does not exist"),
    ("replay {dir} --out {dir}/o", "is a directory"),
    ("replay {dir}/loop --out {dir}/o", "cannot be read"),
    ("replay {dir}/cut.zst --out {dir}/o", "ends in the middle of its zst data"),
    ("replay {dir}/cut.gz --out {dir}/o", "ends in the middle of its gz data"),
    ("replay {dir}/cut.zst {events} --sort --out {dir}/o", "ends in the middle of its zst data"),
    ("replay {uci} --out {dir}/o", "is a Parquet file"),
    ("replay {events} --out {events}", "is a file; name a folder"),
    ("replay {events} --out {events}/o", "Not a directory"),
    ("replay {events} --out {dir}/o --until soon", "'soon' is neither an ISO date nor RFC 3339"),
    ("replay {events} --out {dir}/o --until 2024-01-01T00:00", "nor RFC 3339 with an offset"),
    ("replay {events} --out {dir}/o --until 7", "lies before 2000"),
    ("replay {events} --out {dir}/o --shards 0", "--shards"),
    ("replay {events} --out {dir}/o --shards many", "--shards"),
    ("replay {events} --out {dir}/o --chunk 0", "--chunk"),
    ("replay {events} --out {dir}/o --max-series 0", "--max-series"),
    ("replay {events} --out {dir}/o --max-series 99999999999", "--max-series"),
    ("replay {events} --out {dir}/o --forecasts some", "--forecasts"),
    ("replay {events} --out {dir}/o --bucket week", "--bucket"),
    ("replay {events} --out {dir}/o --partitioner md5", "--partitioner"),
    ("replay {events} --out {dir}/o --time-zone Mars", "'Mars' is no IANA time zone"),
    ("replay {events} --out {dir}/o --location-time-zone here", "not of the form NAME=VALUE"),
    ("replay {events} --out {dir}/o --location-time-zone here=Mars", "'Mars' is no IANA time zone"),
    ("replay {events} --out {dir}/o --base-currency pounds", "'pounds' is no currency code"),
    ("replay {events} --out {dir}/o --rate USD", "not of the form NAME=VALUE"),
    ("replay {events} --out {dir}/o --rate USD=much", "'much' is no number"),
    ("replay {events} --out {dir}/o --rate USD=-1", "rate of USD is -1"),
    ("replay {events} --out {dir}/o --rate USD=inf", "rate of USD is inf"),
    ("replay {events} --out {dir}/o --rate EUR=2", "EUR is the base currency"),
    ("replay {events} --out {dir}/o --settings {dir}/none", "cannot be read"),
    ("replay {events} --out {dir}/o --settings {dir}/odd.toml", "unknown field `colour`"),
    ("replay {events} --out {dir}/o --settings {uci}", "is no TOML file"),
    ("convert uci {uci} --out {dir}/e", "FORMAT"),
    ("convert rees46 {uci} --out {dir}/e", "has no column event_time"),
    ("convert uci-online-retail {events} --out {dir}/e", "cannot be read as Parquet"),
    ("convert uci-online-retail {dir}/none --out {dir}/e", "does not exist"),
    ("convert uci-online-retail {uci} --out {dir}/none/e", "the folder of"),
    ("convert uci-online-retail {uci} --out {dir}", "is a directory"),
    ("convert uci-online-retail {uci} --out {dir}/e --currency EUR", "is GBP"),
    ("convert rees46 {uci} --out {dir}/e --currency euro", "no currency code"),
    ("convert rees46 {uci} --out {dir}/e --with-stock", "uci-online-retail alone"),
    ("simulate --days 0 --items 5 --out {dir}/e", "--days"),
    ("simulate --days 2 --items 0 --out {dir}/e", "--items"),
    ("simulate --days 2 --items 5 --seed -1 --out {dir}/e", "--seed"),
    ("simulate --days 2 --items 5 --out {dir}/e --truth {dir}/e", "a file of its own"),
    ("simulate --days 2 --items 5 --out {dir}/none/e", "the folder of"),
    ("simulate --days 2 --items 5 --out {dir}/e --start 1999-12-31", "from 2000 to 2099"),
    ("simulate --days 2 --items 5 --out {dir}/e --start tomorrow", "--start"),
    ("backtest {dir}/none --out {dir}/f", "task.json: cannot be read"),
    ("backtest {task} --out {dir}", "is no regular file"),
    ("backtest {task} --out /dev/full", "is no regular file"),
    ("backtest {task} --out {dir}/f --model oracle", "--model"),
    ("backtest {dir} --out {dir}/f", "task.json: cannot be read"),
    ("demo --items 0", "--items"),
    ("demo --days 0", "--days"),
    ("demo --speed -1", "--speed"),
    ("demo --speed nan", "--speed"),
    ("demo --svg {dir}/none/p.svg", "the folder of"),
]


@pytest.mark.parametrize(("usage", "sentence"), WRONG_USAGES)
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
