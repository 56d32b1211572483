"""Where settings come from: options, the environment, secret files, a TOML file, defaults; the first that has one wins.

In: a file or its name in the environment, options of a command. Out: `Settings`, and what each value came from.
Must not know: what a setting means. Rule: nothing that is meant for this program is passed over in silence, and no
sentence shows a secret.

    SHELFTIDE_TIME_ZONE=Asia/Tokyo                      time_zone
    SHELFTIDE_KAFKA__BOOTSTRAP_SERVERS=kafka-1:9092     bootstrap_servers of [kafka]
    SHELFTIDE_SETTINGS=shop.toml                        the file, where --settings names none
    SHELFTIDE_SECRETS_DIR=/run/secrets                  the folder of files such as kafka__sasl_password
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pydantic_settings
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource

from shelftide.settings import Settings, SettingsError

PREFIX = "SHELFTIDE_"
FILE, SECRETS = f"{PREFIX}SETTINGS", f"{PREFIX}SECRETS_DIR"
DEFAULT = "default"

_OPTIONS = {
    "location_time_zones": "--location-time-zone",
    "rates": "--rate",
    "bootstrap_servers": "--bootstrap",
    "topic_prefix": "--prefix",
    "instance_id": "--instance",
}
"""Options that are named unlike their setting."""

_ORCHESTRATED = re.compile(
    r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)=.*|\w+_PORT=\w+://.*", re.DOTALL
)
"""Variables that Kubernetes gives every container of a namespace for a service named after this program."""

_LONGEST_SHOWN = 60
_SECRET_BYTES = 1 << 20

Key = tuple[str, ...]
"""Where a setting stands: its table, if it is in one, and its name."""


@dataclass(frozen=True, slots=True)
class Source:
    """Values of one source, tables inside, and what a sentence calls the place of one."""

    values: dict[str, Any]
    place: Callable[[Key], str]

    def holds(self, key: Key) -> bool:
        """Whether the source has a value, or a table, of this name."""
        value: Any = self.values
        for name in key:
            if not isinstance(value, dict) or name not in value:
                return False
            value = value[name]
        return True


def read_settings(file: Path | None, options: Mapping[str, Any]) -> Settings:
    """Read the settings that hold, from all sources.

    Parameters
    ----------
    file
        A TOML file; None: the one that the environment names, if it does.
    options
        What a command was given, by the names of the settings, tables inside; None: not given.

    Raises
    ------
    SettingsError
        If a file cannot be read, or a setting is unknown or wrong.

    Examples
    --------
    >>> read_settings(None, {"time_zone": "Asia/Tokyo", "bucket": None}).time_zone
    'Asia/Tokyo'
    """
    return settled(sources(file, options))


def sources(file: Path | None, options: Mapping[str, Any]) -> list[Source]:
    """Read all sources, the one that wins first; as `read_settings`."""
    file = Path(os.environ[FILE]) if file is None and os.environ.get(FILE) else file
    folder = os.environ.get(SECRETS)
    return [
        Source(_given(options), lambda key: f"option {_option(key)}"),
        _environment(),
        *([_secret_files(Path(folder))] if folder else []),
        *([Source(_toml(file), lambda key: repr(str(file)))] if file is not None else []),
    ]


def settled(found: list[Source]) -> Settings:
    """Settings of sources, the one that wins first.

    Raises
    ------
    SettingsError
        If a setting is unknown or wrong: its name, its source, and what it must be.
    """
    values: dict[str, Any] = {}
    for source in reversed(found):
        values = _merged(values, source.values)
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(_sentence(error.errors(include_url=False)[0], values, found)) from None


def origins(found: list[Source]) -> dict[str, str]:
    """What the value of every setting came from; names of tables go before a dot."""
    return {
        ".".join(key): next((source.place(key) for source in found if source.holds(key)), DEFAULT)
        for key in known_settings().values()
    }


def known_settings() -> dict[str, Key]:
    """Names as secret files have them, ``kafka__sasl_password``, and the settings they mean."""
    return {"__".join(key): key for key in _keys(Settings)}


def _keys(table: type[BaseModel], head: Key = ()) -> Iterator[Key]:
    for name, field in table.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _keys(kind, (*head, name))
        else:
            yield (*head, name)


# ------------------------------------------------------------------------------------------------ sources
def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that were given: not None, and no table without one that was."""
    plain = {name: _given(value) if isinstance(value, Mapping) else value for name, value in options.items()}
    return {name: value for name, value in plain.items() if value is not None and value != {}}


