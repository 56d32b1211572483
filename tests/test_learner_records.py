"""Records of what was learned: those of every program before this one are read, and what cannot be read is refused.

`learner_records.json` was written by the first program that gave its records a layout, and must restore for ever: who
changes what lies in the records raises `online.learner.LAYOUT`, reads the layouts before it, and leaves the file as it
is. Should another file be wanted beside it, ``python -m tests.test_learner_records FILE`` writes one.
"""

from __future__ import annotations

import base64
import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from online.learner import LAYOUT, Learner
from streams.engine import Engine, EngineConfig
from streams.state import VERSION, SnapshotError, pack, unpack
from tests.small_shop import DAY, HOUR, MONDAY, Till, order, stock

GOLDEN = Path(__file__).with_name("learner_records.json")
CONFIG = EngineConfig(max_series=32)
KINDS = ("learner/cells/", "learner/sums/", "learner/model/")
DAYS = 30

Records = dict[str, bytes]


def written() -> Engine:
    """A shop of two items over thirty days, of which one sells more and more."""
    till, random = Till(CONFIG), np.random.default_rng(7)
    for day in range(DAYS):
        for hour, sku in enumerate(("TEA", "MUG"), 9):
            at_ms = MONDAY + day * DAY + hour * HOUR
            if not day:
                till.take(stock(at_ms, 900.0, sku))
            till.take(order(at_ms, float(random.poisson(4 + hour + (day if sku == "TEA" else 0))), sku))
    return till.engine


def records_of(engine: Engine) -> Records:
    """Records of its learner."""
    return {key: value for key, value in engine.changes() if value is not None and key.startswith("learner/")}


def facts(learner: Learner) -> dict[str, Any]:
    """What a learner knows, in words that do not depend on how its records are laid out."""
    slots = np.arange(2)
    correction = learner.correction(slots, np.full(2, -1))
    return {
        "summary": learner.summary(),
        "acting": learner.acting(),
        "waiting": [int((cells[:, :, 0] != 0).sum()) for cells in (*learner._cells.cells, *learner._sum_cells.cells)],
        "groups": correction.groups.round(5).tolist(),
        "series": correction.series.round(5).tolist(),
        "levels": [learner.calibration.levels(index)[8].round(6).tolist() for index in range(len(learner.horizons))],
        "sum levels": [learner.sum_calibration.levels(index)[8].round(6).tolist() for index in range(2)],
    }


def write(file: Path) -> None:
    """Write records of this program and what they tell."""
    engine = written()
    told = facts(engine.learning.learner)
    packed = base64.b64encode(zlib.compress(msgspec.msgpack.encode(records_of(engine)), 9)).decode()
    text = json.dumps({"layout": LAYOUT, "facts": told, "records": packed}, separators=(",", ":"))
    file.write_text(f"{text}\n", encoding="utf-8")


def golden() -> tuple[dict[str, Any], Records]:
    """What the file says, and its records."""
    told = json.loads(GOLDEN.read_text(encoding="utf-8"))
    records: Records = msgspec.msgpack.decode(zlib.decompress(base64.b64decode(told["records"])))
    return told, records


def restored(records: Records, **changes: Any) -> Engine:
    """An engine of nothing but these."""
    engine = Engine(EngineConfig(max_series=32, **changes))
    engine.restore(records)
    return engine


def alike(found: Any, wanted: Any) -> bool:
    """Whether two trees of values agree, numbers to a little: sums may be made in another order."""
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(alike(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(alike, found, wanted))
    return bool(found == wanted or (isinstance(wanted, float) and found == pytest.approx(wanted, rel=1e-4, abs=1e-5)))


def test_what_earlier_programs_have_learned_is_read_for_ever() -> None:
    told, records = golden()
    assert {kind for kind in KINDS if any(key.startswith(kind) for key in records)} == set(KINDS)
    found = json.loads(json.dumps(facts(restored(records).learning.learner)))
    assert {name: found[name] for name in told["facts"] if not alike(found[name], told["facts"][name])} == {}
    assert told["facts"]["summary"]["rivals"]["model"]["overall"]["outcomes"] > 100
    assert np.abs(told["facts"]["series"]).max() > 0
    assert min(told["facts"]["waiting"]) > 0
    assert told["layout"] <= LAYOUT


def test_records_that_name_no_layout_are_of_the_first() -> None:
    told, records = golden()
    bare = {key: dict(unpack(key, value)) for key, value in records.items()}
    for payload in bare.values():
        assert payload.pop("layout") == 1
    found = restored({key: pack(payload) for key, payload in bare.items()})
    assert alike(found.learning.learner.summary(), told["facts"]["summary"])


def test_a_program_reads_what_it_writes_itself() -> None:
    engine = written()
    again = restored(records_of(engine))
    assert facts(again.learning.learner) == facts(engine.learning.learner)


def versioned(key: str, value: bytes) -> bytes:
    return msgspec.msgpack.encode([VERSION + 1, unpack(key, value)])


def cut(key: str, value: bytes) -> bytes:
    return value[:-3]


def other(key: str, value: bytes) -> bytes:
    return pack({**unpack(key, value), "layout": LAYOUT + 1})


def poorer(key: str, value: bytes) -> bytes:
    payload = unpack(key, value)
    return pack({name: one for name, one in payload.items() if name not in ("cells", "weeks")})


def shorter(key: str, value: bytes) -> bytes:
    """An array that lacks a byte, as no program writes it."""
    payload = unpack(key, value)
    if "cells" in payload:
        return pack({**payload, "cells": payload["cells"][:-1]})
    return pack({**payload, "reads": {**payload["reads"], "counts": payload["reads"]["counts"][:8]}})


BROKEN: dict[str, tuple[Callable[[str, bytes], bytes], str]] = {
    "foreign version": (versioned, f"has version {VERSION + 1}, this program reads"),
    "cut": (cut, "is damaged: "),
    "no record": (lambda key, value: pack([1, 2]), "is damaged: "),
    "another layout": (other, f"has layout {LAYOUT + 1}, this program reads"),
    "a part is missing": (poorer, "is damaged: "),
    "an array is too short": (shorter, "is damaged: "),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_be_read_is_refused_in_a_sentence(kind: str, what: str) -> None:
    _, records = golden()
    key = next(key for key in records if key.startswith(kind))
    spoil, words = BROKEN[what]
    with pytest.raises(SnapshotError) as caught:
        restored({**records, key: spoil(key, records[key])})
    said = str(caught.value)
    assert said.startswith(f"state record {key!r} {words}")
    assert said.endswith(("; use the program that wrote it, or start a new application id",
                          "; restore from another replica"))  # fmt: skip
    assert "\n" not in said


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_is_learned_foreign_records_are_refused_as_well(kind: str) -> None:
    _, records = golden()
    key = next(key for key in records if key.startswith(kind))
    with pytest.raises(SnapshotError, match="has layout"):
        restored({key: other(key, records[key])}, learning=False)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
