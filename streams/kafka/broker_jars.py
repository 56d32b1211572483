"""The jars of Apache Kafka and the Java that runs them: found, or fetched once into a cache.

In: the machine's Java and Maven. Out: the path of `java`, the folder of the jars.
Must not know: how a broker is set up. Rule: the cache holds all jars of a version or none.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KAFKA_VERSION = "4.1.1"
"""The version of the published jars: the one that the engine was measured on."""

JAVA_VERSION = 17
"""The oldest Java that a broker of Kafka 4 runs on."""

FETCH_S = 600
"""How long Maven may take on a slow line; the jars have 43 MB."""

_POM = f"""<project><modelVersion>4.0.0</modelVersion>
<groupId>shelftide</groupId><artifactId>broker</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>
</dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
</dependencies></project>
"""


class BrokerError(Exception):
    """A broker cannot be started, found or stopped; one sentence that says what, where and what to do.

    Attributes
    ----------
    wrong_input
        Whether another folder, port or option would have done; otherwise the machine lacks or refuses something.
    """

    def __init__(self, sentence: str, *, wrong_input: bool = False) -> None:
        super().__init__(sentence)
        self.wrong_input = wrong_input


def cache_folder() -> Path:
    """Where programs of this user keep what can be fetched again, as the XDG base directories have it."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / "shelftide"


def java_program() -> str:
    """The path of a Java that runs Kafka: that of `JAVA_HOME`, or the first on the path.

    Raises
    ------
    BrokerError
        If there is none, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None:
        raise BrokerError(f"there is no java on this machine's path; install Java {JAVA_VERSION} or newer")
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=60).stderr  # noqa: S603 - the user's own Java
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BrokerError(f"{java!r} does not run ({error}); set JAVA_HOME to a Java {JAVA_VERSION}") from None
    found = re.search(r'version "(?:1\.)?(\d+)', told)
    if found is None or int(found[1]) < JAVA_VERSION:
        said = f"Java {found[1]}" if found else "no Java that says its version"
        raise BrokerError(f"{java!r} is {said}, and Kafka needs {JAVA_VERSION} or newer; install it or set JAVA_HOME")
    return java


def jar_folder(cache: Path | None = None) -> Path:
    """The folder of Kafka's jars, fetched by Maven where they are missing.

    Raises
    ------
    BrokerError
        If Maven is missing or cannot fetch them, or the cache cannot be written.
    """
    cache = cache_folder() if cache is None else cache
    jars = cache / f"kafka-{KAFKA_VERSION}"
    if jars.is_dir():
        return jars
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache / "lock"):  # a second process waits, and then finds them
            if not jars.is_dir():
                _fetch(cache, jars)
    except OSError as error:
        raise BrokerError(
            f"Kafka's jars cannot be kept in {str(cache)!r} ({error.strerror}); make room or set XDG_CACHE_HOME"
        ) from None
    return jars


def _fetch(cache: Path, jars: Path) -> None:
    """Let Maven fill a folder beside the wanted one; it takes the name when it is complete."""
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError("Kafka's jars are fetched by Maven, and no mvn is on this machine's path; install Maven")
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as folder:
        (Path(folder) / "pom.xml").write_text(_POM, encoding="utf-8")
        wanted = ["dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=jars"]
        try:
            done = subprocess.run(  # noqa: S603 - the user's own Maven
                [maven, "-q", "-B", *wanted], cwd=folder, capture_output=True, text=True, check=False, timeout=FETCH_S
            )
        except subprocess.TimeoutExpired:
            raise BrokerError(f"Maven has not fetched Kafka's jars in {FETCH_S} s; check the network") from None
        if done.returncode:
            raise BrokerError(f"Maven cannot fetch Kafka's jars ({_told(done.stdout)}); check the network")
        (Path(folder) / "jars").rename(jars)


def _told(output: str) -> str:
    """The first thing that Maven calls an error."""
    errors = [line.removeprefix("[ERROR]").strip() for line in output.splitlines() if line.startswith("[ERROR]")]
    return (errors or ["it does not say why"])[0][:300]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file for this process alone; another that wants it waits."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
