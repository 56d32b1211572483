"""The cache of embeddings beside other processes, kills and damage."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from models.forecast import F32
from models.text_cache import PIECE, TextCache, TextCacheError

ROOT = Path(__file__).parents[1]
WIDTH = 32
ROW_BYTES = 24 + 2 * WIDTH
HEADER_BYTES = 128


class Hashing:
    """Embeds by hashing: exact in float16, at no cost, and it counts what it was asked for."""

    def __init__(self, digest: str = "ab" * 32, width: int = WIDTH) -> None:
        self.digest, self.width = digest, width
        self.asked: list[str | None] = []

    def embed(self, texts: Sequence[str | None]) -> F32:
        self.asked += texts
        return np.stack([self.row(text or "") for text in texts]) if texts else np.empty((0, self.width), np.float32)

    def row(self, text: str) -> F32:
        data = xxhash.xxh3_128_digest(text.encode("utf-8", "replace")) * (self.width // 16)
        return np.frombuffer(data, np.uint8).astype(np.float32) / np.float32(256)


def test_a_text_is_embedded_once(tmp_path: Path) -> None:
    model = Hashing()
    cache = TextCache(tmp_path, model)
    first = cache.embeddings(["mug", "", "vase", None, "mug", "  "])
    assert sorted(filter(None, model.asked)) == ["mug", "vase"]
    np.testing.assert_array_equal(first[[0, 2, 4]], [model.row("mug"), model.row("vase"), model.row("mug")])
    assert not first[[1, 3, 5]].any()
    np.testing.assert_array_equal(cache.embeddings(["vase"]), first[[2]])
    again = Hashing()
    np.testing.assert_array_equal(TextCache(tmp_path, again).embeddings(["mug", "", "vase"]), first[:3])
    assert (len(model.asked), again.asked) == (2, [])
    assert (cache.stats.asked, cache.stats.embedded, cache.stats.damaged, len(cache)) == (3, 2, 0, 2)
    assert cache.embeddings([]).shape == (0, WIDTH)


def test_another_model_or_width_has_another_file(tmp_path: Path) -> None:
    models = [Hashing(), Hashing("cd" * 32), Hashing(width=64)]
    for model in models:
        TextCache(tmp_path, model).embeddings(["mug"])
    assert [len(model.asked) for model in models] == [1, 1, 1]
    assert len(list(tmp_path.glob("text-*.v1"))) == 3
    alike = Hashing("ab" * 8 + "00" * 24)  # the same name, another digest within
    TextCache(tmp_path, alike).embeddings(["mug"])
    assert len(alike.asked) == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.text(alphabet="abc é紅\ud800\x00", max_size=3), max_size=30), max_size=6))
def test_whatever_is_asked_in_whatever_order_is_the_models_answer(calls: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = Hashing()
        caches = [TextCache(folder, model), TextCache(folder, model, most_rows=5)]
        for turn, texts in enumerate(calls):
            found = caches[turn % 2].embeddings(texts)
            for text, row in zip(texts, found, strict=True):
                np.testing.assert_array_equal(row, model.row(text) if text.strip() else np.zeros(WIDTH))


def test_many_rows_are_found_in_pieces_and_by_others(tmp_path: Path) -> None:
    reader, model = TextCache(tmp_path, Hashing()), Hashing()
    texts = [f"item {n}" for n in range(20 * PIECE)]
    writer = TextCache(tmp_path, model)
    for start in range(0, len(texts), 3000):
        writer.embeddings(texts[: start + 3000])
    assert len(model.asked) == len(texts) == len(writer)
    for cache in (writer, reader, TextCache(tmp_path, Hashing())):
        np.testing.assert_array_equal(cache.embeddings(texts), np.stack([model.row(text) for text in texts]))
        assert cache.stats.embedded in (0, len(texts))


def test_a_full_file_keeps_its_newest_half(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = Hashing()
    cache = TextCache(tmp_path, model, most_rows=100)
    late = TextCache(tmp_path, Hashing(), most_rows=100)
    texts = [f"item {n}" for n in range(100)]
    cache.embeddings(texts)
    late.embeddings(texts[:1])
    with caplog.at_level(logging.INFO):
        cache.embeddings(["one more"])
    assert "generation 1 begins with the newest 50 texts" in caplog.text
    assert (len(cache), cache.generation) == (50, 1)
    assert cache.path.stat().st_size == HEADER_BYTES + 50 * ROW_BYTES
    np.testing.assert_array_equal(late.embeddings(texts), [model.row(text) for text in texts])  # still by the old file
    assert late.stats.embedded == 0
    late.embeddings(["one more", *texts[51:]])
    assert (late.stats.embedded, len(late)) == (0, 50)
    many = [f"other {n}" for n in range(250)]
    np.testing.assert_array_equal(cache.embeddings(many), [model.row(text) for text in many])
    assert len(cache) <= 100
    assert cache.embeddings(many[-50:]).any()
    assert len(model.asked) == 351


def test_a_cache_of_no_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="most_rows is 1"):
        TextCache(tmp_path, Hashing(), most_rows=1)


@pytest.mark.parametrize("cut", [1, ROW_BYTES - 1, ROW_BYTES, ROW_BYTES + 30])
def test_a_truncated_file_keeps_its_whole_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture, cut: int) -> None:
    texts = [f"item {n}" for n in range(10)]
    path = TextCache(tmp_path, Hashing()).path
    TextCache(tmp_path, Hashing()).embeddings(texts)
    os.truncate(path, path.stat().st_size - cut)
    model = Hashing()
    cache = TextCache(tmp_path, model)
    assert ("cut off" in caplog.text) == (cut != ROW_BYTES)
    np.testing.assert_array_equal(cache.embeddings(texts), [model.row(text) for text in texts])
    assert len(model.asked) == -(-cut // ROW_BYTES)
    assert TextCache(tmp_path, model).embeddings(texts).any(axis=1).all()
    assert len(TextCache(tmp_path, model)) == 10


@pytest.mark.parametrize("damage", [b"", b"x", b"\0" * 4096, b"another kind of file " * 40])
def test_a_file_without_a_header_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes) -> None:
    first = TextCache(tmp_path, Hashing())
    first.embeddings(["mug"])
    first.path.write_bytes(damage)
    model = Hashing()
    cache = TextCache(tmp_path, model)
    assert "has no readable header: it begins anew" in caplog.text
    np.testing.assert_array_equal(cache.embeddings(["mug"]), [model.row("mug")])
    assert (len(model.asked), len(cache)) == (1, 1)


def test_a_damaged_row_is_embedded_anew_and_only_it(tmp_path: Path) -> None:
    texts = [f"item {n}" for n in range(10)]
    first = TextCache(tmp_path, Hashing())
    first.embeddings(texts)
    data = bytearray(first.path.read_bytes())
    data[HEADER_BYTES + 3 * ROW_BYTES + 40] ^= 1
    data[HEADER_BYTES + 5 * ROW_BYTES + 10] ^= 1  # of its key
    first.path.write_bytes(data)
    model = Hashing()
    cache = TextCache(tmp_path, model)
    for _ in range(2):
        np.testing.assert_array_equal(cache.embeddings(texts), [model.row(text) for text in texts])
    assert model.asked == [texts[3], texts[5]]
    assert cache.stats.damaged == 1  # under a damaged key nobody looks
    assert TextCache(tmp_path, Hashing()).embeddings(texts).any(axis=1).all()


def test_a_file_that_goes_away_comes_again(tmp_path: Path) -> None:
    model = Hashing()
    cache = TextCache(tmp_path, model)
    cache.embeddings(["mug"])
    cache.path.unlink()
    np.testing.assert_array_equal(cache.embeddings(["vase", "mug"]), [model.row("vase"), model.row("mug")])
    assert len(TextCache(tmp_path, model)) >= 1


def test_a_folder_that_cannot_be_used_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TextCacheError, match="cannot be kept in"):
        TextCache(tmp_path / "file" / "cache", Hashing())


def test_a_cache_that_cannot_grow_answers_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = Hashing()
    cache = TextCache(tmp_path / "cache", model)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("in the way")
    for text in ("mug", "vase", "mug"):
        np.testing.assert_array_equal(cache.embeddings([text]), [model.row(text)])
    assert caplog.text.count("cannot be written") == 1


# --- several processes


def _ask(folder: Path, seed: int, calls: int) -> None:
    """Ask for random texts and check each answer; in a process of its own."""
    model, chance = Hashing(), random.Random(seed)
    cache = TextCache(folder, model, most_rows=3000)
    for _ in range(calls):
        texts = [f"item {chance.randrange(4000)}" for _ in range(chance.randrange(1, 200))]
        np.testing.assert_array_equal(cache.embeddings(texts), [model.row(text) for text in texts])
    assert cache.stats.damaged == 0


def _fill(folder: Path) -> None:
    """Append for as long as it lives."""
    cache = TextCache(folder, Hashing(), most_rows=20_000)
    for n in range(10**9):
        cache.embeddings([f"item {os.getpid()} {n} {k}" for k in range(100)])


def test_processes_that_write_and_read_at_once_get_only_right_answers(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    askers = [spawn.Process(target=_ask, args=(tmp_path, seed, 150)) for seed in range(2)]
    for asker in askers:
        asker.start()
    _ask(tmp_path, 99, 150)
    for asker in askers:
        asker.join(120)
    assert [asker.exitcode for asker in askers] == [0, 0]


def test_what_one_process_stores_another_does_not_embed(tmp_path: Path) -> None:
    reader = TextCache(tmp_path, reading := Hashing())
    texts = [f"item {n}" for n in range(700)]
    code = f"""
