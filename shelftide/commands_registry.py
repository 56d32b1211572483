"""The commands `models list`, `show`, `promote`, `rollback`, `add`, `prune`: fitted models, and who is the champion.

In: options. Out: a changed registry; what is in it, or was done to it, on stdout.
Must not know: what a model is, or how it is kept. Rule: lists and cards come without torch; only who makes a model the
champion, or adds one, waits for it, for then the model is loaded as a worker would.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shelftide.options import Bootstrap, Prefix, SettingsFile, kafka_options
from shelftide.report import Json, moment, note, print_json, print_table, working

if TYPE_CHECKING:
    from models.model_folder import Card, Model
    from models.registry import Change, Entry, Registry
    from streams.kafka.settings import KafkaSettings

app = typer.Typer(
    help="Keep fitted models by their digest, and choose the champion among them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

UNREADABLE = 3

RegistryFolder = Annotated[
    Path | None,
    typer.Option(
        "--registry", metavar="DIR", help="Folder of models. Default: the setting model.registry, which workers read."
    ),
]
Add = Annotated[bool, typer.Option("--add", help="Put the model into the registry too.")]
MODEL_HELP = "Digest, four or more characters of its beginning, or published name."
Model_ = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)]
MaybeModel = Annotated[str | None, typer.Argument(metavar="[MODEL]", help=f"{MODEL_HELP} Default: the champion.")]
Former = Annotated[str | None, typer.Argument(metavar="[MODEL]", help=f"{MODEL_HELP} Default: the champion before.")]
Trained = Annotated[
    Path,
    typer.Argument(metavar="FOLDER", exists=True, file_okay=False, help="What `shelftide train --out` wrote."),
]
Live = Annotated[
    bool,
    typer.Option(
        "--live",
        help="Tell running workers as well: all shards answer with it from their next commit on. Without it workers "
        "learn of it when they start again.",
    ),
]
Keep = Annotated[int, typer.Option(metavar="N", min=0, help="How many of the newest stay.")]


def registry_at(folder: Path | None) -> Registry:
    """The registry that an option means; without one that of the settings, which workers read."""
    from models.registry import Registry
    from shelftide.settings_sources import read_settings

    return Registry(read_settings(None, {"model": {"registry": folder}}).model.registry.expanduser())


@app.command("list")
def list_models(registry: RegistryFolder = None, json: Json = False) -> int:
    """List the models, the newest first, and which of them is the champion.

    Reads the cards in DIR, and not the weights: `show` does that. Writes nothing.

    Exit codes: 0 ok, 3 a model cannot be read.
    """
    chosen = registry_at(registry)
    entries, champion = chosen.list(), chosen.champion()
    if json:
        told = [_entry_json(entry, champion) for entry in entries]
        print_json({"registry": str(chosen.folder), "champion": champion, "models": told})
    elif entries:
        rows = [(entry.name, _line(entry, champion)) for entry in entries]
        print_table("models", [*rows, ("registry", str(chosen.folder))])
    else:
        note(f"no models in {chosen.folder}; `shelftide train --add` or `shelftide models add` puts one there")
    return UNREADABLE if any(entry.fault for entry in entries) else 0


@app.command("show")
def show(model: MaybeModel = None, registry: RegistryFolder = None, json: Json = False) -> None:
    """Show the card of a model and its files, after every byte was held against the digest.

    Reads the model in DIR. Writes nothing.
    """
    chosen = registry_at(registry)
    found = chosen.show(model)
    champion = found.digest == chosen.champion()
    if json:
        print_json({**_model_json(found), "champion": champion})
    else:
        print_table(f"{found.name}{', the champion' if champion else ''}", _model_rows(found))


@app.command("promote")
def promote(
    model: Model_,
    registry: RegistryFolder = None,
    live: Live = False,
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Make a model the champion: the one that answers where none is named.

    Reads the model in DIR and loads it, as who answers with it would.

    Writes DIR/champion.json. The champions before it can be brought back by `rollback`. With --live also a command to
    the topic engine.command.v1; what became of it stands in engine.model.v1, a record of each shard.
    """
    workers = _workers(live, settings, bootstrap, prefix)
    chosen = registry_at(registry)
    with working(f"loading {model}"):
        change = chosen.promote(model, at_ms=_now_ms())
    _print_change("promoted", chosen, change, _told("promote", chosen, change, workers), json)


