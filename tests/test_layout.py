"""The shape of the source: sizes, heads of modules, docstrings, and what must not occur in it."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("shelftide", "streams", "online", "models")
PURE = ("streams", "online", "models")
SHELLS = (
    "streams/kafka/",
    "models/executor.py",
    "models/finetune.py",
    "models/named.py",
)  # they own threads, processes, clocks and sockets, and nothing else does
KAFKA = ("streams/kafka/", "tests/", "load_tests/")
FILE_LINES = 450
FUNCTION_LINES = 50

Function = ast.FunctionDef | ast.AsyncFunctionDef


def tracked(*folders: str) -> list[Path]:
    """Python files of folders as git knows them."""
    run = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.fail(f"the layout is that of the repository, and git does not answer: {run.stderr.strip()}")
    return [path for name in run.stdout.split() if name.split("/")[0] in folders and (path := ROOT / name).exists()]


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[Function]:
    """All functions of a file, nested ones too."""
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def place(path: Path, node: ast.AST | None = None) -> str:
    """How a reader finds it."""
    line = f":{getattr(node, 'lineno', 1)}" if node else ""
    return f"{path.relative_to(ROOT)}{line} {getattr(node, 'name', '')}".strip()


def test_no_file_is_so_long_that_a_reader_loses_the_thread() -> None:
    lengths = {place(path): path.read_text(encoding="utf-8").count("\n") for path in tracked(*PACKAGES, "tests")}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = {}
    for path in tracked(*PACKAGES, "tests", "load_tests"):
        for node in functions(path):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            if lines > FUNCTION_LINES:
                long[place(path, node)] = lines
    assert long == {}


def test_every_module_says_what_comes_in_what_goes_out_and_what_it_must_not_know() -> None:
    silent = {}
    for path in tracked(*PACKAGES):
        head = ast.get_docstring(tree(path)) or ""
        asked = ("In:", "Out:", "Must not know:", "Rule") if path.name != "__init__.py" else (".",)
        if missing := [word for word in asked if word not in head]:
            silent[place(path)] = missing
    assert silent == {}


def public(scope: ast.Module | ast.ClassDef) -> Iterator[Function | ast.ClassDef]:
    """Public classes and functions of a module, and public methods of its public classes."""
    for node in scope.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node)


def test_every_public_name_has_a_docstring() -> None:
    bare = [place(path, node) for path in tracked(*PACKAGES) for node in public(tree(path)) if not _documented(node)]
    assert bare == []


def _documented(node: Function | ast.ClassDef) -> bool:
    return bool(ast.get_docstring(node))


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, wherever in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """What a file calls, dotted where it is written so."""
    return ((ast.unparse(node.func), node) for node in ast.walk(tree(path)) if isinstance(node, ast.Call))


def test_tests_use_no_mocks() -> None:
    mocking = [place(path) for path in tracked("tests") for name in imports(path) if "mock" in name.lower()]
    assert mocking == []


def pure() -> list[Path]:
    """Files that know neither clock nor outside: the engine's, not those of its shells."""
    return [path for path in tracked(*PURE) if not place(path).startswith(SHELLS)]


def test_only_the_shells_read_clocks_or_speak_to_the_outside() -> None:
    banned = {"asyncio", "http", "multiprocessing", "pickle", "random", "socket", "threading", "time", "urllib.request"}
    brought = [
        f"{place(path)}: {name}"
        for path in pure()
        for name in imports(path)
        if name in banned or name.split(".")[0] in banned or name.startswith("urllib.request")
    ]
    assert brought == []
    asked = re.compile(r"^hash$|\b(datetime|date)\.(now|utcnow|today)$")
    called = [place(path, call) for path in pure() for name, call in calls(path) if asked.search(name)]
    assert called == []


def test_kafka_is_known_in_one_folder() -> None:
    clients = {"aiokafka", "confluent_kafka", "faust", "kafka", "mode"}
    brought = [
        f"{place(path)}: {name}"
        for path in tracked(*PACKAGES, "tests", "load_tests")
        for name in imports(path)
        if name.split(".")[0] in clients and not place(path).startswith(KAFKA)
    ]
    assert brought == []
