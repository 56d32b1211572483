"""The reference of settings as a page of Markdown, written from the models themselves.

In: the models. Out: the text of `docs/settings.md`.
Must not know: values, files, the environment. Rule: what the models say of a setting is said here, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from shelftide.settings import Settings
from shelftide.settings_sources import PREFIX

_UNITS = {"_ms": "ms", "_s": "s", "_bytes": "bytes", "_days": "days", "_rows": "rows"}
_KINDS: dict[Any, str] = {Path: "path", SecretStr: "secret"}

_HEAD = """\
# Settings

What can be set, with its unit, its bounds and what holds where nothing is said. This page is written from the models
in `shelftide/settings.py` and `streams/kafka/settings.py`. `shelftide settings` prints the values that hold, and where
each comes from; secrets are stars.

A value is taken from the first of these that has it:

1. an option of the command, such as `--bootstrap`;
2. an environment variable: `SHELFTIDE_` and the name in capitals, with two underscores after the name of a table; one
   that is set to nothing counts as not set; `rates` and `location_time_zones` are JSON;
3. a file in the folder that `SHELFTIDE_SECRETS_DIR` names, called like the setting, with two underscores after the name
   of a table: `kafka__sasl_password`; line ends at its end do not count; other files may lie there;
4. the TOML file that `--settings` or `SHELFTIDE_SETTINGS` names;
5. the default.

A name that is no setting, a value out of bounds, and an environment variable that begins with `SHELFTIDE_` and is none
of these are errors: one sentence, exit code 2. What Kubernetes puts into the environment for a service called
`shelftide` is left alone. All commands read the same settings, whichever of them they need.

```toml
time_zone = "Europe/London"
base_currency = "GBP"

[rates]
EUR = 0.86

[kafka]
bootstrap_servers = "kafka-1:9093,kafka-2:9093"
security_protocol = "SASL_SSL"
sasl_mechanism = "SCRAM-SHA-512"
sasl_username = "shelftide"
sasl_password = "better in a file kafka__sasl_password, or in SHELFTIDE_KAFKA__SASL_PASSWORD"
ssl_ca_file = "/etc/ssl/certs/ca-certificates.crt"
partitions = 8
replication_factor = 3

[worker]
instance_id = "worker-1"
```

`shelftide topics list` says where the topics on Kafka differ from what these settings ask for, and
`shelftide topics apply` makes them so.
"""


def settings_page() -> str:
    """Describe every setting as Markdown tables, in the order of the models."""
    return "\n".join([_HEAD, *_tables(Settings, "", "Keys at the top of the file.")])


def _tables(table: type[BaseModel], head: str, what: str) -> Iterator[str]:
    inner = {name: kind for name, field in table.model_fields.items() if (kind := _table_of(field))}
    variable = (PREFIX + (f"{head}__" if head else "")).upper()
    yield f"## {f'`[{head}]`' if head else 'The shop'}\n"
    yield f"{what} In the environment: `{variable}{next(iter(table.model_fields)).upper()}` and so on.\n"
    yield "| name | values | default | meaning |\n|---|---|---|---|"
    yield from (_row(name, field) for name, field in table.model_fields.items() if name not in inner)
    yield ""
    for name, kind in inner.items():
        yield from _tables(kind, name, table.model_fields[name].description or "")


def _table_of(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _row(name: str, field: FieldInfo) -> str:
    return f"| `{name}` | {_values(name, field)} | {_default(field)} | {field.description} |"


def _values(name: str, field: FieldInfo) -> str:
    """What a setting may be, with its unit."""
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType] or [field.annotation]
    kind = field.annotation if get_origin(field.annotation) in (Literal, dict) else kinds[0]
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is dict:
        return "table"
    least = next((bound.ge for bound in field.metadata if isinstance(bound, Ge)), None)
    most = next((bound.le for bound in field.metadata if isinstance(bound, Le)), None)
    if least is None or most is None:
        return _KINDS.get(kind, "text")
    unit = next((f" {unit}" for end, unit in _UNITS.items() if name.endswith(end)), "")
    return f"{least:,} to {most:,}{unit}"


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.default_factory is not None or value is None or value == {}:
        return "–"
    return f"`{value!r}`" if value == "" else f"`{value}`"
