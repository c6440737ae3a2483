"""The encoder-decoder of "Attention Is All You Need" (Vaswani et al. 2017), in PyTorch and einops.

Each chapter of the course is a module: `transformer/attention.py` is
`notebooks/03_attention.ipynb`. Prose, einops patterns and type signatures share one glossary of
axis letters, `AXES`.
"""

AXES = {
    "b": "batch: one sentence",
    "t": "position in a sentence",
    "q": "query position: who asks",
    "k": "key position: who is asked",
    "h": "head",
    "d": "feature",
    "v": "vocabulary entry",
    "n": "beam: one of several hypotheses for a sentence",
    "c": "candidate: an extension of a hypothesis",
    "r": "row: hypotheses of all sentences, one after another",
}

__version__ = "0.1.0"

from transformer.model import Config, Transformer  # noqa: E402

__all__ = ["AXES", "Config", "Transformer", "__version__"]
