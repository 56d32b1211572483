"""Files of events: JSON lines, plain, zstd or gzip, read in chunks of raw lines and written whole or not at all.

In: a path, or ``-`` for standard input and output.
Out: lists of lines as bytes, without their newline; or a file that appears under its name when it is complete.
Must not know: what a line means. Rules: memory is bounded whatever the file holds (long lines are cut, compressed
blocks unpacked piece by piece); a damaged or cut-off file is a `FileError`, never a silent end.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, cast

import zstandard

CHUNK_ROWS = 8192
"""Lines of a chunk: large enough that the cost per chunk vanishes, small enough to stay in the cache (about 1.5 MB)."""

CHUNK_BYTES = 8 << 20
"""A chunk is closed early once it holds this much, so that few huge lines do not add up to gigabytes."""

LINE_BYTES = 1 << 20
"""Longer lines are cut to this. An event may have 64 KiB, so a cut line is refused for its size like the whole one."""

BLOCK_BYTES = 1 << 20
"""Read and split at a time; 256 KiB to 4 MiB measured alike (2 cores, 2026)."""

PACKED_BYTES = 4 << 10
"""Compressed bytes handed to zstd at a time. Its densest block unpacks 32,000-fold: 128 MiB from this, never more."""

ZSTD_MAGIC, GZIP_MAGIC, BOM = b"\x28\xb5\x2f\xfd", b"\x1f\x8b", b"\xef\xbb\xbf"
FOREIGN = {b"PAR1": "a Parquet file", b"PK\x03\x04": "a zip archive", b"BZh": "a bzip2 file", b"\xfd7zXZ": "an xz file"}
"""First bytes of what people pass by mistake. Anything else is read as lines, and bad lines become dead letters."""


class FileError(Exception):
    """A file of events cannot be read or written; one sentence with the path and what to do about it.

    Attributes
    ----------
    path
        The file as it was named, ``-`` for standard input or output.
    """

    def __init__(self, path: Path | str, sentence: str) -> None:
        super().__init__(sentence)
        self.path = str(path)


def read_records(
    path: Path | str, *, rows: int = CHUNK_ROWS, max_bytes: int = CHUNK_BYTES, stdin: BinaryIO | None = None
) -> Iterator[list[bytes]]:
    r"""Yield the lines of a file of events in chunks, blank lines left out.

    What the file is (plain, zstd, gzip) is told by its first bytes, not by its name. Lines above `LINE_BYTES`
    are cut to that length, so that they are refused downstream instead of filling memory.

    Parameters
    ----------
    path
        The file; ``-`` reads standard input.
    rows
        Lines of a chunk; the last one may hold fewer.
    max_bytes
        A chunk is closed early when it holds about this much.
    stdin
        Stands in for standard input.

    Raises
    ------
    FileError
        If the file is missing, unreadable, cut off or of another format.

    Examples
    --------
    >>> import io
    >>> list(read_records("-", rows=2, stdin=io.BytesIO(b'{"a":1}\n\n{"a":2}\n{"a":3}')))
    [[b'{"a":1}', b'{"a":2}'], [b'{"a":3}']]
    """
    pending: list[bytes] = []
    held_bytes = 0
    for lines in _lines(_blocks(path, stdin)):
        pending += lines
        held_bytes += sum(map(len, lines))
        while len(pending) >= rows:
            yield pending[:rows]
            del pending[:rows]
            held_bytes = sum(map(len, pending))
        if held_bytes >= max_bytes:
            yield pending
            pending, held_bytes = [], 0
    if pending:
        yield pending


def _lines(blocks: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Split blocks at newlines; a line that outgrows the limit keeps its head and loses the rest."""
    rest = b""
    first = True
    for block in blocks:
        if first:
            block = block.removeprefix(BOM)
            first = False
        lines = (rest + block).split(b"\n")
        rest = lines.pop()[:LINE_BYTES]
        yield [line[:LINE_BYTES] for line in lines if line and not line.isspace()]
    if rest and not rest.isspace():
        yield [rest]


