"""The documents against what they speak of: commands, files, records, figures of memory, pins."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import typer.main
from packaging.requirements import Requirement  # pytest brings it
from typer.core import TyperGroup

from shelftide.cli import app
from streams.coordinator import Coordinator
from streams.decode import decode
from streams.engine import Engine, EngineConfig
from streams.price_alerts import Candidate
from tests.shop_events import DAY, START, Spec, records

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "docs/architecture.md"
DECISIONS = sorted((ROOT / "docs/adr").glob("*.md"))
DOCUMENTS = [
    README,
    ROOT / "CHANGELOG.md",
    ARCHITECTURE,
    ROOT / "docs/features.md",
    ROOT / "docs/metrics.md",
    ROOT / "docs/models.md",
    ROOT / "docs/operations.md",
    ROOT / "docs/settings.md",
    ROOT / "docs/subscribe.md",
    ROOT / "docs/training.md",
    *DECISIONS,
]
FOLDERS = ("shelftide", "streams", "online", "models", "tests", "load_tests")
README_LINES, DECISION_LINES = 150, 40
EXPORT = "uv export --no-hashes --no-emit-project --no-annotate --no-header > constraints.txt"


def git(*arguments: str) -> list[str]:
    """What git says about the repository, a line each."""
    run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode > 1:
        pytest.fail(f"git does not answer: {run.stderr.strip()}")
    return run.stdout.splitlines()


def texts() -> Iterator[tuple[str, str]]:
    """Name and text of every document."""
    return ((str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")) for path in DOCUMENTS)


def spoken(text: str) -> Iterator[str]:
    """Everything a document sets as code: indented lines, and spans between backticks."""
    yield from (line.strip() for line in text.splitlines() if line.startswith("    "))
    yield from (span for span in re.findall(r"`([^`\n]+)`", text))


# ------------------------------------------------------------------------------------------------ commands and files
def commands() -> Iterator[tuple[str, list[str]]]:
    """Command lines of `shelftide` that the documents show: the document, and the words after the program's name."""
    for name, text in texts():
        for code in spoken(text):
            for part in code.split("&&"):
                words = shlex.split(part, posix=False)
                words = words[2:] if words[:2] == ["uv", "run"] else words
                if words[:1] == ["shelftide"] and words[1:] and words[1].isalpha():
                    yield name, words[1:]


