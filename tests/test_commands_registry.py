"""`shelftide models` and the card that `train` writes: what each prints, what it changes, how wrong usage ends."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import typer.main
from typer.core import TyperGroup

from models.crew import Net
from models.encoder import load
from models.model_folder import CARD, Card, read_model
from models.named import SHIPPED
from models.pretrain import CORPUS_SEED
from models.recipe import Recipe
from shelftide.cards import card_bytes, commit, write_card
from shelftide.cli import app, run
from tests.program import finished
from tests.test_finetune import write_task
from tests.test_registry import net

Capture = pytest.CaptureFixture[str]


def trained(folder: Path, created_ms: int = 0, **more: Any) -> Path:
    """What `train --out` leaves: a net in a folder of its own, and a card."""
    net(folder / "0", seed=created_ms)
    card = Card(name="tea-shop", created_ms=created_ms, data="a task", horizon=28, covariates=("promo",), **more)
    (folder / CARD).write_bytes(card_bytes(card))
    return folder


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def two(registry: Path, tmp_path: Path) -> tuple[str, str]:
    """Digests of two models in the registry."""
    one, other = (read_model(trained(tmp_path / f"net{n}", n)) for n in (1, 2))
    for model in (one, other):
        assert run(["models", "add", str(model.place), "--registry", str(registry), "--json"]) == 0
    return one.digest, other.digest


def told(capsys: Capture, *arguments: str, code: int = 0) -> Any:
    """What a command prints as JSON."""
    capsys.readouterr()
    assert run(["models", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def refused(capsys: Capture, *arguments: str) -> tuple[int, str]:
    """How a command that cannot be done ends: its code, and the one sentence."""
    capsys.readouterr()
    code = run(["models", *arguments])
    shown = capsys.readouterr()
    *notes, last = shown.err.splitlines()
    assert (shown.out, len(notes) <= 1, last[:11]) == ("", True, "shelftide: ")
    return code, last


# -- what the commands do


@pytest.mark.parametrize("command", ["list", "show", "promote", "rollback", "add", "prune"])
def test_help_says_what_a_command_reads_and_writes(command: str, capsys: Capture) -> None:
    assert run(["models", command, "--help"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("Reads", "Writes", "--json", "--registry"))


def test_a_list_names_every_model_the_newest_first_and_marks_the_champion(
    registry: Path, two: tuple[str, str], capsys: Capture
) -> None:
    at = ["--registry", str(registry)]
    assert told(capsys, "list", *at)["champion"] is None
    assert told(capsys, "promote", two[0][:8], *at)["former"] is None
    found = told(capsys, "list", *at)
    assert [(one["digest"], one["champion"]) for one in found["models"]] == [(two[1], False), (two[0], True)]
    assert run(["models", "list", *at]) == 0
    newest, champion = capsys.readouterr().out.splitlines()[1:3]
    assert newest.startswith(f"tea-shop@sha256:{two[1][:12]}  1970-01-01 00:00 UTC")
    assert champion.startswith(f"tea-shop@sha256:{two[0][:12]}  champion; ")


def test_show_prints_the_card_and_every_file_with_its_digest(
    registry: Path, two: tuple[str, str], capsys: Capture
) -> None:
    shown = told(capsys, "show", f"tea-shop@sha256:{two[0][:12]}", "--registry", str(registry))
    folder = registry / "models" / two[0]
    assert (shown["digest"], shown["folder"], shown["champion"]) == (two[0], str(folder), False)
    assert shown["card"] == json.loads((folder / CARD).read_text())
    names = [one["name"] for one in shown["files"]]
    sums = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, check=True, text=True).stdout
    assert [f"{one['sha256']}  {one['name']}" for one in shown["files"]] == sums.splitlines()
    assert [one["bytes"] for one in shown["files"]] == [(folder / name).stat().st_size for name in names]
    assert run(["models", "show", two[0], "--registry", str(registry)]) == 0
    text = capsys.readouterr().out
    assert all(one["sha256"] in text for one in shown["files"])


def test_two_promotions_and_back_give_the_former_bytes(registry: Path, two: tuple[str, str], capsys: Capture) -> None:
    at = ["--registry", str(registry)]
    assert told(capsys, "promote", two[0], *at)["name"] == f"tea-shop@sha256:{two[0][:12]}"
    before = {path: path.read_bytes() for path in (registry / "models" / two[0]).rglob("*") if path.is_file()}
    shown = told(capsys, "show", *at)
    assert told(capsys, "promote", two[1], *at)["former"] == two[0]
    assert told(capsys, "show", *at)["digest"] == two[1]
    assert told(capsys, "rollback", *at)["champion"] == two[0]
    assert told(capsys, "show", *at) == shown
    assert {path: path.read_bytes() for path in before} == before


def test_a_rollback_goes_back_to_the_champion_that_is_named(
    registry: Path, two: tuple[str, str], capsys: Capture
) -> None:
    at = ["--registry", str(registry)]
    for digest in (two[0], two[1], two[0], two[1]):
        told(capsys, "promote", digest, *at)
    assert told(capsys, "rollback", two[0], *at)["former"] == two[1]
    assert told(capsys, "rollback", two[1], *at)["champion"] == two[1]
    assert run(["models", "promote", two[1], *at]) == 0
    assert "is the champion already" in capsys.readouterr().err


def test_pruning_says_what_it_removed_and_spares_champions(
    registry: Path, two: tuple[str, str], tmp_path: Path, capsys: Capture
) -> None:
    at = ["--registry", str(registry)]
    told(capsys, "add", str(trained(tmp_path / "net3", 3)), *at)
    told(capsys, "promote", two[0], *at)
    found = told(capsys, "prune", "--keep", "1", *at)
    assert ([one["digest"] for one in found["removed"]], found["left"]) == ([two[1]], 2)
    assert run(["models", "prune", "--keep", "1", *at]) == 0
    assert "nothing to remove" in capsys.readouterr().err


def test_the_shipped_model_can_be_added_and_is_new_only_once(registry: Path, capsys: Capture) -> None:
    answers = [told(capsys, "add", str(SHIPPED), "--registry", str(registry)) for _ in range(2)]
    assert [one["new"] for one in answers] == [True, False]
    assert answers[0]["name"] == read_model(SHIPPED).name


def test_lists_and_cards_come_without_torch(registry: Path, two: tuple[str, str]) -> None:
    code = (
        "import sys; from shelftide.cli import run; at = ['--registry', sys.argv[1], '--json']; "
        "codes = [run(['models', 'list', *at]), run(['models', 'show', sys.argv[2], *at])]; "
        "print(codes, *[name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(registry), two[0]], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[0, 0]"


@pytest.mark.parametrize("variable", ["XDG_STATE_HOME", "SHELFTIDE_MODEL__REGISTRY"])
def test_the_default_registry_is_that_of_the_settings(variable: str, tmp_path: Path) -> None:
    done = finished("models", "list", "--json", env={"HOME": "/nowhere", variable: str(tmp_path)})
    folder = tmp_path / "shelftide" / "registry" if variable.startswith("XDG") else tmp_path
    assert json.loads(done.stdout) == {"registry": str(folder), "champion": None, "models": []}
    assert list(tmp_path.iterdir()) == []  # reading makes nothing


def test_control_characters_of_a_card_are_shown_and_not_obeyed(registry: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = trained(tmp_path / "odd", recipe={"mode": "\x1b[31mred", "\x1b[2J": "x"})
    told(capsys, "add", str(folder), "--registry", str(registry))
    digest = read_model(folder).digest
    assert [run(["models", *words, "--registry", str(registry)]) for words in (["list"], ["show", digest])] == [0, 0]
    assert "\x1b" not in capsys.readouterr().out


# -- the card that train writes


def context(*words: str) -> typer.Context:
    """The context in which `train` runs when it is called with these words."""
    program = typer.main.get_command(app)
    assert isinstance(program, TyperGroup)
    return cast("typer.Context", program.commands["train"].make_context("train", list(words)))


def test_the_card_of_a_task_says_what_was_fitted_to_what_and_how(tmp_path: Path) -> None:
    task, out = write_task(tmp_path / "Tea shop"), tmp_path / "nets"
    for seed in (1, 2):
        net(out / str(seed - 1), seed=seed)
    choices = [{"mode": "full", "dates": False, "wql": 0.2}, {"mode": "lora", "dates": True, "wql": 0.3}]
    nets = [Net({}, None, "full"), Net({}, SHIPPED, "lora")]
    told_ = context(str(task), "--steps", "2", "--seeds", "2", "--out", str(out), "--add")
    assert write_card(told_, out, task, choices, nets) == read_model(out).name
    card = read_model(out).card
    assert (card.recipe["start"], card.recipe["mode"]) == (f"nothing, {read_model(SHIPPED).name}", "full, lora")
    assert (card.name, card.horizon, card.covariates, card.seeds) == ("tea-shop", 7, ("promo",), (1, 2))
    sums = subprocess.run(["sha256sum", "panel.parquet", "task.json"], cwd=task, capture_output=True, check=True)
    assert all(line.split()[0] in card.data for line in sums.stdout.decode().splitlines())
    assert card.recipe["command"] == shlex.join(["shelftide", "train", str(task), "--seeds", "2", "--steps", "2"])
    assert (card.recipe["steps"], card.recipe["dates"], card.recipe["rate"]) == (2, False, Recipe().rate)
    assert card.recipe["parameters_of_a_net"] == sum(value.numel() for value in load(out / "0").parameters())
    assert card.scores == {"validation wql, mode full, dates false": 0.2, "validation wql, mode lora, dates true": 0.3}
    assert card.commit == commit()


def test_the_card_of_made_up_shops_says_which_they_were(tmp_path: Path) -> None:
    net(tmp_path / "nets" / "0")
    write_card(
        context("--pretrain", "--steps", "1", "--out", "nets"), tmp_path / "nets", None, [], [Net({}, None, "full")]
    )
    card, shipped = read_model(tmp_path / "nets").card, read_model(SHIPPED).card
    assert (card.name, card.data, card.seeds, card.scores) == (shipped.name, shipped.data, shipped.seeds, {})
    assert card.recipe["command"] == "shelftide train --pretrain --steps 1"
    assert (card.recipe["steps"], card.recipe["corpus_seed"]) == (1, CORPUS_SEED)


def test_train_writes_its_card_and_adds_the_model(tmp_path: Path, registry: Path, capsys: Capture) -> None:
    task, out = (
        write_task(tmp_path / "task", days=130),
        tmp_path / "nets",
    )  # too short for a validation: one net is fitted
    arguments = ["train", str(task), "--steps", "2", "--out", str(out), "--add", "--registry", str(registry), "--json"]
    assert run(arguments) == 0
    figures = json.loads(capsys.readouterr().out)
    model = read_model(out)
    assert (figures["model"], figures["added"]["digest"], figures["added"]["new"]) == (model.name, model.digest, True)
    assert read_model(registry / "models" / model.digest).files == model.files


def test_a_folder_to_add_to_is_named_only_with_add(tmp_path: Path, capsys: Capture) -> None:
    assert run(["train", "--pretrain", "--out", str(tmp_path / "o"), "--registry", str(tmp_path)]) == 2
    assert "say both" in capsys.readouterr().err


def test_the_commit_is_that_of_the_checkout() -> None:
    found = commit()
    assert found is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", found)


# -- what a user can get wrong


WRONG_USAGES = [
    ("promote", "Missing argument 'MODEL'"),
    ("add", "Missing argument 'FOLDER'"),
    ("prune", "Missing option '--keep'"),
    ("prune --keep -1", "--keep"),
    ("add {dir}/none", "does not exist"),
    ("add {dir}/bare", "has no card.json"),
    ("show abc", "names no model"),
    ("show ../../x", "names no model"),
    ("show abcdef", "has no model 'abcdef'"),
    ("show", "has no champion yet"),
    ("promote abcdef", "has no model 'abcdef'"),
    ("rollback", "has no former champion"),
    ("rollback {digest}", "is no former champion"),
    ("show other@sha256:{digest}", "name it so"),
    ("list --registry {dir}/file", "cannot be read"),
    ("add {dir}/net1 --registry {dir}/file", "cannot be read"),
    ("add {dir}/net1 --registry /dev/null/x", "cannot be read"),
]


@pytest.mark.parametrize(("usage", "sentence"), WRONG_USAGES)
def test_wrong_usage_ends_in_one_sentence_and_code_2(
    usage: str, sentence: str, registry: Path, two: tuple[str, str], tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "bare").mkdir()
    words = [word.format(dir=tmp_path, digest=two[0]) for word in usage.split()]
    words += [] if "--registry" in words else ["--registry", str(registry)]
    code, said = refused(capsys, *words)
    assert sentence in said
    assert code == 2


def test_a_registry_that_is_not_there_is_empty(tmp_path: Path, capsys: Capture) -> None:
    nowhere = ["--registry", str(tmp_path / "none")]
    assert told(capsys, "list", *nowhere)["models"] == []
    assert told(capsys, "prune", "--keep", "0", *nowhere)["removed"] == []
    assert refused(capsys, "show", *nowhere)[0] == refused(capsys, "promote", "abcdef", *nowhere)[0] == 2
    assert run(["models", "list", *nowhere]) == 0
    assert "no models in" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def flip(at: Path) -> None:
    """Change the last byte of the weights."""
    data = bytearray((at / "0" / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (at / "0" / "model.safetensors").write_bytes(data)


def cut(at: Path) -> None:
    """Lose the second half of the weights."""
    data = (at / "0" / "model.safetensors").read_bytes()
    (at / "0" / "model.safetensors").write_bytes(data[: len(data) // 2])


def foreign(at: Path) -> None:
    """Give the card the form of a later program."""
    told_ = msgspec.json.decode((at / CARD).read_bytes())
    (at / CARD).write_bytes(msgspec.json.encode({**told_, "format": 2}))


DAMAGE = [
    (flip, "was changed after it was added"),
    (cut, "was changed after it was added"),
    (foreign, "has format 2, and this program reads 1"),
]


@pytest.mark.parametrize(("damage", "sentence"), DAMAGE)
def test_a_damaged_model_is_neither_shown_nor_promoted_nor_brought_back(
    damage: Callable[[Path], None], sentence: str, registry: Path, two: tuple[str, str], capsys: Capture
) -> None:
    at = ["--registry", str(registry)]
    told(capsys, "promote", two[0], *at)
    told(capsys, "promote", two[1], *at)
    damage(registry / "models" / two[0])
    for words in (["show", two[0]], ["promote", two[0]], ["rollback"]):
        code, said = refused(capsys, *words, *at)
        assert code == 1, words
        assert sentence in said
    assert told(capsys, "show", *at)["digest"] == two[1]


def test_a_list_goes_on_behind_a_card_that_cannot_be_read(
    registry: Path, two: tuple[str, str], capsys: Capture
) -> None:
    foreign(registry / "models" / two[0])
    found = told(capsys, "list", "--registry", str(registry), code=3)
    assert [one["digest"] for one in found["models"]] == [two[1], two[0]]
    assert "has format 2" in found["models"][1]["fault"]
    assert told(capsys, "prune", "--keep", "1", "--registry", str(registry))["removed"] == []


def test_damage_is_not_added(registry: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = trained(tmp_path / "net1")
    cut(folder)
    code, said = refused(capsys, "add", str(folder), "--registry", str(registry))
    assert (code, "is no encoder of this program" in said) == (1, True)
    assert told(capsys, "list", "--registry", str(registry))["models"] == []


def test_wrong_usage_in_a_process_has_no_traceback(tmp_path: Path) -> None:
    done = finished("models", "rollback", "--registry", str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.count(b"\n") == 1
    assert b"no former champion" in done.stderr


def test_workers_are_told_where_that_is_asked_and_who_cannot_reach_them_is_told_what_to_say_again(
    registry: Path, two: tuple[str, str], capsys: Capture
) -> None:
    at = ["--registry", str(registry)]
    code, words = refused(capsys, "promote", two[0], *at, "--bootstrap", "127.0.0.1:1")
    assert (code, "say --live to tell them" in words) == (2, True)
    told(capsys, "promote", two[0], *at)
    told(capsys, "promote", two[1], *at)
    code, words = refused(capsys, "rollback", *at, "--live", "--bootstrap", "127.0.0.1:1")
    name = f"tea-shop@sha256:{two[0][:12]}"
    assert code == 1
    assert f"say `shelftide models rollback {name} --live`" in words
    assert told(capsys, "rollback", name, *at)["champion"] == two[0], "which changes nothing"