def _blocks(path: Path | str, stdin: BinaryIO | None) -> Iterator[bytes]:
    """Unpacked content in pieces of at most `BLOCK_BYTES`; every error of the system becomes a `FileError`."""
    try:
        with _Source(path, stdin) as source:
            for piece in source.unpacked():
                for start in range(0, len(piece), BLOCK_BYTES):
                    yield piece[start : start + BLOCK_BYTES] if len(piece) > BLOCK_BYTES else piece
    except (OSError, ValueError) as error:
        raise FileError(path, _unreadable(path, error)) from error


def _unreadable(path: Path | str, error: OSError | ValueError) -> str:
    name = repr(str(path))
    match error:
        case FileNotFoundError():
            return f"{name} does not exist; check the path"
        case IsADirectoryError():
            return f"{name} is a directory; name the files of events in it"
        case PermissionError():
            return f"{name} may not be read by this user; change its permissions"
        case OSError():
            return f"{name} cannot be read ({error.strerror or error}); check the disk or copy the file again"
        case _:
            return f"{name} is no usable path ({error}); check its characters"


class _Source:
    """An opened input together with its first bytes, which say how to unpack it."""

    def __init__(self, path: Path | str, stdin: BinaryIO | None) -> None:
        self.path = path
        self.owned = str(path) != "-"
        self.file: BinaryIO = open(path, "rb") if self.owned else (stdin or sys.stdin.buffer)  # noqa: SIM115 - __exit__

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *_: object) -> None:
        if self.owned:
            self.file.close()

    def unpacked(self) -> Iterator[bytes]:
        head = self.file.read(BLOCK_BYTES)
        name = repr(str(self.path))
        for magic, what in FOREIGN.items():
            if head.startswith(magic):
                raise FileError(
                    self.path, f"{name} is {what}, not lines of events; see `shelftide convert --help` for data sets"
                )
        suffix = Path(str(self.path)).suffix
        if head.startswith(ZSTD_MAGIC):
            yield from self._unzstd(head)
        elif head.startswith(GZIP_MAGIC):
            yield from self._gunzip(head)
        elif suffix in (".zst", ".gz") and not head.lstrip(BOM + b" \t\r\n").startswith(b"{"):
            raise FileError(self.path, f"{name} is no {suffix[1:]} file in spite of its name; fetch or write it again")
        else:
            yield from self._packed(head)

    def _packed(self, head: bytes) -> Iterator[bytes]:
        while head:
            yield head
            head = self.file.read(BLOCK_BYTES)

    def _unzstd(self, head: bytes) -> Iterator[bytes]:
        unpacker = zstandard.ZstdDecompressor().decompressobj()
        fresh = True  # nothing of the present frame was read, so the end of the file is allowed here
        for block in self._packed(head):
            for start in range(0, len(block), PACKED_BYTES):
                packed = block[start : start + PACKED_BYTES]
                while packed:
                    try:
                        piece = unpacker.decompress(packed)
                    except zstandard.ZstdError as error:
                        raise self._damaged("zst", str(error)) from error
                    packed, fresh = (unpacker.unused_data, True) if unpacker.eof else (b"", False)
                    if fresh:
                        unpacker = zstandard.ZstdDecompressor().decompressobj()
                    yield piece
        if not fresh:
            raise self._cut_off("zst")

    def _gunzip(self, head: bytes) -> Iterator[bytes]:
        unpacker = zlib.decompressobj(31)
        fresh = True
        for block in self._packed(head):
            packed = block.lstrip(b"\0") if fresh else block  # zeros pad the end of tapes and of some tools' files
            while packed:
                try:
                    piece = unpacker.decompress(packed, BLOCK_BYTES)
                except zlib.error as error:
                    raise self._damaged("gz", str(error)) from error
                packed, fresh = unpacker.unconsumed_tail, False
                if unpacker.eof:
                    packed, fresh = unpacker.unused_data.lstrip(b"\0"), True
                    unpacker = zlib.decompressobj(31)
                yield piece
        if not fresh:
            raise self._cut_off("gz")

    def _damaged(self, form: str, why: str) -> FileError:
        return FileError(self.path, f"{str(self.path)!r} is damaged as a {form} file ({why}); fetch or write it again")

    def _cut_off(self, form: str) -> FileError:
        return FileError(
            self.path, f"{str(self.path)!r} ends in the middle of its {form} data; fetch or write it again"
        )


