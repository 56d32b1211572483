"""Files of events: chunks of lines whatever the packing, bounded memory, one sentence per error."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from streams import files
from streams.files import EventWriter, FileError, read_records

LINES = [b'{"n":%d}' % n for n in range(20_000)]
BODY = b"\n".join(LINES) + b"\n"


def pack(form: str, body: bytes) -> bytes:
    if form == "gz":
        return gzip.compress(body)
    return zstandard.ZstdCompressor(write_checksum=True).compress(body) if form == "zst" else body


def lines_of(path: Path | str) -> list[bytes]:
    return [line for chunk in read_records(path) for line in chunk]


def sentence(path: Path | str) -> str:
    with pytest.raises(FileError) as caught:
        lines_of(path)
    assert caught.value.path == str(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", ["jsonl", "zst", "gz"])
def test_every_packing_gives_the_same_lines(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"events.{form}"
    path.write_bytes(pack(form, BODY))
    assert lines_of(path) == LINES
    assert [len(chunk) for chunk in read_records(path, rows=9000)] == [9000, 9000, 2000]


@pytest.mark.parametrize("form", ["jsonl", "zst", "gz"])
def test_the_packing_is_told_by_the_content_not_by_the_name(tmp_path: Path, form: str) -> None:
    path = tmp_path / "events.zst"
    path.write_bytes(pack(form, BODY))
    assert lines_of(path) == LINES
    assert [line for chunk in read_records("-", stdin=io.BytesIO(pack(form, BODY))) for line in chunk] == LINES


@pytest.mark.parametrize("form", ["zst", "gz"])
def test_files_put_behind_one_another_are_read_to_the_end(tmp_path: Path, form: str) -> None:
    path = tmp_path / "events"
    path.write_bytes(pack(form, BODY) + pack(form, b"") + pack(form, b'{"last":1}'))
    assert lines_of(path) == [*LINES, b'{"last":1}']


@pytest.mark.parametrize("form", ["zst", "gz"])
@pytest.mark.parametrize("kept", [5, 30, -1])
def test_a_truncated_file_is_an_error_not_an_end(tmp_path: Path, form: str, kept: int) -> None:
    path = tmp_path / f"events.{form}"
    path.write_bytes(pack(form, BODY)[:kept])
    assert "ends in the middle" in sentence(path)


@pytest.mark.parametrize("form", ["zst", "gz"])
def test_a_damaged_file_says_so(tmp_path: Path, form: str) -> None:
    packed = bytearray(pack(form, BODY))
    packed[len(packed) // 2] ^= 0x55
    path = tmp_path / f"events.{form}"
    path.write_bytes(packed)
    assert "is damaged" in sentence(path)


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("orders.parquet", b"PAR1\x15\x04", "a Parquet file"),
        ("orders.zip", b"PK\x03\x04....", "a zip archive"),
        ("orders.zst", b"\x00\x01\x02", "no zst file"),
        ("orders.gz", b"", "no gz file"),
    ],
)
def test_another_format_is_named(tmp_path: Path, name: str, body: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(body)
    assert words in sentence(tmp_path / name)


def test_wrong_paths_give_one_sentence(tmp_path: Path) -> None:
    assert "does not exist" in sentence(tmp_path / "nowhere.jsonl")
    assert "is a directory" in sentence(tmp_path)
    assert "no usable path" in sentence("a\0b")


def test_blank_lines_a_byte_order_mark_and_a_missing_last_newline_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a":1}\r\n\n  \r\n{"a":2}')
    assert lines_of(path) == [b'{"a":1}\r', b'{"a":2}']
    path.write_bytes(b"")
    assert lines_of(path) == []


@pytest.mark.parametrize("form", ["jsonl", "zst", "gz"])
def test_a_very_long_line_is_cut_and_its_neighbours_are_whole(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"e.{form}"
    path.write_bytes(pack(form, b"first\n" + b"x" * (5 * files.LINE_BYTES + 7) + b"\nlast\n"))
    assert [len(line) for line in lines_of(path)] == [5, files.LINE_BYTES, 4]


def test_a_chunk_of_huge_lines_is_closed_early(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes((b"x" * 500_000 + b"\n") * 40)
    chunks = list(read_records(path, max_bytes=2_000_000))
    assert sum(map(len, chunks)) == 40
    assert max(sum(map(len, chunk)) for chunk in chunks) < 2_000_000 + files.BLOCK_BYTES + files.LINE_BYTES


def test_a_zstd_bomb_does_not_fill_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zst"
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    path.write_bytes(b"".join([*(packer.compress(b"\0" * (8 << 20)) for _ in range(20)), packer.flush()]))
    assert [len(line) for line in lines_of(path)] == [files.LINE_BYTES]


text = st.binary(max_size=40).filter(lambda line: b"\n" not in line and line.strip() and line[:1] != files.BOM[:1])


@given(st.lists(text, max_size=60), st.data())
def test_any_division_into_blocks_gives_the_same_lines(lines: list[bytes], data: st.DataObject) -> None:
    body = b"\n".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    blocks = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert [line for chunk in files._lines(iter(blocks)) for line in chunk] == lines


@pytest.mark.parametrize("name", ["e.jsonl", "e.jsonl.zst", "e.jsonl.gz"])
def test_what_is_written_reads_back_and_gives_the_same_bytes_again(tmp_path: Path, name: str) -> None:
    for folder, step in (("a", 7000), ("b", 999)):
        (tmp_path / folder).mkdir()
        with EventWriter(tmp_path / folder / name) as out:
            for start in range(0, len(LINES), step):
                out.write(LINES[start : start + step])
        assert (out.lines, out.size_bytes) == (len(LINES), len(BODY))
        assert lines_of(tmp_path / folder / name) == LINES
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b"old\n")
    with pytest.raises(TypeError), EventWriter(path) as out:
        out.write([b"new", path.read_bytes(), None])  # type: ignore[list-item]  # the wrong type is the point
    assert os.listdir(tmp_path) == ["e.jsonl"]
    assert path.read_bytes() == b"old\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_one_sentence() -> None:
    with pytest.raises(FileError, match="No space left"), EventWriter("/dev/full") as out:
        out.write(LINES)
    with pytest.raises(FileError, match="No space left"), EventWriter("/dev/full") as out:
        out.write(LINES[:1])  # fits the buffer: the disk says no at the end


def test_impossible_targets_are_one_sentence(tmp_path: Path) -> None:
    for target, words in (
        (tmp_path, "is a directory"),
        (tmp_path / "no" / "e.jsonl", "does not exist"),
        ("a\0", "path"),
    ):
        with pytest.raises(FileError, match=words), EventWriter(target):
            pass


def test_standard_output_is_written_and_left_open() -> None:
    stdout = io.BytesIO()
    with EventWriter("-", stdout=stdout) as out:
        out.write([b"a", b"b"])
    assert stdout.getvalue() == b"a\nb\n"
