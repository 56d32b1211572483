"""Models by digest: what is added is what is loaded; champions come and go; damage, strangers and kill -9."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import torch

from models.encoder import Encoder, EncoderConfig
from models.model_folder import Card, ModelLoadError
from models.registry import Registry, RegistryError

ADD_FOR_EVER = """
import sys
from pathlib import Path
from models.model_folder import Card
from models.registry import Registry
registry, nets, n = Registry(Path(sys.argv[1])), Path(sys.argv[2]), 0
while True:
    n += 1
    digest = registry.add(nets, Card(name="retail-1", created_ms=n, data="made up", horizon=28))
    registry.promote(digest)
    print(digest, flush=True)
"""


def net(folder: Path, seed: int = 0) -> Path:
    """An encoder's folder."""
    torch.manual_seed(seed)
    Encoder(EncoderConfig(("promo",), hidden=16, blocks=1)).save_pretrained(folder)
    return folder


def card(created_ms: int = 0) -> Card:
    return Card(name="retail-1", created_ms=created_ms, data="made up", horizon=28, covariates=("promo",))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def test_what_is_added_is_what_is_loaded(registry: Registry, tmp_path: Path) -> None:
    digest = registry.add(net(tmp_path / "a"), card())
    assert registry.add(tmp_path / "a", card()) == digest
    (loaded,) = registry.load(digest[:8])
    kept = Encoder.from_pretrained(tmp_path / "a").state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in loaded.state_dict().items())
    (entry,) = registry.list()
    assert entry.name == registry.show(digest).name == f"retail-1@sha256:{digest[:12]}"


def test_several_nets_are_one_model(registry: Registry, tmp_path: Path) -> None:
    for number in range(3):
        net(tmp_path / "several" / str(number), seed=number)
    assert len(registry.load(registry.add(tmp_path / "several", card()))) == 3


def test_a_rollback_brings_back_the_former_bytes(registry: Registry, tmp_path: Path) -> None:
    one, two = (registry.add(net(tmp_path / str(n), seed=n), card(n)) for n in (1, 2))
    assert registry.champion() is None
    registry.promote(one)
    before = dict(registry.show().files)
    assert (registry.promote(two).former, registry.champion()) == (one, two)
    assert registry.rollback().champion == one
    assert dict(registry.show().files) == before
    with pytest.raises(RegistryError, match="no former champion"):
        registry.rollback()


def test_pruning_spares_the_newest_and_former_champions(registry: Registry, tmp_path: Path) -> None:
    digests = [registry.add(net(tmp_path / str(n), seed=n), card(n)) for n in range(5)]
    registry.promote(digests[0])
    registry.promote(digests[1])
    assert set(registry.prune(keep=1)) == {digests[2], digests[3]}
    assert {entry.digest for entry in registry.list()} == {digests[0], digests[1], digests[4]}


def flip(at: Path) -> None:
    """Change the last byte of the weights."""
    data = bytearray((at / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (at / "model.safetensors").write_bytes(data)


def link(at: Path) -> None:
    """Put a link where the configuration was."""
    elsewhere = at.parents[2] / "elsewhere.json"
    (at / "config.json").rename(elsewhere)
    (at / "config.json").symlink_to(elsewhere)


def lose(at: Path) -> None:
    (at / "model.safetensors").unlink()


def pickled(at: Path) -> None:
    (at / "model.bin").write_bytes(b"x")


def foreign(at: Path) -> None:
    (at / "card.json").write_text(json.dumps({"format": 99}))


DAMAGE = [
    (flip, "was changed after it was added"),
    (lose, "is missing"),
    (pickled, "is no part of a model"),
    (link, "is a link"),
    (foreign, "has format 99, and this program reads 1"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGE)
def test_damage_is_told_in_a_sentence_and_never_loaded(
    registry: Registry, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    digest = registry.add(net(tmp_path / "a"), card())
    damage(registry.folder / "models" / digest)
    with pytest.raises(ModelLoadError, match=words) as told:
        registry.load(digest)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("model", "words"), [("zz", "names no model"), ("abcdef", "has no model"), ("", "names no")])
def test_a_model_that_is_not_there_is_told(registry: Registry, model: str, words: str) -> None:
    with pytest.raises(RegistryError, match=words):
        registry.show(model)


def test_another_kind_of_model_is_not_kept(registry: Registry, tmp_path: Path) -> None:
    told = json.loads((net(tmp_path / "a") / "config.json").read_text())
    (tmp_path / "a" / "config.json").write_text(json.dumps(told | {"model_type": "bert"}))
    with pytest.raises(ModelLoadError, match="is a model of kind 'bert'"):
        registry.add(tmp_path / "a", card())
    assert list(registry.list()) == []


def test_kill_9_leaves_every_model_whole_and_a_champion_that_loads(registry: Registry, tmp_path: Path) -> None:
    nets, rng = net(tmp_path / "a"), Random(5)
    for _ in range(2):
        command = [sys.executable, "-c", ADD_FOR_EVER, str(registry.folder), str(nets)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            said = [writer.stdout.readline().strip()]
            time.sleep(rng.uniform(0.0, 0.3))
            writer.kill()
            said += writer.stdout.read().split()
        whole = [line for line in said if len(line) == 64]
        assert {entry.digest for entry in registry.list()} >= set(whole)
        assert all(registry.show(entry.digest) for entry in registry.list())
        assert registry.load()