class _Packer(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _packer(path: Path | str) -> _Packer:
    match Path(str(path)).suffix:
        case ".zst":
            return cast(_Packer, zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj())
        case ".gz":
            return zlib.compressobj(6, zlib.DEFLATED, 31)  # no name and no time in the header: same bytes every run
        case _:
            return _Plain()


class EventWriter:
    r"""Write a file of events that appears under its name only when it is complete.

    Lines go to a file beside the target, renamed at the end and removed on an error. A suffix ``.zst`` or ``.gz``
    packs; ``-`` and what is no regular file (a pipe, a device) are written straight. The same lines give the same
    bytes, however they are divided among calls.

    Raises
    ------
    FileError
        From any method: the folder is missing, the disk full, the reader of the pipe gone.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "events.jsonl.zst"
    >>> with EventWriter(path) as out:
    ...     out.write([b'{"a":1}', b'{"a":2}'])
    ...     out.write_block(b'{"a":3}\n')
    >>> list(read_records(path)), out.lines, out.size_bytes
    ([[b'{"a":1}', b'{"a":2}', b'{"a":3}']], 3, 24)
    """

    def __init__(self, path: Path | str, *, stdout: BinaryIO | None = None) -> None:
        self.path = path
        self.lines = 0
        self.size_bytes = 0
        """Bytes before packing."""
        self._packer = _packer(path)
        self._stdout = stdout
        self._file: BinaryIO | None = None
        self._part: Path | None = None

    def __enter__(self) -> EventWriter:
        if str(self.path) == "-":
            self._file = self._stdout or sys.stdout.buffer
            return self
        target = Path(self.path)
        try:
            if target.is_dir():
                raise IsADirectoryError
            if target.exists() and not target.is_file():
                self._file = target.open("wb")
            else:
                self._part = target.with_name(f".{target.name}.{os.getpid()}.part")
                self._file = self._part.open("wb")
        except (OSError, ValueError) as error:
            raise FileError(self.path, self._unwritable(error)) from error
        return self

    def write(self, lines: Iterable[bytes]) -> None:
        """Add lines, given without newline."""
        block = b"\n".join(lines)
        if block:
            self.write_block(block + b"\n")

    def write_block(self, block: bytes) -> None:
        """Add whole lines, each with its newline."""
        self.lines += block.count(b"\n")
        self.size_bytes += len(block)
        self._put(self._packer.compress(block))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self._put(self._packer.flush())
            self._close()
            if kind is None and self._part is not None:
                self._part.replace(self.path)
        except OSError as failure:
            raise FileError(self.path, self._unwritable(failure)) from failure
        finally:
            with suppress(OSError):
                self._close()
            if self._part is not None:
                with suppress(OSError):
                    self._part.unlink(missing_ok=True)

    def _put(self, data: bytes) -> None:
        if self._file is None:
            raise FileError(self.path, "EventWriter writes inside a with statement only")
        try:
            self._file.write(data)
        except OSError as error:
            raise FileError(self.path, self._unwritable(error)) from error

    def _close(self) -> None:
        if self._file is None:
            return
        if str(self.path) == "-":
            self._file.flush()
        else:
            self._file.close()

    def _unwritable(self, error: OSError | ValueError) -> str:
        name = "standard output" if str(self.path) == "-" else repr(str(self.path))
        match error:
            case FileNotFoundError() | NotADirectoryError():
                return f"the folder of {name} does not exist; create it first"
            case IsADirectoryError():
                return f"{name} is a directory; name a file to write"
            case PermissionError():
                return f"{name} may not be written by this user; choose another place"
            case BrokenPipeError():
                return f"the reader of {name} closed it before the end; nothing more was written"
            case OSError():
                return f"{name} could not be written ({error.strerror or error}); free space or choose another place"
            case _:
                return f"{name} is no usable path ({error}); check its characters"
