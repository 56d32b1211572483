"""A folder that appears under its name only once it is complete.

In: its name. Out: a folder beside it to write into, renamed at the end and removed on an error.
Must not know: what is written. Rule: who is killed leaves at most `.NAME.part`, and the next with that name removes it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give a folder to write into, which takes the name at the end.

    Examples
    --------
    >>> import tempfile
    >>> out = Path(tempfile.mkdtemp()) / "nets"
    >>> with whole_folder(out) as part:
    ...     _, existed = (part / "card.json").write_text("{}"), out.exists()
    >>> existed, [path.name for path in out.iterdir()], len(list(out.parent.iterdir()))
    (False, ['card.json'], 1)
    """
    part = out.with_name(f".{out.name}.part")
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    try:
        yield part
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
