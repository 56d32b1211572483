"""The text encoder and the text of an item against their promises."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

from models.forecast import ForecastError
from models.text import MOST_REVIEWS, TextEncoder, TextModelError, text_of
from models.text_cache import TextCache

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for one another stand still on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def encoder(_one_thread: None) -> TextEncoder:
    return TextEncoder()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, encoder: TextEncoder) -> Path:
    """A folder with a tiny random encoder of another width, and the tokenizer of the default."""
    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(5)
    config = BertConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertModel(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(encoder.path / name, folder)
    return folder


@pytest.fixture
def copied(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "model"))


# --- the text of an item


def test_the_text_of_an_item_is_what_is_there_with_the_most_telling_first() -> None:
    text = text_of("RED MUG\t", " for  tea\n", "Acme", "kitchen/mugs", ["good", None, "", "broke"])
    assert text == "RED MUG. Acme. kitchen/mugs. for tea. good. broke"
    assert text_of(None) == text_of("", " ", None, "\n", [None, ""]) == ""


def test_no_part_outgrows_its_bound() -> None:
    text = text_of("mug " * 9000, "x" * 60_000, "b" * 999, "c" * 999, ["review " * 999] * 99)
    assert len(text) < 2000
    assert text.count("review review") <= text.count("review")
    assert len(text.split(". ")) == 4 + MOST_REVIEWS
    assert text.startswith("mug mug")
    assert " mu." not in text


def test_control_and_format_characters_leave_no_trace() -> None:
    assert text_of("red\x00 mu\u200bg\u2028\u00a0set\ud800") == "red mug set"
    assert text_of("Tasse à café 紅茶 ☕") == "Tasse à café 紅茶 ☕"


@given(st.text(), st.text(), st.lists(st.text(), max_size=8))
def test_any_text_is_encodable_and_on_one_line(title: str, description: str, reviews: list[str]) -> None:
    text = text_of(title, description, None, None, reviews)
    text.encode()  # raises where it cannot
    assert text == " ".join(text.split())


# --- the encoder


def test_like_items_lie_closer_than_unlike_ones(encoder: TextEncoder) -> None:
    mug, cup, hose, pipe = encoder.embed(["red mug", "crimson cup", "garden hose", "watering pipe for the yard"])
    assert mug @ cup > mug @ hose + 0.2
    assert hose @ pipe > hose @ cup + 0.2


def test_rows_have_length_one_and_are_those_of_the_model_card(encoder: TextEncoder) -> None:
    texts = ["This is an example sentence", "Each sentence is converted"]
    tokenizer, model = (
        kind.from_pretrained(encoder.path, local_files_only=True) for kind in (AutoTokenizer, AutoModel)
    )
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**tokens)[0]
    weight = tokens["attention_mask"].unsqueeze(-1).expand(hidden.size()).float()
    mean = (hidden * weight).sum(1) / torch.clamp(weight.sum(1), min=1e-9)
    expected = torch.nn.functional.normalize(mean, p=2, dim=1).numpy()
    found = encoder.embed(texts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_nothing_to_read_is_a_row_of_zeros(encoder: TextEncoder) -> None:
    found = encoder.embed(["", None, "  \n\t", "\x00\u200b", "mug"])
    assert not found[:4].any()
    assert found[4].any()
    assert encoder.embed([]).shape == (0, encoder.width)


def test_neighbours_order_and_repeats_change_no_row(encoder: TextEncoder) -> None:
    texts = [f"item {n} " + "of blue glass " * (n % 15) for n in range(80)]
    together = encoder.embed(texts)
    np.testing.assert_array_equal(encoder.embed(texts), together)
    np.testing.assert_allclose(encoder.embed(texts[::-1])[::-1], together, atol=1e-5)
    alone = np.concatenate([encoder.embed([text]) for text in texts[:20]])
    np.testing.assert_allclose(alone, together[:20], atol=1e-5)


def test_long_and_strange_texts_are_read_up_to_the_limit(encoder: TextEncoder) -> None:
    strange = [
        "紅茶 " * 30_000,
        "x" * 100_000,
        "🫖" * 25_000,
        "mug " * 25_000,
        "a\ud800b",
        "[SEP] [PAD] [MASK]",
        "ß" * 50,
    ]
    found = encoder.embed(strange)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert encoder.tokens == 256
    np.testing.assert_allclose(found[3], encoder.embed(["mug " * 254])[0], atol=1e-5)


def test_control_tokens_in_a_text_are_text(encoder: TextEncoder) -> None:
    tokens = encoder._tokenised(["[SEP] [PAD] mug [CLS]"])[0]
    assert tokens.count(encoder._tokenizer.sep_token_id) == tokens.count(encoder._tokenizer.cls_token_id) == 1
    assert encoder._tokenizer.pad_token_id not in tokens


def test_another_folder_gives_another_model(small: Path, encoder: TextEncoder, copied: Path) -> None:
    other = TextEncoder(small, rows=2)
    assert (other.width, other.embed(["a", "b c", "d e f"]).shape) == (24, (3, 24))
    assert other.digest != encoder.digest
    assert TextEncoder(str(copied)).digest == other.digest
    (copied / "vocab.txt").write_text("changed")
    assert TextEncoder(copied).digest != other.digest


def refusal(folder: Path) -> str:
    with pytest.raises(TextModelError) as told:
        TextEncoder(folder).embed(["mug"])
    message = str(told.value)
    assert isinstance(told.value, ForecastError)
    assert str(folder) in message
    assert "\n" not in message
    assert message.endswith(".")
    return message


def test_a_folder_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    assert "There is no folder" in refusal(tmp_path / "nowhere")
    assert "has no weights" in refusal(tmp_path)


def test_pickled_weights_are_refused(copied: Path) -> None:
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    assert "pickled weights only" in refusal(copied)


def test_damaged_weights_are_refused(copied: Path) -> None:
    weights = copied / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refusal(copied)
    weights.write_bytes(b"")
    assert "damaged" in refusal(copied)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", "{"),
        ("config.json", '{"model_type": "no-such-model"}'),
        ("config.json", '{"model_type": "x", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}'),
        ("tokenizer.json", "[]"),
        ("sentence_bert_config.json", "["),
    ],
)
def test_broken_settings_are_refused(copied: Path, name: str, text: str) -> None:
    (copied / "evil.py").write_text("raise SystemExit('code of the folder ran')")
    (copied / name).write_text(text)
    assert "is not a text encoder that can be read" in refusal(copied)


def test_weights_of_another_shape_are_refused_and_not_filled_with_chance(copied: Path) -> None:
    config = copied / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 1', '"num_hidden_layers": 2'))
    assert "are missing" in refusal(copied)


def test_weights_that_give_no_numbers_are_refused(copied: Path) -> None:
    model = BertModel.from_pretrained(copied)
    with torch.no_grad():
        model.embeddings.LayerNorm.weight.fill_(float("nan"))
    model.save_pretrained(copied)
    assert "finite numbers" in refusal(copied)


def test_an_unknown_device_and_an_empty_batch_are_refused(small: Path) -> None:
    with pytest.raises(TextModelError, match="'abacus'"):
        TextEncoder(small, device="abacus")
    with pytest.raises(ValueError, match="rows is 0"):
        TextEncoder(small, rows=0)


def test_no_network_is_tried() -> None:
    code = """