@app.command("rollback")
def rollback(
    model: Former = None,
    registry: RegistryFolder = None,
    live: Live = False,
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Bring back the champion before the present one, or an earlier one, byte for byte.

    Reads that model in DIR, and checks every byte of it.

    Writes DIR/champion.json. Champions after it are forgotten as such; their models stay. With --live also a command
    to the topic engine.command.v1; what became of it stands in engine.model.v1, a record of each shard.
    """
    workers = _workers(live, settings, bootstrap, prefix)
    chosen = registry_at(registry)
    change = chosen.rollback(model)
    _print_change("rolled back", chosen, change, _told("rollback", chosen, change, workers), json)


@app.command("add")
def add(folder: Trained, registry: RegistryFolder = None, json: Json = False) -> None:
    """Put a copy of a model into the registry, under its digest.

    Reads FOLDER: `card.json`, and `config.json` and `model.safetensors`, or folders 0, 1, … of these two. The model is
    loaded, and not kept if it cannot be.

    Writes DIR/models/DIGEST. FOLDER stays as it is; a model that is there already does too.
    """
    if not (folder / "card.json").exists():
        raise typer.BadParameter(f"{str(folder)!r} has no card.json; `shelftide train` writes one", param_hint="FOLDER")
    told = added(folder, registry)
    if json:
        print_json(told)
    else:
        print_table("added" if told["new"] else "was there already", _told_rows(told))


@app.command("prune")
def prune(keep: Keep, registry: RegistryFolder = None, json: Json = False) -> None:
    """Remove all models but the newest; the champion, and those that `rollback` can bring back, stay in any case.

    Reads the cards in DIR; a model whose card cannot be read stays too.

    Writes nothing but removes folders in DIR/models.
    """
    chosen = registry_at(registry)
    names = _names(chosen)
    gone = chosen.prune(keep)
    if json:
        removed = [{"digest": digest, "name": _name(digest, names)} for digest in gone]
        print_json({"registry": str(chosen.folder), "removed": removed, "left": len(chosen.list())})
    elif gone:
        print_table("removed", [(_name(digest, names), "") for digest in gone])
    else:
        note(f"nothing to remove in {chosen.folder}: all of {len(names)} stay")


def added(folder: Path, registry: Path | None) -> dict[str, Any]:
    """Put what `train` wrote into a registry; its digest and name come back, and whether it was new there."""
    chosen = registry_at(registry)
    before = _names(chosen)
    with working(f"loading {folder}"):
        digest = chosen.add(folder)
    name = _name(digest, _names(chosen))
    return {"registry": str(chosen.folder), "digest": digest, "name": name, "new": digest not in before}


def _workers(live: bool, settings: Path | None, bootstrap: str | None, prefix: str | None) -> KafkaSettings | None:
    """Where the workers are that are to be told, None where none are."""
    if live:
        from shelftide.settings_sources import read_settings

        return read_settings(settings, kafka_options(bootstrap, prefix)).kafka
    for value, option in ((settings, "--settings"), (bootstrap, "--bootstrap"), (prefix, "--prefix")):
        if value is not None:
            raise typer.BadParameter("says where workers are; say --live to tell them", param_hint=option)
    return None


def _told(what: Literal["promote", "rollback"], chosen: Registry, change: Change, to: KafkaSettings | None) -> str:
    """Id of the command that workers were told by, empty where they were not."""
    if to is None:
        return ""
    from streams.kafka.commands import tell_workers

    with working(f"telling the workers at {to.bootstrap_servers}"):
        return tell_workers(to, what, _name(change.champion, _names(chosen)))


def _print_change(what: str, chosen: Registry, change: Change, command: str, json: bool) -> None:
    names = _names(chosen)
    name, former = _name(change.champion, names), change.former and _name(change.former, names)
    if json:
        told = {"champion": change.champion, "former": change.former, "name": name, "former_name": former,
                "command": command or None}  # fmt: skip
        print_json({"registry": str(chosen.folder), **told})
    elif change.champion == change.former:
        note(f"{name} is the champion already")
    else:
        print_table(what, [("champion", name), ("before", former or "none")])
    if command:
        note(f"workers were told ({command}); each shard says in engine.model.v1 what became of it")


def _names(chosen: Registry) -> dict[str, str]:
    """Published names by digest."""
    return {entry.digest: entry.name for entry in chosen.list()}


def _name(digest: str, names: Mapping[str, str]) -> str:
    return names.get(digest, f"sha256:{digest[:12]}")


def _line(entry: Entry, champion: str | None) -> str:
    """A model in a list: whether it is the champion, when and how it was made, what it is worth."""
    marks = ["champion"] if entry.digest == champion else []
    if entry.card is None:
        return _printable("; ".join([*marks, entry.fault]))
    mode = entry.card.recipe.get("mode")
    told = [moment(entry.card.created_ms), *([str(mode)] if mode else [])]
    scores = [f"{name} {value:.4g}" for name, value in entry.card.scores.items()]
    return _printable("; ".join([*marks, *told, *([", ".join(scores)] if scores else [])]))


def _entry_json(entry: Entry, champion: str | None) -> dict[str, Any]:
    told = {"name": entry.name, "digest": entry.digest, "champion": entry.digest == champion}
    return {**told, "card": entry.card and _card_json(entry.card), "fault": entry.fault or None}


def _card_json(card: Card) -> Any:
    import msgspec

    return msgspec.to_builtins(card)


def _files(model: Model) -> list[dict[str, Any]]:
    """Files of a model with their sizes and digests, as `sha256sum` would print them."""
    from hashlib import sha256

    read = sorted(model.files.items())
    return [{"name": name, "bytes": len(data), "sha256": sha256(data).hexdigest()} for name, data in read]


def _model_json(model: Model) -> dict[str, Any]:
    told = {"name": model.name, "digest": model.digest, "folder": str(model.place)}
    return {**told, "card": _card_json(model.card), "files": _files(model)}


def _model_rows(model: Model) -> list[tuple[str, str]]:
    card = model.card
    rows = [("digest", model.digest), ("folder", str(model.place)), ("made", moment(card.created_ms)),
            ("fitted to", card.data), ("horizon", str(card.horizon)), ("covariates", ", ".join(card.covariates) or "–"),
            ("seeds", ", ".join(map(str, card.seeds)) or "–"), ("commit", card.commit or "not known"),
            ("recipe", "")]  # fmt: skip
    rows += [(f"  {name}", "–" if value is None else str(value)) for name, value in card.recipe.items()]
    rows += [("scores", "" if card.scores else "–")]
    rows += [(f"  {name}", f"{value:.5g}") for name, value in card.scores.items()]
    rows += [("files", "every byte is as the digest says")]
    rows += [(f"  {one['name']}", f"{one['sha256']} {one['bytes']:,} bytes") for one in _files(model)]
    return [(_printable(name), _printable(value)) for name, value in rows]


def _told_rows(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("name", told["name"]), ("digest", told["digest"]), ("registry", told["registry"])]


def _printable(text: str) -> str:
    """A card may come from anywhere: its control characters are shown, not obeyed."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
