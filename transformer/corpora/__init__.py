"""Corpora: pairs of sentences to train on, to validate with and to test with.

- `english_italian()` writes the course's own corpus with a grammar; nothing is downloaded.
- `multi30k()` reads or downloads captions of photographs in four languages.
- `text_files()` reads a corpus of your own from aligned text files.

Each returns a `Corpus`. `read_pairs()` reads a single split.
"""

from transformer.corpora.corpus import Corpus
from transformer.corpora.english_italian import english_italian
from transformer.corpora.multi30k import multi30k
from transformer.corpora.text_files import read_pairs, text_files

__all__ = ["Corpus", "english_italian", "multi30k", "read_pairs", "text_files"]
