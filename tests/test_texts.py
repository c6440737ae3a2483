"""Text is cleaned in one place, and read from files, pipes and streams line by line."""

import gzip
import io
import os
import subprocess
import sys
import threading
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformer.texts import clean, decode_line, lines_of, read_lines


@given(st.text())
def test_clean_text_is_one_line_and_stays_as_it_is_when_cleaned_again(text: str) -> None:
    line = clean(text)
    assert clean(line) == line
    assert line == unicodedata.normalize("NFC", line) == " ".join(line.split())
    assert not any(unicodedata.category(c) == "Cc" for c in line)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("i love you\r", "i love you"),
        ("\ufeffthe cat", "the cat"),
        ("the\u00a0cat\u202fis\u2003here ", "the cat is here"),
        ("a\0b\x1bc\x85d", "a b c d"),
        ("one\ntwo\u2028three\rfour", "one two three four"),
        ("e\N{COMBINING GRAVE ACCENT}", "è"),
        ("\ud800 x", "\ufffd x"),
        (" \t ", ""),
    ],
)
def test_what_nobody_sees_is_cleaned_away(text: str, line: str) -> None:
    assert clean(text) == line


def test_a_stream_is_read_line_by_line_and_a_long_line_is_cut() -> None:
    stream = io.BytesIO("\ufeffone\r\n\n".encode() + b"x" * 50 + "è\n".encode() + b"last")
    assert list(lines_of(stream, "here", 20)) == ["one", "", "x" * 20, "last"]
    stream = io.BytesIO("abcè and more\nnext\n".encode())
    assert list(lines_of(stream, "here", 4)) == ["abc", "next"], "no half character is left"


def test_a_line_of_50_mb_is_skipped_in_blocks() -> None:
    class Huge(io.RawIOBase):
        """A line of 50 MB that is made as it is read."""

        left = 50 * 2**20
        largest = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer) -> int:
            n = min(len(buffer), self.left)
            buffer[:n] = b"x" * n
            self.left -= n
            self.largest = max(self.largest, n)
            return n

    raw = Huge()
    assert list(lines_of(io.BufferedReader(raw), "here", 100)) == ["x" * 100]
    assert raw.left == 0 and raw.largest <= 2**20


@pytest.mark.parametrize(
    ("line", "number", "reason"),
    [
        ("caffè".encode("latin-1"), 3, "line 3 of a.txt is not UTF-8 text: byte 5 is wrong"),
        ("caffè".encode("utf-16"), 1, "line 1 of a.txt is not UTF-8 text: it begins like UTF-16"),
        ("caffè".encode()[:-1], 2, "line 2 of a.txt is not UTF-8 text: byte 5 is wrong"),
    ],
)
def test_another_encoding_is_named_with_the_line(line: bytes, number: int, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        decode_line(line, number, "a.txt")
    assert str(caught.value) == reason


def test_a_gzipped_file_is_known_by_its_content(tmp_path) -> None:
    path = tmp_path / "a"  # as process substitution names it: without .gz
    path.write_bytes(gzip.compress(b"one\ntwo\n"))
    assert read_lines(path) == ["one", "two"]
    content = bytearray(gzip.compress(os.urandom(5000)))
    content[2500] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match="a is a damaged gzip file"):
        read_lines(path)


def test_a_folder_is_not_text(tmp_path) -> None:
    with pytest.raises(OSError, match="is a folder, not a file of text"):
        read_lines(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_named_pipe_is_read_as_a_file(tmp_path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"one\ntwo\n",), daemon=True)
    writer.start()
    assert read_lines(path) == ["one", "two"]


@pytest.mark.skipif(sys.platform == "win32", reason="no bash")
def test_process_substitution_is_read_as_a_file() -> None:
    code = "import sys; from transformer.texts import read_lines; print(read_lines(sys.argv[1]))"
    script = f"{sys.executable} -c '{code}' <(printf 'one\\ntwo\\n' | gzip)"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['one', 'two']"