from tests.test_text_cache import Hashing, TextCache
TextCache({str(tmp_path)!r}, Hashing()).embeddings({texts!r})
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)
    np.testing.assert_array_equal(reader.embeddings(texts), [reading.row(text) for text in texts])
    assert reading.asked == []


def test_a_kill_in_the_middle_of_appending_costs_no_answer(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from tests.test_text_cache import _fill; _fill(Path({str(tmp_path)!r}))"
    chance = random.Random(7)
    for _ in range(4):
        path = TextCache(tmp_path, Hashing()).path
        before = (path.stat().st_ino, path.stat().st_size)
        writer = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
        deadline = time.monotonic() + 120
        while (path.stat().st_ino, path.stat().st_size) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(chance.random() / 5)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        model = Hashing()
        cache = TextCache(tmp_path, model, most_rows=20_000)  # waits for no lock of the dead
        assert len(cache) > 0
        assert (path.stat().st_size - HEADER_BYTES) % ROW_BYTES == 0
        # enough of them that the newest, which alone are kept, are among them however fast the writer was
        texts = [f"item {writer.pid} {n} {k}" for n in range(1000) for k in range(100)]
        np.testing.assert_array_equal(cache.embeddings(texts), [model.row(text) for text in texts])
        assert cache.stats.damaged == 0
        assert cache.stats.embedded < len(texts)