def leaves(group: TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Every command that does something: its words, such as `broker up`, and its options."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), {option for param in command.params for option in param.opts}


def test_commands_and_options_that_documents_name_exist() -> None:
    known = dict(leaves(typer.main.get_group(app)))
    seen, unknown = set(), []
    for name, words in commands():
        path = next((tuple(words[:n]) for n in (1, 2) if tuple(words[:n]) in known), ())
        seen.add(path)
        wrong = [word for word in words if word.startswith("--") and word not in known.get(path, ())]
        if not path or wrong:
            unknown.append((name, words[:2], wrong))
    assert unknown == []
    assert seen == set(known), "the README names every command"


def test_modules_that_documents_run_exist() -> None:
    run = {module for _, text in texts() for module in re.findall(r"python -m ([\w.]+)", text)}
    assert "load_tests.decode" in run
    assert [module for module in sorted(run) if not (ROOT / (module.replace(".", "/") + ".py")).exists()] == []


def test_files_that_documents_name_exist() -> None:
    path = re.compile(rf"(?<![\w/.])((?:{'|'.join(FOLDERS)}|docs|\.ci)/[\w./-]*\w)")
    missing = {(name, found) for name, text in texts() for found in path.findall(text) if not (ROOT / found).exists()}
    assert missing == set()


def test_links_lead_somewhere() -> None:
    dead = [
        (document.name, target)
        for document in DOCUMENTS
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8"))
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert dead == []


def test_bare_file_names_in_flow_and_readme_are_files_of_the_packages() -> None:
    known = {Path(name).name for name in annotated()} | {"tasks.py", "alerts.py", "score.py"}
    named = {word for path in (README, ARCHITECTURE) for word in re.findall(r"\b\w+\.py\b", path.read_text("utf-8"))}
    assert named - known == set()


# ------------------------------------------------------------------------------------------------ the tree
def annotated() -> dict[str, str]:
    """Path -> phrase, of the tree in the architecture."""
    block = ARCHITECTURE.read_text(encoding="utf-8").rpartition("## The tree")[2].split("```")[1]
    folder, out = "", {}
    for line in block.splitlines()[1:]:
        if line.endswith("/"):
            folder = line
        elif line.strip():
            name, phrase = line.split(maxsplit=1)
            out[folder + name] = phrase
    return out


def test_the_annotated_tree_is_the_real_one() -> None:
    known = git("ls-files", "--cached", "--others", "--exclude-standard", *(f"{folder}/*" for folder in FOLDERS))
    told, real = set(annotated()), {name for name in known if (ROOT / name).exists()}
    assert {"without a phrase": sorted(real - told), "gone": sorted(told - real)} == {
        "without a phrase": [],
        "gone": [],
    }


# ------------------------------------------------------------------------------------------------ form
def test_the_readme_is_read_in_one_sitting() -> None:
    assert README.read_text(encoding="utf-8").count("\n") <= README_LINES


def test_decisions_are_numbered_short_and_listed() -> None:
    assert [path.name[:4] for path in DECISIONS] == [f"{n:04d}" for n in range(1, len(DECISIONS) + 1)]
    listed = re.findall(r"\(adr/(\S+\.md)\)", ARCHITECTURE.read_text(encoding="utf-8").partition("## Decisions")[2])
    assert listed == [path.name for path in DECISIONS]
    for path in DECISIONS:
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {path.name[:4]} "), path.name
        assert text.count("\n") <= DECISION_LINES, path.name
        assert {"Context", "Decision", "Consequence"} <= set(re.findall(r"^\*\*(\w+)", text, re.MULTILINE)), path.name


def test_nothing_tracked_names_a_registry_or_a_place_of_some_machine() -> None:
    hosts = ["pypi" + ".org", "python" + "hosted", "anaconda" + ".org", "index" + "-url", "find" + "-links"]
    places = ["/ho" + "me/", "/ro" + "ot/", "/Us" + "ers/", f"{ROOT}/", f"{ROOT.parent}/", f"{Path.home()}/"]
    wanted = [word for word in hosts + places if len(word.strip("/")) > 1]
    found = git("grep", "-nIF", *(part for word in wanted for part in ("-e", word)), "--", ".")
    assert found == []


# ------------------------------------------------------------------------------------------------ state and memory
def documented_keys() -> dict[str, str]:
    """Prefix of a state record -> its module, from the table of the architecture."""
    rows = re.findall(r"^\| `(\w+)/[^`]*` \| `([\w/.]+)` \|", ARCHITECTURE.read_text(encoding="utf-8"), re.MULTILINE)
    return dict(rows)


def written_keys() -> set[str]:
    """Prefixes of the records that some busy shops and a coordinator write."""
    found = set()
    for seed in range(4):
        engine = Engine(EngineConfig(max_series=64))
        batch, _ = decode(records(Spec(seed)), clock_ms=START + 400 * DAY)
        batch.tick_ms[:] = np.maximum(batch.time_ms, START)
        engine.process(batch)
        engine.tick(START + 3 * DAY)
        found |= {key.partition("/")[0] for key, _ in engine.changes()}
    coordinator = Coordinator()
    coordinator.offer(
        Candidate("fire", "placeholder", "low", "a", "default", "web", 1, 0.01, "GBP", 5, "e", tick_ms=1000)
    )
    return found | {key.partition("/")[0] for key, _ in coordinator.changes()}


def test_every_state_record_is_documented_and_every_documented_one_is_read() -> None:
    told = documented_keys()
    assert written_keys() - set(told) == set()
    reader = (ROOT / "streams/engine.py").read_text(encoding="utf-8")
    unread = [key for key in told if key != "alerts" and f'"{key}"' not in reader and f'"{key}/' not in reader]
    assert unread == []


def test_the_bytes_of_a_series_are_those_of_the_decision() -> None:
    text = next(path for path in DECISIONS if path.name.startswith("0005")).read_text(encoding="utf-8")
    told = {name: int(count) for name, count in re.findall(r"^\| (\w+) \| (\d+) \|", text, re.MULTILINE)}
    engine = Engine(EngineConfig(max_series=1000))
    panes = engine.panes
    ring = sum(array.itemsize * array.shape[1] for array in panes.ring.values())
    real = {
        "ring": ring, "open": panes.open.row_bytes, "weeks": panes.weeks.row_bytes,
        "outcomes": engine.outcomes.row_bytes, "positions": engine.positions.row_bytes,
        "reorders": engine.replenishment.row_bytes, "lines": engine.prices.lines.row_bytes,
        "runs": engine.price_forecasts.row_bytes,
        "listed": engine.listed.row_bytes, "rates": engine.refresh.table.row_bytes,
        "facts": engine.buckets.series.row_bytes, "other": engine.series.id_seed.itemsize + 1,
    }  # fmt: skip
    assert told == {**real, "sum": sum(real.values())}
    assert panes.row_bytes == real["ring"] + real["open"] + real["weeks"]


# ------------------------------------------------------------------------------------------------ pins
def pins() -> dict[str, str]:
    """Name -> version that holds for this Python and system, from constraints.txt."""
    out = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate():
            out[pin.name.lower()] = str(pin.specifier).removeprefix("==")
    return out


def test_constraints_pin_what_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    differ: dict[str, dict[str, str | None]] = {}
    for name in (Requirement(line).name.lower() for line in asked):
        if pins().get(name) != version(name):
            differ[name] = {"pinned": pins().get(name), "installed": version(name)}
    assert differ == {}, f"write them anew: {EXPORT}"


def test_constraints_hold_pins_alone() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+( ; [\w. '\"<>=!()]+)?", line)] == []
