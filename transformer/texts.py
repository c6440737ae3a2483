"""Clean text and lines: what is read from a file, from standard input or from a caller is the same.

A sentence comes from many places, with a byte order mark, a carriage return or a no-break space
that nobody sees and that a vocabulary may not know. So every way in goes through `clean`.
"""

import gzip
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

BLOCK = 2**20
"""Bytes that are read at once when the rest of a line is skipped."""
FOREIGN = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
"""What text in another encoding begins with."""

_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), " ")
_BYTE_ORDER_MARK = {0xFEFF: None}


@runtime_checkable
class BytesStream(Protocol):
    """What lines of bytes are read from, such as `sys.stdin.buffer`."""

    def readline(self, size: int, /) -> bytes:
        """Return the next line, but at most `size` bytes of it; no bytes at the end."""
        ...


def clean(text: str) -> str:
    """Return a text as one line in Unicode's composed form (NFC), words separated by one space.

    Control characters, line ends and all kinds of space (no-break, thin, ideographic …) count as
    spaces, byte order marks are dropped, and half a surrogate pair becomes U+FFFD.
    """
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    words = text.translate(_CONTROLS | _BYTE_ORDER_MARK).split()
    return unicodedata.normalize("NFC", " ".join(words))


def most_characters(vocabulary: Iterable[str], max_len: int) -> int:
    """Return the length of the longest clean text that can have at most `max_len` tokens."""
    return max_len * max(map(len, vocabulary))


def read_lines(path: str | Path) -> list[str]:
    """Return the lines of a text file, each cleaned.

    The file is UTF-8 and may be gzipped or a named pipe. A line ends only at a line feed, because
    the lines of two files must stay aligned.
    Raises FileNotFoundError if there is none, OSError if it cannot be read, ValueError if it is
    damaged or not UTF-8.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a file of text")
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        content = _unpacked(content, path)
    lines = content.removesuffix(b"\n").split(b"\n")
    return [decode_line(line, i, str(path)) for i, line in enumerate(lines, start=1)]


def _unpacked(content: bytes, path: Path) -> bytes:
    """Return the content of a gzipped file."""
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is a damaged gzip file ({error!s:.200})") from None


def lines_of(stream: BytesStream, name: str, limit: int) -> Iterator[str]:
    """Yield the cleaned lines of a stream as they come; of each no more than `limit` bytes.

    Raises ValueError, which names the stream and the line, for what is not UTF-8.
    """
    number = 0
    while line := stream.readline(limit):
        number += 1
        if not line.endswith(b"\n") and skip_line(stream):
            line = line.decode("utf-8", "ignore").encode()  # it may end within a character
        yield decode_line(line, number, name)


def skip_line(stream: BytesStream) -> int:
    """Read up to the next line feed or the end, and return how many bytes that were."""
    skipped = 0
    while block := stream.readline(BLOCK):
        skipped += len(block)
        if block.endswith(b"\n"):
            break
    return skipped


def decode_line(line: bytes, number: int, name: str) -> str:
    """Return a line of UTF-8 as clean text; ValueError if it is not UTF-8."""
    try:
        return clean(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        encoding = FOREIGN.get(line[:2]) if number == 1 else None
        reason = f"it begins like {encoding}" if encoding else f"byte {error.start + 1} is wrong"
        raise ValueError(f"line {number} of {name} is not UTF-8 text: {reason}") from None
