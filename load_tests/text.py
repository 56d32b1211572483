"""Texts per second of the text encoder, by batch size and cores, what the cache saves, and faster kinds of the model.

In: titles of UCI Online Retail where they lie beside the checkout, otherwise made ones. Out: tables, or ``--json``.
Must not know: anything but `models`. Rule: every figure says wall and CPU seconds, since cores are shared here.

Run: ``python -m load_tests.text`` (``--kinds`` adds bfloat16, int8 and torch.compile).
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from models.forecast import F32
from models.text import TextEncoder, text_of
from models.text_cache import TextCache

UCI = Path(__file__).parents[1].parent / "shared" / "data" / "uci_online_retail" / "online_retail.parquet"
ROWS = (16, 32, 64, 128, 256)
WARM_UP = 64


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=Path, default=UCI, help="Parquet file with a column Description")
    parser.add_argument("--texts", type=int, default=2048, help="how many of the titles")
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2], help="threads of torch")
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS), help="texts per batch")
    parser.add_argument("--kinds", action="store_true", help="also bfloat16, int8 and torch.compile, on one core")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    if min(options.texts, *options.cores, *options.rows) < 1:
        parser.error("texts, cores and rows must be at least 1")
    source, texts = titles(options.titles, options.texts)
    encoder = TextEncoder()
    figures: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, torch {torch.__version__}",
        "source": source,
        "texts": len(texts),
        "speed": [speed(encoder, texts, cores, rows) for cores in options.cores for rows in options.rows],
    }
    torch.set_num_threads(1)
    figures["cache"] = cache(TextEncoder(), texts)
    figures["kinds"] = kinds(encoder, texts) if options.kinds else []
    print(json.dumps(figures) if options.json else _table(figures))


def titles(path: Path, count: int) -> tuple[str, list[str]]:
    """Give different titles and where they are from, an even choice of all, so that lengths are those of the shop."""
    if path.exists():
        told = pl.read_parquet(path, columns=["Description"])["Description"].drop_nulls()
        texts = sorted({text_of(title) for title in told.unique()} - {""})
        return path.name, [texts[at] for at in np.linspace(0, len(texts) - 1, min(count, len(texts))).astype(int)]
    words = ("red", "small", "vintage", "set of 6"), ("glass", "paper", "metal"), ("mug", "lantern", "bunting", "clock")
    made = itertools.islice(itertools.product(*words, range(1, count)), count)
    return "made, the data set is not here", [" ".join(map(str, parts)) for parts in made]


def speed(encoder: TextEncoder, texts: list[str], cores: int, rows: int) -> dict[str, float]:
    """Embed all texts with so many threads and texts per batch."""
    torch.set_num_threads(cores)
    encoder.rows = rows
    wall_s, cpu_s, _ = _timed(lambda: encoder.embed(texts), lambda: encoder.embed(texts[:WARM_UP]))
    return {"cores": cores, "rows": rows, **_rates(len(texts), wall_s, cpu_s)}


def cache(encoder: TextEncoder, texts: list[str]) -> dict[str, float]:
    """Ask a cache for all texts twice: the first time it is empty."""
    encoder.embed(texts[:WARM_UP])
    with tempfile.TemporaryDirectory() as folder:
        first_s, _, _ = _timed(lambda: TextCache(folder, encoder).embeddings(texts))
        again_s, _, _ = _timed(lambda: TextCache(folder, encoder).embeddings(texts))
        stored = sum(path.stat().st_size for path in Path(folder).iterdir())
    return {
        "first_s": round(first_s, 4),
        "again_s": round(again_s, 4),
        "share_saved": round(1 - again_s / first_s, 4),
        "bytes_per_text": round(stored / len(texts)),
    }


def kinds(encoder: TextEncoder, texts: list[str]) -> list[dict[str, Any]]:
    """Compare ways to compute the model on one core: speed, closeness to float32, and what neighbours change."""
    encoder.rows = 64
    reference = encoder.embed(texts)
    return [_kind(name, make, texts, reference) for name, make in KINDS.items()]


def _kind(name: str, make: Callable[[Any], Any], texts: list[str], reference: F32) -> dict[str, Any]:
    kind = TextEncoder()
    kind.rows = 64
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # int8 of torch.ao is deprecated; it is tried here and used nowhere
        start = time.perf_counter()
        kind.__dict__["_model"] = make(kind._model)  # in the place where the loaded model is kept
        kind.embed(texts[:WARM_UP])
        begin_s = time.perf_counter() - start
        wall_s, cpu_s, found = _timed(lambda: kind.embed(texts))
        alone = np.concatenate([kind.embed([text]) for text in texts[:: max(1, len(texts) // 100)]])
    cosine = (found * reference).sum(1) / np.linalg.norm(found, axis=1)
    return {
        "kind": name,
        **_rates(len(texts), wall_s, cpu_s),
        "begin_s": round(begin_s, 1),
        "cosine_least": round(float(cosine.min()), 6),
        "cosine_mean": round(float(cosine.mean()), 6),
        "neighbours_change": float(np.abs(alone - found[:: max(1, len(texts) // 100)]).max()),
    }


def _int8(model: Any) -> Any:
    from torch.ao.quantization import quantize_dynamic  # deprecated: imported where it is tried

    quantised: Any = quantize_dynamic(model, {torch.nn.Linear}, torch.qint8)
    return quantised


KINDS: dict[str, Callable[[Any], Any]] = {
    "float32": lambda model: model,
    "bfloat16": lambda model: copy.deepcopy(model).bfloat16(),
    "int8, dynamic": _int8,
    "compiled": lambda model: torch.compile(model, dynamic=True),
}


def _timed(work: Callable[[], F32], warm_up: Callable[[], object] = lambda: None) -> tuple[float, float, F32]:
    warm_up()
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return time.perf_counter() - wall, time.process_time() - cpu, found


def _rates(count: int, wall_s: float, cpu_s: float) -> dict[str, float]:
    return {"texts_per_s": round(count / wall_s), "texts_per_cpu_s": round(count / cpu_s)}


def _table(figures: dict[str, Any]) -> str:
    lines = [f"{figures['machine']}; {figures['texts']} titles of {figures['source']}"]
    for row in figures["speed"]:
        where = f"{row['cores']} cores, batches of {row['rows']}"
        lines.append(f"{where:28s} {row['texts_per_s']:>7,} texts/s {row['texts_per_cpu_s']:>7,} per CPU second")
    held = figures["cache"]
    lines.append(
        f"cache: first {held['first_s']:.2f} s, again {held['again_s']:.4f} s, {held['share_saved']:.2%} saved, "
        f"{held['bytes_per_text']} bytes a text"
    )
    return "\n".join(lines + [_kind_line(row) for row in figures["kinds"]])


def _kind_line(row: dict[str, Any]) -> str:
    return (
        f"{row['kind']:14s} {row['texts_per_s']:>7,} texts/s {row['texts_per_cpu_s']:>7,} per CPU second; begins after "
        f"{row['begin_s']} s; cosine {row['cosine_least']:.4f} least, {row['cosine_mean']:.4f} mean; neighbours change "
        f"{row['neighbours_change']:.0e}"
    )


if __name__ == "__main__":
    main()