def _environment() -> Source:
    known = {_variable(key): name for name, key in known_settings().items()}
    found = {}
    for variable, value in os.environ.items():
        if variable in known:
            found[known[variable]] = value
        elif _is_ours(variable) and not _ORCHESTRATED.fullmatch(f"{variable}={value}"):
            raise SettingsError(f"environment variable {variable} is no setting{_nearest(variable, [*known])}")
    set_ = {name: value for name, value in found.items() if value}  # compose passes "" for what is not set
    return _strings(set_, lambda key: f"environment variable {_variable(key)}")


def _is_ours(variable: str) -> bool:
    return variable.upper().startswith(PREFIX) and variable not in (FILE, SECRETS)


def _secret_files(folder: Path) -> Source:
    """Files of a folder that are named like settings; others may lie there, unless they look misspelt."""
    known = known_settings()
    tables = tuple(sorted({f"{key[0]}__" for key in known.values() if len(key) > 1}))
    found = {}
    try:
        for path in sorted(folder.iterdir()):
            if path.name in known:
                with path.open("rb") as file:
                    found[path.name] = file.read(_SECRET_BYTES).decode().rstrip("\r\n")
            elif path.name.startswith(tables):
                raise SettingsError(f"secret file {str(path)!r} is no setting{_nearest(path.name, [*known])}")
    except OSError as error:
        where = error.filename or str(folder)
        raise SettingsError(f"{SECRETS}: {str(where)!r} cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError:
        raise SettingsError(f"secret file {str(path)!r} is no UTF-8 text") from None
    return _strings(found, lambda key: f"secret file {str(folder / '__'.join(key))!r}")


def _strings(named: Mapping[str, str], place: Callable[[Key], str]) -> Source:
    """Values that came as text, by the names of secret files; tables such as `rates` come as JSON."""
    source = EnvSettingsSource(Settings, env_prefix="", env_nested_delimiter="__")
    source.env_vars = named
    try:
        return Source(source(), place)
    except pydantic_settings.SettingsError as error:
        name = re.findall(r'field "(\w+)"', str(error))
        raise SettingsError(f'{place(tuple(name))}: it must be JSON such as {{"NAME": VALUE}}') from None


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{str(file)!r} cannot be read ({error.strerror or error}); check the path") from error
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        raise SettingsError(f"{str(file)!r} is no TOML file ({error})") from error


def _merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Values, with others over them; tables are merged, not replaced."""
    merged = dict(values)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = _merged(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged


# ------------------------------------------------------------------------------------------------ sentences
def _sentence(error: ErrorDetails, values: Mapping[str, Any], found: list[Source]) -> str:
    """What is wrong with one setting, where it stands and what it must be."""
    loc = tuple(str(part) for part in error["loc"])
    name, known = ".".join(loc), known_settings()
    if error["type"] == "extra_forbidden":
        near = _nearest(name, [*map(".".join, known.values()), *Settings.model_fields])
        return f"{_places([loc], found)}unknown field `{name}`{near}"
    problem = _problem(error)
    key = next((loc[:end] for end in (1, 2) if loc[:end] in known.values()), None)
    if key is None:  # a table as a whole: the settings that the sentence names are to blame
        named = [one for one in known.values() if one[: len(loc)] == loc and re.search(rf"\b{one[-1]}\b", problem)]
        return f"{_places(named or ([loc] if loc else []), found)}{f'[{name}] ' if loc else ''}{problem}"
    if error["type"] == "value_error":
        return f"{_places([key], found)}{name}: {problem}"
    shown = "" if _is_secret(key) else f" is {_shown(values, loc)}"
    return f"{_places([key], found)}{name}{shown}; it {problem}"


def _problem(error: ErrorDetails) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] in ("model_type", "dict_type"):
        return "must be a table"
    return re.sub(r"^\w+ should", "must", error["msg"])


def _places(keys: list[Key], found: list[Source]) -> str:
    """The places that values of settings came from, as the head of a sentence."""
    places = (next((source.place(key) for source in found if source.holds(key)), None) for key in keys)
    named = list(dict.fromkeys(place for place in places if place))
    return f"{' and '.join(named)}: " if named else ""


def _shown(values: Any, loc: Key) -> str:
    for name in loc:
        values = values.get(name) if isinstance(values, dict) else None
    text = repr(values)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def _is_secret(key: Key) -> bool:
    table: Any = Settings
    for name in key[:-1]:
        table = table.model_fields[name].annotation
    return SecretStr in get_args(table.model_fields[key[-1]].annotation)


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]}?" if near else "; `shelftide settings` lists them all"


def _variable(key: Key) -> str:
    return PREFIX + "__".join(key).upper()


def _option(key: Key) -> str:
    return _OPTIONS.get(key[-1], "--" + key[-1].replace("_", "-"))
