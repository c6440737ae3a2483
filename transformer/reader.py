"""From texts of any kind to ids: each is cleaned, and what cannot be translated is reported."""

import warnings
from collections.abc import Callable, Iterable, Sequence

from tokenizers import Tokenizer

from transformer.data import BLANK, EOS, problem_of
from transformer.texts import clean

OnProblem = Callable[[int, str], None]
"""Called with the number of a text, from 1, and with what is wrong with it."""
ANY_LENGTH = 10**6
"""Characters below which a text is cleaned before its length is looked at."""


def warn_about(number: int, problem: str) -> None:
    """Warn that a text has an empty translation, unless the text is blank itself."""
    if problem != BLANK:
        warnings.warn(f"text {number} {problem}; its translation is empty", stacklevel=5)


def refuse(number: int, problem: str) -> None:
    """Raise a ValueError about a text."""
    raise ValueError(f"text {number} {problem}")


def read_texts(
    tokenizer: Tokenizer,
    texts: Iterable[str],
    max_len: int,
    most_characters: int,
    on_problem: OnProblem,
) -> list[list[int]]:
    """Return the ids of every text, ended by </s>; none for a text with a problem.

    A text has a problem if it is blank, has no known character, more than `max_len` tokens or more
    than `most_characters`, which are not even split into tokens. Raises ValueError for what is not
    a string.
    """
    lines, lengths = clean_lines(texts, most_characters)
    rows = [encoding.ids for encoding in tokenizer.encode_batch(lines)]
    for i, line in enumerate(lines):
        problem = problem_of(tokenizer, line, rows[i])
        limit = f"the model's max_len is {max_len}: split it"
        if lengths[i] > most_characters:
            problem = f"has more than {most_characters:,} characters, {limit}"
        elif len(rows[i]) >= max_len:
            problem = f"has {len(rows[i]) + 1} tokens, {limit}"
        rows[i] = [] if problem else [*rows[i], EOS]
        if problem:
            on_problem(i + 1, problem)
    return rows


def clean_lines(texts: Iterable[str], most_characters: int) -> tuple[list[str], Sequence[int]]:
    """Return the texts as clean lines, and how long they were; "" for one that is too long."""
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        raise ValueError(f"translate takes a list of sentences, not one {type(texts).__name__}")
    lines = []
    lengths = []
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise ValueError(f"text {number} is not a string but a {type(text).__name__}")
        line = clean(text) if len(text) <= most_characters + ANY_LENGTH else text
        lengths.append(len(line))
        lines.append(line if len(line) <= most_characters else "")
    return lines, lengths