import socket, sys
tried = []
sys.addaudithook(lambda event, what: tried.append(event) if event.startswith(("socket.", "urllib.")) else None)
from models.text import TextEncoder, TextModelError
assert TextEncoder().embed(["red mug"]).any()
try:
    TextEncoder("sentence-transformers/all-MiniLM-L6-v2")
except TextModelError:
    print([event for event in tried if event not in ("socket.__new__", "socket.gethostname")])
socket.getaddrinfo("localhost", 1)
print(tried[-1])
"""
    command = [sys.executable, "-c", code]
    runs = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": flag}
        )
        for flag in "01"
    ]
    told = [run.communicate(timeout=600)[0].split() for run in runs]
    assert told == [["[]", "socket.getaddrinfo"]] * 2


# --- with the cache


def test_a_first_answer_is_what_every_later_one_is(tmp_path: Path, encoder: TextEncoder) -> None:
    texts = ["red mug", "crimson cup", "garden hose"]
    first = TextCache(tmp_path, encoder).embeddings(texts)
    np.testing.assert_array_equal(TextCache(tmp_path, encoder).embeddings(texts), first)
    exact = encoder.embed(texts)
    assert first.dtype == np.float32
    assert ((first * exact).sum(1) / np.linalg.norm(first, axis=1) > 0.999999).all()
