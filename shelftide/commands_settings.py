"""The command `settings`: which values hold, and where each comes from.

In: options. Out: settings on stdout, secrets as stars.
Must not know: what a setting means. Rule: what is printed is what every other command would work with.
"""

from __future__ import annotations

from typing import Any

from shelftide.options import SettingsFile
from shelftide.report import Json, print_json, print_table


def settings(settings: SettingsFile = None, json: Json = False) -> None:
    """Print the settings that hold, and where each comes from.

    Reads the file of settings, the environment and the secret files. Writes nothing; secrets are shown as stars.

    Values come from an option, an environment variable `SHELFTIDE_…`, a file in `SHELFTIDE_SECRETS_DIR`, the file of
    settings, or the default: the first that has one wins. docs/settings.md describes them all.
    """
    from shelftide.settings_sources import DEFAULT, known_settings, origins, settled, sources

    found = sources(settings, {})
    values, places = settled(found).redacted(), origins(found)
    if json:
        print_json({"settings": values, "sources": places})
        return
    rows = []
    for key in known_settings().values():
        name = ".".join(key)
        place = "" if places[name] == DEFAULT else f"  ({places[name]})"
        rows.append((name, f"{_shown(values, key)}{place}"))
    print_table("settings", rows)


def _shown(values: Any, key: tuple[str, ...]) -> str:
    for name in key:
        values = values[name]
    if isinstance(values, dict):
        return ", ".join(f"{name} {value}" for name, value in values.items()) or "–"
    return "–" if values is None or values == "" else str(values)
