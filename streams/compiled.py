"""Kernels: functions over arrays as machine code, compiled by numba beside the program, and used once they are there.

In: functions decorated with `kernel`. Out: `loaded`, the kernels that can be used now, or None.
Must not know: what a kernel does. Rules: whoever asks has a way without kernels that gives the same; nothing here is
imported by a command that needs no speed, and nothing raises where numba is missing or broken.

Compiling takes many seconds of a core, so the machine code is kept: beside the source where that can be written,
otherwise in the user's cache. Its folder is named after a digest of all sources of kernels, because numba looks at the
file of a function alone, and not at the files of those that it calls.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

_MODULES = ("streams.hashing", "streams.plain_records", "streams.kernels")
"""Modules with kernels, in the order in which they need each other."""

F = TypeVar("F", bound=Callable[..., Any])


class _Loading:
    """What is loaded."""

    def __init__(self) -> None:
        self.made: SimpleNamespace | None = None
        self.kernels: SimpleNamespace | None = None  # what is made, or None where the plain way is to be gone
        self.reason: str | None = None


_STATE = _Loading()


def loaded() -> Any:
    """The kernels by name, or None while there are none: then the plain way is to be gone.

    Examples
    --------
    >>> loaded() is None or callable(loaded().parse)
    True
    """
    return _STATE.kernels


def load() -> str | None:
    """Compile the kernels, or take them from the cache; why there are none comes back, None where there are.

    Not for two threads at once.

    Examples
    --------
    >>> import os
    >>> reason = load() if os.environ.get("SHELFTIDE_COMPILE") == "1" else None
    """
    if _STATE.kernels is None and _STATE.reason is None:
        try:
            _STATE.made = _STATE.made or _compile()
            _STATE.kernels = _STATE.made
        except Exception as error:  # numba missing, broken, switched off, or of another mind
            _STATE.reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return _STATE.reason


def unload() -> None:
    """Go the plain way again: for tests and measurements that compare both."""
    _STATE.kernels = _STATE.reason = None


def _compile() -> SimpleNamespace:
    if sys.byteorder != "little":
        raise RuntimeError("kernels read words as little-endian machines have them")
    found: dict[str, Any] = {}
    for name in _MODULES:
        module = importlib.import_module(name)
        for entry, signature in module.ENTRIES.items():
            function = getattr(module, entry)
            function.compile(signature)
            function.disable_compile()  # another signature is a mistake of ours: it must not cost seconds
            found[entry] = function
    return SimpleNamespace(**found)


def kernel(function: F) -> F:
    """Decorate a function that numba compiles, without the interpreter's lock, when `load` asks for it.

    Examples
    --------
    >>> @kernel
    ... def twice(n):
    ...     return 2 * n
    >>> twice.py_func(4)
    8
    """
    import numba

    folder, before = _folder(), numba.config.CACHE_DIR  # type: ignore[attr-defined]
    made: Any = numba.njit(nogil=True, error_model="numpy")(function)
    if folder is not None:
        try:
            numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
            made.enable_caching()
        except (RuntimeError, OSError):
            pass  # compiled anew in each process
        finally:
            numba.config.CACHE_DIR = before  # type: ignore[attr-defined]
    return made  # type: ignore[no-any-return]


_FOLDER: list[Path | None] = []


def _folder() -> Path | None:
    """Where machine code is kept; None where nothing can be written."""
    if not _FOLDER:
        here = Path(__file__).parent
        digest = hashlib.sha256()
        for name in _MODULES:
            digest.update((here / f"{name.rpartition('.')[2]}.py").read_bytes())
        user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shelftide"
        roots = (here / "__pycache__" / "kernels", user / "kernels")
        _FOLDER.append(next((own for root in roots if _writable(own := root / digest.hexdigest()[:16])), None))
    return _FOLDER[0]


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
