"""Other stream engines on the same records: the scripts of the evaluation folder beside the checkout, where it is.

In: names of engines. Out: the command of each, ready to run; or why it is left out.
Must not know: our engine. Rule: versions, scripts and modes are those of the evaluation folder, so that its results and
ours speak of the same thing.
"""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "eval" / "stream"
PEERS = {
    "faust-take": 200_000,
    "faust-table": 50_000,
    "kstreams": None,
    "quix": 200_000,
    "bytewax": 200_000,
    "chunked-rdkafka": None,  # the prototype, without durable state
}
"""Engines and the most records that each gets: the slow ones would take minutes for more."""


class PeerError(Exception):
    """An engine cannot be set up here; one sentence that says why."""


@cache
def _evaluation() -> dict[str, Any]:
    """Names that the evaluation's `run.py` defines: ENGINES, VENVS, HOME, FAUST, python, broker."""
    if not (FOLDER / "run.py").exists():
        raise PeerError("the evaluation folder is not beside the checkout")
    path, sys.dont_write_bytecode, before = list(sys.path), True, sys.dont_write_bytecode
    try:
        return runpy.run_path(str(FOLDER / "run.py"))
    finally:
        sys.path[:], sys.dont_write_bytecode = path, before


def command(name: str) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of an engine, set up where that was not done before.

    Raises
    ------
    PeerError
        If it cannot be set up here.
    """
    known = _evaluation()
    venv, script, mode, _ = known["ENGINES"][name]
    env = {"MODE": mode, "PYTHONPATH": str(FOLDER), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        if venv == "java":
            return _java(known), env
        python = _python(known, venv)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PeerError(f"its setup failed: {error}") from error
    return [python, str(FOLDER / "engines" / script), *(known["FAUST"] if "faust" in script else [])], env


def _python(known: dict[str, Any], venv: str) -> str:
    python = str(known["python"](venv))
    if not Path(python).exists():
        uv = os.environ.get("UV", "uv")
        folder = str(Path(python).parents[1])
        subprocess.run([uv, "venv", "-q", "--python", "3.11", folder], check=True)
        subprocess.run([uv, "pip", "install", "-q", "-p", python, *known["VENVS"][venv].split()], check=True)
    return python


def _java(known: dict[str, Any]) -> list[str]:
    missing = [program for program in ("java", "javac", "mvn") if shutil.which(program) is None]
    if missing:
        raise PeerError(f"there is no {missing[0]} on this machine")
    home = Path(known["HOME"]) / "kstreams"
    jars = known["broker"].jars(
        str(home),
        ("org.apache.kafka", "kafka-streams", "4.1.1"),
        ("com.fasterxml.jackson.core", "jackson-databind", "2.19.2"),
        ("org.slf4j", "slf4j-simple", "1.7.36"),
    )
    source, made = FOLDER / "engines" / "Streams.java", home / "classes" / "Streams.class"
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["javac", "-cp", jars, "-d", str(made.parent), str(source)], check=True)
    options = ["-Xmx2g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{made.parent}:{jars}"]
    return ["java", *options, "Streams"]
